//! Everything at once, for virtual hours: devices that come and go, services, methods, messages both ways, twins changed from
//! both sides, devices that move between hubs; and hosts that crash, lose power, lose each other, find their disks full or
//! failing, and whose clocks jump.
//!
//! At the end: every twin's history is linearizable, what was acknowledged is there and nothing else, every message for a device
//! has had one fate, and a device that moved lives in one hub with what it was promised.
//!
//! `cargo xtask simulate --seeds 1000 --hours 24` runs more of it. A failure prints the command that repeats it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, join, join_all, join3, select};
use nave_auth::KeyPair;
use nave_env::{Env, Moment};
use nave_hub::{CloudToDevice, ErrorCode, Hub, TwinUpdate};
use nave_log::Log;
use nave_model::{Ack, HostName, Identity, IfMatch, Reprovision};
use nave_mqtt::packet::QoS;
use serde_json::Value;

use super::device::{Connection, Gone};
use super::device_bound::told;
use super::faults::{Faults, disturb};
use super::twin_history::{History, Section, Seen};
use super::world::{HUBS, Host, World};
use super::{Hosts, any_host, fates};

/// What the normal tests run: some seconds.
const SEEDS: u64 = 4;
const HOURS: u64 = 2;

/// Devices of a seed, the last of which moves between the hubs.
const MOST_DEVICES: u64 = 5;

/// How often feedback is read: well within its life of an hour.
const FEEDBACK_EVERY: Duration = Duration::from_secs(10 * 60);

/// A device as its maker and its services know it.
struct Device {
    id: String,
    keys: KeyPair,
    moves: bool,
    hub: RefCell<String>,
    history: History,
    values: Cell<u64>,
    /// Message numbers that were acknowledged; the last that was sent.
    telemetry: RefCell<(BTreeSet<u64>, u64)>,
    /// Changes of each section: the last that was acknowledged, the last that was tried.
    promised: RefCell<BTreeMap<Section, (u64, u64)>>,
    /// Cloud-to-device messages: tried, accepted, received.
    messages: RefCell<[BTreeSet<u64>; 3]>,
    methods: Cell<(u32, u32)>,
    connects: Cell<u32>,
}

/// What happened, for the printed sum and to see that the scenario is about something.
#[derive(Debug, Default)]
struct Sum {
    operations: usize,
    telemetry: usize,
    connects: u32,
    methods: u32,
    messages: usize,
    moves: u64,
    faults: Faults,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[test]
fn hubs_keep_their_promises_for_hours() {
    let (seeds, first) = (setting("NAVE_SIMULATION_SEEDS", SEEDS), setting("NAVE_SIMULATION_FIRST_SEED", 0));
    let hours = setting("NAVE_SIMULATION_HOURS", HOURS);
    let mut sum = Sum::default();
    for seed in first..first + seeds {
        let again = Again { seed, hours };
        let world = World::new(seed);
        let ran = world.simulation.run(seed_of(&world, Duration::from_secs(hours * 3_600), &mut sum));
        ran.unwrap_or_else(|stuck| panic!("{stuck:?}"));
        std::mem::forget(again);
        if seeds > 50 && (seed - first + 1) % 50 == 0 {
            println!("{} seeds of {hours} virtual hours: {sum:?}", seed - first + 1);
        }
    }
    println!("{seeds} seeds of {hours} virtual hours: {sum:?}");
    // The scenario must exercise what it is about, or the comparison proves nothing.
    if seeds * hours >= SEEDS * HOURS {
        let faults = sum.faults;
        let all = [
            faults.crashes,
            faults.power_cuts,
            faults.full_disks,
            faults.disk_errors,
            faults.clock_jumps,
            faults.cut_off,
        ];
        assert!(all.iter().all(|count| *count > 0), "{sum:?}");
        assert!(sum.operations > 1_000 && sum.telemetry > 1_000 && sum.methods > 50 && sum.messages > 50, "{sum:?}");
        assert!(sum.connects > 100 && sum.moves > 0, "{sum:?}");
    }
}

#[test]
fn a_long_seed_repeats_itself() {
    let run = || {
        let (world, mut sum) = (World::new(5), Sum::default());
        world.simulation.run(seed_of(&world, Duration::from_secs(20 * 60), &mut sum)).unwrap();
        format!("{sum:?} {:?}", world.env.monotonic())
    };
    assert_eq!(run(), run());
}

#[test]
fn a_store_that_forgets_is_found_out() {
    for seed in 0..3 {
        let world = World::new(seed);
        world.store.forget(world.simulation.clone());
        let scenario = || world.simulation.run(seed_of(&world, Duration::from_secs(3_600), &mut Sum::default()));
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(scenario));
        assert!(found.is_err(), "seed {seed}: changes that were acknowledged are gone, and nobody noticed");
    }
}

