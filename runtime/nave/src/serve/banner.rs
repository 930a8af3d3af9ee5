//! What a newcomer reads after the start: what to paste where.

use std::io::Write as _;

use super::certificates::ServerIdentity;
use super::directory::DataDir;
use crate::config::{Config, default_data_dir};
use crate::ready::Ready;

/// Writes the banner to standard output. Nobody needs it, so nothing happens if that is closed.
pub(super) fn print(config: &Config, ready: &Ready, identity: &ServerIdentity, data: &DataDir) {
    let text = text(config, ready, identity, data);
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

fn text(config: &Config, ready: &Ready, identity: &ServerIdentity, data: &DataDir) -> String {
    let flag = if std::path::absolute(default_data_dir()).is_ok_and(|default| default == data.path()) {
        String::new()
    } else {
        format!(" --data-dir {}", data.path().display())
    };
    let mut lines = vec![String::new(), "Nave is ready.".to_owned()];
    for hub in &ready.hubs {
        let dotted = config.hubs.iter().find(|known| known.name.as_str() == hub.name).map(|known| &known.host_name);
        let dotted = dotted.map_or_else(|| hub.host_name.clone(), |name| name.as_str().to_owned());
        lines.push(format!("  hub {}: {dotted}{}", hub.name, ports(hub.mqtts_port, hub.https_port)));
    }
    let dps = &ready.provisioning;
    lines.push(format!(
        "  provisioning: {}, id scope {}{}",
        config.provisioning.host_name,
        dps.id_scope,
        ports(dps.mqtts_port, dps.https_port)
    ));
    lines.push(format!("  CA certificate for clients: {}", ready.ca_certificate.display()));
    lines.push(String::new());
    lines.push("Try it (in another terminal):".to_owned());
    lines.push(format!("  nave device create my-device{flag}               # a device"));
    lines.push(format!("  nave device connection-string my-device{flag}    # what its program needs"));
    lines.push(format!("  nave hub connection-string{flag}                 # what a back end needs"));
    lines.push(format!("  nave events --follow{flag}                       # watch its messages"));
    if identity.is_development {
        lines.push(String::new());
        lines.push("Clients have to trust the CA certificate:".to_owned());
        lines.push(
            "  Python devices: server_verification_cert=open(CA).read()    requests: REQUESTS_CA_BUNDLE=CA".to_owned(),
        );
        lines.push("  Node: NODE_EXTRA_CA_CERTS=CA    others: the trust store of the system".to_owned());
    }
    lines.push(
        "  .NET and Java refuse the name localhost: run `nave hosts --write` as root once, and use the dotted names."
            .to_owned(),
    );
    lines.push(String::new());
    lines.push("Ctrl-C stops it.".to_owned());
    lines.push(String::new());
    lines.join("\n")
}

fn ports(mqtts: Option<u16>, https: Option<u16>) -> String {
    let one = |name: &str, port: Option<u16>| port.map(|port| format!("{name} {port}"));
    let open: Vec<String> = [one("MQTT", mqtts), one("HTTPS", https)].into_iter().flatten().collect();
    if open.is_empty() { String::new() } else { format!(" ({})", open.join(", ")) }
}
