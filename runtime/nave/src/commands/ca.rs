//! `nave ca`: certificate authorities that vouch for devices.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::input::{segment, text};
use crate::client::{Http, Method, Target};
use crate::failure::Failure;
use crate::output;

/// List, add, verify and delete the certificate authorities of devices.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave ca add factory-ca ca.pem                  shows a verification code
  nave ca verify factory-ca proof.pem            a certificate that the CA signed, with the code as its common name
  nave ca add factory-ca ca.pem --trust          without proof: you vouch for it
  nave ca add factory-ca ca.pem --provisioning   for enrollments
  nave ca list
A hub's CAs vouch for its CA-signed devices; those of the provisioning service can be named by enrollments.")]
pub(crate) struct CaArgs {
    #[command(subcommand)]
    command: CaCommand,
    /// Those of the provisioning service, not of a hub.
    #[arg(long, global = true)]
    provisioning: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Subcommand)]
enum CaCommand {
    /// List them.
    List,
    /// Add one.
    Add {
        /// A name for it.
        name: String,
        /// PEM file.
        file: String,
        /// Do not ask for proof of possession of its private key.
        #[arg(long)]
        trust: bool,
    },
    /// Prove the possession of its private key.
    Verify {
        /// Its name.
        name: String,
        /// PEM file: a certificate signed by it whose common name is the verification code.
        file: String,
    },
    /// Delete one. Devices that it vouches for can connect no more.
    Delete {
        /// Its name.
        name: String,
    },
}

/// Runs the command.
pub(crate) fn run(args: &CaArgs) -> Result<(), Failure> {
    let local = args.target.local()?;
    let admin = local.ready.admin.as_ref().ok_or_else(|| {
        Failure::Unreachable("the hub has no admin listener, which this command needs (`listen.admin`)".to_owned())
    })?;
    let api = Http::admin(admin);
    let owner = if args.provisioning {
        "provisioning".to_owned()
    } else {
        format!("hubs/{}", segment(&local.hub(args.target.hub_name())?.name))
    };
    let base = format!("/admin/{owner}/authorities");
    let format = args.target.output;
    match &args.command {
        CaCommand::List => {
            let items = api.send(Method::Get, &base, &[], None)?.body;
            let columns = [
                ("NAME", "/name"),
                ("VERIFIED", "/verified"),
                ("SUBJECT", "/info/subjectName"),
                ("EXPIRES", "/info/notAfterUtc"),
                ("VERIFICATION CODE", "/verificationCode"),
            ];
            output::list(format, items.as_array().map(Vec::as_slice).unwrap_or_default(), &columns)
        }
        CaCommand::Add { name, file, trust } => {
            let body = json!({ "name": name, "certificate": text(&format!("@{file}"))?, "verified": trust });
            let added = api.send(Method::Post, &base, &[], Some(&body))?.body;
            output::one(format, &added)?;
            if let Some(code) = added.get("verificationCode").and_then(Value::as_str) {
                eprintln!(
                    "It is trusted once you prove that you have its key: sign a certificate with the common name {code}, \
                     then `nave ca verify {name} FILE`."
                );
            }
            Ok(())
        }
        CaCommand::Verify { name, file } => {
            let body = json!({ "certificate": text(&format!("@{file}"))? });
            output::one(
                format,
                &api.send(Method::Post, &format!("{base}/{}/verify", segment(name)), &[], Some(&body))?.body,
            )
        }
        CaCommand::Delete { name } => {
            api.send(Method::Delete, &format!("{base}/{}", segment(name)), &[], None)?;
            eprintln!("deleted {name}");
            Ok(())
        }
    }
}
