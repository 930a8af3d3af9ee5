//! What a component is, before anybody calls it.

use ring::digest;
use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::error::PolicyError;
use super::wasi;

/// The interface that makes a component a policy, without its version.
const POLICY: &str = "nave:allocation/policy";
/// The optional one.
const CONFIGURATION: &str = "nave:allocation/configuration";

/// What a component is and what it would like to import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// SHA-256 of its bytes, lower case hexadecimal.
    pub digest: String,
    /// Its size in bytes.
    pub size: usize,
    /// The version of `nave:allocation` that it was built against, for example `0.1.0`.
    pub contract: String,
    /// Whether it exports the interface `configuration`.
    pub is_configurable: bool,
    /// Its exports, with their versions.
    pub exports: Vec<String>,
    /// What it imports beyond the world, which imports nothing.
    pub imports: Vec<Import>,
}

/// An interface that a component imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Its name with its version, for example `wasi:clocks/wall-clock@0.2.3`.
    pub name: String,
    /// What is behind it.
    pub access: Access,
}

/// What is behind an interface that a component imports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A virtual one: a clock that stands at the request's time, randomness from its seed, an empty environment, a buffer.
    Virtual,
    /// Nothing: a call of it ends the policy's call with an error that names the interface.
    Refused,
}

impl Access {
    /// One word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Virtual => "virtual",
            Self::Refused => "refused",
        }
    }
}

/// Tells apart what people upload by mistake. The first eight bytes are the magic number, the version and the layer.
pub(super) fn check_header(bytes: &[u8]) -> Result<(), PolicyError> {
    let wrong = |text: &str| Err(PolicyError::NotAComponent(text.to_owned()));
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => Ok(()),
        Some([0, b'a', b's', b'm', _, _, 0, 0]) => wrong(
            "it is a core module. Build a component (for Rust: `--target wasm32-wasip2`), or make one of it with `nave policy component`",
        ),
        Some([0, b'a', b's', b'm', ..]) => wrong("its layer is unknown"),
        _ => wrong("it does not begin like WebAssembly"),
    }
}

pub(super) fn inspect(engine: &Engine, component: &Component, bytes: &[u8]) -> Result<Inspection, PolicyError> {
    let component_type = component.component_type();
    let exports: Vec<String> = component_type.exports(engine).map(|(name, _)| name.to_owned()).collect();
    let version_of = |interface: &str| {
        exports.iter().find_map(|export| {
            export.strip_prefix(interface).and_then(|rest| rest.strip_prefix('@')).map(str::to_owned)
        })
    };
    let contract = version_of(POLICY)
        .ok_or_else(|| PolicyError::World(format!("it exports {}, but not `{POLICY}@0.1.0`", listed(&exports))))?;
    if !contract.starts_with("0.1.") {
        return Err(PolicyError::World(format!("it exports `{POLICY}@{contract}`; this host knows 0.1")));
    }
    let imports = component_type.imports(engine).map(|(name, import)| match import.ty {
        ComponentItem::ComponentInstance(_) => {
            wasi::access(name).map(|access| Import { name: name.to_owned(), access })
        }
        // A type that an interface uses is no import of anything.
        ComponentItem::Type(_) => Ok(Import { name: name.to_owned(), access: Access::Virtual }),
        _ => Err(PolicyError::Import(name.to_owned())),
    });
    Ok(Inspection {
        digest: hexadecimal(digest::digest(&digest::SHA256, bytes).as_ref()),
        size: bytes.len(),
        contract,
        is_configurable: version_of(CONFIGURATION).is_some_and(|version| version.starts_with("0.1.")),
        imports: imports.collect::<Result<_, _>>()?,
        exports,
    })
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_uploaded_by_mistake_is_named() {
        let said = |bytes: &[u8]| check_header(bytes).unwrap_err().to_string();
        assert!(said(b"\0asm\x01\0\0\0").contains("core module"));
        assert!(said(b"<!doctype html>").contains("does not begin like WebAssembly"));
        assert!(said(b"").contains("does not begin like WebAssembly"));
        check_header(b"\0asm\x0d\0\x01\0").unwrap();
    }
}
