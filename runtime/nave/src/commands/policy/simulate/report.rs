//! What a simulation found, for people and for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use nave_engine::allocation::Hub;
use serde_json::{Map, Value, json};

use super::fleet::Fleet;
use super::round::{Place, Round};
use crate::commands::policy::check::time;
use crate::output::printable;

/// Width of the longest bar of the histogram.
const BAR: usize = 32;

/// Flows between hubs that the text shows for each round.
const MAX_FLOWS: usize = 6;

/// All of it.
pub(super) struct Report<'a> {
    fleet: &'a Fleet,
    first: &'a Round,
    rounds: Vec<(&'a Round, Moves)>,
}

/// Devices that are elsewhere after a round.
#[derive(Debug, Default, PartialEq, Eq)]
struct Moves {
    moved: u64,
    /// Of these, those whose hub is still there and takes devices, and that did not go to a new hub.
    needlessly: u64,
    /// Devices that had a hub and got none.
    lost: u64,
    /// Number by old and new hub.
    flows: BTreeMap<(u32, u32), u64>,
}

impl Moves {
    /// `old` is the number of hubs that were there before: the places below it.
    fn between(before: &[Place], after: &Round, old: u32) -> Self {
        let mut moves = Self::default();
        let open =
            |place: u32| usize::try_from(place).ok().and_then(|place| after.weights.get(place)).is_some_and(|w| *w > 0);
        for (from, to) in before.iter().zip(&after.places) {
            match (from, to) {
                (Some(from), Some(to)) if from != to => {
                    moves.moved += 1;
                    moves.needlessly += u64::from(open(*from) && *to < old);
                    *moves.flows.entry((*from, *to)).or_default() += 1;
                }
                (Some(_), None) => moves.lost += 1,
                _ => {}
            }
        }
        moves
    }
}

impl<'a> Report<'a> {
    pub(super) fn new(fleet: &'a Fleet, first: &'a Round, rounds: &'a [Round]) -> Self {
        let old = u32::try_from(fleet.hubs().len()).unwrap_or(u32::MAX);
        let with_moves = |round: &'a Round| (round, Moves::between(&first.places, round, old));
        Self { fleet, first, rounds: rounds.iter().map(with_moves).collect() }
    }

    /// Registrations that failed because of the policy, in all rounds.
    pub(super) fn failures(&self) -> u64 {
        let rounds = self.rounds.iter().map(|(round, _)| *round).chain([self.first]);
        rounds.flat_map(|round| round.failed.values()).sum()
    }

    pub(super) fn json(&self) -> Value {
        let counts = self.first.counts();
        let hubs: Vec<Value> = self
            .fleet
            .hubs()
            .iter()
            .zip(&counts)
            .map(|(hub, count)| {
                json!({ "name": hub.name, "weight": hub.weight, "devices": count, "expectedByWeight": self.share(hub) })
            })
            .collect();
        let rounds: Vec<Value> = self
            .rounds
            .iter()
            .map(|(round, moves)| {
                let flows: Vec<Value> = moves
                    .flows
                    .iter()
                    .map(|((from, to), count)| json!({ "from": name(round, *from), "to": name(round, *to), "devices": count }))
                    .collect();
                let mut members = outcomes(round);
                members.extend([
                    ("change".to_owned(), json!(round.title)),
                    ("moved".to_owned(), json!(moves.moved)),
                    ("movedNeedlessly".to_owned(), json!(moves.needlessly)),
                    ("withoutHubNow".to_owned(), json!(moves.lost)),
                    ("flows".to_owned(), json!(flows)),
                ]);
                Value::Object(members)
            })
            .collect();
        let times = Times::of(&self.first.nanos);
        let mut report = outcomes(self.first);
        report.extend([
            ("devices".to_owned(), json!(self.fleet.devices())),
            ("hubs".to_owned(), json!(hubs)),
            ("seconds".to_owned(), json!(self.first.elapsed.as_secs_f64())),
            ("decisionMicros".to_owned(), json!({
                "mean": micros(times.mean), "median": micros(times.median), "p99": micros(times.p99), "longest": micros(times.longest),
            })),
            ("again".to_owned(), json!(rounds)),
        ]);
        Value::Object(report)
    }

    pub(super) fn text(&self) -> String {
        let first = self.first;
        let mut lines =
            vec![format!("{} devices register: {}", self.fleet.devices(), time(first.elapsed)), String::new()];
        lines.extend(self.histogram());
        for (heading, reasons) in
            [("built-in policy", &first.built_in), ("refused", &first.refused), ("FAILED", &first.failed)]
        {
            lines.extend(reasons.iter().map(|(reason, count)| format!("{heading}: {count} ({})", printable(reason))));
        }
        if first.retried > 0 {
            lines.push(format!("told to come back: {}", first.retried));
        }
        let times = Times::of(&first.nanos);
        lines.push(String::new());
        lines.push(format!(
            "time per decision, instance and call: mean {}, median {}, 99 % within {}, longest {}",
            time(times.mean),
            time(times.median),
            time(times.p99),
            time(times.longest)
        ));
        lines.push(String::new());
        lines.push("All register again:".to_owned());
        let width = self.rounds.iter().map(|(round, _)| round.title.chars().count()).max().unwrap_or_default();
        for (round, moves) in &self.rounds {
            let mut line = format!("  {:width$}  {} move", round.title, self.part(moves.moved));
            line.push_str(&format!(", {} of them needlessly", moves.needlessly));
            if moves.lost > 0 {
                line.push_str(&format!("; {} have no hub any more", self.part(moves.lost)));
            }
            lines.push(line);
            let mut flows: Vec<_> = moves.flows.iter().collect();
            flows.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            for ((from, to), count) in flows.iter().take(MAX_FLOWS) {
                lines.push(format!("  {:width$}    {} -> {}: {count}", "", name(round, *from), name(round, *to)));
            }
            if flows.len() > MAX_FLOWS {
                lines.push(format!("  {:width$}    and {} more", "", flows.len() - MAX_FLOWS));
            }
            lines.extend(
                round.failed.iter().map(|(reason, count)| format!("    FAILED: {count} ({})", printable(reason))),
            );
        }
        lines.join("\n")
    }

