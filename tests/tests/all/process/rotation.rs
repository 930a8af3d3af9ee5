//! Changes of certificates and configuration under a running hub: all or nothing, and nobody is disconnected.

use std::fs;
use std::path::Path;

use nave_auth::{DEVICE_KEY_LENGTH, SharedKey};

use super::device::Device;
use super::run;
use super::server::{Ready, Site};
use super::service::{Service, dial};

const DEVICE: &str = "device";

/// A certificate of its own for the names of the hub, with its key.
fn certificate() -> (String, String) {
    let names = ["localhost", "hub1.nave.test", "dps.nave.test"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn serve(dir: &Path, (chain, key): &(String, String)) {
    fs::write(dir.join("server.pem"), chain).unwrap();
    fs::write(dir.join("server.key"), key).unwrap();
}

/// The certificate that new connections get, on both listeners.
async fn served(ready: &Ready) -> Vec<u8> {
    let mut seen = Vec::new();
    for address in [ready.mqtts(), ready.https()] {
        let stream = dial(ready, address).await.unwrap();
        seen.push(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec());
    }
    assert_eq!(seen[0], seen[1], "both listeners serve the same");
    seen.remove(0)
}

/// What `nave reload` says, with its exit code.
fn reload(site: &Site) -> (Option<i32>, String) {
    let output = site.tool(&["reload"]).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// How many messages reached the endpoint.
async fn heard(device: &mut Device, service: &Service) -> usize {
    let before = service.events().await.len();
    device.telemetry(b"{}").await.expect("the connection stays");
    service.events().await.len() - before
}

#[test]
fn certificates_and_routes_change_without_a_restart() {
    run(async {
        let site = Site::with("\n[tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\nca = \"ca.pem\"\n");
        let (first, second) = (certificate(), certificate());
        fs::write(site.root().join("ca.pem"), [first.0.as_str(), second.0.as_str()].concat()).unwrap();
        serve(site.root(), &first);
        let hub = site.launch();
        let ready = hub.until_ready().await;
        let service = Service::hub(&ready);
        let key = SharedKey::from_bytes(&[3; DEVICE_KEY_LENGTH]).unwrap();
        service.create_device(DEVICE, &key).await;
        let mut device = Device::connect(&ready, DEVICE, &key).await.unwrap();
        let before = served(&ready).await;
        assert_eq!(heard(&mut device, &service).await, 1);

        // A key that belongs to another certificate: refused, and the old one goes on.
        fs::write(site.root().join("server.key"), &second.1).unwrap();
        let (code, text) = reload(&site);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("nothing was changed") && text.contains("does not belong"), "{text}");
        assert_eq!(served(&ready).await, before);

        // The pair: new connections get it, the old connection lives.
        serve(site.root(), &second);
        let (code, text) = reload(&site);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("the certificate"), "{text}");
        assert_ne!(served(&ready).await, before);
        assert_eq!(heard(&mut device, &service).await, 1);

        // A route that takes everything away, beside a port that cannot change: neither is taken up.
        let config = fs::read_to_string(site.config()).unwrap();
        let quiet = config
            .replace("partitions = 4", "partitions = 4\nfallback_route = false")
            .replace("\n[provisioning]", "\n[[hub.route]]\nname = \"none\"\ncondition = \"false\"\n\n[provisioning]");
        fs::write(site.config(), quiet.replace("https = \"127.0.0.1:0\"", "https = \"off\"")).unwrap();
        let (code, text) = reload(&site);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("listen.https") && text.contains("restart"), "{text}");
        assert_eq!(heard(&mut device, &service).await, 1);

        // A route that does not compile beside one that does.
        let wrong =
            quiet.replace("\n[provisioning]", "\n[[hub.route]]\nname = \"r\"\ncondition = \"a >\"\n\n[provisioning]");
        fs::write(site.config(), wrong).unwrap();
        let (code, text) = reload(&site);
        assert!(code == Some(1) && text.contains("route `r`"), "{text}");
        assert_eq!(heard(&mut device, &service).await, 1);

        // Alone it is taken up, and the log level with it.
        fs::write(site.config(), format!("{quiet}\n[log]\nlevel = \"debug\"\n")).unwrap();
        let (code, text) = reload(&site);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("hub.hub1.fallback_route") && text.contains("log.level"), "{text}");
        assert_eq!(heard(&mut device, &service).await, 0);
        let running = site.json(&["config", "show", "--running", "-o", "json"]);
        let shown = running.as_array().unwrap().iter().find(|entry| entry["key"] == "log.level").unwrap();
        assert_eq!(shown["value"], "debug");
        hub.stop();
    });
}
