//! The ready file, `connection.json`: how programs on this machine find the hub, and how they prove that they may.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files;

/// Its name in the data directory.
pub(crate) const FILE_NAME: &str = "connection.json";

/// The version of the format.
const VERSION: u32 = 1;

/// Longest ready file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// What the ready file says. A listener that is not there is absent. It holds keys, so `Debug` is not derived.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ready {
    /// Of the file's format.
    pub(crate) version: u32,
    /// The process.
    pub(crate) pid: u32,
    /// PEM file with what clients have to trust.
    pub(crate) ca_certificate: PathBuf,
    /// The default one first.
    pub(crate) hubs: Vec<ReadyHub>,
    /// The provisioning service.
    pub(crate) provisioning: ReadyProvisioning,
    /// The admin API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) admin: Option<ReadyAdmin>,
}

/// One hub.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReadyHub {
    /// Short name.
    pub(crate) name: String,
    /// The name to dial on this machine.
    pub(crate) host_name: String,
    /// Its other names.
    pub(crate) aliases: Vec<String>,
    /// MQTT over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mqtts_port: Option<u16>,
    /// HTTPS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) https_port: Option<u16>,
    /// Of the policy that may do everything.
    pub(crate) service_connection_string: String,
}

/// The provisioning service.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReadyProvisioning {
    /// The name to dial on this machine.
    pub(crate) host_name: String,
    /// Its other names.
    #[serde(default)]
    pub(crate) aliases: Vec<String>,
    /// What devices name it by.
    pub(crate) id_scope: String,
    /// MQTT over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mqtts_port: Option<u16>,
    /// HTTPS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) https_port: Option<u16>,
    /// Of the policy that may do everything.
    pub(crate) service_connection_string: String,
}

/// The admin API.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReadyAdmin {
    /// `http://127.0.0.1:{port}`.
    pub(crate) url: String,
    /// To be sent as a bearer token.
    pub(crate) token: String,
}

/// Why there is no ready file to go by.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadyError {
    /// There is none.
    #[error("no hub is running with the data directory {}: it has no {FILE_NAME}", .0.display())]
    NotRunning(PathBuf),
    /// The file cannot be read; it is the owner's only.
    #[error("cannot read {}: {}", .0.display(), .1)]
    Read(PathBuf, io::Error),
    /// The content is not what this program writes.
    #[error("{} cannot be understood: {}", .0.display(), .1)]
    Format(PathBuf, String),
}

impl Ready {
    /// The version that this program writes.
    pub(crate) const VERSION: u32 = VERSION;

    /// Writes the file into `data_dir`.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub(crate) fn write(&self, data_dir: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        files::replace(&data_dir.join(FILE_NAME), &text, files::OWNER_ONLY)
    }

    /// Reads the file in `data_dir`.
    ///
    /// # Errors
    ///
    /// [`ReadyError`].
    pub(crate) fn read(data_dir: &Path) -> Result<Self, ReadyError> {
        use io::Read as _;
        let path = data_dir.join(FILE_NAME);
        let mut text = Vec::new();
        match std::fs::File::open(&path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ReadyError::NotRunning(data_dir.to_owned()));
            }
            Err(error) => return Err(ReadyError::Read(path, error)),
        }
        Self::of_bytes(&text).map_err(|why| ReadyError::Format(path, why))
    }

    /// Reads the file's content; an error says why that is not possible.
    pub(crate) fn of_bytes(text: &[u8]) -> Result<Self, String> {
        let ready: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        match ready.version {
            VERSION => Ok(ready),
            version => Err(format!("it has version {version}, this program knows {VERSION}")),
        }
    }
}

/// Removes the ready file of a hub that is gone or going.
pub(crate) fn remove(data_dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(data_dir.join(FILE_NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> Ready {
        Ready {
            version: VERSION,
            pid: 1,
            ca_certificate: "/d/tls/ca.pem".into(),
            hubs: vec![ReadyHub {
                name: "hub1".into(),
                host_name: "localhost".into(),
                aliases: vec!["hub1.nave.test".into()],
                mqtts_port: Some(8883),
                https_port: None,
                service_connection_string: "HostName=localhost;SharedAccessKeyName=iothubowner;SharedAccessKey=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".into(),
            }],
            provisioning: ReadyProvisioning {
                host_name: "localhost".into(),
                aliases: vec!["dps.nave.test".into()],
                id_scope: "0ne1".into(),
                mqtts_port: Some(8883),
                https_port: None,
                service_connection_string: "HostName=localhost;SharedAccessKeyName=provisioningserviceowner;SharedAccessKey=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".into(),
            },
            admin: None,
        }
    }

    #[test]
    fn survives_the_round_trip_and_is_the_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Ready::read(dir.path()), Err(ReadyError::NotRunning(_))));
        let ready = example();
        ready.write(dir.path()).unwrap();
        assert!(Ready::read(dir.path()).unwrap() == ready);
        let path = dir.path().join(FILE_NAME);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("\"mqttsPort\": 8883") && text.contains("\"caCertificate\"") && !text.contains("httpsPort")
        );
        remove(dir.path()).unwrap();
        remove(dir.path()).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_file_of_another_version_is_not_guessed_at() {
        let dir = tempfile::tempdir().unwrap();
        Ready { version: 2, ..example() }.write(dir.path()).unwrap();
        let Err(error) = Ready::read(dir.path()) else { panic!("it was read") };
        assert!(error.to_string().contains("version 2"), "{error}");
        std::fs::write(dir.path().join(FILE_NAME), "{").unwrap();
        assert!(matches!(Ready::read(dir.path()), Err(ReadyError::Format(..))));
    }
}
