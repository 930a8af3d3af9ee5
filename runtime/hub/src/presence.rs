//! Whether devices and modules are connected, since when, and when they were last heard of.
//!
//! All of this is volatile: it is known to the host that holds, or last held, the connection, and merged into answers when
//! they are read. A restart forgets it.

use hashbrown::HashMap;
use nave_model::{Identity, SessionRecord, Timestamp};
use parking_lot::Mutex;

use crate::bus::{HostId, HostMessage, HostReply};
use crate::error::HubError;
use crate::hub::{Hub, decode};

/// Most devices and modules whose last connection or activity a host remembers, per hub: about 100 bytes each. Beyond, those
/// that it has not heard of for longest are shown as if they had never been there.
pub const MAX_REMEMBERED: usize = 200_000;

/// What is known of a device's connection besides its record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Whether it is connected.
    pub connected: bool,
    /// When that last changed, if somebody remembers.
    pub changed: Option<Timestamp>,
    /// When it was last heard of, if somebody remembers.
    pub last_activity: Option<Timestamp>,
}

/// What a host remembers of those that are not connected any more.
#[derive(Default)]
pub(crate) struct Presence(Mutex<Generations>);

/// Two halves: what is new goes into the younger; when that is full it becomes the older, which is forgotten as a whole.
#[derive(Default)]
struct Generations {
    younger: HashMap<Identity, Connection>,
    older: HashMap<Identity, Connection>,
}

impl Presence {
    pub(crate) fn get(&self, identity: &Identity) -> Connection {
        let generations = self.0.lock();
        generations.younger.get(identity).or_else(|| generations.older.get(identity)).copied().unwrap_or_default()
    }

    /// Notes that `identity` was connected until `now`.
    pub(crate) fn left(&self, identity: &Identity, last_activity: Timestamp, now: Timestamp) {
        let connection = Connection { connected: false, changed: Some(now), last_activity: Some(last_activity) };
        self.0.lock().set(identity, connection);
    }

    /// Notes that `identity`, which has no connection, was heard of.
    pub(crate) fn heard_of(&self, identity: &Identity, now: Timestamp) {
        let connection = Connection { last_activity: Some(now), ..self.get(identity) };
        self.0.lock().set(identity, connection);
    }

    pub(crate) fn forget(&self, identity: &Identity) {
        let mut generations = self.0.lock();
        generations.younger.remove(identity);
        generations.older.remove(identity);
    }
}

impl Generations {
    fn set(&mut self, identity: &Identity, connection: Connection) {
        if self.younger.len() >= MAX_REMEMBERED / 2 && !self.younger.contains_key(identity) {
            self.older = std::mem::take(&mut self.younger);
        }
        self.older.remove(identity);
        self.younger.insert(identity.clone(), connection);
    }
}

impl Hub {
    /// Notes that `identity` did something, with a connection or without.
    pub fn note_activity(&self, identity: &Identity) {
        let now = self.env.now();
        match self.sessions.get(identity) {
            Some(session) => session.active(now),
            None => self.presence.heard_of(identity, now),
        }
    }

    /// What this host knows of the connection of `identity`.
    pub(crate) fn local_connection(&self, identity: &Identity) -> Connection {
        self.sessions.get(identity).map_or_else(
            || self.presence.get(identity),
            |session| Connection {
                connected: true,
                changed: Some(session.connected_at),
                last_activity: Some(session.last_activity()),
            },
        )
    }

    /// What is known of the connection of `identity` on the host that holds it. A host that cannot be reached holds none.
    pub(crate) async fn connection(&self, identity: &Identity) -> Result<Connection, HubError> {
        let here = self.local_connection(identity);
        if here.connected {
            return Ok(here);
        }
        let Some(entry) = self.store.get(&self.keys.session(&identity.to_string())).await? else { return Ok(here) };
        let (stored, _) = decode::<SessionRecord>(&entry)?;
        if stored.host == self.host.as_str() {
            return Ok(here);
        }
        let message = HostMessage::Connection { hub: self.id().as_str().to_owned(), identity: identity.clone() };
        Ok(match self.bus.send(HostId::new(&stored.host), message).await {
            Ok(HostReply::Connection(there)) => there,
            _ => here,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unheard_of_are_forgotten() {
        let presence = Presence::default();
        let identity = |number: usize| Identity::parse(&format!("d{number}")).unwrap();
        let at = |number: usize| Timestamp::from_unix_seconds(number as u64);
        for number in 0..=MAX_REMEMBERED {
            presence.left(&identity(number), at(number), at(number));
        }
        assert_eq!(presence.get(&identity(0)), Connection::default());
        assert_eq!(presence.get(&identity(MAX_REMEMBERED)).changed, Some(at(MAX_REMEMBERED)));
        let generations = presence.0.lock();
        assert!(generations.younger.len() + generations.older.len() <= MAX_REMEMBERED);
    }

    #[test]
    fn activity_without_a_connection_keeps_the_time_of_the_last_one() {
        let presence = Presence::default();
        let identity = Identity::parse("d/m").unwrap();
        let (one, two) = (Timestamp::from_unix_seconds(1), Timestamp::from_unix_seconds(2));
        presence.left(&identity, one, one);
        presence.heard_of(&identity, two);
        let known = Connection { connected: false, changed: Some(one), last_activity: Some(two) };
        assert_eq!(presence.get(&identity), known);
        presence.forget(&identity);
        assert_eq!(presence.get(&identity), Connection::default());
    }
}
