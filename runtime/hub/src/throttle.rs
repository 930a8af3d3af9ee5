//! Rates, as the tiers of the cloud service have them (protocol notes: limits §3). Off unless configured.
//!
//! What comes faster than its rate is first delayed (a late PUBACK, a late answer), and refused only when the delay would
//! become long: over REST with 429 `ThrottlingException`, over MQTT with the status of a twin answer, CONNACK 3, or, for
//! messages, the end of the connection. So an application's back-off can be tested against the same behaviour.
//!
//! A rate is kept by one time per bucket, the moment up to which its allowance is used (the generic cell rate algorithm):
//! there is nothing to refill and no timer.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{Equivalent, HashMap};
use nave_env::{Moment, SharedEnv};
use nave_metrics::{Counter, Family, Page};
use nave_model::Identity;
use parking_lot::{Mutex, RwLock};

use crate::error::{ErrorCode, HubError};
use crate::telemetry::Message;

/// Allowance that is saved up while nothing happens: a burst of this many seconds' worth passes at once. The cloud service
/// tolerates short bursts of unknown size (limits §3).
pub const BURST: Duration = Duration::from_secs(5);

/// Longest delay before a request is refused instead. Clients wait longer than this for every kind of answer.
pub const MAX_DELAY: Duration = Duration::from_secs(2);

/// Messages are let through in parts of about this much time, so that a large batch is late and not refused.
const PART: Duration = Duration::from_secs(1);

/// Devices and network addresses of which the last operations are remembered, of each kind so many; beyond, those whose
/// allowance is whole again are forgotten, and while there are none, further ones are not limited.
const MAX_REMEMBERED: usize = 65_536;

/// Length of a day of the quota.
const DAY_NANOS: u64 = 24 * 60 * 60 * 1_000_000_000;

static THROTTLED: Family =
    Family::counter("nave_throttled_total", "Operations that came faster than their rate: delayed, or refused.");

/// What has a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// New connections of devices.
    Connects,
    /// Device-to-cloud messages, of all devices together.
    Messages,
    /// Device-to-cloud messages of one device.
    DeviceMessages,
    /// Twin reads, of devices and services.
    TwinReads,
    /// Twin updates, of devices and services.
    TwinUpdates,
    /// Operations on identities.
    Registry,
    /// Bytes of direct methods.
    MethodBytes,
    /// Cloud-to-device messages that services send.
    CloudToDeviceSends,
    /// Cloud-to-device messages that devices fetch over HTTPS.
    CloudToDeviceReceives,
    /// Registrations with the provisioning service.
    Registrations,
    /// Requests to the provisioning service's own API.
    Provisioning,
    /// Polls of one device for its registration.
    DevicePolls,
    /// Attempts of one network address whose proof does not hold.
    FailedRegistrations,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Connects,
        Self::Messages,
        Self::DeviceMessages,
        Self::TwinReads,
        Self::TwinUpdates,
        Self::Registry,
        Self::MethodBytes,
        Self::CloudToDeviceSends,
        Self::CloudToDeviceReceives,
        Self::Registrations,
        Self::Provisioning,
        Self::DevicePolls,
        Self::FailedRegistrations,
    ];

    /// The name in metrics and in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connects => "connects",
            Self::Messages => "messages",
            Self::DeviceMessages => "device_messages",
            Self::TwinReads => "twin_reads",
            Self::TwinUpdates => "twin_updates",
            Self::Registry => "registry",
            Self::MethodBytes => "method_bytes",
            Self::CloudToDeviceSends => "cloud_to_device_sends",
            Self::CloudToDeviceReceives => "cloud_to_device_receives",
            Self::Registrations => "registrations",
            Self::Provisioning => "provisioning",
            Self::DevicePolls => "device_polls",
            Self::FailedRegistrations => "failed_registrations",
        }
    }
}

/// How many messages a day a hub takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Messages from midnight to midnight, UTC. What was used is forgotten at a restart.
    pub messages: u64,
    /// A larger message counts as several.
    pub meter_bytes: u64,
}

/// What is limited. The default limits nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    rates: [Option<f64>; Operation::ALL.len()],
    /// Messages per day.
    pub quota: Option<Quota>,
}

impl Limits {
    /// Sets a rate per second, which has to be a positive number; others are ignored.
    pub fn set(&mut self, operation: Operation, per_second: f64) {
        if per_second.is_finite() && per_second > 0.0 {
            self.rates[operation as usize] = Some(per_second);
        }
    }

