//! The templates of `nave policy new`: a project of each is made, and everything that its README.md tells people to run is run.
//!
//! The components that come out of it are what the tests of `nave policy` and the SDK tests work with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::debian;
use crate::process::{note, output, program, run, step, succeeds};
use crate::wasm_toolchain::{TARGET, WasmToolchain};
use crate::workspace::Workspace;

/// Where the templates and the interface are.
const TEMPLATES: &str = "runtime/nave/templates/policy";
const INTERFACE: &str = "wit/allocation/allocation.wit";

/// A template: its folder and `--lang`, the name of the project that is made of it, and where that leaves its component.
struct Template {
    lang: &'static str,
    project: &'static str,
    component: &'static str,
}

const ALL: [Template; 4] = [
    Template { lang: "c", project: "sticky", component: "policy.wasm" },
    Template { lang: "js", project: "by-region", component: "policy.wasm" },
    Template { lang: "python", project: "by-organisation", component: "policy.wasm" },
    Template { lang: "rust", project: "by-site", component: "target/wasm32-unknown-unknown/release/policy.wasm" },
];

/// Makes, tests and builds a project of each template that changed, with the optimised binary, which must be there. The
/// components are then `policies/NAME.wasm` in the target directory.
///
/// # Errors
/// A tool is missing and cannot be installed, or a command of a README fails.
pub(crate) fn build(workspace: &Workspace, toolchain: &WasmToolchain) -> Result<()> {
    step("policy templates (what their README.md says; the first time about two minutes)", || {
        let dir = workspace.policies();
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        fs::write(dir.join("cargo-build.env"), environment(workspace, toolchain))?;
        tools(workspace)?;
        for template in &ALL {
            let stamp = dir.join(format!("{}.stamp", template.project));
            let wanted = ingredients(workspace, toolchain, template)?;
            let component = dir.join(format!("{}.wasm", template.project));
            if component.exists() && fs::read(&stamp).is_ok_and(|have| have == wanted) {
                continue;
            }
            let project =
                make(workspace, toolchain, template).with_context(|| format!("the template `{}`", template.lang))?;
            fs::copy(project.join(template.component), &component)
                .with_context(|| format!("{} made no {}", template.lang, template.component))?;
            fs::write(&stamp, wanted)?;
        }
        note(&format!("{} components in {}", ALL.len(), workspace.relative(&dir)));
        Ok(())
    })
}

/// What the languages need besides Rust, Python and Node.js, which everything here needs.
fn tools(workspace: &Workspace) -> Result<()> {
    let there = |name: &str| succeeds(Command::new(name).arg("--version"));
    for needed in ["python3", "node", "npm"] {
        if !there(needed) {
            bail!("{needed} is missing: install Python 3.10 or newer and Node.js 20 or newer, with npm");
        }
    }
    let mut missing = Vec::new();
    for (program, package) in [("clang", "clang"), ("wasm-ld", "lld"), ("make", "make")] {
        if !there(program) {
            missing.push(package);
        }
    }
    if !succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"])) {
        missing.push("python3-venv");
    }
    registry(workspace)?;
    if missing.is_empty() {
        return Ok(());
    }
    if !debian::is_debian() {
        bail!("please install {} (for clang: with its linker for WebAssembly, wasm-ld)", missing.join(", "));
    }
    debian::install(workspace, &missing)
}

/// A registry to push policies to and pull them from. Elsewhere than on Debian the tests that need one are skipped, unless
/// there is a `docker-registry` among the programs.
fn registry(workspace: &Workspace) -> Result<()> {
    let directory = workspace.setup().join("docker-registry");
    let is_there = directory.join("usr/bin/docker-registry").exists();
    if is_there || succeeds(Command::new("docker-registry").arg("--version")) || !debian::is_debian() {
        return Ok(());
    }
    debian::unpack(workspace, "docker-registry", &directory)
}

