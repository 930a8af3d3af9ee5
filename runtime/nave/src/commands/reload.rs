//! `nave reload`: a changed configuration, without a restart.

use clap::Args;
use serde_json::Value;

use crate::client::{Http, Method, Target};
use crate::failure::Failure;
use crate::output::{self, Format};

/// Make the hub on this machine take up what changed: its configuration, certificates, functions. No connection is dropped.
///
/// It reads the configuration file, with the flags and variables that it was started with. Either all changes are taken up
/// or none: what is wrong, or needs a restart, is told, and the hub goes on as before. SIGHUP does the same and writes the
/// outcome to the log. `nave config show` says of each key whether it can change while the hub runs.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave reload
  certbot renew --deploy-hook 'nave reload --data-dir /var/lib/nave'")]
pub(crate) struct ReloadArgs {
    #[command(flatten)]
    target: Target,
}

/// Runs the command.
pub(crate) fn run(args: &ReloadArgs) -> Result<(), Failure> {
    let local = args.target.local()?;
    let admin = local.ready.admin.as_ref().ok_or_else(|| {
        Failure::Unreachable("the hub has no admin API (`listen.admin` is off): send it SIGHUP instead".to_owned())
    })?;
    let answer = Http::admin(admin).send(Method::Post, "/admin/reload", &[], None)?.body;
    if args.target.output == Format::Json {
        return output::one(Format::Json, &answer);
    }
    let changed = answer.get("changed").and_then(Value::as_array).into_iter().flatten();
    let changed: Vec<String> = changed.filter_map(Value::as_str).map(output::printable).collect();
    let changed = if changed.is_empty() { "nothing in the configuration".to_owned() } else { changed.join(", ") };
    output::line(&format!("changed: {changed}; functions loaded again"))
}
