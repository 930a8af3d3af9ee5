//! The page for authors: every command in it is run, in the order of the page.

use std::fs;
use std::process::Command;

use nave_tests::paths;

/// The commands of a page: its `sh` blocks.
///
/// Where this machine builds components in another way than with the target of its toolchain, `cargo build` gets the
/// variables for it and the target is not asked for. The project's target directory is one that stays.
fn script(page: &str) -> String {
    let variables = fs::read_to_string(paths::policies().join("cargo-build.env")).expect("run `cargo xtask policies`");
    let variables: String = variables.lines().map(|line| format!("'{line}' ")).collect();
    let cargo = paths::policies().join("cargo").canonicalize().unwrap();
    let mut script = String::new();
    let mut inside = false;
    for line in page.lines() {
        match (inside, line) {
            (false, "```sh") => inside = true,
            (true, "```") => inside = false,
            (true, line) if line.starts_with("rustup target add ") => {}
            (true, line) if line.starts_with("cargo build ") => script.push_str(&format!("env {variables}{line}\n")),
            (true, line) if line.starts_with("cd ") => {
                script.push_str(&format!("{line}\nln -s '{}' target\n", cargo.display()));
            }
            // The page goes on in another terminal, once the hub is ready.
            (true, line) if line.starts_with("nave serve ") => {
                script.push_str(&format!("{line} > serve.log 2>&1 &\nhub=$!\ntrap 'kill $hub; cat serve.log' EXIT\n"));
                script.push_str("until [ -e data/connection.json ]; do kill -0 $hub; sleep 0.05; done\n");
            }
            (true, line) => script.push_str(&format!("{line}\n")),
            _ => {}
        }
    }
    script
}

#[test]
fn every_command_of_the_page_works() {
    let page = fs::read_to_string(paths::root().join("docs/src/policies/first-policy.md")).unwrap();
    let script = script(&page);
    for command in
        ["new", "check", "test", "simulate", "push", "activate", "rollback"].map(|it| format!("nave policy {it} "))
    {
        assert!(script.contains(&command), "the page has no {command}");
    }
    let dir = tempfile::tempdir().unwrap();
    let binary = paths::binary().canonicalize().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = [binary.parent().unwrap().to_owned()].into_iter().chain(std::env::split_paths(&path));
    let mut shell = Command::new("bash");
    // What cargo tells this test about itself is not for the cargo in the page.
    for (name, _) in std::env::vars_os() {
        let ours = |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|it| name.starts_with(it));
        if name.to_str().is_some_and(ours) {
            shell.env_remove(name);
        }
    }
    let output = shell
        .args(["-euc", &script])
        .current_dir(dir.path())
        .env("PATH", std::env::join_paths(path).unwrap())
        .env("XDG_CACHE_HOME", paths::policies().join("cache").canonicalize().unwrap())
        // Free ports of this machine only.
        .envs(["MQTTS", "HTTPS", "ADMIN"].map(|listener| (format!("NAVE_LISTEN_{listener}"), "127.0.0.1:0")))
        .env_remove("CARGO_TARGET_DIR")
        // It names rustup's libraries, which another compiler must not load.
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    for expected in ["ok: a hub would take it", "0 failed", "10000 devices register"] {
        assert!(stdout.contains(expected), "{expected}: {stdout}");
    }
    let assigned = stdout.lines().filter(|line| line.starts_with("sim-") && line.contains("hub2.nave.test"));
    assert_eq!(assigned.count(), 5, "{stdout}\n{stderr}");
}
