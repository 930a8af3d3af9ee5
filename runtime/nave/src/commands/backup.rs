//! `nave backup`: everything that a hub keeps, in one file.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use nave_env::SharedEnv;
use nave_net::RealEnv;

use crate::backup::{self, Summary, Whole};
use crate::client::{Http, Target};
use crate::failure::Failure;
use crate::files;
use crate::output::{self, Format};
use crate::ready::Ready;
use crate::serve::DataDir;

/// Bytes between two reports of progress.
const REPORT_EVERY: u64 = 16 << 20;

/// Copy everything that a hub keeps into one file: state, telemetry, keys of access policies, the development CA.
///
/// The hub may run: it is asked for the copy, which holds everything that was acknowledged before the copy was begun. If it
/// does not run, its data directory is read. The file contains keys: only its owner may read it. Certificates that `[tls]`
/// names, and the configuration file, are the operator's own and are not in it.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave backup /backup/nave-$(date +%F).bak
  nave backup - | age -r KEY > nave.bak.age       to standard output, here encrypted on its way
  nave restore --check /backup/nave-2026-11-28.bak
  nave restore /backup/nave-2026-11-28.bak --data-dir /var/lib/nave")]
pub(crate) struct BackupArgs {
    /// The file to make, or `-` for standard output.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace FILE if it exists.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    target: Target,
}

/// Runs the command.
pub(crate) fn run(args: &BackupArgs) -> Result<(), Failure> {
    let data_dir = args.target.data_dir();
    if args.file == Path::new("-") {
        return copy(&data_dir, &mut io::stdout().lock());
    }
    refuse_inside(&args.file, &data_dir)?;
    if args.file.exists() && !args.force {
        return Err(Failure::usage(format_args!(
            "{} exists: name another file, or replace it with --force",
            args.file.display()
        )));
    }
    let failed = |error: io::Error| Failure::runtime(format_args!("{}: {error}", args.file.display()));
    let mut name = args.file.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = args.file.with_file_name(name);
    let done = (|| {
        // What an attempt that was killed left behind; a new file has our mode and is nobody's link.
        if let Err(error) = std::fs::remove_file(&partial)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(failed(error));
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial).map_err(failed)?;
        copy(&data_dir, &mut file)?;
        file.sync_all().map_err(failed)?;
        // As it lies on the disk: what cannot be read back is no backup.
        let summary = backup::check(io::BufReader::new(File::open(&partial).map_err(failed)?), |_| {})
            .map_err(Failure::runtime)?;
        std::fs::rename(&partial, &args.file).map_err(failed)?;
        let parent = args.file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed)?;
        Ok(summary)
    })();
    if done.is_err() {
        // Half a backup helps nobody; that it cannot be removed changes nothing.
        let _ = std::fs::remove_file(&partial);
    }
    report(args.target.output, &done?)
}

/// A backup in the data directory would be part of the next one, and lost with the disk that it is for.
fn refuse_inside(file: &Path, data_dir: &Path) -> Result<(), Failure> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (Ok(parent), Ok(data_dir)) = (parent.canonicalize(), data_dir.canonicalize()) else { return Ok(()) };
    if parent.starts_with(&data_dir) {
        return Err(Failure::usage(format_args!(
            "{} is in the data directory {}: it would be part of the next backup, and lost with the disk that it is for. Name \
             another place",
            file.display(),
            data_dir.display()
        )));
    }
    Ok(())
}

/// What is told about a backup.
pub(super) fn report(format: Format, summary: &Summary) -> Result<(), Failure> {
    match format {
        Format::Json => output::one(format, &summary.json()),
        Format::Table => output::line(&format!(
            "{} bytes: {} records and {} files, as of {}",
            summary.bytes,
            summary.entries,
            summary.files,
            summary.created.iso()
        )),
    }
}

/// Copies what is kept in `data_dir`, from the hub that uses it or from the directory itself.
fn copy(data_dir: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let mut out = Progress { out, written: 0, shown: io::stderr().is_terminal(), whole: Whole::new() };
    let running = Ready::read(data_dir).ok().filter(|ready| is_alive(ready.pid));
    let Some(ready) = running else {
        // Taking the directory makes sure that no hub starts in the middle of the copy.
        if !data_dir.join("store").is_dir() {
            return Err(Failure::NotFound(format!("{} is no data directory of a hub", data_dir.display())));
        }
        let data = DataDir::lock(data_dir)?;
        if backup::was_interrupted(data.path()) {
            let dir = data_dir.display();
            return Err(Failure::runtime(format_args!(
                "a restore into {dir} was interrupted: there is no whole hub in it"
            )));
        }
        // Opening a store writes to it.
        let _given_back = GivenBack(data.path().to_owned());
        let env: SharedEnv = RealEnv::start().map_err(Failure::runtime)?;
        let source = backup::offline(data.path(), &Arc::clone(&env)).map_err(Failure::runtime)?;
        backup::write(&source, crate::serve::now(), &mut out).map_err(Failure::runtime)?;
        source.logs.iter().for_each(|log| log.log.close());
        source.store.close();
        return Ok(());
    };
    let admin = ready.admin.ok_or_else(|| {
        Failure::Unreachable(
            "a hub runs with this data directory and has no admin API (`listen.admin` is off): stop it for the copy, or \
             open the admin API"
                .to_owned(),
        )
    })?;
    let mut stream = Http::admin(&admin).stream("/admin/backup")?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let broken = |error| Failure::Unreachable(format!("the copy was broken off ({error}); the hub's log says why"));
        let read = stream.read(&mut buffer).map_err(broken)?;
        if read == 0 {
            out.flush().map_err(Failure::runtime)?;
            if !out.whole.is_whole() {
                return Err(broken(io::ErrorKind::UnexpectedEof.into()));
            }
            return Ok(());
        }
        out.write_all(buffer.get(..read).unwrap_or_default()).map_err(Failure::runtime)?;
    }
}

/// Gives everything in a data directory to the directory's owner when it is dropped.
struct GivenBack(PathBuf);

impl Drop for GivenBack {
    fn drop(&mut self) {
        if let Err(error) = files::give_to_owner_of(&self.0, &self.0) {
            eprintln!("{}: not everything could be given back to its owner: {error}", self.0.display());
        }
    }
}

/// Whether a process with this number runs; a killed hub leaves its ready file.
fn is_alive(pid: u32) -> bool {
    !Path::new("/proc/self").exists() || Path::new(&format!("/proc/{pid}")).exists()
}

/// Says on a terminal how far it is.
struct Progress<'a> {
    out: &'a mut dyn Write,
    written: u64,
    shown: bool,
    whole: Whole,
}

impl Write for Progress<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.whole.update(bytes.get(..written).unwrap_or_default());
        let before = self.written / REPORT_EVERY;
        self.written += u64::try_from(written).unwrap_or_default();
        if self.shown && self.written / REPORT_EVERY != before {
            eprint!("\r{} MiB ", self.written >> 20);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The same for reading: a function that is told how much has been read.
pub(super) fn told() -> impl FnMut(u64) {
    let shown = io::stderr().is_terminal();
    let mut last = 0;
    move |read| {
        if shown && read / REPORT_EVERY != last {
            last = read / REPORT_EVERY;
            eprint!("\r{} MiB ", read >> 20);
        }
    }
}
