//! Taking up a changed configuration. Everything is read, compiled and checked before anything changes; so either all of it
//! changes or nothing, and connections go on.

use nave_hub::PreparedRouting;

use super::certificates::ServerIdentity;
use super::directory::DataDir;
use super::operator::Served;
use super::{Configured, Running, server_identity};
use crate::config::Config;
use crate::config::explain::{Entry, with_id_scope};
use crate::{failure::Failure, logging, traces};

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    /// The configuration, a certificate or a function is wrong.
    #[error("nothing was changed: {0}")]
    Wrong(String),
    /// What changed is fixed while the hub runs.
    #[error("nothing was changed, because this needs a restart: {}", .0.join("; "))]
    Restart(Vec<String>),
}

impl From<Failure> for ReloadError {
    fn from(failure: Failure) -> Self {
        Self::Wrong(failure.to_string())
    }
}

impl Running {
    /// Takes up the configuration as it is now; says what changed.
    pub(super) fn reload(&mut self, configured: &mut Configured, data: &DataDir) -> Result<Vec<String>, ReloadError> {
        let (config, entries) = configured.args.load_from(&configured.sources)?;
        let (changed, fixed) = differences(&configured.entries, &entries);
        if !fixed.is_empty() {
            return Err(ReloadError::Restart(fixed));
        }
        let order = |config: &Config| config.hubs.iter().map(|hub| hub.id.clone()).collect::<Vec<_>>();
        if order(&config) != order(&configured.config) {
            return Err(ReloadError::Restart(vec!["the order of the hubs".to_owned()]));
        }
        // From here to the end of `prepared` nothing is changed.
        let functions =
            self.functions.prepare(&config.functions).map_err(|error| ReloadError::Wrong(error.to_string()))?;
        let identity = server_identity(&config, data, &self.env)?;
        let traces = traces::prepare(&config.traces)?;
        let mut prepared: Vec<PreparedRouting> = Vec::with_capacity(config.hubs.len());
        for (hub, wanted) in self.parts.platform.hubs().iter().zip(&config.hubs) {
            let routing = hub.prepare_routing(wanted.routing.clone());
            prepared.push(routing.map_err(|error| ReloadError::Wrong(format!("hub `{}`: {error}", wanted.name)))?);
        }
        let mut ready = self.ready.clone();
        ready.ca_certificate.clone_from(&identity.ca);
        if ready != self.ready {
            ready.write(data.path()).map_err(|error| ReloadError::Wrong(data.explain(&error).to_string()))?;
            self.ready = ready;
        }
        self.functions.install(functions);
        for (hub, routing) in self.parts.platform.hubs().iter().zip(prepared) {
            hub.install_routing(routing);
        }
        for (hub, wanted) in self.parts.platform.hubs().iter().zip(&config.hubs) {
            hub.set_cloud_to_device(wanted.cloud_to_device);
            hub.set_twin_catch_up(wanted.twin_catch_up);
        }
        self.parts.platform.provisioning().set_answers_at_once(config.provisioning.answer_at_once);
        self.parts.set_retention(&config);
        logging::set_level(config.log_level);
        traces::install(traces);
        let mut done = changed;
        if self.serve_with(&identity) {
            done.push("the certificate".to_owned());
        }
        let scope = self.parts.platform.provisioning().id_scope().as_str();
        self.process.goes_by(with_id_scope(entries.clone(), Some(scope)));
        configured.config = config;
        configured.entries = entries;
        Ok(done)
    }

    /// Looks whether another certificate is to be served, without looking at the rest of the configuration.
    pub(super) fn renew(&self, configured: &Configured, data: &DataDir) {
        match server_identity(&configured.config, data, &self.env) {
            Ok(identity) => {
                if self.serve_with(&identity) {
                    tracing::info!("serving another certificate");
                }
            }
            Err(error) => {
                tracing::error!(%error, "the server certificate cannot be renewed; the old one is still served")
            }
        }
    }

    /// Serves `identity` from now on; says whether that is another certificate. Connections keep the one they have.
    fn serve_with(&self, identity: &ServerIdentity) -> bool {
        self.open.certificates.replace(identity.identity.clone(), []);
        self.process.serves(Served::of(identity))
    }
}

/// What changed and may, and what changed and may not.
fn differences(old: &[Entry], new: &[Entry]) -> (Vec<String>, Vec<String>) {
    let (mut changed, mut fixed) = (Vec::new(), Vec::new());
    let of = |list: &[Entry], key: &str| list.iter().find(|entry| entry.key == key).cloned();
    for entry in new {
        let text = match of(old, &entry.key) {
            Some(before) if before.value == entry.value => continue,
            Some(before) => format!("{} from {} to {}", entry.key, before.value, entry.value),
            None => format!("{}, which is new", entry.key),
        };
        if entry.reloadable { changed.push(entry.key.clone()) } else { fixed.push(text) }
    }
    for entry in old.iter().filter(|entry| of(new, &entry.key).is_none()) {
        if entry.reloadable {
            changed.push(entry.key.clone())
        } else {
            fixed.push(format!("{}, which is gone", entry.key))
        }
    }
    (changed, fixed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::origin::Origin;

    fn entry(key: &str, value: i32, reloadable: bool) -> Entry {
        Entry { key: key.to_owned(), value: json!(value), origin: Origin::Default, reloadable }
    }

    #[test]
    fn what_may_change_is_told_from_what_may_not() {
        let old = [entry("a", 1, true), entry("b", 1, false), entry("c", 1, true), entry("d", 1, false)];
        let new = [entry("a", 2, true), entry("b", 2, false), entry("e", 1, true), entry("f", 1, false)];
        let (changed, fixed) = differences(&old, &new);
        assert_eq!(changed, ["a", "e", "c"]);
        assert_eq!(fixed, ["b from 1 to 2", "f, which is new", "d, which is gone"]);
        assert_eq!(differences(&old, &old), (vec![], vec![]));
    }
}
