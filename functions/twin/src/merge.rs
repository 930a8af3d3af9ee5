//! Merges a patch (RFC 7396) into stored text by splicing.
//!
//! The values and their `$metadata` are two texts of the same shape. Each is one [`Layer`] of the same merge, which copies runs
//! of members that the patch does not name and goes only into those that it does.

use crate::document::{Node, Object};
use crate::rejection::Damaged;
use crate::stored::{Cursor, escaped_size, value_size};

/// The values of a part after a merge.
pub(crate) struct Merged {
    /// The canonical text.
    pub(crate) json: String,
    /// What it counts.
    pub(crate) size: u32,
}

/// Merges `patch` into the values `old`, which count `size`.
pub(crate) fn merge_values(old: &str, size: u32, patch: &Object<'_>, growth: usize) -> Result<Merged, Damaged> {
    let mut json = String::with_capacity(old.len() + growth);
    let mut values = Values { size: i64::from(size) };
    merge(&mut values, old, patch, &mut json)?;
    Ok(Merged { json, size: values.size() })
}

/// The values of a part that consists of `patch` alone.
pub(crate) fn new_values(patch: &Object<'_>, capacity: usize) -> Merged {
    let mut json = String::with_capacity(capacity);
    let mut values = Values { size: 0 };
    values.write_object(patch, &mut json);
    Merged { json, size: values.size() }
}

/// Merges the members that `patch` names into the metadata `old`; they and the objects around them get `stamp`.
pub(crate) fn merge_metadata(old: &str, patch: &Object<'_>, stamp: &str, growth: usize) -> Result<String, Damaged> {
    let mut json = String::with_capacity(old.len() + growth);
    merge(&mut Metadata { stamp }, old, patch, &mut json)?;
    Ok(json)
}

/// The metadata of a part that consists of `patch` alone, or of the members that a patch names.
pub(crate) fn new_metadata(patch: &Object<'_>, stamp: &str) -> String {
    let mut json = String::with_capacity((stamp.len() + 16) * (patch.members().len() + 1));
    Metadata { stamp }.write_object(patch, &mut json);
    json
}

/// The patch itself, nulls included.
pub(crate) fn write_patch(patch: &Object<'_>, out: &mut String) {
    out.push('{');
    for (place, member) in patch.members().iter().enumerate() {
        separate(place > 0, out);
        write_name(&member.name, out);
        match &member.value {
            Node::Null => out.push_str("null"),
            Node::Object(object) => write_patch(object, out),
            other => {
                Values { size: 0 }.write(other, out);
            }
        }
    }
    out.push('}');
}

/// The patch that removes every member of the values `old`.
pub(crate) fn write_removal(old: &str, out: &mut String) -> Result<(), Damaged> {
    let mut cursor = Cursor::new(old);
    cursor.open()?;
    out.push('{');
    let mut any = false;
    while let Some(member) = cursor.member()? {
        cursor.skip()?;
        separate(any, out);
        any = true;
        write_name(member.name, out);
        out.push_str("null");
    }
    out.push('}');
    cursor.finish()
}

/// One of the two texts of a section.
trait Layer {
    /// Opens an object, with what this layer has in front of its members; whether that is anything.
    fn open(&self, out: &mut String) -> bool;

    /// Whether a member is of the layer itself, to be left out because [`Layer::open`] writes it anew.
    fn owns(&self, name: &str) -> bool;

    /// Whether an object of the patch is merged into the value that comes next, instead of replacing it.
    fn merges_into(&self, cursor: &Cursor<'_>) -> bool;

    /// Writes a new value.
    fn write(&mut self, node: &Node<'_>, out: &mut String);

    /// A new name was written.
    fn added(&mut self, name: &str);

    /// An old value, and its name if there is one, was left out.
    fn removed(&mut self, name: Option<&str>, value: &str);

    /// Writes a new object without its nulls.
    fn write_object(&mut self, object: &Object<'_>, out: &mut String) {
        let mut any = self.open(out);
        for member in object.members() {
            if !matches!(member.value, Node::Null) {
                separate(any, out);
                any = true;
                write_name(&member.name, out);
                self.added(&member.name);
                self.write(&member.value, out);
            }
        }
        out.push('}');
    }
}

/// The values; counts their size.
struct Values {
    size: i64,
}

impl Values {
    fn size(&self) -> u32 {
        u32::try_from(self.size.max(0)).unwrap_or(u32::MAX)
    }
}

impl Layer for Values {
    fn open(&self, out: &mut String) -> bool {
        out.push('{');
        false
    }

    fn owns(&self, _name: &str) -> bool {
        false
    }

    fn merges_into(&self, cursor: &Cursor<'_>) -> bool {
        cursor.at_object()
    }

    fn write(&mut self, node: &Node<'_>, out: &mut String) {
        match node {
            Node::Null => {}
            Node::Scalar { text, size } => {
                out.push_str(text);
                self.size += i64::from(*size);
            }
            Node::Array(items) => {
                out.push('[');
                for (place, item) in items.iter().enumerate() {
                    separate(place > 0, out);
                    self.write(item, out);
                }
                out.push(']');
            }
            Node::Object(object) => self.write_object(object, out),
        }
    }

    fn added(&mut self, name: &str) {
        self.size += i64::from(escaped_size(name));
    }

    fn removed(&mut self, name: Option<&str>, value: &str) {
        self.size -= i64::from(name.map_or(0, escaped_size)) + i64::from(value_size(value));
    }
}

/// The metadata. An array is a leaf. The metadata of a leaf look like those of an empty object, so an object of the patch can
/// always be merged into them.
struct Metadata<'s> {
    /// The opening brace and the hub's members for what changes now.
    stamp: &'s str,
}

impl Layer for Metadata<'_> {
    fn open(&self, out: &mut String) -> bool {
        out.push_str(self.stamp);
        true
    }

