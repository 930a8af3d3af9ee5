//! The index over the lanes of some routes.
//!
//! Most lanes can be true only if one term has one of a few values (`site = 'north'`, `region IN ['a', 'b']`,
//! `STARTS_WITH(line, 'x')`). The rarest such check of a lane is its *entry*: the lane is filed in the bucket of each of
//! these values, and a message opens, for each term that has entries, the one bucket of its value. Lanes without an entry
//! are in the common bucket, which every message opens. A bucket with few lanes checks them one by one; a larger one
//! consists of [`Block`]s.

use std::collections::HashMap;
use std::ops::Range;

use super::axis::{Axis, Position, YES, contains};
use super::block::{Block, MAX_CHECK_RANGES, Positions, fitting};
use super::condition::Formula;
use super::kernel::Kernel;
use super::lanes::{Check, Lane, Rest, lanes};
use super::state::State;
use super::vocabulary::{Cost, Term, TermId, Vocabulary};

/// The most values of an entry: a lane is filed once for each.
const MAX_ENTRY_VALUES: u32 = 8;

/// An entry that more than this part of the values takes is none.
const MAX_ENTRY_SHARE: f64 = 0.5;

/// Among properties, an entry that takes at most this part is preferred to a rarer one that needs the body: a message that
/// no property lets in need not be parsed.
const GOOD_SHARE: f64 = 0.1;

/// Up to this many lanes, a bucket checks them one by one.
const SMALL_BUCKET: usize = 8;

/// A condition of a route, to be indexed.
pub(super) struct Entry {
    /// The number of the route.
    pub(super) route: u32,
    /// The endpoint of the route, below 64.
    pub(super) endpoint: u8,
    pub(super) formula: Formula,
}

/// Where matching routes go.
pub(super) trait Sink {
    /// Whether a route to one of these endpoints would still change anything.
    fn wants(&self, endpoints: u64) -> bool;
    /// A route matches. `repeated` routes may be found several times.
    fn found(&mut self, route: u32, endpoint: u8, repeated: bool);
}

/// The index.
#[derive(Debug, Default)]
pub(super) struct Segment {
    axes: Vec<Axis>,
    /// The terms with entries, by rising cost, and the bucket of each position plus one.
    entries: Vec<EntryTerm>,
    /// The texts whose patterns are entries, and the bucket of each pattern.
    pattern_texts: Vec<(TermId, Cost, u64)>,
    patterns: HashMap<TermId, u32>,
    common: Bucket,
    buckets: Vec<Bucket>,
    filed: Vec<Filed>,
    checks: Vec<FiledCheck>,
    ranges: Vec<(Position, Position)>,
    rests: Vec<Rest>,
    blocks: Vec<Block>,
    lanes: usize,
}

#[derive(Debug)]
struct EntryTerm {
    term: TermId,
    cost: Cost,
    buckets: Vec<u32>,
    endpoints: u64,
}

/// Lanes that are opened together.
#[derive(Clone, Debug, Default)]
struct Bucket {
    /// In `filed`: lanes that are checked one by one.
    single: Range<u32>,
    /// In `blocks`, and in `filed` the lanes of these blocks, one after the other.
    blocks: Range<u32>,
    block_lanes: u32,
    endpoints: u64,
}

/// A lane of a route.
#[derive(Clone, Debug)]
struct Filed {
    route: u32,
    endpoint: u8,
    repeated: bool,
    /// In `rests`, plus one; zero is none.
    rest: u32,
    /// In `checks`; of a lane in a block, none.
    checks: Range<u32>,
}

#[derive(Clone, Debug)]
struct FiledCheck {
    term: TermId,
    /// In `ranges`.
    ranges: Range<u32>,
}

/// A lane on its way into the index.
#[derive(Clone)]
struct Draft {
    route: u32,
    endpoint: u8,
    repeated: bool,
    checks: Vec<Check>,
    rest: u32,
}

/// A message under a segment.
pub(super) struct Reading<'r, 'm, 'v> {
    pub(super) segment: &'r Segment,
    pub(super) state: &'r mut State<'m, 'v>,
    /// The positions that are known already, by term; [`UNKNOWN`] are not.
    pub(super) positions: &'r mut [Position],
    pub(super) kernel: Kernel,
}

/// Not looked at yet.
pub(super) const UNKNOWN: Position = Position::MAX;

