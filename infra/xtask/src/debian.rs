//! Installing Debian packages.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

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

/// Unpacks `package` into `directory` without installing it: what it would start is not started, and nobody needs to be root
/// unless the lists of packages are missing.
///
/// # Errors
/// It cannot be downloaded or unpacked.
pub(crate) fn unpack(workspace: &Workspace, package: &str, directory: &Path) -> Result<()> {
    note(&format!("unpacking the Debian package {package}"));
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(directory)?;
    let download = || {
        let mut command = program("apt-get", workspace);
        command.args(["-q", "download", package]).current_dir(directory);
        command
    };
    if !succeeds(&mut download()) {
        if let Some(prefix) = privilege() {
            let mut argv = prefix.iter().chain(&["apt-get", "-q", "update"]);
            let mut update = program(argv.next().unwrap_or(&"apt-get"), workspace);
            run(update.args(argv))?;
        }
        run(&mut download())?;
    }
    for entry in fs::read_dir(directory)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            run(program("dpkg", workspace).arg("-x").arg(&file).arg(directory))?;
            fs::remove_file(&file)?;
        }
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
