//! `nave policy simulate`: where a policy puts many devices, and what moves when a hub comes or goes.

mod fleet;
mod report;
mod round;

use std::path::PathBuf;

use clap::Args;

use super::sandbox::{PolicyFile, Sandbox};
use crate::failure::Failure;
use crate::output::{self, Format};
use fleet::Fleet;
use round::Round;

/// Most devices: their places are kept in memory.
const MAX_DEVICES: u32 = 10_000_000;

/// Let a policy place many devices, and see what moves when a hub is added or removed.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave policy simulate policy.wasm --devices 100000 --hubs hubs.toml
  nave policy simulate policy.wasm --hubs hubs.toml --remove hub2.example.org --add hub9.example.org

hubs.toml:
  [[hub]]
  name = \"hub1.example.org\"
  weight = 2
  facts = { location = \"europe-west\", latency-ms = 30 }

  [[hub]]
  name = \"hub2.example.org\"

  [[devices]]                       # optional: kinds of devices, and how many of each (in shares)
  share = 3
  request = { payload = { region = \"europe\" } }

  [[devices]]
  share = 1
  request = { payload = { region = \"america\" } }

`request` is as in a case of `nave policy test`. First every device registers. Then all register again, with their place as
`current`: with the same hubs, without the last hub, and with one more that is like the first. --remove and --add say
otherwise. A policy that answers `use-policy` is followed. Devices that move although their hub is still there, and not to
a hub that is new, move needlessly: moving costs a device its connection.")]
pub(super) struct Simulate {
    #[command(flatten)]
    file: PolicyFile,
    /// Number of devices.
    #[arg(long, short = 'n', default_value_t = 100_000)]
    devices: u32,
    /// The hubs, and what the devices are like (TOML).
    #[arg(long, value_name = "FILE")]
    hubs: PathBuf,
    /// The names of the devices: PREFIX-1, PREFIX-2, ...
    #[arg(long, default_value = "device")]
    prefix: String,
    /// A hub to remove; several times for several rounds [default: the last].
    #[arg(long, value_name = "HUB")]
    remove: Vec<String>,
    /// A hub to add, otherwise like the first; several times for several rounds [default: new.example.org].
    #[arg(long, value_name = "HUB")]
    add: Vec<String>,
    /// Where the devices' random seeds begin.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Runs the command.
pub(super) fn run(args: &Simulate, format: Format) -> Result<(), Failure> {
    if !(1..=MAX_DEVICES).contains(&args.devices) {
        return Err(Failure::usage(format_args!("--devices is 1 to {MAX_DEVICES}")));
    }
    let fleet = Fleet::read(&args.hubs, &args.prefix, args.devices, args.seed)?;
    let component = args.file.read()?;
    let sandbox = Sandbox::start()?;
    let policy = sandbox
        .compile(&component)
        .map_err(|error| Failure::runtime(format_args!("{}: {error}", args.file.file.display())))?;
    let first = Round::run(&sandbox, &policy, &fleet, "every device registers", fleet.hubs(), None)?;
    let mut again = vec![("the same hubs".to_owned(), fleet.hubs().to_vec())];
    let removed = if args.remove.is_empty() { fleet.last().into_iter().collect() } else { args.remove.clone() };
    for name in removed {
        again.push((format!("without {name}"), fleet.without(&name)?));
    }
    let added = if args.add.is_empty() { vec!["new.example.org".to_owned()] } else { args.add.clone() };
    for name in added {
        again.push((format!("with {name}"), fleet.with(&name)?));
    }
    let rounds = again
        .iter()
        .map(|(title, hubs)| Round::run(&sandbox, &policy, &fleet, title, hubs, Some(&first.places)))
        .collect::<Result<Vec<_>, _>>()?;
    let report = report::Report::new(&fleet, &first, &rounds);
    match format {
        Format::Json => output::one(Format::Json, &report.json())?,
        Format::Table => output::line(&report.text())?,
    }
    match report.failures() {
        0 => Ok(()),
        failures => Err(Failure::runtime(format_args!("{failures} registrations failed"))),
    }
}