impl Positions for Reading<'_, '_, '_> {
    #[inline]
    fn position(&mut self, term: TermId) -> Position {
        match self.positions.get(term as usize) {
            Some(&UNKNOWN) | None => self.find(term),
            Some(&known) => known,
        }
    }
}

impl Reading<'_, '_, '_> {
    fn find(&mut self, term: TermId) -> Position {
        let slot = self.state.slot(term);
        let Some(axis) = self.segment.axes.get(term as usize) else { return 0 };
        let state = &*self.state;
        let text = || if let super::slot::Slot::Text(place) = slot { state.bytes(place) } else { b"" };
        let position = axis.position(&slot, self.kernel, text);
        if let Some(known) = self.positions.get_mut(term as usize) {
            *known = position;
        }
        position
    }
}

impl Segment {
    /// Indexes conditions whose terms are in the vocabulary.
    pub(super) fn new(entries: &[Entry], vocabulary: &Vocabulary) -> Self {
        let mut axes: Vec<Axis> = std::iter::repeat_with(Axis::default).take(vocabulary.len()).collect();
        entries.iter().for_each(|entry| note(&entry.formula, &mut axes));
        axes.iter_mut().for_each(Axis::prepare);
        let mut segment = Self { axes, ..Self::default() };
        let mut filing: HashMap<(TermId, Position), Vec<Draft>> = HashMap::new();
        let mut common = Vec::new();
        for entry in entries {
            let lanes = lanes(&entry.formula, &segment.axes);
            let repeated = lanes.len() > 1;
            segment.lanes += lanes.len();
            for lane in lanes {
                segment.file(entry, lane, repeated, vocabulary, &mut filing, &mut common);
            }
        }
        segment.common = segment.bucket(common, vocabulary);
        segment.fill(filing, vocabulary);
        segment
    }

    /// Puts a lane where messages will find it.
    fn file(
        &mut self,
        entry: &Entry,
        mut lane: Lane,
        repeated: bool,
        vocabulary: &Vocabulary,
        filing: &mut HashMap<(TermId, Position), Vec<Draft>>,
        common: &mut Vec<Draft>,
    ) {
        let way_in = self.entry(&lane.checks, vocabulary).map(|place| lane.checks.swap_remove(place));
        // What a block cannot hold is checked for the messages that pass the rest.
        let (long, mut checks): (Vec<_>, Vec<_>) =
            lane.checks.into_iter().partition(|check| check.ranges.len() > MAX_CHECK_RANGES);
        checks.sort_by_key(|check| (vocabulary.cost(check.term), check.term));
        let mut rests: Vec<Rest> = long.into_iter().map(Rest::Check).collect();
        rests.extend(lane.rest);
        let rest = match rests.len() {
            0 => 0,
            1 => self.keep(rests.pop()),
            _ => self.keep(Some(Rest::All(rests))),
        };
        let draft = Draft { route: entry.route, endpoint: entry.endpoint, repeated, checks, rest };
        match way_in {
            None => common.push(draft),
            Some(check) => {
                for position in check.ranges.into_iter().flat_map(|(start, end)| start..end) {
                    filing.entry((check.term, position)).or_default().push(draft.clone());
                }
            }
        }
    }

    fn keep(&mut self, rest: Option<Rest>) -> u32 {
        self.rests.extend(rest);
        u32::try_from(self.rests.len()).unwrap_or(0)
    }

    /// The check that a lane is found by: the rarest, as far as the conditions tell.
    fn entry(&self, checks: &[Check], vocabulary: &Vocabulary) -> Option<usize> {
        let share = |check: &Check| {
            let values: u32 = check.ranges.iter().map(|(start, end)| end - start).sum();
            let is_pattern = matches!(vocabulary.term(check.term), Some(Term::Pattern(_)));
            let known = if is_pattern {
                // Only what is found can be an entry; how rare it is, nobody knows.
                if check.ranges != [(YES, YES + 1)] {
                    return None;
                }
                20
            } else {
                self.axes.get(check.term as usize)?.constants() + 1
            };
            // The twin is never fetched just to find candidates.
            let allowed = values <= MAX_ENTRY_VALUES && vocabulary.cost(check.term) < Cost::Twin;
            #[allow(clippy::cast_precision_loss, reason = "an estimate")]
            let share = f64::from(values) / known as f64;
            (allowed && share <= MAX_ENTRY_SHARE).then_some(share)
        };
        let shares = checks.iter().enumerate().filter_map(|(place, check)| Some((place, check.term, share(check)?)));
        let cheap = |term| vocabulary.cost(term) == Cost::Property;
        let rarest = shares.min_by(|(_, left, left_share), (_, right, right_share)| {
            let rank = |term, share| (!(cheap(term) && share <= GOOD_SHARE), share);
            rank(*left, *left_share).partial_cmp(&rank(*right, *right_share)).unwrap_or(std::cmp::Ordering::Equal)
        });
        rarest.map(|(place, ..)| place)
    }

