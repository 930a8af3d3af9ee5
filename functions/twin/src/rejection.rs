//! How faults become rejections: the words that clients read.

use crate::limits::MAX_ECHOED_NAME;
use crate::reader::SyntaxError;
use crate::{Excess, Part, Rejection, Rule, Violation};

/// What a text about an invalid document begins with, towards devices and services (seen from the cloud service).
const INVALID: &str = "Provided json is not a valid 'tags' or 'properties' object: ";

/// A fault in a received document, before it is known in which part of a twin.
#[derive(Debug)]
pub(crate) enum Fault {
    /// A rule is broken. Boxed: faults are rare and results are passed a lot.
    Broken(Box<Broken>),
    /// There are more values than this.
    TooMany(u32),
}

/// A broken rule.
#[derive(Debug)]
pub(crate) struct Broken {
    rule: Rule,
    reason: String,
    /// Names from the inside to the outside.
    path: Vec<String>,
}

impl Fault {
    pub(crate) fn new(rule: Rule, reason: impl Into<String>) -> Self {
        Self::Broken(Box::new(Broken { rule, reason: reason.into(), path: Vec::new() }))
    }

    /// The same fault, seen from the object whose member `name` has it.
    pub(crate) fn below(mut self, name: &str) -> Self {
        if let Self::Broken(broken) = &mut self {
            broken.path.push(echo(name));
        }
        self
    }

    /// The rejection, now that the part is known.
    pub(crate) fn reject(self, part: Option<Part>) -> Rejection {
        match self {
            Self::TooMany(limit) => too_large(part, limit, "values"),
            Self::Broken(broken) => {
                let Broken { rule, reason, mut path } = *broken;
                path.reverse();
                let path = path.join(".");
                let place = match (part, path.as_str()) {
                    (None, _) => String::new(),
                    (Some(part), "") => format!(" (in {})", name(part)),
                    (Some(part), path) => format!(" (in {}, at '{path}')", name(part)),
                };
                Rejection::Invalid(Violation { rule, part, path, message: format!("{INVALID}{reason}{place}") })
            }
        }
    }
}

impl From<SyntaxError> for Fault {
    fn from(error: SyntaxError) -> Self {
        Self::new(Rule::Syntax, format!("the text is not JSON: {} at byte {}", error.what, error.at))
    }
}

/// The rejection of a part, or of a whole body, that exceeds `limit`, counted in `unit`.
pub(crate) fn too_large(part: Option<Part>, limit: u32, unit: &str) -> Rejection {
    let what = part.map_or("the body", name);
    Rejection::TooLarge(Excess {
        part,
        limit,
        message: format!("{INVALID}{what} would exceed the limit of {limit} {unit}"),
    })
}

/// Stored state that is not in canonical form.
#[derive(Debug)]
pub(crate) struct Damaged {
    /// Offset in bytes.
    pub(crate) at: usize,
}

impl Damaged {
    /// The rejection; `what` names the text.
    pub(crate) fn reject(&self, part: Part, what: &str) -> Rejection {
        Rejection::DamagedState(format!("stored {what} of {} are not canonical JSON at byte {}", name(part), self.at))
    }
}

/// A name as messages repeat it: shortened, because a client chose it.
pub(crate) fn echo(name: &str) -> String {
    let mut characters = name.chars();
    let mut echoed: String = characters.by_ref().take(MAX_ECHOED_NAME).collect();
    if characters.next().is_some() {
        echoed.push('…');
    }
    echoed
}

fn name(part: Part) -> &'static str {
    match part {
        Part::Tags => "tags",
        Part::Desired => "properties.desired",
        Part::Reported => "properties.reported",
    }
}