/// Says how to repeat a seed that failed.
struct Again {
    seed: u64,
    hours: u64,
}

impl Drop for Again {
    fn drop(&mut self) {
        let Self { seed, hours } = self;
        println!("seed {seed} failed; again: cargo xtask simulate --first-seed {seed} --seeds 1 --hours {hours}");
    }
}

async fn seed_of(world: &World, time: Duration, sum: &mut Sum) {
    let hosts: Hosts = Rc::default();
    for name in ["host-a", "host-b"] {
        let host = world.start(name).await;
        hosts.borrow_mut().push(Rc::new(host));
    }
    let first = Rc::clone(&hosts.borrow()[0]);
    let group = world.enroll(&first).await;
    drop(first);
    let count = 2 + world.simulation.below(MOST_DEVICES - 1);
    let devices: Vec<Device> = (0..count).map(|number| Device::new(number, number + 1 == count, &group)).collect();
    let fates = RefCell::new(BTreeMap::new());
    let mut moves = 0;
    let end = world.env.monotonic().after(time);
    {
        let lives = devices.iter().map(|device| async {
            join(device.live(world, &hosts, end), device.serve(world, &hosts, end)).await;
        });
        let work = Box::pin(async {
            join3(
                join_all(lives),
                move_about(world, &hosts, end, &mut moves),
                read_feedback(world, &hosts, &fates, end),
            )
            .await;
        });
        let trouble = Box::pin(disturb(world, &hosts, &mut sum.faults));
        if let Either::Right(_) = select(work, trouble).await {
            unreachable!("trouble never ends");
        }
    }
    hosts.borrow().iter().for_each(|host| world.crash(host));
    world.set_full(false, [false; 2]);
    world.store.report_errors(None);
    let last = world.start("host-a").await;
    for device in devices.iter().filter(|device| device.moves && !device.hub.borrow().is_empty()) {
        // Whatever a crash left of its last move, registering again ends.
        let hub = Connection::register(world, &last, &device.id, &device.keys).await.unwrap();
        device.hub.replace(hub);
    }
    // Messages that still wait expire, and what became of them is told.
    for _ in 0..8 {
        feedback(&last, &fates).await;
        world.env.sleep(Duration::from_secs(15 * 60)).await;
    }
    let (stored, fates) = (telemetry(world).await, fates.into_inner());
    for device in &devices {
        device.check(&last, &stored, &fates).await;
        sum.operations += device.history.len();
        sum.telemetry += device.telemetry.borrow().0.len();
        sum.methods += device.methods.get().0;
        sum.connects += device.connects.get();
        sum.messages += device.messages.borrow()[2].len();
    }
    sum.moves += moves;
    world.crash(&last);
}

/// The messages of each device in the logs.
async fn telemetry(world: &World) -> BTreeMap<String, BTreeSet<u64>> {
    let mut stored: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for log in &world.logs {
        for partition in (0..log.partitions()).filter_map(nave_log::PartitionId::new) {
            let mut from = 0;
            loop {
                let batch = log.read(partition, from, usize::MAX, usize::MAX).await.unwrap();
                let Some(newest) = batch.records.last() else { break };
                from = newest.sequence + 1;
                for content in batch.records.into_iter().map(|record| record.content) {
                    if content.source == nave_log::Source::DeviceMessages {
                        let body: Value = serde_json::from_slice(&content.body).unwrap();
                        stored.entry(content.device_id).or_default().insert(body["n"].as_u64().unwrap());
                    }
                }
            }
        }
    }
    stored
}

