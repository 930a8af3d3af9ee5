//! `nave serve`: from a configuration to a running hub, and back to nothing.

mod banner;
mod certificates;
mod directory;
mod listeners;
mod monitoring;
mod platform;
mod renewal;
mod settings;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nave_engine::{Engine, Functions};
use nave_env::SharedEnv;
use nave_hub::audit::{self, Actor, Change, Outcome};
use nave_model::Timestamp;
use nave_net::{RealEnv, Server, ServerOptions, Signal};

use crate::config::Config;
use crate::failure::Failure;
use crate::logging::AuditFile;
use crate::ready;
use crate::ticker::Ticker;
use certificates::CertificateError;
use directory::DataDir;

pub(crate) use settings::Settings;
use settings::SettingsError;

/// How long connections may finish what is in flight after a stop was asked for. Shorter than what service managers wait
/// before they kill (systemd: 90 s, Docker: 10 s).
const GRACE: Duration = Duration::from_secs(5);

/// Requests to stop within this time of the first are the same request: what passes signals on (`timeout`, a shell, `npm`)
/// delivers once more what the terminal has delivered to the whole group already.
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// Runs a hub until it is asked to stop. SIGHUP loads the functions again, and opens the file of audit records again.
pub(crate) fn serve(config: &Config, audit: Option<&AuditFile>) -> Result<(), Failure> {
    let started = Instant::now();
    let signals = watch_signals()?;
    let data = DataDir::open(&config.data_dir)?;
    let env = RealEnv::start().map_err(Failure::runtime)?;
    let shared: SharedEnv = env.clone();
    let running = start(config, &data, &env, &shared)?;
    tracing::info!(
        data_dir = %data.path().display(),
        milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "ready"
    );
    // The sender lives in a thread that ends with the process; without it there is nobody who could ask for anything.
    let stop = loop {
        match signals.recv().unwrap_or(Signal::Terminate) {
            Signal::Reload => running.reload(config, audit, &env),
            stop => break stop,
        }
    };
    tracing::info!(signal = ?stop, "stopping");
    running.stop(&data);
    tracing::info!("stopped");
    Ok(())
}

/// Everything that lives while the hub runs. Fields are dropped in this order.
struct Running {
    server: Server,
    ticker: Ticker,
    functions: Arc<Functions>,
    parts: platform::Parts,
    stopping: monitoring::Stopping,
}

fn start(config: &Config, data: &DataDir, env: &Arc<RealEnv>, shared: &SharedEnv) -> Result<Running, Failure> {
    let ids: Vec<_> = config.hubs.iter().map(|hub| hub.id.clone()).collect();
    let settings = Settings::open(data.path(), &ids, &**env).map_err(|error| match &error {
        SettingsError::Io(_, source) => data.explain_file(source, &error),
        _ => Failure::runtime(&error),
    })?;
    // The three slow parts do not depend on each other: code that is mapped, a store that is recovered, keys that are made.
    let (engine, storage, identity) = std::thread::scope(|scope| {
        let engine = scope.spawn(|| load_functions(config, data));
        let storage = scope.spawn(|| platform::Storage::open(config, data, shared));
        let identity = server_identity(config, data, env);
        (join(engine), join(storage), identity)
    });
    let ((engine, functions), storage, identity) = (engine?, storage?, identity?);
    let ticker = Ticker::start(move || engine.tick()).map_err(Failure::runtime)?;
    let parts = platform::Parts::build(config, &settings, storage, Arc::clone(&functions), shared)?;
    block_on(parts.platform.recover())?.map_err(|error| {
        Failure::runtime(format_args!("the state in {} cannot be read: {error}", data.path().display()))
    })?;
    let stopping = monitoring::Stopping::default();
    let options = ServerOptions { workers: config.workers, ..ServerOptions::default() };
    let server = Server::start(&options, Arc::clone(env)).map_err(Failure::runtime)?;
    let open = listeners::open(&server, config, &identity, &parts, env, &stopping)?;
    if identity.is_development {
        renewal::start(shared, &open.certificates, data.tls(), certificate_names(config));
    }
    let ready = listeners::describe(config, &settings, &parts.platform, &identity, &open)?;
    ready.write(data.path()).map_err(|error| data.explain(&error))?;
    banner::print(config, &ready, &identity, data);
    Ok(Running { server, ticker, functions, parts, stopping })
}

