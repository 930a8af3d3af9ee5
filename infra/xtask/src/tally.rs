//! Counting tests from what the test runners print.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Write};
use std::ops::AddAssign;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::process::line;

/// How many tests ended how.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

/// Whose output it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runner {
    /// `cargo test`: one closing line for each test binary.
    Cargo,
    /// pytest: one closing line.
    Pytest,
    /// `node --test`: one closing line for each kind of outcome.
    Node,
}

impl Tally {
    /// All tests that ran.
    pub(crate) fn ran(self) -> u64 {
        self.passed + self.failed
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Runs a test runner, shows its output as it comes, and counts.
/// The exit code, where there is one, comes with the count: a runner may fail without a failed test.
pub(crate) fn run(command: &mut Command, runner: Runner) -> Result<(Option<i32>, Tally)> {
    run_into(command, runner, &mut io::stdout().lock())
}

fn run_into(command: &mut Command, runner: Runner, out: &mut impl Write) -> Result<(Option<i32>, Tally)> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {}", line(command)))?;
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes)? > 0 {
            out.write_all(&bytes)?;
            tally += count(&String::from_utf8_lossy(&bytes), runner);
            bytes.clear();
        }
        out.flush()?;
    }
    let status = child.wait().with_context(|| format!("lost {}", line(command)))?;
    Ok((status.code(), tally))
}

/// Whether the runners may colour their output, which they cannot see for themselves through a pipe.
pub(crate) fn colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// What one line of output adds.
fn count(text: &str, runner: Runner) -> Tally {
    let text = without_colour(text);
    let text = text.trim();
    let counted = match runner {
        Runner::Cargo => text.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")).map(|(_, n)| n),
        // `=== 3 passed, 1 skipped in 0.10s ===`, or without the signs with `-q`.
        Runner::Pytest => {
            let bare = text.trim_matches(|c| c == '=' || c == ' ');
            bare.rsplit_once(" in ").filter(|(_, time)| time.split(' ').next().is_some_and(seconds)).map(|(n, _)| n)
        }
        // `# pass 3` or `ℹ pass 3`: the number is last.
        Runner::Node => {
            let rest = text.strip_prefix("# ").or_else(|| text.strip_prefix("ℹ "));
            let Some((word, number)) = rest.and_then(|rest| rest.split_once(' ')) else { return Tally::default() };
            return number.parse().map_or_else(|_| Tally::default(), |number| of(word, number));
        }
    };
    let mut tally = Tally::default();
    for part in counted.unwrap_or_default().split([',', ';']) {
        if let Some((number, word)) = part.trim().split_once(' ')
            && let Ok(number) = number.parse()
        {
            tally += of(word, number);
        }
    }
    tally
}

fn of(word: &str, number: u64) -> Tally {
    match word {
        "passed" | "pass" => Tally { passed: number, ..Tally::default() },
        "failed" | "fail" | "error" | "errors" | "cancelled" => Tally { failed: number, ..Tally::default() },
        "ignored" | "skipped" | "todo" | "xfailed" => Tally { skipped: number, ..Tally::default() },
        _ => Tally::default(),
    }
}

fn seconds(text: &str) -> bool {
    text.strip_suffix('s').is_some_and(|number| number.parse::<f64>().is_ok())
}

/// The text without terminal escape sequences of the form `ESC [ … letter`.
fn without_colour(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            chars.by_ref().skip_while(|&c| c == '[').find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(runner: Runner, text: &str) -> (u64, u64, u64) {
        let tally = count(text, runner);
        (tally.passed, tally.failed, tally.skipped)
    }

    #[test]
    fn cargo_closing_lines_count() {
        let line = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s\n";
        assert_eq!(counts(Runner::Cargo, line), (12, 0, 1));
        let line =
            "test result: \u{1b}[31mFAILED\u{1b}(B\u{1b}[m. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(counts(Runner::Cargo, line), (1, 2, 0));
        assert_eq!(counts(Runner::Cargo, "test tests::it ... ok"), (0, 0, 0));
    }

    #[test]
    fn pytest_closing_lines_count() {
        let line = "\u{1b}[32m====== \u{1b}[32m\u{1b}[1m5 passed\u{1b}[0m, 1 skipped in 0.12s ======\u{1b}[0m";
        assert_eq!(counts(Runner::Pytest, line), (5, 0, 1));
        assert_eq!(counts(Runner::Pytest, "1 failed, 2 passed, 1 error in 61.30s (0:01:01)"), (2, 2, 0));
        assert_eq!(counts(Runner::Pytest, "7 passed in the file"), (0, 0, 0));
    }

    #[test]
    fn node_closing_lines_count() {
        assert_eq!(counts(Runner::Node, "# pass 4"), (4, 0, 0));
        assert_eq!(counts(Runner::Node, "ℹ fail 2"), (0, 2, 0));
        assert_eq!(counts(Runner::Node, "# cancelled 1"), (0, 1, 0));
        assert_eq!(counts(Runner::Node, "# tests 4"), (0, 0, 0));
    }

    #[cfg(unix)]
    #[test]
    fn a_runner_is_shown_and_counted() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'test result: ok. 2 passed; 1 failed; 0 ignored'; exit 3"]);
        let mut shown = Vec::new();
        let (code, tally) = run_into(&mut command, Runner::Cargo, &mut shown).unwrap();
        assert_eq!(code, Some(3));
        assert_eq!(shown, b"test result: ok. 2 passed; 1 failed; 0 ignored\n");
        assert_eq!(tally.to_string(), "2 passed, 1 failed, 0 skipped");
    }
}
