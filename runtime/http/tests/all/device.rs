//! What devices do over HTTPS: `/devices/{id}/messages/events` and `/devices/{id}/messages/devicebound`.

use std::time::Duration;

use nave_auth::{SasToken, SharedKey};
use nave_env::Env as _;
use serde_json::{Value, json};

use crate::world::{Answer, Ask, HUB, World};

/// A device, and requests that it signs.
struct Device<'a> {
    world: &'a World,
    id: &'a str,
    token: String,
}

impl<'a> Device<'a> {
    fn create(world: &'a World, id: &'a str) -> Self {
        let key = world.create_device(id)["authentication"]["symmetricKey"]["primaryKey"].as_str().unwrap().to_owned();
        let key = SharedKey::from_base64(&key).unwrap();
        let token = SasToken::create(&format!("{HUB}/devices/{id}"), &key, world.in_an_hour(), None);
        Self { world, id, token }
    }

    fn request(&self, method: &str, path: &str) -> Ask<'a> {
        let path = format!("/devices/{}/messages/{path}", self.id);
        self.world.hub_request(method, &path).header("Authorization", &self.token)
    }

    fn receive(&self) -> Answer {
        self.request("GET", "deviceBound").send()
    }

    fn events(&self) -> Vec<Value> {
        let text = self.world.hub_request("GET", "/events?from=earliest&maxWait=1").send().body;
        let lines = text.lines().filter(|line| !line.trim().is_empty()).map(|line| serde_json::from_str(line).unwrap());
        lines.filter(|event: &Value| event["deviceId"] == self.id).collect()
    }
}

fn send(world: &World, device: &str) -> Answer {
    world.hub_request("POST", &format!("/devices/{device}/messages/deviceBound")).header("iothub-ack", "full").send()
}

fn count(world: &World, device: &str) -> u64 {
    let identity = world.hub_request("GET", &format!("/devices/{device}")).send().json();
    let twin = world.hub_request("GET", &format!("/twins/{device}")).send().json();
    assert_eq!(identity["cloudToDeviceMessageCount"], twin["cloudToDeviceMessageCount"]);
    identity["cloudToDeviceMessageCount"].as_u64().unwrap()
}

fn outcomes(world: &World) -> Vec<(String, String)> {
    let answer = world.hub_request("GET", "/messages/serviceBound/feedback").send();
    if answer.status == 204 {
        return Vec::new();
    }
    let records: Vec<Value> = serde_json::from_str(&answer.body).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    records.iter().map(|record| (text(&record["originalMessageId"]), text(&record["statusCode"]))).collect()
}

#[test]
fn a_message_is_received_with_everything_that_its_sender_said() {
    let world = World::new();
    let device = Device::create(&world, "d1");
    assert_eq!((device.receive().status, count(&world, "d1")), (204, 0));
    let sent = world
        .hub_request("POST", "/devices/d1/messages/deviceBound")
        .header("iothub-messageid", "m-1")
        .header("IoTHub-CorrelationId", "c-1")
        .header("iothub-userid", "me")
        .header("iothub-ack", "Full")
        .header("iothub-expiry", &world.in_an_hour().iso())
        .header("iothub-contenttype", "text/plain")
        .header("iothub-contentencoding", "utf-8")
        .header("iothub-app-Colour", "blue & red")
        .text("hello")
        .send();
    assert_eq!((sent.status, sent.header("iothub-messageid")), (204, Some("m-1")));
    assert_eq!(count(&world, "d1"), 1);
    let got = device.receive();
    assert_eq!((got.status, got.body.as_str()), (200, "hello"));
    let token = got.header("iothub-messagelocktoken").unwrap();
    for (name, value) in [
        ("etag", format!("\"{token}\"").as_str()),
        ("iothub-messageid", "m-1"),
        ("iothub-correlationid", "c-1"),
        ("iothub-userid", "me"),
        ("iothub-to", "/devices/d1/messages/deviceBound"),
        ("iothub-ack", "full"),
        ("iothub-expiry", &world.in_an_hour().iso()),
        ("iothub-contenttype", "text/plain"),
        ("contenttype", "text/plain"),
        ("contentencoding", "utf-8"),
        ("iothub-app-colour", "blue & red"),
        ("iothub-deliverycount", "0"),
        ("iothub-sequencenumber", "1"),
    ] {
        // Time has passed since the message was sent, by some milliseconds.
        let got = got.header(name).unwrap_or_default();
        assert!(got == value || name == "iothub-expiry" && got[..19] == value[..19], "{name}: {got}");
    }
    assert_eq!(device.receive().status, 204, "what is locked is not handed out again");
    assert_eq!(count(&world, "d1"), 1);
    let path = format!("devicebound/{token}");
    assert_eq!(device.request("DELETE", &path).header("If-Match", token).send().status, 204);
    assert_eq!(count(&world, "d1"), 0);
    device.request("DELETE", &path).send().hub_error(412, "DeviceMessageLockLost");
    assert_eq!(outcomes(&world), [("m-1".to_owned(), "Success".to_owned())]);
}

