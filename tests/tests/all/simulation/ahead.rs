//! What goes beyond the protocol, each behind a setting that is off: what changed of a twin, and registrations that are
//! answered at once.

use nave_env::Env;
use nave_hub::TwinUpdate;
use nave_model::{Identity, IfMatch};
use nave_mqtt::topic::Since;
use serde_json::{Value, json};

use super::device::Connection;
use super::world::World;

const ID: &str = "device-0";

#[test]
fn a_device_that_was_away_is_told_what_changed() {
    let world = World::new(23);
    let finished = world.simulation.run(async {
        let host = world.start("host-a").await;
        let keys = world.enroll(&host).await.derive(ID);
        let name = Connection::register(&world, &host, ID, &keys).await.unwrap();
        let hub = host.platform.hub(&nave_model::HostName::parse(&name).unwrap()).unwrap();
        let identity = Identity::parse(ID).unwrap();
        let patch = async |desired: Value| {
            let body = json!({"properties": {"desired": desired}}).to_string();
            hub.update_twin(&identity, TwinUpdate::Patch, &body, &IfMatch::None).await.unwrap();
        };
        let text = "a text that is long enough not to be sent twice";
        patch(json!({"keep": text, "inner": {"keep": text, "n": 1}, "drop": 1})).await;
        let mut device = Connection::to_hub(&world, &host, &name, ID, &keys).await.unwrap();
        let whole = device.twin("1").await.unwrap();
        assert_eq!(whole["desired"]["$version"], 2);
        let first = Some(Since { version: 0, lineage: "" });
        assert_eq!(device.twin_since("2", first).await.unwrap(), whole, "nobody is told more unless it is configured");

        hub.set_twin_catch_up(true);
        assert_eq!(device.twin("3").await.unwrap(), whole, "who does not ask gets what it always got");
        let told = device.twin_since("4", first).await.unwrap();
        let lineage = told["desired"]["$lineage"].as_str().unwrap().to_owned();
        assert_eq!(told["desired"]["keep"], text);
        device.report("5", 1).await.unwrap();
        drop(device);
        patch(json!({"inner": {"n": 2}, "drop": null})).await;
        let mut device = Connection::to_hub(&world, &host, &name, ID, &keys).await.unwrap();
        let known = |version| Some(Since { version, lineage: &lineage });
        let expected = json!({
            "desired": {"inner": {"n": 2, "$unchanged": ["keep"]}, "$unchanged": ["keep"],
                        "$since": 2, "$version": 3, "$lineage": lineage},
            "reported": {"$version": 2},
        });
        assert_eq!(device.twin_since("6", known(2)).await.unwrap(), expected);
        let nothing = device.twin_since("7", known(3)).await.unwrap();
        assert_eq!(nothing["desired"]["$unchanged"], true);
        for (since, why) in [
            (known(9), "a version that never was"),
            (Some(Since { version: 2, lineage: "1.0" }), "the versions of another device"),
        ] {
            let all = device.twin_since("8", since).await.unwrap();
            assert_eq!((&all["desired"]["keep"], all["desired"].get("$since")), (&json!(text), None), "{why}");
            assert_eq!(all["reported"]["n"], 1, "{why}");
        }
    });
    finished.unwrap();
}

#[test]
fn a_registration_is_answered_at_once_where_that_is_configured() {
    let world = World::new(29);
    let finished = world.simulation.run(async {
        let host = world.start("host-a").await;
        let keys = world.enroll(&host).await.derive(ID);
        let begin = world.env.now();
        let hub = Connection::register(&world, &host, ID, &keys).await.unwrap();
        assert!(world.env.now().since(begin).as_secs() >= 3, "the cloud service lets devices ask again");
        host.platform.provisioning().set_answers_at_once(true);
        let begin = world.env.now();
        assert_eq!(Connection::register(&world, &host, ID, &keys).await.unwrap(), hub);
        assert!(world.env.now().since(begin).as_secs() < 3, "this device did not have to");
    });
    finished.unwrap();
}
