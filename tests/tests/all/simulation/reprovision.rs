//! Moving a device to another hub is a sequence of commits: a crash between any two of them loses nothing.

use std::sync::Arc;
use std::time::Duration;

use nave_env::Env;
use nave_hub::provisioning::{AttestationInput, EnrollmentInput};
use nave_hub::{ErrorCode, Hub, HubError, TwinUpdate, TwinView};
use nave_model::{EnrollmentKind, HostName, Identity, IfMatch, Reprovision};
use serde_json::Value;

use super::device::Connection;
use super::world::{GROUP, HUBS, Host, World};

const ID: &str = "device-0";

/// More commits than a move needs: the last rounds of a test run without a crash.
const MOST_COMMITS: u32 = 12;

fn hub(host: &Host, name: &str) -> Arc<Hub> {
    Arc::clone(host.platform.hub(&HostName::parse(name).unwrap()).unwrap())
}

async fn twin(host: &Host, name: &str) -> Result<TwinView, HubError> {
    hub(host, name).get_twin(&Identity::parse(ID).unwrap()).await
}

/// Registers in the first hub, leaves data there, moves to the second one with a crash after `commits` commits, registers
/// once more, and returns the twin that the device has then.
async fn moved_twin(world: &World, commits: u32, policy: Reprovision) -> Value {
    let host = world.start("host-a").await;
    let keys = world.enroll_in(&host, &HUBS[..1], Some(policy)).await.derive(ID);
    assert_eq!(Connection::register(world, &host, ID, &keys).await.unwrap(), HUBS[0]);
    let mut device = Connection::to_hub(world, &host, HUBS[0], ID, &keys).await.unwrap();
    device.report("1", 41).await.unwrap();
    let body = r#"{"tags":{"site":"a"},"properties":{"desired":{"m":42}}}"#;
    let identity = Identity::parse(ID).unwrap();
    hub(&host, HUBS[0]).update_twin(&identity, TwinUpdate::Patch, body, &IfMatch::None).await.unwrap();
    world.enroll_in(&host, &HUBS[1..], Some(policy)).await;

    world.store.set(Some(commits));
    drop(Connection::register(world, &host, ID, &keys).await);
    world.crash(&host);
    world.store.set(None);
    world.env.sleep(Duration::from_secs(1)).await;
    let host = world.start("host-a").await;
    // Wherever the crash was, the device exists somewhere.
    assert!(twin(&host, HUBS[0]).await.is_ok() || twin(&host, HUBS[1]).await.is_ok(), "lost after {commits} commits");
    assert_eq!(Connection::register(world, &host, ID, &keys).await.unwrap(), HUBS[1], "after {commits} commits");
    assert!(twin(&host, HUBS[0]).await.is_err(), "still in the hub that it left, after {commits} commits");
    // The credentials work where it is now.
    let mut device = Connection::to_hub(world, &host, HUBS[1], ID, &keys).await.unwrap();
    device.twin("2").await.unwrap();
    serde_json::from_str(&twin(&host, HUBS[1]).await.unwrap().json).unwrap()
}

fn after_every_crash(policy: Reprovision, check: impl Fn(u32, &Value)) {
    for commits in 0..MOST_COMMITS {
        let world = World::new(u64::from(commits));
        let twin = world.simulation.run(moved_twin(&world, commits, policy)).unwrap();
        check(commits, &twin);
    }
}

#[test]
fn a_migrated_twin_survives_a_crash_between_any_two_commits() {
    after_every_crash(Reprovision { update_hub_assignment: true, migrate_device_data: true }, |commits, twin| {
        assert_eq!(twin["tags"]["site"], "a", "after {commits} commits: {twin}");
        assert_eq!(twin["properties"]["desired"]["m"], 42, "after {commits} commits: {twin}");
        assert_eq!(twin["properties"]["reported"]["n"], 41, "after {commits} commits: {twin}");
    });
}