impl Running {
    /// Puts the functions that are on disk now in place of those that run. Calls that are under way finish on the old ones.
    fn reload(&self, config: &Config, audit: Option<&AuditFile>, env: &RealEnv) {
        if let Some(Err(error)) = audit.map(AuditFile::reopen) {
            tracing::error!(%error, "the file of audit records could not be opened again: records go on into the old one");
        }
        let outcome = match self.functions.reload(&config.functions) {
            Ok(()) => {
                tracing::info!(source = ?config.functions, "functions loaded again");
                Outcome::Done(200)
            }
            Err(error) => {
                tracing::error!(%error, "functions could not all be loaded again: what could not stays as it was");
                Outcome::Unsuccessful("failed")
            }
        };
        let change =
            Change { actor: &Actor::Operator, peer: None, owner: "", action: "reload", object: "functions", outcome };
        audit::record(env, &change);
    }

    /// Stops in the order in which nothing is lost: nobody finds the hub, connections end, what is queued is written.
    fn stop(self, data: &DataDir) {
        if let Err(error) = ready::remove(data.path()) {
            tracing::warn!(%error, "the ready file could not be removed");
        }
        self.stopping.begin();
        self.parts.platform.close_sessions();
        self.server.shutdown(GRACE);
        drop(self.ticker);
        self.parts.close();
    }
}

fn load_functions(config: &Config, data: &DataDir) -> Result<(Engine, Arc<Functions>), Failure> {
    let engine = Engine::new(Some(&data.cache())).map_err(Failure::runtime)?;
    let functions = Functions::load(&engine, &config.functions).map_err(Failure::runtime)?;
    Ok((engine, Arc::new(functions)))
}

fn server_identity(config: &Config, data: &DataDir, env: &RealEnv) -> Result<certificates::ServerIdentity, Failure> {
    if let Some(tls) = &config.tls {
        return certificates::configured(tls).map_err(Failure::usage);
    }
    certificates::development(&data.tls(), &certificate_names(config), env).map_err(|error| match &error {
        CertificateError::Io(_, source) => data.explain_file(source, &error),
        _ => Failure::runtime(&error),
    })
}

/// What the server's certificate has to be good for.
fn certificate_names(config: &Config) -> Vec<String> {
    let mut names: Vec<String> = config.host_names().into_iter().map(|name| name.as_str().to_owned()).collect();
    for local in ["localhost", "127.0.0.1", "::1"] {
        if !names.iter().any(|name| name == local) {
            names.push(local.to_owned());
        }
    }
    names
}

/// Listens for signals from now on: one that comes during the start is obeyed after it. A second request to stop, while the
/// hub stops, ends the process at once.
fn watch_signals() -> Result<mpsc::Receiver<Signal>, Failure> {
    let (sender, receiver) = mpsc::channel();
    let watch = move || {
        let mut stopping: Option<Instant> = None;
        let ended = nave_net::watch_signals(|signal| {
            if signal != Signal::Reload {
                match stopping {
                    None => stopping = Some(Instant::now()),
                    Some(first) if first.elapsed() < SAME_REQUEST => return true,
                    Some(_) => {
                        tracing::warn!("asked to stop a second time: stopping at once");
                        std::process::exit(1);
                    }
                }
            }
            // Nobody receives once the hub has stopped; then the process ends anyway.
            sender.send(signal).is_ok()
        });
        if let Err(error) = ended {
            tracing::error!(%error, "cannot wait for signals");
        }
    };
    std::thread::Builder::new().name("nave-signals".into()).spawn(watch).map_err(Failure::runtime)?;
    Ok(receiver)
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T, Failure>>) -> Result<T, Failure> {
    thread.join().unwrap_or_else(|_| Err(Failure::runtime("a part of the start panicked; its message is above")))
}

fn block_on<F: Future>(future: F) -> Result<F::Output, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(Failure::runtime)?;
    Ok(runtime.block_on(future))
}

/// The time, for what is not a part of the hub.
pub(crate) fn now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_seconds(since_epoch.as_secs())
}
