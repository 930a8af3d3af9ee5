//! `nave completions`: scripts that complete commands in a shell.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output;

/// Print a script that completes commands in a shell.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave completions bash > ~/.local/share/bash-completion/completions/nave
  nave completions zsh > ~/.zfunc/_nave              with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc
  nave completions fish > ~/.config/fish/completions/nave.fish")]
pub(crate) struct CompletionsArgs {
    /// For which shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the command.
pub(crate) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    output::line(script(args.shell).trim_end())
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "nave", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_learns_every_command() {
        for shell in [Shell::Bash, Shell::Elvish, Shell::Fish, Shell::PowerShell, Shell::Zsh] {
            let script = script(shell);
            for command in Cli::command().get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
            assert!(script.contains("listen-mqtts"), "{shell}");
        }
    }
}
