//! A device that does as little as possible: its own cost is part of what is measured.

use std::net::SocketAddr;
use std::sync::Arc;

use nave_mqtt::encode;
use nave_mqtt::packet::{Connect, Login};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use crate::platform::HUB;

/// Believes every certificate: only the server is measured.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Dials the bench's server.
#[derive(Clone)]
pub struct Dialer {
    address: SocketAddr,
    tls: TlsConnector,
}

impl Dialer {
    /// TLS 1.3 to `address`, which must be of the loopback interface.
    pub fn new(address: SocketAddr) -> Self {
        assert!(address.ip().is_loopback());
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Gullible))
            .with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        Self { address, tls: TlsConnector::from(Arc::new(config)) }
    }

    /// A TLS handshake and nothing else.
    pub async fn handshake(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        self.tls.connect(ServerName::try_from(HUB).unwrap(), stream).await.unwrap()
    }

    /// A TLS handshake and a CONNECT, to its CONNACK.
    pub async fn connect(&self, device: &str, token: &str) -> TlsStream<TcpStream> {
        let mut stream = self.handshake().await;
        let username = format!("{HUB}/{device}/?api-version=2021-04-12");
        let login = Login { username: &username, password: Some(token.as_bytes()) };
        let packet = Connect { client_id: device, clean_session: true, keep_alive: 60, will: None, login: Some(login) };
        let mut out = Vec::new();
        encode::connect(&mut out, &packet).unwrap();
        stream.write_all(&out).await.unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [0x20, 2, 0, 0], "the CONNECT was refused");
        stream
    }
}
