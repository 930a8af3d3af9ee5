//! Searches a text for many constants at once: beginnings and ends by their hashes, parts by one Aho-Corasick automaton.

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, MatchKind};

use super::tables::TextTable;
use super::vocabulary::TermId;

/// What a text is searched for; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Pattern {
    /// `STARTS_WITH`
    Start(String),
    /// `ENDS_WITH`
    End(String),
    /// `CONTAINS`
    Part(String),
}

/// Patterns that one text is searched for.
#[derive(Debug, Default)]
pub(super) struct PatternSet {
    starts: Vec<OfLength>,
    ends: Vec<OfLength>,
    parts: Option<AhoCorasick>,
    /// The terms of the patterns of `parts`.
    part_terms: Vec<TermId>,
    /// Parts that the automaton does not hold, because it would be too large.
    plain_parts: Vec<(String, TermId)>,
}

/// Constants of one length.
#[derive(Debug)]
struct OfLength {
    length: usize,
    texts: TextTable,
}

impl PatternSet {
    /// Compiles patterns, each given once, with their terms.
    pub(super) fn new(patterns: Vec<(Pattern, TermId)>) -> Self {
        let mut set = Self::default();
        let mut parts = Vec::new();
        for (pattern, term) in patterns {
            match pattern {
                Pattern::Start(text) => add(&mut set.starts, &text, term),
                Pattern::End(text) => add(&mut set.ends, &text, term),
                Pattern::Part(text) => parts.push((text, term)),
            }
        }
        if !parts.is_empty() {
            let texts = parts.iter().map(|(text, _)| text.as_str());
            match AhoCorasickBuilder::new().match_kind(MatchKind::Standard).build(texts) {
                Ok(automaton) => {
                    set.parts = Some(automaton);
                    set.part_terms = parts.into_iter().map(|(_, term)| term).collect();
                }
                Err(_) => set.plain_parts = parts,
            }
        }
        set
    }

    /// Calls `found` with the term of each pattern that the text fits, possibly several times.
    pub(super) fn search(&self, text: &[u8], mut found: impl FnMut(TermId)) {
        for constants in &self.starts {
            if let Some(term) = text.get(..constants.length).and_then(|start| constants.texts.get(start)) {
                found(term);
            }
        }
        for constants in &self.ends {
            let start = text.len().checked_sub(constants.length);
            if let Some(term) = start.and_then(|start| constants.texts.get(text.get(start..)?)) {
                found(term);
            }
        }
        if let Some(automaton) = &self.parts {
            for hit in automaton.find_overlapping_iter(text) {
                if let Some(&term) = self.part_terms.get(hit.pattern().as_usize()) {
                    found(term);
                }
            }
        }
        for (part, term) in &self.plain_parts {
            if std::str::from_utf8(text).is_ok_and(|text| text.contains(part.as_str())) {
                found(*term);
            }
        }
    }
}

fn add(lengths: &mut Vec<OfLength>, text: &str, term: TermId) {
    match lengths.iter_mut().find(|known| known.length == text.len()) {
        Some(known) => known.texts.insert(text, term),
        None => {
            let mut texts = TextTable::default();
            texts.insert(text, term);
            lengths.push(OfLength { length: text.len(), texts });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_that_fits_is_found() {
        let texts = ["a", "ab", "abc", "bc", "c", "xyz", "aba"];
        let patterns = texts.iter().flat_map(|text| {
            [Pattern::Start((*text).into()), Pattern::End((*text).into()), Pattern::Part((*text).into())]
        });
        let patterns: Vec<(Pattern, TermId)> = patterns.zip(0..).collect();
        let set = PatternSet::new(patterns.clone());
        for text in ["", "a", "abc", "ababc", "zab", "xyzabc", "cba"] {
            let mut found = Vec::new();
            set.search(text.as_bytes(), |term| found.push(term));
            found.sort_unstable();
            found.dedup();
            let fits = |pattern: &Pattern| match pattern {
                Pattern::Start(part) => text.starts_with(part.as_str()),
                Pattern::End(part) => text.ends_with(part.as_str()),
                Pattern::Part(part) => text.contains(part.as_str()),
            };
            let expected: Vec<TermId> = patterns.iter().filter(|(p, _)| fits(p)).map(|(_, term)| *term).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
