//! One MQTT connection: CONNECT decides whether it is a device's session with a hub or a registration with the
//! provisioning service; everything after that is that side's business.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use nave_env::{BoxFuture, Moment};
use nave_hub::{HubError, Platform};
use nave_model::{HostName, IdScope, Identity};
use nave_mqtt::connect::split_first_segment;
use nave_mqtt::packet::{Connect, ConnectRefusal};
use nave_mqtt::session::{Event, Flow, ServerSession, SessionLimits, Violation};

use crate::dps::DpsSide;
use crate::hub::{HubLogin, HubSide};
use crate::protocol::{CloseReason, Disconnect, PeerFacts, Protocol, ProtocolFactory};

/// Output that one call of [`Protocol::transmit`] hands over at most, unless a single packet is larger.
const TRANSMIT_BYTES: usize = 64 << 10;

/// Makes MQTT connections to the hubs and the provisioning service of a platform.
pub struct MqttFactory {
    platform: Arc<Platform>,
}

impl MqttFactory {
    /// Connections to `platform`.
    pub const fn new(platform: Arc<Platform>) -> Self {
        Self { platform }
    }
}

impl ProtocolFactory for MqttFactory {
    fn accept(&self, peer: PeerFacts) -> Box<dyn Protocol> {
        Box::new(MqttConnection::new(Arc::clone(&self.platform), peer))
    }
}

/// A connection. It implements [`Protocol`], which says how it is driven.
pub struct MqttConnection {
    platform: Arc<Platform>,
    peer: Arc<PeerFacts>,
    mqtt: ServerSession,
    state: State,
    out: Vec<u8>,
    closing: Option<CloseReason>,
    /// Whoever waits until the peer has taken what is in `out`.
    waits_for_room: Option<Waker>,
    /// The transport is gone: only accepted work is finished.
    disconnected: bool,
}

enum State {
    /// CONNECT has not come.
    Fresh,
    /// Credentials of a device that says it is this one are being checked.
    Connecting(Identity, BoxFuture<Result<(HubSide, bool), HubError>>),
    Hub(Box<HubSide>),
    Dps(Box<DpsSide>),
    Over,
}

impl MqttConnection {
    /// A new connection of `peer`.
    pub fn new(platform: Arc<Platform>, peer: PeerFacts) -> Self {
        let now = millis(platform.env().monotonic());
        Self {
            platform,
            peer: Arc::new(peer),
            mqtt: ServerSession::new(SessionLimits::default(), now),
            state: State::Fresh,
            out: Vec::new(),
            closing: None,
            waits_for_room: None,
            disconnected: false,
        }
    }

