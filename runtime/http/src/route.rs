//! What a request is for: its path and query, its real method, its host, its api-version.

use http::header::HOST;
use http::request::Parts;
use http::{Method, Uri};
use nave_auth::percent_decode;
use nave_hub::{ErrorCode, HubError};
use nave_model::HostName;

/// Most segments of a path; no resource has as many, and what has more is not found.
const MAX_SEGMENTS: usize = 8;

/// Oldest api-version, by its date, that is taken for one: the HTTP stack of the C SDK sends the oldest of all, 2016-11-14
/// (protocol notes: REST §1.1, device HTTPS §1.1).
const OLDEST_API_VERSION: &str = "2016-02-03";

/// Newest api-version of the hub's service API: what the Azure CLI sends (protocol notes: REST §1.1).
const NEWEST_HUB_API_VERSION: &str = "2024-12-31";

/// Newest api-version of the provisioning service: its device API is versioned up to 2026 (protocol notes: provisioning
/// devices §1).
const NEWEST_DPS_API_VERSION: &str = "2026-12-31";

/// Path and query, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    segments: Vec<String>,
    query: Vec<(String, String)>,
}

impl Target {
    /// Splits a URI at its slashes and ampersands, then decodes every piece. One trailing slash does not count.
    ///
    /// `+` stands for itself: it is legal in device ids, blanks are not.
    pub(crate) fn parse(uri: &Uri) -> Result<Self, HubError> {
        let path = uri.path();
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        let pieces = path.split('/').filter(|_| !path.is_empty());
        if pieces.clone().count() > MAX_SEGMENTS {
            return Err(not_found());
        }
        let segments = pieces.map(decoded).collect::<Result<_, _>>()?;
        let parameters = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let query = parameters
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((decoded(name)?, decoded(value)?))
            })
            .collect::<Result<_, HubError>>()?;
        Ok(Self { segments, query })
    }

    /// The segments of the path as they were written.
    pub(crate) fn segments(&self) -> Vec<&str> {
        self.segments.iter().map(String::as_str).collect()
    }

    /// The segment at `position`, as it was written; empty if there is none.
    pub(crate) fn segment(&self, position: usize) -> &str {
        self.segments.get(position).map_or("", String::as_str)
    }

    /// The segments in lower case, to be compared with the words of paths, which have no case.
    pub(crate) fn words(&self) -> Vec<String> {
        self.segments.iter().map(|segment| segment.to_ascii_lowercase()).collect()
    }

    /// The first parameter of that name, ignoring case.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// The method that is meant: the Java SDK patches twins by `POST` with `X-HTTP-Method-Override: PATCH` (protocol notes:
/// Java SDKs).
pub(crate) fn method(parts: &Parts) -> Method {
    let meant = parts.headers.get("x-http-method-override").map(http::HeaderValue::as_bytes);
    match meant {
        Some(meant) if parts.method == Method::POST && meant.trim_ascii().eq_ignore_ascii_case(b"PATCH") => {
            Method::PATCH
        }
        _ => parts.method.clone(),
    }
}

/// The host that the request is for: the authority of an absolute URI, else the `Host` header, without its port.
pub(crate) fn host(parts: &Parts) -> Option<HostName> {
    let authority = match parts.uri.authority() {
        Some(authority) => authority.as_str(),
        None => parts.headers.get(HOST)?.to_str().ok()?,
    };
    HostName::parse_authority(authority.trim()).ok().map(|(host, _)| host)
}

/// Checks the api-version of a request to a hub: any date between those that clients send, with or without `-preview`.
pub(crate) fn check_hub_version(target: &Target) -> Result<(), HubError> {
    check_version(target, NEWEST_HUB_API_VERSION).map(drop)
}

/// Checks the api-version of a request to the provisioning service, and returns it.
pub(crate) fn check_dps_version(target: &Target) -> Result<&str, HubError> {
    check_version(target, NEWEST_DPS_API_VERSION)
}

fn check_version<'a>(target: &'a Target, newest: &str) -> Result<&'a str, HubError> {
    let refused = |message: String| HubError::new(ErrorCode::InvalidProtocolVersion, message);
    let Some(version) = target.parameter("api-version").filter(|version| !version.is_empty()) else {
        return Err(refused("The query parameter api-version is missing.".to_owned()));
    };
    let date = match version.len().checked_sub("-preview".len()).and_then(|end| version.split_at_checked(end)) {
        Some((date, suffix)) if suffix.eq_ignore_ascii_case("-preview") => date,
        _ => version,
    };
    // Dates of this form have the order of their texts.
    if is_date(date) && (OLDEST_API_VERSION..=newest).contains(&date) {
        return Ok(version);
    }
    let shown: String = version.chars().take(40).collect();
    Err(refused(format!("The api-version '{shown}' is not known.")))
}

