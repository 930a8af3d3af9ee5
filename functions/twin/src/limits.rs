//! Every limit of twins. Unless said otherwise the source is "Understand and use device twins in IoT Hub" and "IoT Hub quotas
//! and throttling" of the Azure IoT Hub documentation.

/// Longest member name, in bytes of UTF-8. A longer one is refused.
pub const MAX_NAME_BYTES: usize = 1024;

/// Longest string value, in bytes of UTF-8. A longer one is refused.
pub const MAX_STRING_BYTES: usize = 4096;

/// Least integer, -2^52. A smaller one is refused; floats have no such limit.
pub const MIN_INTEGER: i64 = -(1 << 52);

/// Greatest integer, 2^52 - 1. A greater one is refused; floats have no such limit.
pub const MAX_INTEGER: i64 = (1 << 52) - 1;

/// How deeply objects and arrays nest below a section, which itself is level 0. Deeper ones are refused; the scalars inside
/// the tenth level are not. It also bounds the recursion of this crate.
pub const MAX_DEPTH: usize = 10;

/// What a number adds to the size of a section.
pub const NUMBER_SIZE: u32 = 8;

/// What a boolean adds to the size of a section.
pub const BOOLEAN_SIZE: u32 = 4;

/// Greatest size of the tags, counted as documented: the UTF-8 length of names and strings without control characters,
/// [`NUMBER_SIZE`] and [`BOOLEAN_SIZE`]; structure costs nothing. A change that would exceed it is refused.
pub const MAX_TAGS_SIZE: u32 = 8 * 1024;

/// Greatest size of the desired and of the reported section, each; counted as [`MAX_TAGS_SIZE`].
pub const MAX_SECTION_SIZE: u32 = 32 * 1024;

/// How much longer the text of a part may be than its greatest size.
///
/// Structure, empty strings, empty arrays and control characters count nothing, so without this bound a client could store
/// any amount of them. Ordinary documents stay below a factor of three (short names, long floats). The bound also bounds the
/// metadata, which has an object for each member.
pub const TEXT_PER_SIZE: u32 = 4;

/// Longest body of a service's change, in bytes. A service sends back what it read, so the body may hold both sections with
/// their metadata. A longer one is refused.
pub const MAX_SERVICE_BODY_BYTES: usize = 1024 * 1024;

/// Longest patch of reported properties, in bytes: what fits into one device-to-cloud message. A longer one is refused.
pub const MAX_REPORTED_PATCH_BYTES: usize = 256 * 1024;

/// How many values a body may hold in the parts that matter. The text of a section has no room for more; the bound keeps a
/// body of nothing but brackets from taking many times its size in memory.
pub const MAX_VALUES: u32 = 64 * 1024;

/// How deeply the ignored parts of a body may nest (metadata, the reported section of a full twin). The greatest twin needs
/// 13. Deeper bodies are refused, so that no input can exhaust the stack.
pub const MAX_IGNORED_DEPTH: usize = 64;

/// How much of a name is repeated in an error message, in characters.
pub const MAX_ECHOED_NAME: usize = 64;
