//! What a hub has promised, to be compared with what it shows.

use serde_json::Value;

/// Properties of a section that take turns, so that an early change that was lost is not covered by a later one.
const TURNS: u64 = 8;

/// Changes of one section: numbered, each with an unknown or a good end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changes {
    /// The number of the last one that was sent.
    pub(super) sent: u64,
    /// How many were acknowledged.
    pub(super) acknowledged: u64,
    /// The last that was acknowledged, for each turn.
    pub(super) latest: [u64; TURNS as usize],
    /// The largest `$version` that anybody was told.
    pub(super) version: u64,
}

impl Changes {
    /// The body of the next change.
    pub(super) fn next(&mut self) -> String {
        self.sent += 1;
        format!("{{\"n\":{0},\"turn{1}\":{0}}}", self.sent, self.sent % TURNS)
    }

    /// A change was acknowledged with this version.
    pub(super) fn acknowledged(&mut self, number: u64, version: u64, who: &str) {
        assert!(version > self.version, "{who}: version {version} of change {number} after version {}", self.version);
        self.version = version;
        self.acknowledged += 1;
        self.latest[(number % TURNS) as usize] = number;
    }

    /// Somebody read the section.
    pub(super) fn seen(&mut self, section: &Value, who: &str) {
        let version = section["$version"].as_u64().unwrap();
        assert!(version >= self.version, "{who}: version {version} after version {}", self.version);
        self.version = version;
        // Versions begin at 1, and each change adds one: none is lost, none is counted twice.
        let applied = version - 1;
        let possible = self.acknowledged..=self.sent;
        assert!(possible.contains(&applied), "{who}: {applied} changes were applied, {self:?}");
        let newest = section["n"].as_u64().unwrap_or(0);
        assert!(newest <= self.sent, "{who}: change {newest} was never sent, {self:?}");
        for (turn, acknowledged) in self.latest.iter().enumerate() {
            let value = section[format!("turn{turn}")].as_u64().unwrap_or(0);
            assert!((*acknowledged..=newest).contains(&value), "{who}: turn {turn} has {value}, {self:?}");
        }
    }
}

/// What a device and its services have been promised.
#[derive(Default)]
pub(super) struct Promises {
    /// Messages are numbered from 1; acknowledgements come in order, so these two numbers say everything.
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    pub(super) reported: Changes,
    pub(super) desired: Changes,
    /// Connections that were begun, and that the hub accepted.
    pub(super) attempts: u64,
    pub(super) accepted: u64,
    pub(super) subscribed: bool,
    /// The largest version of the desired properties that the device was told.
    pub(super) told: u64,
}
