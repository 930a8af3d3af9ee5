//! A message as conditions and enrichments see it.

use std::borrow::Cow;
use std::cell::OnceCell;

use crate::json::Json;
use crate::names::same_name;
use crate::program::{SystemProperty, TwinPath, TwinSection};
use crate::source::Source;

/// The properties that the hub or the transport set on a message; `None` where the message has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is documented at the variant of `SystemProperty` with its name")]
pub struct SystemProperties<'a> {
    pub content_type: Option<&'a str>,
    pub content_encoding: Option<&'a str>,
    pub connection_device_id: Option<&'a str>,
    pub connection_module_id: Option<&'a str>,
    pub connection_auth_method: Option<&'a str>,
    pub connection_device_generation_id: Option<&'a str>,
    pub enqueued_time: Option<&'a str>,
    pub message_id: Option<&'a str>,
    pub correlation_id: Option<&'a str>,
    pub user_id: Option<&'a str>,
    pub dt_dataschema: Option<&'a str>,
    pub dt_subject: Option<&'a str>,
}

impl<'a> SystemProperties<'a> {
    /// The value of one property.
    #[must_use]
    pub fn get(&self, property: SystemProperty) -> Option<&'a str> {
        match property {
            SystemProperty::ContentType => self.content_type,
            SystemProperty::ContentEncoding => self.content_encoding,
            SystemProperty::ConnectionDeviceId => self.connection_device_id,
            SystemProperty::ConnectionModuleId => self.connection_module_id,
            SystemProperty::ConnectionAuthMethod => self.connection_auth_method,
            SystemProperty::ConnectionDeviceGenerationId => self.connection_device_generation_id,
            SystemProperty::EnqueuedTime => self.enqueued_time,
            SystemProperty::MessageId => self.message_id,
            SystemProperty::CorrelationId => self.correlation_id,
            SystemProperty::UserId => self.user_id,
            SystemProperty::DtDataschema => self.dt_dataschema,
            SystemProperty::DtSubject => self.dt_subject,
        }
    }

    fn size(&self) -> usize {
        SystemProperty::ALL.into_iter().filter_map(|property| self.get(property)).map(str::len).sum()
    }
}

/// The application properties of a message, in the order sent.
pub trait Properties {
    /// How many there are.
    fn count(&self) -> usize;

    /// Name and value of the property at `index`; `None` from [`Self::count`] on.
    fn at(&self, index: usize) -> Option<(&str, &str)>;
}

/// A message without application properties.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProperties;

impl Properties for NoProperties {
    fn count(&self) -> usize {
        0
    }
    fn at(&self, _: usize) -> Option<(&str, &str)> {
        None
    }
}

impl<K: AsRef<str>, V: AsRef<str>> Properties for &[(K, V)] {
    fn count(&self) -> usize {
        self.len()
    }
    fn at(&self, index: usize) -> Option<(&str, &str)> {
        self.get(index).map(|(name, value)| (name.as_ref(), value.as_ref()))
    }
}

impl<K: AsRef<str>, V: AsRef<str>, const N: usize> Properties for [(K, V); N] {
    fn count(&self) -> usize {
        N
    }
    fn at(&self, index: usize) -> Option<(&str, &str)> {
        self.get(index).map(|(name, value)| (name.as_ref(), value.as_ref()))
    }
}

impl<K: AsRef<str>, V: AsRef<str>> Properties for Vec<(K, V)> {
    fn count(&self) -> usize {
        self.len()
    }
    fn at(&self, index: usize) -> Option<(&str, &str)> {
        self.get(index).map(|(name, value)| (name.as_ref(), value.as_ref()))
    }
}

/// The twin of the device or module that a message is about. Asked at most once for each section and message, and only
/// when a condition or an enrichment reads it.
pub trait TwinSections {
    /// The JSON text of a section as back ends see it, `$metadata` and `$version` included; `None` when the twin has
    /// no such section (modules and devices have all three).
    fn section(&self, section: TwinSection) -> Option<Cow<'_, str>>;
}

/// A twin whose sections are at hand as text.
#[derive(Clone, Copy, Debug, Default)]
pub struct TwinText<'a> {
    /// JSON text of the tags.
    pub tags: Option<&'a str>,
    /// JSON text of the desired properties.
    pub desired: Option<&'a str>,
    /// JSON text of the reported properties.
    pub reported: Option<&'a str>,
}

impl TwinSections for TwinText<'_> {
    fn section(&self, section: TwinSection) -> Option<Cow<'_, str>> {
        match section {
            TwinSection::Tags => self.tags,
            TwinSection::Desired => self.desired,
            TwinSection::Reported => self.reported,
        }
        .map(Cow::Borrowed)
    }
}

/// A message, borrowed, and what has been parsed of it so far: the body and each section of the twin at most once,
/// whatever the number of routes.
pub struct MessageView<'a> {
    source: Source,
    system: SystemProperties<'a>,
    application: &'a dyn Properties,
    body: &'a [u8],
    twin: Option<&'a dyn TwinSections>,
    parsed_body: OnceCell<Option<Json>>,
    twin_text: [OnceCell<Option<Cow<'a, str>>>; 3],
    parsed_twin: [OnceCell<Option<Json>>; 3],
}

