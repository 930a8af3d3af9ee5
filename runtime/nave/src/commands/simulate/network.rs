//! Reaching a host by TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connection::Trouble;
use crate::client::Endpoint;
use crate::failure::Failure;

/// Time to connect, TLS included. A hub that is being flooded needs some.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The way to the hub.
pub(super) struct Network {
    tls: TlsConnector,
    port: u16,
    /// On this machine, names need not be known to the system.
    is_local: bool,
}

impl Network {
    /// The way to `endpoint` and to every hub behind it.
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&endpoint.ca) {
            let certificate = certificate.map_err(Failure::usage)?;
            roots.add(certificate).map_err(|error| Failure::usage(format_args!("the CA certificate: {error}")))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Failure::runtime)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), port: endpoint.mqtts_port, is_local: endpoint.is_local })
    }

    /// Connects to `host`.
    pub(super) async fn connect(&self, host: &str) -> Result<TlsStream<TcpStream>, Trouble> {
        let connect = async {
            let tcp = if self.is_local {
                match TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))).await {
                    Ok(stream) => stream,
                    // It may listen on another of this machine's addresses only.
                    Err(_) => TcpStream::connect((host, self.port)).await?,
                }
            } else {
                TcpStream::connect((host, self.port)).await?
            };
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from(host.to_owned()).map_err(|error| Trouble::Protocol(error.to_string()))?;
            Ok::<_, Trouble>(self.tls.connect(name, tcp).await?)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connect).await.map_err(|_| Trouble::Timeout("connect"))?
    }
}