    /// The rate per second.
    pub const fn rate(&self, operation: Operation) -> Option<f64> {
        self.rates[operation as usize]
    }
}

/// The rates in force, and how much of each is used.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    current: RwLock<Option<Arc<State>>>,
    delayed: [Counter; Operation::ALL.len()],
    refused: [Counter; Operation::ALL.len()],
}

#[derive(Debug)]
struct State {
    limits: Limits,
    buckets: [Bucket; Operation::ALL.len()],
    devices: Buckets<Box<str>>,
    peers: Buckets<IpAddr>,
    /// The day, and what of its quota is used.
    day: Mutex<(u64, u64)>,
}

/// The moment up to which an allowance is used.
#[derive(Debug, Default)]
pub(crate) struct Bucket(Mutex<Duration>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    Wait(Duration),
    Refuse,
}

impl Bucket {
    /// Takes `cost` at a rate per second.
    fn take(&self, now: Moment, cost: f64, rate: f64) -> Verdict {
        let now = now.since_start();
        let mut used = self.0.lock();
        let somebody_waits = used.saturating_sub(now) > BURST;
        let step = Duration::try_from_secs_f64(cost / rate).unwrap_or(Duration::MAX);
        let used_then = (*used).max(now).saturating_add(step);
        let wait = used_then.saturating_sub(now).saturating_sub(BURST);
        // Whoever finds nobody waiting is let through, however much they ask for at once: else they could never be.
        if wait > MAX_DELAY && somebody_waits {
            return Verdict::Refuse;
        }
        *used = used_then;
        if wait.is_zero() { Verdict::Pass } else { Verdict::Wait(wait.min(MAX_DELAY)) }
    }

    /// Nothing of the allowance is used any more.
    fn is_whole(&self, now: Moment) -> bool {
        *self.0.lock() <= now.since_start()
    }

    /// Notes what was done already.
    fn note(&self, now: Moment, cost: f64, rate: f64) {
        let mut used = self.0.lock();
        let step = Duration::try_from_secs_f64(cost / rate).unwrap_or(Duration::MAX);
        *used = (*used).max(now.since_start()).saturating_add(step);
    }

    /// All of the allowance is used, the burst included.
    fn is_used_up(&self, now: Moment) -> bool {
        self.0.lock().saturating_sub(now.since_start()) >= BURST
    }
}

/// Allowances of devices or addresses, [`MAX_REMEMBERED`] of them.
#[derive(Debug)]
struct Buckets<K>(Mutex<HashMap<K, Bucket>>);

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Buckets<K> {
    /// Looks at the bucket of `key`; `None` if there is no place for one.
    fn with<Q, T>(&self, key: &Q, now: Moment, look: impl FnOnce(&Bucket) -> T) -> Option<T>
    where
        Q: Hash + Equivalent<K> + ToOwned + ?Sized,
        Q::Owned: Into<K>,
    {
        let mut buckets = self.0.lock();
        if buckets.len() >= MAX_REMEMBERED && !buckets.contains_key(key) {
            buckets.retain(|_, bucket| !bucket.is_whole(now));
            if buckets.len() >= MAX_REMEMBERED {
                return None;
            }
        }
        if let Some(bucket) = buckets.get(key) {
            return Some(look(bucket));
        }
        Some(look(buckets.entry(key.to_owned().into()).or_default()))
    }
}

/// An address as one that pays: of IPv6 the network, which has all the addresses of one client.
fn payer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

impl Throttle {
    pub(crate) fn set(&self, limits: Limits) {
        let state = (limits != Limits::default()).then(|| {
            Arc::new(State {
                limits,
                buckets: Default::default(),
                devices: Buckets::default(),
                peers: Buckets::default(),
                day: Mutex::default(),
            })
        });
        *self.current.write() = state;
    }

    fn state(&self) -> Option<Arc<State>> {
        self.current.read().clone()
    }

    /// Lets an operation through, perhaps later.
    ///
    /// # Errors
    ///
    /// 429001.
    pub(crate) async fn pass(&self, env: &SharedEnv, operation: Operation, cost: u64) -> Result<(), HubError> {
        let Some(state) = self.state() else { return Ok(()) };
        let Some(rate) = state.limits.rate(operation) else { return Ok(()) };
        let verdict = state.buckets[operation as usize].take(env.monotonic(), cost as f64, rate);
        self.obey(env, operation, verdict).await
    }