impl<'a> MessageView<'a> {
    /// A message with the given body and without any property or twin.
    #[must_use]
    pub fn new(source: Source, body: &'a [u8]) -> Self {
        Self {
            source,
            system: SystemProperties::default(),
            application: &NoProperties,
            body,
            twin: None,
            parsed_body: OnceCell::new(),
            twin_text: [const { OnceCell::new() }; 3],
            parsed_twin: [const { OnceCell::new() }; 3],
        }
    }

    /// The same message with system properties.
    #[must_use]
    pub fn with_system(self, system: SystemProperties<'a>) -> Self {
        Self { system, parsed_body: OnceCell::new(), ..self }
    }

    /// The same message with application properties.
    #[must_use]
    pub fn with_application(self, application: &'a dyn Properties) -> Self {
        Self { application, ..self }
    }

    /// The same message with the twin of its sender. Needed where [`crate::RouteTable::needs_twin`] says so; without
    /// it, every twin path is undefined.
    #[must_use]
    pub fn with_twin(self, twin: &'a dyn TwinSections) -> Self {
        let unread = Self::new(self.source, self.body);
        Self { twin: Some(twin), twin_text: unread.twin_text, parsed_twin: unread.parsed_twin, ..self }
    }

    /// Where the message comes from.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// The system properties.
    #[must_use]
    pub fn system(&self) -> &SystemProperties<'a> {
        &self.system
    }

    /// The application property with the given name, without regard to case. Where several properties have it, the
    /// last one counts.
    #[must_use]
    pub fn application(&self, name: &str) -> Option<&'a str> {
        let properties = self.application;
        (0..properties.count())
            .rev()
            .filter_map(|index| properties.at(index))
            .find(|(candidate, _)| same_name(candidate, name))
            .map(|(_, value)| value)
    }

    /// The body as JSON. `None` unless the content type is `application/json`, the content encoding is UTF-8, UTF-16
    /// or UTF-32 and the body is well-formed in both (protocol notes: routing §3.2).
    #[must_use]
    pub fn body_json(&self) -> Option<&Json> {
        self.parsed_body.get_or_init(|| Json::parse(self.body_text()?.as_ref())).as_ref()
    }

    /// The body in UTF-8, where conditions can look into it; it need not be well-formed JSON.
    pub(crate) fn body_text(&self) -> Option<Cow<'a, [u8]>> {
        Encoding::of(&self.system)?.decode(self.body)
    }

    /// How many bytes the body has, as it was sent.
    pub(crate) fn body_size(&self) -> usize {
        self.body.len()
    }

    /// Name and value of the application property at a place.
    #[inline]
    pub(crate) fn property(&self, index: usize) -> Option<(&'a str, &'a str)> {
        self.application.at(index)
    }

    /// The JSON text of a section of the twin.
    pub(crate) fn twin_text(&self, section: TwinSection) -> Option<&str> {
        let [tags, desired, reported] = &self.twin_text;
        let cell = match section {
            TwinSection::Tags => tags,
            TwinSection::Desired => desired,
            TwinSection::Reported => reported,
        };
        cell.get_or_init(|| self.twin?.section(section)).as_deref()
    }

    /// The value at a path of the twin.
    #[must_use]
    pub fn twin_json(&self, path: &TwinPath) -> Option<&Json> {
        let cell = match path.section {
            TwinSection::Tags => &self.parsed_twin[0],
            TwinSection::Desired => &self.parsed_twin[1],
            TwinSection::Reported => &self.parsed_twin[2],
        };
        cell.get_or_init(|| Json::parse(self.twin_text(path.section)?.as_bytes())).as_ref()?.at(&path.steps)
    }

    /// Bytes of the body and of all properties, names included: what the limit of enriched messages counts.
    #[must_use]
    pub fn size(&self) -> usize {
        let application: usize = (0..self.application.count())
            .filter_map(|index| self.application.at(index))
            .map(|(name, value)| name.len() + value.len())
            .sum();
        self.body.len() + self.system.size() + application
    }
}

/// The character encodings of a JSON body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Utf16,
    Utf32,
}

