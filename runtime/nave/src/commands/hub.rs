//! `nave hub`: the hubs of this machine.

use clap::{Args, Subcommand};
use nave_auth::ConnectionString;
use nave_model::HostName;
use serde_json::{Value, json};

use crate::client::{Http, Local, Method, Target};
use crate::failure::Failure;
use crate::output;
use crate::ready::ReadyHub;
use crate::serve::Settings;

/// List hubs, show one, or print its connection string.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave hub list
  nave hub show hub1
  nave hub connection-string                        for back ends: the policy iothubowner
  nave hub connection-string --policy service       a policy with fewer rights
  nave hub connection-string --host-name hub1.nave.test    for .NET and Java, which refuse `localhost`
  nave hub connection-string --provisioning         for tools that manage enrollments")]
pub(crate) struct HubArgs {
    #[command(subcommand)]
    command: HubCommand,
    #[command(flatten)]
    target: Target,
}

#[derive(Subcommand)]
enum HubCommand {
    /// All hubs of the process.
    List,
    /// One hub: names, ports, connected devices.
    Show {
        /// Its name [default: the first].
        name: Option<String>,
    },
    /// What back ends connect with. It contains a key.
    ConnectionString {
        /// The hub's name [default: the first].
        name: Option<String>,
        /// The access policy: iothubowner, service, device, registryRead or registryReadWrite.
        #[arg(long, default_value = "iothubowner")]
        policy: String,
        /// The host name to put in, one of the hub's names.
        #[arg(long)]
        host_name: Option<String>,
        /// Of the provisioning service, not of a hub.
        #[arg(long, conflicts_with_all = ["name", "policy"])]
        provisioning: bool,
        /// Use the secondary key.
        #[arg(long)]
        secondary: bool,
    },
}

/// Runs the command.
pub(crate) fn run(args: &HubArgs) -> Result<(), Failure> {
    let local = args.target.local()?;
    let named = |name: &'_ Option<String>| name.clone().or_else(|| args.target.hub_name().map(str::to_owned));
    match &args.command {
        HubCommand::List => {
            let hubs: Vec<Value> = local.ready.hubs.iter().map(|hub| describe(&local, hub)).collect();
            let columns = [
                ("NAME", "/name"),
                ("HOST NAMES", "/hostNames"),
                ("MQTT", "/mqttsPort"),
                ("HTTPS", "/httpsPort"),
                ("CONNECTED", "/connectedDevices"),
            ];
            output::list(args.target.output, &hubs, &columns)
        }
        HubCommand::Show { name } => {
            let hub = local.hub(named(name).as_deref())?;
            output::one(args.target.output, &describe(&local, hub))
        }
        HubCommand::ConnectionString { name, policy, host_name, provisioning, secondary } => {
            let settings = Settings::read(&local.data_dir)
                .map_err(Failure::runtime)?
                .ok_or_else(|| Failure::runtime("the data directory has no settings.json"))?;
            let (policies, dial, names) = if *provisioning {
                let dps = &local.ready.provisioning;
                let policies = settings.provisioning_policies().map_err(Failure::runtime)?;
                let owner = policies.into_iter().map(|policy| (policy.name, policy.keys)).collect::<Vec<_>>();
                (owner, &dps.host_name, &dps.aliases)
            } else {
                let hub = local.hub(named(name).as_deref())?;
                let policies = settings.hub_policies(&hub.name).map_err(Failure::runtime)?;
                let policies = policies.into_iter().map(|policy| (policy.name, policy.keys)).collect::<Vec<_>>();
                (policies, &hub.host_name, &hub.aliases)
            };
            let known: Vec<String> = policies.iter().map(|(name, _)| name.as_str().to_owned()).collect();
            let wanted = if *provisioning { known.first().cloned().unwrap_or_default() } else { policy.clone() };
            let (policy, keys) = policies.into_iter().find(|(name, _)| name.as_str() == wanted).ok_or_else(|| {
                Failure::NotFound(format!("there is no policy `{wanted}`; the policies are {}", known.join(", ")))
            })?;
            let host = match host_name {
                None => dial.clone(),
                Some(host) => {
                    names.iter().chain([dial]).find(|known| known.eq_ignore_ascii_case(host)).cloned().ok_or_else(
                        || Failure::NotFound(format!("`{host}` is none of its names: {dial}, {}", names.join(", "))),
                    )?
                }
            };
            let host = HostName::parse(&host).map_err(Failure::runtime)?;
            let key = if *secondary { keys.secondary } else { keys.primary };
            let text = ConnectionString::service(host, policy, key).expose();
            match args.target.output {
                output::Format::Table => output::line(&text),
                output::Format::Json => output::one(args.target.output, &json!({ "connectionString": text })),
            }
        }
    }
}

fn describe(local: &Local, hub: &ReadyHub) -> Value {
    let names: Vec<&String> = std::iter::once(&hub.host_name).chain(&hub.aliases).collect();
    json!({
        "name": hub.name,
        "hostNames": names,
        "mqttsPort": hub.mqtts_port,
        "httpsPort": hub.https_port,
        "connectedDevices": connected(local, hub),
    })
}

/// Number of connected devices, if the admin API says.
fn connected(local: &Local, hub: &ReadyHub) -> Option<u64> {
    let status = Http::admin(local.ready.admin.as_ref()?).send(Method::Get, "/admin/status", &[], None).ok()?.body;
    let hubs = status.get("hubs")?.as_array()?;
    let mine = hubs.iter().find(|status| status.get("id").and_then(Value::as_str) == Some(&hub.name))?;
    mine.get("connectedDevices")?.as_u64()
}
