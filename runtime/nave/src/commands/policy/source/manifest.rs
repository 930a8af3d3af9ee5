//! Manifests of components: the layout that the tools for WebAssembly agreed on (CNCF, "Wasm OCI Artifact layout").

use serde::Deserialize;
use serde_json::{Value, json};
use wit_component::DecodedWasm;
use wit_parser::WorldKey;

use super::reference::is_sha256;
use super::sha256;

/// What a manifest is.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What says something about the component.
const CONFIG: &str = "application/vnd.wasm.config.v0+json";

/// What a component is; the others are what earlier tools called it.
const COMPONENT: &str = "application/wasm";
const COMPONENTS: [&str; 3] =
    [COMPONENT, "application/vnd.wasm.content.layer.v1+wasm", "application/vnd.module.wasm.content.layer.v1+wasm"];

/// Content of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    media_type: String,
    digest: String,
    pub(super) size: u64,
}

impl Descriptor {
    /// The SHA-256 that its content has, lower case hexadecimal.
    pub(super) fn sha256(&self) -> Result<&str, String> {
        let digits = self.digest.strip_prefix("sha256:").filter(|digits| is_sha256(digits));
        digits.ok_or_else(|| format!("its content is named by {:?}, which is no SHA-256", self.digest))
    }
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
    /// Present in an index, which has manifests in place of layers.
    manifests: Option<Vec<Value>>,
}

/// The component that a manifest names.
pub(super) fn component_of(manifest: &[u8]) -> Result<Descriptor, String> {
    let manifest: Manifest =
        serde_json::from_slice(manifest).map_err(|error| format!("its manifest is not one: {error}"))?;
    if manifest.manifests.is_some() {
        return Err("it is an index of several manifests: name one of them by its digest".to_owned());
    }
    let mut components = manifest.layers.into_iter().filter(|layer| COMPONENTS.contains(&layer.media_type.as_str()));
    match (components.next(), components.next()) {
        (Some(component), None) => Ok(component),
        (None, _) => Err(format!("it is no WebAssembly component: no layer of it is {COMPONENT}")),
        (Some(_), Some(_)) => Err("it has several components, and a policy is one".to_owned()),
    }
}

/// Configuration and manifest for a component. The same component always makes the same, so its digest is always the same.
pub(super) fn describe(component: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    let (exports, imports) = interfaces(component)?;
    let layer = format!("sha256:{}", sha256(component));
    let config = json!({
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [layer],
        "component": { "exports": exports, "imports": imports },
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "digest": format!("sha256:{}", sha256(&config)), "size": config.len() },
        "layers": [{ "mediaType": COMPONENT, "digest": layer, "size": component.len() }],
    });
    Ok((config, manifest.to_string().into_bytes()))
}

/// The names of what a component exports and imports.
fn interfaces(component: &[u8]) -> Result<(Vec<String>, Vec<String>), String> {
    let decoded = wit_component::decode(component).map_err(|error| format!("no WebAssembly component: {error:#}"))?;
    let DecodedWasm::Component(resolve, world) = decoded else {
        return Err("a WIT package, and no component".to_owned());
    };
    let world = resolve.worlds.get(world).ok_or_else(|| "a component without a type".to_owned())?;
    let names = |keys: &mut dyn Iterator<Item = &WorldKey>| keys.map(|key| resolve.name_world_key(key)).collect();
    Ok((names(&mut world.exports.keys()), names(&mut world.imports.keys())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_one_component() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let layer = |kind: &str| json!({ "mediaType": kind, "digest": digest, "size": 7 });
        let read = |layers: Value| component_of(json!({ "schemaVersion": 2, "layers": layers }).to_string().as_bytes());
        let found = read(json!([layer("text/plain"), layer(COMPONENT)])).unwrap();
        assert_eq!((found.size, found.sha256()), (7, Ok("a".repeat(64).as_str())));
        assert!(read(json!([layer(COMPONENTS[1])])).is_ok(), "by an earlier name");
        assert!(read(json!([])).unwrap_err().contains("no WebAssembly component"));
        assert!(read(json!([layer(COMPONENT), layer(COMPONENT)])).unwrap_err().contains("several"));
        assert!(component_of(br#"{"manifests":[]}"#).unwrap_err().contains("index"));
        assert!(component_of(b"<html>").is_err());
        let sha512 = json!([{ "mediaType": COMPONENT, "digest": "sha512:00", "size": 1 }]);
        assert!(read(sha512).unwrap().sha256().is_err());
    }

    #[test]
    fn what_is_no_component_is_not_described() {
        assert!(describe(b"rubbish").unwrap_err().contains("no WebAssembly component"));
    }
}