    /// A bar for each hub.
    fn histogram(&self) -> Vec<String> {
        let counts = self.first.counts();
        let most = counts.iter().copied().max().unwrap_or_default().max(1);
        let width = self.fleet.hubs().iter().map(|hub| hub.name.chars().count()).max().unwrap_or_default();
        let digits = most.to_string().len();
        let row = |(hub, count): (&Hub, &u64)| {
            let length = usize::try_from(count.saturating_mul(BAR as u64) / most).unwrap_or(BAR);
            let bar = if length == 0 && *count > 0 { "▏".to_owned() } else { "█".repeat(length) };
            let percent = percent(*count, u64::from(self.fleet.devices()));
            let by_weight = self.share(hub) * 100.0;
            format!(
                "  {:width$}  {bar:BAR$}  {count:digits$}  {percent:5.1} %  (by weight {by_weight:.1} %)",
                printable(&hub.name)
            )
        };
        self.fleet.hubs().iter().zip(&counts).map(row).collect()
    }

    /// The share that a hub's weight says.
    fn share(&self, hub: &Hub) -> f64 {
        let all: u64 = self.fleet.hubs().iter().map(|hub| u64::from(hub.weight)).sum();
        percent(u64::from(hub.weight), all) / 100.0
    }

    fn part(&self, count: u64) -> String {
        format!("{count} ({:.1} %)", percent(count, u64::from(self.fleet.devices())))
    }
}

fn outcomes(round: &Round) -> Map<String, Value> {
    Map::from_iter([
        ("builtIn".to_owned(), json!(round.built_in)),
        ("refused".to_owned(), json!(round.refused)),
        ("retryAfter".to_owned(), json!(round.retried)),
        ("failed".to_owned(), json!(round.failed)),
    ])
}

fn name(round: &Round, place: u32) -> &str {
    usize::try_from(place).ok().and_then(|place| round.names.get(place)).map(String::as_str).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "a share for people")]
fn percent(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 * 100.0 / of as f64 }
}

/// Times of decisions.
#[derive(Debug, PartialEq, Eq)]
struct Times {
    mean: Duration,
    median: Duration,
    p99: Duration,
    longest: Duration,
}

impl Times {
    /// Of nanoseconds in ascending order.
    fn of(nanos: &[u32]) -> Self {
        let at = |part: usize| {
            let index = (nanos.len() * part / 100).min(nanos.len().saturating_sub(1));
            Duration::from_nanos(nanos.get(index).copied().map_or(0, u64::from))
        };
        let sum: u64 = nanos.iter().copied().map(u64::from).sum();
        let count = u64::try_from(nanos.len()).unwrap_or(u64::MAX).max(1);
        Self { mean: Duration::from_nanos(sum / count), median: at(50), p99: at(99), longest: at(100) }
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(names: &[&str], weights: &[u32], places: &[Place]) -> Round {
        Round {
            title: "test".into(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            weights: weights.to_vec(),
            places: places.to_vec(),
            built_in: BTreeMap::new(),
            refused: BTreeMap::new(),
            retried: 0,
            failed: BTreeMap::new(),
            nanos: vec![1_000, 2_000, 9_000],
            elapsed: Duration::ZERO,
        }
    }

    #[test]
    fn who_moves_from_an_open_hub_to_an_old_one_moves_needlessly() {
        let before = [Some(0), Some(0), Some(1), Some(1), None];
        let after = round(&["a", "b", "new"], &[1, 1, 1], &[Some(0), Some(1), Some(2), None, Some(0)]);
        let moves = Moves::between(&before, &after, 2);
        assert_eq!((moves.moved, moves.needlessly, moves.lost), (2, 1, 1));
        assert_eq!(moves.flows, BTreeMap::from([((0, 1), 1), ((1, 2), 1)]));
    }

    #[test]
    fn who_must_leave_does_not_move_needlessly() {
        let before = [Some(0), Some(1)];
        let after = round(&["a", "b"], &[1, 0], &[Some(0), Some(0)]);
        assert_eq!(
            Moves::between(&before, &after, 2),
            Moves { moved: 1, flows: BTreeMap::from([((1, 0), 1)]), ..Moves::default() }
        );
    }

    #[test]
    fn times_are_those_of_the_middle_and_the_end() {
        let times = Times::of(&[1_000, 2_000, 9_000]);
        assert_eq!((times.mean, times.median), (Duration::from_micros(4), Duration::from_micros(2)));
        assert_eq!(times.longest, Duration::from_micros(9));
        assert_eq!(Times::of(&[]).longest, Duration::ZERO);
    }
}
