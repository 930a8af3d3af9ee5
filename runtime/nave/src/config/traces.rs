//! Where traces go.

use std::path::{Path, PathBuf};

use super::ConfigError;
use super::check::{value, within};
use super::file::TracesSection;

/// The share of requests that are traced if nothing else is said: few enough not to be noticed.
const DEFAULT_RATIO: f64 = 0.01;

/// Longest name of the service: a collector has to keep it with every span.
const MAX_NAME: usize = 256;

/// `[traces]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TracesConfig {
    /// Where a collector takes traces; `None` for no traces.
    pub(crate) endpoint: Option<String>,
    /// Headers for the collector, which may hold a key.
    pub(crate) headers_file: Option<PathBuf>,
    /// Whom the collector is trusted by, PEM; `None` for the authorities of the system.
    pub(crate) ca: Option<PathBuf>,
    /// The share of requests that are traced, 0 to 1.
    pub(crate) sample_ratio: f64,
    /// What this service calls itself.
    pub(crate) service_name: String,
}

impl TracesConfig {
    pub(super) fn check(section: TracesSection, base: &Path) -> Result<Self, ConfigError> {
        let place = |key: &str| format!("traces.{key}");
        if let Some(endpoint) = &section.endpoint {
            check_endpoint(endpoint, section.headers_file.is_some())
                .map_err(|message| value(place("endpoint"), message))?;
        }
        let service_name = section.service_name.unwrap_or_else(|| "nave".to_owned());
        if service_name.is_empty() || service_name.len() > MAX_NAME {
            return Err(value(place("service_name"), format!("a name has 1 to {MAX_NAME} bytes")));
        }
        Ok(Self {
            endpoint: section.endpoint,
            headers_file: section.headers_file.map(|path| base.join(path)),
            ca: section.ca.map(|path| base.join(path)),
            sample_ratio: within(&place("sample_ratio"), section.sample_ratio, 0.0..=1.0)?.unwrap_or(DEFAULT_RATIO),
            service_name,
        })
    }
}

fn check_endpoint(endpoint: &str, has_headers: bool) -> Result<(), &'static str> {
    let uri: ureq::http::Uri = endpoint.parse().map_err(|_| "it is no URL")?;
    let host = uri.host().unwrap_or_default();
    match uri.scheme_str() {
        _ if host.is_empty() || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
            Err("use http://HOST:PORT/PATH or https://HOST/PATH; what is secret belongs into `headers_file`")
        }
        _ if uri.query().is_some() => Err("a query would be shown with the configuration: use `headers_file`"),
        Some("https") => Ok(()),
        Some("http") if has_headers && !matches!(host, "localhost" | "127.0.0.1" | "[::1]") => {
            Err("the headers of `headers_file` would leave this machine unencrypted: use https://")
        }
        Some("http") => Ok(()),
        _ => Err("use http://HOST:PORT/PATH or https://HOST/PATH"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(endpoint: &str, headers: bool) -> Result<TracesConfig, String> {
        let headers_file = headers.then(|| PathBuf::from("h"));
        let section = TracesSection { endpoint: Some(endpoint.to_owned()), headers_file, ..TracesSection::default() };
        TracesConfig::check(section, Path::new("/etc")).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_secret_goes_anywhere_in_the_clear() {
        let config = check("https://collector.example/v1/traces", true).unwrap();
        assert_eq!((config.sample_ratio, config.service_name.as_str()), (0.01, "nave"));
        assert_eq!(config.headers_file.as_deref(), Some(Path::new("/etc/h")));
        check("http://127.0.0.1:4318/v1/traces", true).unwrap();
        check("http://collector:4318/v1/traces", false).unwrap();
        for (endpoint, headers, why) in [
            ("http://collector:4318/v1/traces", true, "unencrypted"),
            ("https://user:word@collector/v1/traces", false, "headers_file"),
            ("https://collector/v1/traces?key=1", false, "headers_file"),
            ("collector:4318", false, "use http"),
            ("ftp://collector/", false, "use http"),
            ("not a URL", false, "no URL"),
        ] {
            let error = check(endpoint, headers).unwrap_err();
            assert!(error.starts_with("traces.endpoint: ") && error.contains(why), "{error}");
        }
        for ratio in [-0.1, 1.1, f64::NAN] {
            let section = TracesSection { sample_ratio: Some(ratio), ..TracesSection::default() };
            assert!(TracesConfig::check(section, Path::new("")).is_err(), "{ratio}");
        }
    }
}
