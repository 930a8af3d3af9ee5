//! Fuzz targets without a fuzzer: the corpus of each, and mutations of it that depend on nothing but the corpus.
//!
//! `tests/fuzz` has the same targets for cargo-fuzz. What that finds goes into the corpus, and is run here from then on.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "only tests call this, and what fails unexpectedly should stop them"
)]

use std::fs;
use std::path::PathBuf;

use crate::numbers::Numbers;

/// Mutations of each file of a corpus, unless `NAVE_FUZZ_MUTATIONS` names another number. Together the targets take seconds.
const MUTATIONS: u64 = 1_000;

/// Bytes that parsers look for, put into mutations more often than others.
const INTERESTING: [&[u8]; 16] = [
    b"\0",
    b"\xff",
    b"/",
    b"%",
    b"%2F",
    b"&",
    b"=",
    b";",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"\\u0000",
    b"\xf0\x9f\x8c\x8d",
    b"\x7f\xff\xff\xff",
    b"99999999999999999999",
];

/// A number below `limit`, 0 if that is 0.
fn below(numbers: &mut Numbers, limit: usize) -> usize {
    usize::try_from(numbers.below(limit as u64)).unwrap_or(0)
}

/// The directory of a target's corpus.
fn directory(target: &str) -> PathBuf {
    crate::paths::root().join("tests/fuzz/corpus").join(target)
}

/// The files of a target's corpus, in the order of their names.
///
/// # Panics
///
/// There is none.
pub fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = directory(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let path = entry.expect("a file of the corpus").path();
            let bytes = fs::read(&path).expect("a file of the corpus can be read");
            (path.display().to_string(), bytes)
        })
        .collect();
    assert!(!files.is_empty(), "the corpus {} is empty", dir.display());
    files.sort();
    files
}

/// Runs every file of the target's corpus, and mutations of each, through `run`, which panics when an invariant is broken.
///
/// # Panics
///
/// `run` does; the input is printed before.
pub fn exercise(target: &str, run: impl Fn(&[u8])) {
    let files = corpus(target);
    let each = std::env::var("NAVE_FUZZ_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(MUTATIONS);
    for (number, (name, bytes)) in files.iter().enumerate() {
        let shown = Shown { name, bytes };
        run(bytes);
        std::mem::forget(shown);
        let mut numbers = Numbers::new(number as u64 + 1);
        for _ in 0..each {
            let other = &files[below(&mut numbers, files.len())].1;
            let mutated = mutate(bytes, other, &mut numbers);
            let shown = Shown { name, bytes: &mutated };
            run(&mutated);
            std::mem::forget(shown);
        }
    }
}

/// Prints the input when `run` panics.
struct Shown<'a> {
    name: &'a str,
    bytes: &'a [u8],
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        eprintln!("a mutation of {}: {:?}", self.name, String::from_utf8_lossy(self.bytes));
        eprintln!("its bytes: {:?}", self.bytes);
    }
}

fn mutate(bytes: &[u8], other: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut result = bytes.to_vec();
    for _ in 0..=below(numbers, 4) {
        let at = below(numbers, result.len() + 1);
        match below(numbers, 7) {
            0 => result.truncate(at),
            1 => {
                if let Some(byte) = result.get_mut(at) {
                    *byte ^= 1 << below(numbers, 8);
                }
            }
            2 => {
                if let Some(byte) = result.get_mut(at) {
                    *byte = numbers.next() as u8;
                }
            }
            3 => {
                let piece = INTERESTING[below(numbers, INTERESTING.len())];
                result.splice(at..at, piece.iter().copied());
            }
            4 => {
                let end = at + below(numbers, result.len() - at + 1);
                result.drain(at..end);
            }
            5 => {
                let end = at + below(numbers, (result.len() - at).min(64) + 1);
                let piece = result[at..end].to_vec();
                for _ in 0..=below(numbers, 8) {
                    result.splice(at..at, piece.iter().copied());
                }
            }
            _ => {
                let from = below(numbers, other.len() + 1);
                let to = from + below(numbers, (other.len() - from).min(256) + 1);
                result.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    result
}
