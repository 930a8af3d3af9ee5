//! Traces: a collector gets them whole, with nothing secret in them, and the hub does not mind one that is away.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use nave_auth::{DEVICE_KEY_LENGTH, KeyPair, SharedKey};
use nave_tests::http::Request;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message as _;

use super::device::{Device, Link, register, telemetry};
use super::metrics::scrape;
use super::server::{Ready, Site};
use super::service::{Service, dial};
use super::{in_time, run};

/// What a client says with its request.
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const SECRET: &str = "Bearer of-the-collector";
const PAYLOAD: &str = "canary-of-a-payload";

/// Of the enrollment group; the device's key is derived from them.
const GROUP_KEYS: [&str; 2] =
    ["YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXoxMjM0NTY=", "MTIzNDU2Nzg5MGFiY2RlZmdoaWprbG1ub3BxcnN0dXY="];

type Requests = Arc<Mutex<Vec<Request>>>;

/// Takes what exporters send.
#[derive(Clone)]
struct Collector {
    address: std::net::SocketAddr,
    requests: Requests,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let collector = Self { address: listener.local_addr().unwrap(), requests: Arc::default() };
        let requests = Arc::clone(&collector.requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let requests = Arc::clone(&requests);
                std::thread::spawn(move || serve(stream, &requests));
            }
        });
        collector
    }

    fn section(&self, more: &str) -> String {
        format!("\n[traces]\nendpoint = \"http://{}/v1/traces\"\n{more}", self.address)
    }

    fn spans(&self) -> Spans {
        let requests = self.requests.lock();
        let decoded = requests.iter().map(|request| ExportTraceServiceRequest::decode(&request.body[..]).unwrap());
        let scopes = decoded.flat_map(|request| request.resource_spans).flat_map(|resource| resource.scope_spans);
        Spans(scopes.flat_map(|scope| scope.spans).collect())
    }
}

/// Answers requests on one connection until it ends.
fn serve(mut stream: TcpStream, requests: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = Request::read(&mut reader) {
        requests.lock().push(request);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    }
}

struct Spans(Vec<Span>);

impl Spans {
    /// The only span with these attributes.
    fn the(&self, name: &str, wanted: &[(&str, &str)]) -> &Span {
        let found: Vec<_> = self
            .0
            .iter()
            .filter(|span| {
                let attributes = attributes(span);
                span.name == name
                    && wanted.iter().all(|(key, value)| attributes.get(*key).is_some_and(|have| have == value))
            })
            .collect();
        assert_eq!(found.len(), 1, "{name} {wanted:?} of {:?}", self.names());
        found[0]
    }