impl Encoding {
    /// The encoding of a body that conditions can look into.
    fn of(system: &SystemProperties<'_>) -> Option<Self> {
        let media_type = system.content_type?.split(';').next()?.trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            return None;
        }
        let encoding = system.content_encoding?.trim();
        [("utf-8", Self::Utf8), ("utf-16", Self::Utf16), ("utf-32", Self::Utf32)]
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(encoding))
            .map(|(_, encoding)| encoding)
    }

    /// The body as UTF-8, without byte order mark. Without a mark, UTF-16 and UTF-32 are little-endian, as .NET and
    /// Windows write them.
    fn decode(self, body: &[u8]) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Utf8 => Some(Cow::Borrowed(body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body))),
            Self::Utf16 => {
                let (units, rest) = body.as_chunks::<2>();
                let big = units.first() == Some(&[0xFE, 0xFF]);
                let units =
                    units.iter().map(|&unit| if big { u16::from_be_bytes(unit) } else { u16::from_le_bytes(unit) });
                let text: String = char::decode_utf16(units).collect::<Result<_, _>>().ok()?;
                rest.is_empty().then(|| without_mark(text))
            }
            Self::Utf32 => {
                let (units, rest) = body.as_chunks::<4>();
                let big = units.first() == Some(&[0, 0, 0xFE, 0xFF]);
                let units =
                    units.iter().map(|&unit| if big { u32::from_be_bytes(unit) } else { u32::from_le_bytes(unit) });
                let text = units.map(char::from_u32).collect::<Option<String>>()?;
                rest.is_empty().then(|| without_mark(text))
            }
        }
    }
}

fn without_mark(text: String) -> Cow<'static, [u8]> {
    let text = text.strip_prefix('\u{FEFF}').map(str::to_owned).unwrap_or(text);
    Cow::Owned(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Step;

    fn body_is_readable(content_type: Option<&str>, content_encoding: Option<&str>, body: &[u8]) -> bool {
        let system = SystemProperties { content_type, content_encoding, ..SystemProperties::default() };
        MessageView::new(Source::DeviceMessages, body).with_system(system).body_json().is_some()
    }

    #[test]
    fn bodies_are_readable_only_as_json_in_a_unicode_encoding() {
        let json = Some("application/json");
        assert!(body_is_readable(json, Some("utf-8"), b"{}"));
        assert!(body_is_readable(Some("Application/JSON; charset=utf-8"), Some("UTF-8"), b"{}"));
        assert!(body_is_readable(Some("application/json;charset=utf-8"), Some("utf-8"), b"\xEF\xBB\xBF{}"));
        assert!(!body_is_readable(json, None, b"{}"));
        assert!(!body_is_readable(None, Some("utf-8"), b"{}"));
        assert!(!body_is_readable(json, Some("base64"), b"{}"));
        assert!(!body_is_readable(json, Some("gzip"), b"{}"));
        assert!(!body_is_readable(Some("application/json-patch+json"), Some("utf-8"), b"[]"));
        assert!(!body_is_readable(Some("text/plain"), Some("utf-8"), b"{}"));
        assert!(!body_is_readable(json, Some("utf-8"), b"{"));
        assert!(!body_is_readable(json, Some("utf-8"), b"\"\xFF\""));
    }

    #[test]
    fn wide_encodings_are_decoded_with_and_without_mark() {
        let text = r#"{"k":"ö😀"}"#;
        let marked = format!("\u{FEFF}{text}");
        for text in [text, &marked] {
            let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let utf32: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
            for (name, bytes) in [("utf-16", &utf16), ("utf-32", &utf32)] {
                assert!(body_is_readable(Some("application/json"), Some(name), bytes), "{name}");
                assert!(!body_is_readable(Some("application/json"), Some(name), &bytes[..bytes.len() - 1]), "{name}");
            }
        }
        let big16: Vec<u8> = marked.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let big32: Vec<u8> = marked.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect();
        assert!(body_is_readable(Some("application/json"), Some("utf-16"), &big16));
        assert!(body_is_readable(Some("application/json"), Some("utf-32"), &big32));
        assert!(!body_is_readable(Some("application/json"), Some("utf-16"), &[0x00, 0xD8]));
        assert!(!body_is_readable(Some("application/json"), Some("utf-32"), &[0, 0, 0x11, 0]));
    }

    #[test]
    fn application_properties_are_found_without_regard_to_case_the_last_one_first() {
        let properties = vec![("Level".to_owned(), "a".to_owned()), ("LEVEL".to_owned(), "b".to_owned())];
        let message = MessageView::new(Source::DeviceMessages, b"xy").with_application(&properties);
        assert_eq!(message.application("level"), Some("b"));
        assert_eq!(message.application("levels"), None);
        assert_eq!(message.size(), 2 + 12);
    }

    #[test]
    fn each_section_of_the_twin_is_asked_for_once() {
        struct Counting(std::cell::Cell<u32>);
        impl TwinSections for Counting {
            fn section(&self, section: TwinSection) -> Option<Cow<'_, str>> {
                self.0.set(self.0.get() + 1);
                (section == TwinSection::Tags).then_some(Cow::Borrowed(r#"{"a":1}"#))
            }
        }
        let twin = Counting(std::cell::Cell::new(0));
        let message = MessageView::new(Source::DeviceMessages, b"").with_twin(&twin);
        let path = |section| TwinPath { section, steps: vec![Step::Member("a".into())] };
        for _ in 0..3 {
            assert_eq!(message.twin_json(&path(TwinSection::Tags)), Some(&Json::Number(1.into())));
            assert_eq!(message.twin_json(&path(TwinSection::Reported)), None);
        }
        assert_eq!(twin.0.get(), 2);
    }
}