    /// Makes buckets of what was filed.
    fn fill(&mut self, filing: HashMap<(TermId, Position), Vec<Draft>>, vocabulary: &Vocabulary) {
        // In a fixed order, so that equal routes make equal indexes.
        let mut filing: Vec<_> = filing.into_iter().collect();
        filing.sort_unstable_by_key(|(key, _)| *key);
        for ((term, position), drafts) in filing {
            let bucket = self.bucket(drafts, vocabulary);
            let endpoints = bucket.endpoints;
            self.buckets.push(bucket);
            let number = u32::try_from(self.buckets.len()).unwrap_or(0);
            if let Some(&Term::Pattern(text)) = vocabulary.term(term) {
                self.patterns.insert(term, number);
                match self.pattern_texts.iter_mut().find(|(known, ..)| *known == text) {
                    Some((.., all)) => *all |= endpoints,
                    None => self.pattern_texts.push((text, vocabulary.cost(text), endpoints)),
                }
                continue;
            }
            if self.entries.last().is_none_or(|last| last.term != term) {
                self.entries.push(EntryTerm { term, cost: vocabulary.cost(term), buckets: Vec::new(), endpoints: 0 });
            }
            if let Some(last) = self.entries.last_mut() {
                last.buckets.resize(position as usize, 0);
                last.buckets.push(number);
                last.endpoints |= endpoints;
            }
        }
        self.entries.sort_by_key(|entry| entry.cost);
        self.pattern_texts.sort_by_key(|(_, cost, _)| *cost);
    }