fn is_date(text: &str) -> bool {
    let pattern = b"0000-00-00";
    text.len() == pattern.len()
        && text
            .bytes()
            .zip(pattern)
            .all(|(byte, form)| if *form == b'0' { byte.is_ascii_digit() } else { byte == b'-' })
        && matches!(text.get(5..7).and_then(|month| month.parse().ok()), Some(1..=12))
        && matches!(text.get(8..10).and_then(|day| day.parse().ok()), Some(1..=31))
}

/// Nothing at that path.
pub(crate) fn not_found() -> HubError {
    HubError::new(ErrorCode::GenericNotFound, "There is nothing at this path.")
}

/// The path exists, the method does not.
pub(crate) fn not_allowed(method: &Method) -> HubError {
    HubError::new(ErrorCode::GenericMethodNotAllowed, format!("{method} is not possible at this path."))
}

fn decoded(piece: &str) -> Result<String, HubError> {
    match percent_decode(piece) {
        Some(text) => Ok(text.into_owned()),
        None => Err(HubError::new(ErrorCode::IotHubFormatError, "The URI is not text in UTF-8.")),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    fn target(uri: &str) -> Target {
        Target::parse(&uri.parse().unwrap()).unwrap()
    }

    #[test]
    fn paths_are_split_before_they_are_decoded() {
        assert_eq!(target("/devices/a%2Fb%23").segments(), ["devices", "a/b#"]);
        assert_eq!(target("/devices/?top=5&x").segments(), ["devices"]);
        assert_eq!(target("/devices/?top=5&x").parameter("TOP"), Some("5"));
        assert_eq!(target("/devices/a+b%2B").segments(), ["devices", "a+b+"]);
        assert_eq!(target("/").segments(), Vec::<&str>::new());
        assert_eq!(target("/a//b").segments(), ["a", "", "b"]);
        assert_eq!(target("/EnrollmentGroups/G").words(), ["enrollmentgroups", "g"]);
        assert!(Target::parse(&"/%FF".parse().unwrap()).is_err());
        assert_eq!(Target::parse(&"/1/2/3/4/5/6/7/8/9".parse().unwrap()).unwrap_err().code, ErrorCode::GenericNotFound);
    }

    #[test]
    fn a_post_may_be_a_patch_and_nothing_else() {
        let meant = |sent: &str, header: &str| {
            let request = Request::builder().method(sent).header("X-HTTP-Method-Override", header);
            method(&request.body(()).unwrap().into_parts().0)
        };
        assert_eq!(meant("POST", "PATCH"), Method::PATCH);
        assert_eq!(meant("POST", "patch"), Method::PATCH);
        assert_eq!(meant("POST", "DELETE"), Method::POST);
        assert_eq!(meant("GET", "PATCH"), Method::GET);
    }

    #[test]
    fn the_host_has_no_port() {
        let read = |uri: &str, header: &str| {
            let request = Request::builder().uri(uri).header("Host", header).body(()).unwrap();
            host(&request.into_parts().0).map(|host| host.as_str().to_owned())
        };
        assert_eq!(read("/", "Hub1.Nave.Test:8443").as_deref(), Some("hub1.nave.test"));
        assert_eq!(read("https://other:443/", "hub1").as_deref(), Some("other"));
        assert_eq!(read("/", "[::1]:443"), None);
        assert_eq!(read("/", "hub1:port"), None);
    }

    #[test]
    fn versions_are_dates_that_clients_know() {
        for version in ["2016-11-14", "2018-06-30", "2020-05-31-preview", "2021-04-12", "2024-03-31"] {
            assert!(check_hub_version(&target(&format!("/?api-version={version}"))).is_ok(), "{version}");
        }
        for version in ["", "1", "2099-01-01", "2021-13-12", "2021-04-12-beta", "-preview", "2021/04/12", "2015-01-01"]
        {
            let error = check_hub_version(&target(&format!("/?api-version={version}"))).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidProtocolVersion, "{version}");
        }
        assert!(check_hub_version(&target("/")).is_err());
        assert_eq!(check_dps_version(&target("/?api-version=2025-07-01-preview")).unwrap(), "2025-07-01-preview");
    }

    proptest! {
        #[test]
        fn no_path_is_too_odd(path in "/[ -~&&[^ \"<>`{}^|\\\\]]{0,60}") {
            if let Ok(uri) = path.parse::<Uri>() {
                drop(Target::parse(&uri).map(|target| (check_hub_version(&target).is_ok(), target.words())));
            }
        }
    }
}
