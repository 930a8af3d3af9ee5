//! What can happen to the messages of one queue (protocol notes: semantics §2). Pure: no clock, no store.

use std::mem;

use nave_model::{Ack, MessageLock, Outcome, QueueRecord, QueuedMessage, Timestamp};

/// Most messages of one device, whatever state they are in (Azure IoT Hub documentation, cloud-to-device messages). One more
/// is refused to its sender.
pub const MAX_QUEUE_DEPTH: usize = 50;

/// A message about to be queued.
pub(crate) struct NewMessage {
    pub(crate) message_id: String,
    pub(crate) expires: Timestamp,
    pub(crate) ack: Ack,
    pub(crate) size: u32,
}

/// How a message is handed out.
#[derive(Clone, Debug)]
pub(crate) enum Handover {
    /// Until it is settled.
    Locked(MessageLock),
    /// At most once: it is completed by that. A message that was out already is completed without being handed out (protocol
    /// notes: MQTT §3, QoS 0).
    ForGood,
}

/// Who says what is to become of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Holder<'a> {
    /// The session of this epoch, of the message with this number, which it was handed.
    Session { epoch: u64, sequence: u64 },
    /// Whoever has this token.
    Token(&'a str),
}

/// What the device says of a message that it was handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It is done.
    Complete,
    /// It cannot be done: the message is dead-lettered.
    Reject,
    /// Not now: the message goes back to its place.
    Abandon,
}

/// A queue while it is changed.
#[derive(Debug)]
pub(crate) struct Queue {
    record: QueueRecord,
    max_deliveries: u32,
    changed: bool,
    ended: Vec<(QueuedMessage, Outcome)>,
    discarded: Vec<u64>,
    added: u32,
    returned: u32,
}

impl Queue {
    /// The queue of the device of this generation. What waits for an earlier device of the id is discarded; `None` if the
    /// queue is that of a later one. (Generations are numbers that grow with time.)
    pub(crate) fn open(record: Option<QueueRecord>, generation: &str, max_deliveries: u32) -> Option<Self> {
        let record = record.unwrap_or_default();
        let age = |generation: &str| (generation.len(), generation.to_owned());
        if age(&record.generation_id) > age(generation) {
            return None;
        }
        let mut queue = Self {
            record,
            max_deliveries,
            changed: false,
            ended: Vec::new(),
            discarded: Vec::new(),
            added: 0,
            returned: 0,
        };
        if queue.record.generation_id != generation {
            queue.discarded = mem::take(&mut queue.record.messages).iter().map(|message| message.sequence).collect();
            queue.changed = !queue.discarded.is_empty();
            generation.clone_into(&mut queue.record.generation_id);
        }
        Some(queue)
    }

    /// Takes back what nobody holds any more, and ends what is too old. `live` are the epochs of the sessions that may hold
    /// messages.
    ///
    /// A session that ended counts as a delivery that failed; a lock that ran out does not (protocol notes: semantics §2).
    pub(crate) fn tidy(&mut self, now: Timestamp, live: &[u64]) {
        for mut message in mem::take(&mut self.record.messages) {
            let ended = match &message.lock {
                Some(MessageLock::Session { epoch }) if !live.contains(epoch) => self.came_back(&mut message),
                Some(MessageLock::Token { until, .. }) if *until <= now => {
                    message.lock = None;
                    self.changed = true;
                    None
                }
                _ => None,
            };
            let expired = message.lock.is_none() && message.expires <= now;
            match ended.or(expired.then_some(Outcome::Expired)) {
                Some(outcome) => self.end(message, outcome),
                None => self.record.messages.push(message),
            }
        }
    }

    /// Adds a message at the end; its number, or `None` if the queue is full.
    pub(crate) fn push(&mut self, new: NewMessage, now: Timestamp) -> Option<u64> {
        if self.record.messages.len() >= MAX_QUEUE_DEPTH {
            return None;
        }
        self.record.last_sequence += 1;
        self.record.messages.push(QueuedMessage {
            sequence: self.record.last_sequence,
            message_id: new.message_id,
            enqueued: now,
            expires: new.expires,
            ack: new.ack,
            deliveries: 0,
            size: new.size,
            lock: None,
        });
        self.changed = true;
        self.added += 1;
        Some(self.record.last_sequence)
    }

