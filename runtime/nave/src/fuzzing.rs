//! Entry points for a fuzzer. Each takes any bytes and panics if an invariant is broken.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a fuzz target reports")]

use std::collections::BTreeSet;

pub use crate::backup::fuzz_backup;
use crate::config::{Config, ConfigError};
use crate::ready::Ready;
use crate::serve::Settings;

/// A configuration file. It is a configuration whose keys can be listed, or what is wrong is said with a line that exists.
pub fn fuzz_configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::of_text(text) {
        Ok((config, entries)) => {
            assert!(!config.hubs.is_empty() && !config.host_names().is_empty());
            let keys: BTreeSet<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
            assert_eq!(keys.len(), entries.len(), "a key is listed once");
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            if let ConfigError::Syntax { line: Some(line), .. } | ConfigError::UnknownKey { line, .. } = error {
                assert!((1..=text.split('\n').count()).contains(&line), "line {line}");
            }
        }
    }
}

/// The files that a hub writes for itself: `connection.json` and `settings.json`.
pub fn fuzz_own_files(data: &[u8]) {
    if let Ok(ready) = Ready::of_bytes(data) {
        let written = serde_json::to_vec(&ready).unwrap();
        assert!(Ready::of_bytes(&written).unwrap_or_else(|error| panic!("{error}")) == ready);
    }
    if let Ok(settings) = Settings::of_bytes(data) {
        assert!(settings.id_scope().is_ok() && settings.provisioning_policies().is_ok());
    }
}

#[cfg(test)]
mod tests {
    use nave_tests::fuzz::exercise;

    #[test]
    fn corpora_and_mutations() {
        exercise("configuration", super::fuzz_configuration);
        exercise("own_files", super::fuzz_own_files);
        exercise("backup", super::fuzz_backup);
    }
}
