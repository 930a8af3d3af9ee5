//! What a deployment says about its hubs: Spin's variables.

use nave_auth::{AccessPolicy, DpsRights, KeyPair, Rights, SharedKey};
use nave_hub::RoutingConfig;
use nave_model::{HostName, HubId, IdScope, PolicyName};
use nave_routing::{EndpointName, Route, RouteName, Source, UnknownSource};
use serde_json::Value;

/// The variables of a deployment, in the order of `spin.toml`. Lists have commas between their elements; a key is base64.
pub const VARIABLES: [&str; 12] = [
    "hub_host_names",
    "provisioning_host_names",
    "aliases",
    "id_scope",
    "allocation_policy",
    "routes",
    "iothubowner_key",
    "service_key",
    "device_key",
    "registry_read_key",
    "registry_read_write_key",
    "provisioning_key",
];

/// Most hubs of a deployment: each is made anew for every request.
const MAX_HUBS: usize = 16;

/// Most routes: each is compiled anew for every request.
const MAX_ROUTES: usize = 20;

/// A variable that is wrong or missing. The text never repeats a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the variable `{name}` {what}")]
pub struct InvalidSetting {
    /// The variable.
    pub name: &'static str,
    /// What is wrong.
    pub what: String,
}

/// A deployment's hubs and provisioning service.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Id and dotted name of each hub; the first one answers to the aliases too. The id is the first part of the name.
    pub hubs: Vec<(HubId, HostName)>,
    /// Further names of the first hub and of the provisioning service.
    pub aliases: Vec<HostName>,
    /// Names of the provisioning service.
    pub provisioning: Vec<HostName>,
    /// What devices name the provisioning service by.
    pub id_scope: IdScope,
    /// The policy of enrollments that name none.
    pub allocation_policy: String,
    /// The hubs' routes, the same for all of them.
    pub routing: RoutingConfig,
    /// The hubs' access policies, the same for all of them.
    pub hub_policies: Vec<AccessPolicy<Rights>>,
    /// The provisioning service's.
    pub provisioning_policies: Vec<AccessPolicy<DpsRights>>,
}

