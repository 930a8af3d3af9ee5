//! `nave hosts`: the names of hubs and of the provisioning service in this machine's hosts file.

use std::path::PathBuf;

use clap::Args;

use crate::config::{Config, Overrides};
use crate::failure::Failure;
use crate::output;

const BEGIN: &str = "# BEGIN nave (`nave hosts --write` keeps this block)";
const END: &str = "# END nave";
const LOOPBACK: &str = "127.0.0.1";

/// Show or write the hosts file lines that make the names of the hubs known on this machine.
///
/// Some SDKs (.NET, Java) refuse names without a dot, and devices that are provisioned are told the dotted name of their
/// hub. On one machine, without a DNS server, these names have to be in the hosts file.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave hosts                               show the lines
  sudo nave hosts --write                  write them; names that are there already stay
  sudo nave hosts --write --config nave.toml
  sudo nave hosts --remove                 take them out again")]
pub(crate) struct HostsArgs {
    /// Configuration file, for the names of its hubs.
    #[arg(long, env = "NAVE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the lines into the hosts file.
    #[arg(long, conflicts_with = "remove")]
    write: bool,
    /// Take the lines out of the hosts file.
    #[arg(long)]
    remove: bool,
    /// The hosts file.
    #[arg(long, value_name = "FILE", default_value = "/etc/hosts")]
    file: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: &HostsArgs) -> Result<(), Failure> {
    let config = Config::load(args.config.as_deref(), Overrides::default()).map_err(|error| match &args.config {
        Some(path) => Failure::usage(format_args!("{}: {error}", path.display())),
        None => Failure::usage(error),
    })?;
    let names: Vec<String> = config
        .host_names()
        .into_iter()
        .filter(|name| name.is_dotted() && name.as_str().parse::<std::net::IpAddr>().is_err())
        .map(|name| name.as_str().to_owned())
        .collect();
    if !args.write && !args.remove {
        return output::line(&block(&names).join("\n"));
    }
    let explain = |error: std::io::Error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::PermissionDenied => " Run the command as root (sudo).",
            _ => "",
        };
        Failure::runtime(format_args!("{}: {error}.{remedy}", args.file.display()))
    };
    let old = match std::fs::read_to_string(&args.file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(explain(error)),
    };
    let new = edit(&old, if args.remove { None } else { Some(&names) })
        .map_err(|message| Failure::runtime(format_args!("{}: {message}", args.file.display())))?;
    if new == old {
        return output::line(&format!("{} is as it should be", args.file.display()));
    }
    // In place and not by renaming: in a container the hosts file is a mount of its own, which cannot be replaced.
    std::fs::write(&args.file, new).map_err(explain)?;
    output::line(&format!("wrote {}", args.file.display()))
}

fn block(names: &[String]) -> Vec<String> {
    vec![BEGIN.to_owned(), format!("{LOOPBACK}\t{}", names.join(" ")), END.to_owned()]
}

/// The file with our block holding `names` and those that it held before, or without the block. The rest of the file stays
/// as it is, to the byte.
fn edit(text: &str, names: Option<&Vec<String>>) -> Result<String, String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let is = |line: &&str, mark: &str| line.trim() == mark;
    let begin = lines.iter().position(|line| is(line, BEGIN));
    let end = lines.iter().position(|line| is(line, END));
    let (before, inside, after) = match (begin, end) {
        (None, None) => (text.to_owned(), &[][..], String::new()),
        (Some(begin), Some(end)) if begin < end => (
            lines.get(..begin).unwrap_or_default().concat(),
            lines.get(begin + 1..end).unwrap_or_default(),
            lines.get(end + 1..).unwrap_or_default().concat(),
        ),
        _ => return Err(format!("the lines `{BEGIN}` and `{END}` do not belong together: remove them by hand")),
    };
    let Some(names) = names else { return Ok(before + &after) };
    let mut all: Vec<String> = inside
        .iter()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(|line| line.split_whitespace().skip(1).map(str::to_owned))
        .collect();
    all.extend(names.iter().filter(|name| !all.contains(name)).cloned().collect::<Vec<_>>());
    let mut result = before;
    if !result.is_empty() && !result.ends_with('\n') {
        result.push('\n');
    }
    for line in block(&all) {
        result.push_str(&line);
        result.push('\n');
    }
    Ok(result + &after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn adds_a_block_once_and_leaves_the_rest_alone() {
        let old = "127.0.0.1 localhost\n\n# mine";
        let first = edit(old, Some(&names(&["a.x", "b.x"]))).unwrap();
        assert_eq!(first, format!("{old}\n{BEGIN}\n127.0.0.1\ta.x b.x\n{END}\n"));
        assert_eq!(edit(&first, Some(&names(&["a.x"]))).unwrap(), first, "nothing new");
        let more = edit(&format!("{first}10.0.0.1 other\n"), Some(&names(&["c.x"]))).unwrap();
        assert_eq!(more, format!("{old}\n{BEGIN}\n127.0.0.1\ta.x b.x c.x\n{END}\n10.0.0.1 other\n"));
        assert_eq!(edit(&more, None).unwrap(), format!("{old}\n10.0.0.1 other\n"));
        assert_eq!(edit(old, None).unwrap(), old);
        assert_eq!(edit("", Some(&names(&["a"]))).unwrap(), format!("{BEGIN}\n127.0.0.1\ta\n{END}\n"));
    }

    #[test]
    fn a_torn_block_is_not_guessed_at() {
        for torn in [format!("{BEGIN}\n"), format!("{END}\n"), format!("{END}\n{BEGIN}\n")] {
            assert!(edit(&torn, Some(&names(&["a"]))).unwrap_err().contains("by hand"));
        }
    }
}
