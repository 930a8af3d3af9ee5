//! `nave simulate`: devices that provision, connect, report, send and answer.

mod connection;
mod device;
mod network;
mod progress;
mod provision;
mod statistics;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use nave_auth::SharedKey;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::enrollment::{derive, group_key};
use super::input::segment;
use crate::client::{Http, Method, Target};
use crate::failure::Failure;
use network::Network;
use statistics::Statistics;

/// Most simulated devices of one process; the ports of one address end before 64,000.
const MAX_DEVICES: u32 = 50_000;

/// Longest payload.
const MAX_SIZE: usize = 200_000;

/// How long devices get to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// Threads of the simulation: it shares the machine with the hub.
const THREADS: usize = 2;

/// Run simulated devices until Ctrl-C.
///
/// They connect by MQTT like real ones, report properties, send telemetry, answer every method with its own payload, and
/// follow the desired property `interval` (seconds between messages).
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  nave simulate                                   10 devices of the first hub, created if they are missing
  nave simulate --devices 500 --interval 1 --duration 60
  nave simulate --group fleet --devices 20        provisioned; the enrollment group is created if it is missing
  nave simulate --cleanup                         deletes its devices in the end
Meanwhile, in another terminal:
  nave events --follow
  nave method call sim-1 anything --payload '{\"a\":1}'
  nave twin patch sim-1 --desired '{\"interval\": 0.5}'")]
pub(crate) struct SimulateArgs {
    /// Number of devices.
    #[arg(long, short = 'n', default_value_t = 10)]
    devices: u32,
    /// Their names: PREFIX-1, PREFIX-2, ...
    #[arg(long, default_value = "sim")]
    prefix: String,
    /// Seconds between messages of a device; 0 for none.
    #[arg(long, default_value_t = 5.0)]
    interval: f64,
    /// Bytes that are added to each message.
    #[arg(long, default_value_t = 0)]
    size: usize,
    /// Provision through this enrollment group.
    #[arg(long)]
    group: Option<String>,
    /// End after so many seconds.
    #[arg(long)]
    duration: Option<f64>,
    /// Connections begun per second.
    #[arg(long, default_value_t = 50.0)]
    ramp: f64,
    /// Delete the devices in the end.
    #[arg(long, conflicts_with = "group")]
    cleanup: bool,
    #[command(flatten)]
    target: Target,
}

/// How devices come to their hub.
enum Source {
    /// They are in the hub already.
    Hub(Vec<SharedKey>),
    /// They register first.
    Group(Vec<SharedKey>, String),
}

/// What all devices share.
struct Shared {
    network: Network,
    statistics: Statistics,
    /// Of the hub, or of the provisioning service.
    host: String,
    interval: Option<Duration>,
    padding: String,
    /// Becomes true when the simulation ends.
    stop: watch::Receiver<bool>,
}

