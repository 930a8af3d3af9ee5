//! Message enrichments: application properties that the hub adds for some endpoints.

use crate::names::{EndpointName, EnrichmentKey, InvalidName};
use crate::program::{Step, TwinPath, TwinSection};

/// The longest value text of an enrichment, in bytes; our own bound. A longer one is refused.
pub const MAX_ENRICHMENT_VALUE_BYTES: usize = 4096;

/// An application property that messages get on their way to some endpoints (protocol notes: routing §4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrichment {
    /// The name of the property.
    pub key: EnrichmentKey,
    /// Where its value comes from.
    pub value: EnrichmentValue,
    /// The endpoints whose messages get it.
    pub endpoints: Vec<EndpointName>,
}

/// Why an enrichment is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEnrichment {
    /// The key is no name.
    #[error("the enrichment's key is not valid: {0}")]
    Key(InvalidName),
    /// The name of an endpoint is no name.
    #[error("the enrichment's endpoint is not valid: {0}")]
    Endpoint(InvalidName),
    /// The value is longer than [`MAX_ENRICHMENT_VALUE_BYTES`].
    #[error("the enrichment's value has more than {MAX_ENRICHMENT_VALUE_BYTES} bytes")]
    ValueTooLong,
}

impl Enrichment {
    /// Reads an enrichment from its configured form.
    ///
    /// # Errors
    /// A name or the length of the value breaks a rule.
    pub fn parse(key: &str, value: &str, endpoints: &[impl AsRef<str>]) -> Result<Self, InvalidEnrichment> {
        if value.len() > MAX_ENRICHMENT_VALUE_BYTES {
            return Err(InvalidEnrichment::ValueTooLong);
        }
        Ok(Self {
            key: EnrichmentKey::parse(key).map_err(InvalidEnrichment::Key)?,
            value: EnrichmentValue::parse(value),
            endpoints: endpoints
                .iter()
                .map(|name| EndpointName::parse(name.as_ref()).map_err(InvalidEnrichment::Endpoint))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Where the value of an enrichment comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnrichmentValue {
    /// The text itself.
    Static(String),
    /// `$iothubname`: the short name of the hub.
    HubName,
    /// A path into the sender's twin.
    Twin {
        /// The path.
        path: TwinPath,
        /// The path as it was written: the value where the twin has nothing there.
        literal: String,
    },
}

impl EnrichmentValue {
    /// Reads the configured text. Whatever is neither `$iothubname` nor a path into the twin is static text, which is
    /// also what a path that leads nowhere gives. Names and sections are read without regard to case; a path has
    /// members separated by dots, `[0]` for elements and `[[name]]` for names with dots or brackets.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if text.eq_ignore_ascii_case("$iothubname") {
            return Self::HubName;
        }
        match twin_path(text) {
            Some(path) => Self::Twin { path, literal: text.to_owned() },
            None => Self::Static(text.to_owned()),
        }
    }
}

fn twin_path(text: &str) -> Option<TwinPath> {
    let sections = [
        ("$twin.tags", TwinSection::Tags),
        ("$twin.properties.desired", TwinSection::Desired),
        ("$twin.properties.reported", TwinSection::Reported),
    ];
    let (section, mut rest) = sections.into_iter().find_map(|(prefix, section)| {
        let head = text.get(..prefix.len())?;
        head.eq_ignore_ascii_case(prefix).then_some((section, text.get(prefix.len()..)?))
    })?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let step;
        (step, rest) = if let Some(escaped) = rest.strip_prefix(".[[") {
            let (name, rest) = escaped.split_once("]]")?;
            (Step::Member(name.to_owned()), rest)
        } else if let Some(name) = rest.strip_prefix('.') {
            let end = name.find(['.', '[']).unwrap_or(name.len());
            let (name, rest) = name.split_at(end);
            (Step::Member(name.to_owned()), rest)
        } else {
            let (index, rest) = rest.strip_prefix('[')?.split_once(']')?;
            (Step::Element(index.parse().ok()?), rest)
        };
        if step == Step::Member(String::new()) {
            return None;
        }
        steps.push(step);
    }
    (!steps.is_empty()).then_some(TwinPath { section, steps })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_recognised() {
        assert_eq!(EnrichmentValue::parse("$IotHubName"), EnrichmentValue::HubName);
        let member = |name: &str| Step::Member(name.into());
        let twin = |text: &str| match EnrichmentValue::parse(text) {
            EnrichmentValue::Twin { path, literal } if literal == text => Some((path.section, path.steps)),
            EnrichmentValue::Static(literal) if literal == text => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(twin("$twin.tags.location"), Some((TwinSection::Tags, vec![member("location")])));
        assert_eq!(
            twin("$Twin.properties.Desired.a[2].[[b.c]].d"),
            Some((TwinSection::Desired, vec![member("a"), Step::Element(2), member("b.c"), member("d")]))
        );
        assert_eq!(twin("$twin.properties.reported.x"), Some((TwinSection::Reported, vec![member("x")])));
        for text in ["plain", "$twin", "$twin.tags", "$twin.tagsx", "$twin.tags.", "$twin.tags.a..b", "$twin.tags.a[x]"]
        {
            assert_eq!(twin(text), None, "{text}");
        }
        for text in ["$twin.tags.a[", "$twin.tags.[[a", "$twin.deviceId", "", "$twin.tägs"] {
            assert_eq!(twin(text), None, "{text}");
        }
    }

    #[test]
    fn enrichments_are_checked() {
        let good = Enrichment::parse("loc", "$twin.tags.location", &["events", "cold"]).unwrap();
        assert_eq!(good.endpoints.len(), 2);
        let none: [&str; 0] = [];
        assert!(matches!(Enrichment::parse("a b", "x", &none), Err(InvalidEnrichment::Key(_))));
        assert!(matches!(Enrichment::parse("a", "x", &["$default"]), Err(InvalidEnrichment::Endpoint(_))));
        let long = "x".repeat(MAX_ENRICHMENT_VALUE_BYTES + 1);
        assert_eq!(Enrichment::parse("a", &long, &none), Err(InvalidEnrichment::ValueTooLong));
    }
}
