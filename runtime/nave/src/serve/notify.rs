//! Tells a service manager how far the process is: datagrams to the socket that `NOTIFY_SOCKET` names (sd_notify(3)).

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The variable with the socket's address.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// What is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    /// Connections are accepted.
    Ready,
    /// The process is on its way to its end.
    Stopping,
}

/// Tells it to the service manager, if there is one.
pub(super) fn tell(state: State) {
    let Some(address) = std::env::var_os(VARIABLE) else { return };
    let text: &[u8] = match state {
        State::Ready => b"READY=1\nSTATUS=accepting connections",
        State::Stopping => b"STOPPING=1\nSTATUS=stopping",
    };
    if let Err(error) = send(&address, text) {
        // The manager will notice by itself, or will not: the hub is the same.
        tracing::warn!(%error, ?state, "the service manager cannot be told");
    }
}

/// A path, or `@` and a name that exists in no directory.
fn send(address: &OsStr, text: &[u8]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => abstract_address(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    socket.send_to_addr(text, &address).map(|_| ())
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    SocketAddr::from_abstract_name(name)
}

/// Only Linux has such addresses, and only there does systemd run.
#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_address_are_reached() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let name = format!("nave-test-{}", std::process::id());
        let abstract_address = abstract_address(name.as_bytes()).unwrap();
        for (socket, address) in [
            (UnixDatagram::bind(&path).unwrap(), path.as_os_str().to_owned()),
            (UnixDatagram::bind_addr(&abstract_address).unwrap(), format!("@{name}").into()),
        ] {
            send(&address, b"READY=1").unwrap();
            let mut buffer = [0; 32];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1");
        }
        assert!(send(OsStr::new("/does/not/exist"), b"x").is_err());
    }
}
