//! Where each value of the configuration came from.

use std::collections::HashMap;
use std::fmt;

use toml::de::{DeTable, DeValue};

use super::unknown_keys::line_of;

/// What gave a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody said anything.
    Default,
    /// It was generated once and is kept in the data directory.
    DataDirectory,
    /// The configuration file, in this line (from 1).
    File(usize),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::DataDirectory => formatter.write_str("data directory"),
            Self::File(line) => write!(formatter, "file, line {line}"),
            Self::Environment(name) => write!(formatter, "environment, {name}"),
            Self::Flag(name) => write!(formatter, "flag, {name}"),
        }
    }
}

/// Which keys the command line and the environment gave. Keys are written as in the file: `log.level`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources(pub(crate) HashMap<&'static str, Origin>);

/// Which keys the file has, and in which line each stands: `log.level`, `hub[0].route[1].condition`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written(HashMap<String, usize>);

impl Written {
    /// The keys of `text`, which is known to be a configuration.
    pub(super) fn of(text: &str, table: &DeTable<'_>) -> Self {
        let mut written = Self::default();
        written.table(text, "", table);
        written
    }

    fn table(&mut self, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name: &str = key.get_ref();
            let place = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
            match value.get_ref() {
                DeValue::Table(inner) => {
                    self.table(text, &place, inner);
                    // The table itself is a value where its keys are the operator's own (labels).
                    self.0.insert(place, line_of(text, key.span().start));
                }
                DeValue::Array(items) if items.iter().any(|item| item.get_ref().as_table().is_some()) => {
                    for (index, item) in items.iter().enumerate() {
                        if let Some(inner) = item.get_ref().as_table() {
                            self.table(text, &format!("{place}[{index}]"), inner);
                        }
                    }
                }
                _ => {
                    self.0.insert(place, line_of(text, key.span().start));
                }
            }
        }
    }

    /// The line of a key, if the file has it.
    pub(super) fn line(&self, place: &str) -> Option<usize> {
        self.0.get(place).copied()
    }
}