    fn owns(&self, name: &str) -> bool {
        name.starts_with('$')
    }

    fn merges_into(&self, cursor: &Cursor<'_>) -> bool {
        cursor.at_object()
    }

    fn write(&mut self, node: &Node<'_>, out: &mut String) {
        match node {
            Node::Null => {}
            Node::Scalar { .. } | Node::Array(_) => {
                out.push_str(self.stamp);
                out.push('}');
            }
            Node::Object(object) => self.write_object(object, out),
        }
    }

    fn added(&mut self, _name: &str) {}

    fn removed(&mut self, _name: Option<&str>, _value: &str) {}
}

fn merge<L: Layer>(layer: &mut L, old: &str, patch: &Object<'_>, out: &mut String) -> Result<(), Damaged> {
    let mut cursor = Cursor::new(old);
    merge_object(layer, &mut cursor, patch, out, true)?;
    cursor.finish()
}

fn merge_object<L: Layer>(
    layer: &mut L,
    cursor: &mut Cursor<'_>,
    patch: &Object<'_>,
    out: &mut String,
    outermost: bool,
) -> Result<(), Damaged> {
    cursor.open()?;
    let mut any = layer.open(out);
    let mut found = vec![false; patch.members().len()];
    let mut missing = found.len();
    // Members to keep, from the start of the first to the end of the last.
    let mut run: Option<(usize, usize)> = None;
    let mut own = true;
    let mut closed = false;
    while missing > 0 || own {
        let Some(member) = cursor.member()? else {
            closed = true;
            break;
        };
        own = own && layer.owns(member.name);
        if own {
            cursor.skip()?;
            continue;
        }
        let Some(place) = patch.find(member.name) else {
            cursor.skip()?;
            run = Some((run.map_or(member.start, |(start, _)| start), cursor.at()));
            continue;
        };
        write_run(cursor, &mut run, &mut any, out)?;
        if let Some(found) = found.get_mut(place) {
            missing -= usize::from(!*found);
            *found = true;
        }
        match patch.members().get(place).map_or(&Node::Null, |member| &member.value) {
            Node::Null => layer.removed(Some(member.name), cursor.value()?),
            node => {
                separate(any, out);
                any = true;
                write_name(member.name, out);
                match node {
                    Node::Object(inner) if layer.merges_into(cursor) => merge_object(layer, cursor, inner, out, false)?,
                    node => {
                        layer.removed(None, cursor.value()?);
                        layer.write(node, out);
                    }
                }
            }
        }
    }
    write_run(cursor, &mut run, &mut any, out)?;
    if !closed {
        let rest = cursor.rest(outermost)?;
        let rest = if any { rest } else { rest.strip_prefix(',').unwrap_or(rest) };
        any = any || !rest.is_empty();
        out.push_str(rest);
    }
    for (member, found) in patch.members().iter().zip(found) {
        if !found && !matches!(member.value, Node::Null) {
            separate(any, out);
            any = true;
            write_name(&member.name, out);
            layer.added(&member.name);
            layer.write(&member.value, out);
        }
    }
    out.push('}');
    Ok(())
}

/// Copies a run of kept members.
fn write_run(
    cursor: &Cursor<'_>,
    run: &mut Option<(usize, usize)>,
    any: &mut bool,
    out: &mut String,
) -> Result<(), Damaged> {
    if let Some((start, end)) = run.take() {
        separate(*any, out);
        *any = true;
        out.push_str(cursor.text(start, end)?);
    }
    Ok(())
}

fn separate(any: bool, out: &mut String) {
    if any {
        out.push(',');
    }
}

