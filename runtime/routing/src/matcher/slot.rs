//! What a term is worth for one message.

/// The value of a term. Texts are places in the message or in the scratch memory, so that slots can be kept between
/// messages.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Slot {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// Missing, or without meaning.
    Undefined,
    /// JSON null.
    Null,
    /// A boolean.
    Boolean(bool),
    /// A number.
    Number(f64),
    /// A string.
    Text(TextPlace),
    /// A JSON array.
    Array,
    /// A JSON object.
    Object,
}

/// Where a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TextPlace {
    /// What it is a part of.
    pub(super) origin: Origin,
    /// The first byte.
    pub(super) start: u32,
    /// The byte after the last.
    pub(super) end: u32,
}

/// What a text can be a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The body in UTF-8.
    Body,
    /// A section of the twin, by its number.
    Twin(u8),
    /// The value of an application property; `start` is its index.
    Application,
    /// A system property; `start` is its place in `SystemProperty::ALL`.
    System,
    /// The scratch memory: texts that stand nowhere as they are.
    Scratch,
}
