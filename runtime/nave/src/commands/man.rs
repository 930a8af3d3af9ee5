//! `nave man`: manual pages, one for each command, and the same as one page of the book.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, Command, CommandFactory as _};

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output;

/// Columns of help in the book.
const WIDTH: usize = 100;

/// Write the manual pages, one for each command, into a directory.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave man ~/.local/share/man/man1        and then: man nave, man nave-serve
  sudo nave man /usr/local/share/man/man1
  nave man --reference > docs/src/reference/cli.md     the page of the book")]
pub(crate) struct ManArgs {
    /// Directory of the pages; it is created if it does not exist.
    #[arg(value_name = "DIR", required_unless_present = "reference")]
    dir: Option<PathBuf>,
    /// Print the help of all commands as one page in Markdown instead.
    #[arg(long, conflicts_with = "dir")]
    reference: bool,
}

/// Runs the command.
pub(crate) fn run(args: &ManArgs) -> Result<(), Failure> {
    let Some(dir) = &args.dir else {
        return output::line(reference().trim_end());
    };
    let failed = |error| Failure::runtime(format_args!("{}: {error}", dir.display()));
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(failed)?;
    output::line(&format!("wrote the manual pages into {}", dir.display()))
}

/// The page of the book.
fn reference() -> String {
    let mut page =
        "# Command line\n\nGenerated from the program: `nave man --reference`. `nave COMMAND --help` shows the same.\n"
            .to_owned();
    let mut command = plain(Cli::command().disable_help_subcommand(true));
    command.build();
    describe(&mut page, &mut command, 2);
    page
}

/// The command without what depends on the reader's terminal and environment.
fn plain(command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    let command = command.term_width(WIDTH).mut_args(|argument| argument.hide_env_values(true));
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, plain))
}

fn describe(page: &mut String, command: &mut Command, depth: usize) {
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    let help = command.render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    // Writing to a text cannot fail.
    let _ = write!(page, "\n{} `{name}`\n\n```text\n{}\n```\n", "#".repeat(depth.min(4)), help.join("\n").trim());
    for inner in command.get_subcommands_mut().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help") {
        describe(page, inner, depth + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        run(&ManArgs { dir: Some(dir.path().join("man1")), reference: false }).unwrap();
        let page = |name: &str| std::fs::read_to_string(dir.path().join("man1").join(name)).unwrap();
        for command in Cli::command().get_subcommands() {
            assert!(page(&format!("nave-{}.1", command.get_name())).contains(".SH"), "{}", command.get_name());
        }
        assert!(page("nave.1").contains("Exit codes"));
        assert!(page("nave-device-create.1").contains("create"));
    }

    #[test]
    fn the_page_of_the_book_is_up_to_date() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/reference/cli.md");
        let have = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            have == reference(),
            "docs/src/reference/cli.md is not what the program says; run: nave man --reference > docs/src/reference/cli.md"
        );
    }
}