    /// Hands out what waits, oldest first: up to `count` messages of `bytes` together, or one that is larger.
    pub(crate) fn take(&mut self, count: usize, bytes: usize, handover: &Handover) -> Vec<QueuedMessage> {
        let mut taken: Vec<QueuedMessage> = Vec::new();
        let mut taken_bytes: usize = 0;
        let mut full = false;
        for mut message in mem::take(&mut self.record.messages) {
            if message.lock.is_some() {
                self.record.messages.push(message);
                continue;
            }
            let fits = taken.is_empty() || taken_bytes.saturating_add(message.size as usize) <= bytes;
            // What does not fit is not overtaken by something smaller.
            full |= taken.len() >= count || !fits;
            if full {
                self.record.messages.push(message);
                continue;
            }
            self.changed = true;
            match handover {
                Handover::Locked(lock) => {
                    message.lock = Some(lock.clone());
                    taken_bytes += message.size as usize;
                    taken.push(message.clone());
                    self.record.messages.push(message);
                }
                Handover::ForGood => {
                    if message.deliveries == 0 {
                        taken_bytes += message.size as usize;
                        taken.push(message.clone());
                    }
                    self.end(message, Outcome::Success);
                }
            }
        }
        taken
    }

    /// Settles a message. False if whoever says so does not hold it.
    ///
    /// A session may also complete what it was handed and was taken from it since, as long as nobody else holds it: the device
    /// has the message, and says so late.
    pub(crate) fn settle(&mut self, holder: Holder<'_>, settlement: Settlement) -> bool {
        let held = |message: &QueuedMessage| match (holder, &message.lock) {
            (Holder::Session { epoch, sequence }, Some(MessageLock::Session { epoch: holds })) => {
                message.sequence == sequence && *holds == epoch
            }
            (Holder::Session { sequence, .. }, None) => {
                message.sequence == sequence && settlement == Settlement::Complete
            }
            (Holder::Token(token), Some(MessageLock::Token { token: holds, .. })) => holds == token,
            _ => false,
        };
        let Some(at) = self.record.messages.iter().position(held) else { return false };
        let mut message = self.record.messages.remove(at);
        let outcome = match settlement {
            Settlement::Complete => Some(Outcome::Success),
            Settlement::Reject => Some(Outcome::Rejected),
            Settlement::Abandon => self.came_back(&mut message),
        };
        match outcome {
            Some(outcome) => self.end(message, outcome),
            None => self.record.messages.insert(at, message),
        }
        true
    }

    /// Takes back everything that the session of `epoch` holds.
    pub(crate) fn give_back(&mut self, epoch: u64) {
        for mut message in mem::take(&mut self.record.messages) {
            let held = matches!(message.lock, Some(MessageLock::Session { epoch: holds }) if holds == epoch);
            match held.then(|| self.came_back(&mut message)).flatten() {
                Some(outcome) => self.end(message, outcome),
                None => self.record.messages.push(message),
            }
        }
    }

    /// Ends everything, whoever holds it; how much that was.
    pub(crate) fn purge(&mut self) -> usize {
        let messages = mem::take(&mut self.record.messages);
        let count = messages.len();
        messages.into_iter().for_each(|message| self.end(message, Outcome::Purged));
        count
    }

    /// Ends one message, whoever holds it.
    pub(crate) fn drop_damaged(&mut self, sequence: u64) {
        if let Some(at) = self.record.messages.iter().position(|message| message.sequence == sequence) {
            let message = self.record.messages.remove(at);
            self.end(message, Outcome::Rejected);
        }
    }

    /// The record to store, if there is something to store.
    pub(crate) const fn changed(&self) -> Option<&QueueRecord> {
        if self.changed { Some(&self.record) } else { None }
    }

    /// The record as it is now.
    pub(crate) const fn record(&self) -> &QueueRecord {
        &self.record
    }

    /// What ended, and how.
    pub(crate) fn ended(&self) -> &[(QueuedMessage, Outcome)] {
        &self.ended
    }

    /// How many messages were added, and how many came back to wait once more.
    pub(crate) const fn moved(&self) -> (u32, u32) {
        (self.added, self.returned)
    }

    /// The numbers of messages whose contents are no longer needed.
    pub(crate) fn gone(&self) -> impl Iterator<Item = u64> {
        self.ended.iter().map(|(message, _)| message.sequence).chain(self.discarded.iter().copied())
    }

    /// Whether something waits to be handed out.
    pub(crate) fn is_waiting(&self) -> bool {
        self.record.messages.iter().any(|message| message.lock.is_none())
    }

