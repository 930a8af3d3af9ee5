//! The command line.

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory as _, Parser, Subcommand};

use crate::commands::{
    backup, ca, completions, config, device, doctor, enrollment, events, feedback, hosts, hub, man, method, module,
    policy, registration, reload, restore, send, simulate, status, twin,
};
use crate::config::origin::{Origin, Sources};
use crate::config::{Config, Overrides, closest, explain};
use crate::failure::Failure;

/// A self-hosted IoT device hub and device-provisioning service for the Azure IoT SDKs.
#[derive(Parser)]
#[command(name = "nave", version, after_long_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Start here:
  nave serve                                  a hub, its provisioning service and a development CA
  nave device create thermostat-1             in another terminal: a device ...
  nave device connection-string thermostat-1  ... and the connection string for its program
  nave events --follow                        its messages

The commands read the file `connection.json` that a running hub keeps in its data
directory, so on the same machine no connection string has to be typed.

Exit codes:
  0  done
  1  it failed
  2  the command line or the configuration is wrong; nothing was done
  3  what was asked for does not exist
  4  the hub does not run, or does not answer";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a hub until Ctrl-C or SIGTERM.
    Serve(Box<ServeArgs>),
    /// The hubs of this machine and their connection strings.
    Hub(hub::HubArgs),
    /// The devices of a hub.
    Device(device::DeviceArgs),
    /// The modules of devices.
    Module(module::ModuleArgs),
    /// Tags, desired and reported properties of devices.
    Twin(twin::TwinArgs),
    /// Methods of devices.
    Method(method::MethodArgs),
    /// Send a message to a device.
    Send(Box<send::SendArgs>),
    /// What became of messages to devices.
    Feedback(feedback::FeedbackArgs),
    /// Who may register with the provisioning service.
    Enrollment(enrollment::EnrollmentArgs),
    /// Who chooses the hub of a device: allocation policies of your own.
    Policy(policy::PolicyArgs),
    /// What the provisioning service has assigned.
    Registration(registration::RegistrationArgs),
    /// What devices send.
    Events(events::EventsArgs),
    /// Certificate authorities that vouch for devices.
    Ca(ca::CaArgs),
    /// Run simulated devices.
    Simulate(simulate::SimulateArgs),
    /// The names of the hubs in this machine's hosts file.
    Hosts(hosts::HostsArgs),
    /// The configuration in force, and where each value came from.
    Config(config::ConfigCommandArgs),
    /// How the hub on this machine does.
    Status(status::StatusArgs),
    /// Look for what would keep a hub from working well, and say what to do about it.
    Doctor(Box<doctor::DoctorArgs>),
    /// Make the hub on this machine take up a changed configuration, without dropping a connection.
    Reload(reload::ReloadArgs),
    /// Copy everything that a hub keeps into one file, while it runs.
    Backup(backup::BackupArgs),
    /// Fill a data directory from a backup, or check a backup.
    Restore(restore::RestoreArgs),
    /// Print a script that completes commands in a shell.
    Completions(completions::CompletionsArgs),
    /// Write the manual pages.
    Man(man::ManArgs),
}

/// The environment variable that `variable` is probably a misspelling of. Others that begin like ours are none of our business:
/// container platforms make such for services called nave.
pub(crate) fn misspelled(variable: &str) -> Option<String> {
    if !variable.starts_with("NAVE_") {
        return None;
    }
    let command = Cli::command();
    let known: Vec<String> = command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .filter_map(|argument| argument.get_env().and_then(|name| name.to_str()).map(str::to_owned))
        .collect();
    if known.iter().any(|name| name == variable) {
        return None;
    }
    closest(variable, known.iter().map(String::as_str)).map(str::to_owned)
}

/// `nave serve`. Flags win over environment variables, those win over the configuration file.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave serve
  nave serve --data-dir /var/lib/nave --config /etc/nave.toml
  nave serve --listen-https 127.0.0.1:8443 --listen-mqtts 127.0.0.1:8883   this machine only, no root needed
  NAVE_LOG_FORMAT=json nave serve

A configuration with two hubs:
  [[hub]]
  name = \"factory\"
  host_name = \"factory.example.org\"

  [[hub]]
  name = \"field\"
  host_name = \"field.example.org\"

  [provisioning]
  host_name = \"dps.example.org\"")]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// What a hub is configured by: the flags of `nave serve`, which other commands take as well.
#[derive(Args, Clone, Debug)]
pub(crate) struct ConfigArgs {
    /// Directory for everything that is kept [default: the user's folder for application data].
    #[arg(long, env = "NAVE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Configuration file (TOML).
    #[arg(long, env = "NAVE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Threads that serve connections [default: one per core].
    #[arg(long, env = "NAVE_WORKERS", value_name = "N")]
    workers: Option<usize>,
    /// Directory with function components (twin.wasm, ...) that replace the built-in ones.
    #[arg(long, env = "NAVE_FUNCTIONS_DIR", value_name = "DIR")]
    functions_dir: Option<PathBuf>,
    /// error, warn, info, debug or trace [default: info].
    #[arg(long, env = "NAVE_LOG_LEVEL", value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json [default: text].
    #[arg(long, env = "NAVE_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<String>,
    /// Where to listen for MQTT over TLS, or `off` [default: every interface, port 8883].
    #[arg(long, env = "NAVE_LISTEN_MQTTS", value_name = "ADDRESS")]
    listen_mqtts: Option<String>,
    /// Where to listen for HTTPS, or `off` [default: every interface, port 443].
    #[arg(long, env = "NAVE_LISTEN_HTTPS", value_name = "ADDRESS")]
    listen_https: Option<String>,
    /// Where to listen for the admin API (loopback only), or `off` [default: a free port].
    #[arg(long, env = "NAVE_LISTEN_ADMIN", value_name = "ADDRESS")]
    listen_admin: Option<String>,
    /// Server certificate chain, PEM [default: made by the development CA].
    #[arg(long, env = "NAVE_TLS_CERTIFICATE", value_name = "FILE")]
    tls_certificate: Option<PathBuf>,
    /// Private key of the server certificate, PEM.
    #[arg(long, env = "NAVE_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Id scope of the provisioning service [default: generated once and kept].
    #[arg(long, env = "NAVE_ID_SCOPE", value_name = "SCOPE")]
    id_scope: Option<String>,
}

