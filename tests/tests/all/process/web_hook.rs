//! A web hook over TLS, with an authority of its own.

use std::fs;
use std::io::BufReader;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

use nave_tests::http::Request;

use super::policies::{Deployment, enroll, register};
use super::run;
use super::service::Service;

/// What the web hook gives to each device.
const ANSWER: &str = r#"{"iotHubHostName":"hub1.nave.test","payload":{"from":"the web hook"}}"#;

/// An authority, a server certificate by it for `localhost`, and a server that answers every request with [`ANSWER`].
/// Returns its address and the authority's file in `directory`.
fn serve(directory: &Path) -> (String, PathBuf) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let file = directory.join("hook-ca.pem");
    fs::write(&file, ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = certificate.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(certificate.der().to_vec())],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}/allocate?code=c2VjcmV0LWtleQ", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let config = Arc::clone(&config);
            std::thread::spawn(move || {
                let connection = ServerConnection::new(config).unwrap();
                let mut reader = BufReader::new(StreamOwned::new(connection, stream.unwrap()));
                // Ends with the connection, or with a client that does not trust it.
                while answer(&mut reader).is_some() {}
            });
        }
    });
    (url, file)
}

fn answer<S: std::io::Read + std::io::Write>(reader: &mut BufReader<S>) -> Option<()> {
    Request::read(reader)?;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", ANSWER.len());
    reader.get_mut().write_all((head + ANSWER).as_bytes()).ok()?;
    reader.get_mut().flush().ok()
}

#[test]
fn a_web_hook_is_asked_over_tls_and_only_if_its_certificate_is_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let (url, ca) = serve(directory.path());
    let other = directory.path().join("other");
    fs::create_dir(&other).unwrap();
    let (_, other_ca) = serve(&other);
    for (ca, trusted) in [(&ca, true), (&other_ca, false)] {
        let deployment = Deployment::with(&format!("webhook_ca = \"{}\"\n", ca.display()));
        let (nave, ready) = deployment.site.start();
        run(async {
            enroll(&ready, "hooked", Some(&url)).await;
            let state = register(&ready, "dev-1", "").await;
            if trusted {
                assert_eq!((&state["status"], &state["payload"]["from"]), (&json!("assigned"), &json!("the web hook")));
            } else {
                assert_eq!((&state["status"], &state["errorCode"]), (&json!("failed"), &json!(400_207)), "{state}");
                assert!(state["errorMessage"].as_str().unwrap().contains("cannot be reached"), "{state}");
                // The rest of the service goes on.
                Service::provisioning(&ready).json("GET", "/allocationPolicies?api-version=2021-10-01", "").await;
            }
        });
        let log = deployment.site.log();
        assert_eq!(log.contains("its certificate is not trusted"), !trusted, "{log}");
        assert_eq!(log.contains("provisioning.webhook_ca"), !trusted, "{log}");
        assert!(!log.contains("c2VjcmV0LWtleQ"), "{log}");
        nave.stop();
    }
}
