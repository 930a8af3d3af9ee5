//! Ready file, start, stop.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nave_auth::{DEVICE_KEY_LENGTH, SharedKey};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::device::Device;
use super::server::{READY_FILE, Ready, Signal, Site};
use super::service::{Service, dial};
use super::{PATIENCE, in_time, run};

/// A key that is as good as any.
fn key() -> SharedKey {
    SharedKey::from_bytes(&[7; DEVICE_KEY_LENGTH]).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_ready_file_appears_whole_and_goes_with_the_hub() {
    run(async {
        let site = Site::new();
        let hub = site.launch();
        let deadline = Instant::now() + PATIENCE;
        // Without a pause, so that half a file would be seen: reading one that is not whole fails.
        let ready = loop {
            if let Some(ready) = hub.ready() {
                break ready;
            }
            assert!(hub.is_running() && Instant::now() < deadline, "no ready file");
        };
        // "Ready" means that connections are accepted at once.
        for address in [ready.mqtts(), ready.https()] {
            dial(&ready, address).await.unwrap();
        }
        check_shape(&ready.json, hub.pid());
        assert_eq!((mode(site.data()), mode(&site.ready_file())), (0o700, 0o600));
        let leftovers = fs::read_dir(site.data()).unwrap().map(|entry| entry.unwrap().file_name());
        let leftovers: Vec<_> = leftovers.filter(|name| name.to_string_lossy().contains(READY_FILE)).collect();
        assert_eq!(leftovers, [READY_FILE]);
        hub.stop();
        assert!(!site.ready_file().exists());
    });
}

fn check_shape(ready: &Value, pid: u32) {
    assert_eq!(ready["version"], 1);
    assert_eq!(ready["pid"], pid);
    let ca = Path::new(ready["caCertificate"].as_str().unwrap());
    assert!(ca.is_absolute() && ca.is_file(), "{}", ca.display());
    let hubs = ready["hubs"].as_array().unwrap();
    assert_eq!(hubs.len(), 1);
    assert_eq!(hubs[0]["name"], "hub1");
    for (who, dotted, policy) in [
        (&hubs[0], "hub1.nave.test", "iothubowner"),
        (&ready["provisioning"], "dps.nave.test", "provisioningserviceowner"),
    ] {
        let names = std::iter::once(&who["hostName"]).chain(who["aliases"].as_array().unwrap());
        let names: Vec<&str> = names.map(|name| name.as_str().unwrap()).collect();
        assert_eq!(names, ["localhost", dotted]);
        assert_eq!((&who["mqttsPort"], &who["httpsPort"]), (&hubs[0]["mqttsPort"], &hubs[0]["httpsPort"]));
        let string = who["serviceConnectionString"].as_str().unwrap();
        let start = format!("HostName=localhost;SharedAccessKeyName={policy};SharedAccessKey=");
        assert!(string.starts_with(&start), "{who}");
        assert!(who.get("amqpsPort").is_none_or(Value::is_u64), "{who}");
    }
    assert!(ready["provisioning"]["idScope"].as_str().unwrap().starts_with("0ne"));
    let url = ready["admin"]["url"].as_str().unwrap();
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    assert!(ready["admin"]["token"].as_str().unwrap().len() >= 16);
}

#[test]
fn a_signal_ends_it_well_with_connections_open() {
    run(async {
        let site = Site::new();
        for signal in [Signal::Terminate, Signal::Interrupt] {
            let (hub, ready) = site.start();
            let service = Service::hub(&ready);
            let id = format!("device-{}", signal.name());
            service.create_device(&id, &key()).await;
            let mut device = Device::connect(&ready, &id, &key()).await.unwrap();
            device.telemetry(b"{}").await.unwrap();
            // One that stands in the middle of its handshake, one that is about to send a request, one that is sent events.
            let mut half = TcpStream::connect(ready.mqtts()).await.unwrap();
            half.write_all(&[0x16, 3, 1, 2, 0]).await.unwrap();
            let mut idle = dial(&ready, ready.https()).await.unwrap();
            idle.write_all(b"GET /devices HTTP/1.1\r\n").await.unwrap();
            let endless =
                tokio::task::spawn_local(async move { service.request("GET", "/events?from=earliest", "").await });
            tokio::time::sleep(Duration::from_millis(50)).await;
            hub.signal(signal);
            // As from a terminal and again from a wrapper: that is one request.
            hub.signal(signal);
            let status = in_time("the end of the hub", hub.ended()).await;
            assert_eq!(status.code(), Some(0));
            assert!(!site.ready_file().exists());
            assert!(device.link.next().await.is_err(), "the device's connection ended");
            let _ = in_time("the end of the event stream", endless).await.unwrap();
            let mut rest = Vec::new();
            let _ = in_time("the end of an idle connection", idle.read_to_end(&mut rest)).await;
        }
    });
}

#[test]
fn what_a_killed_hub_left_does_not_mislead() {
    let site = Site::new();
    let (hub, before) = site.start();
    hub.kill();
    assert!(site.ready_file().exists(), "nobody tidied up");
    let (hub, after) = site.start();
    assert_ne!(before.json["pid"], after.json["pid"]);
    assert_eq!(before.json["caCertificate"], after.json["caCertificate"]);
    let lasting = |ready: &Ready| {
        (ready.json["hubs"][0]["serviceConnectionString"].clone(), ready.json["provisioning"]["idScope"].clone())
    };
    assert_eq!(lasting(&before), lasting(&after), "keys and id scope stay");
    hub.stop();
}

#[test]
fn one_hub_at_a_time_has_a_data_directory() {
    run(async {
        let site = Site::new();
        let (hub, ready) = site.start();
        let refusal = site.refused(site.command());
        refusal.expect(
            1,
            &["in use by another nave", &hub.pid().to_string(), "--data-dir", site.data().to_str().unwrap()],
        );
        assert!(hub.is_running());
        assert_eq!(Ready::read(site.data()).unwrap().json, ready.json, "the first one's file is untouched");
        Service::hub(&ready).create_device("device", &key()).await;
        hub.stop();
    });
}
