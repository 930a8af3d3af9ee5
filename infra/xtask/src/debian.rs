//! Installing Debian packages.

use std::env;
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{line, note, program, run, succeeds};
use crate::workspace::Workspace;

/// Whether this is Debian or something made of it.
pub(crate) fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists() && succeeds(Command::new("apt-get").arg("--version"))
}

/// Installs `packages`, as root or through sudo.
///
/// # Errors
/// Neither root nor sudo, or apt-get fails (one of the packages may be unknown to this release).
pub(crate) fn install(workspace: &Workspace, packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    let Some(prefix) = privilege() else {
        bail!(
            "please install the Debian packages {names} (neither root nor able to use sudo): apt-get install {names}"
        );
    };
    note(&format!("installing Debian packages: {names}"));
    let apt_get = |args: &[&str]| {
        let mut argv: Vec<&str> = prefix.to_vec();
        argv.extend(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"]);
        argv.extend(args);
        let (first, rest) = (argv[0], &argv[1..]);
        let mut command = program(first, workspace);
        command.args(rest);
        command
    };
    run(&mut apt_get(&["update"]))?;
    let mut install = apt_get(&["install", "--no-install-recommends"]);
    install.args(packages);
    if run(&mut install).is_err() {
        bail!("{} failed; this release of Debian may not have these packages", line(&install));
    }
    Ok(())
}

/// What to put before a command that needs root; `None` if there is no way.
fn privilege() -> Option<&'static [&'static str]> {
    if crate::process::output(Command::new("id").arg("-u")).as_deref() == Some("0") {
        Some(&[])
    } else if succeeds(Command::new("sudo").args(["-n", "true"])) {
        Some(&["sudo", "-n"])
    } else if env::var_os("CI").is_none()
        && std::io::stdin().is_terminal()
        && succeeds(Command::new("sudo").arg("--version"))
    {
        Some(&["sudo"])
    } else {
        None
    }
}
