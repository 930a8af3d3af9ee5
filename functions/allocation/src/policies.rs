//! Which hub each built-in policy chooses.

use std::fmt;

use crate::{Hub, Request, rendezvous};

/// The name of the hub fact that `geoLatency` reads: a number of milliseconds, 0 or more.
const LATENCY_FACT: &str = "latency-ms";

/// A built-in policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Evenly weighted: see [`rendezvous::pick`](crate::pick).
    Hashed,
    /// The hub with the lowest known latency; among equals, and when no latency is known, as `Hashed`.
    GeoLatency,
    /// The only hub.
    Static,
}

impl Policy {
    /// The policy of this name. The management API writes `Hashed` and `GeoLatency`, the service API `hashed` and
    /// `geoLatency`: ASCII case is ignored.
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Hashed, Self::GeoLatency, Self::Static]
            .into_iter()
            .find(|policy| policy.name().eq_ignore_ascii_case(name))
    }

    /// The name, as the service API writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hashed => "hashed",
            Self::GeoLatency => "geoLatency",
            Self::Static => "static",
        }
    }
}

/// Why a built-in policy chooses no hub. The fault is the configuration's, never the device's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no built-in policy of this name.
    UnknownPolicy(String),
    /// There is nothing to choose from, or every hub has weight 0.
    NoHub,
    /// `static` was asked to choose among this number of hubs.
    NotExactlyOne(usize),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPolicy(name) => write!(f, "there is no built-in allocation policy named {name:?}"),
            Self::NoHub => f.write_str("no hub takes devices"),
            Self::NotExactlyOne(count) => write!(f, "static allocation needs exactly one hub, there are {count}"),
        }
    }
}

impl std::error::Error for Refusal {}

/// The hub that the policy named by `request.policy` chooses.
///
/// # Errors
/// See [`Refusal`].
pub fn choose(request: &Request) -> Result<&Hub, Refusal> {
    let policy = Policy::by_name(&request.policy).ok_or_else(|| Refusal::UnknownPolicy(request.policy.clone()))?;
    match policy {
        Policy::Hashed => rendezvous::pick(&request.registration_id, &request.hubs).ok_or(Refusal::NoHub),
        Policy::GeoLatency => rendezvous::pick(&request.registration_id, nearest(&request.hubs)).ok_or(Refusal::NoHub),
        // An operator who names one hub means it, whatever its weight.
        Policy::Static => match request.hubs.as_slice() {
            [hub] => Ok(hub),
            hubs => Err(Refusal::NotExactlyOne(hubs.len())),
        },
    }
}

/// The hubs that share the lowest known latency. A hub of unknown latency is farther than any other; if none is known, all
/// are equally far. A hub of weight 0 takes no devices and does not count.
fn nearest(hubs: &[Hub]) -> impl Iterator<Item = &Hub> {
    let open = || hubs.iter().filter(|hub| hub.weight > 0);
    let lowest = open().filter_map(latency_ms).min_by(f64::total_cmp);
    open().filter(move |hub| latency_ms(hub) == lowest)
}

