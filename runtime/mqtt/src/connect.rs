//! The user names of CONNECT (protocol notes: MQTT §2.2, provisioning §3.1).
//!
//! Hub and provisioning service listen on one port. The first segment tells them apart: it is one of the hubs' host
//! names or an id scope, which the caller knows. The form does not tell, since a device may be called "registrations".

use std::borrow::Cow;

use crate::percent::decode_or_keep;
use crate::topic::Client;

/// What is wrong with a user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsernameError {
    /// There is nothing where the host name or id scope belongs.
    #[error("the user name does not begin with a host name or id scope")]
    NoFirstSegment,
    /// There is no device id or registration id.
    #[error("the user name has no device id")]
    NoId,
    /// After the ids comes something else than parameters.
    #[error("the user name has an unknown part after the ids")]
    UnknownPart,
    /// The second segment of a user name for the provisioning service is another one.
    #[error("the user name does not have the segment \"registrations\"")]
    NotRegistrations,
}

/// Splits off what tells which service is meant: the hub's host name, or the id scope. The rest comes without the slash
/// and is empty if there is none.
pub fn split_first_segment(username: &str) -> (&str, &str) {
    username.split_once('/').unwrap_or((username, ""))
}

/// The user name of a device or module that connects to a hub. Ids are as written: they are never percent-encoded here,
/// and they are not checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubUsername<'a> {
    /// The hub's host name.
    pub host: &'a str,
    /// The device, and the module if it is one.
    pub client: Client<'a>,
    /// `api-version`. Without it telemetry is possible, twins and methods are not (protocol notes: MQTT §2.2).
    pub api_version: Option<Cow<'a, str>>,
    /// `DeviceClientType`, the user agent.
    pub agent: Option<Cow<'a, str>>,
    /// `model-id`, the DTDL model.
    pub model_id: Option<Cow<'a, str>>,
    /// `auth-chain`, of nested edge devices.
    pub auth_chain: Option<Cow<'a, str>>,
}

impl<'a> HubUsername<'a> {
    /// Reads all four forms: with `/?` and parameters; with `/` and parameters that begin with `api-version=`; with
    /// `/api-version=…/DeviceClientType=…`, whose agent is raw text; and without parameters. The first of several
    /// parameters of one name counts, unknown ones are ignored, values are decoded where that is possible.
    ///
    /// # Errors
    ///
    /// [`UsernameError`].
    pub fn parse(username: &'a str) -> Result<Self, UsernameError> {
        let (host, rest) = split_first_segment(username);
        if host.is_empty() {
            return Err(UsernameError::NoFirstSegment);
        }
        let (device, rest) = split_first_segment(rest);
        if device.is_empty() {
            return Err(UsernameError::NoId);
        }
        let (module, rest) = match rest {
            "" => (None, ""),
            _ if is_parameters(rest) => (None, rest),
            _ => {
                let (module, rest) = split_first_segment(rest);
                (Some(module), rest)
            }
        };
        if module == Some("") || !(rest.is_empty() || is_parameters(rest)) {
            return Err(UsernameError::UnknownPart);
        }
        let mut parsed = Self {
            host,
            client: Client { device, module },
            api_version: None,
            agent: None,
            model_id: None,
            auth_chain: None,
        };
        let (parameters, raw_agent) = match rest.strip_prefix('?') {
            Some(parameters) => (parameters, None),
            None => match rest.split_once("/DeviceClientType=") {
                Some((parameters, agent)) => (parameters, Some(agent)),
                None => (rest, None),
            },
        };
        for (name, value) in parameters_of(parameters) {
            let field = match name {
                "api-version" => &mut parsed.api_version,
                "DeviceClientType" => &mut parsed.agent,
                "model-id" => &mut parsed.model_id,
                "auth-chain" => &mut parsed.auth_chain,
                _ => continue,
            };
            field.get_or_insert_with(|| decode_or_keep(value));
        }
        if let Some(agent) = raw_agent {
            parsed.agent.get_or_insert(Cow::Borrowed(agent));
        }
        Ok(parsed)
    }

    /// Whether `client_id` names the same device or module, as it must: `{device}` or `{device}/{module}`.
    pub fn matches_client_id(&self, client_id: &str) -> bool {
        match self.client.module {
            None => client_id == self.client.device,
            Some(module) => client_id.split_once('/') == Some((self.client.device, module)),
        }
    }
}