#[test]
fn a_message_is_rejected_in_every_way_that_an_sdk_says_it() {
    let world = World::new();
    let device = Device::create(&world, "d1");
    for query in ["?reject", "?reject=true", "?api-version=2021-04-12&%3Freject=true"] {
        send(&world, "d1");
        let token = device.receive().header("iothub-messagelocktoken").unwrap().to_owned();
        assert_eq!(device.request("DELETE", &format!("devicebound/{token}{query}")).send().status, 204, "{query}");
        assert_eq!(outcomes(&world).pop().unwrap().1, "Rejected", "{query}");
    }
}

#[test]
fn an_abandoned_message_comes_back_and_in_the_end_does_not() {
    let world = World::new();
    let device = Device::create(&world, "d1");
    let id = send(&world, "d1").header("iothub-messageid").unwrap().to_owned();
    for delivery in 0..10 {
        let got = device.receive();
        assert_eq!(got.header("iothub-deliverycount"), Some(delivery.to_string().as_str()));
        let token = got.header("iothub-messagelocktoken").unwrap();
        // The Java SDK sends one byte.
        let abandoned = device.request("POST", &format!("devicebound/{token}/abandon")).text("\0").send();
        assert_eq!(abandoned.status, 204);
    }
    assert_eq!(device.receive().status, 204);
    assert_eq!(outcomes(&world), [(id, "DeliveryCountExceeded".to_owned())]);
}

#[test]
fn a_lock_runs_out_and_a_message_expires() {
    let world = World::new();
    let device = Device::create(&world, "d1");
    let id = send(&world, "d1").header("iothub-messageid").unwrap().to_owned();
    let first = device.receive().header("iothub-messagelocktoken").unwrap().to_owned();
    world.simulation.run(world.env.sleep(Duration::from_secs(61))).unwrap();
    device.request("DELETE", &format!("devicebound/{first}")).send().hub_error(412, "DeviceMessageLockLost");
    let again = device.receive();
    assert_eq!((again.status, again.header("iothub-deliverycount")), (200, Some("0")));
    // Nobody asks for it any more: the sender is told when its time is over.
    world.simulation.run(world.env.sleep(Duration::from_secs(3_600))).unwrap();
    assert_eq!(outcomes(&world), [(id, "Expired".to_owned())]);
    assert_eq!(count(&world, "d1"), 0);
}

#[test]
fn only_the_device_itself_is_let_in() {
    let world = World::new();
    let (one, other) = (Device::create(&world, "d1"), Device::create(&world, "d2"));
    send(&world, "d1");
    for (method, path) in
        [("POST", "events"), ("GET", "devicebound"), ("DELETE", "devicebound/x"), ("POST", "devicebound/x/abandon")]
    {
        let ask = || one.request(method, path).untouchable();
        ask().header("Authorization", &other.token).send().hub_error(401, "IotHubUnauthorized");
        ask().without("Authorization").send().hub_error(401, "IotHubUnauthorized");
        ask().header("Authorization", &world.hub_token("service")).send().hub_error(401, "IotHubUnauthorized");
        one.request("PUT", path).send().hub_error(405, "GenericMethodNotAllowed");
    }
    // Policies may act for devices if they have the right.
    let policy = one.request("GET", "devicebound").header("Authorization", &world.hub_token("device")).send();
    assert_eq!(policy.status, 200);
    let unknown = world.hub_request("POST", "/devices/d3/messages/events").header("Authorization", &one.token).send();
    unknown.hub_error(401, "IotHubUnauthorized");
    one.request("GET", "devicebound?api-version=1").send().hub_error(400, "InvalidProtocolVersion");
}

