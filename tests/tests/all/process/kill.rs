//! `kill -9` under load: everything that was acknowledged is accounted for.
//!
//! A killed process keeps what the kernel has, so this does not show that anything reached the disk; the durability tests of
//! `store` and `log` do. It shows that the whole program says "yes" only after the right parts have said it, and that it
//! comes back from any place in which it can be stopped.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use nave_auth::{KeyPair, SharedKey};
use nave_env::sim::Simulation;
use nave_model::{Keys, Record as _, SessionRecord, Tenant, Timestamp};
use nave_mqtt::packet::PacketId;
use nave_store::{FjallStore, Store as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::device::{self, Incoming, Link};
use super::promises::{Changes, Promises};
use super::server::{Nave, Ready, Site};
use super::service::{Event, Service};
use super::{PATIENCE, in_time, run};

const DEVICES: usize = 6;

/// Messages of a device that wait for their acknowledgement, at most.
const WINDOW: u64 = 10;

const ROUNDS: u64 = 10;

/// Progress of each device before it is worth killing the hub again.
const MESSAGES_PER_ROUND: u64 = 3 * WINDOW;

/// Of the enrollment group; the devices' keys are derived from them.
const GROUP_KEYS: [&str; 2] =
    ["AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="];

struct Subject {
    id: String,
    key: SharedKey,
    hub: String,
    promises: RefCell<Promises>,
}

struct World {
    site: Site,
    hub: RefCell<Nave>,
    /// Where the hub is at the moment.
    ready: RefCell<Option<Ready>>,
    stopping: Cell<bool>,
    subjects: Vec<Subject>,
    random: Cell<u64>,
}

impl World {
    /// A number below `limit` (xorshift64).
    fn below(&self, limit: u64) -> u64 {
        let mut state = self.random.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.random.set(state);
        state % limit
    }

    async fn pause(&self, below_millis: u64) {
        tokio::time::sleep(Duration::from_millis(self.below(below_millis))).await;
    }

    /// The place of the running hub, or none if it is not the time for work.
    fn target(&self) -> Option<Ready> {
        self.ready.borrow().clone()
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9_under_load() {
    run(async {
        let world = Rc::new(prepare(0x6e61_7665).await);
        let mut work = JoinSet::new();
        for number in 0..DEVICES {
            work.spawn_local(live(Rc::clone(&world), number));
        }
        work.spawn_local(serve(Rc::clone(&world)));
        work.spawn_local(kill_and_restart(Rc::clone(&world)));
        // The first failed assertion ends everything.
        while let Some(ended) = work.join_next().await {
            ended.unwrap();
        }
        check(&world).await;
        world.hub.borrow().stop();
        check_epochs(&world);
    });
}

/// A hub with devices that an enrollment group assigned to it.
async fn prepare(seed: u64) -> World {
    let site = Site::with("\n[[hub.route]]\nname = \"changes\"\nsource = \"TwinChangeEvents\"\n");
    let hub = site.launch();
    let ready = hub.until_ready().await;
    let group = json!({
        "enrollmentGroupId": "crash",
        "attestation": {
            "type": "symmetricKey",
            "symmetricKey": { "primaryKey": GROUP_KEYS[0], "secondaryKey": GROUP_KEYS[1] },
        },
    });
    let target = "/enrollmentGroups/crash?api-version=2021-10-01";
    Service::provisioning(&ready).json("PUT", target, &group.to_string()).await;
    let keys = KeyPair::from_base64(GROUP_KEYS[0], GROUP_KEYS[1]).unwrap();
    let subjects = (0..DEVICES).map(|number| {
        let id = format!("crash-{number}");
        let key = keys.derive(&id).primary;
        let ready = &ready;
        async move {
            let hub = device::register(ready, &id, &key).await;
            let desired = Changes { version: 1, ..Changes::default() };
            let promises = Promises { reported: desired, desired, ..Promises::default() };
            Subject { id, key, hub, promises: RefCell::new(promises) }
        }
    });
    let subjects = join_all(subjects).await;
    World {
        site,
        hub: RefCell::new(hub),
        ready: RefCell::new(Some(ready)),
        stopping: Cell::new(false),
        subjects,
        random: Cell::new(seed),
    }
}

/// A device's life: connect, send what was not acknowledged again, go on; and again when the connection is gone.
async fn live(world: Rc<World>, number: usize) {
    let subject = &world.subjects[number];
    loop {
        let Some(ready) = world.target() else {
            world.pause(5).await;
            continue;
        };
        match work(&world, subject, &ready).await {
            Ok(()) => return,
            Err(error) => {
                assert!(!error.to_string().contains("refused with"), "{}: {error}", subject.id);
                world.pause(20).await;
            }
        }
    }
}

async fn work(world: &World, subject: &Subject, ready: &Ready) -> std::io::Result<()> {
    let id = &subject.id;
    subject.promises.borrow_mut().attempts += 1;
    let (mut link, resumed) = Link::to_hub(ready, &subject.hub, id, &subject.key, false).await?;
    let connection = {
        let mut promises = subject.promises.borrow_mut();
        promises.accepted += 1;
        assert!(resumed || !promises.subscribed, "{id}: subscriptions that were acknowledged are gone");
        promises.attempts
    };
    if !resumed {
        link.subscribe_twin().await?;
        subject.promises.borrow_mut().subscribed = true;
    }
    let mut notified = 0;
    catch_up(subject, &mut link, &mut notified).await?;
    let mut bytes = Vec::new();
    let unknown = {
        let promises = subject.promises.borrow();
        promises.acknowledged + 1..=promises.sent
    };
    for message in unknown {
        message_of(&mut bytes, id, message, connection, true);
    }
    let mut patching = false;
    loop {
        {
            let mut promises = subject.promises.borrow_mut();
            if world.stopping.get() && promises.acknowledged == promises.sent && !patching {
                return Ok(());
            }
            while !world.stopping.get() && promises.sent - promises.acknowledged < WINDOW {
                promises.sent += 1;
                message_of(&mut bytes, id, promises.sent, connection, false);
            }
            if !patching && !world.stopping.get() {
                let body = promises.reported.next();
                device::report(&mut bytes, &promises.reported.sent.to_string(), &body);
                patching = true;
            }
        }
        if !bytes.is_empty() {
            link.send(&bytes).await?;
            bytes.clear();
        }
        let incoming = link.next().await?;
        let mut promises = subject.promises.borrow_mut();
        match incoming {
            Incoming::Acknowledged(packet_id) => {
                promises.acknowledged += 1;
                assert_eq!(packet_id, id_of(promises.acknowledged), "{id}: acknowledgements come in order");
            }
            Incoming::TwinAnswer { status, rid, version, body } => {
                assert_eq!(status, 204, "{id}: {}", String::from_utf8_lossy(&body));
                assert_eq!(rid, promises.reported.sent.to_string());
                let number = promises.reported.sent;
                promises.reported.acknowledged(number, version.expect("a version"), id);
                patching = false;
            }
            Incoming::Desired { version, body } => {
                drop(promises);
                notify(subject, &mut notified, version, &body);
            }
            other => panic!("{id}: unexpected {other:?}"),
        }
    }
}

/// What a service was promised before this read, the device reads after its reconnection.
async fn catch_up(subject: &Subject, link: &mut Link, notified: &mut u64) -> std::io::Result<()> {
    let mut promised = subject.promises.borrow().desired;
    let mut bytes = Vec::new();
    device::get_twin(&mut bytes, "get");
    link.send(&bytes).await?;
    loop {
        match link.next().await? {
            Incoming::TwinAnswer { status, body, .. } => {
                assert_eq!(status, 200);
                let twin: Value = serde_json::from_slice(&body).unwrap();
                let mut promises = subject.promises.borrow_mut();
                promises.reported.seen(&twin["reported"], &subject.id);
                // Meanwhile the service may have sent more.
                promised.sent = promises.desired.sent;
                promised.seen(&twin["desired"], &subject.id);
                let version = promised.version;
                assert!(version >= promises.told, "{}: {version} after {}", subject.id, promises.told);
                promises.told = version;
                return Ok(());
            }
            Incoming::Desired { version, body } => notify(subject, notified, version, &body),
            other => panic!("{}: unexpected {other:?}", subject.id),
        }
    }
}

/// A device was told of a change, which must be one that was asked for, and later than the one before.
fn notify(subject: &Subject, last: &mut u64, version: u64, body: &[u8]) {
    let mut promises = subject.promises.borrow_mut();
    let (id, desired) = (&subject.id, promises.desired);
    let section: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(section["$version"], version);
    let number = section["n"].as_u64().expect("a change");
    assert!(number <= desired.sent && version <= desired.sent + 1, "{id}: told of change {number}, {desired:?}");
    assert!(version > *last, "{id}: told of version {version} after {last}");
    *last = version;
    promises.told = promises.told.max(version);
}

fn id_of(message: u64) -> PacketId {
    PacketId::new((message % 60_000 + 1) as u16).unwrap()
}

fn message_of(bytes: &mut Vec<u8>, id: &str, message: u64, connection: u64, dup: bool) {
    let bag = format!("connection={connection}&%24.mid={id}-{message}");
    device::telemetry(bytes, id, &bag, body_of(id, message).as_bytes(), id_of(message), dup);
}

/// Bodies have different lengths, so that records end at odd places.
fn body_of(id: &str, message: u64) -> String {
    let filler = "x".repeat((message * 37 % 300) as usize);
    format!("{{\"device\":\"{id}\",\"n\":{message},\"filler\":\"{filler}\"}}")
}

/// A back end: changes desired properties of one device after the other.
async fn serve(world: Rc<World>) {
    while !world.stopping.get() {
        let Some(ready) = world.target() else {
            world.pause(5).await;
            continue;
        };
        let subject = &world.subjects[world.below(DEVICES as u64) as usize];
        let (number, body) = {
            let mut promises = subject.promises.borrow_mut();
            let body = promises.desired.next();
            (promises.desired.sent, format!("{{\"properties\":{{\"desired\":{body}}}}}"))
        };
        let target = format!("/twins/{}?api-version=2021-04-12", subject.id);
        match Service::hub(&ready).request("PATCH", &target, &body).await {
            Ok(answer) => {
                assert_eq!(answer.status, 200, "{}: {}", subject.id, answer.text());
                let twin: Value = serde_json::from_slice(&answer.body).unwrap();
                let desired = &twin["properties"]["desired"];
                let mut promises = subject.promises.borrow_mut();
                promises.desired.acknowledged(number, desired["$version"].as_u64().unwrap(), &subject.id);
                promises.desired.seen(desired, &subject.id);
                assert_eq!(desired["n"], number);
            }
            // The hub was killed: the change may have happened or not.
            Err(_) => world.pause(20).await,
        }
    }
}

/// Kills the hub at random moments, sometimes while it starts.
async fn kill_and_restart(world: Rc<World>) {
    for _ in 0..ROUNDS {
        progress(&world).await;
        world.pause(700).await;
        *world.ready.borrow_mut() = None;
        world.hub.borrow().kill();
        if world.below(2) == 0 {
            let hub = world.site.launch();
            world.pause(150).await;
            hub.kill();
        }
        let hub = world.site.launch();
        let ready = hub.until_ready().await;
        *world.hub.borrow_mut() = hub;
        *world.ready.borrow_mut() = Some(ready);
    }
    progress(&world).await;
    world.stopping.set(true);
}

/// Waits until every device and the service got something done.
async fn progress(world: &World) {
    let state = || -> Vec<(u64, u64)> {
        let promises = world.subjects.iter().map(|subject| subject.promises.borrow());
        promises.map(|promises| (promises.acknowledged, promises.reported.acknowledged)).collect()
    };
    let served = || world.subjects.iter().map(|subject| subject.promises.borrow().desired.acknowledged).sum::<u64>();
    let (before, served_before) = (state(), served());
    let done = || {
        let devices = state();
        served() > served_before
            && devices.iter().zip(&before).all(|(now, then)| now.0 >= then.0 + MESSAGES_PER_ROUND && now.1 > then.1)
    };
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("no progress: {before:?}, now {:?}", state());
    }
}

/// Compares what can be read with what was promised.
async fn check(world: &World) {
    let ready = world.target().unwrap();
    let service = Service::hub(&ready);
    for subject in &world.subjects {
        let twin = service.twin(&subject.id).await;
        let mut promises = subject.promises.borrow_mut();
        promises.reported.seen(&twin["properties"]["reported"], &subject.id);
        promises.desired.seen(&twin["properties"]["desired"], &subject.id);
        assert!(promises.desired.version >= promises.told, "{}: told of {}", subject.id, promises.told);
    }
    let events = in_time("the events of all changes", async {
        loop {
            let events = service.events().await;
            if world.subjects.iter().all(|subject| enough_changes(subject, &events)) {
                return events;
            }
        }
    })
    .await;
    check_partitions(&events);
    let mut duplicates = 0;
    let mut total = 0;
    for subject in &world.subjects {
        let (messages, repeated) = check_messages(subject, &events);
        total += messages;
        duplicates += repeated;
    }
    let stranger = |event: &&Event| !world.subjects.iter().any(|subject| subject.id == event.device);
    assert_eq!(events.iter().filter(stranger).count(), 0, "messages of devices that do not exist");
    let sum = |what: fn(&Promises) -> u64| world.subjects.iter().map(|s| what(&s.promises.borrow())).sum::<u64>();
    eprintln!(
        "{ROUNDS} kills: {total} messages, {duplicates} twice; {} reported and {} desired changes; {} connections",
        sum(|promises| promises.reported.acknowledged),
        sum(|promises| promises.desired.acknowledged),
        sum(|promises| promises.accepted),
    );
}

/// One event for each change that was applied, none lost; a crash may repeat one.
fn enough_changes(subject: &Subject, events: &[Event]) -> bool {
    let promises = subject.promises.borrow();
    let wanted = promises.reported.version - 1 + promises.desired.version - 1;
    let of_device = events.iter().filter(|event| event.device == subject.id && event.source == "twinChangeEvents");
    of_device.count() as u64 >= wanted
}

/// Positions have no gaps, and time does not go back.
fn check_partitions(events: &[Event]) {
    let mut next: BTreeMap<u64, (u64, &str)> = BTreeMap::new();
    for event in events {
        let (sequence, time) = next.entry(event.partition).or_default();
        assert_eq!(event.sequence, *sequence, "partition {}", event.partition);
        assert!(&*event.enqueued >= *time, "partition {}: {} after {time}", event.partition, event.enqueued);
        *sequence += 1;
        *time = &event.enqueued;
    }
}

/// Every message is there, in order within its connection; what a connection repeats is what the one before it could not
/// know to be safe. The numbers of different messages and of repetitions.
fn check_messages(subject: &Subject, events: &[Event]) -> (u64, u64) {
    let promises = subject.promises.borrow();
    let id = &subject.id;
    assert_eq!(promises.acknowledged, promises.sent, "{id}: everything was acknowledged in the end");
    let (mut newest, mut repeated) = (0, 0);
    let mut last = (0, 0);
    for event in events.iter().filter(|event| event.device == *id && event.source == "Telemetry") {
        let body: Value = serde_json::from_slice(&event.body).unwrap();
        let number = body["n"].as_u64().unwrap();
        assert_eq!(event.body, body_of(id, number).as_bytes(), "{id}: message {number}");
        let connection: u64 = event.properties["connection"].as_str().unwrap().parse().unwrap();
        assert!(connection <= promises.attempts, "{id}: message {number} of connection {connection}");
        if connection == last.0 {
            assert_eq!(number, last.1 + 1, "{id}: out of order in connection {connection}");
        } else {
            assert!(connection > last.0, "{id}: message {number} of connection {connection} after {last:?}");
            assert!(number <= newest + 1, "{id}: message {number} after {newest}");
        }
        last = (connection, number);
        if number <= newest {
            repeated += 1;
        } else {
            newest = number;
        }
    }
    assert_eq!(newest, promises.sent, "{id}: the last message");
    (newest, repeated)
}

/// Each accepted connection raised the device's epoch by one, and nothing else did.
fn check_epochs(world: &World) {
    let env = Simulation::new(1, Timestamp::from_unix_seconds(1)).host();
    let store = FjallStore::open(&world.site.data().join("store"), nave_store::Options::default(), env).unwrap();
    let keys = Keys::new(&Tenant::default_tenant(), "hub1");
    for subject in &world.subjects {
        let entry = store.get(&keys.session(&subject.id)).now_or_never().expect("reads do not wait").unwrap();
        let record = SessionRecord::decode(&entry.expect("a session").value).unwrap();
        let promises = subject.promises.borrow();
        assert!(
            (promises.accepted..=promises.attempts).contains(&record.epoch),
            "{}: epoch {} after {} connections in {} attempts",
            subject.id,
            record.epoch,
            promises.accepted,
            promises.attempts
        );
    }
}
