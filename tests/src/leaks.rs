//! No secret in any output: every key, token and private key that the tests use is remembered, every output of the hub is
//! collected, and what was remembered is looked for in what was collected.
//!
//! [`collect`] looks for what this process knows so far. With [`LEDGER`] in the environment both are also written down, each
//! process in files of its own; the suites in other languages do the same, and [`check`] looks for everything in everything
//! when all have run.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, process};

use anyhow::{Context as _, Result, bail};

/// The variable that names the folder of the ledger.
pub const LEDGER: &str = "NAVE_SECRETS_DIR";

/// Shorter texts are no secrets: they would be found by accident.
const SHORTEST: usize = 16;

/// The folders in the ledger: secrets, one a line, and outputs.
const KNOWN: &str = "known";
const OUTPUT: &str = "output";

static REMEMBERED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
static OUTPUTS: AtomicU64 = AtomicU64::new(0);

/// Notes a secret; of a private key each line of its text.
///
/// # Panics
/// The ledger cannot be written.
pub fn remember(secret: &str) {
    let lines = secret.lines().filter(|line| !line.starts_with("-----") && line.len() >= SHORTEST);
    let mut known = REMEMBERED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for line in lines {
        if known.insert(line.to_owned())
            && let Some(ledger) = ledger()
        {
            let file = ledger.join(KNOWN).join(format!("rust-{}", process::id()));
            write(&file, format!("{line}\n").as_bytes());
        }
    }
}

/// Notes an output in which no secret may be, and looks for those that are known.
///
/// # Panics
/// There is one in it, or the ledger cannot be written.
pub fn collect(what: &str, text: &str) {
    if let Some(ledger) = ledger() {
        let number = OUTPUTS.fetch_add(1, Ordering::Relaxed);
        let name = what.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        write(&ledger.join(OUTPUT).join(format!("rust-{}-{number}-{name}", process::id())), text.as_bytes());
    }
    search(what, text);
}

fn search(what: &str, text: &str) {
    let found = Finder::of(REMEMBERED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).iter()).find(text);
    assert!(found.is_none(), "a secret is in {what}: {}", found.unwrap_or_default());
}

/// What a look through a ledger found out.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    /// Secrets that were looked for.
    pub secrets: usize,
    /// Outputs that were looked through.
    pub outputs: usize,
    /// Their size.
    pub bytes: usize,
}

/// Looks for all secrets in all outputs of a ledger.
///
/// # Errors
/// One is in there, named by where it stands and not by its text; or nothing was remembered or collected.
pub fn check(ledger: &Path) -> Result<Summary> {
    let mut secrets = BTreeSet::new();
    for file in files(&ledger.join(KNOWN))? {
        let text = fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
        secrets.extend(text.lines().filter(|line| line.len() >= SHORTEST).map(str::to_owned));
    }
    let finder = Finder::of(secrets.iter());
    let mut summary = Summary { secrets: secrets.len(), outputs: 0, bytes: 0 };
    let mut leaks = Vec::new();
    for file in files(&ledger.join(OUTPUT))? {
        let text = String::from_utf8_lossy(&fs::read(&file)?).into_owned();
        summary.outputs += 1;
        summary.bytes += text.len();
        leaks.extend(finder.find(&text).map(|place| format!("{}: {place}", file.display())));
    }
    if !leaks.is_empty() {
        bail!("secrets are in {} of {} outputs:\n{}", leaks.len(), summary.outputs, leaks.join("\n"));
    }
    if summary.secrets == 0 || summary.outputs == 0 {
        bail!("nothing to look for, or nothing to look through: {summary:?}");
    }
    Ok(summary)
}

/// Prepares an empty ledger.
///
/// # Errors
/// The folder cannot be made.
pub fn begin(ledger: &Path) -> Result<()> {
    if ledger.exists() {
        fs::remove_dir_all(ledger).with_context(|| format!("{}", ledger.display()))?;
    }
    for folder in [KNOWN, OUTPUT] {
        let folder = ledger.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    }
    Ok(())
}

fn ledger() -> Option<PathBuf> {
    env::var_os(LEDGER).map(PathBuf::from)
}

fn write(file: &Path, bytes: &[u8]) {
    let written = OpenOptions::new().create(true).append(true).open(file).and_then(|mut file| file.write_all(bytes));
    assert!(written.is_ok(), "{}: {written:?}", file.display());
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    Ok(files)
}

/// Secrets by how they begin, so that a text is gone through once however many there are.
struct Finder<'a>(HashMap<&'a [u8], Vec<&'a str>>);

impl<'a> Finder<'a> {
    fn of(secrets: impl Iterator<Item = &'a String>) -> Self {
        let mut beginnings: HashMap<&[u8], Vec<&str>> = HashMap::new();
        for secret in secrets {
            if let Some(beginning) = secret.as_bytes().get(..SHORTEST) {
                beginnings.entry(beginning).or_default().push(secret);
            }
        }
        Self(beginnings)
    }

    /// The line with the first secret, the secret blacked out.
    fn find(&self, text: &str) -> Option<String> {
        let bytes = text.as_bytes();
        let at = |at: usize| {
            let here = bytes.get(at..)?;
            let candidates = self.0.get(here.get(..SHORTEST)?)?;
            candidates.iter().find(|secret| here.starts_with(secret.as_bytes())).map(|secret| (at, *secret))
        };
        let (at, secret) = (0..bytes.len()).find_map(at)?;
        let before = bytes.get(..at).unwrap_or_default();
        let number = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let line = text.lines().nth(number - 1).unwrap_or_default().replace(secret, "(the secret)");
        Some(format!("line {number}: {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_wherever_it_is_and_not_repeated() {
        let secrets = ["0123456789abcdef-one".to_owned(), "0123456789abcdef-two".to_owned()];
        let finder = Finder::of(secrets.iter());
        assert_eq!(finder.find("0123456789abcdef-three\nnothing 0123456789abcde"), None);
        let found = finder.find("first\nkey=0123456789abcdef-two; x").unwrap();
        assert_eq!(found, "line 2: key=(the secret); x");
    }

    #[test]
    fn what_one_process_says_another_knows() {
        let dir = env::temp_dir().join(format!("nave-leaks-{}", process::id()));
        begin(&dir).unwrap();
        assert!(check(&dir).is_err(), "nothing to look through");
        fs::write(dir.join(KNOWN).join("python"), "a-secret-of-the-python-suite\nshort\n").unwrap();
        fs::write(dir.join(OUTPUT).join("node-log"), "short and harmless\n").unwrap();
        let summary = check(&dir).unwrap();
        assert_eq!((summary.secrets, summary.outputs), (1, 1));
        fs::write(dir.join(OUTPUT).join("rust-log"), "x\nsaid a-secret-of-the-python-suite\n").unwrap();
        let error = check(&dir).unwrap_err().to_string();
        assert!(error.contains("rust-log: line 2: said (the secret)"), "{error}");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    #[should_panic(expected = "a secret is in the log: line 1: (the secret)")]
    fn what_is_collected_is_looked_through() {
        remember("-----BEGIN PRIVATE KEY-----\nnot-really-a-private-key-but-long\n-----END PRIVATE KEY-----\n");
        // Not collected: what is written down here must not be in the ledger of the whole run.
        search("the log", "not-really-a-private-key-but-long");
    }
}
