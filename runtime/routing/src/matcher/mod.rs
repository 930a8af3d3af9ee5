//! All routes of one source, decided together.
//!
//! # From routes to an index
//!
//! 1. [`condition`]: each program becomes a formula that says when it is *true*, over tests of single terms. The three
//!    results of the language are kept exactly, without normal forms.
//! 2. [`vocabulary`]: what the tests look at (properties, paths, computed values, patterns) is numbered once for all
//!    routes, so that each is known at most once for a message.
//! 3. [`axis`]: the constants that a term is compared with cut its values into positions. A test is a set of ranges of
//!    positions; a value is one position, found by one vector compare or hash, however many routes ask.
//! 4. [`lanes`]: a formula becomes a few conjunctions; what would become too many stays a small tree.
//! 5. [`segment`]: each lane is filed under its rarest check, so a message opens only the buckets of its own values.
//! 6. [`block`]: the lanes of a large bucket are decided 512 at a time, by combining one row of bits for each term.
//!
//! # For a message
//!
//! [`state`] reads what is asked, cheapest first: properties, then the body in one pass ([`extract`]), then computed values,
//! then the twin. Whoever only wants the endpoints skips buckets whose endpoints have the message already.
//!
//! # Cost
//!
//! With *n* routes, *t* terms and *m* matches, a message costs about one pass over the body, a search for each term that is
//! reached, *t* row operations for each 512 lanes of the buckets that it opens, and a few instructions for each match. Lanes
//! without an entry cost every message *t* / 512 row operations each. Memory is at most a megabyte for 512 lanes, and in
//! practice about a hundred bytes a lane. Building sorts; it takes *O*(*n* log *n*).
//!
//! # Change
//!
//! A matcher does not change. [`Matcher::with`] makes another that shares everything but a small segment with the changed
//! routes; what they were in older segments is marked as gone. Messages that are being decided keep the matcher they have.

mod axis;
mod block;
mod condition;
mod extract;
mod kernel;
mod lanes;
mod paths;
mod patterns;
mod scan;
mod segment;
mod slot;
mod state;
mod tables;
mod vocabulary;

use std::cell::Cell;
use std::sync::Arc;

use self::kernel::Kernel;
use self::segment::{Entry, Reading, Segment, Sink, UNKNOWN, bit};
use self::state::{Memory, State};
use self::vocabulary::Vocabulary;
use crate::evaluate::{Verdict, evaluate};
use crate::functions::MAX_TEXT_BYTES;
use crate::message::MessageView;
use crate::program::Program;

/// A route as the matcher knows it.
#[derive(Clone, Debug)]
pub(crate) struct Indexed {
    /// Its number, which is reported when it matches.
    pub(crate) route: u32,
    /// The number of its endpoint, below 64.
    pub(crate) endpoint: u8,
    /// Its condition.
    pub(crate) program: Arc<Program>,
}

/// All routes of one source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matcher {
    vocabulary: Arc<Vocabulary>,
    segments: Vec<Part>,
    kernel: Kernel,
}

#[derive(Clone, Debug)]
struct Part {
    segment: Arc<Segment>,
    /// The routes of the segment.
    routes: Arc<[Indexed]>,
    /// A bit for each route that a later segment replaced, or that was removed; by number of the route.
    gone: Arc<[u64]>,
}

/// Above this size, a text could be longer than the functions of a condition make, and their work would have to be counted
/// for each condition by itself: the interpreter decides. It is larger than any message a hub accepts, also when UTF-16 is
/// written as UTF-8.
const MAX_BODY_BYTES: usize = MAX_TEXT_BYTES / 2;

impl Matcher {
    /// Indexes routes.
    pub(crate) fn new(routes: Vec<Indexed>) -> Self {
        Self { kernel: Kernel::detect(), ..Self::default() }.with_segment(routes)
    }

    /// The same without the routes of the given numbers, and with other routes. Takes time for these, not for those that
    /// stay.
    pub(crate) fn with(&self, without: &[u32], routes: Vec<Indexed>) -> Self {
        let mut changed = self.clone();
        for part in &mut changed.segments {
            let mut gone = part.gone.to_vec();
            for &route in without {
                let word = route as usize / 64;
                if gone.len() <= word {
                    gone.resize(word + 1, 0);
                }
                if let Some(word) = gone.get_mut(word) {
                    *word |= 1 << (route % 64);
                }
            }
            part.gone = gone.into();
        }
        let mut routes = routes;
        while let Some(last) = changed.segments.pop_if(|last| last.routes.len() <= MERGED_SEGMENT_ROUTES) {
            let kept = last.routes.iter().filter(|route| !is_gone(&last.gone, route.route));
            routes.splice(0..0, kept.cloned());
        }
        changed.with_segment(routes)
    }

