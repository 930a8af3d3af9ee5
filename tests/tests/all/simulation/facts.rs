//! What an allocation policy is told: the documented facts, and nothing secret.

use std::sync::Arc;
use std::time::Duration;

use nave_auth::SasToken;
use nave_engine::{Engine, Functions, Source};
use nave_env::Env;
use nave_hub::provisioning::{Attempt, Credentials};
use nave_tests::paths;
use serde_json::json;

use super::world::{HUBS, ID_SCOPE, World};

#[test]
fn a_policy_is_told_how_the_device_proved_itself() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("allocation.wasm"), paths::component("fixtures/echo-policy").unwrap())
        .unwrap();
    let engine = Engine::new(None).unwrap();
    let functions = Functions::load(&engine, &Source::Directory(directory.path().to_owned())).unwrap();
    let functions = Arc::new(functions);
    let world = World::new(1);
    let finished = world.simulation.run(async {
        let host = world.start_with("host-a", &functions).await;
        let keys = world.enroll(&host).await.derive("device-0");
        let expiry = world.env.now().after(Duration::from_secs(600));
        let token = SasToken::create(
            &format!("{ID_SCOPE}/registrations/device-0"),
            &keys.primary,
            expiry,
            Some("registration"),
        );
        let attempt = Attempt {
            registration_id: "device-0".to_owned(),
            credentials: Credentials {
                token: Some(nave_model::SecretText::new(token)),
                certificates: Vec::new(),
                peer: None,
            },
            payload: Some(r#"{"site":7}"#.to_owned()),
            force: false,
            api_version: Some("2019-03-31".to_owned()),
        };
        let operation = host.platform.provisioning().register(attempt).await.unwrap();
        let told = operation.state.payload.unwrap().value().unwrap();
        assert_eq!(told["policy"], "hashed");
        assert_eq!(told["payload"], json!({ "site": 7 }));
        assert_eq!(
            told["facts"],
            json!({
                "symmetric-key": { "kind": "group" },
                "linked-hubs": HUBS,
                "force": false,
                "api-version": "2019-03-31",
            })
        );
    });
    finished.unwrap();
}
