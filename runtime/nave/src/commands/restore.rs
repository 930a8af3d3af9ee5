//! `nave restore`: a data directory from a backup.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use clap::Args;

use super::backup::{report, told};
use crate::backup;
use crate::failure::Failure;
use crate::output::Format;

/// Fill a data directory from a backup, or check that a backup is whole.
///
/// The backup is checked before anything is written, and no hub starts with a directory that was not filled to the end; repeat
/// the command then. The directory may be a mount point. What is in it belongs to its owner. Start the hub with it
/// afterwards: `nave serve --data-dir DIR`. A hub that was restored goes on with new entity tags and new session numbers, so
/// that nothing that was given out after the copy is given out again; devices only have to reconnect. Changes and telemetry
/// after the copy are gone, and so are devices that were created after it.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave restore --check /backup/nave.bak
  nave restore /backup/nave.bak --data-dir /var/lib/nave")]
pub(crate) struct RestoreArgs {
    /// The backup.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only read the backup and check every byte of it.
    #[arg(long)]
    check: bool,
    /// The data directory to make: one that does not exist yet, or is empty.
    #[arg(long, env = "NAVE_DATA_DIR", value_name = "DIR", required_unless_present = "check")]
    data_dir: Option<PathBuf>,
    /// How the result is printed.
    #[arg(long, short, env = "NAVE_OUTPUT", value_enum, default_value_t)]
    output: Format,
}

/// Runs the command.
pub(crate) fn run(args: &RestoreArgs) -> Result<(), Failure> {
    let summary = match &args.data_dir {
        Some(dir) if !args.check => backup::restore(&args.file, dir, told()).map_err(Failure::runtime)?,
        _ => {
            let file = File::open(&args.file).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Failure::NotFound(format!("{}: {error}", args.file.display())),
                _ => Failure::runtime(format_args!("{}: {error}", args.file.display())),
            })?;
            backup::check(BufReader::new(file), told()).map_err(Failure::runtime)?
        }
    };
    report(args.output, &summary)
}