fn write_name(canonical: &str, out: &mut String) {
    out.push('"');
    out.push_str(canonical);
    out.push_str("\":");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{SystemMembers, read_part};
    use crate::reader::Reader;

    fn patch(text: &str) -> Object<'_> {
        read_part(&mut Reader::new(text), SystemMembers::Refused).unwrap()
    }

    fn merged(old: &str, change: &str) -> String {
        let merged = merge_values(old, value_size(old), &patch(change), 0).unwrap();
        assert_eq!(merged.size, value_size(&merged.json), "{old} with {change}");
        merged.json
    }

    #[test]
    fn merges_in_order() {
        for (old, change, expected) in [
            ("{}", "{}", "{}"),
            ("{}", r#"{"a":null}"#, "{}"),
            ("{}", r#"{"a":{"b":null,"c":{}}}"#, r#"{"a":{"c":{}}}"#),
            (r#"{"a":1}"#, "{}", r#"{"a":1}"#),
            (r#"{"a":1}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":1,"b":2}"#, r#"{"a":null}"#, r#"{"b":2}"#),
            (r#"{"a":1,"b":2}"#, r#"{"b":null}"#, r#"{"a":1}"#),
            (r#"{"a":1,"b":2,"c":3}"#, r#"{"b":null}"#, r#"{"a":1,"c":3}"#),
            (r#"{"a":1,"b":2,"c":3}"#, r#"{ "c": 4, "a": [ 1 , "x" ] }"#, r#"{"a":[1,"x"],"b":2,"c":4}"#),
            (r#"{"a":1,"b":2,"c":3}"#, r#"{"d":4,"a":null,"c":null}"#, r#"{"b":2,"d":4}"#),
            (
                r#"{"a":{"x":1,"y":{"z":2}},"b":2}"#,
                r#"{"a":{"y":{"z":null,"w":1}}}"#,
                r#"{"a":{"x":1,"y":{"w":1}},"b":2}"#,
            ),
            (r#"{"a":{"x":1,"y":2},"b":2}"#, r#"{"a":{"x":null}}"#, r#"{"a":{"y":2},"b":2}"#),
            (r#"{"a":{"x":1,"y":2},"b":2}"#, r#"{"a":{}}"#, r#"{"a":{"x":1,"y":2},"b":2}"#),
            (r#"{"a":{"x":1}}"#, r#"{"a":7}"#, r#"{"a":7}"#),
            (r#"{"a":[{}]}"#, r#"{"a":{"x":1}}"#, r#"{"a":{"x":1}}"#),
            (r#"{"a":1}"#, r#"{"a":{}}"#, r#"{"a":{}}"#),
            (r#"{"q\"":1}"#, r#"{"\u0071\"":"\u0041\/"}"#, r#"{"q\"":"A/"}"#),
            (
                "{}",
                r#"{"a":1.10,"b":-0,"c":1E3,"d":1e-7,"e":0.1e22}"#,
                r#"{"a":1.1,"b":-0,"c":1000.0,"d":1e-7,"e":1e21}"#,
            ),
        ] {
            assert_eq!(merged(old, change), expected, "{old} with {change}");
        }
    }

    #[test]
    fn metadata_follow() {
        for (old, change, expected) in [
            (r#"{"$u":0}"#, "{}", r#"{"$u":1}"#),
            (r#"{"$u":0,"$v":0,"a":{"$u":0}}"#, "{}", r#"{"$u":1,"a":{"$u":0}}"#),
            (
                r#"{"$u":0,"a":{"$u":0},"b":{"$u":0}}"#,
                r#"{"a":null,"c":[{"d":1}]}"#,
                r#"{"$u":1,"b":{"$u":0},"c":{"$u":1}}"#,
            ),
            (
                r#"{"$u":0,"a":{"$u":0,"x":{"$u":0},"y":{"$u":0}},"b":{"$u":0}}"#,
                r#"{"a":{"x":5},"b":{"z":{}}}"#,
                r#"{"$u":1,"a":{"$u":1,"x":{"$u":1},"y":{"$u":0}},"b":{"$u":1,"z":{"$u":1}}}"#,
            ),
            (r#"{"$u":0,"a":{"$u":0,"x":{"$u":0}}}"#, r#"{"a":"leaf"}"#, r#"{"$u":1,"a":{"$u":1}}"#),
        ] {
            assert_eq!(merge_metadata(old, &patch(change), r#"{"$u":1"#, 0).unwrap(), expected, "{old} with {change}");
        }
    }

    #[test]
    fn damaged_text_is_reported() {
        for old in ["", "[]", "{", r#"{"a"}"#, r#"{"a":1"#, r#"{"a":1}}"#, r#"{"b":"}"#, r#"{"a":}"#] {
            assert!(merge_values(old, 0, &patch(r#"{"a":{"b":1},"z":1}"#), 0).is_err(), "{old}");
        }
    }

    #[test]
    fn writes_patches_and_removals() {
        let mut out = String::new();
        write_patch(&patch(r#"{ "a":null, "b":{"c":null,"d":[1,{"e":2}]}, "f":1.0 }"#), &mut out);
        assert_eq!(out, r#"{"a":null,"b":{"c":null,"d":[1,{"e":2}]},"f":1.0}"#);
        out.clear();
        write_removal(r#"{"a":{"b":1},"c":"x"}"#, &mut out).unwrap();
        assert_eq!(out, r#"{"a":null,"c":null}"#);
    }
}