/// The arguments that give a value of the configuration, and its key in the file.
const KEYS: [(&str, &str); 11] = [
    ("data_dir", "data_dir"),
    ("workers", "workers"),
    ("functions_dir", "functions_dir"),
    ("log_level", "log.level"),
    ("log_format", "log.format"),
    ("listen_mqtts", "listen.mqtts"),
    ("listen_https", "listen.https"),
    ("listen_admin", "listen.admin"),
    ("tls_certificate", "tls.certificate"),
    ("tls_key", "tls.key"),
    ("id_scope", "provisioning.id_scope"),
];

impl ConfigArgs {
    /// Reads and checks the configuration; `matches` are those of the command, and say where its values came from.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`], naming the file and the line or key.
    pub(crate) fn load(&self, matches: &ArgMatches) -> Result<(Config, Vec<explain::Entry>), Failure> {
        self.load_from(&sources(matches))
    }

    /// The same, when the sources are known.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub(crate) fn load_from(&self, sources: &Sources) -> Result<(Config, Vec<explain::Entry>), Failure> {
        let path = self.config.as_deref();
        Config::load_explained(path, self.clone().overrides(), sources).map_err(|error| match path {
            Some(path) => Failure::usage(format_args!("{}: {error}", path.display())),
            None => Failure::usage(error),
        })
    }

    /// What the command line and the environment say.
    pub(crate) fn overrides(self) -> Overrides {
        Overrides {
            data_dir: self.data_dir,
            workers: self.workers,
            functions_dir: self.functions_dir,
            log_level: self.log_level,
            log_format: self.log_format,
            mqtts: self.listen_mqtts,
            https: self.listen_https,
            admin: self.listen_admin,
            tls_certificate: self.tls_certificate,
            tls_key: self.tls_key,
            id_scope: self.id_scope,
        }
    }
}

/// Which values the command line and the environment gave to a command that has [`ConfigArgs`].
pub(crate) fn sources(matches: &ArgMatches) -> Sources {
    let command = ConfigArgs::augment_args(clap::Command::new("nave"));
    let given = command.get_arguments().filter_map(|argument| {
        let id = argument.get_id().as_str();
        let (_, key) = KEYS.iter().find(|(known, _)| *known == id)?;
        let origin = match matches.value_source(id)? {
            ValueSource::CommandLine => Origin::Flag(format!("--{}", argument.get_long()?)),
            ValueSource::EnvVariable => Origin::Environment(argument.get_env()?.to_str()?.to_owned()),
            _ => return None,
        };
        Some((*key, origin))
    });
    Sources(given.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_reach_the_configuration() {
        let cli = Cli::try_parse_from(["nave", "serve", "--data-dir", "d", "--workers", "3", "--listen-https", "off"]);
        let Ok(Cli { command: Command::Serve(args) }) = cli else { panic!("it is valid") };
        let overrides = args.config.overrides();
        assert_eq!(overrides.data_dir.as_deref(), Some(std::path::Path::new("d")));
        assert_eq!((overrides.workers, overrides.https.as_deref()), (Some(3), Some("off")));
    }

    #[test]
    fn every_value_of_the_configuration_knows_its_source() {
        let command = ConfigArgs::augment_args(clap::Command::new("nave"));
        for argument in command.get_arguments().filter(|argument| argument.get_id() != "config") {
            let id = argument.get_id().as_str();
            assert!(KEYS.iter().any(|(known, _)| *known == id), "{id}");
        }
        let matches = Cli::command()
            .try_get_matches_from(["nave", "serve", "--listen-https", "off", "--id-scope", "0ne1"])
            .unwrap();
        let found = sources(matches.subcommand_matches("serve").unwrap());
        assert_eq!(found.0.get("listen.https"), Some(&Origin::Flag("--listen-https".to_owned())));
        assert_eq!(found.0.get("provisioning.id_scope"), Some(&Origin::Flag("--id-scope".to_owned())));
        assert!(!found.0.contains_key("listen.mqtts"));
    }

    #[test]
    fn a_misspelled_variable_is_noticed_and_a_foreign_one_is_not() {
        assert_eq!(misspelled("NAVE_DATADIR").as_deref(), Some("NAVE_DATA_DIR"));
        assert_eq!(misspelled("NAVE_LISTEN_MQTT").as_deref(), Some("NAVE_LISTEN_MQTTS"));
        for fine in ["NAVE_DATA_DIR", "NAVE_SERVICE_HOST", "NAVE_PORT_443_TCP_PROTO", "DATA_DIR"] {
            assert_eq!(misspelled(fine), None, "{fine}");
        }
    }
}
