//! One in-order lane per aggregate: changes of one device follow each other, changes of different devices do not wait.
//!
//! The lane makes notifications leave in commit order and spares this host conflicts with itself. Correctness does not
//! rest on it: other hosts are kept apart by compare-and-swap.

use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

type Lane = Arc<tokio::sync::Mutex<()>>;

/// The lanes that are in use now.
pub(crate) struct Lanes<K> {
    lanes: Mutex<HashMap<K, Lane>>,
}

impl<K: Eq + Hash + Clone> Lanes<K> {
    pub(crate) fn new() -> Self {
        Self { lanes: Mutex::new(HashMap::new()) }
    }

    /// Waits for the lane of `key` and holds it until the guard is dropped.
    pub(crate) async fn enter(&self, key: &K) -> LaneGuard<'_, K> {
        let lane = Arc::clone(self.lanes.lock().entry(key.clone()).or_default());
        // Made before the wait: whoever gives up waiting cleans up as well.
        let mut guard = LaneGuard { lanes: self, key: key.clone(), held: None };
        guard.held = Some(lane.lock_owned().await);
        guard
    }
}

/// Holds a lane.
pub(crate) struct LaneGuard<'a, K: Eq + Hash> {
    lanes: &'a Lanes<K>,
    key: K,
    held: Option<OwnedMutexGuard<()>>,
}

impl<K: Eq + Hash> Drop for LaneGuard<'_, K> {
    fn drop(&mut self) {
        let mut lanes = self.lanes.lanes.lock();
        self.held = None;
        // Nobody else waits if the map holds the only reference; it cannot gain one while the map is locked.
        if lanes.get(&self.key).is_some_and(|lane| Arc::strong_count(lane) == 1) {
            lanes.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nave_env::Env;
    use nave_env::sim::Simulation;
    use nave_model::Timestamp;

    use super::*;

    #[test]
    fn one_at_a_time_per_key_and_nothing_left_behind() {
        let simulation = Simulation::new(3, Timestamp::from_unix_seconds(0));
        let env = simulation.host();
        let lanes = Arc::new(Lanes::<u32>::new());
        let inside = Arc::new(Mutex::new(HashMap::<u32, u32>::new()));
        for task in 0..20u32 {
            let (env2, lanes, inside) = (Arc::clone(&env), Arc::clone(&lanes), Arc::clone(&inside));
            env.spawn(Box::pin(async move {
                let key = task % 3;
                let _lane = lanes.enter(&key).await;
                assert_eq!(*inside.lock().entry(key).and_modify(|n| *n += 1).or_insert(1), 1);
                env2.sleep(Duration::from_millis(5)).await;
                *inside.lock().get_mut(&key).unwrap() -= 1;
            }));
        }
        simulation.run(env.sleep(Duration::from_secs(10))).unwrap();
        assert!(lanes.lanes.lock().is_empty());
    }

    #[test]
    fn who_gives_up_waiting_leaves_nothing_behind() {
        let simulation = Simulation::new(3, Timestamp::from_unix_seconds(0));
        let lanes = Lanes::<u32>::new();
        simulation
            .run(async {
                let held = lanes.enter(&1).await;
                let mut waiting = Box::pin(lanes.enter(&1));
                assert!(futures_util::FutureExt::now_or_never(&mut waiting).is_none());
                drop(held);
                // The lane is its own now, but it never learns that.
                drop(waiting);
            })
            .unwrap();
        assert!(lanes.lanes.lock().is_empty());
    }
}
