//! `/twins/{id}/methods`.

use std::time::Duration;

use futures_util::future::join;
use nave_env::Env as _;
use nave_hub::{Subscriptions, ToDevice};
use serde_json::{Value, json};

use crate::world::{Answer, World};

/// Asserts an error in the form of methods, with `ExceptionMessage` empty as the Java SDK needs it. Returns the inner object.
#[track_caller]
fn nested_error(answer: &Answer, code: u32, name: &str) -> Value {
    assert_eq!((u32::from(answer.status), answer.header("iothub-errorcode")), (code / 1_000, Some(name)), "{answer:?}");
    let outer = answer.document();
    assert_eq!(outer["ExceptionMessage"], "");
    let inner: Value = serde_json::from_str(outer["Message"].as_str().unwrap()).unwrap();
    assert_eq!(inner["errorCode"], code);
    assert!(inner["trackingId"].as_str().unwrap().contains("-TimeStamp:"), "{inner}");
    inner
}

#[test]
fn a_method_goes_to_the_device_and_back() {
    let world = World::new();
    world.create_device("d1");
    let (session, messages) = world.connect("d1", Subscriptions::METHODS);
    let body = json!({ "methodName": "reboot", "payload": { "in": 5 }, "responseTimeoutInSeconds": 10 });
    let call = world.hub_request("POST", "/twins/d1/methods").json(&body).answer();
    let device = async {
        world.env.sleep(Duration::from_millis(200)).await;
        let [ToDevice::Method { request, name, payload }] = &messages.all()[..] else { panic!("no method came") };
        assert_eq!((name.as_str(), payload.as_str()), ("reboot", r#"{"in":5}"#));
        session.answer_method(*request, "207", br#"{"out":[1,null]}"#);
    };
    let (answer, ()) = world.simulation.run(join(call, device)).unwrap();
    assert_eq!(answer.json(), json!({ "status": 207, "payload": { "out": [1, null] } }));
}

#[test]
fn failures_have_the_nested_form() {
    let world = World::new();
    world.create_device("d1");
    let call = |id: &str, body: &str| world.hub_request("POST", &format!("/twins/{id}/methods")).text(body).send();
    let offline = nested_error(&call("d1", r#"{"methodName":"m"}"#), 404_103, "DeviceNotOnline");
    assert_eq!(offline["info"], json!({ "timeout": "00:00:00" }));
    nested_error(&call("nobody", r#"{"methodName":"m"}"#), 404_001, "DeviceNotFound");
    nested_error(&call("d1/modules/m", r#"{"methodName":"m"}"#), 404_001, "DeviceNotFound");
    nested_error(&call("d1", "nonsense"), 400_006, "IotHubFormatError");
    nested_error(&call("d1", "{}"), 400_005, "ArgumentNull");
    nested_error(&call("d1", r#"{"methodName":"m","responseTimeoutInSeconds":1}"#), 400_004, "ArgumentInvalid");
    let large = format!(r#"{{"methodName":"m","payload":"{}"}}"#, "x".repeat(140 << 10));
    nested_error(&call("d1", &large), 413_001, "MessageTooLarge");
    let (_session, _messages) = world.connect("d1", Subscriptions::METHODS);
    nested_error(&call("d1", r#"{"methodName":"m","responseTimeoutInSeconds":5}"#), 504_101, "GatewayTimeout");
    let unauthorized = world.hub_request("POST", "/twins/d1/methods").header("Authorization", "x").send();
    nested_error(&unauthorized, 401_003, "IotHubUnauthorized");
}

#[test]
fn a_device_that_answers_badly_or_is_disabled_has_its_own_code() {
    let world = World::new();
    world.create_device("d1");
    let (session, messages) = world.connect("d1", Subscriptions::METHODS);
    let call = world.hub_request("POST", "/twins/d1/methods").text(r#"{"methodName":"m"}"#).answer();
    let device = async {
        world.env.sleep(Duration::from_millis(200)).await;
        let [ToDevice::Method { request, .. }] = &messages.all()[..] else { panic!("no method came") };
        session.answer_method(*request, "two hundred", b"{");
    };
    let (answer, ()) = world.simulation.run(join(call, device)).unwrap();
    nested_error(&answer, 502_000, "BadDeviceResponse");
    let disabled = json!({ "deviceId": "d1", "status": "disabled" });
    assert_eq!(world.hub_request("PUT", "/devices/d1").header("If-Match", "*").json(&disabled).send().status, 200);
    let answer = world.hub_request("POST", "/twins/d1/methods").text(r#"{"methodName":"m"}"#).send();
    nested_error(&answer, 403_012, "DeviceDisabled");
}
