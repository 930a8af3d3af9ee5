//! A copy that is made under load, and a hub that is started from it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};

use nave_auth::{DEVICE_KEY_LENGTH, SharedKey};

use super::device::Device;
use super::server::{Site, is_root, skip};
use super::service::Service;
use super::{in_time, run};

const DEVICE: &str = "device";

/// Messages and changes that are certainly acknowledged before the copy begins.
const BEFORE: u64 = 200;

#[test]
fn what_was_acknowledged_before_a_backup_is_in_it() {
    run(async {
        let site = Site::new();
        let hub = site.launch();
        let ready = hub.until_ready().await;
        let service = Service::hub(&ready);
        let key = SharedKey::from_bytes(&[5; DEVICE_KEY_LENGTH]).unwrap();
        service.create_device(DEVICE, &key).await;
        let mut device = Device::connect(&ready, DEVICE, &key).await.unwrap();
        let mut number = 0;
        let mut one = async |device: &mut Device| {
            number += 1;
            device.telemetry(format!("{{\"n\":{number}}}").as_bytes()).await.unwrap();
            if number % 10 == 0 {
                device.report(&format!("{{\"n\":{number}}}")).await.unwrap();
            }
        };
        for _ in 0..BEFORE {
            one(&mut device).await;
        }
        let file = site.root().join("copy.bak");
        let name = file.to_str().unwrap();
        let mut copying = site.tool(&["backup", name]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // The load goes on while the copy is made.
        let status = in_time("the backup", async {
            loop {
                one(&mut device).await;
                if let Some(status) = copying.try_wait().unwrap() {
                    return status;
                }
            }
        })
        .await;
        assert!(status.success(), "{:?}", copying.wait_with_output());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "it holds keys");
        let again = site.tool(&["backup", name]).output().unwrap();
        assert_eq!(again.status.code(), Some(2), "a backup is not replaced by accident");
        one(&mut device).await;
        let later = service.twin(DEVICE).await;
        hub.kill();

        // The machine is lost. Another place, the same hub.
        assert!(site.json(&["restore", "--check", name, "-o", "json"])["entries"].as_u64().unwrap() >= 1);
        let new = Site::new();
        let data = new.data().to_str().unwrap().to_owned();
        assert!(site.json(&["restore", name, "--data-dir", &data, "-o", "json"])["files"].as_u64().unwrap() >= 3);
        let refused = site.tool(&["restore", name, "--data-dir", &data]).output().unwrap();
        assert_eq!(refused.status.code(), Some(1), "a directory is not overwritten");
        let hub = new.launch();
        let ready = hub.until_ready().await;
        // Its keys, its CA, its device.
        let service = Service::hub(&ready);
        let twin = service.twin(DEVICE).await;
        let reported = twin["properties"]["reported"]["n"].as_u64().unwrap();
        assert!((BEFORE..=number).contains(&reported), "{twin}");
        let events = service.events().await;
        let bodies: Vec<u64> = events
            .iter()
            .map(|event| serde_json::from_slice::<serde_json::Value>(&event.body).unwrap()["n"].as_u64().unwrap())
            .collect();
        assert!(bodies.len() as u64 >= BEFORE, "{} messages", bodies.len());
        assert_eq!(bodies, (1..=bodies.len() as u64).collect::<Vec<_>>(), "none is missing, and none is there twice");
        let mut device = Device::connect(&ready, DEVICE, &key).await.unwrap();
        device.telemetry(b"{\"n\":0}").await.unwrap();
        device.report("{\"after\":true}").await.unwrap();
        assert_eq!(service.events().await.len(), bodies.len() + 1);
        // What the lost hub gave out after the copy is not given out again.
        assert_ne!(service.twin(DEVICE).await["etag"], later["etag"]);
        hub.stop();
    });
}

#[test]
fn a_hub_that_does_not_run_is_copied_too_and_damage_is_found() {
    run(async {
        let site = Site::new();
        let (hub, ready) = site.start();
        let key = SharedKey::from_bytes(&[6; DEVICE_KEY_LENGTH]).unwrap();
        Service::hub(&ready).create_device(DEVICE, &key).await;
        hub.stop();
        let inside = site.data().join("tls/copy.bak");
        let refused = site.tool(&["backup", inside.to_str().unwrap()]).output().unwrap();
        assert_eq!(refused.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("part of the next backup"), "{refused:?}");
        let file = site.root().join("copy.bak");
        let name = file.to_str().unwrap();
        assert!(site.json(&["backup", name, "-o", "json"])["entries"].as_u64().unwrap() >= 1);
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&file, bytes).unwrap();
        let target = site.root().join("restored");
        for words in [vec!["restore", "--check", name], vec!["restore", name, "--data-dir", target.to_str().unwrap()]] {
            let output = site.tool(&words).output().unwrap();
            assert_eq!(output.status.code(), Some(1));
            assert!(String::from_utf8_lossy(&output.stderr).contains("damaged at byte"), "{output:?}");
        }
        assert!(!target.exists());
        let (hub, ready) = site.start();
        Service::hub(&ready).twin(DEVICE).await;
        hub.stop();
    });
}

#[test]
fn a_directory_of_another_user_stays_theirs_and_a_mount_point_can_be_filled() {
    if !is_root("acting for another user") {
        return;
    }
    run(async {
        let site = Site::new();
        let (hub, _) = site.start();
        hub.stop();
        let owned = |dir: &Path, owner: u32| {
            let mut waiting = vec![dir.to_owned()];
            while let Some(path) = waiting.pop() {
                let about = fs::symlink_metadata(&path).unwrap();
                assert_eq!((about.uid(), about.gid()), (owner, owner), "{}", path.display());
                if about.is_dir() {
                    waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                }
            }
        };
        let given = Command::new("chown").args(["-R", "65534:65534"]).arg(site.data()).status().unwrap();
        assert!(given.success());
        let file = site.root().join("copy.bak");
        let name = file.to_str().unwrap();
        site.json(&["backup", name, "-o", "json"]);
        owned(site.data(), 65_534);
        let target = site.root().join("mounted");
        fs::create_dir(&target).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64m,mode=0700,uid=65534,gid=65534", "nave-test"]).arg(&target);
        if !mount.status().is_ok_and(|status| status.success()) {
            skip("a mount point: mount does not work here");
            return;
        }
        let restored = site.tool(&["restore", name, "--data-dir", target.to_str().unwrap()]).output().unwrap();
        if restored.status.success() {
            owned(&target, 65_534);
        }
        let unmounted = Command::new("umount").arg(&target).status().unwrap();
        assert!(restored.status.success() && unmounted.success(), "{restored:?}");
    });
}