/// The latency of a hub; a value that is not a finite number of at least 0 is as good as none.
fn latency_ms(hub: &Hub) -> Option<f64> {
    let fact = hub.facts.iter().find(|fact| fact.name == LATENCY_FACT)?;
    let value: f64 = fact.json.trim().parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Assignment, Fact, Outcome, allocate};

    fn hub(name: &str, weight: u32, latency: Option<&str>) -> Hub {
        let facts = latency.map(|json| Fact { name: LATENCY_FACT.into(), json: json.into() });
        Hub { name: name.into(), weight, facts: facts.into_iter().collect() }
    }

    fn request(policy: &str, id: &str, hubs: Vec<Hub>) -> Request {
        Request {
            registration_id: id.into(),
            policy: policy.into(),
            enrollment_json: "{}".into(),
            payload_json: None,
            config_json: None,
            current: None,
            hubs,
            unix_nanos: 0,
            seed: 0,
            facts: Vec::new(),
        }
    }

    fn chosen(policy: &str, id: &str, hubs: Vec<Hub>) -> Result<String, Refusal> {
        choose(&request(policy, id, hubs)).map(|hub| hub.name.clone())
    }

    #[test]
    fn names_are_known_in_any_case() {
        for (name, policy) in
            [("hashed", Policy::Hashed), ("GeoLatency", Policy::GeoLatency), ("STATIC", Policy::Static)]
        {
            assert_eq!(Policy::by_name(name), Some(policy));
        }
        for name in ["", "custom", "hash", "geo-latency"] {
            assert_eq!(Policy::by_name(name), None);
        }
    }

    #[test]
    fn an_unknown_policy_is_refused_by_name() {
        let outcome = allocate(&request("roundRobin", "d", vec![hub("a", 1, None)]));
        assert_eq!(outcome, Outcome::Refuse("there is no built-in allocation policy named \"roundRobin\"".into()));
    }

    #[test]
    fn an_assignment_sets_only_the_hub() {
        let outcome = allocate(&request("static", "d", vec![hub("a.example", 1, None)]));
        let expected =
            Assignment { hub: "a.example".into(), device_id: None, initial_twin_json: None, payload_json: None };
        assert_eq!(outcome, Outcome::Assign(expected));
    }

    #[test]
    fn static_needs_exactly_one_hub_and_ignores_its_weight() {
        assert_eq!(chosen("static", "d", vec![]), Err(Refusal::NotExactlyOne(0)));
        assert_eq!(chosen("static", "d", vec![hub("a", 0, None)]), Ok("a".into()));
        assert_eq!(chosen("static", "d", vec![hub("a", 1, None), hub("b", 1, None)]), Err(Refusal::NotExactlyOne(2)));
    }

    #[test]
    fn hashed_refuses_when_nothing_can_be_chosen() {
        for policy in ["hashed", "geoLatency"] {
            assert_eq!(chosen(policy, "d", vec![]), Err(Refusal::NoHub));
            assert_eq!(chosen(policy, "d", vec![hub("a", 0, None)]), Err(Refusal::NoHub));
        }
    }

    #[test]
    fn the_lowest_latency_wins_whatever_the_weights() {
        let hubs = || vec![hub("far", 1000, Some("80")), hub("near", 1, Some("7.5")), hub("unknown", 1000, None)];
        for n in 0..50 {
            assert_eq!(chosen("geoLatency", &format!("d{n}"), hubs()), Ok("near".into()));
        }
    }

    #[test]
    fn a_hub_that_is_being_emptied_is_not_near() {
        let hubs = vec![hub("near", 0, Some("1")), hub("far", 1, Some("90"))];
        assert_eq!(chosen("geoLatency", "d", hubs), Ok("far".into()));
    }

    #[test]
    fn equal_and_unknown_latencies_fall_back_to_the_hash() {
        let equal = || vec![hub("a", 1, Some("5")), hub("b", 3, Some("5.0")), hub("c", 9, Some("6"))];
        let unknown = || vec![hub("a", 1, None), hub("b", 3, Some("\"five\"")), hub("c", 9, Some("-1"))];
        let plain = |names: &[(&str, u32)]| names.iter().map(|(name, weight)| hub(name, *weight, None)).collect();
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..200 {
            let id = format!("d{n}");
            let near = chosen("geoLatency", &id, equal());
            assert_eq!(near, chosen("hashed", &id, plain(&[("a", 1), ("b", 3)])));
            let any = chosen("geoLatency", &id, unknown());
            assert_eq!(any, chosen("hashed", &id, plain(&[("a", 1), ("b", 3), ("c", 9)])));
            seen.extend([near.unwrap(), any.unwrap()]);
        }
        assert_eq!(seen.len(), 3);
    }

    #[test]
    fn odd_latencies_are_unknown() {
        for json in ["NaN", "inf", "null", "", "{}", "-0.5", "1e999"] {
            assert_eq!(latency_ms(&hub("a", 1, Some(json))), None, "{json}");
        }
        assert_eq!(latency_ms(&hub("a", 1, Some(" 12.5 "))), Some(12.5));
    }
}