/// The user name of a device that connects to the provisioning service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DpsUsername<'a> {
    /// The id scope as written.
    pub id_scope: &'a str,
    /// The registration id as written: a group key is derived from exactly this text. It is not checked.
    pub registration_id: &'a str,
    /// `api-version`.
    pub api_version: Option<Cow<'a, str>>,
    /// `ClientVersion`, the user agent; some clients have none.
    pub agent: Option<Cow<'a, str>>,
}

impl<'a> DpsUsername<'a> {
    /// Reads `{idScope}/registrations/{registrationId}/api-version=…&ClientVersion=…`; a `?` before the parameters and
    /// their absence are tolerated.
    ///
    /// # Errors
    ///
    /// [`UsernameError`].
    pub fn parse(username: &'a str) -> Result<Self, UsernameError> {
        let (id_scope, rest) = split_first_segment(username);
        if id_scope.is_empty() {
            return Err(UsernameError::NoFirstSegment);
        }
        let rest = rest.strip_prefix("registrations/").ok_or(UsernameError::NotRegistrations)?;
        let (registration_id, rest) = split_first_segment(rest);
        if registration_id.is_empty() {
            return Err(UsernameError::NoId);
        }
        if !(rest.is_empty() || is_parameters(rest)) {
            return Err(UsernameError::UnknownPart);
        }
        let mut parsed = Self { id_scope, registration_id, api_version: None, agent: None };
        for (name, value) in parameters_of(rest.strip_prefix('?').unwrap_or(rest)) {
            let field = match name {
                "api-version" => &mut parsed.api_version,
                "ClientVersion" => &mut parsed.agent,
                _ => continue,
            };
            field.get_or_insert_with(|| decode_or_keep(value));
        }
        Ok(parsed)
    }

    /// Whether `client_id` names the same registration, as it must; registration ids ignore case.
    pub fn matches_client_id(&self, client_id: &str) -> bool {
        client_id.eq_ignore_ascii_case(self.registration_id)
    }
}

/// Writes the user name with which a device or module connects to a hub.
pub fn hub_username(host: &str, client: Client<'_>, api_version: &str, agent: &str) -> String {
    let mut username = format!("{host}/{client}/?api-version=");
    crate::percent::encode(&mut username, api_version);
    username.push_str("&DeviceClientType=");
    crate::percent::encode(&mut username, agent);
    username
}

/// Writes the user name with which a device connects to the provisioning service.
pub fn dps_username(id_scope: &str, registration_id: &str, api_version: &str, agent: &str) -> String {
    let mut username = format!("{id_scope}/registrations/{registration_id}/api-version=");
    crate::percent::encode(&mut username, api_version);
    username.push_str("&ClientVersion=");
    crate::percent::encode(&mut username, agent);
    username
}

fn is_parameters(rest: &str) -> bool {
    rest.starts_with('?') || rest.starts_with("api-version=")
}