impl Settings {
    /// Reads the variables.
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`], naming the first variable that is wrong.
    pub fn read(variable: impl Fn(&'static str) -> Option<String>) -> Result<Self, InvalidSetting> {
        let text = |name| variable(name).unwrap_or_default();
        let names = |name: &'static str| -> Result<Vec<HostName>, InvalidSetting> {
            let given = text(name);
            let given = given.split(',').map(str::trim).filter(|part| !part.is_empty());
            given.map(|part| HostName::parse(part).map_err(|error| invalid(name, &error))).collect()
        };
        let hubs = names("hub_host_names")?.into_iter().map(|host| {
            let id = HubId::parse(host.short()).map_err(|error| invalid("hub_host_names", &error))?;
            Ok((id, host))
        });
        let hubs = hubs.collect::<Result<Vec<_>, _>>()?;
        let is_twice = |at: usize, id: &HubId| hubs.iter().take(at).any(|(earlier, _)| earlier == id);
        if hubs.iter().enumerate().any(|(at, (id, _))| is_twice(at, id)) {
            return Err(invalid("hub_host_names", &"names two hubs whose names begin alike"));
        }
        if hubs.is_empty() || hubs.len() > MAX_HUBS {
            return Err(invalid("hub_host_names", &format!("must name 1 to {MAX_HUBS} hubs")));
        }
        let allocation_policy = Some(text("allocation_policy")).filter(|policy| !policy.is_empty());
        let allocation_policy = allocation_policy.unwrap_or_else(|| "hashed".to_owned());
        if !["hashed", "geoLatency", "static"].contains(&allocation_policy.as_str()) {
            return Err(invalid("allocation_policy", &"is none of hashed, geoLatency, static"));
        }
        Ok(Self {
            hubs,
            aliases: names("aliases")?,
            provisioning: names("provisioning_host_names")?,
            id_scope: IdScope::parse(&text("id_scope")).map_err(|error| invalid("id_scope", &error))?,
            allocation_policy,
            routing: routing(&text("routes"))?,
            hub_policies: policies(
                &text,
                &[
                    ("iothubowner_key", "iothubowner", Rights::ALL),
                    ("service_key", "service", Rights::SERVICE_CONNECT),
                    ("device_key", "device", Rights::DEVICE_CONNECT),
                    ("registry_read_key", "registryRead", Rights::REGISTRY_READ),
                    ("registry_read_write_key", "registryReadWrite", Rights::REGISTRY_WRITE),
                ],
            )?,
            provisioning_policies: policies(
                &text,
                &[("provisioning_key", "provisioningserviceowner", DpsRights::ALL)],
            )?,
        })
    }
}

/// Routes by the names of their sources and conditions, as JSON: `[{"name":…,"source":…,"condition":…}]`. They lead to
/// `events`, the only endpoint there is; device messages that none matches go there too unless one is about them.
fn routing(text: &str) -> Result<RoutingConfig, InvalidSetting> {
    let wrong = |what: &dyn std::fmt::Display| invalid("routes", what);
    let routes: Vec<Value> = match text.trim() {
        "" => Vec::new(),
        text => serde_json::from_str(text).map_err(|error| wrong(&error))?,
    };
    if routes.len() > MAX_ROUTES {
        return Err(wrong(&format!("has more than {MAX_ROUTES} routes")));
    }
    let routes = routes.iter().map(|route| {
        let member = |name: &str| route.get(name).and_then(Value::as_str);
        let name = member("name").ok_or_else(|| wrong(&"has a route without a name"))?;
        let source = member("source").unwrap_or(Source::DeviceMessages.as_str());
        Ok(Route {
            name: RouteName::parse(name).map_err(|error| wrong(&error))?,
            source: source.parse().map_err(|error: UnknownSource| wrong(&error))?,
            condition: member("condition").unwrap_or("true").to_owned(),
            endpoint: EndpointName::events(),
            enabled: true,
        })
    });
    let routes = routes.collect::<Result<Vec<_>, InvalidSetting>>()?;
    let fallback = !routes.iter().any(|route| route.source == Source::DeviceMessages);
    Ok(RoutingConfig { routes, fallback, enrichments: Vec::new() })
}

/// The access policies that have a key. A deployment changes a key by its variable; there is no second one.
fn policies<R: Copy>(
    text: &impl Fn(&'static str) -> String,
    known: &[(&'static str, &str, R)],
) -> Result<Vec<AccessPolicy<R>>, InvalidSetting> {
    let mut policies = Vec::new();
    for (variable, name, rights) in known {
        let key = text(variable);
        if key.trim().is_empty() {
            continue;
        }
        let key =
            SharedKey::from_base64(key.trim()).map_err(|error| invalid(variable, &format!("is no key: {error}")))?;
        let keys = KeyPair { primary: key.clone(), secondary: key };
        let name = PolicyName::parse(name).map_err(|error| invalid(variable, &error))?;
        policies.push(AccessPolicy { name, rights: *rights, keys });
    }
    Ok(policies)
}

fn invalid(name: &'static str, what: &dyn std::fmt::Display) -> InvalidSetting {
    InvalidSetting { name, what: what.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn read(changes: &[(&str, &str)]) -> Result<Settings, InvalidSetting> {
        let usual = [("hub_host_names", "hub1.nave.test"), ("id_scope", "0ne00000001"), ("iothubowner_key", KEY)];
        Settings::read(|name| {
            let value = changes.iter().chain(&usual).find(|(known, _)| *known == name);
            value.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn policies_without_a_key_do_not_exist() {
        let settings = read(&[("hub_host_names", "hub1.nave.test, hub2.nave.test"), ("aliases", "localhost")]).unwrap();
        assert_eq!(settings.hubs.len(), 2);
        assert_eq!(settings.aliases.len(), 1);
        assert_eq!(settings.hub_policies.len(), 1);
        assert!(settings.provisioning_policies.is_empty());
        assert_eq!(settings.allocation_policy, "hashed");
        assert!(settings.routing.fallback && settings.routing.routes.is_empty());
        let routed = read(&[("routes", r#"[{"name":"hot","condition":"level > 3"}]"#)]).unwrap().routing;
        assert!(!routed.fallback);
        assert_eq!(routed.routes[0].condition, "level > 3");
    }

    #[test]
    fn what_is_wrong_is_named_and_keys_are_not_shown() {
        for (name, value) in [
            ("hub_host_names", ""),
            ("hub_host_names", "hub1.a.test,hub1.b.test"),
            ("hub_host_names", "-"),
            ("id_scope", ""),
            ("aliases", "a b"),
            ("allocation_policy", "custom"),
            ("service_key", "c2VjcmV0"),
            ("routes", "{}"),
            ("routes", "[{}]"),
            ("routes", r#"[{"name":"r","source":"nowhere"}]"#),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert_eq!(error.name, name, "{error}");
            assert!(!error.to_string().contains("c2VjcmV0"));
        }
    }
}