/// Sends the devices that register again to the other hub, now and then.
async fn move_about(world: &World, hosts: &Hosts, end: Moment, moves: &mut u64) {
    let policy = Reprovision { update_hub_assignment: true, migrate_device_data: true };
    while world.env.monotonic() < end {
        world.env.sleep(Duration::from_secs(300 + world.simulation.below(1_500))).await;
        let to = world.simulation.below(2) as usize;
        let host = any_host(world, hosts);
        *moves += u64::from(world.ask_to_enroll_in(&host, &HUBS[to..=to], Some(policy)).await.is_ok());
    }
}

async fn read_feedback(world: &World, hosts: &Hosts, fates: &RefCell<BTreeMap<String, String>>, end: Moment) {
    while world.env.monotonic() < end {
        world.env.sleep(FEEDBACK_EVERY).await;
        feedback(&any_host(world, hosts), fates).await;
    }
}

/// Notes all feedback that a host has. What cannot be completed comes again, and says the same.
async fn feedback(host: &Host, fates: &RefCell<BTreeMap<String, String>>) {
    for hub in host.platform.hubs() {
        while let Ok(Some(batch)) = hub.receive_feedback().await {
            for (id, outcome) in told(&batch.json) {
                let before = fates.borrow_mut().insert(id.clone(), outcome.clone());
                assert!(before.as_ref().is_none_or(|before| *before == outcome), "{id}: {before:?} and {outcome}");
            }
            if hub.complete_feedback(&batch.lock_token).await.is_err() {
                break;
            }
        }
    }
}

impl Device {
    fn new(number: u64, moves: bool, group: &KeyPair) -> Self {
        let id = format!("device-{number}");
        Self {
            keys: group.derive(&id),
            id,
            moves,
            hub: RefCell::default(),
            history: History::default(),
            values: Cell::new(0),
            telemetry: RefCell::default(),
            promised: RefCell::default(),
            messages: RefCell::default(),
            methods: Cell::default(),
            connects: Cell::default(),
        }
    }

    fn identity(&self) -> Identity {
        Identity::parse(&self.id).unwrap()
    }

    /// A value that no other change writes.
    fn value(&self) -> u64 {
        self.values.set(self.values.get() + 1);
        self.values.get()
    }

    /// The device's side: it registers, connects to any host, works, is gone for a while, connects again.
    async fn live(&self, world: &World, hosts: &Hosts, end: Moment) {
        while world.env.monotonic() < end {
            let host = any_host(world, hosts);
            let registered = !self.hub.borrow().is_empty();
            if !registered || (self.moves && world.simulation.below(4) == 0) {
                match Connection::ask_to_register(world, &host, &self.id, &self.keys).await {
                    Ok(Ok(hub)) => drop(self.hub.replace(hub)),
                    _ => world.env.sleep(Duration::from_secs(1 + world.simulation.below(10))).await,
                }
                continue;
            }
            let hub = self.hub.borrow().clone();
            if let Ok(mut connection) = Connection::to_hub(world, &host, &hub, &self.id, &self.keys).await {
                self.connects.set(self.connects.get() + 1);
                // Its end is the end of a connection like any other.
                let _ = self.stay(world, &mut connection, end).await;
                let (tried, answered) = self.methods.get();
                self.methods.set((tried, answered + connection.methods));
                assert!(
                    connection.desired.is_sorted(),
                    "{}: notifications out of order: {:?}",
                    self.id,
                    connection.desired
                );
                if world.simulation.below(2) == 0 {
                    connection.disconnect();
                }
            }
            let away = if world.simulation.below(10) == 0 { 1_200_000 } else { 15_000 };
            world.env.sleep(Duration::from_millis(world.simulation.below(away))).await;
        }
    }