    fn parent<'a>(&'a self, span: &Span) -> Option<&'a Span> {
        self.0.iter().find(|other| other.span_id == span.parent_span_id)
    }

    /// The spans right below, by name and, for functions, theirs.
    fn children(&self, span: &Span) -> Vec<String> {
        let below = self.0.iter().filter(|other| other.parent_span_id == span.span_id);
        let mut names: Vec<_> = below
            .inspect(|child| {
                assert_eq!(child.trace_id, span.trace_id);
                assert!(child.start_time_unix_nano >= span.start_time_unix_nano);
                assert!(child.end_time_unix_nano <= span.end_time_unix_nano, "{} in {}", child.name, span.name);
            })
            .map(|child| match attributes(child).get("nave.function") {
                Some(function) => format!("{} {function}", child.name),
                None => child.name.clone(),
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn names(&self) -> Vec<(&str, BTreeMap<String, String>)> {
        self.0.iter().map(|span| (span.name.as_str(), attributes(span))).collect()
    }
}

fn attributes(span: &Span) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value {
        Some(AnyValue::StringValue(text)) => text,
        Some(AnyValue::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pairs = span.attributes.iter().cloned();
    pairs.map(|pair| (pair.key, text(pair.value.and_then(|value| value.value)))).collect()
}

/// A change of a twin by a service that traces itself.
async fn patch_twin(ready: &Ready, service: &Service, device: &str) {
    let mut stream = dial(ready, ready.https()).await.unwrap();
    let body = format!("{{\"properties\":{{\"desired\":{{\"{PAYLOAD}\":\"{PAYLOAD}\"}}}}}}");
    let request = format!(
        "PATCH /twins/{device}?api-version=2021-04-12&{PAYLOAD}=1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\
         traceparent: {PARENT}\r\nIf-Match: *\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        service.authorization(),
        body.len()
    );
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    in_time("the answer", stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn one_trace_goes_through_listener_session_function_store_and_log() {
    run(async {
        let collector = Collector::start();
        let site = Site::with(
            &collector.section("sample_ratio = 1.0\nheaders_file = \"headers\"\nservice_name = \"hub-of-the-test\"\n"),
        );
        fs::write(site.root().join("headers"), format!("Authorization: {SECRET}\n")).unwrap();
        let (hub, ready) = site.start();
        let service = Service::hub(&ready);
        let keys = KeyPair::from_base64(GROUP_KEYS[0], GROUP_KEYS[1]).unwrap();
        let key = enroll(&ready, "traced", &keys, "device-1").await;
        assert_eq!(register(&ready, "device-1", &key).await, "hub1.nave.test");
        let mut device = Device::connect(&ready, "device-1", &key).await.unwrap();
        device.report(&format!("{{\"{PAYLOAD}\":1}}")).await.unwrap();
        device.telemetry(PAYLOAD.as_bytes()).await.unwrap();
        patch_twin(&ready, &service, "device-1").await;
        hub.stop();

        let spans = collector.spans();
        for (operation, below) in [
            ("register", &["function allocation", "function provisioning", "function twin", "store.commit"][..]),
            ("twin_patch", &["function twin", "store.commit"]),
            ("telemetry", &["log.append"]),
        ] {
            let session = spans.the("session", &[("nave.operation", operation), ("nave.device", "device-1")]);
            assert_eq!(spans.children(session), below, "{operation}");
            let listener = spans.parent(session).unwrap_or_else(|| panic!("{operation} has a listener"));
            assert_eq!((listener.name.as_str(), &listener.parent_span_id[..]), ("listener", &[][..]));
            assert_eq!(attributes(listener)["network.protocol.name"], "mqtt");
            assert_eq!(spans.children(listener), ["session"]);
        }
        let http = spans.the("http", &[("http.request.method", "PATCH")]);
        assert_eq!(spans.children(http), ["function twin", "store.commit"]);
        assert_eq!(attributes(http)["http.response.status_code"], "200");
        let listener = spans.parent(http).unwrap();
        assert_eq!(listener.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
        assert_eq!(listener.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());

        let requests = collector.requests.lock();
        let secrets = [
            PAYLOAD.to_owned(),
            "SharedAccessSignature".to_owned(),
            key.expose_base64(),
            keys.primary.expose_base64(),
            "of-the-collector".to_owned(),
        ];
        for request in requests.iter() {
            assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/v1/traces"));
            assert_eq!(request.field("authorization"), Some(SECRET));
            let text = String::from_utf8_lossy(&request.body);
            assert!(text.contains("hub-of-the-test"));
            for secret in &secrets {
                assert!(!text.contains(secret.as_str()), "{secret} is in a trace");
            }
        }
        assert!(!site.log().contains("of-the-collector"));
    });
}

#[test]
fn traces_are_switched_on_and_off_while_the_hub_runs() {
    run(async {
        let collector = Collector::start();
        let site = Site::new();
        let (hub, ready) = site.start();
        let service = Service::hub(&ready);
        let key = SharedKey::from_bytes(&[9; DEVICE_KEY_LENGTH]).unwrap();
        service.create_device("d", &key).await;
        let mut device = Device::connect(&ready, "d", &key).await.unwrap();
        device.telemetry(b"{}").await.unwrap();
        let without = fs::read_to_string(site.config()).unwrap();

        // None by itself; but what a client that traces itself asks for.
        fs::write(site.config(), without.clone() + &collector.section("sample_ratio = 0.0\n")).unwrap();
        super::reload::reload(&site, &hub, "reloaded: configuration, certificate, functions").await;
        device.telemetry(b"{}").await.unwrap();
        let mut bytes = Vec::new();
        let bag = format!("%24.diagid={PARENT}");
        telemetry(&mut bytes, "d", &bag, b"{}", nave_mqtt::packet::PacketId::new(77).unwrap(), false);
        acknowledged(&mut device.link, &bytes).await;
        in_time("a trace", async {
            while collector.spans().0.len() < 3 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let spans = collector.spans();
        assert_eq!(spans.0.len(), 3, "{:?}", spans.names());
        assert_eq!(spans.children(spans.the("session", &[("nave.operation", "telemetry")])), ["log.append"]);
        let admin = ready.json["admin"]["token"].as_str().unwrap();
        let page = scrape(&ready, admin).await;
        assert_eq!(page.value("nave_trace_spans_total", &[("outcome", "exported")]), 3.0);

        fs::write(site.config(), without).unwrap();
        super::reload::reload(&site, &hub, "reloaded: configuration, certificate, functions").await;
        acknowledged(&mut device.link, &bytes).await;
        hub.stop();
        assert_eq!(collector.spans().0.len(), 3);
    });
}

#[test]
fn a_collector_that_is_away_costs_traces_and_one_line() {
    run(async {
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let site = Site::with(&format!("\n[traces]\nendpoint = \"http://{nobody}/v1/traces\"\nsample_ratio = 1.0\n"));
        let (hub, ready) = site.start();
        let service = Service::hub(&ready);
        let key = SharedKey::from_bytes(&[9; DEVICE_KEY_LENGTH]).unwrap();
        service.create_device("d", &key).await;
        let mut device = Device::connect(&ready, "d", &key).await.unwrap();
        let admin = ready.json["admin"]["token"].as_str().unwrap();
        let mut failed = 0.0;
        in_time("a second batch that is lost", async {
            let mut batches = 0;
            while batches < 2 {
                device.telemetry(b"{}").await.expect("telemetry has nothing to do with traces");
                let now = scrape(&ready, admin).await.value("nave_trace_spans_total", &[("outcome", "failed")]);
                if now > failed {
                    (failed, batches) = (now, batches + 1);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        hub.stop();
        assert!(site.log().contains("traces are lost"), "{}", site.log());
    });
}

async fn acknowledged(link: &mut Link, bytes: &[u8]) {
    link.send(bytes).await.unwrap();
    while !matches!(link.next().await.unwrap(), super::device::Incoming::Acknowledged(_)) {}
}

/// An enrollment group, and the key of one of its devices.
async fn enroll(ready: &Ready, group: &str, keys: &KeyPair, device: &str) -> SharedKey {
    let body = serde_json::json!({
        "enrollmentGroupId": group,
        "attestation": { "type": "symmetricKey", "symmetricKey": {
            "primaryKey": keys.primary.expose_base64(), "secondaryKey": keys.secondary.expose_base64() } },
    });
    let target = format!("/enrollmentGroups/{group}?api-version=2021-10-01");
    Service::provisioning(ready).json("PUT", &target, &body.to_string()).await;
    keys.derive(device).primary
}
