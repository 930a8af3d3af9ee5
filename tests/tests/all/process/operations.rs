//! The operator's commands: what is in force, how the hub does, what is wrong with the machine.

use std::fs;

use serde_json::Value;

use super::run;
use super::server::Site;
use super::service::dial;

fn entry<'a>(entries: &'a Value, key: &str) -> &'a Value {
    let found = entries.as_array().unwrap().iter().find(|entry| entry["key"] == key);
    found.unwrap_or_else(|| panic!("no {key} in {entries}"))
}

#[test]
fn the_configuration_is_shown_with_its_sources_and_without_secrets() {
    let site = Site::with("\n[[hub]]\nname = \"hub2\"\n");
    let config = site.config();
    let config = config.to_str().unwrap();
    let mut command = site.tool(&["config", "show", "-o", "json", "--config", config, "--log-level", "debug"]);
    let output = command.env("NAVE_WORKERS", "3").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let entries: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (key, value, source) in [
        ("log.level", "debug", "flag"),
        ("log.format", "text", "default"),
        ("listen.mqtts", "127.0.0.1:0", "file"),
        ("hub.hub2.host_name", "hub2.nave.test", "default"),
    ] {
        let entry = entry(&entries, key);
        assert_eq!((&entry["value"], &entry["source"]), (&value.into(), &source.into()), "{entry}");
    }
    assert_eq!(entry(&entries, "workers")["name"], "NAVE_WORKERS");
    assert!(entry(&entries, "hub.hub1.partitions")["line"].as_u64().unwrap() > 1);
    assert!(!site.data().exists(), "nothing was made");

    let (hub, ready) = site.start();
    let running = site.json(&["config", "show", "--running", "-o", "json"]);
    let scope = &ready.json["provisioning"]["idScope"];
    assert_eq!(&entry(&running, "provisioning.id_scope")["value"], scope);
    assert_eq!(entry(&running, "provisioning.id_scope")["source"], "dataDirectory");
    let text = running.to_string();
    let settings: Value = serde_json::from_slice(&fs::read(site.data().join("settings.json")).unwrap()).unwrap();
    let key = settings["hubPolicies"]["hub1"][0]["primaryKey"].as_str().expect("the settings hold keys");
    assert!(!text.contains(key) && !text.contains(ready.json["admin"]["token"].as_str().unwrap()));
    hub.stop();
    let gone = site.tool(&["config", "show", "--running"]).output().unwrap();
    assert_eq!(gone.status.code(), Some(4), "no hub runs any more");
    fs::write(site.config(), "[log]\nlevle = \"x\"").unwrap();
    let wrong = site.tool(&["config", "check", "--config", config]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("did you mean `level`"));
}

#[test]
fn a_running_hub_tells_how_it_does() {
    run(async {
        let site = Site::new();
        let (hub, ready) = site.start();
        let _open = dial(&ready, ready.mqtts()).await.unwrap();
        let status = site.json(&["status", "-o", "json"]);
        assert_eq!(status["process"]["pid"], hub.pid());
        assert_eq!(status["ports"]["mqtts"], ready.json["hubs"][0]["mqttsPort"]);
        assert!(status["connections"]["open"].as_u64().unwrap() >= 1);
        assert!(status["storage"]["storeBytes"].as_u64().unwrap() > 0);
        assert!(status["storage"]["logs"]["hub1"]["records"].is_u64());
        assert_eq!(status["certificate"]["development"], true);
        assert!(status["certificate"]["daysLeft"].as_i64().unwrap() > 300);
        let text = site.tool(&["status"]).output().unwrap();
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        assert!(text.contains("hub1.nave.test") && text.contains("development CA"), "{text}");
        hub.stop();
        assert_eq!(site.tool(&["status"]).output().unwrap().status.code(), Some(4));
    });
}

#[test]
fn the_doctor_finds_what_is_wrong_and_says_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let site = Site::with("\n[tls]\ncertificate = \"missing.pem\"\nkey = \"missing.key\"\n");
    let config = site.config();
    let words = ["doctor", "-o", "json", "--config", config.to_str().unwrap(), "--listen-https", &address];
    let output = site.tool(&words).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let failed: Vec<&Value> =
        findings.as_array().unwrap().iter().filter(|finding| finding["verdict"] == "failed").collect();
    let told = |what: &str, found: &str, remedy: &str| {
        failed.iter().any(|finding| {
            finding["what"] == what
                && finding["found"].as_str().unwrap().contains(found)
                && finding["remedy"].as_str().unwrap().contains(remedy)
        })
    };
    assert!(told("ports", &address, "--listen-https"), "{findings}");
    assert!(told("certificate", "missing.pem", "[tls]"), "{findings}");
    for finding in findings.as_array().unwrap() {
        assert_eq!(finding["verdict"] == "ok", finding["remedy"] == "", "{finding}");
    }
    assert!(!site.data().exists(), "nothing was made");

    // A hub that runs well: its ports are its own, and its certificate is good.
    let site = Site::new();
    let (hub, _) = site.start();
    let config = site.config();
    let output = site.tool(&["doctor", "--config", config.to_str().unwrap()]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains(&format!("process {}", hub.pid())), "{text}");
    hub.stop();
}

#[test]
fn completions_and_manual_pages_are_made() {
    let site = Site::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = site.tool(&["completions", shell]).output().unwrap();
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("connection-string"));
    }
    let pages = site.root().join("man");
    assert!(site.tool(&["man", pages.to_str().unwrap()]).output().unwrap().status.success());
    assert!(fs::read_to_string(pages.join("nave-serve.1")).unwrap().contains("listen"));
}