    async fn stay(&self, world: &World, connection: &mut Connection<'_>, end: Moment) -> Result<(), Gone> {
        if world.simulation.below(2) == 0 {
            connection.listen(&self.id, QoS::AtLeastOnce).await?;
        }
        while world.env.monotonic() < end && world.simulation.below(12) > 0 {
            match world.simulation.below(4) {
                0 => {
                    for _ in 0..=world.simulation.below(4) {
                        let number = self.telemetry.borrow().1 + 1;
                        self.telemetry.borrow_mut().1 = number;
                        connection.telemetry(&self.id, number).await?;
                        self.telemetry.borrow_mut().0.insert(number);
                    }
                }
                1 => {
                    let value = self.value();
                    let rid = format!("p{value}");
                    self.change(Section::Reported, value, async {
                        let answer = connection.ask_to_report(&rid, value).await;
                        // What a refusal says is not looked at: it may have happened.
                        (answer.as_ref().ok().and_then(|answer| answer.ok()), answer.map(drop))
                    })
                    .await?;
                }
                2 => {
                    let call = self.history.call();
                    let twin = connection.twin("g").await?;
                    self.read(call, &twin);
                }
                _ => connection.idle(Duration::from_millis(world.simulation.below(20_000))).await?,
            }
            self.take_messages(world, connection).await?;
        }
        Ok(())
    }

    async fn take_messages(&self, world: &World, connection: &mut Connection<'_>) -> Result<(), Gone> {
        let before = connection.desired.len();
        for got in connection.messages(Duration::from_millis(world.simulation.below(500))).await? {
            self.messages.borrow_mut()[2].insert(got.body.parse().unwrap());
            let (packet_id, _) = got.delivery.expect("QoS 1");
            if world.simulation.below(5) > 0 {
                connection.acknowledge(packet_id)?;
            }
        }
        if !self.moves {
            connection.desired.iter().skip(before).for_each(|version| self.history.notified(*version));
        }
        Ok(())
    }

    /// A change and its place in the history. `work` gives the version if it was acknowledged.
    async fn change<T>(&self, section: Section, value: u64, work: impl Future<Output = (Option<u64>, T)>) -> T {
        self.promised.borrow_mut().entry(section).or_default().1 = value;
        let call = self.history.call();
        // Should the caller never come back, the change may still happen.
        let (version, result) = work.await;
        match version {
            Some(version) => {
                self.promised.borrow_mut().entry(section).or_default().0 = value;
                self.history.changed(call, section, value, version);
            }
            None => self.history.unknown(call, section, value),
        }
        result
    }

    fn read(&self, call: super::twin_history::Called, properties: &Value) {
        let seen = |section: &str, member: &str| Seen {
            version: properties[section]["$version"].as_u64().unwrap(),
            value: properties[section].get(member).map(|value| value.as_u64().unwrap()),
        };
        self.history.read(call, seen("desired", "m"), seen("reported", "n"));
    }