    fn bucket(&mut self, mut drafts: Vec<Draft>, vocabulary: &Vocabulary) -> Bucket {
        let at = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let endpoints = drafts.iter().fold(0, |all, draft| all | bit(draft.endpoint));
        let first = at(self.filed.len());
        if drafts.len() <= SMALL_BUCKET {
            for draft in drafts {
                let checks = self.file_checks(&draft.checks);
                self.filed.push(draft.filed(checks));
            }
            let single = first..at(self.filed.len());
            return Bucket { single, endpoints, ..Bucket::default() };
        }
        // Lanes that look at the same terms stand together, so that a block has few of them.
        drafts.sort_by(|left, right| {
            let terms = |draft: &Draft| draft.checks.iter().map(|check| check.term).collect::<Vec<_>>();
            let ranges = |draft: &Draft| draft.checks.iter().map(|check| check.ranges.clone()).collect::<Vec<_>>();
            terms(left).cmp(&terms(right)).then_with(|| ranges(left).cmp(&ranges(right)))
        });
        let first_block = at(self.blocks.len());
        let mut rest = drafts.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(fitting(rest.iter().map(|draft| draft.checks.as_slice())));
            let checks: Vec<&[Check]> = now.iter().map(|draft| draft.checks.as_slice()).collect();
            self.blocks.push(Block::new(&checks, &self.axes, vocabulary));
            rest = later;
        }
        self.filed.extend(drafts.iter().map(|draft| draft.filed(0..0)));
        Bucket { single: 0..0, blocks: first_block..at(self.blocks.len()), block_lanes: first, endpoints }
    }

    fn file_checks(&mut self, checks: &[Check]) -> Range<u32> {
        let at = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let first = at(self.checks.len());
        for Check { term, ranges } in checks {
            let start = at(self.ranges.len());
            self.ranges.extend(ranges);
            self.checks.push(FiledCheck { term: *term, ranges: start..at(self.ranges.len()) });
        }
        first..at(self.checks.len())
    }

    /// How many positions a [`Reading`] needs.
    pub(super) fn terms(&self) -> usize {
        self.axes.len()
    }

    /// Finds the routes that a message matches, by cheap terms before costly ones.
    pub(super) fn search(&self, reading: &mut Reading<'_, '_, '_>, sink: &mut impl Sink) {
        self.open(&self.common, reading, sink);
        let mut patterns = self.pattern_texts.iter().peekable();
        for entry in &self.entries {
            while let Some(&(text, ..)) =
                patterns.next_if(|(_, cost, endpoints)| *cost < entry.cost && sink.wants(*endpoints))
            {
                self.open_patterns(text, reading, sink);
            }
            if sink.wants(entry.endpoints) {
                let position = reading.position(entry.term);
                let number = entry.buckets.get(position as usize).copied().unwrap_or(0);
                self.open_number(number, reading, sink);
            }
        }
        for &(text, _, endpoints) in patterns {
            if sink.wants(endpoints) {
                self.open_patterns(text, reading, sink);
            }
        }
    }

    fn open_patterns(&self, text: TermId, reading: &mut Reading<'_, '_, '_>, sink: &mut impl Sink) {
        for pattern in reading.state.found_patterns(text) {
            let number = self.patterns.get(&pattern).copied().unwrap_or(0);
            self.open_number(number, reading, sink);
        }
    }

    #[inline]
    fn open_number(&self, number: u32, reading: &mut Reading<'_, '_, '_>, sink: &mut impl Sink) {
        if let Some(bucket) = (number as usize).checked_sub(1).and_then(|place| self.buckets.get(place)) {
            self.open(bucket, reading, sink);
        }
    }

    fn open(&self, bucket: &Bucket, reading: &mut Reading<'_, '_, '_>, sink: &mut impl Sink) {
        if !sink.wants(bucket.endpoints) {
            return;
        }
        for lane in part(&self.filed, &bucket.single) {
            let passes = sink.wants(bit(lane.endpoint))
                && part(&self.checks, &lane.checks)
                    .iter()
                    .all(|check| contains(part(&self.ranges, &check.ranges), reading.position(check.term)));
            if passes {
                self.arrive(lane, reading, sink);
            }
        }
        let mut first = bucket.block_lanes as usize;
        for block in part(&self.blocks, &bucket.blocks) {
            block.scan(reading.kernel, reading, |reading, lane| {
                if let Some(lane) = self.filed.get(first + lane) {
                    self.arrive(lane, reading, sink);
                }
            });
            first += block.lanes();
        }
    }

    /// A message passes a lane.
    #[inline]
    fn arrive(&self, lane: &Filed, reading: &mut Reading<'_, '_, '_>, sink: &mut impl Sink) {
        let rest = (lane.rest as usize).checked_sub(1).and_then(|place| self.rests.get(place));
        // Most lanes have no rest; and it need not be known where the endpoint has the message already.
        let holds =
            rest.is_none_or(|rest| sink.wants(bit(lane.endpoint)) && rest.holds(&mut |term| reading.position(term)));
        if holds {
            sink.found(lane.route, lane.endpoint, lane.repeated);
        }
    }

    /// Bytes of memory, rests and constants of conditions not included.
    pub(super) fn size(&self) -> usize {
        self.blocks.iter().map(Block::size).sum::<usize>()
            + self.filed.len() * size_of::<Filed>()
            + self.checks.len() * size_of::<FiledCheck>()
            + self.ranges.len() * size_of::<(Position, Position)>()
            + self.buckets.len() * size_of::<Bucket>()
            + self.entries.iter().map(|entry| entry.buckets.len() * size_of::<u32>()).sum::<usize>()
            + self.axes.iter().map(Axis::size).sum::<usize>()
    }
}

impl Draft {
    fn filed(&self, checks: Range<u32>) -> Filed {
        Filed { route: self.route, endpoint: self.endpoint, repeated: self.repeated, rest: self.rest, checks }
    }
}

/// The set that holds one endpoint.
pub(super) fn bit(endpoint: u8) -> u64 {
    1_u64.checked_shl(u32::from(endpoint)).unwrap_or(0)
}

fn part<'a, T>(all: &'a [T], range: &Range<u32>) -> &'a [T] {
    all.get(range.start as usize..range.end as usize).unwrap_or(&[])
}

fn note(formula: &Formula, axes: &mut [Axis]) {
    match formula {
        Formula::True | Formula::False => {}
        Formula::Test(term, test) => {
            if let Some(axis) = axes.get_mut(*term as usize) {
                axis.note(test);
            }
        }
        Formula::All(parts) | Formula::Any(parts) => parts.iter().for_each(|part| note(part, axes)),
    }
}