    fn with_segment(mut self, routes: Vec<Indexed>) -> Self {
        if routes.is_empty() {
            return self;
        }
        let vocabulary = Arc::make_mut(&mut self.vocabulary);
        let entries: Vec<Entry> = routes
            .iter()
            .map(|Indexed { route, endpoint, program }| Entry {
                route: *route,
                endpoint: *endpoint,
                formula: condition::formula(program, vocabulary),
            })
            .collect();
        vocabulary.prepare_patterns();
        let segment = Arc::new(Segment::new(&entries, vocabulary));
        self.segments.push(Part { segment, routes: routes.into(), gone: Arc::from([]) });
        self
    }

    /// The endpoints of the routes that a message matches, as a set of bits.
    pub(crate) fn endpoints(&self, message: &MessageView<'_>) -> u64 {
        let mut chosen = Endpoints(0);
        self.search(message, &mut chosen);
        chosen.0
    }

    /// The numbers of the routes that a message matches, each once, in no particular order.
    pub(crate) fn routes(&self, message: &MessageView<'_>, found: &mut Vec<u32>) {
        found.clear();
        let mut routes = Routes { found, repeated: Vec::new() };
        self.search(message, &mut routes);
        let mut repeated = routes.repeated;
        repeated.sort_unstable();
        repeated.dedup();
        found.extend(repeated);
    }

    fn search(&self, message: &MessageView<'_>, sink: &mut impl Sink) {
        if self.segments.is_empty() {
            return;
        }
        if message.body_size() > MAX_BODY_BYTES {
            return self.interpret(message, sink);
        }
        let mut scratch = SCRATCH.take();
        let Scratch { memory, positions } = &mut *scratch;
        let mut state = State::new(&self.vocabulary, message, memory);
        for part in &self.segments {
            positions.clear();
            positions.resize(part.segment.terms(), UNKNOWN);
            let mut reading = Reading { segment: &part.segment, state: &mut state, positions, kernel: self.kernel };
            if part.gone.is_empty() {
                part.segment.search(&mut reading, sink);
            } else {
                part.segment.search(&mut reading, &mut Remaining { sink, gone: &part.gone });
            }
        }
        SCRATCH.set(scratch);
    }

    #[cold]
    fn interpret(&self, message: &MessageView<'_>, sink: &mut impl Sink) {
        for part in &self.segments {
            for Indexed { route, endpoint, program } in part.routes.iter() {
                let wanted = !is_gone(&part.gone, *route) && sink.wants(bit(*endpoint));
                if wanted && evaluate(program, message) == Verdict::True {
                    sink.found(*route, *endpoint, false);
                }
            }
        }
    }

    /// Whether so much has changed that a new matcher would decide noticeably faster.
    pub(crate) fn is_fragmented(&self) -> bool {
        self.segments.len() > MANY_SEGMENTS
    }

    /// Bytes of memory of the indexes.
    pub(crate) fn size(&self) -> usize {
        self.segments.iter().map(|part| part.segment.size()).sum()
    }
}

/// A segment of at most so many routes is made anew together with a change, which takes about a millisecond. Larger ones
/// stay, so after so many changes there is one more segment; [`Matcher::is_fragmented`] says when to make a new matcher.
const MERGED_SEGMENT_ROUTES: usize = 512;

/// Each segment costs a message its own look-ups; more are worth a new matcher.
const MANY_SEGMENTS: usize = 8;

#[derive(Default)]
struct Scratch {
    memory: Memory,
    positions: Vec<u32>,
}

thread_local! {
    /// Memory that decisions of a thread use one after the other. A decision within a decision finds it empty.
    static SCRATCH: Cell<Box<Scratch>> = Cell::default();
}

fn is_gone(gone: &[u64], route: u32) -> bool {
    gone.get(route as usize / 64).is_some_and(|word| word >> (route % 64) & 1 == 1)
}

struct Endpoints(u64);

impl Sink for Endpoints {
    #[inline]
    fn wants(&self, endpoints: u64) -> bool {
        endpoints & !self.0 != 0
    }
    #[inline]
    fn found(&mut self, _: u32, endpoint: u8, _: bool) {
        self.0 |= bit(endpoint);
    }
}

struct Routes<'f> {
    found: &'f mut Vec<u32>,
    repeated: Vec<u32>,
}

impl Sink for Routes<'_> {
    #[inline]
    fn wants(&self, _: u64) -> bool {
        true
    }
    #[inline]
    fn found(&mut self, route: u32, _: u8, repeated: bool) {
        if repeated { self.repeated.push(route) } else { self.found.push(route) }
    }
}

/// Only the routes that are not gone.
struct Remaining<'s, S> {
    sink: &'s mut S,
    gone: &'s [u64],
}

impl<S: Sink> Sink for Remaining<'_, S> {
    #[inline]
    fn wants(&self, endpoints: u64) -> bool {
        self.sink.wants(endpoints)
    }
    #[inline]
    fn found(&mut self, route: u32, endpoint: u8, repeated: bool) {
        if !is_gone(self.gone, route) {
            self.sink.found(route, endpoint, repeated);
        }
    }
}