    /// The service's side, through any host.
    async fn serve(&self, world: &World, hosts: &Hosts, end: Moment) {
        while world.env.monotonic() < end {
            let pause = if world.simulation.below(20) == 0 { 900_000 } else { 20_000 };
            world.env.sleep(Duration::from_millis(500 + world.simulation.below(pause))).await;
            let Some(hub) = HUBS.iter().position(|name| *name == *self.hub.borrow()) else { continue };
            let identity = self.identity();
            match world.simulation.below(4) {
                0 => {
                    let value = self.value();
                    let body = format!("{{\"properties\":{{\"desired\":{{\"m\":{value}}}}}}}");
                    self.change(Section::Desired, value, async {
                        let work = |hub: Arc<Hub>| async move {
                            hub.update_twin(&identity, TwinUpdate::Patch, &body, &IfMatch::None).await
                        };
                        let patched = fates::on_a_host(world, hosts, hub, work).await;
                        (patched.and_then(Result::ok).map(|view| version(&view.json)), ())
                    })
                    .await;
                }
                1 => {
                    let call = self.history.call();
                    let work = |hub: Arc<Hub>| async move { hub.get_twin(&identity).await };
                    if let Some(Ok(view)) = fates::on_a_host(world, hosts, hub, work).await {
                        let twin: Value = serde_json::from_str(&view.json).unwrap();
                        self.read(call, &twin["properties"]);
                    }
                }
                2 => {
                    let work = |hub: Arc<Hub>| async move {
                        let body = r#"{"methodName":"ping","responseTimeoutInSeconds":5,"connectTimeoutInSeconds":2}"#;
                        hub.call_method(&identity, body).await
                    };
                    if let Some(Ok(answer)) = fates::on_a_host(world, hosts, hub, work).await {
                        assert_eq!(answer, r#"{"status":200,"payload":{"done":true}}"#);
                        let (tried, answered) = self.methods.get();
                        self.methods.set((tried + 1, answered));
                    }
                }
                _ if !self.moves => self.send(world, hosts, hub).await,
                _ => {}
            }
        }
    }

    async fn send(&self, world: &World, hosts: &Hosts, hub: usize) {
        let number = self.value();
        let message = CloudToDevice {
            message_id: Some(format!("{}/{number}", self.id)),
            ack: Ack::Full,
            body: number.to_string().into_bytes().into(),
            ..CloudToDevice::default()
        };
        self.messages.borrow_mut()[0].insert(number);
        let device = self.identity().device_id().clone();
        let sent =
            fates::on_a_host(world, hosts, hub, move |hub| async move { hub.send_to_device(&device, message).await })
                .await;
        if let Some(Ok(_)) = sent {
            self.messages.borrow_mut()[1].insert(number);
        }
    }

    /// Compares what is left with what was promised.
    async fn check(&self, host: &Host, stored: &BTreeMap<String, BTreeSet<u64>>, fates: &BTreeMap<String, String>) {
        let id = &self.id;
        self.check_telemetry(stored.get(id).unwrap_or(&BTreeSet::new()));
        let home = self.hub.borrow().clone();
        if home.is_empty() {
            return;
        }
        let hub = |name: &str| Arc::clone(host.platform.hub(&HostName::parse(name).unwrap()).unwrap());
        let call = self.history.call();
        let view = hub(&home).get_twin(&self.identity()).await.unwrap_or_else(|error| panic!("{id}: {error}"));
        let twin: Value = serde_json::from_str(&view.json).unwrap();
        self.read(call, &twin["properties"]);
        for (section, member) in [(Section::Desired, "/desired/m"), (Section::Reported, "/reported/n")] {
            let (acknowledged, tried) = self.promised.borrow().get(&section).copied().unwrap_or_default();
            let value = twin["properties"].pointer(member).and_then(Value::as_u64).unwrap_or(0);
            assert!(
                (acknowledged..=tried).contains(&value),
                "{id}: {section:?} is {value}, not {acknowledged} to {tried}"
            );
        }
        if self.moves {
            for other in HUBS.iter().filter(|name| **name != home) {
                let error = hub(other).get_twin(&self.identity()).await.map(drop).expect_err("it left that hub");
                assert_eq!(error.code, ErrorCode::DeviceNotFound, "{id}: {error}");
            }
        } else {
            self.history.check().unwrap_or_else(|why| panic!("{id}: its history is not linearizable: {why}"));
        }
        self.check_messages(fates);
        let (answered, given) = self.methods.get();
        assert!(answered <= given, "{id}: more answers arrived than were given");
    }

    fn check_telemetry(&self, numbers: &BTreeSet<u64>) {
        let id = &self.id;
        let (acknowledged, newest) = &*self.telemetry.borrow();
        let missing: Vec<_> = acknowledged.difference(numbers).collect();
        assert!(missing.is_empty(), "{id}: messages {missing:?} were acknowledged and are not in the log");
        assert!(numbers.iter().all(|number| number <= newest), "{id}: a message that was never sent");
    }

    fn check_messages(&self, fates: &BTreeMap<String, String>) {
        let [tried, accepted, received] = &*self.messages.borrow();
        for number in tried {
            let fate = fates.get(&format!("{}/{number}", self.id)).map(String::as_str);
            match fate {
                Some("Success") => assert!(received.contains(number), "{}: {number} never reached it", self.id),
                Some("Expired" | "DeliveryCountExceeded") => {}
                None => assert!(!accepted.contains(number), "{}: {number} was accepted and vanished", self.id),
                Some(other) => panic!("{}: {number}: {other}", self.id),
            }
        }
    }
}

/// The version of the desired section in a twin.
fn version(twin: &str) -> u64 {
    let twin: Value = serde_json::from_str(twin).unwrap();
    twin["properties"]["desired"]["$version"].as_u64().unwrap()
}
