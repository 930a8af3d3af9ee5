//! `nave serve`: from a configuration to a running hub, and back to nothing.

mod banner;
mod certificates;
mod directory;
mod hook;
mod listeners;
mod monitoring;
mod notify;
mod operator;
mod platform;
mod plugins;
mod reload;
mod renewal;
mod settings;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nave_engine::{Engine, Functions};
use nave_env::SharedEnv;
use nave_http::OperatorError;
use nave_hub::audit::{self, Actor, Change, Outcome};
use nave_model::Timestamp;
use nave_net::{RealEnv, Server, ServerOptions, Signal};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::cli::ConfigArgs;
use crate::config::Config;
use crate::config::explain::{Entry, with_id_scope};
use crate::config::origin::Sources;
use crate::failure::Failure;
use crate::logging::AuditFile;
use crate::ready;
use crate::ticker::Ticker;
use crate::traces;
use certificates::CertificateError;
pub(crate) use directory::DataDir;

pub(crate) use settings::Settings;
use settings::SettingsError;

/// How long connections may finish what is in flight after a stop was asked for. Shorter than what service managers wait
/// before they kill (systemd: 90 s, Docker: 10 s).
const GRACE: Duration = Duration::from_secs(5);

/// Requests to stop within this time of the first are the same request: what passes signals on (`timeout`, a shell, `npm`)
/// delivers once more what the terminal has delivered to the whole group already.
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// What a hub is started with.
pub(crate) struct Configured {
    /// What the command line and the environment said.
    pub(crate) args: ConfigArgs,
    /// Which of it was said where.
    pub(crate) sources: Sources,
    /// What came of it and of the file.
    pub(crate) config: Config,
    /// The same as a list.
    pub(crate) entries: Vec<Entry>,
    /// The file of audit records, if there is one.
    pub(crate) audit: Option<AuditFile>,
}

/// What the main thread is asked for.
pub(crate) enum Event {
    /// To stop.
    Stop(Signal),
    /// To take up a changed configuration, and to say what came of it.
    Reload(Option<oneshot::Sender<Result<Value, OperatorError>>>),
    /// To look whether another certificate is to be served.
    Renew,
}

/// Runs a hub until it is asked to stop. SIGHUP makes it take up a changed configuration, and opens the file of audit records
/// again.
pub(crate) fn serve(mut configured: Configured) -> Result<(), Failure> {
    let started = Instant::now();
    let (control, events) = mpsc::channel();
    watch_signals(control.clone())?;
    let data = DataDir::open(&configured.config.data_dir)?;
    let env = RealEnv::start().map_err(Failure::runtime)?;
    let mut running = start(&configured, started, &data, &env, control)?;
    tracing::info!(
        data_dir = %data.path().display(),
        milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "ready"
    );
    notify::tell(notify::State::Ready);
    // A sender lives in a thread that ends with the process; without it there is nobody who could ask for anything.
    let stop = loop {
        match events.recv().unwrap_or(Event::Stop(Signal::Terminate)) {
            Event::Stop(signal) => break signal,
            Event::Renew => running.renew(&configured, &data),
            Event::Reload(asked) => {
                reopen(configured.audit.as_ref());
                let done = running.reload(&mut configured, &data);
                match &done {
                    Ok(changed) => {
                        tracing::info!(changed = changed.join(", "), "reloaded: configuration, certificate, functions")
                    }
                    Err(error) => tracing::error!(%error, "not reloaded"),
                }
                // Who asks over the admin surface leaves a record there.
                if asked.is_none() {
                    record_reload(&env, done.is_ok());
                }
                if let Some(asked) = asked {
                    let answer = done.map(|changed| json!({ "changed": changed }));
                    // Who asked may have gone meanwhile.
                    let _ = asked.send(answer.map_err(|error| OperatorError::Refused(error.to_string())));
                }
            }
        }
    };
    notify::tell(notify::State::Stopping);
    tracing::info!(signal = ?stop, "stopping");
    running.stop(&data);
    tracing::info!("stopped");
    Ok(())
}

