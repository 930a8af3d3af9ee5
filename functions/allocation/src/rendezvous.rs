//! Weighted rendezvous hashing: each device ranks the hubs by itself, and the best-ranked one gets it.
//!
//! A hub's chance is its share of the total weight. When a hub is added, the only devices that change their choice are those
//! that now choose the new hub; when one is removed, only its own. Source of the method: Thaler and Ravishankar, "Using
//! name-based mappings to increase hit rates" (1998), with the logarithmic weights of Schindelhauer and Schomaker, "Weighted
//! distributed hash tables" (2005): a hub of weight `w` scores `-ln(u) / w` with `u` uniform in (0, 1), and the lowest wins,
//! because the minimum of exponential variables falls on each in proportion to its rate.
//!
//! # The algorithm, for those who want the same answer elsewhere
//!
//! Everything is 64-bit unsigned integer arithmetic that wraps, so every platform agrees; a floating-point logarithm would
//! not do, because its last bit differs between mathematical libraries.
//!
//! 1. `fnv(s)`: FNV-1a, 64 bits (offset `cbf29ce484222325`, prime `100000001b3`), over the UTF-8 bytes of `s` with ASCII
//!    letters in lower case.
//! 2. `mix(x)`: `x ^= x >> 30; x *= bf58476d1ce4e5b9; x ^= x >> 27; x *= 94d049bb133111eb; x ^= x >> 31` (the finalizer of
//!    SplitMix64).
//! 3. `h = mix(mix(fnv(registration id)) + mix(fnv(hub name)))`, and 1 in place of 0.
//! 4. `L = -log2(h / 2^64)` as a fixed-point number with 56 fractional bits, digit by digit: with `z` leading zeros of `h`,
//!    let `m = h << z` and `f = 0`; 56 times let `p = m * m` (128 bits); if `p >= 2^127`, then `f = 2 f + 1` and `m = p >> 64`,
//!    else `f = 2 f` and `m = p >> 63`. Then `L = (z + 1) * 2^56 - f`.
//! 5. The hub with the smallest `L / weight` wins, compared exactly as `L1 * weight2 < L2 * weight1`; among equals the one
//!    whose lower-case name comes first. Hubs of weight 0 take no part.
//!
//! Changing any of this moves devices: the vectors in the tests are part of the contract.

use std::cmp::Ordering;

use crate::Hub;

/// Fractional bits of a logarithm. With 64 bits of hash, more would not be seen; `(64 + 1) << 56` fits into 63 bits.
const FRACTION_BITS: u32 = 56;

/// The hub that this registration id chooses, or nothing when no hub has a weight above 0.
pub fn pick<'a>(registration_id: &str, hubs: impl IntoIterator<Item = &'a Hub>) -> Option<&'a Hub> {
    let device = mix(fnv(registration_id));
    hubs.into_iter()
        .filter(|hub| hub.weight > 0)
        .map(|hub| (neg_log2(mix(device.wrapping_add(mix(fnv(&hub.name))))), hub))
        .min_by(|a, b| compare(*a, *b))
        .map(|(_, hub)| hub)
}

fn compare((log_a, a): (u64, &Hub), (log_b, b): (u64, &Hub)) -> Ordering {
    let scaled = |log: u64, weight: u32| u128::from(log) * u128::from(weight);
    let lower = |hub: &Hub| hub.name.to_ascii_lowercase();
    scaled(log_a, b.weight).cmp(&scaled(log_b, a.weight)).then_with(|| lower(a).cmp(&lower(b)))
}

fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
    })
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// `-log2(hash / 2^64)` with [`FRACTION_BITS`] fractional bits, rounded up; 0 counts as 1.
fn neg_log2(hash: u64) -> u64 {
    let hash = hash.max(1);
    let zeros = hash.leading_zeros();
    // The mantissa stays in [2^63, 2^64), which stands for [1, 2).
    let mut mantissa = u128::from(hash << zeros);
    let mut fraction = 0_u64;
    for _ in 0..FRACTION_BITS {
        let square = mantissa * mantissa;
        let digit = square >> 127;
        fraction = (fraction << 1) | u64::from(digit == 1);
        mantissa = square >> (63 + digit);
    }
    (u64::from(zeros + 1) << FRACTION_BITS) - fraction
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// Registrations per statistical check: with a fixed id scheme the counts are reproducible, so no test can flicker.
    const DEVICES: u32 = 20_000;

    fn hub(name: &str, weight: u32) -> Hub {
        Hub { name: name.into(), weight, facts: Vec::new() }
    }

    fn name(hub: Option<&Hub>) -> &str {
        &hub.unwrap().name
    }

    fn counts(scheme: impl Fn(u32) -> String, hubs: &[Hub]) -> BTreeMap<&str, u32> {
        let mut counts = BTreeMap::new();
        for n in 0..DEVICES {
            *counts.entry(name(pick(&scheme(n), hubs))).or_default() += 1;
        }
        counts
    }

    /// Whether `count` successes of [`DEVICES`] trials are within five standard deviations of the expectation.
    fn plausible(count: u32, share: f64) -> bool {
        let n = f64::from(DEVICES);
        (f64::from(count) - n * share).abs() <= 5.0 * (n * share * (1.0 - share)).sqrt()
    }

    #[test]
    fn the_vectors_of_the_contract_hold() {
        assert_eq!(fnv(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv("FooBar"), 0x8594_4171_f739_67e8);
        assert_eq!(mix(1), 0x5692_161d_100b_05e5);
        assert_eq!(neg_log2(1 << 63), 1 << 56);
        assert_eq!(neg_log2(1), 64 << 56);
        assert_eq!(neg_log2(0), 64 << 56);
        assert_eq!(neg_log2(u64::MAX), 1);
        let hubs = [hub("hub1.example", 1), hub("hub2.example", 2), hub("hub3.example", 3)];
        let picked: Vec<_> = (0..8).map(|n| name(pick(&format!("dev-{n}"), &hubs))).collect();
        assert_eq!(picked.concat().replace("hub", "").replace(".example", ""), "32322233");
    }

    #[test]
    fn the_logarithm_is_a_logarithm() {
        for hash in [1, 2, 3, 0x1234_5678, u64::MAX / 3, u64::MAX / 2, u64::MAX - 1, 0xdead_beef_cafe_f00d] {
            let expected = 64.0 - (hash as f64).log2();
            let actual = neg_log2(hash) as f64 / f64::from(FRACTION_BITS).exp2();
            assert!((expected - actual).abs() < 1e-12, "{hash}: {expected} {actual}");
        }
    }

    #[test]
    fn equal_names_tie_by_nothing_but_order_of_names() {
        let (a, b) = (hub("a", 1), hub("b", 1));
        assert_eq!(compare((5, &a), (5, &b)), Ordering::Less);
        assert_eq!(compare((5, &b), (5, &a)), Ordering::Greater);
        assert_eq!(compare((5, &hub("z", 2)), (3, &a)), Ordering::Less);
    }

    #[test]
    fn shares_follow_the_weights() {
        let schemes: [fn(u32) -> String; 4] = [
            |n| format!("dev-{n}"),
            |n| n.to_string(),
            |n| format!("{:032x}", u128::from(n) << 64),
            |n| format!("sn-{n:06}-factory-line-7"),
        ];
        for weights in [
            &[1, 1][..],
            &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
            &[1, 2, 3],
            &[1, 1000],
            &[7, 7, 1, 500],
            &[u32::MAX, u32::MAX],
        ] {
            let hubs: Vec<_> =
                weights.iter().enumerate().map(|(n, weight)| hub(&format!("hub{n}.example"), *weight)).collect();
            let total: f64 = weights.iter().copied().map(f64::from).sum();
            for scheme in schemes {
                let counts = counts(scheme, &hubs);
                for hub in &hubs {
                    let count = counts.get(hub.name.as_str()).copied().unwrap_or(0);
                    assert!(plausible(count, f64::from(hub.weight) / total), "{weights:?}: {} got {count}", hub.name);
                }
            }
        }
    }

    #[test]
    fn pairs_of_hubs_are_ranked_independently() {
        // Among the devices that rank a above b, c must still win its share: correlated scores would show here.
        let (a, b, c) = (hub("hub1.example", 1), hub("hub2.example", 1), hub("hub3.example", 1));
        let orders: BTreeSet<_> = BTreeSet::from([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]);
        let mut counts = BTreeMap::<[usize; 3], u32>::new();
        let hubs = [&a, &b, &c];
        for n in 0..DEVICES {
            let id = format!("dev-{n}");
            let first = pick(&id, hubs).unwrap();
            let rest: Vec<&Hub> = hubs.into_iter().filter(|hub| *hub != first).collect();
            let second = pick(&id, rest.iter().copied()).unwrap();
            let index = |hub: &Hub| hubs.iter().position(|other| *other == hub).unwrap();
            let (i, j) = (index(first), index(second));
            *counts.entry([i, j, 3 - i - j]).or_default() += 1;
        }
        for order in orders {
            assert!(plausible(counts[&order], 1.0 / 6.0), "{order:?}: {}", counts[&order]);
        }
    }

    #[test]
    fn a_new_hub_takes_its_share_and_nothing_else_moves() {
        let mut hubs: Vec<_> = (1..=5).map(|n| hub(&format!("hub{n}.example"), n)).collect();
        let before: Vec<_> = (0..DEVICES).map(|n| name(pick(&format!("dev-{n}"), &hubs)).to_owned()).collect();
        hubs.insert(2, hub("new.example", 5));
        let mut moved = 0;
        for (n, old) in before.iter().enumerate() {
            let now = name(pick(&format!("dev-{n}"), &hubs));
            if now != old {
                assert_eq!(now, "new.example");
                moved += 1;
            }
        }
        assert!(plausible(moved, 5.0 / 20.0), "{moved} moved");
    }

    #[test]
    fn more_weight_only_attracts() {
        let before = [hub("a", 1), hub("b", 2), hub("c", 3)];
        let after = [hub("a", 1), hub("b", 4), hub("c", 3)];
        let mut moved = 0;
        for n in 0..DEVICES {
            let id = n.to_string();
            let (old, new) = (name(pick(&id, &before)), name(pick(&id, &after)));
            if old != new {
                assert_eq!(new, "b");
                moved += 1;
            }
        }
        // b's share grows from 2/6 to 4/8.
        assert!(plausible(moved, 4.0 / 8.0 - 2.0 / 6.0), "{moved} moved");
    }

    fn hubs() -> impl Strategy<Value = Vec<Hub>> {
        prop::collection::btree_map("[a-z0-9]{1,12}\\.example", 0_u32..=1000, 1..12)
            .prop_map(|hubs| hubs.into_iter().map(|(name, weight)| hub(&name, weight)).collect())
    }

    proptest! {
        #[test]
        fn the_choice_depends_on_nothing_but_id_names_and_weights(id in "\\PC{0,40}", hubs in hubs(), turn in 0_usize..12) {
            let chosen = pick(&id, &hubs).map(|hub| hub.name.clone());
            let mut turned = hubs.clone();
            turned.rotate_left(turn % hubs.len());
            prop_assert_eq!(&chosen, &pick(&id, &turned).map(|hub| hub.name.clone()));
            for hub in &mut turned {
                hub.name.make_ascii_uppercase();
            }
            let upper = pick(&id.to_ascii_uppercase(), &turned).map(|hub| hub.name.to_ascii_lowercase());
            prop_assert_eq!(&chosen, &upper);
            prop_assert_eq!(chosen.is_none(), hubs.iter().all(|hub| hub.weight == 0));
        }

        #[test]
        fn removing_a_hub_moves_only_its_own_devices(id in "[a-z0-9.:_-]{1,40}", hubs in hubs(), gone in 0_usize..12) {
            let mut fewer = hubs.clone();
            let gone = fewer.remove(gone % hubs.len());
            let before = pick(&id, &hubs);
            let after = pick(&id, &fewer);
            if before != Some(&gone) {
                prop_assert_eq!(before, after);
            } else {
                prop_assert_ne!(after, Some(&gone));
            }
        }

        #[test]
        fn the_logarithm_falls_as_the_hash_grows(a: u64, b: u64) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(neg_log2(low) >= neg_log2(high));
            prop_assert!(neg_log2(high) > 0);
        }
    }
}