    /// Delivers packets: those in `bytes`, or those that were held back until now.
    fn deliver(&mut self, bytes: Option<&[u8]>) {
        let now = millis(self.platform.env().monotonic());
        let Self { platform, peer, mqtt, state, out, closing, .. } = self;
        let mut refusal = None;
        let sink = |event: Event<'_>| match (&mut *state, event) {
            (State::Fresh, Event::Connect(connect)) => {
                match connected(platform, peer, &connect) {
                    Ok(next) => *state = next,
                    Err((code, reason)) => {
                        platform.metrics().mqtt_authentication_failures.increment();
                        *closing = Some(reason);
                        refusal = Some(code);
                    }
                }
                // What follows is held by the session until the CONNECT is answered.
                Flow::Continue
            }
            (state, Event::Disconnect) => {
                if let State::Hub(side) = state {
                    side.goodbye();
                }
                closing.get_or_insert(CloseReason::Finished);
                Flow::Stop
            }
            (State::Hub(side), event) => side.handle(event, out).unwrap_or_else(|reason| stop(closing, reason)),
            (State::Dps(side), event) => side.handle(event, out).unwrap_or_else(|reason| stop(closing, reason)),
            (_, _) => Flow::Stop,
        };
        let result = match bytes {
            Some(bytes) => mqtt.receive(bytes, now, sink),
            None => mqtt.resume(now, sink),
        };
        if let Some(code) = refusal {
            mqtt.refuse(code, out);
        }
        mqtt.write_pongs(out);
        match result {
            Ok(()) => {}
            Err(violation) => self.violated(violation),
        }
        if let State::Dps(_) = self.state {
            self.accept(false);
        }
    }

    /// Answers the CONNECT, if there still is one to answer, and delivers what the client sent without waiting.
    fn accept(&mut self, session_present: bool) {
        if self.mqtt.is_connecting() {
            let now = millis(self.platform.env().monotonic());
            self.mqtt.accept(session_present, now, &mut self.out);
            self.deliver(None);
        }
    }

    fn violated(&mut self, violation: Violation) {
        self.out.extend_from_slice(violation.farewell());
        let reason = if violation.is_timeout() {
            CloseReason::Timeout(match violation {
                Violation::ConnectTimeout => "CONNECT",
                _ => "keep-alive",
            })
        } else {
            CloseReason::Violation(violation.to_string().into())
        };
        self.close(reason);
    }

    fn close(&mut self, reason: CloseReason) {
        self.closing.get_or_insert(reason);
        self.mqtt.close();
    }

    fn poll_connecting(&mut self, context: &mut Context<'_>) {
        let State::Connecting(identity, connecting) = &mut self.state else { return };
        let Poll::Ready(result) = connecting.as_mut().poll(context) else { return };
        match result {
            Ok((mut side, session_present)) => {
                tracing::info!(hub = %side.hub_id(), device = %side.identity(), peer = %self.peer.address, "device connected");
                if self.disconnected {
                    // It never learned that it was connected: there is nothing that it could have lost.
                    side.goodbye();
                    side.disconnected();
                }
                self.state = State::Hub(Box::new(side));
                self.accept(session_present);
            }
            Err(error) => {
                let temporary = error.is_internal() || matches!(error.code.status(), 429 | 503);
                if error.is_internal() {
                    tracing::error!(device = %identity, peer = %self.peer.address, %error, "a device could not be connected");
                }
                if error.code.status() == 401 {
                    self.platform.metrics().mqtt_authentication_failures.increment();
                }
                let code = if temporary { ConnectRefusal::ServerUnavailable } else { ConnectRefusal::NotAuthorized };
                self.mqtt.refuse(code, &mut self.out);
                let reason = format!("device {identity}: {error}");
                self.state = State::Over;
                self.close(CloseReason::Refused(reason.into()));
            }
        }
    }

    /// Lets the hub's or the provisioning service's side work, and gives it the packets that it was too busy for.
    fn poll_side(&mut self, context: &mut Context<'_>) -> Option<CloseReason> {
        loop {
            let (ended, busy) = match &mut self.state {
                State::Hub(side) => (side.poll(context, &mut self.mqtt, &mut self.out), !side.takes_requests()),
                State::Dps(side) => (side.poll(context, &mut self.mqtt, &mut self.out), !side.wants_input()),
                _ => (None, false),
            };
            if ended.is_some() || self.closing.is_some() || !self.mqtt.is_paused() || busy {
                return ended;
            }
            if self.out.len() >= crate::MAX_UNWRITTEN_BYTES {
                self.waits_for_room = Some(context.waker().clone());
                return None;
            }
            self.deliver(None);
        }
    }

    fn check_timers(&mut self) {
        let now = self.platform.env().monotonic();
        if let Some(violation) = self.mqtt.check_timeout(millis(now)) {
            self.violated(violation);
        }
        if matches!(&self.state, State::Hub(side) if side.expires().is_some_and(|expires| expires <= now)) {
            self.close(CloseReason::Expired);
        }
    }
}

