//! Ports and names.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::sync::mpsc;
use std::time::Duration;

use super::{Finding, Patient};
use crate::config::Listen;

/// How long a name server may take to answer; clients give up about then too.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Names that are looked up; a process has at most some hundred.
const MAX_NAMES: usize = 20;

/// Whether the hub may listen where it is configured to.
pub(super) fn ports(patient: &Patient) -> Vec<Finding> {
    const WHAT: &str = "ports";
    if let Some(running) = &patient.running {
        return vec![Finding::ok(WHAT, format!("in use by the hub that runs (process {})", running.pid))];
    }
    let config = &patient.config;
    let mut findings = Vec::new();
    for (name, listen) in [("mqtts", &config.mqtts), ("https", &config.https), ("admin", &config.admin)] {
        let Listen::On(addresses) = listen else {
            findings.push(Finding::ok(WHAT, format!("{name} is off")));
            continue;
        };
        // As at the start: the first address has to work.
        if let Some(address) = addresses.first() {
            findings.push(port(WHAT, name, *address));
        }
    }
    findings
}

fn port(what: &'static str, name: &str, address: SocketAddr) -> Finding {
    use std::io::ErrorKind;
    let Err(error) = TcpListener::bind(address) else {
        return Finding::ok(what, format!("{name}: {address} is free"));
    };
    let port = address.port();
    let remedy = match error.kind() {
        ErrorKind::AddrInUse => format!(
            "stop the program that has port {port} (`ss -ltnp sport = :{port}` names it), or choose another with --listen-{name}"
        ),
        ErrorKind::PermissionDenied => format!(
            "one of: `sudo sysctl -w net.ipv4.ip_unprivileged_port_start={port}` (until the next boot); \
             `sudo setcap cap_net_bind_service=+ep` on the nave program; the systemd unit, which has the capability; \
             a container that publishes the port; another port with --listen-{name}"
        ),
        ErrorKind::AddrNotAvailable => {
            format!("configure an address that this machine has (`listen.{name}`), 0.0.0.0 or [::]")
        }
        _ => format!("configure another address with --listen-{name}"),
    };
    Finding::failed(what, format!("{name}: {address}: {error}"), remedy)
}

/// Whether this machine finds the hubs by their names.
pub(super) fn names(patient: &Patient) -> Vec<Finding> {
    const WHAT: &str = "host names";
    let names: Vec<String> = patient
        .config
        .host_names()
        .into_iter()
        .filter(|name| name.is_dotted() && name.as_str().parse::<std::net::IpAddr>().is_err())
        .map(|name| name.as_str().to_owned())
        .collect();
    let looked_up: Vec<String> = names.iter().take(MAX_NAMES).cloned().collect();
    let mut findings = Vec::new();
    // A name server that does not answer must not hold up the command: its thread ends with the process.
    let (sender, receiver) = mpsc::channel();
    for name in looked_up.clone() {
        let sender = sender.clone();
        let look = move || {
            let found = (name.as_str(), 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).next());
            // Nobody waits for a late answer.
            let _ = sender.send((name, found.ok().flatten()));
        };
        if std::thread::Builder::new().name("nave-resolve".into()).spawn(look).is_err() {
            break;
        }
    }
    drop(sender);
    let mut unknown = looked_up;
    let mut known = Vec::new();
    while let Ok((name, address)) = receiver.recv_timeout(RESOLVE_TIMEOUT) {
        if let Some(address) = address {
            unknown.retain(|other| *other != name);
            known.push(format!("{name} is {address}"));
        }
    }
    known.sort_unstable();
    if !known.is_empty() {
        findings.push(Finding::ok(WHAT, known.join(", ")));
    }
    if !unknown.is_empty() {
        let remedy = "on one machine: `sudo nave hosts --write` (with the same --config); in a network: give the names to its name server";
        findings.push(Finding::warning(WHAT, format!("this machine does not know {}", unknown.join(", ")), remedy));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::super::tests::patient;
    use super::*;
    use crate::config::{Config, Overrides};

    #[test]
    fn a_port_that_is_taken_is_found_with_a_remedy() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let overrides =
            Overrides { mqtts: Some(address.to_string()), https: Some("off".into()), ..Overrides::default() };
        let patient = Patient { config: Config::load(None, overrides).unwrap(), running: None };
        let findings = ports(&patient);
        assert_eq!(findings[0].verdict, Verdict::Failed);
        assert!(findings[0].remedy.contains("--listen-mqtts"), "{findings:?}");
        assert_eq!(findings[1].found, "https is off");
    }

    #[test]
    fn names_that_nobody_knows_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut patient = patient(dir.path());
        // RFC 6761, section 6.4: `.invalid` is never there.
        patient.config.hubs[0].host_name = nave_model::HostName::parse("hub.nave.invalid").unwrap();
        let findings = names(&patient);
        let told = findings.iter().find(|finding| finding.verdict == Verdict::Warning).unwrap();
        assert!(told.found.contains("hub.nave.invalid") && told.remedy.contains("nave hosts --write"), "{told:?}");
    }
}
