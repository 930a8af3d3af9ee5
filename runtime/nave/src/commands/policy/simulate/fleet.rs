//! The hubs and the devices of a simulation.

use std::fs;
use std::path::Path;

use nave_engine::allocation::{Assignment, Hub, Request};
use serde::Deserialize;

use crate::commands::policy::document::{HubDocument, RequestDocument};
use crate::failure::Failure;

/// Largest file.
const MAX_FILE: u64 = 4 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    hub: Vec<HubDocument>,
    #[serde(default)]
    devices: Vec<KindDocument>,
}

/// A kind of devices.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KindDocument {
    #[serde(default = "one")]
    share: u32,
    #[serde(default)]
    request: RequestDocument,
}

const fn one() -> u32 {
    1
}

/// Hubs and devices.
pub(super) struct Fleet {
    hubs: Vec<Hub>,
    /// What a device of the first kind asks.
    first: Request,
    /// What a device of each kind asks, and where its shares end.
    kinds: Vec<(u64, Request)>,
    prefix: String,
    devices: u32,
    seed: u64,
}

impl Fleet {
    /// Reads the file.
    pub(super) fn read(path: &Path, prefix: &str, devices: u32, seed: u64) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::usage(format_args!("{}: {error}", path.display()));
        let size = fs::metadata(path).map_err(|error| failed(&error))?.len();
        if size > MAX_FILE {
            return Err(failed(&format_args!("it has {size} bytes, more than the {MAX_FILE} that are read")));
        }
        let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
        Self::parse(&text, prefix, devices, seed).map_err(|error| failed(&error))
    }

    fn parse(text: &str, prefix: &str, devices: u32, seed: u64) -> Result<Self, String> {
        let mut document: Document = toml::from_str(text).map_err(|error| error.to_string())?;
        let hubs: Vec<Hub> = document.hub.into_iter().map(HubDocument::hub).collect();
        if hubs.is_empty() {
            return Err("there is no [[hub]]".to_owned());
        }
        for (index, hub) in hubs.iter().enumerate() {
            if hubs.iter().skip(index + 1).any(|other| other.name.eq_ignore_ascii_case(&hub.name)) {
                return Err(format!("the hub {} is there twice", hub.name));
            }
        }
        if document.devices.is_empty() {
            document.devices.push(KindDocument { share: 1, request: RequestDocument::default() });
        }
        let mut end = 0;
        let mut kinds = Vec::with_capacity(document.devices.len());
        for kind in document.devices {
            end += u64::from(kind.share);
            kinds.push((end, kind.request.request()?));
        }
        if end == 0 {
            return Err("all shares are 0".to_owned());
        }
        let first = kinds.first().map(|(_, request)| request.clone()).ok_or("there are no devices")?;
        Ok(Self { hubs, first, kinds, prefix: prefix.to_owned(), devices, seed })
    }

    /// The hubs that are there from the beginning.
    pub(super) fn hubs(&self) -> &[Hub] {
        &self.hubs
    }

    /// The number of devices.
    pub(super) const fn devices(&self) -> u32 {
        self.devices
    }

    /// The name of the last hub, if it is not the only one.
    pub(super) fn last(&self) -> Option<String> {
        match self.hubs.as_slice() {
            [_, .., last] => Some(last.name.clone()),
            _ => None,
        }
    }

    /// The hubs without one.
    pub(super) fn without(&self, name: &str) -> Result<Vec<Hub>, Failure> {
        let left: Vec<Hub> = self.hubs.iter().filter(|hub| !hub.name.eq_ignore_ascii_case(name)).cloned().collect();
        if left.len() == self.hubs.len() {
            return Err(Failure::usage(format_args!("--remove {name}: there is no such hub")));
        }
        if left.is_empty() {
            return Err(Failure::usage(format_args!("--remove {name}: it is the only hub")));
        }
        Ok(left)
    }

    /// The hubs and one more, which is like the first.
    pub(super) fn with(&self, name: &str) -> Result<Vec<Hub>, Failure> {
        if self.hubs.iter().any(|hub| hub.name.eq_ignore_ascii_case(name)) {
            return Err(Failure::usage(format_args!("--add {name}: there is such a hub already")));
        }
        let new = self.hubs.first().map(|first| Hub { name: name.to_owned(), ..first.clone() });
        Ok(self.hubs.iter().cloned().chain(new).collect())
    }

    /// What a device asks, among these hubs, when it is at `current`.
    pub(super) fn request(&self, device: u32, hubs: &[Hub], current: Option<&str>) -> Request {
        let all = self.kinds.last().map_or(1, |(end, _)| *end);
        // Kinds take turns in the ratio of their shares.
        let turn = u64::from(device) % all;
        let kind = self.kinds.iter().find(|(end, _)| turn < *end).map_or(&self.first, |(_, request)| request);
        let registration_id = format!("{}-{}", self.prefix, u64::from(device) + 1);
        let seed = splitmix(self.seed.wrapping_add(u64::from(device)));
        let current = current.map(|hub| Assignment {
            hub: hub.to_owned(),
            device_id: Some(registration_id.clone()),
            initial_twin_json: None,
            payload_json: None,
        });
        Request { registration_id, hubs: hubs.to_vec(), current, seed, ..kind.clone() }
    }
}

fn splitmix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUBS: &str = "[[hub]]\nname = \"a\"\nweight = 2\nfacts = { location = \"x\" }\n[[hub]]\nname = \"b\"\n";

    fn fleet(text: &str) -> Result<Fleet, String> {
        Fleet::parse(text, "d", 100, 0)
    }

    #[test]
    fn kinds_of_devices_take_turns_by_their_shares() {
        let text = format!(
            "{HUBS}[[devices]]\nshare = 3\nrequest = {{ payload = {{ region = \"eu\" }} }}\n[[devices]]\nshare = 1\n"
        );
        let fleet = fleet(&text).unwrap();
        let regional = |device| fleet.request(device, fleet.hubs(), None).payload_json.is_some();
        assert_eq!((0..100).filter(|device| regional(*device)).count(), 75);
        let request = fleet.request(7, fleet.hubs(), Some("b"));
        assert_eq!((request.registration_id.as_str(), request.hubs.len()), ("d-8", 2));
        assert_eq!(request.current.unwrap().hub, "b");
        assert_ne!(request.seed, fleet.request(8, fleet.hubs(), None).seed);
    }

    #[test]
    fn hubs_come_and_go() {
        let fleet = fleet(HUBS).unwrap();
        assert_eq!(fleet.last().as_deref(), Some("b"));
        assert_eq!(fleet.without("A").unwrap().len(), 1);
        let more = fleet.with("c").unwrap();
        assert_eq!((more[2].name.as_str(), more[2].weight, more[2].facts.len()), ("c", 2, 1));
        assert!(fleet.without("z").is_err() && fleet.with("B").is_err());
        let one = Fleet::parse("[[hub]]\nname = \"a\"\n", "d", 1, 0).unwrap();
        assert!(one.last().is_none() && one.without("a").is_err());
    }

    #[test]
    fn mistakes_are_refused() {
        for (text, expected) in [
            ("hub = []", "no [[hub]]"),
            ("[[hub]]\nname = \"a\"\n[[hub]]\nname = \"A\"\n", "twice"),
            ("[[hub]]\nname = \"a\"\nwheight = 2\n", "wheight"),
            ("[[hub]]\nname = \"a\"\n[[devices]]\nshare = 0\n", "shares"),
        ] {
            let error = fleet(text).err().unwrap();
            assert!(error.contains(expected), "{error}");
        }
    }
}