/// Runs the command.
pub(crate) fn run(args: &SimulateArgs) -> Result<(), Failure> {
    let interval = seconds("--interval", args.interval)?;
    let ramp = seconds("--ramp", 1.0 / args.ramp)?;
    let duration = args.duration.map(|duration| seconds("--duration", duration)).transpose()?;
    if !(1..=MAX_DEVICES).contains(&args.devices) {
        return Err(Failure::usage(format_args!("--devices is 1 to {MAX_DEVICES}")));
    }
    if args.size > MAX_SIZE {
        return Err(Failure::usage(format_args!("--size is at most {MAX_SIZE}: a message has at most 256 KB")));
    }
    let ids: Vec<String> = (1..=args.devices).map(|number| format!("{}-{number}", args.prefix)).collect();
    let endpoint = if args.group.is_some() { args.target.provisioning()? } else { args.target.hub()? };
    let source = match &args.group {
        None => Source::Hub(hub_devices(&endpoint.hub_api()?, &ids)?),
        Some(group) => {
            let key = obtain_group(&endpoint.dps_api()?, group)?;
            let keys = ids.iter().map(|id| SharedKey::from_base64(&derive(&key, id)?).map_err(Failure::runtime));
            let scope = args.target.local().map_err(|_| {
                Failure::usage("--group needs a hub on this machine: its id scope is in the ready file")
            })?;
            Source::Group(keys.collect::<Result<_, _>>()?, scope.ready.provisioning.id_scope)
        }
    };
    let (stopper, stop) = watch::channel(false);
    let shared = Arc::new(Shared {
        network: Network::new(&endpoint)?,
        statistics: Statistics::default(),
        host: endpoint.host_name().as_str().to_owned(),
        interval: (!interval.is_zero()).then_some(interval),
        padding: "x".repeat(args.size),
        stop,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .map_err(Failure::runtime)?;
    let result = runtime.block_on(simulate(&shared, ids.clone(), source, ramp, duration, stopper, args.target.output));
    runtime.shutdown_timeout(Duration::from_millis(100));
    if args.cleanup {
        let api = endpoint.hub_api()?;
        for id in &ids {
            api.send(Method::Delete, &path(id), &[("if-match", "*")], None)?;
        }
        eprintln!("deleted {} devices", ids.len());
    }
    result
}

async fn simulate(
    shared: &Arc<Shared>,
    ids: Vec<String>,
    source: Source,
    ramp: Duration,
    duration: Option<Duration>,
    stopper: watch::Sender<bool>,
    format: crate::output::Format,
) -> Result<(), Failure> {
    let total = ids.len();
    let (keys, scope) = match source {
        Source::Hub(keys) => (keys, None),
        Source::Group(keys, scope) => (keys, Some(scope)),
    };
    let starter = {
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            let mut devices = tokio::task::JoinSet::new();
            for (id, key) in ids.into_iter().zip(keys) {
                devices.spawn(device::run(Arc::clone(&shared), id, key, scope.clone()));
                let mut stop = shared.stop.clone();
                tokio::select! {
                    () = tokio::time::sleep(ramp) => {}
                    () = stopped(&mut stop) => break,
                }
            }
            while devices.join_next().await.is_some() {}
        })
    };
    let mut progress = progress::Progress::new(format, total);
    let mut redraw = tokio::time::interval(progress.period());
    let end = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    loop {
        tokio::select! {
            _ = redraw.tick() => progress.show(&shared.statistics)?,
            () = &mut end => break,
            result = tokio::signal::ctrl_c() => {
                result.map_err(Failure::runtime)?;
                break;
            }
        }
    }
    // Devices that do not listen any more have ended already.
    let _ = stopper.send(true);
    let _ = tokio::time::timeout(GOODBYE, starter).await;
    progress.finish(&shared.statistics)
}

/// Resolves when the simulation ends.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone: the simulation is over too.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The keys of the devices, which are created if they are missing.
fn hub_devices(api: &Http, ids: &[String]) -> Result<Vec<SharedKey>, Failure> {
    ids.iter()
        .map(|id| {
            let device = match api.send(Method::Get, &path(id), &[], None) {
                Ok(reply) => reply.body,
                Err(Failure::NotFound(_)) => {
                    api.send(Method::Put, &path(id), &[], Some(&json!({ "deviceId": id })))?.body
                }
                Err(error) => return Err(error),
            };
            let key = device.pointer("/authentication/symmetricKey/primaryKey").and_then(Value::as_str);
            let key = key
                .ok_or_else(|| Failure::runtime(format_args!("the device {id} has no key: choose another --prefix")))?;
            SharedKey::from_base64(key).map_err(Failure::runtime)
        })
        .collect()
}

/// The key of the group, which is created if it is missing.
fn obtain_group(api: &Http, group: &str) -> Result<String, Failure> {
    match group_key(api, group) {
        Err(Failure::NotFound(_)) => {
            let document = json!({
                "enrollmentGroupId": group,
                "attestation": { "type": "symmetricKey", "symmetricKey": {} },
            });
            api.send(Method::Put, &format!("/enrollmentGroups/{}", segment(group)), &[], Some(&document))?;
            eprintln!("created the enrollment group {group}");
            group_key(api, group)
        }
        result => result,
    }
}

fn path(id: &str) -> String {
    format!("/devices/{}", segment(id))
}

fn seconds(flag: &str, value: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(value).map_err(|error| Failure::usage(format_args!("{flag}: {error}")))
}
