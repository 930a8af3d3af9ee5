//! Running programs, and saying what is going on.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::workspace::Workspace;

/// Says what is about to happen, does it, and says how long it took.
pub(crate) fn step<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {title}");
    let start = Instant::now();
    let value = work().with_context(|| format!("failed: {title}"))?;
    eprintln!("    done in {}: {title}", human(start.elapsed()));
    Ok(value)
}

/// Says something that is not a step of its own.
pub(crate) fn note(text: &str) {
    eprintln!("    {text}");
}

/// Seconds with one digit, or minutes and seconds.
pub(crate) fn human(elapsed: Duration) -> String {
    if elapsed.as_secs() < 60 {
        format!("{:.1} s", elapsed.as_secs_f64())
    } else {
        format!("{} min {} s", elapsed.as_secs() / 60, elapsed.as_secs() % 60)
    }
}

/// The cargo that runs this program, working in the root, in the environment that a person's own `cargo` call would see.
pub(crate) fn cargo(workspace: &Workspace) -> Command {
    let mut command = program(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), workspace);
    command.env("CARGO_TARGET_DIR", &workspace.target);
    command
}

/// A program, working in the root, without the variables that `cargo run` adds for this program.
///
/// Some build scripts (ring's is one) ask to be run again when `CARGO_PKG_*` or `CARGO_MANIFEST_*` change. If they leaked,
/// everything above would be compiled anew each time that a person changes between `cargo build` and `cargo xtask build`.
/// And `LD_LIBRARY_PATH` names rustup's libraries, which another compiler (Debian's) must not load.
pub(crate) fn program(program: impl AsRef<OsStr>, workspace: &Workspace) -> Command {
    let mut command = Command::new(program);
    command.current_dir(&workspace.root);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(added_by_cargo) {
            command.env_remove(name);
        }
    }
    if let Some(value) = env::var_os("LD_LIBRARY_PATH") {
        let kept: Vec<_> = env::split_paths(&value).filter(|p| !added_to_library_path(p, &workspace.target)).collect();
        match env::join_paths(&kept) {
            Ok(joined) if !kept.is_empty() => command.env("LD_LIBRARY_PATH", joined),
            _ => command.env_remove("LD_LIBRARY_PATH"),
        };
    }
    command
}

/// Runs it, with its output shown. An error names the command line.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", line(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", line(command));
    }
    Ok(())
}

/// Whether it ran and succeeded; its output is hidden.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// What it printed, without white space around; `None` if it cannot be started or fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    if !output.status.success() {
        return None;
    }
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// Runs it, with its output shown, and ends it when `limit` has passed. Whether it succeeded in time.
pub(crate) fn succeeds_within(command: &mut Command, limit: Duration) -> io::Result<bool> {
    let mut child = command.stdin(Stdio::null()).spawn()?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The command line, for messages.
pub(crate) fn line(command: &Command) -> String {
    let mut text = format!("`{}", Path::new(command.get_program()).display());
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text.push('`');
    text
}

fn added_by_cargo(name: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| name.starts_with(prefix))
        || ["CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "CARGO_RUSTC_CURRENT_DIR", "OUT_DIR"].contains(&name)
}

fn added_to_library_path(path: &Path, target: &Path) -> bool {
    path.starts_with(target) || path.components().any(|c| c.as_os_str() == "toolchains" || c.as_os_str() == "rustlib")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cargo_adds_is_taken_away() {
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "CARGO_PRIMARY_PACKAGE"] {
            assert!(added_by_cargo(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_TERM_COLOR", "CARGO_NET_OFFLINE", "RUSTFLAGS", "PATH"] {
            assert!(!added_by_cargo(name), "{name}");
        }
    }

    #[test]
    fn library_path_keeps_what_a_person_put_there() {
        let target = Path::new("/w/target");
        assert!(added_to_library_path(Path::new("/w/target/debug/deps"), target));
        assert!(added_to_library_path(Path::new("/root/.rustup/toolchains/stable/lib"), target));
        assert!(!added_to_library_path(Path::new("/opt/lib"), target));
    }

    #[cfg(unix)]
    #[test]
    fn a_program_that_hangs_is_ended() {
        assert!(!succeeds_within(Command::new("sleep").arg("600"), Duration::from_millis(1)).unwrap());
        assert!(succeeds_within(&mut Command::new("true"), Duration::from_secs(60)).unwrap());
        assert!(!succeeds_within(&mut Command::new("false"), Duration::from_secs(60)).unwrap());
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(human(Duration::from_millis(1_250)), "1.2 s");
        assert_eq!(human(Duration::from_secs(125)), "2 min 5 s");
    }
}
