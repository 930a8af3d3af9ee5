//! What custom allocation runs on: threads for policies, for compiling them and for web hooks, apart from those that serve
//! connections.

use std::sync::Arc;
use std::thread::JoinHandle;

use nave_engine::plugin::PluginEngine;
use nave_env::Env as _;
use nave_hub::policy::{PoliciesParts, Pool};
use nave_hub::provisioning::{CustomAllocation, Hooks};
use nave_net::RealEnv;

use super::directory::DataDir;
use super::hook::Client;
use crate::config::Config;
use crate::failure::Failure;

/// Threads that compile policies: it takes seconds of one, and is rare.
const COMPILING_THREADS: usize = 1;

/// Threads that call web hooks, and so calls that are under way at once. They wait most of the time.
const HOOK_THREADS: usize = 8;

/// Stack of a thread that runs policies: what a policy may have, what the host needs above it, and some.
const POLICY_STACK: usize = nave_engine::plugin::MAX_POLICY_STACK + (1 << 20);

/// The threads. They end when this is stopped.
pub(super) struct Plugins {
    engine: Arc<PluginEngine>,
    calls: Arc<Pool>,
    loads: Arc<Pool>,
    hooks: Arc<Pool>,
    callers: Vec<JoinHandle<()>>,
}

impl Plugins {
    /// Starts the threads.
    pub(super) fn start(config: &Config, data: &DataDir, env: &Arc<RealEnv>) -> Result<Self, Failure> {
        let clock = Arc::clone(env);
        let engine = PluginEngine::new(Some(&data.cache()), Arc::new(move || clock.monotonic().since_start()));
        let mut plugins = Self {
            engine: Arc::new(engine),
            calls: Arc::new(Pool::new()),
            loads: Arc::new(Pool::new()),
            hooks: Arc::new(Pool::new()),
            callers: Vec::new(),
        };
        plugins.callers = threads("nave-policy", config.provisioning.policy_threads, &plugins.calls)?;
        // Not waited for at the end: a compilation or a web hook may take its time, and nothing depends on it any more.
        threads("nave-compile", COMPILING_THREADS, &plugins.loads)?;
        threads("nave-hook", HOOK_THREADS, &plugins.hooks)?;
        Ok(plugins)
    }

    /// The engine, whose time has to pass.
    pub(super) fn engine(&self) -> Arc<PluginEngine> {
        Arc::clone(&self.engine)
    }

    /// What the provisioning service gets.
    pub(super) fn custom_allocation(&self, config: &Config) -> Result<CustomAllocation, Failure> {
        let provisioning = &config.provisioning;
        Ok(CustomAllocation {
            policies: PoliciesParts {
                engine: self.engine(),
                calls: Arc::clone(&self.calls),
                loads: Arc::clone(&self.loads),
                trusted_keys: provisioning.policy_keys.clone(),
            },
            hooks: Hooks {
                client: Arc::new(Client::new(provisioning.webhook_ca.as_deref())?),
                pool: Arc::clone(&self.hooks),
                allow_loopback_http: provisioning.allow_loopback_webhooks,
            },
        })
    }

    /// Ends the threads. Calls that run end by their deadlines, so time must still pass.
    pub(super) fn stop(self) {
        for pool in [&self.calls, &self.loads, &self.hooks] {
            pool.close();
        }
        for caller in self.callers {
            // A panic within a piece of work does not end the thread; if one did, its message is in the log.
            let _ = caller.join();
        }
    }
}

fn threads(name: &str, count: usize, pool: &Arc<Pool>) -> Result<Vec<JoinHandle<()>>, Failure> {
    let start = |number| {
        let pool = Arc::clone(pool);
        let thread = std::thread::Builder::new().name(format!("{name}-{number}")).stack_size(POLICY_STACK);
        thread.spawn(move || pool.work()).map_err(Failure::runtime)
    };
    (0..count).map(start).collect()
}