    /// Lets one device's operation through, perhaps later.
    ///
    /// # Errors
    ///
    /// 429001.
    pub(crate) async fn pass_device(
        &self,
        env: &SharedEnv,
        operation: Operation,
        device: &str,
        cost: u64,
    ) -> Result<(), HubError> {
        let Some(state) = self.state() else { return Ok(()) };
        let Some(rate) = state.limits.rate(operation) else { return Ok(()) };
        let now = env.monotonic();
        let verdict = state.devices.with(device, now, |bucket| bucket.take(now, cost as f64, rate));
        self.obey(env, operation, verdict.unwrap_or(Verdict::Pass)).await
    }

    /// Whether an address may try to prove something: not if too much of what it tried was wrong.
    ///
    /// # Errors
    ///
    /// 429001.
    pub(crate) fn admit(&self, env: &SharedEnv, operation: Operation, address: IpAddr) -> Result<(), HubError> {
        let Some(state) = self.state().filter(|state| state.limits.rate(operation).is_some()) else { return Ok(()) };
        let now = env.monotonic();
        let used_up = state.peers.0.lock().get(&payer(address)).is_some_and(|bucket| bucket.is_used_up(now));
        if used_up { Err(self.refuse(operation)) } else { Ok(()) }
    }

    /// Notes that what an address tried was wrong.
    pub(crate) fn note_failure(&self, env: &SharedEnv, operation: Operation, address: IpAddr) {
        let Some(state) = self.state() else { return };
        let Some(rate) = state.limits.rate(operation) else { return };
        let now = env.monotonic();
        state.peers.with(&payer(address), now, |bucket| bucket.note(now, 1.0, rate));
    }

    async fn obey(&self, env: &SharedEnv, operation: Operation, verdict: Verdict) -> Result<(), HubError> {
        match verdict {
            Verdict::Pass => Ok(()),
            Verdict::Wait(time) => {
                self.delayed[operation as usize].increment();
                env.sleep(time).await;
                Ok(())
            }
            Verdict::Refuse => Err(self.refuse(operation)),
        }
    }

    fn refuse(&self, operation: Operation) -> HubError {
        self.refused[operation as usize].increment();
        let name = operation.name();
        HubError::new(
            ErrorCode::ThrottlingException,
            format!("Too many operations ({name}): the hub's throttle refuses this one. Try again later."),
        )
    }

    /// How many messages are let through at once; all of them where nothing is limited.
    pub(crate) fn part(&self) -> usize {
        let Some(state) = self.state() else { return usize::MAX };
        let rates = [Operation::Messages, Operation::DeviceMessages].into_iter().filter_map(|op| state.limits.rate(op));
        let slowest = rates.fold(f64::INFINITY, f64::min);
        if slowest.is_infinite() { usize::MAX } else { ((slowest * PART.as_secs_f64()) as usize).max(1) }
    }

    /// Lets messages of a device through, perhaps later.
    ///
    /// # Errors
    ///
    /// 429001; 403002 when the day's quota is used up.
    pub(crate) async fn messages(
        &self,
        env: &SharedEnv,
        device: &Identity,
        messages: &[Message],
    ) -> Result<(), HubError> {
        let Some(state) = self.state() else { return Ok(()) };
        let count = messages.len() as u64;
        if state.limits.rate(Operation::DeviceMessages).is_some() {
            self.pass_device(env, Operation::DeviceMessages, &device.to_string(), count).await?;
        }
        self.pass(env, Operation::Messages, count).await?;
        // Last: what a rate refuses comes again, and must not be paid for twice.
        if let Some(quota) = state.limits.quota {
            let metered = messages.iter().map(|message| metered(message.body.len() as u64, quota.meter_bytes)).sum();
            state.spend(quota, env.now().unix_nanos() / DAY_NANOS, metered)?;
        }
        Ok(())
    }

    pub(crate) fn collect(&self, owner: &str, page: &mut Page) {
        for operation in Operation::ALL {
            let provisioning = matches!(
                operation,
                Operation::Registrations
                    | Operation::Provisioning
                    | Operation::DevicePolls
                    | Operation::FailedRegistrations
            );
            if provisioning != owner.starts_with('$') {
                continue;
            }
            for (action, counters) in [("delayed", &self.delayed), ("refused", &self.refused)] {
                let labels = [("hub", owner), ("operation", operation.name()), ("action", action)];
                page.value(&THROTTLED, &labels, counters[operation as usize].get());
            }
        }
    }
}

