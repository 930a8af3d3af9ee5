//! `nave status`: how the hub on this machine does.

use std::fmt::Write as _;

use clap::Args;
use serde_json::Value;

use crate::client::{Http, Local, Method, Target};
use crate::failure::Failure;
use crate::output::{self, Format};

/// Show how the hub on this machine does: names, ports, connections, uptime, sizes on disk, the certificate's expiry.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave status
  nave status -o json | jq .certificate.daysLeft

The exit code is 4 when no hub runs with this data directory.")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    target: Target,
}

/// Runs the command.
pub(crate) fn run(args: &StatusArgs) -> Result<(), Failure> {
    let local = args.target.local()?;
    let admin = local.ready.admin.as_ref().ok_or_else(|| {
        Failure::Unreachable("the hub has no admin API (`listen.admin` is off), so it cannot be asked".to_owned())
    })?;
    let mut status = Http::admin(admin).send(Method::Get, "/admin/status", &[], None)?.body;
    add_ports(&mut status, &local);
    match args.target.output {
        Format::Json => output::one(Format::Json, &status),
        Format::Table => output::line(text(&status).trim_end()),
    }
}

/// The ready file knows on which ports the process listens.
fn add_ports(status: &mut Value, local: &Local) {
    let hub = local.ready.hubs.first();
    if let Some(members) = status.as_object_mut() {
        members.insert(
            "ports".to_owned(),
            serde_json::json!({
                "mqtts": hub.and_then(|hub| hub.mqtts_port),
                "https": hub.and_then(|hub| hub.https_port),
                "admin": local.ready.admin.as_ref().map(|admin| &admin.url),
            }),
        );
    }
}

/// The status for people.
fn text(status: &Value) -> String {
    let words = |pointer: &str| status.pointer(pointer).and_then(Value::as_str).map(output::printable);
    let number = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64);
    let mut text = String::new();
    // Writing to a text cannot fail.
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:13} {value}");
    };
    line("version", words("/version").unwrap_or_default());
    let pid = number("/process/pid").unwrap_or_default();
    let uptime = duration(number("/process/uptimeSeconds").unwrap_or_default());
    line("process", format!("{pid}, up {uptime}, {}", bytes(number("/process/residentBytes"))));
    let port = |name: &str| number(&format!("/ports/{name}")).map(|port| format!("{name} {port}"));
    let ports: Vec<String> = [port("mqtts"), port("https"), words("/ports/admin").map(|url| format!("admin {url}"))]
        .into_iter()
        .flatten()
        .collect();
    line("ports", ports.join(", "));
    let count = |name: &str| number(&format!("/connections/{name}")).unwrap_or_default();
    line(
        "connections",
        format!(
            "{} open ({} of them unproved), {} accepted, {} refused, {} failed handshakes",
            count("open"),
            count("unauthenticated"),
            count("accepted"),
            count("refused"),
            count("handshakeFailures")
        ),
    );
    for hub in status.get("hubs").and_then(Value::as_array).into_iter().flatten() {
        let of = |member: &str| hub.get(member).and_then(Value::as_str).map(output::printable).unwrap_or_default();
        let aliases = hub.get("aliases").and_then(Value::as_array).into_iter().flatten();
        let names: Vec<String> =
            std::iter::once(of("hostName")).chain(aliases.filter_map(Value::as_str).map(output::printable)).collect();
        let connected = hub.get("connectedDevices").and_then(Value::as_u64).unwrap_or_default();
        let log = status.pointer("/storage/logs").and_then(|logs| logs.get(of("id")));
        let damaged = hub.get("damagedRecords").and_then(Value::as_u64).filter(|count| *count > 0);
        let damaged = damaged.map(|count| format!("; {count} DAMAGED RECORDS skipped at the start, see the log"));
        let log_number = |member: &str| log.and_then(|log| log.get(member)).and_then(Value::as_u64);
        line(
            &format!("hub {}", of("id")),
            format!(
                "{}; {connected} devices connected; telemetry {} in {} records{}",
                names.join(", "),
                bytes(log_number("bytes")),
                log_number("records").unwrap_or_default(),
                damaged.unwrap_or_default()
            ),
        );
    }
    let names = status.pointer("/provisioning/hostNames").and_then(Value::as_array).into_iter().flatten();
    let names: Vec<String> = names.filter_map(Value::as_str).map(output::printable).collect();
    let scope = words("/provisioning/idScope").unwrap_or_default();
    line("provisioning", format!("{}; id scope {scope}", names.join(", ")));
    line(
        "storage",
        format!(
            "{}: store {}, {} free",
            words("/storage/dataDir").unwrap_or_default(),
            bytes(number("/storage/storeBytes")),
            bytes(number("/storage/freeBytes"))
        ),
    );
    let days = status.pointer("/certificate/daysLeft").and_then(Value::as_i64);
    if let (Some(days), Some(until)) = (days, words("/certificate/notAfter")) {
        let development = status.pointer("/certificate/development") == Some(&Value::Bool(true));
        let kind = if development { "of the development CA, renewed by itself" } else { "configured" };
        line("certificate", format!("{kind}; until {until} ({days} days)"));
    }
    text
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// A size for people; `?` where nobody knows.
fn bytes(count: Option<u64>) -> String {
    match count {
        None => "?".to_owned(),
        Some(count) if count < 1 << 20 => format!("{} KiB", count.div_ceil(1 << 10)),
        Some(count) if count < 10 << 30 => format!("{} MiB", count >> 20),
        Some(count) => format!("{} GiB", count >> 30),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_and_times_are_readable() {
        let sizes = [0, 1, 5 << 20, 20 << 30].map(|count| bytes(Some(count)));
        assert_eq!(sizes, ["0 KiB", "1 KiB", "5 MiB", "20 GiB"]);
        let times = [7, 125, 7_300, 90_000].map(duration);
        assert_eq!(times, ["7 s", "2 min", "2 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn the_text_has_what_an_operator_looks_for() {
        let text = text(&json!({
            "version": "0.1.0",
            "hubs": [{"id": "hub1", "hostName": "h.x", "aliases": ["localhost"], "connectedDevices": 3, "damagedRecords": 2}],
            "provisioning": {"idScope": "0ne1", "hostNames": ["d.x"]},
            "process": {"pid": 7, "uptimeSeconds": 60, "residentBytes": 1 << 20},
            "connections": {"open": 4, "unauthenticated": 1, "accepted": 9, "refused": 0, "handshakeFailures": 2},
            "storage": {"dataDir": "/d", "freeBytes": 1 << 30, "storeBytes": 5, "logs": {"hub1": {"bytes": 3 << 20, "records": 8}}},
            "certificate": {"notAfter": "2027-01-01", "daysLeft": 34, "development": false},
            "ports": {"mqtts": 8883, "https": null, "admin": "http://127.0.0.1:1"},
        }));
        for words in [
            "up 1 min",
            "mqtts 8883, admin http",
            "4 open (1 of",
            "h.x, localhost; 3 devices",
            "3 MiB in 8 records; 2 DAMAGED RECORDS",
            "id scope 0ne1",
            "1024 MiB free",
            "(34 days)",
        ] {
            assert!(text.contains(words), "`{words}` is not in\n{text}");
        }
    }
}
