//! What can go wrong before a connection exists.

use std::io;
use std::net::SocketAddr;

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process (or another listener of this one) has the port.
    #[error("port {} of {} is in use by another program; stop it or configure another port", .address.port(), .address.ip())]
    PortInUse {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The operating system keeps low ports for privileged programs.
    #[error(
        "no permission to listen on port {} of {}. Any of these helps: \
         `sudo sysctl -w net.ipv4.ip_unprivileged_port_start={}` (until the next boot); \
         `sudo setcap cap_net_bind_service=+ep` on the nave program; \
         a container that publishes the port; another port in the configuration", .address.port(), .address.ip(), .address.port()
    )]
    PrivilegedPort {
        /// What was asked for.
        address: SocketAddr,
    },
    /// No interface of this machine has the address.
    #[error("this machine does not have the address {}; configure one that it has, 0.0.0.0 or [::]", .address.ip())]
    AddressNotAvailable {
        /// What was asked for.
        address: SocketAddr,
    },
    /// A listener without TLS was asked for on an address that others can reach.
    #[error("{address} can be reached from outside; without TLS only a loopback address is allowed")]
    NotLoopback {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopped,
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Io {
        /// What was asked for.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
}

impl ListenError {
    pub(crate) fn from_io(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::PortInUse { address },
            io::ErrorKind::PermissionDenied => Self::PrivilegedPort { address },
            io::ErrorKind::AddrNotAvailable => Self::AddressNotAvailable { address },
            _ => Self::Io { address, source },
        }
    }
}

/// Why threads could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start a thread: {0}")]
pub struct StartError(#[from] pub(crate) io::Error);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_port_names_the_remedies() {
        let address = "0.0.0.0:443".parse().expect("an address");
        let error = ListenError::from_io(address, io::ErrorKind::PermissionDenied.into());
        let text = error.to_string();
        for remedy in ["ip_unprivileged_port_start=443", "setcap cap_net_bind_service", "container", "another port"] {
            assert!(text.contains(remedy), "{text}");
        }
    }
}
