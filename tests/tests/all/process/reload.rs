//! SIGHUP: functions change under a running hub, and nobody is disconnected.

use std::fs;
use std::time::Duration;

use nave_auth::{DEVICE_KEY_LENGTH, SharedKey};
use nave_tests::paths;

use super::device::Device;
use super::server::{Nave, Signal, Site};
use super::service::Service;
use super::{in_time, run};

const DEVICE: &str = "device";

/// Sends the signal and waits until the hub's log has one more line with these words.
pub(super) async fn reload(site: &Site, hub: &Nave, words: &str) {
    let count = || site.log().matches(words).count();
    let before = count();
    hub.signal(Signal::Reload);
    in_time(words, async {
        while count() == before {
            assert!(hub.is_running(), "SIGHUP does not end the hub");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// What comes of a reported and of a desired change.
async fn change(device: &mut Device, service: &Service, value: u32) -> (u16, u16) {
    let (reported, _) = device.report(&format!("{{\"n\":{value}}}")).await.expect("the connection stays");
    let body = format!("{{\"properties\":{{\"desired\":{{\"n\":{value}}}}}}}");
    let target = format!("/twins/{DEVICE}?api-version=2021-04-12");
    let desired = service.request("PATCH", &target, &body).await.unwrap().status;
    device.telemetry(b"{}").await.expect("telemetry has nothing to do with twins");
    (reported, desired)
}

#[test]
fn functions_are_replaced_without_a_restart() {
    run(async {
        let site = Site::new();
        let functions = site.root().join("functions");
        fs::create_dir(&functions).unwrap();
        let twin = functions.join("twin.wasm");
        let mut command = site.command();
        command.arg("--functions-dir").arg(&functions);
        let hub = site.launch_as(command);
        let ready = hub.until_ready().await;
        let service = Service::hub(&ready);
        let key = SharedKey::from_bytes(&[3; DEVICE_KEY_LENGTH]).unwrap();
        service.create_device(DEVICE, &key).await;
        let mut device = Device::connect(&ready, DEVICE, &key).await.unwrap();
        assert_eq!(change(&mut device, &service, 1).await, (204, 200));

        // A twin function that refuses everything.
        fs::write(&twin, paths::component("fixtures/hostile-twin").unwrap()).unwrap();
        reload(&site, &hub, "reloaded: configuration, certificate, functions").await;
        assert_eq!(change(&mut device, &service, 2).await, (500, 500));

        // What is no component is not taken: what ran goes on.
        fs::write(&twin, b"\0asm, or so it seems").unwrap();
        reload(&site, &hub, "not reloaded").await;
        assert_eq!(change(&mut device, &service, 3).await, (500, 500));

        // Without the file, the built-in one again.
        fs::remove_file(&twin).unwrap();
        reload(&site, &hub, "reloaded: configuration, certificate, functions").await;
        assert_eq!(change(&mut device, &service, 4).await, (204, 200));
        let seen = service.twin(DEVICE).await;
        for section in ["reported", "desired"] {
            let section = &seen["properties"][section];
            assert_eq!((&section["n"], &section["$version"]), (&4.into(), &3.into()), "{seen}");
        }
        hub.stop();
    });
}
