//! Serves a canned MQTT answerer, to measure what the transport itself costs: memory per idle connection, processor time
//! per TLS connection and per acknowledged message. Nothing is checked, stored or routed.
//!
//! `idle ADDRESS CERTIFICATE.pem KEY.pem [WORKERS]`; ends on SIGTERM.
#![allow(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use nave_env::{Moment, SharedEnv};
use nave_net::tls::{Certificates, Identity, ServerTls};
use nave_net::{RealEnv, Server, ServerOptions, Signal, watch_signals};
use nave_session::protocol::{CloseReason, Disconnect, PeerFacts, Protocol, ProtocolFactory};

/// Silence after which a client is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(300);
/// Bytes of one packet; canned clients send far less.
const MAX_PACKET: usize = 256 * 1024;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(chain), Some(key)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("usage: idle ADDRESS CERTIFICATE.pem KEY.pem [WORKERS]".into());
    };
    let workers = arguments.next().map(|count| count.parse::<NonZeroUsize>()).transpose()?;
    let identity = Identity::from_pem(&std::fs::read(chain)?, &std::fs::read(key)?)?;
    let tls = ServerTls::new(Certificates::new(identity, []))?;
    let env = RealEnv::start()?;
    let server = Server::start(&ServerOptions { workers, ..ServerOptions::default() }, Arc::clone(&env))?;
    let address = server.listen_mqtts(address.parse::<SocketAddr>()?, &tls, Arc::new(Factory(env)))?;
    println!("listening on {address}");
    watch_signals(|signal| signal == Signal::Reload)?;
    println!("{:?}", server.statistics());
    let in_time = server.shutdown(Duration::from_secs(5));
    println!("stopped; all connections ended in time: {in_time}");
    Ok(())
}

struct Factory(Arc<RealEnv>);

impl ProtocolFactory for Factory {
    fn accept(&self, _peer: PeerFacts) -> Box<dyn Protocol> {
        let env: SharedEnv = self.0.clone();
        let heard = env.monotonic();
        Box::new(Canned { env, heard, kept: Vec::new(), output: Vec::new(), connected: false, closing: None })
    }
}

struct Canned {
    env: SharedEnv,
    heard: Moment,
    kept: Vec<u8>,
    output: Vec<u8>,
    connected: bool,
    closing: Option<CloseReason>,
}

impl Canned {
    /// Answers the first packet of `bytes` and gives its length; `None` while it is incomplete.
    fn answer(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut length = 0;
        let mut start = 1;
        loop {
            let byte = usize::from(*bytes.get(start)?);
            length |= (byte & 0x7f) << (7 * (start - 1));
            start += 1;
            if byte & 0x80 == 0 {
                break;
            }
            if start > 4 {
                self.closing = Some(CloseReason::Violation("length".into()));
                return None;
            }
        }
        if length > MAX_PACKET {
            self.closing = Some(CloseReason::Overload("packet size"));
            return None;
        }
        let body = bytes.get(start..start + length)?;
        let first = *bytes.first()?;
        match first >> 4 {
            1 => {
                self.connected = true;
                self.output.extend([0x20, 2, 0, 0]);
            }
            3 if first & 6 != 0 => {
                let topic = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
                if let Some(id) = body.get(2 + topic..4 + topic) {
                    self.output.extend([0x40, 2]);
                    self.output.extend(id);
                }
            }
            8 => {
                self.output.extend([0x90, 3]);
                self.output.extend(body.get(..2)?);
                self.output.push(1);
            }
            12 => self.output.extend([0xd0, 0]),
            14 => self.closing = Some(CloseReason::Finished),
            _ => {}
        }
        Some(start + length)
    }
}

impl Protocol for Canned {
    fn receive(&mut self, bytes: &[u8]) {
        self.heard = self.env.monotonic();
        let mut kept = std::mem::take(&mut self.kept);
        let mut rest = if kept.is_empty() {
            bytes
        } else {
            kept.extend_from_slice(bytes);
            &kept
        };
        while let Some(length) = self.answer(rest) {
            rest = rest.get(length..).unwrap_or_default();
        }
        self.kept = rest.to_vec();
    }

    fn poll(&mut self, _cx: &mut Context<'_>) {
        if self.env.monotonic() >= self.heard.after(KEEP_ALIVE) {
            self.closing.get_or_insert(CloseReason::Timeout("keep-alive"));
        }
    }

    fn transmit(&mut self, out: &mut Vec<u8>) -> bool {
        out.append(&mut self.output);
        if self.output.capacity() > 256 || self.output.is_empty() {
            self.output = Vec::new();
        }
        false
    }

    fn wants_input(&self) -> bool {
        self.output.len() < MAX_PACKET
    }

    fn deadline(&self) -> Option<Moment> {
        Some(self.heard.after(KEEP_ALIVE))
    }

    fn closing(&self) -> Option<CloseReason> {
        self.closing.clone()
    }

    fn authenticated(&self) -> bool {
        self.connected
    }

    fn shutdown(&mut self) {
        self.closing.get_or_insert(CloseReason::Shutdown);
    }

    fn disconnected(&mut self, _reason: Disconnect) {}

    fn drained(&self) -> bool {
        true
    }
}
