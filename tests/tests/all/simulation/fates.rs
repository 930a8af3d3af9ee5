//! Every message that the hub accepted for a device has one fate, whatever crashes: it is delivered, or expires, or is
//! dead-lettered, and its sender is told so once.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, join3, select};
use nave_auth::KeyPair;
use nave_env::Env;
use nave_hub::{ErrorCode, Hub, HubError, Settlement};
use nave_mqtt::packet::QoS;

use super::device::{Connection, Gone};
use super::device_bound::{HUB, ID, create, device, message, outcomes, over_https};
use super::world::{Host, World};
use super::{Hosts, any_host};

const SEEDS: u64 = 40;
const MESSAGES: u64 = 60;

/// What the hub has said, and to whom.
#[derive(Default)]
struct Ledger {
    /// Messages that the service sent, and those of them that the hub accepted for certain.
    sent: BTreeSet<u64>,
    accepted: BTreeSet<u64>,
    /// Messages that reached the device, and how often.
    reached: BTreeMap<u64, u32>,
    /// Settlements that the hub confirmed.
    completed: BTreeSet<u64>,
    rejected: BTreeSet<u64>,
    /// What feedback says: message ids with their outcomes.
    fates: Vec<(String, String)>,
    done: bool,
}

#[test]
fn every_accepted_message_has_one_fate() {
    let (mut successes, mut failures, mut repetitions) = (0, 0, 0);
    for seed in 0..SEEDS {
        let world = World::new(seed);
        let ran = world.simulation.run(scenario(&world));
        let mut ledger = ran.unwrap_or_else(|stuck| panic!("seed {seed}: {stuck:?}"));
        let mut told: BTreeMap<u64, String> = BTreeMap::new();
        for (id, outcome) in ledger.fates.drain(..) {
            let number = id.strip_prefix("m-").unwrap().parse().unwrap();
            let before = told.insert(number, outcome);
            assert_eq!(before, None, "seed {seed}: message {number} has two fates");
        }
        for number in &ledger.accepted {
            assert!(told.contains_key(number), "seed {seed}: message {number} was accepted and vanished");
        }
        for (number, outcome) in &told {
            assert!(ledger.sent.contains(number), "seed {seed}: message {number} was never sent");
            let reached = ledger.reached.get(number).copied().unwrap_or(0);
            match outcome.as_str() {
                "Success" => {
                    assert!(reached > 0, "seed {seed}: message {number} succeeded without reaching the device");
                    successes += 1;
                }
                "Rejected" => assert!(reached > 0, "seed {seed}: message {number}"),
                "Expired" | "DeliveryCountExceeded" => failures += 1,
                other => panic!("seed {seed}: message {number}: {other}"),
            }
            assert!(!ledger.completed.contains(number) || outcome == "Success", "seed {seed}: {number} {outcome}");
            assert!(!ledger.rejected.contains(number) || outcome == "Rejected", "seed {seed}: {number} {outcome}");
            repetitions += reached.saturating_sub(1);
        }
    }
    // The scenario must exercise what it is about, or the comparison proves nothing.
    assert!(successes > 10 * SEEDS as u32, "{successes} succeeded");
    assert!(failures > SEEDS as u32, "{failures} failed");
    assert!(repetitions > SEEDS as u32, "{repetitions} were repeated");
}

async fn scenario(world: &World) -> Ledger {
    let hosts: Hosts = Rc::default();
    for name in ["host-a", "host-b"] {
        let host = world.start(name).await;
        hosts.borrow_mut().push(Rc::new(host));
    }
    let first = Arc::clone(&hosts.borrow()[0].platform.hubs()[0]);
    let keys = create(world, &first).await;
    drop(first);
    let ledger = RefCell::new(Ledger::default());
    let work = join3(
        service(world, &hosts, &ledger),
        over_mqtt(world, &hosts, &keys, &ledger),
        by_polling(world, &hosts, &keys, &ledger),
    );
    if let Either::Right(_) = select(Box::pin(work), Box::pin(crash_now_and_then(world, &hosts, &ledger))).await {
        unreachable!("crashes go on for ever");
    }
    // Whatever still waits expires; a new host is told by nobody what there is.
    for host in hosts.borrow().iter() {
        world.crash(host);
    }
    world.lose_unsynced();
    let last = world.start("host-a").await;
    let hub = &last.platform.hubs()[0];
    for _ in 0..8 {
        // Feedback lasts for an hour, as messages do.
        let fates = outcomes(hub).await;
        ledger.borrow_mut().fates.extend(fates);
        world.env.sleep(Duration::from_secs(15 * 60)).await;
    }
    let view = hub.get_device(&device()).await.unwrap().json;
    assert_eq!(view["cloudToDeviceMessageCount"], 0);
    let left = nave_store::Store::scan(&*world.store, "", None, 1_000).await.unwrap();
    assert!(left.iter().all(|(key, _)| !key.contains("/queued/")), "contents without a message: {left:?}");
    let mut ledger = ledger.into_inner();
    ledger.fates.extend(outcomes(hub).await);
    ledger
}

/// Sends messages through any host, some of which live only for a short time.
async fn service(world: &World, hosts: &Hosts, ledger: &RefCell<Ledger>) {
    for number in 0..MESSAGES {
        world.env.sleep(Duration::from_millis(world.simulation.below(1_500))).await;
        let mut new = message(number);
        if world.simulation.below(3) == 0 {
            let life = Duration::from_millis(500 + world.simulation.below(20_000));
            new.expires = Some(world.env.now().after(life));
        }
        ledger.borrow_mut().sent.insert(number);
        let sent = on_a_host(world, hosts, 0, move |hub| async move { hub.send_to_device(&device(), new).await }).await;
        match sent {
            Some(Ok(_)) => drop(ledger.borrow_mut().accepted.insert(number)),
            Some(Err(error)) => assert_eq!(error.code, ErrorCode::DeviceMaximumQueueDepthExceeded, "{error}"),
            // The host crashed in the middle: accepted or not.
            None => {}
        }
    }
    ledger.borrow_mut().done = true;
}

