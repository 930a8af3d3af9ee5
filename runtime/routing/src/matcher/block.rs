//! Up to 512 lanes that are decided together.
//!
//! For each term that some lane checks, and for each stretch of positions between which no lane can tell, the block holds
//! a row: one bit for each lane, set if the lane does not mind the value. A message is decided by picking one row for each
//! term, by the position of its value, and combining them word by word: what is left are the lanes that it passes. The
//! cost is that of the terms, not of the lanes.

use std::collections::{BTreeSet, HashMap};

use super::axis::{Axis, Position};
use super::kernel::{Kernel, MAX_WORDS, combine};
use super::lanes::Check;
use super::vocabulary::{Cost, TermId, Vocabulary};

/// The most lanes of a block: the bits of its widest row.
pub(super) const MAX_BLOCK_LANES: usize = 64 * MAX_WORDS;

/// The most ranges that a lane's check has in a block. What has more (a long `IN`) is checked for the messages that pass.
pub(super) const MAX_CHECK_RANGES: usize = 32;

/// The most ranges of the lanes of one block, which bounds its rows to about a megabyte. Lanes with more are spread over
/// several blocks.
const MAX_BLOCK_RANGES: usize = 8192;

/// A direct table is worth it up to this many positions, or up to a few for each stretch.
const DIRECT_POSITIONS: usize = 256;

/// How many rows are combined at once.
const BATCH: usize = 16;

/// Lanes that are decided together.
#[derive(Debug)]
pub(super) struct Block {
    lanes: usize,
    words: usize,
    /// By rising cost.
    groups: Vec<Group>,
    /// For groups with a direct table: the row of each position.
    direct: Vec<u16>,
    /// For the others: where each stretch starts, rising, and its row.
    stretches: Vec<(Position, u16)>,
    /// `words` words each.
    rows: Vec<u64>,
}

#[derive(Debug)]
struct Group {
    term: TermId,
    cost: Cost,
    start: u32,
    end: u32,
    is_direct: bool,
}

/// How many of the next lanes fit into one block.
pub(super) fn fitting<'c>(lanes: impl Iterator<Item = &'c [Check]>) -> usize {
    let mut ranges = 0;
    let fits = |checks: &&[Check]| {
        ranges += checks.iter().map(|check| check.ranges.len()).sum::<usize>();
        ranges <= MAX_BLOCK_RANGES
    };
    lanes.take(MAX_BLOCK_LANES).take_while(fits).count().max(1)
}

impl Block {
    /// A block of the given lanes, at most [`MAX_BLOCK_LANES`].
    pub(super) fn new(lanes: &[&[Check]], axes: &[Axis], vocabulary: &Vocabulary) -> Self {
        let words = lanes.len().div_ceil(64).next_power_of_two().min(MAX_WORDS);
        let mut block = Self {
            lanes: lanes.len(),
            words,
            groups: Vec::new(),
            direct: Vec::new(),
            stretches: Vec::new(),
            rows: Vec::new(),
        };
        let terms: BTreeSet<TermId> = lanes.iter().copied().flatten().map(|check| check.term).collect();
        let mut terms: Vec<TermId> = terms.into_iter().collect();
        terms.sort_by_key(|term| vocabulary.cost(*term));
        let mut known = HashMap::new();
        for term in terms {
            let Some(axis) = axes.get(term as usize) else { continue };
            block.add_group(term, lanes, axis, vocabulary.cost(term), &mut known);
        }
        block.shrink();
        block
    }

    /// How many lanes it has.
    pub(super) fn lanes(&self) -> usize {
        self.lanes
    }

    fn shrink(&mut self) {
        self.groups.shrink_to_fit();
        self.direct.shrink_to_fit();
        self.stretches.shrink_to_fit();
        self.rows.shrink_to_fit();
    }