#[test]
fn a_certificate_is_proof_as_well() {
    let world = World::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "x1");
    let certificate = parameters.self_signed(&key).unwrap().der().to_vec();
    let thumbprint = nave_auth::Thumbprint::sha256(&certificate).to_string();
    let body = json!({ "deviceId": "x1", "authentication": { "x509Thumbprint": { "primaryThumbprint": thumbprint } } });
    world.hub_request("PUT", "/devices/x1").json(&body).send().json();
    let ask = |chain| {
        let ask = world.hub_request("POST", "/devices/x1/messages/events").without("Authorization").text("hi");
        ask.certificates(chain).send()
    };
    assert_eq!(ask(vec![certificate]).status, 204);
    ask(Vec::new()).hub_error(401, "IotHubUnauthorized");
    let device = Device { world: &world, id: "x1", token: String::new() };
    let method = device.events()[0]["systemProperties"]["iothub-connection-auth-method"].to_string();
    assert!(method.contains("x509"), "{method}");
}

#[test]
fn telemetry_is_what_the_headers_say() {
    let world = World::new();
    let device = Device::create(&world, "d 1".replace(' ', "-").leak());
    let sent = device
        .request("POST", "events")
        .header("iothub-to", "/devices/d%2D1/messages/events")
        .header("IoTHub-MessageId", "m")
        .header("iothub-contenttype", "application/json")
        .header("iothub-contentencoding", "utf-8")
        .header("iothub-app-level", "3")
        .header("iothub-operation", "d2c")
        .header("dt-subject", "pump")
        .header("Content-Type", "application/octet-stream")
        .text("{}");
    assert_eq!(sent.send().status, 204);
    let event = device.events().pop().unwrap();
    assert_eq!(event["properties"], json!({ "level": "3" }));
    let system = &event["systemProperties"];
    assert_eq!((&system["message-id"], &system["content-type"]), (&json!("m"), &json!("application/json")));
    assert_eq!((&system["dt-subject"], &system["to"]), (&json!("pump"), &Value::Null));
    assert_eq!(event["body"], "e30=");
}

#[test]
fn a_batch_is_taken_as_a_whole() {
    let world = World::new();
    let device = Device::create(&world, "d1");
    let ask = |body: &str| {
        let batch =
            device.request("POST", "events").header("Content-Type", "application/vnd.microsoft.iothub.json; x=y");
        batch.text(body).send()
    };
    let good = r#"[{"body":"MQ==","properties":{"iothub-app-Kind":"a"}},{"body":"2","base64Encoded":false}]"#;
    assert_eq!(ask(good).status, 204);
    let events = device.events();
    assert_eq!(events.iter().map(|event| event["body"].as_str().unwrap()).collect::<Vec<_>>(), ["MQ==", "Mg=="]);
    assert_eq!(events[0]["properties"], json!({ "Kind": "a" }));
    ask(r#"[{"body":"MQ=="},{"body":"?"}]"#).hub_error(400, "ArgumentInvalid");
    ask("[]").hub_error(400, "ArgumentInvalid");
    let large = "x".repeat(140_000);
    let two = json!([{ "body": large, "base64Encoded": false }, { "body": large, "base64Encoded": false }]);
    ask(&two.to_string()).hub_error(413, "MessageTooLarge");
    let many: Vec<Value> = (0..501).map(|_| json!({ "body": "" })).collect();
    ask(&Value::Array(many).to_string()).hub_error(413, "MessageTooLarge");
    assert_eq!(device.events().len(), 2, "nothing of a refused batch is kept");
    let single = device.request("POST", "events").text(&"x".repeat(262_145)).send();
    single.hub_error(413, "MessageTooLarge");
}
