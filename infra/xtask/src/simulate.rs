//! `cargo xtask simulate`: more and longer seeds of the simulation than the tests run.

use anyhow::{Context, Result, bail};

use crate::components;
use crate::process::{cargo, line, step};
use crate::wasm_toolchain::{self, Choice};
use crate::workspace::Workspace;

const TEST: &str = "simulation::long::hubs_keep_their_promises_for_hours";

/// The options and the variables by which the test gets them.
const OPTIONS: [(&str, &str); 3] = [
    ("--seeds", "NAVE_SIMULATION_SEEDS"),
    ("--hours", "NAVE_SIMULATION_HOURS"),
    ("--first-seed", "NAVE_SIMULATION_FIRST_SEED"),
];

/// What `simulate` was asked: variables with their values.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options(Vec<(&'static str, u64)>);

impl Options {
    pub(crate) fn parse(args: &[String]) -> Result<Self> {
        let mut chosen = Vec::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let Some((_, variable)) = OPTIONS.iter().find(|(name, _)| name == arg) else {
                bail!("`simulate` has no option `{arg}`; see `cargo xtask help simulate`");
            };
            let value = args.next().with_context(|| format!("{arg} takes a number"))?;
            chosen.push((*variable, value.parse().with_context(|| format!("{arg} takes a number, not `{value}`"))?));
        }
        Ok(Self(chosen))
    }
}

/// Builds what is needed, and runs the simulation until a seed fails or all are done.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let toolchain = step("WebAssembly toolchain", || wasm_toolchain::obtain(workspace, Choice::Any))?;
    components::build(workspace, &toolchain)?;
    let mut command = cargo(workspace);
    // The whole workspace, as everywhere: another selection would compile many dependencies once more.
    command.args([
        "test",
        "--release",
        "--workspace",
        "--exclude",
        "nave-bench",
        "--test",
        "all",
        "--",
        "--exact",
        TEST,
    ]);
    command.arg("--nocapture").envs(options.0.iter().map(|(variable, value)| (variable, value.to_string())));
    step("simulation", || match command.status()?.success() {
        true => Ok(()),
        false => bail!("{} failed", line(&command)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_numbers() {
        let parse = |text: &str| Options::parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(parse("").unwrap(), Options(vec![]));
        let both = vec![("NAVE_SIMULATION_SEEDS", 9), ("NAVE_SIMULATION_HOURS", 24)];
        assert_eq!(parse("--seeds 9 --hours 24").unwrap(), Options(both));
        assert!(parse("--seeds").is_err() && parse("--seeds many").is_err() && parse("9").is_err());
    }
}
