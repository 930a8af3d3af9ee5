//! How many devices there are (protocol notes: REST §2.7).

use std::time::Duration;

use nave_env::Moment;
use nave_model::{DeviceRecord, DeviceStatus};

use crate::error::HubError;
use crate::hub::{Hub, decode};

/// Devices read per step of a count: other work of the thread comes between the steps.
const COUNTING_PAGE: usize = 500;

/// A count that takes no longer than this is made whenever somebody asks, so the figures of a small hub are exact.
const QUICK: Duration = Duration::from_millis(50);

/// One that takes longer is repeated after this many times of what it took beyond: counting takes this share of one thread
/// at most. The figures of a large hub lag by seconds; the cloud's lag by minutes.
const PAUSE_FACTOR: u32 = 20;

/// The figures of `GET /statistics/devices`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceStatistics {
    /// Devices that may connect.
    pub enabled: u64,
    /// Devices that may not.
    pub disabled: u64,
}

/// The last count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    figures: DeviceStatistics,
    until: Moment,
}

impl Hub {
    /// Counts the devices, modules not included.
    ///
    /// # Errors
    ///
    /// [`HubError`] when the store fails.
    pub async fn device_statistics(&self) -> Result<DeviceStatistics, HubError> {
        // Whoever asks during a count waits for its result.
        let mut counted = self.counted.lock().await;
        let start = self.env.monotonic();
        if let Some(last) = counted.as_ref().filter(|last| start < last.until) {
            return Ok(last.figures);
        }
        let figures = self.count_devices().await?;
        let took = self.env.monotonic().since(start);
        let pause = took.saturating_sub(QUICK).saturating_mul(PAUSE_FACTOR);
        *counted = Some(Counted { figures, until: self.env.monotonic().after(pause) });
        Ok(figures)
    }

    async fn count_devices(&self) -> Result<DeviceStatistics, HubError> {
        let mut figures = DeviceStatistics::default();
        let prefix = self.keys.devices();
        let mut after: Option<String> = None;
        loop {
            let page = self.store.scan(&prefix, after.as_deref(), COUNTING_PAGE).await?;
            for (_, entry) in &page {
                match decode::<DeviceRecord>(entry)?.0.status {
                    DeviceStatus::Enabled => figures.enabled += 1,
                    DeviceStatus::Disabled => figures.disabled += 1,
                }
            }
            match page.last() {
                Some((key, _)) if page.len() == COUNTING_PAGE => after = Some(key.clone()),
                _ => return Ok(figures),
            }
            self.env.sleep(Duration::ZERO).await;
        }
    }

    /// Number of devices that are connected to this host, modules not included.
    pub fn connected_devices(&self) -> usize {
        self.sessions.count_devices()
    }
}
