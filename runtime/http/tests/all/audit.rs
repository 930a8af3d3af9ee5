//! Audit records of requests whose client does not wait for the answer.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Once;
use std::time::Duration;

use nave_env::Env as _;
use nave_hub::Subscriptions;
use serde_json::{Value, json};
use tracing::subscriber::set_global_default;

use crate::world::{Ask, World};

thread_local! {
    /// What the running test's thread logs.
    static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes for the thread that logs.
struct Lines;

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.with_borrow_mut(|lines| lines.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Action, object and outcome of the records that `work` leaves.
fn records(work: impl FnOnce()) -> Vec<[String; 3]> {
    // One subscriber for all threads: whether a place logs at all is remembered for the whole process, as it looks from the
    // thread that comes there first.
    static SUBSCRIBER: Once = Once::new();
    SUBSCRIBER.call_once(|| {
        set_global_default(tracing_subscriber::fmt().json().with_writer(|| Lines).finish()).unwrap();
    });
    LINES.take();
    work();
    let bytes = LINES.take();
    String::from_utf8(bytes)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event["target"] == nave_hub::audit::TARGET)
        .map(|event| {
            ["action", "object", "outcome"].map(|name| event["fields"][name].as_str().unwrap_or_default().to_owned())
        })
        .collect()
}

/// Sends a request, hangs up before anything of an answer can be there, and waits for what becomes of it.
fn hang_up(world: &World, ask: Ask<'_>) {
    let hanging_up = async {
        let mut answer = pin!(ask.answer());
        std::future::poll_fn(|context| {
            assert!(answer.as_mut().poll(context).is_pending(), "a commit takes its time");
            std::task::Poll::Ready(())
        })
        .await;
    };
    world.simulation.run(hanging_up).unwrap();
    world.simulation.run(world.env.sleep(Duration::from_secs(1))).unwrap();
}

fn row(action: &str, object: &str, outcome: &str) -> [String; 3] {
    [action.to_owned(), object.to_owned(), outcome.to_owned()]
}

#[test]
fn a_change_is_recorded_with_its_outcome_also_if_nobody_waits_for_it() {
    let world = World::new();
    let device = json!({ "deviceId": "d" });
    let items = json!([{ "id": "e", "importMode": "create" }, { "id": "absent", "importMode": "delete" }]);
    let enrollment = json!({ "registrationId": "r", "attestation": { "type": "symmetricKey" } });
    let told = records(|| {
        hang_up(&world, world.hub_request("PUT", "/devices/d").json(&device));
        hang_up(&world, world.hub_request("DELETE", "/devices/nobody").header("If-Match", "*"));
        hang_up(&world, world.hub_request("POST", "/devices/").json(&items));
        hang_up(&world, world.dps_request("PUT", "/enrollments/r").json(&enrollment));
        hang_up(&world, world.admin_request("DELETE", "/admin/hubs/hub1/authorities/nobody"));
    });
    assert_eq!(
        told,
        [
            row("PUT", "/devices/d", "200"),
            row("DELETE", "/devices/nobody", "404001 DeviceNotFound"),
            row("create", "/devices/e", "200"),
            row("delete", "/devices/absent", "404001 DeviceNotFound"),
            row("POST", "/devices", "in part"),
            row("PUT", "/enrollments/r", "200"),
            row("DELETE", "/admin/hubs/hub1/authorities/nobody", "404000 GenericNotFound"),
        ]
    );
    world.hub_request("GET", "/devices/d").send().json();
    world.hub_request("GET", "/devices/e").send().json();
    world.dps_request("GET", "/enrollments/r").send().json();
}

#[test]
fn a_method_call_that_nobody_waits_for_is_broken_off_and_recorded() {
    let world = World::new();
    world.create_device("d");
    let (_session, messages) = world.connect("d", Subscriptions::METHODS);
    let call = json!({ "methodName": "m", "payload": null, "responseTimeoutInSeconds": 30 });
    let told = records(|| {
        let calling = async {
            let answer = pin!(world.hub_request("POST", "/twins/d/methods").json(&call).answer());
            let ten_seconds = world.env.sleep(Duration::from_secs(10));
            futures_util::future::select(answer, ten_seconds).await;
        };
        world.simulation.run(calling).unwrap();
    });
    assert_eq!(messages.all().len(), 1);
    assert_eq!(told, [row("POST", "/twins/d/methods", "broken off")]);
}