    fn add_group(
        &mut self,
        term: TermId,
        lanes: &[&[Check]],
        axis: &Axis,
        cost: Cost,
        known: &mut HashMap<[u64; MAX_WORDS], u16>,
    ) {
        // Lanes that do not check the term do not mind any value; the others start outside of their ranges.
        let mut row = [0; MAX_WORDS];
        let mut changes: Vec<(Position, usize)> = Vec::new();
        for (lane, checks) in lanes.iter().enumerate() {
            match checks.iter().find(|check| check.term == term) {
                None => flip(&mut row, lane),
                Some(check) => {
                    changes.extend(check.ranges.iter().flat_map(|&(start, end)| [(start, lane), (end, lane)]))
                }
            }
        }
        changes.sort_unstable();
        let mut stretches: Vec<(Position, u16)> = Vec::new();
        let mut changes = changes.into_iter().peekable();
        let mut position = 0;
        loop {
            while let Some((_, lane)) = changes.next_if(|(at, _)| *at <= position) {
                flip(&mut row, lane);
            }
            let number = self.row(&row, known);
            if stretches.last().is_none_or(|(_, last)| *last != number) {
                stretches.push((position, number));
            }
            match changes.peek() {
                Some((next, _)) if *next < axis.len() => position = *next,
                _ => break,
            }
        }
        let positions = axis.len() as usize;
        let is_direct = positions <= DIRECT_POSITIONS.max(stretches.len() * 4);
        let at = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let start = at(if is_direct { self.direct.len() } else { self.stretches.len() });
        if is_direct {
            let ends = stretches.iter().skip(1).map(|(start, _)| *start).chain([axis.len()]);
            for (&(start, row), end) in stretches.iter().zip(ends) {
                self.direct.extend((start..end).map(|_| row));
            }
        } else {
            self.stretches.extend(stretches);
        }
        let end = at(if is_direct { self.direct.len() } else { self.stretches.len() });
        self.groups.push(Group { term, cost, start, end, is_direct });
    }

    /// The number of a row, which is added unless it is there.
    fn row(&mut self, row: &[u64; MAX_WORDS], known: &mut HashMap<[u64; MAX_WORDS], u16>) -> u16 {
        let next = self.rows.len() / self.words;
        *known.entry(*row).or_insert_with(|| {
            self.rows.extend(row.iter().take(self.words));
            // Two ends for each of `MAX_BLOCK_RANGES`, and one more for each term: far fewer than 2^16.
            u16::try_from(next).unwrap_or(u16::MAX)
        })
    }

    /// Calls `found` with each lane that passes; `position` gives the position of a term.
    #[inline]
    pub(super) fn scan<C: Positions>(&self, kernel: Kernel, context: &mut C, found: impl FnMut(&mut C, usize)) {
        match self.words {
            1 => self.scan_words::<1, C>(kernel, context, found),
            2 => self.scan_words::<2, C>(kernel, context, found),
            4 => self.scan_words::<4, C>(kernel, context, found),
            _ => self.scan_words::<8, C>(kernel, context, found),
        }
    }

    #[inline]
    fn scan_words<const W: usize, C: Positions>(
        &self,
        kernel: Kernel,
        context: &mut C,
        mut found: impl FnMut(&mut C, usize),
    ) {
        let rows = self.rows.as_chunks::<W>().0;
        let mut mask = all_lanes::<W>(self.lanes);
        let mut picks = [0; BATCH];
        let mut picked = 0;
        let mut cost = Cost::Property;
        for group in &self.groups {
            // What cheap terms exclude leaves the costly ones unread.
            if picked == BATCH || group.cost != cost {
                if picked > 0 && !combine(kernel, rows, picks.get(..picked).unwrap_or(&[]), &mut mask) {
                    return;
                }
                picked = 0;
                cost = group.cost;
            }
            let row = self.pick(group, context.position(group.term));
            if let Some(pick) = picks.get_mut(picked) {
                *pick = row;
            }
            picked += 1;
        }
        if !combine(kernel, rows, picks.get(..picked).unwrap_or(&[]), &mut mask) {
            return;
        }
        for (word, mut bits) in mask.into_iter().enumerate() {
            while bits != 0 {
                found(context, word * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }

    #[inline]
    fn pick(&self, group: &Group, position: Position) -> u32 {
        let (start, end) = (group.start as usize, group.end as usize);
        if group.is_direct {
            return self.direct.get(start + position as usize).copied().map_or(u32::MAX, u32::from);
        }
        let stretches = self.stretches.get(start..end).unwrap_or(&[]);
        let after = stretches.partition_point(|(start, _)| *start <= position);
        let stretch = after.checked_sub(1).and_then(|last| stretches.get(last));
        stretch.map_or(u32::MAX, |(_, row)| u32::from(*row))
    }

    /// Bytes of memory.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>()
            + self.groups.len() * size_of::<Group>()
            + self.direct.len() * size_of::<u16>()
            + self.stretches.len() * size_of::<(Position, u16)>()
            + self.rows.len() * size_of::<u64>()
    }
}

/// Where the positions of a message's values come from.
pub(super) trait Positions {
    /// The position of a term's value.
    fn position(&mut self, term: TermId) -> Position;
}

fn flip(row: &mut [u64; MAX_WORDS], lane: usize) {
    if let Some(word) = row.get_mut(lane / 64) {
        *word ^= 1 << (lane % 64);
    }
}

fn all_lanes<const W: usize>(lanes: usize) -> [u64; W] {
    std::array::from_fn(|word| match lanes.saturating_sub(word * 64) {
        rest @ 0..64 => (1 << rest) - 1,
        _ => u64::MAX,
    })
}