/// Everything that lives while the hub runs. Fields are dropped in this order.
struct Running {
    server: Server,
    open: listeners::Open,
    process: Arc<operator::Process>,
    ready: ready::Ready,
    env: Arc<RealEnv>,
    plugins: plugins::Plugins,
    ticker: Ticker,
    functions: Arc<Functions>,
    parts: platform::Parts,
    stopping: monitoring::Stopping,
}

fn start(
    configured: &Configured,
    started: Instant,
    data: &DataDir,
    env: &Arc<RealEnv>,
    control: mpsc::Sender<Event>,
) -> Result<Running, Failure> {
    let config = &configured.config;
    traces::install(traces::prepare(&config.traces)?);
    let shared: &SharedEnv = &(env.clone() as SharedEnv);
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
    let plugins = plugins::Plugins::start(config, data, env)?;
    let policies = plugins.engine();
    let tick = move || {
        engine.tick();
        policies.tick();
    };
    let ticker = Ticker::start(tick).map_err(Failure::runtime)?;
    let custom = plugins.custom_allocation(config)?;
    let parts = platform::Parts::build(config, &settings, storage, Arc::clone(&functions), custom, shared)?;
    block_on(parts.platform.recover())?.map_err(|error| {
        Failure::runtime(format_args!("the state in {} cannot be read: {error}", data.path().display()))
    })?;
    let stopping = monitoring::Stopping::default();
    let options = ServerOptions { workers: config.workers, ..ServerOptions::default() };
    let server = Server::start(&options, Arc::clone(env)).map_err(Failure::runtime)?;
    let scope = settings.id_scope().ok();
    let entries = with_id_scope(configured.entries.clone(), scope.as_ref().map(nave_model::IdScope::as_str));
    let served = operator::Served::of(&identity);
    let source = parts.source(config, data);
    let process = Arc::new(operator::Process::new(started, source, control.clone(), entries, served));
    process.count_by(server.counters());
    let open = listeners::open(&server, config, &identity, &parts, env, &stopping, process.clone())?;
    renewal::start(shared, control);
    let ready = listeners::describe(config, &settings, &parts.platform, &identity, &open)?;
    ready.write(data.path()).map_err(|error| data.explain(&error))?;
    banner::print(config, &ready, &identity, data);
    Ok(Running { server, open, process, ready, env: Arc::clone(env), plugins, ticker, functions, parts, stopping })
}

impl Running {
    /// Stops in the order in which nothing is lost: nobody finds the hub, connections end, what is queued is written.
    fn stop(self, data: &DataDir) {
        if let Err(error) = ready::remove(data.path()) {
            tracing::warn!(%error, "the ready file could not be removed");
        }
        self.stopping.begin();
        self.parts.platform.close_sessions();
        self.server.shutdown(GRACE);
        self.plugins.stop();
        drop(self.ticker);
        self.parts.close();
        traces::stop();
    }
}

/// A tool for old logs may have moved the file away.
fn reopen(audit: Option<&AuditFile>) {
    if let Some(Err(error)) = audit.map(AuditFile::reopen) {
        tracing::error!(%error, "the file of audit records could not be opened again: records go on into the old one");
    }
}

/// A reload that a signal asked for.
fn record_reload(env: &RealEnv, is_done: bool) {
    let outcome = if is_done { Outcome::Done(200) } else { Outcome::Unsuccessful("failed") };
    let actor = &Actor::Operator;
    audit::record(env, &Change { actor, peer: None, owner: "", action: "reload", object: "configuration", outcome });
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
fn watch_signals(sender: mpsc::Sender<Event>) -> Result<(), Failure> {
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
            sender.send(if signal == Signal::Reload { Event::Reload(None) } else { Event::Stop(signal) }).is_ok()
        });
        if let Err(error) = ended {
            tracing::error!(%error, "cannot wait for signals");
        }
    };
    std::thread::Builder::new().name("nave-signals".into()).spawn(watch).map_err(Failure::runtime)?;
    Ok(())
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
