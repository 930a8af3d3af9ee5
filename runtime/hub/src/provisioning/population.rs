//! How many devices each hub has, for allocation policies: counted in the background, so that no registration waits for it.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use nave_env::{Moment, SharedEnv};
use parking_lot::Mutex;

use crate::hub::Hub;

/// Age from which a count is made again when somebody asks for it. Hubs bound what counting costs (`statistics.rs`).
const MAX_AGE: Duration = Duration::from_secs(5);

/// The counts of all hubs, by their host names.
#[derive(Default)]
pub(super) struct Population {
    counts: Mutex<HashMap<String, Count>>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    devices: Option<u64>,
    made: Option<Moment>,
    is_under_way: bool,
}

impl Population {
    /// Devices in `hub`, as of some seconds ago; nothing before the first count.
    pub(super) fn of(self: &Arc<Self>, env: &SharedEnv, hub: &Arc<Hub>) -> Option<u64> {
        let now = env.monotonic();
        let mut counts = self.counts.lock();
        let count = counts.entry_ref(hub.host_name().as_str()).or_default();
        let is_fresh = count.made.is_some_and(|made| now.since(made) < MAX_AGE);
        if !is_fresh && !count.is_under_way {
            count.is_under_way = true;
            let (population, env_then, hub) = (Arc::clone(self), Arc::clone(env), Arc::clone(hub));
            env.spawn(Box::pin(async move {
                let counted = hub.device_statistics().await;
                let mut counts = population.counts.lock();
                let count = counts.entry_ref(hub.host_name().as_str()).or_default();
                count.is_under_way = false;
                count.made = Some(env_then.monotonic());
                match counted {
                    Ok(figures) => count.devices = Some(figures.enabled + figures.disabled),
                    Err(error) => tracing::warn!(hub = %hub.id(), %error, "devices cannot be counted"),
                }
            }));
        }
        count.devices
    }
}
