//! What goes wrong in the long simulation.

use std::rc::Rc;
use std::time::Duration;

use nave_env::Env;

use super::world::{Host, World};
use super::{Hosts, any_host};

/// Longest time that a disk is full or failing: devices have long given up by then.
const MOST_TROUBLE_SECONDS: u64 = 90;

/// A clock is wrong by at most this: less than the life of messages and feedback, an hour.
const WRONG_BY_MS: u64 = 20 * 60 * 1_000;

/// How often each thing went wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) crashes: u64,
    pub(crate) power_cuts: u64,
    pub(crate) full_disks: u64,
    pub(crate) disk_errors: u64,
    pub(crate) clock_jumps: u64,
    pub(crate) cut_off: u64,
}

/// Makes trouble for ever, with quiet times in between.
pub(crate) async fn disturb(world: &World, hosts: &Hosts, faults: &mut Faults) {
    let some = |most: u64| Duration::from_millis(world.simulation.below(most * 1_000));
    loop {
        let quiet = if world.simulation.below(4) == 0 { 600 } else { 30 };
        world.env.sleep(some(quiet)).await;
        match world.simulation.below(8) {
            0 | 1 => {
                faults.crashes += 1;
                let victim = world.simulation.below(2) as usize;
                restart(world, hosts, victim..victim + 1, false).await;
            }
            2 => {
                faults.power_cuts += 1;
                restart(world, hosts, 0..2, true).await;
            }
            3 => {
                faults.full_disks += 1;
                let [store, first, second] = [(); 3].map(|()| world.simulation.below(2) == 0);
                world.set_full(store, [first, second]);
                world.env.sleep(some(MOST_TROUBLE_SECONDS)).await;
                crash_perhaps(world, hosts, faults).await;
                world.set_full(false, [false; 2]);
            }
            4 => {
                faults.disk_errors += 1;
                world.store.report_errors(Some(world.simulation.clone()));
                world.env.sleep(some(MOST_TROUBLE_SECONDS)).await;
                world.store.report_errors(None);
            }
            5 | 6 => {
                faults.clock_jumps += 1;
                let wrong = i64::try_from(world.simulation.below(2 * WRONG_BY_MS)).unwrap_or(0);
                let half = i64::try_from(WRONG_BY_MS).unwrap_or(0);
                any_host(world, hosts).env.set_clock_error(if world.simulation.below(4) == 0 {
                    0
                } else {
                    wrong - half
                });
            }
            _ => {
                // It goes on by itself for a while; what it says to others is lost, and what others say to it.
                faults.cut_off += 1;
                let victim = world.simulation.below(2) as usize;
                let host = Rc::clone(&hosts.borrow()[victim]);
                world.cut_off(&host);
                world.env.sleep(some(30)).await;
                restart(world, hosts, victim..victim + 1, false).await;
            }
        }
    }
}

/// Power goes while the disk is full; the hosts are back when there is space.
async fn crash_perhaps(world: &World, hosts: &Hosts, faults: &mut Faults) {
    if world.simulation.below(3) == 0 {
        faults.power_cuts += 1;
        let old: Vec<Rc<Host>> = hosts.borrow().clone();
        old.iter().for_each(|host| world.crash(host));
        world.lose_unsynced();
        world.set_full(false, [false; 2]);
        start_again(world, hosts, 0..2, &old).await;
    }
}

async fn restart(world: &World, hosts: &Hosts, victims: std::ops::Range<usize>, power_cut: bool) {
    let old: Vec<Rc<Host>> = victims.clone().map(|victim| Rc::clone(&hosts.borrow()[victim])).collect();
    old.iter().for_each(|host| world.crash(host));
    if power_cut {
        world.lose_unsynced();
    }
    world.env.sleep(Duration::from_millis(200 + world.simulation.below(20_000))).await;
    start_again(world, hosts, victims, &old).await;
}

async fn start_again(world: &World, hosts: &Hosts, victims: std::ops::Range<usize>, old: &[Rc<Host>]) {
    for (victim, old) in victims.zip(old) {
        let started = world.start(old.id.as_str()).await;
        hosts.borrow_mut()[victim] = Rc::new(started);
    }
}
