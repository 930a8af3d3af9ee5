//! A full disk: acknowledgements stop, reads go on, nothing acknowledged is lost, and service returns with the space.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nave_auth::{DEVICE_KEY_LENGTH, SharedKey};
use serde_json::Value;
use tempfile::TempDir;

use super::device::Device;
use super::server::{Ready, Site, is_root, skip};
use super::service::Service;
use super::{in_time, run};

/// Size of the disk. The store keeps a reserve of 256 MiB and wants some room above that.
const DISK: &str = "384m";

const DEVICE: &str = "device";

/// A file system in memory; gone when dropped.
struct Disk(TempDir);

impl Disk {
    fn mount() -> Option<Self> {
        let at = tempfile::Builder::new().prefix("nave-disk-").tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={DISK},mode=0755"), "nave-test"]).arg(at.path());
        mount.status().is_ok_and(|status| status.success()).then(|| Self(at))
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    /// Writes until nothing fits any more.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler()).unwrap();
        for piece in [1 << 20, 4096, 1] {
            let piece = vec![0_u8; piece];
            while file.write_all(&piece).is_ok() {}
        }
    }

    /// Gives bytes back.
    fn spare(&self, bytes: u64) {
        let file = File::options().write(true).open(self.filler()).unwrap();
        file.set_len(file.metadata().unwrap().len() - bytes).unwrap();
    }

    fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, because a hub that a failed test left may still be using it.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// What a device was promised.
#[derive(Default)]
struct Promised {
    sent: u64,
    acknowledged: Vec<u64>,
    reported: u64,
}

impl Promised {
    async fn message(&mut self, device: &mut Device) -> std::io::Result<()> {
        self.sent += 1;
        device.telemetry(format!("{{\"n\":{}}}", self.sent).as_bytes()).await?;
        self.acknowledged.push(self.sent);
        Ok(())
    }

    async fn report(&mut self, device: &mut Device, value: u64) -> std::io::Result<u16> {
        let (status, _) = device.report(&format!("{{\"n\":{value}}}")).await?;
        if status == 204 {
            self.reported = value;
        }
        Ok(status)
    }

    /// Everything that was acknowledged can be read, in its order, and nothing else.
    async fn check(&self, service: &Service) {
        let numbers: Vec<u64> = service
            .events()
            .await
            .iter()
            .map(|event| serde_json::from_slice::<Value>(&event.body).unwrap()["n"].as_u64().unwrap())
            .collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
        assert!(self.acknowledged.iter().all(|number| numbers.contains(number)), "{numbers:?}");
        assert!(numbers.iter().all(|number| *number <= self.sent), "{numbers:?}");
        let twin = service.twin(DEVICE).await;
        assert_eq!(twin["properties"]["reported"]["n"], self.reported);
    }
}

#[test]
fn a_full_disk_stops_acknowledgements_and_nothing_else() {
    if !is_root("mounting a small disk") {
        return;
    }
    run(async {
        let Some(disk) = Disk::mount() else {
            skip("a full disk: mounting is not possible here");
            return;
        };
        let site = Site::new().keep_data_in(disk.0.path().join("data"));
        let (hub, ready) = site.start();
        let service = Service::hub(&ready);
        let key = SharedKey::from_bytes(&[9; DEVICE_KEY_LENGTH]).unwrap();
        service.create_device(DEVICE, &key).await;
        let mut device = Device::connect(&ready, DEVICE, &key).await.unwrap();
        let mut promised = Promised::default();
        for value in 1..=20 {
            promised.message(&mut device).await.unwrap();
            assert_eq!(promised.report(&mut device, value).await.unwrap(), 204);
        }

        disk.fill();
        // Changes are refused, and the refusal says why.
        let status = promised.report(&mut device, 100).await.unwrap();
        assert_eq!(status, 503);
        let body = r#"{"properties":{"desired":{"n":100}}}"#;
        let answer = service.request("PATCH", &format!("/twins/{DEVICE}?api-version=2021-04-12"), body).await.unwrap();
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.text().contains("disk is full"), "{}", answer.text());
        // MQTT has no "no": the connection ends, sooner or later, without an acknowledgement of what did not fit.
        let refused = in_time("the end of acknowledgements", async {
            loop {
                if let Err(error) = promised.message(&mut device).await {
                    return error;
                }
            }
        })
        .await;
        assert_eq!(refused.kind(), std::io::ErrorKind::UnexpectedEof, "{refused}");
        // Reads go on.
        promised.check(&service).await;
        assert!(site.log().contains("disk is full"), "the log says why");
        // A new connection would have to be written down.
        assert!(Device::connect(&ready, DEVICE, &key).await.is_err());
        assert!(hub.is_running());

        disk.free();
        let mut device = reconnect(&ready, &key).await;
        promised.message(&mut device).await.unwrap();
        assert_eq!(promised.report(&mut device, 200).await.unwrap(), 204);
        service.json("PATCH", &format!("/twins/{DEVICE}?api-version=2021-04-12"), body).await;
        promised.check(&service).await;

        // Once more, and with a restart in between: what is on disk is whole.
        disk.fill();
        while promised.message(&mut device).await.is_ok() {}
        hub.kill();
        // What is there can be brought to safety.
        let copy = site.root().join("copy.bak");
        site.json(&["backup", copy.to_str().unwrap(), "-o", "json"]);
        site.json(&["restore", "--check", copy.to_str().unwrap(), "-o", "json"]);
        disk.free();
        let (hub, ready) = site.start();
        promised.check(&Service::hub(&ready)).await;
        let mut device = reconnect(&ready, &key).await;
        promised.message(&mut device).await.unwrap();
        promised.check(&Service::hub(&ready)).await;
        hub.stop();
    });
}

/// The store looks for space at intervals.
async fn reconnect(ready: &Ready, key: &SharedKey) -> Device {
    in_time("service to return", async {
        loop {
            match Device::connect(ready, DEVICE, key).await {
                Ok(device) => return device,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await
}

#[test]
fn a_hub_does_not_start_on_a_full_disk() {
    if !is_root("mounting a small disk") {
        return;
    }
    let Some(disk) = Disk::mount() else {
        skip("a full disk: mounting is not possible here");
        return;
    };
    let site = Site::new().keep_data_in(disk.0.path().join("data"));
    // Each is enough for one part more: settings, certificates, the store's files.
    for spare in [0, 4 << 10, 64 << 10, 256 << 10] {
        disk.fill();
        disk.spare(spare);
        let refusal = site.refused(site.command());
        refusal.expect(1, &["the disk of the data directory", "is full", "--data-dir", site.data().to_str().unwrap()]);
        assert!(!site.ready_file().exists());
        if spare < 64 << 10 {
            fs::remove_dir_all(site.data()).unwrap();
        }
        disk.free();
    }
    // What half a start left does no harm.
    let (hub, _) = site.start();
    hub.stop();
}
