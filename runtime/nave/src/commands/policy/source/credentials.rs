//! Who the command line is for a registry: flags, environment, or what `docker login` wrote. Never shown or logged.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::RegistryArgs;
use crate::failure::Failure;

/// Largest file with a password, and largest configuration of docker.
const MAX_BYTES: u64 = 1 << 20;

/// A user and a password or token.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    user: String,
    password: String,
}

impl Credentials {
    /// As `Authorization` has them.
    pub(super) fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }
}

/// The credentials for a registry, if there are any; and what to say if it demands some and there are none.
pub(super) struct Found {
    pub(super) credentials: Option<Credentials>,
    pub(super) advice: String,
}

/// Looks for the credentials of a registry.
pub(super) fn find(host: &str, args: &RegistryArgs) -> Result<Found, Failure> {
    let environment = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let user = args.registry_user.clone().or_else(|| environment("NAVE_REGISTRY_USER"));
    let password = match &args.registry_password_file {
        Some(file) => Some(read_password(file)?),
        None => environment("NAVE_REGISTRY_PASSWORD"),
    };
    match (user, password) {
        (Some(user), Some(password)) => {
            Ok(Found { credentials: Some(Credentials { user, password }), advice: String::new() })
        }
        (Some(_), None) => {
            Err(Failure::usage("a user without a password: give --registry-password-file or NAVE_REGISTRY_PASSWORD"))
        }
        (None, Some(_)) => Err(Failure::usage("a password without a user: give --registry-user or NAVE_REGISTRY_USER")),
        (None, None) => of_docker(host),
    }
}

fn read_password(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::usage(format_args!("{}: {error}", file.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// What `docker login` wrote. No such file is no error.
fn of_docker(host: &str) -> Result<Found, Failure> {
    let advice = format!("log in with `docker login {host}`, or set NAVE_REGISTRY_USER and NAVE_REGISTRY_PASSWORD");
    let Some(file) = docker_config() else { return Ok(Found { credentials: None, advice }) };
    let mut text = String::new();
    let read = std::fs::File::open(&file).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Found { credentials: None, advice });
        }
        Err(error) => return Err(Failure::usage(format_args!("{}: {error}", file.display()))),
        Ok(_) => {}
    }
    // What serde says could quote a secret.
    let config: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::usage(format_args!("{}: not JSON at line {}", file.display(), error.line())))?;
    Ok(in_config(&config, host).map_or_else(
        || Found {
            credentials: None,
            advice: match helper(&config, host) {
                Some(helper) => format!(
                    "docker keeps these credentials with the program docker-credential-{helper}, which is not asked: set \
                     NAVE_REGISTRY_USER and NAVE_REGISTRY_PASSWORD"
                ),
                None => advice,
            },
        },
        |credentials| Found { credentials: Some(credentials), advice: String::new() },
    ))
}

fn docker_config() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let folder = folder("DOCKER_CONFIG").or_else(|| Some(folder("HOME")?.join(".docker")));
    folder.map(|folder| folder.join("config.json"))
}

fn in_config(config: &Value, host: &str) -> Option<Credentials> {
    let entries = config.get("auths")?.as_object()?;
    let (_, entry) = entries.iter().find(|(name, _)| registry_of(name) == registry_of(host))?;
    let text = STANDARD.decode(entry.get("auth")?.as_str()?.trim()).ok()?;
    let text = String::from_utf8(text).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Credentials { user: user.to_owned(), password: password.trim_end_matches('\0').to_owned() })
}

fn helper<'a>(config: &'a Value, host: &str) -> Option<&'a str> {
    let of_host = config.get("credHelpers").and_then(Value::as_object).and_then(|helpers| {
        helpers.iter().find(|(name, _)| registry_of(name) == registry_of(host)).map(|(_, helper)| helper)
    });
    of_host.or_else(|| config.get("credsStore")).and_then(Value::as_str)
}

/// The host that a name in docker's configuration stands for: older ones are addresses, and Docker Hub has several names.
fn registry_of(name: &str) -> &str {
    let host = name.split_once("://").map_or(name, |(_, rest)| rest).split('/').next().unwrap_or_default();
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn credentials_are_found_by_any_name_of_their_registry() {
        let auth = STANDARD.encode("me:pass:word");
        let config = json!({ "auths": {
            "https://index.docker.io/v1/": { "auth": auth }, "localhost:5000": { "auth": auth }, "empty.example": {},
        }});
        let basic = format!("Basic {auth}");
        for host in ["docker.io", "registry-1.docker.io", "localhost:5000"] {
            assert_eq!(in_config(&config, host).unwrap().basic(), basic, "{host}");
        }
        for host in ["empty.example", "localhost", "ghcr.io"] {
            assert!(in_config(&config, host).is_none(), "{host}");
        }
        let config = json!({ "credsStore": "desktop", "credHelpers": { "ghcr.io": "gh" } });
        assert_eq!((helper(&config, "ghcr.io"), helper(&config, "other")), (Some("gh"), Some("desktop")));
    }

    #[test]
    fn a_password_is_read_from_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        std::fs::write(&file, "secret\n").unwrap();
        let args = RegistryArgs {
            registry_user: Some("me".to_owned()),
            registry_password_file: Some(file),
            ..RegistryArgs::default()
        };
        let found = find("host", &args).ok().unwrap();
        assert_eq!(found.credentials.unwrap().basic(), format!("Basic {}", STANDARD.encode("me:secret")));
        let args = RegistryArgs { registry_user: Some("me".to_owned()), ..RegistryArgs::default() };
        assert!(matches!(find("host", &args), Err(Failure::Usage(_))));
    }
}