fn parameters_of(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_forms_are_read() {
        let parsed = HubUsername::parse("h.example/d/?api-version=2020-09-30&DeviceClientType=a%20b%2F1").unwrap();
        assert_eq!((parsed.host, parsed.client), ("h.example", Client::device("d")));
        assert_eq!(parsed.api_version.as_deref(), Some("2020-09-30"));
        assert_eq!(parsed.agent.as_deref(), Some("a b/1"));

        let module = HubUsername::parse("h/d/m/?api-version=1&api-version=2&x=y&model-id=dtmi:a:B;1").unwrap();
        assert_eq!(module.client, Client::module("d", "m"));
        assert_eq!(module.api_version.as_deref(), Some("1"), "the first counts");
        assert_eq!(module.model_id.as_deref(), Some("dtmi:a:B;1"));

        let old = HubUsername::parse("h/d/api-version=2016-11-14&DeviceClientType=c%2F1").unwrap();
        assert_eq!((old.client, old.agent.as_deref()), (Client::device("d"), Some("c/1")));

        let legacy = HubUsername::parse("h/d/m/api-version=2016-11-14/DeviceClientType=a/b%20/1.0-x").unwrap();
        assert_eq!(legacy.client, Client::module("d", "m"));
        assert_eq!(legacy.api_version.as_deref(), Some("2016-11-14"));
        assert_eq!(legacy.agent.as_deref(), Some("a/b%20/1.0-x"), "raw text");

        for (bare, client) in
            [("h/d", Client::device("d")), ("h/d/", Client::device("d")), ("h/d/m", Client::module("d", "m"))]
        {
            let parsed = HubUsername::parse(bare).unwrap();
            assert_eq!((parsed.client, parsed.api_version), (client, None), "{bare}");
        }
        let chain = HubUsername::parse("h/d/?api-version=1&auth-chain=d%3Be1").unwrap();
        assert_eq!(chain.auth_chain.as_deref(), Some("d;e1"));
    }

    #[test]
    fn broken_usernames_are_refused() {
        for (username, error) in [
            ("", UsernameError::NoFirstSegment),
            ("/d", UsernameError::NoFirstSegment),
            ("h", UsernameError::NoId),
            ("h/", UsernameError::NoId),
            ("h//?api-version=1", UsernameError::NoId),
            ("h/d//?api-version=1", UsernameError::UnknownPart),
            ("h/d/m/x", UsernameError::UnknownPart),
            ("h/d/m/x/?api-version=1", UsernameError::UnknownPart),
        ] {
            assert_eq!(HubUsername::parse(username), Err(error), "{username}");
        }
        for (username, error) in [
            ("", UsernameError::NoFirstSegment),
            ("0ne1", UsernameError::NotRegistrations),
            ("0ne1/devices/r/api-version=1", UsernameError::NotRegistrations),
            ("0ne1/registrations/", UsernameError::NoId),
            ("0ne1/registrations//api-version=1", UsernameError::NoId),
            ("0ne1/registrations/r/x", UsernameError::UnknownPart),
        ] {
            assert_eq!(DpsUsername::parse(username), Err(error), "{username}");
        }
    }

    #[test]
    fn the_first_segment_tells_hub_and_dps_apart() {
        assert_eq!(
            split_first_segment("0ne1/registrations/r/api-version=1"),
            ("0ne1", "registrations/r/api-version=1")
        );
        assert_eq!(split_first_segment("host"), ("host", ""));
        // A device called "registrations" with a module: the form alone would not tell.
        let parsed = HubUsername::parse("hub/registrations/r/api-version=1").unwrap();
        assert_eq!(parsed.client, Client::module("registrations", "r"));
    }

    #[test]
    fn client_ids_must_match() {
        let device = HubUsername::parse("h/d/?api-version=1").unwrap();
        assert!(device.matches_client_id("d"));
        assert!(["D", "d/", "d/m", "", "/d"].iter().all(|id| !device.matches_client_id(id)));
        let module = HubUsername::parse("h/d/m/?api-version=1").unwrap();
        assert!(module.matches_client_id("d/m"));
        assert!(["d", "d/M", "d/m/", "d//m", "m"].iter().all(|id| !module.matches_client_id(id)));
        let dps = DpsUsername::parse("0ne1/registrations/Reg/api-version=1").unwrap();
        assert!(dps.matches_client_id("rEG") && !dps.matches_client_id("Re"));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[a-c/?&=%;]{0,30}|(h|/|\\?|&|api-version=|registrations/|DeviceClientType=){0,8}") {
            let _ = HubUsername::parse(&text);
            let _ = DpsUsername::parse(&text);
        }

        #[test]
        fn what_is_written_is_read(
            device in "[a-z:.+%_#*!(),=@;$'-][a-z:.+%_#*?!(),=@;$'-]{0,8}",
            module in proptest::option::of("[b-z][a-z:.+%_#*?!(),=@;$'-]{0,8}"),
            version in "[0-9a-z &=/-]{0,12}",
            agent in any::<String>(),
        ) {
            let client = Client { device: &device, module: module.as_deref() };
            let username = hub_username("h.example", client, &version, &agent);
            let parsed = HubUsername::parse(&username).unwrap();
            prop_assert_eq!(parsed.client, client);
            prop_assert!(parsed.matches_client_id(&client.to_string()));
            prop_assert_eq!(parsed.api_version.as_deref(), Some(&*version));
            prop_assert_eq!(parsed.agent.as_deref(), Some(&*agent));
            let username = dps_username("0ne1", &device, &version, &agent);
            let parsed = DpsUsername::parse(&username).unwrap();
            prop_assert_eq!((parsed.id_scope, parsed.registration_id), ("0ne1", &*device));
            prop_assert_eq!((parsed.api_version.as_deref(), parsed.agent.as_deref()), (Some(&*version), Some(&*agent)));
        }
    }
}
