//! What an ordinary user may not do. Root is asked for only to become one.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::server::{Site, binary, is_root, skip};

/// User and group `nobody` of Debian.
const NOBODY: u32 = 65_534;

/// Ports from this one on are free for everybody, unless the administrator changed it.
const UNPRIVILEGED: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// The words that make the rest of a command run as nobody.
fn as_nobody() -> Vec<&'static str> {
    vec!["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
}

/// Where nobody can read the program.
fn readable_copy(site: &Site) -> PathBuf {
    let copy = site.root().join("nave");
    fs::copy(binary(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    copy
}

fn works(words: &[&str]) -> bool {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn a_refused_low_port_names_the_remedies() {
    if !is_root("becoming nobody") {
        return;
    }
    let mut wrapper = as_nobody();
    if fs::read_to_string(UNPRIVILEGED).unwrap().trim() == "0" {
        // As in a container. A new network has the system's default, and no interface: the port is refused before that matters.
        wrapper.splice(0..0, ["unshare", "--net"]);
    }
    if !works(&wrapper) {
        skip(&format!("a privileged port: `{}` does not work here", wrapper.join(" ")));
        return;
    }
    let site = Site::new();
    fs::create_dir(site.data()).unwrap();
    chown(site.data(), Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = site.command_of(&readable_copy(&site), &wrapper);
    command.args(["--listen-mqtts", "off", "--listen-admin", "off", "--listen-https", "0.0.0.0:443"]);
    let words = ["443", "ip_unprivileged_port_start=443", "setcap cap_net_bind_service", "container", "another port"];
    site.refused(command).expect(1, &words);
}

#[test]
fn a_data_directory_of_somebody_else_is_refused() {
    if !is_root("becoming nobody") {
        return;
    }
    if !works(&as_nobody()) {
        skip("the data directory of somebody else: setpriv does not work here");
        return;
    }
    let site = Site::new();
    let program = readable_copy(&site);
    let words = ["cannot be written", "chown", "--data-dir", site.data().to_str().unwrap()];
    // It cannot be made ...
    site.refused(site.command_of(&program, &as_nobody())).expect(1, &words);
    assert!(!site.data().exists());
    // ... nor used, whoever may look into it.
    for mode in [0o755, 0o700] {
        fs::create_dir_all(site.data()).unwrap();
        fs::set_permissions(site.data(), fs::Permissions::from_mode(mode)).unwrap();
        site.refused(site.command_of(&program, &as_nobody())).expect(1, &words);
        assert_eq!(fs::read_dir(site.data()).unwrap().count(), 0, "nothing was written");
    }
}
