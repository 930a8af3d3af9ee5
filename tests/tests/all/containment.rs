//! What a broken or hostile function costs: the request that called it, and nothing else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nave_engine::{CALL_DEADLINE, CallError, Engine, Failure, Functions, Source, TICK};
use nave_hub::{DeviceInput, ErrorCode};
use nave_model::{DeviceId, IfMatch};
use nave_tests::paths;

use crate::simulation::world::World;

/// Functions of which the twin is the hostile fixture, and the thread that lets their deadlines pass.
struct Hostile {
    functions: Arc<Functions>,
    directory: PathBuf,
    stop: Arc<AtomicBool>,
    ticker: Option<std::thread::JoinHandle<()>>,
}

impl Hostile {
    #[allow(clippy::disallowed_methods, reason = "deadlines are of real time")]
    fn load(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("nave-containment-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        put(&directory, &paths::component("fixtures/hostile-twin").unwrap());
        let engine = Engine::new(None).unwrap();
        let functions = Arc::new(Functions::load(&engine, &Source::Directory(directory.clone())).unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let ticker = std::thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                std::thread::sleep(TICK);
                engine.tick();
            }
        });
        Self { functions, directory, stop, ticker: Some(ticker) }
    }

    /// What comes of an order, if the call does not return.
    fn failure(&self, order: &str) -> Failure {
        match self.functions.create_twin(Some(order), 0) {
            Err(CallError { function: "twin", failure }) => failure,
            other => panic!("{order}: {other:?}"),
        }
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(ticker) = self.ticker.take() {
            ticker.join().unwrap();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Puts a component into place as an operator should: whole or not at all.
fn put(directory: &Path, component: &[u8]) {
    let temporary = directory.join("twin.wasm.new");
    std::fs::write(&temporary, component).unwrap();
    std::fs::rename(temporary, directory.join("twin.wasm")).unwrap();
}

#[test]
fn every_misbehaviour_is_one_failed_call() {
    let hostile = Hostile::load("failures");
    assert_eq!(hostile.failure("loop"), Failure::Deadline);
    for order in ["panic", "memory", "stack"] {
        assert!(matches!(hostile.failure(order), Failure::Trap(_)), "{order}");
        // The next call finds an instance that has seen nothing of it.
        let state = hostile.functions.create_twin(Some("fine"), 0).unwrap().unwrap();
        assert_eq!(state.tags.json, "fine", "after {order}");
    }
}

#[test]
fn failures_do_not_use_up_instances() {
    let hostile = Hostile::load("instances");
    // Far more than there may be at once: each failed instance is given back.
    for round in 0..600 {
        assert!(matches!(hostile.failure("panic"), Failure::Trap(_)), "round {round}");
    }
    hostile.functions.create_twin(Some("fine"), 0).unwrap().unwrap();
}

#[test]
#[allow(clippy::disallowed_methods, reason = "deadlines are of real time")]
fn a_function_that_loops_does_not_hold_up_its_neighbours() {
    let hostile = Hostile::load("neighbours");
    let looping = AtomicBool::new(true);
    let answered = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(hostile.failure("loop"), Failure::Deadline);
            looping.store(false, Ordering::Release);
        });
        scope.spawn(|| {
            while looping.load(Ordering::Acquire) {
                hostile.functions.create_twin(Some("fine"), 0).unwrap().unwrap();
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    });
    assert!(answered.into_inner() > 0);
}

#[test]
fn what_is_not_json_does_not_reach_the_store() {
    let hostile = Hostile::load("forged");
    let world = World::new(1);
    let finished = world.simulation.run(async {
        let host = world.start_with("host-a", &hostile.functions).await;
        let hub = &host.platform.hubs()[0];
        let device = DeviceId::parse("device-0").unwrap();
        // The fixture answers with empty text where an object belongs.
        let error = hub.put_device(&device, &DeviceInput::default(), &IfMatch::None).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::ServerError);
        assert!(!error.message.contains("JSON"), "what went wrong inside is for the log only: {}", error.message);
        assert_eq!(hub.get_device(&device).await.unwrap_err().code, ErrorCode::DeviceNotFound);
    });
    finished.unwrap();
}

#[test]
#[allow(clippy::disallowed_methods, reason = "deadlines are of real time")]
fn functions_are_replaced_while_they_are_called() {
    let hostile = Hostile::load("reload");
    let source = Source::Directory(hostile.directory.clone());
    let end = Instant::now() + 2 * CALL_DEADLINE + Duration::from_millis(500);
    let calls = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while Instant::now() < end {
                    // Both versions understand this; the good one returns an empty object.
                    let state = hostile.functions.create_twin(Some("{}"), 0).unwrap().unwrap();
                    assert_eq!(state.tags.json, "{}");
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let versions = [paths::component("twin").unwrap(), paths::component("fixtures/hostile-twin").unwrap()];
        for version in versions.iter().cycle().take(4) {
            put(&hostile.directory, version);
            hostile.functions.reload(&source).unwrap();
        }
    });
    assert!(calls.into_inner() > 0);
    // A file that is no component is refused, and the version that was in place goes on.
    put(&hostile.directory, b"rubbish");
    assert!(hostile.functions.reload(&source).is_err());
    hostile.functions.create_twin(Some("{}"), 0).unwrap().unwrap();
}

#[test]
fn compiled_code_is_cached_and_a_damaged_cache_is_not_believed() {
    let directory = std::env::temp_dir().join(format!("nave-code-cache-{}", std::process::id()));
    let engine = Engine::new(Some(&directory)).unwrap();
    Functions::load(&engine, &Source::Embedded).unwrap();
    let files = || std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    assert_eq!(files().len(), nave_engine::FUNCTION_NAMES.len());
    for file in files() {
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    }
    let functions = Functions::load(&engine, &Source::Embedded).unwrap();
    functions.create_twin(None, 0).unwrap().unwrap();
    // The damaged files were replaced by good ones.
    for file in files() {
        let bytes = std::fs::read(&file).unwrap();
        let (digest, code) = bytes.split_at(32);
        assert_eq!(ring::digest::digest(&ring::digest::SHA256, code).as_ref(), digest);
    }
    std::fs::remove_dir_all(directory).unwrap();
}
