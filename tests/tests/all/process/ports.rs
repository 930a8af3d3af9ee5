//! Ports that cannot be had.

use std::net::{Ipv4Addr, TcpListener};

use super::server::Site;

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    for (flag, key) in
        [("--listen-mqtts", "listen.mqtts"), ("--listen-https", "listen.https"), ("--listen-admin", "listen.admin")]
    {
        let site = Site::new();
        let mut command = site.command();
        command.arg(flag).arg(format!("127.0.0.1:{port}"));
        let refusal = site.refused(command);
        refusal.expect(1, &[&format!("port {port}"), "in use", flag, key]);
        assert!(!site.ready_file().exists(), "a hub that is not ready says so nowhere");
    }
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let site = Site::new();
    let mut command = site.command();
    // RFC 5737: no machine has this address.
    command.args(["--listen-mqtts", "192.0.2.1:8883"]);
    site.refused(command).expect(1, &["192.0.2.1", "0.0.0.0"]);
}