impl State {
    fn spend(&self, quota: Quota, today: u64, count: u64) -> Result<(), HubError> {
        let mut day = self.day.lock();
        if day.0 != today {
            *day = (today, 0);
        }
        if day.1.saturating_add(count) > quota.messages {
            return Err(HubError::new(
                ErrorCode::IotHubQuotaExceeded,
                "The hub's messages of the day are used up; the next day begins at midnight UTC.",
            ));
        }
        day.1 += count;
        Ok(())
    }
}

/// How many messages a message counts as.
const fn metered(bytes: u64, meter: u64) -> u64 {
    if meter == 0 || bytes == 0 { 1 } else { bytes.div_ceil(meter) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn a_burst_passes_then_operations_wait_then_they_are_refused() {
        let bucket = Bucket::default();
        let verdicts: Vec<_> = (0..9).map(|_| bucket.take(at(100), 1.0, 1.0)).collect();
        assert_eq!(verdicts[..5], [Verdict::Pass; 5]);
        assert_eq!(verdicts[5..7], [1, 2].map(|seconds| Verdict::Wait(Duration::from_secs(seconds))));
        assert_eq!(verdicts[7..], [Verdict::Refuse; 2]);
        // Refusals used nothing: two seconds later there is as much again as two seconds bring.
        let verdicts: Vec<_> = (0..3).map(|_| bucket.take(at(2_100), 1.0, 1.0)).collect();
        assert_eq!(verdicts[..2], [1, 2].map(|seconds| Verdict::Wait(Duration::from_secs(seconds))));
        assert_eq!(verdicts[2], Verdict::Refuse);
    }

    #[test]
    fn what_is_more_than_a_burst_passes_where_nobody_waits() {
        let bucket = Bucket::default();
        assert_eq!(bucket.take(at(0), 1_000.0, 1.0), Verdict::Wait(MAX_DELAY));
        assert_eq!(bucket.take(at(0), 1.0, 1.0), Verdict::Refuse);
    }

    #[test]
    fn an_address_pays_for_what_was_wrong_and_no_other() {
        let env: SharedEnv = nave_env::sim::Simulation::new(1, nave_model::Timestamp::default()).host();
        let mut limits = Limits::default();
        limits.set(Operation::FailedRegistrations, 1.0);
        let throttle = Throttle::default();
        throttle.set(limits);
        let [one, neighbour, other] =
            ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        let admitted = |address| throttle.admit(&env, Operation::FailedRegistrations, address).is_ok();
        for _ in 0..5 {
            assert!(admitted(one));
            throttle.note_failure(&env, Operation::FailedRegistrations, one);
        }
        assert_eq!([one, neighbour, other].map(admitted), [false, false, true]);
        assert_eq!(payer("::ffff:10.0.0.1".parse().unwrap()), payer("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn the_quota_of_a_day_ends_with_it() {
        let quota = Quota { messages: 10, meter_bytes: 4_096 };
        let limits = Limits { quota: Some(quota), ..Limits::default() };
        let throttle = Throttle::default();
        throttle.set(limits);
        let state = throttle.state().expect("it limits something");
        assert!(state.spend(quota, 1, 10).is_ok());
        assert_eq!(state.spend(quota, 1, 1).unwrap_err().code, ErrorCode::IotHubQuotaExceeded);
        assert!(state.spend(quota, 2, 10).is_ok());
        assert_eq!([0, 1, 4_096, 4_097].map(|bytes| metered(bytes, 4_096)), [1, 1, 1, 2]);
    }

    proptest! {
        /// Whatever is asked for when: no more passes than the burst and the rate allow.
        #[test]
        fn the_rate_is_kept(gaps in proptest::collection::vec(0_u64..3_000, 1..200), rate in 1_u32..20) {
            let (bucket, rate) = (Bucket::default(), f64::from(rate));
            let (mut now, mut passed) = (1_000, 0_u32);
            for gap in gaps {
                now += gap;
                if bucket.take(at(now), 1.0, rate) != Verdict::Refuse {
                    passed += 1;
                }
                let allowed = rate * ((now - 1_000) as f64 / 1_000.0 + BURST.as_secs_f64() + MAX_DELAY.as_secs_f64()) + 1.0;
                prop_assert!(f64::from(passed) <= allowed, "{} of {}", passed, allowed);
            }
        }
    }
}