    /// When the clock next decides something about a message, after `after`.
    pub(crate) fn next_due(record: &QueueRecord, after: Timestamp) -> Option<Timestamp> {
        let due = record.messages.iter().map(|message| match &message.lock {
            Some(MessageLock::Token { until, .. }) => *until,
            _ => message.expires,
        });
        due.filter(|due| *due > after).min()
    }

    /// The lock is off, and the delivery has failed: an outcome if it was the last.
    fn came_back(&mut self, message: &mut QueuedMessage) -> Option<Outcome> {
        self.changed = true;
        message.lock = None;
        message.deliveries = message.deliveries.saturating_add(1);
        let given_up = message.deliveries >= self.max_deliveries;
        self.returned += u32::from(!given_up);
        given_up.then_some(Outcome::DeliveryCountExceeded)
    }

    fn end(&mut self, message: QueuedMessage, outcome: Outcome) {
        self.changed = true;
        self.ended.push((message, outcome));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const MAX: u32 = 3;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn new(expires: u64) -> NewMessage {
        NewMessage { message_id: "m".into(), expires: at(expires), ack: Ack::Full, size: 10 }
    }

    fn session(epoch: u64) -> Handover {
        Handover::Locked(MessageLock::Session { epoch })
    }

    fn token(token: &str, until: u64) -> Handover {
        Handover::Locked(MessageLock::Token { token: token.into(), until: at(until) })
    }

    fn sequences(messages: &[QueuedMessage]) -> Vec<u64> {
        messages.iter().map(|message| message.sequence).collect()
    }

    fn outcomes(queue: &Queue) -> Vec<(u64, Outcome)> {
        queue.ended().iter().map(|(message, outcome)| (message.sequence, *outcome)).collect()
    }

    fn queue_of(count: u64) -> Queue {
        let mut queue = Queue::open(None, "g", MAX).unwrap();
        (0..count).for_each(|_| assert!(queue.push(new(100), at(0)).is_some()));
        queue
    }

    #[test]
    fn the_fifty_first_is_refused_whatever_became_of_the_others() {
        let mut queue = queue_of(MAX_QUEUE_DEPTH as u64);
        assert_eq!(queue.push(new(100), at(0)), None);
        queue.take(20, usize::MAX, &session(1));
        assert_eq!(queue.push(new(100), at(0)), None, "those that are out count");
        assert!(queue.settle(Holder::Session { epoch: 1, sequence: 1 }, Settlement::Complete));
        assert_eq!(queue.push(new(100), at(0)), Some(51), "no number comes twice");
    }

    #[test]
    fn what_comes_back_stands_where_it_stood() {
        let mut queue = queue_of(3);
        assert_eq!(sequences(&queue.take(2, usize::MAX, &token("a", 60))), [1, 2]);
        assert_eq!(sequences(&queue.take(2, usize::MAX, &token("b", 60))), [3]);
        queue.tidy(at(60), &[]);
        let again = queue.take(3, usize::MAX, &session(1));
        assert_eq!(sequences(&again), [1, 2, 3]);
        assert!(again.iter().all(|message| message.deliveries == 0), "a lock that runs out is no failed delivery");
        queue.give_back(1);
        assert_eq!(queue.take(1, usize::MAX, &session(2))[0].deliveries, 1);
    }

    #[test]
    fn only_the_holder_settles() {
        let mut queue = queue_of(2);
        queue.take(1, usize::MAX, &session(2));
        queue.take(1, usize::MAX, &token("a", 60));
        for stranger in [
            Holder::Session { epoch: 1, sequence: 1 },
            Holder::Session { epoch: 2, sequence: 2 },
            Holder::Token("b"),
            Holder::Token(""),
        ] {
            assert!(!queue.settle(stranger, Settlement::Complete), "{stranger:?}");
        }
        assert!(queue.settle(Holder::Token("a"), Settlement::Reject));
        assert!(!queue.settle(Holder::Token("a"), Settlement::Complete), "once");
        assert!(queue.settle(Holder::Session { epoch: 2, sequence: 1 }, Settlement::Complete));
        assert_eq!(outcomes(&queue), [(2, Outcome::Rejected), (1, Outcome::Success)]);
    }

    #[test]
    fn a_session_completes_what_was_taken_from_it_unless_somebody_else_has_it() {
        let mut queue = queue_of(3);
        queue.take(3, usize::MAX, &session(1));
        queue.tidy(at(1), &[2]);
        queue.take(1, usize::MAX, &session(2));
        let late = |sequence| Holder::Session { epoch: 1, sequence };
        assert!(!queue.settle(late(1), Settlement::Complete), "the newer session has it");
        assert!(!queue.settle(late(2), Settlement::Abandon) && !queue.settle(late(2), Settlement::Reject));
        assert!(queue.settle(late(2), Settlement::Complete));
        assert_eq!(outcomes(&queue), [(2, Outcome::Success)]);
        queue.tidy(at(1), &[]);
        assert_eq!(sequences(&queue.take(9, usize::MAX, &token("a", 60))), [1, 3]);
        assert!(!queue.settle(late(3), Settlement::Complete));
    }

    #[test]
    fn a_message_is_handed_out_as_often_as_allowed() {
        let mut queue = queue_of(1);
        for delivery in 0..MAX {
            let taken = queue.take(1, usize::MAX, &token("a", 60));
            assert_eq!(taken[0].deliveries, delivery);
            assert!(queue.settle(Holder::Token("a"), Settlement::Abandon));
        }
        assert!(queue.take(1, usize::MAX, &token("a", 60)).is_empty());
        assert_eq!(outcomes(&queue), [(1, Outcome::DeliveryCountExceeded)]);
    }

    #[test]
    fn time_ends_what_nobody_holds() {
        let mut queue = queue_of(2);
        queue.take(1, usize::MAX, &session(1));
        queue.tidy(at(99), &[1]);
        assert!(queue.ended().is_empty());
        queue.tidy(at(100), &[1]);
        assert_eq!(outcomes(&queue), [(2, Outcome::Expired)]);
        assert!(
            queue.settle(Holder::Session { epoch: 1, sequence: 1 }, Settlement::Complete),
            "it was delivered in time"
        );
    }

    #[test]
    fn what_is_overdue_and_held_is_not_due_again() {
        let mut queue = queue_of(1);
        queue.take(1, usize::MAX, &session(1));
        assert_eq!(Queue::next_due(queue.record(), at(0)), Some(at(100)));
        queue.tidy(at(100), &[1]);
        assert_eq!(Queue::next_due(queue.record(), at(100)), None, "or whoever waits for it would never sleep");
    }

    #[test]
    fn at_most_once_is_never_twice() {
        let mut queue = queue_of(2);
        queue.take(1, usize::MAX, &session(1));
        queue.tidy(at(1), &[2]);
        assert_eq!(sequences(&queue.take(9, usize::MAX, &Handover::ForGood)), [2]);
        assert_eq!(outcomes(&queue), [(1, Outcome::Success), (2, Outcome::Success)]);
        assert!(!queue.is_waiting());
    }

    #[test]
    fn bytes_are_bounded_and_order_is_kept() {
        let mut queue = Queue::open(None, "g", MAX).unwrap();
        for size in [100, 1_000, 1] {
            queue.push(NewMessage { size, ..new(100) }, at(0)).unwrap();
        }
        assert_eq!(sequences(&queue.take(9, 500, &session(1))), [1], "the third does not overtake the second");
        assert_eq!(sequences(&queue.take(9, 500, &session(1))), [2], "what is too large goes alone");
        assert_eq!(sequences(&queue.take(9, 500, &session(1))), [3]);
    }

    #[test]
    fn a_later_device_of_the_id_gets_nothing_of_the_earlier_one() {
        let mut queue = queue_of(2);
        let record = queue.changed().cloned();
        assert!(
            Queue::open(record.clone(), "f", MAX).is_none(),
            "nor does the earlier one take what is the later one's"
        );
        let mut later = Queue::open(record, "h", MAX).unwrap();
        assert_eq!(later.gone().collect::<Vec<_>>(), [1, 2]);
        assert!(later.ended().is_empty(), "nobody is told");
        assert_eq!(later.push(new(100), at(0)), Some(3));
        assert_eq!(queue.purge(), 2);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Send { ttl: u64 },
        Take { count: usize, session: bool },
        ForGood,
        Settle { which: usize, settlement: Settlement },
        Reconnect,
        Leave,
        Pass { seconds: u64 },
        Purge,
    }

    fn step() -> impl Strategy<Value = Step> {
        let settlement = prop_oneof![
            3 => Just(Settlement::Complete),
            1 => Just(Settlement::Reject),
            2 => Just(Settlement::Abandon)
        ];
        prop_oneof![
            8 => (1..200u64).prop_map(|ttl| Step::Send { ttl }),
            4 => (1..5usize, any::<bool>()).prop_map(|(count, session)| Step::Take { count, session }),
            1 => Just(Step::ForGood),
            6 => (0..6usize, settlement).prop_map(|(which, settlement)| Step::Settle { which, settlement }),
            2 => Just(Step::Reconnect),
            1 => Just(Step::Leave),
            3 => (1..90u64).prop_map(|seconds| Step::Pass { seconds }),
            1 => Just(Step::Purge),
        ]
    }

    proptest! {
        /// Whatever happens: each message waits, is held by one holder, or has ended once; what is handed out is the oldest
        /// that waits; nobody settles what another holds; and a message is out at most as often as allowed.
        #[test]
        fn every_message_has_one_fate(steps in prop::collection::vec(step(), 1..200)) {
            let (mut now, mut epoch, mut tokens) = (0, 1, 0u32);
            let mut record = None;
            let mut fates: BTreeMap<u64, Option<Outcome>> = BTreeMap::new();
            let mut out: Vec<(u64, Option<String>, u64)> = Vec::new();
            let mut handed: BTreeMap<u64, u32> = BTreeMap::new();
            for step in steps {
                let mut queue = Queue::open(record.clone(), "g", MAX).unwrap();
                queue.tidy(at(now), &[epoch]);
                let waiting: Vec<u64> = queue.record.messages.iter()
                    .filter(|message| message.lock.is_none()).map(|message| message.sequence).collect();
                match step {
                    Step::Send { ttl } => {
                        let before = queue.record.messages.len();
                        let sent = queue.push(new(now + ttl), at(now));
                        prop_assert_eq!(sent.is_some(), before < MAX_QUEUE_DEPTH);
                        if let Some(sequence) = sent {
                            prop_assert!(fates.insert(sequence, None).is_none());
                        }
                    }
                    Step::Take { count, session: by_session } => {
                        tokens += 1;
                        let name = format!("t{tokens}");
                        let count = if by_session { count } else { 1 };
                        let handover = if by_session { session(epoch) } else { token(&name, now + 60) };
                        let taken = sequences(&queue.take(count, usize::MAX, &handover));
                        prop_assert_eq!(&taken, &waiting[..count.min(waiting.len())]);
                        for sequence in taken {
                            *handed.entry(sequence).or_default() += 1;
                            out.push((sequence, (!by_session).then(|| name.clone()), epoch));
                        }
                    }
                    Step::ForGood => {
                        for sequence in sequences(&queue.take(2, usize::MAX, &Handover::ForGood)) {
                            *handed.entry(sequence).or_default() += 1;
                        }
                    }
                    Step::Settle { which, settlement } => {
                        if !out.is_empty() {
                            let (sequence, token, held_by) = out.remove(which % out.len());
                            let holder = match &token {
                                Some(token) => Holder::Token(token),
                                None => Holder::Session { epoch: held_by, sequence },
                            };
                            let before = queue.ended().len();
                            let settled = queue.settle(holder, settlement);
                            if token.is_none() && held_by != epoch {
                                let unheld = settlement == Settlement::Complete && waiting.contains(&sequence);
                                prop_assert_eq!(settled, unheld, "a stale session completes what nobody holds");
                            }
                            if !settled {
                                prop_assert_eq!(queue.ended().len(), before);
                            }
                        }
                    }
                    Step::Reconnect => epoch += 1,
                    Step::Leave => queue.give_back(epoch),
                    Step::Pass { seconds } => now += seconds,
                    Step::Purge => {
                        queue.purge();
                    }
                }
                for (message, outcome) in queue.ended() {
                    let fate = fates.get_mut(&message.sequence).unwrap();
                    prop_assert_eq!(*fate, None, "a message ends once");
                    *fate = Some(*outcome);
                }
                let open: Vec<u64> = fates.iter().filter(|(_, fate)| fate.is_none()).map(|(sequence, _)| *sequence).collect();
                prop_assert_eq!(sequences(&queue.record.messages), open, "nothing is lost, and the order is kept");
                record = Some(queue.record);
            }
            let limit = record.iter().flat_map(|record| &record.messages).all(|message| message.deliveries < MAX);
            prop_assert!(limit);
            // At the end of time everything has ended.
            let mut queue = Queue::open(record, "g", MAX).unwrap();
            queue.tidy(at(now + 10_000), &[]);
            prop_assert!(queue.record.messages.is_empty());
        }
    }
}