impl Protocol for MqttConnection {
    fn receive(&mut self, bytes: &[u8]) {
        if self.closing.is_none() {
            self.deliver(Some(bytes));
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) {
        self.poll_connecting(context);
        if let Some(reason) = self.poll_side(context) {
            self.close(reason);
        }
        self.check_timers();
    }

    fn transmit(&mut self, out: &mut Vec<u8>) -> bool {
        if self.out.len() <= TRANSMIT_BYTES {
            // The buffer goes with its contents: an idle connection keeps none.
            if out.is_empty() && out.capacity() < self.out.capacity() {
                *out = std::mem::take(&mut self.out);
            } else {
                out.append(&mut self.out);
                self.out = Vec::new();
            }
            if let State::Hub(side) = &self.state {
                side.resume();
            }
            if let Some(waker) = self.waits_for_room.take() {
                waker.wake();
            }
            return false;
        }
        out.extend(self.out.drain(..TRANSMIT_BYTES));
        true
    }

    fn wants_input(&self) -> bool {
        self.closing.is_none()
            && self.mqtt.wants_input()
            && self.out.len() < crate::MAX_UNWRITTEN_BYTES
            && match &self.state {
                State::Hub(side) => side.wants_input(),
                State::Dps(side) => side.wants_input(),
                _ => true,
            }
    }

    fn deadline(&self) -> Option<Moment> {
        let silence = self.mqtt.deadline().map(|millis| Moment::from_start(std::time::Duration::from_millis(millis)));
        let expires = match &self.state {
            State::Hub(side) if self.closing.is_none() => side.expires(),
            _ => None,
        };
        [silence, expires].into_iter().flatten().min()
    }

    fn closing(&self) -> Option<CloseReason> {
        match &self.closing {
            // A goodbye and a stop wait for what was accepted before, so that it is still acknowledged.
            Some(CloseReason::Finished | CloseReason::Shutdown) if !self.drained() => None,
            closing => closing.clone(),
        }
    }

    fn authenticated(&self) -> bool {
        match &self.state {
            State::Hub(_) => true,
            State::Dps(side) => side.authenticated(),
            _ => false,
        }
    }

    fn shutdown(&mut self) {
        self.close(CloseReason::Shutdown);
    }

    fn disconnected(&mut self, reason: Disconnect) {
        // What the peer sent before it left still counts, its goodbye too.
        while self.closing.is_none() && self.mqtt.is_paused() {
            self.deliver(None);
        }
        self.disconnected = true;
        match &mut self.state {
            State::Hub(side) => {
                tracing::info!(hub = %side.hub_id(), device = %side.identity(), %reason, "device disconnected");
                side.disconnected();
            }
            State::Dps(side) => {
                tracing::debug!(registration = %side.registration_id(), %reason, "provisioning connection ended");
            }
            _ => match self.platform.refusal() {
                Some(suppressed) => {
                    tracing::info!(peer = %self.peer.address, %reason, suppressed, "connection ended without a session");
                }
                None => tracing::debug!(peer = %self.peer.address, %reason, "connection ended without a session"),
            },
        }
        self.mqtt.close();
        self.out = Vec::new();
    }

    fn drained(&self) -> bool {
        match &self.state {
            State::Connecting(..) => false,
            State::Hub(side) => side.is_idle(),
            // A registration that was begun is ended: what follows its commits must not depend on who waits.
            State::Dps(side) => side.is_idle(),
            State::Fresh | State::Over => true,
        }
    }
}

/// What a CONNECT leads to.
fn connected(
    platform: &Arc<Platform>,
    peer: &Arc<PeerFacts>,
    connect: &Connect<'_>,
) -> Result<State, (ConnectRefusal, CloseReason)> {
    let refused = |why: String| (ConnectRefusal::NotAuthorized, CloseReason::Refused(why.into()));
    let Some(login) = connect.login else { return Err(refused("CONNECT without a user name".to_owned())) };
    let (first, rest) = split_first_segment(login.username);
    // A device may be called `registrations`: the id scope decides, not the second segment.
    if let Some(provisioning) = IdScope::parse(first).ok().and_then(|scope| platform.provisioning_of(&scope)) {
        let side = DpsSide::new(platform, provisioning, peer, connect, login);
        return side.map(|side| State::Dps(Box::new(side))).map_err(refused);
    }
    let Some(hub) = HostName::parse(first).ok().and_then(|name| platform.hub(&name)) else {
        let kind = if rest.starts_with("registrations/") { "id scope" } else { "hub" };
        return Err(refused(format!("there is no {kind} `{first}` here")));
    };
    let login = HubLogin::read(platform, hub, peer, connect, login).map_err(refused)?;
    Ok(State::Connecting(login.identity().clone(), Box::pin(login.connect())))
}

fn stop(closing: &mut Option<CloseReason>, reason: CloseReason) -> Flow {
    closing.get_or_insert(reason);
    Flow::Stop
}

pub(crate) const fn millis(moment: Moment) -> u64 {
    moment.since_start().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Most bytes of a connection before and beside its session. There is one of it for every idle device.
    const MAX_CONNECTION_BYTES: usize = 512;

    /// Most bytes of a device's session. What few devices use at a time (requests, a will) is in boxes of its own.
    const MAX_SESSION_BYTES: usize = 640;

    #[test]
    fn an_idle_connection_is_small() {
        let (connection, session) = (size_of::<MqttConnection>(), size_of::<HubSide>());
        println!("connection {connection}, session {session}");
        assert!(connection <= MAX_CONNECTION_BYTES, "the connection has {connection} bytes");
        assert!(session <= MAX_SESSION_BYTES, "the session has {session} bytes");
    }
}
