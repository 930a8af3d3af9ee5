//! One connection's TLS as a state machine that keeps no buffers of its own.

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{Error, ProtocolVersion};

use nave_session::protocol::TlsVersion;

use super::ServerTls;
use super::certificates::take_server_name;
use crate::limits::MAX_INCOMPLETE;

/// Room for the header, the nonce and the tag of one record, in either version.
const RECORD_OVERHEAD: usize = 64;
/// The largest plaintext of one record (RFC 8446 §5.1).
const RECORD_PLAINTEXT: usize = 16 * 1024;

/// The server's side of one TLS connection.
///
/// Records are decrypted in the caller's buffer; only the bytes of an incomplete one are kept, in a vector that is freed
/// when it is complete.
pub(crate) struct Session {
    tls: UnbufferedServerConnection,
    incomplete: Vec<u8>,
    server_name: Option<String>,
    /// An error ended the session; rustls must not be asked again.
    failed: bool,
}

/// What processing led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The handshake needs more from the peer.
    Handshaking,
    /// The handshake is over; application data flows.
    Open,
    /// The peer announced that it sends no more.
    PeerClosed,
}

impl Session {
    pub(crate) fn new(tls: &ServerTls) -> Result<Self, Error> {
        let tls = UnbufferedServerConnection::new(tls.config().clone())?;
        Ok(Self { tls, incomplete: Vec::new(), server_name: None, failed: false })
    }

    /// How many bytes at the front of the next buffer belong to [`process`](Self::process); at most [`MAX_INCOMPLETE`].
    pub(crate) fn kept(&self) -> usize {
        self.incomplete.len()
    }

    /// Processes `arrived` new bytes, which the caller has put into `buffer` behind the first [`kept`](Self::kept).
    ///
    /// Gives decrypted data to `plaintext` and appends what is to be sent to `out`; in the case of an error, that is the
    /// alert which tells the peer.
    pub(crate) fn process(
        &mut self,
        buffer: &mut [u8],
        arrived: usize,
        out: &mut Vec<u8>,
        mut plaintext: impl FnMut(&[u8]),
    ) -> Result<Step, Error> {
        if self.failed {
            return Err(Error::HandshakeNotComplete);
        }
        let end = self.incomplete.len().saturating_add(arrived);
        let (Some(mut records), true) = (buffer.get_mut(..end), end > 0) else {
            return Err(Error::General("the buffer is shorter than its content".to_owned()));
        };
        if let Some(front) = records.get_mut(..self.incomplete.len()) {
            front.copy_from_slice(&self.incomplete);
        }
        self.incomplete = Vec::new();

        let handshaking = self.tls.is_handshaking();
        if handshaking {
            take_server_name();
        }
        let mut peer_closed = false;
        loop {
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(records);
            let mut blocked = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plaintext(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(out, |room| data.encode(room))?,
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => peer_closed = true,
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) | ConnectionState::Closed) => {
                    blocked = true;
                }
                // Early data needs resumption, which is switched off.
                Ok(_) => return Err(Error::General("unexpected state of the TLS library".to_owned())),
                Err(error) => {
                    let rest = records.get_mut(discard..).unwrap_or_default();
                    self.failed = true;
                    self.alert(rest, out);
                    return Err(error);
                }
            }
            records = std::mem::take(&mut records).get_mut(discard..).unwrap_or_default();
            if blocked {
                break;
            }
        }
        if handshaking && let Some(name) = take_server_name() {
            self.server_name = Some(name);
        }
        if records.len() > MAX_INCOMPLETE {
            return Err(Error::PeerSentOversizedRecord);
        }
        if !records.is_empty() {
            self.incomplete = records.to_vec();
        }
        Ok(match (peer_closed, self.tls.is_handshaking()) {
            (true, _) => Step::PeerClosed,
            (false, true) => Step::Handshaking,
            (false, false) => Step::Open,
        })
    }

    /// Encrypts `plaintext` behind what `out` holds already.
    pub(crate) fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let records = plaintext.len() / RECORD_PLAINTEXT + 1;
        let estimate = plaintext.len() + records * RECORD_OVERHEAD;
        self.write(out, |state, room| state.encrypt(plaintext, room), estimate)
    }

    /// Appends the announcement that we send no more.
    pub(crate) fn close(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.write(out, |state, room| state.queue_close_notify(room), RECORD_OVERHEAD)
    }

    /// The name that the client asked for, in lower case; known after the handshake.
    pub(crate) fn server_name(&self) -> Option<String> {
        self.server_name.clone()
    }

    /// The client's chain, leaf first.
    pub(crate) fn certificates(&self) -> Vec<Vec<u8>> {
        let chain = self.tls.peer_certificates().unwrap_or_default();
        chain.iter().map(|certificate| certificate.to_vec()).collect()
    }

    /// The negotiated version; known after the handshake.
    pub(crate) fn version(&self) -> TlsVersion {
        match self.tls.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
            _ => TlsVersion::Tls13,
        }
    }

    fn write(
        &mut self,
        out: &mut Vec<u8>,
        mut write: impl FnMut(&mut WriteTraffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
        estimate: usize,
    ) -> Result<(), Error> {
        if self.failed {
            return Err(Error::HandshakeNotComplete);
        }
        loop {
            // With what is kept, not with nothing: a handshake message in pieces is remembered by its place in there.
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut self.incomplete);
            match state? {
                ConnectionState::WriteTraffic(mut state) => {
                    let start = out.len();
                    let mut room = estimate;
                    loop {
                        out.resize(start + room, 0);
                        match write(&mut state, out.get_mut(start..).unwrap_or_default()) {
                            Ok(written) => {
                                out.truncate(start + written);
                                break;
                            }
                            Err(EncryptError::InsufficientSize(needed)) if needed.required_size > room => {
                                room = needed.required_size;
                            }
                            Err(error) => {
                                out.truncate(start);
                                return Err(Error::General(error.to_string()));
                            }
                        }
                    }
                    self.incomplete.drain(..discard.min(self.incomplete.len()));
                    return Ok(());
                }
                ConnectionState::EncodeTlsData(mut data) => encode(out, |room| data.encode(room))?,
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => {}
                _ => return Err(Error::HandshakeNotComplete),
            }
            self.incomplete.drain(..discard.min(self.incomplete.len()));
        }
    }

    /// Appends the alert that an error left behind. `rest` is what the session has not consumed.
    fn alert(&mut self, rest: &mut [u8], out: &mut Vec<u8>) {
        // No more calls than needed: the session offers what it has to send before it looks at `rest`, and must not look
        // at it after an alert.
        loop {
            let UnbufferedStatus { state, .. } = self.tls.process_tls_records(rest);
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => while traffic.next_record().is_some() {},
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    // Without room for it there is no alert; the error is reported anyway.
                    let _ = encode(out, |room| data.encode(room));
                    return;
                }
                _ => return,
            }
        }
    }
}

type WriteTraffic<'c> = rustls::unbuffered::WriteTraffic<'c, rustls::server::ServerConnectionData>;

/// Appends one handshake record: asks for its size first, which changes nothing.
fn encode(out: &mut Vec<u8>, mut write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>) -> Result<(), Error> {
    let start = out.len();
    let mut room = 0;
    loop {
        out.resize(start + room, 0);
        match write(out.get_mut(start..).unwrap_or_default()) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needed)) if needed.required_size > room => room = needed.required_size,
            Err(error) => {
                out.truncate(start);
                return Err(Error::General(error.to_string()));
            }
        }
    }
}
