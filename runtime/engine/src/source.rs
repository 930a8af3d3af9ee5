//! Where component files come from.

use std::borrow::Cow;
use std::path::PathBuf;

use crate::engine::EngineError;

include!(concat!(env!("OUT_DIR"), "/components.rs"));

/// The built-in functions by name, as their files are called without `.wasm`.
pub const FUNCTION_NAMES: [&str; 5] = ["allocation", "methods", "provisioning", "routing", "twin"];

/// Where the built-in functions come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The files that the build put into this binary.
    #[default]
    Embedded,
    /// A directory whose files (`twin.wasm`, …) take precedence over the embedded ones.
    Directory(PathBuf),
}

impl Source {
    pub(crate) fn read(&self, name: &str) -> Result<Cow<'static, [u8]>, EngineError> {
        if let Self::Directory(directory) = self {
            let path = directory.join(format!("{name}.wasm"));
            match std::fs::read(&path) {
                Ok(bytes) => return Ok(bytes.into()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(EngineError::Read { path, error }),
            }
        }
        COMPONENTS.iter().find(|(known, _)| *known == name).map(|(_, bytes)| Cow::Borrowed(*bytes)).ok_or_else(|| {
            EngineError::World { name: name.to_owned(), error: "this binary was built without it".to_owned() }
        })
    }
}