/// A device that connects, takes messages, acknowledges most of them, and is gone again.
async fn over_mqtt(world: &World, hosts: &Hosts, keys: &KeyPair, ledger: &RefCell<Ledger>) {
    while !ledger.borrow().done {
        world.env.sleep(Duration::from_millis(world.simulation.below(6_000))).await;
        let host = any_host(world, hosts);
        let clean = world.simulation.below(3) == 0;
        let Ok((mut connection, resumed)) = Connection::log_in(world, &host, HUB, ID, keys, clean).await else {
            continue;
        };
        if !resumed && connection.listen(ID, QoS::AtLeastOnce).await.is_err() {
            continue;
        }
        for _ in 0..1 + world.simulation.below(4) {
            let time = Duration::from_millis(world.simulation.below(3_000));
            if take_some(world, &mut connection, time, ledger).await.is_err() {
                break;
            }
        }
        if world.simulation.below(2) == 0 {
            connection.disconnect();
        }
    }
}

async fn take_some(
    world: &World,
    connection: &mut Connection<'_>,
    time: Duration,
    ledger: &RefCell<Ledger>,
) -> Result<(), Gone> {
    for got in connection.messages(time).await? {
        let number: u64 = got.body.parse().unwrap();
        let (packet_id, _) = got.delivery.expect("QoS 1");
        let mut ledger = ledger.borrow_mut();
        *ledger.reached.entry(number).or_default() += 1;
        if world.simulation.below(4) > 0 {
            connection.acknowledge(packet_id)?;
        }
    }
    Ok(())
}

/// The same device, that also asks over HTTPS.
async fn by_polling(world: &World, hosts: &Hosts, keys: &KeyPair, ledger: &RefCell<Ledger>) {
    while !ledger.borrow().done {
        world.env.sleep(Duration::from_millis(world.simulation.below(8_000))).await;
        let host = any_host(world, hosts);
        let hub = Arc::clone(&host.platform.hubs()[0]);
        let Ok(who) = over_https(world, &hub, keys).await else { continue };
        let asked = who.clone();
        let received = on(&host, &hub, move |hub| async move { hub.receive_message(&asked).await }).await;
        let Some(received) = received.map(|received| received.unwrap()) else { continue };
        let Some(received) = received else { continue };
        let number: u64 = std::str::from_utf8(&received.message.body).unwrap().parse().unwrap();
        *ledger.borrow_mut().reached.entry(number).or_default() += 1;
        world.env.sleep(Duration::from_millis(world.simulation.below(3_000))).await;
        let settlement = match world.simulation.below(5) {
            0 => continue,
            1 => Settlement::Abandon,
            2 => Settlement::Reject,
            _ => Settlement::Complete,
        };
        let token = received.lock_token;
        let settled =
            on_a_host(world, hosts, 0, move |hub| async move { hub.settle_message(&who, &token, settlement).await })
                .await;
        if let Some(Err(error)) = &settled {
            panic!("the lock lasts for a minute: {error}");
        }
        match (settled, settlement) {
            (Some(Ok(())), Settlement::Complete) => drop(ledger.borrow_mut().completed.insert(number)),
            (Some(Ok(())), Settlement::Reject) => drop(ledger.borrow_mut().rejected.insert(number)),
            _ => {}
        }
    }
}

/// Runs `work` on a hub of any host, so that it ends with it; nothing if the host crashed meanwhile.
pub(super) async fn on_a_host<T: Send + 'static, F: Future<Output = Result<T, HubError>> + Send + 'static>(
    world: &World,
    hosts: &Hosts,
    hub: usize,
    work: impl FnOnce(Arc<Hub>) -> F,
) -> Option<Result<T, HubError>> {
    let host = any_host(world, hosts);
    let hub = Arc::clone(&host.platform.hubs()[hub]);
    on(&host, &hub, work).await
}

/// Runs `work` inside a host, so that it ends with it; nothing if the host crashed meanwhile.
async fn on<T: Send + 'static, F: Future<Output = Result<T, HubError>> + Send + 'static>(
    host: &Host,
    hub: &Arc<Hub>,
    work: impl FnOnce(Arc<Hub>) -> F,
) -> Option<Result<T, HubError>> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let work = work(Arc::clone(hub));
    host.env.spawn(Box::pin(async move { drop(sender.send(work.await)) }));
    receiver.await.ok()
}

/// Crashes hosts, and reads feedback in between.
async fn crash_now_and_then(world: &World, hosts: &Hosts, ledger: &RefCell<Ledger>) {
    loop {
        world.env.sleep(Duration::from_secs(3 + world.simulation.below(8))).await;
        let host = any_host(world, hosts);
        let fates = outcomes(&host.platform.hubs()[0]).await;
        ledger.borrow_mut().fates.extend(fates);
        let power_cut = world.simulation.below(3) == 0;
        let victim = world.simulation.below(2) as usize;
        let victims = if power_cut { 0..2 } else { victim..victim + 1 };
        let old: Vec<Rc<Host>> = victims.clone().map(|victim| Rc::clone(&hosts.borrow()[victim])).collect();
        old.iter().for_each(|host| world.crash(host));
        if power_cut {
            world.lose_unsynced();
        }
        world.env.sleep(Duration::from_millis(200 + world.simulation.below(1_000))).await;
        for (victim, old) in victims.zip(old) {
            let started = world.start(old.id.as_str()).await;
            hosts.borrow_mut()[victim] = Rc::new(started);
        }
    }
}