/// Everything that a rebuild depends on.
fn ingredients(workspace: &Workspace, toolchain: &WasmToolchain, template: &Template) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    collect(&workspace.root.join(TEMPLATES).join(template.lang), &mut all)?;
    all.extend(fs::read(workspace.root.join(INTERFACE)).with_context(|| format!("cannot read {INTERFACE}"))?);
    for program in ["clang", "node", "python3", "rustc"] {
        all.extend(output(Command::new(program).arg("--version")).unwrap_or_default().into_bytes());
    }
    all.extend(toolchain.describe().as_bytes());
    Ok(all)
}

/// The names and contents of all files in `dir`, in alphabetical order.
fn collect(dir: &Path, all: &mut Vec<u8>) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, all)?;
        } else {
            all.extend(path.to_string_lossy().as_bytes());
            all.extend(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        }
    }
    Ok(())
}

/// Makes a project and runs the commands of its README; the project's folder.
fn make(workspace: &Workspace, toolchain: &WasmToolchain, template: &Template) -> Result<PathBuf> {
    let project = workspace.policies().join(template.project);
    if project.exists() {
        fs::remove_dir_all(&project).with_context(|| format!("cannot remove {}", project.display()))?;
    }
    run(program(workspace.binary(), workspace)
        .args(["policy", "new", template.project, "--lang", template.lang, "--dir"])
        .arg(&project))?;
    if template.lang == "rust" {
        // One target directory for all times: the bindings generator is compiled once.
        let target = workspace.policies().join("cargo");
        fs::create_dir_all(&target)?;
        link(&target, &project.join("target"))?;
    }
    let readme = fs::read_to_string(project.join("README.md")).context("it has no README.md")?;
    let mut shell = program("bash", workspace);
    shell.current_dir(&project).args(["-euxc", &script(&readme, &environment(workspace, toolchain))]);
    shell.env_remove("CARGO_TARGET_DIR").env("PATH", workspace.path_with_binary()?);
    // What `nave policy` compiles is kept beside the components: the tests find it there.
    shell.env("XDG_CACHE_HOME", workspace.policies().join("cache"));
    run(&mut shell)?;
    Ok(project)
}

/// The commands of a page: its `sh` blocks. `build` has the variables for the commands that compile Rust to WebAssembly.
fn script(page: &str, build: &str) -> String {
    let mut script = String::new();
    let mut inside = false;
    for line in page.lines() {
        match (inside, line) {
            (false, "```sh") => inside = true,
            (true, "```") => inside = false,
            // The target is there, or something else is that does as well.
            (true, line) if line == format!("rustup target add {TARGET}") => {}
            (true, line) if line.starts_with("cargo build ") => {
                let variables = build.lines().map(quoted).collect::<Vec<_>>().join(" ");
                script.push_str(&format!("env {variables} {line}\n"));
            }
            (true, line) => script.push_str(&format!("{line}\n")),
            _ => {}
        }
    }
    script
}

/// The variables with which `cargo build` makes components on this machine, one a line.
fn environment(workspace: &Workspace, toolchain: &WasmToolchain) -> String {
    toolchain.variables(workspace).iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(unix)]
fn link(target: &Path, at: &Path) -> Result<()> {
    std::os::unix::fs::symlink(target, at).with_context(|| format!("cannot create {}", at.display()))
}

#[cfg(not(unix))]
fn link(_: &Path, _: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_of_a_page_are_run_as_they_stand() {
        let page = "Do:\n\n```sh\nrustup target add wasm32-unknown-unknown\ncargo test\ncargo build --release\n```\n\n```json\n{}\n```\n\n```sh\nnave policy check a.wasm\n```\n";
        assert_eq!(
            script(page, "RUSTC=/usr/bin/rustc\nLINKER=it's\n"),
            "cargo test\nenv 'RUSTC=/usr/bin/rustc' 'LINKER=it'\\''s' cargo build --release\nnave policy check a.wasm\n"
        );
    }
}