/// The hub that a device leaves takes changes until it is removed there. What it acknowledged moves along.
#[test]
fn what_the_old_hub_acknowledges_meanwhile_moves_along() {
    let policy = Reprovision { update_hub_assignment: true, migrate_device_data: true };
    let mut acknowledged = Vec::new();
    for commits in 0..MOST_COMMITS {
        let world = World::new(u64::from(commits));
        let finished = world.simulation.run(async {
            let (host, other) = (world.start("host-a").await, world.start("host-b").await);
            let keys = world.enroll_in(&host, &HUBS[..1], Some(policy)).await.derive(ID);
            Connection::register(&world, &host, ID, &keys).await.unwrap();
            world.enroll_in(&host, &HUBS[1..], Some(policy)).await;
            world.store.set(Some(commits));
            drop(Connection::register(&world, &host, ID, &keys).await);
            world.store.set(None);
            let update = r#"{"tags":{"late":true},"properties":{"desired":{"m":43}}}"#;
            let identity = Identity::parse(ID).unwrap();
            let late = hub(&other, HUBS[0]).update_twin(&identity, TwinUpdate::Patch, update, &IfMatch::None).await;
            world.crash(&host);
            let host = world.start("host-a").await;
            assert_eq!(Connection::register(&world, &host, ID, &keys).await.unwrap(), HUBS[1]);
            assert!(twin(&host, HUBS[0]).await.is_err(), "still in the hub that it left, after {commits} commits");
            let twin: Value = serde_json::from_str(&twin(&host, HUBS[1]).await.unwrap().json).unwrap();
            if late.is_ok() {
                assert_eq!(twin["properties"]["desired"]["m"], 43, "after {commits} commits: {twin}");
                assert_eq!(twin["tags"]["late"], true, "after {commits} commits: {twin}");
            }
            late.is_ok()
        });
        acknowledged.push(finished.unwrap());
    }
    assert!(acknowledged.iter().filter(|is_acknowledged| **is_acknowledged).count() > 2, "{acknowledged:?}");
    assert_eq!(acknowledged.last(), Some(&false), "the last rounds move undisturbed");
}

#[test]
fn a_reset_leaves_nothing_whatever_crashes() {
    after_every_crash(Reprovision { update_hub_assignment: true, migrate_device_data: false }, |commits, twin| {
        assert_eq!(twin["tags"], serde_json::json!({}), "after {commits} commits: {twin}");
        assert!(twin["properties"]["reported"].get("n").is_none(), "after {commits} commits: {twin}");
    });
}

#[test]
fn a_device_that_never_moves_stays() {
    let world = World::new(5);
    let policy = Reprovision { update_hub_assignment: false, migrate_device_data: false };
    let finished = world.simulation.run(async {
        let host = world.start("host-a").await;
        let keys = world.enroll_in(&host, &HUBS[..1], Some(policy)).await.derive(ID);
        Connection::register(&world, &host, ID, &keys).await.unwrap();
        world.enroll_in(&host, &HUBS[1..], Some(policy)).await;
        assert_eq!(Connection::register(&world, &host, ID, &keys).await.unwrap(), HUBS[0]);
        assert!(twin(&host, HUBS[1]).await.is_err());
    });
    finished.unwrap();
}

#[test]
fn a_registration_is_listed_by_the_group_that_made_it_only() {
    let world = World::new(5);
    let finished = world.simulation.run(async {
        let host = world.start("host-a").await;
        let keys = world.enroll(&host).await.derive(ID);
        Connection::register(&world, &host, ID, &keys).await.unwrap();
        let service = host.platform.provisioning();
        let listed = async || service.list_registrations(GROUP, 10, None).await.unwrap().items.len();
        assert_eq!(listed().await, 1);
        Connection::register(&world, &host, ID, &keys).await.unwrap();
        assert_eq!(listed().await, 1, "registered again through the group");
        // An individual enrollment goes first.
        let own = EnrollmentInput {
            kind: EnrollmentKind::Individual,
            id: ID.to_owned(),
            device_id: None,
            attestation: AttestationInput::SymmetricKey {
                primary: Some(keys.primary.expose_base64()),
                secondary: Some(keys.secondary.expose_base64()),
            },
            enabled: true,
            iot_edge: false,
            hub_host_name: None,
            initial_twin: None,
            optional_device_information: None,
            reprovision: None,
            allocation_policy: None,
            hubs: Vec::new(),
            webhook: None,
        };
        service.put_enrollment(own, &IfMatch::None).await.unwrap();
        Connection::register(&world, &host, ID, &keys).await.unwrap();
        assert_eq!(listed().await, 0, "it is no longer the group's");
        let forged = service.list_registrations(GROUP, 10, Some("?")).await.unwrap_err();
        assert_eq!(forged.code, ErrorCode::ArgumentInvalid);
    });
    finished.unwrap();
}
