//! What is installed agrees with the program: unit, container file, package.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nave_tests::paths;

fn read(path: &str) -> String {
    fs::read_to_string(paths::root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn program() -> PathBuf {
    std::env::var_os("NAVE_BIN").map_or_else(|| paths::root().join("target/release/nave"), PathBuf::from)
}

/// Whether the program has this command with these flags: asking for help comes last, so everything before it is read.
fn is_a_command(words: &[&str]) {
    let output = Command::new(program()).args(words).arg("--help").output().unwrap();
    assert!(output.status.success(), "nave {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The values of a key of the unit, in order.
fn unit_values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn the_unit_calls_commands_that_exist() {
    let unit = read("infra/systemd/nave.service");
    let commands: Vec<&str> = ["ExecStart", "ExecReload"].iter().flat_map(|key| unit_values(&unit, key)).collect();
    assert_eq!(commands.len(), 2);
    for command in commands {
        let words: Vec<&str> = command.split(' ').collect();
        assert_eq!(words[0], "/usr/bin/nave");
        is_a_command(&words[1..]);
        let dir = words.iter().position(|word| *word == "--data-dir").map(|at| words[at + 1]);
        assert_eq!(dir, Some("/var/lib/nave"), "all commands mean the same directory");
    }
    assert_eq!(unit_values(&unit, "StateDirectory"), ["nave"], "it is /var/lib/nave");
    assert_eq!(unit_values(&unit, "ConfigurationDirectory"), ["nave"], "it is /etc/nave");
    let user = unit_values(&unit, "User");
    assert!(read("infra/systemd/nave.sysusers").lines().any(|line| line.starts_with(&format!("u {} ", user[0]))));
}

/// `systemd-analyze` knows every key and every value, where it is installed.
#[test]
fn the_unit_is_understood_by_systemd() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("systemd-analyze is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = program();
    let unit = read("infra/systemd/nave.service")
        .replace("/usr/bin/nave", program.to_str().unwrap())
        .replace("User=nave", "User=root")
        .replace("Group=nave", "Group=root");
    // The manual pages are installed by the package.
    let unit: Vec<&str> = unit.lines().filter(|line| !line.starts_with("Documentation=")).collect();
    let path = dir.path().join("nave.service");
    fs::write(&path, unit.join("\n")).unwrap();
    let output = Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let about_us: Vec<&str> = said.lines().filter(|line| line.contains("nave.service")).collect();
    assert!(about_us.is_empty(), "{said}");
    let output =
        Command::new("systemd-analyze").args(["security", "--offline=yes", "--threshold=25"]).arg(&path).output();
    let output = output.unwrap();
    // The threshold is an exposure of 2.5 of 10; older releases do not know the option and say so.
    let text = [output.stdout.clone(), output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() || text.contains("unrecognized option"), "{text}");
}

#[test]
fn the_container_file_uses_variables_and_commands_that_exist() {
    let file = read("infra/container/Containerfile");
    let help = Command::new(program()).args(["serve", "--help"]).output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    let variables: Vec<&str> = file
        .lines()
        .filter_map(|line| line.strip_prefix("ENV "))
        .flat_map(|line| line.split(' '))
        .filter_map(|word| word.split_once('=').map(|(name, _)| name))
        .collect();
    assert!(!variables.is_empty());
    for variable in variables {
        assert!(help.contains(variable), "{variable}");
    }
    for (line, command) in [("CMD [\"serve\"]", "serve"), ("CMD [\"/usr/bin/nave\", \"status\"]", "status")] {
        assert!(file.contains(line), "{line}");
        is_a_command(&[command]);
    }
    let toolchain = read("rust-toolchain.toml");
    let release = toolchain.split('"').nth(1).unwrap();
    assert!(file.contains(&format!("rust:{release}-")), "the image builds with the release of rust-toolchain.toml");
}

#[test]
fn the_package_holds_files_that_exist_where_the_unit_looks_for_them() {
    let manifest = read("runtime/nave/Cargo.toml");
    let (_, metadata) = manifest.split_once("[package.metadata.deb]").unwrap();
    let crate_dir = paths::root().join("runtime/nave");
    let mut installed = BTreeSet::new();
    for line in metadata.lines().filter(|line| line.trim_start().starts_with("[\"")) {
        let words: Vec<&str> = line.split('"').collect();
        let (from, to) = (words[1], words[3]);
        installed.insert(to.to_owned());
        // The program and its manual pages are built for the package.
        if !from.contains("target/") {
            assert!(crate_dir.join(from).is_file(), "{from}");
        }
    }
    for expected in ["usr/bin/", "etc/nave/nave.toml", "usr/share/man/man1/"] {
        assert!(installed.contains(expected), "{expected}: {installed:?}");
    }
    // The last two are found by their names.
    for named in ["infra/debian/postinst", "infra/systemd/nave.service", "infra/systemd/nave.sysusers"] {
        assert!(paths::root().join(named).is_file(), "{named}");
    }
    assert!(
        metadata.contains("unit-scripts = \"../../infra/systemd\"") && metadata.contains("\"../../infra/debian/\"")
    );
}

/// The configuration that is installed is one: as it is, and with its examples.
#[test]
fn the_installed_configuration_can_be_used() {
    let text = read("infra/systemd/nave.toml");
    let examples: Vec<String> = text
        .lines()
        .map(|line| {
            line.strip_prefix("# ").filter(|rest| rest.contains(" = ") || rest.starts_with('[')).unwrap_or(line)
        })
        .map(str::to_owned)
        .collect();
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("with-examples.toml", examples.join("\n")), ("as-it-is.toml", text)] {
        let path: &Path = &dir.path().join(name);
        fs::write(path, text).unwrap();
        let output = Command::new(program()).args(["config", "check", "--config"]).arg(path).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
