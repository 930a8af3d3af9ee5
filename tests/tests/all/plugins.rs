//! Policies that strangers wrote, in their sandbox: what each misbehaviour costs, what WASI gives them, and that a request
//! decides its outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nave_engine::TICK;
use nave_engine::allocation::{Assignment, Hub, Outcome, Request};
use nave_engine::plugin::{
    Access, CallReport, LimitError, MAX_OUTPUT_BYTES, PluginEngine, Policy, PolicyCallError, PolicyError,
    PolicyFailure, PolicyLabel, PolicyLimits,
};
use nave_tests::paths;
use serde_json::{Value, json};

/// An engine and the thread that lets its deadlines pass.
pub(crate) struct Sandbox {
    pub(crate) engine: Arc<PluginEngine>,
    stop: Arc<AtomicBool>,
    ticker: Option<JoinHandle<()>>,
}

impl Sandbox {
    #[allow(clippy::disallowed_methods, reason = "deadlines are of real time")]
    pub(crate) fn start() -> Self {
        let started = Instant::now();
        let engine = Arc::new(PluginEngine::new(None, Arc::new(move || started.elapsed())));
        let stop = Arc::new(AtomicBool::new(false));
        let (ticking, stopping) = (Arc::clone(&engine), Arc::clone(&stop));
        let ticker = std::thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                std::thread::sleep(TICK);
                ticking.tick();
            }
        });
        Self { engine, stop, ticker: Some(ticker) }
    }

    pub(crate) fn policy(&self, fixture: &str, limits: &PolicyLimits) -> Policy {
        let bytes = paths::component(&format!("fixtures/{fixture}")).unwrap();
        self.engine.compile(&label(fixture), &bytes, limits).unwrap()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(ticker) = self.ticker.take() {
            ticker.join().unwrap();
        }
    }
}

fn label(name: &str) -> PolicyLabel {
    PolicyLabel { name: name.to_owned(), version: "1.0.0".to_owned() }
}

/// A registration whose payload is the order to the fixture.
fn request(order: &str) -> Request {
    let hub = |name: &str, weight| Hub { name: name.to_owned(), weight, facts: Vec::new() };
    Request {
        registration_id: "device-1".to_owned(),
        policy: "custom".to_owned(),
        enrollment_json: "{}".to_owned(),
        payload_json: Some(format!("\"{order}\"")),
        config_json: None,
        current: None,
        hubs: vec![hub("hub1.example.net", 2), hub("hub2.example.net", 1)],
        unix_nanos: 1_790_000_000_123_456_789,
        seed: 42,
        facts: Vec::new(),
    }
}

fn failure(policy: &Policy, order: &str) -> (PolicyFailure, CallReport) {
    match policy.allocate(&request(order)) {
        (Err(PolicyCallError { label: of, failure }), report) => {
            assert_eq!(&of, policy.label());
            (failure, report)
        }
        (outcome, _) => panic!("{order}: {outcome:?}"),
    }
}

fn told(policy: &Policy, order: &str) -> (Value, CallReport) {
    match policy.allocate(&request(order)) {
        (Ok(Outcome::Assign(Assignment { payload_json: Some(payload), .. })), report) => {
            (serde_json::from_str(&payload).unwrap(), report)
        }
        (outcome, report) => panic!("{order}: {outcome:?} {report:?}"),
    }
}

#[test]
fn every_misbehaviour_is_one_failed_call_with_its_own_name() {
    let sandbox = Sandbox::start();
    // Long enough for what does not loop, on a machine that has other work.
    let deadline = Duration::from_millis(500);
    let limits = PolicyLimits { deadline, memory_bytes: 8 << 20, concurrency: 1, ..PolicyLimits::default() };
    let policy = sandbox.policy("hostile-policy", &limits);
    for (order, expected) in [
        ("loop", PolicyFailure::Deadline { limit: limits.deadline }),
        ("memory", PolicyFailure::Memory { limit: limits.memory_bytes }),
        ("stack", PolicyFailure::Stack { limit: limits.stack_bytes }),
        ("giant", PolicyFailure::Memory { limit: limits.memory_bytes }),
    ] {
        assert_eq!(failure(&policy, order).0, expected, "{order}");
        // The next call finds an instance that has seen nothing of it, in the only slot that there is.
        assert_eq!(told(&policy, "").0["calls"], 1, "after {order}");
    }
    let (trap, report) = failure(&policy, "panic");
    assert!(matches!(&trap, PolicyFailure::Trap(text) if text.contains("unreachable")), "{trap}");
    assert!(!report.backtrace.is_empty());
    for order in ["utf8", "outside"] {
        assert!(matches!(failure(&policy, order).0, PolicyFailure::InvalidResult(_)), "{order}");
    }
    let roomy = sandbox.policy("hostile-policy", &PolicyLimits::default());
    let oversize = PolicyFailure::Oversize { limit: PolicyLimits::default().result_bytes };
    assert_eq!(failure(&roomy, "giant").0, oversize);
    assert_eq!(oversize.kind(), "oversize");
}

#[test]
fn nothing_of_one_call_reaches_the_next() {
    let sandbox = Sandbox::start();
    let policy = sandbox.policy("hostile-policy", &PolicyLimits::default());
    for _ in 0..3 {
        let (told, report) = told(&policy, "");
        assert_eq!(told["calls"], 1);
        assert!(report.memory_bytes > 0 && report.memory_bytes <= PolicyLimits::default().memory_bytes);
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "deadlines are of real time")]
fn when_all_slots_are_taken_a_call_fails_and_says_so() {
    let sandbox = Sandbox::start();
    let limits = PolicyLimits { deadline: Duration::from_secs(1), concurrency: 1, ..PolicyLimits::default() };
    let policy = sandbox.policy("hostile-policy", &limits);
    let neighbour = sandbox.policy("hostile-policy", &limits);
    std::thread::scope(|scope| {
        // Whoever comes second finds the only slot taken.
        let spinning = scope.spawn(|| {
            let mut failures = std::iter::repeat_with(|| failure(&policy, "loop").0);
            failures.find(|failure| !matches!(failure, PolicyFailure::Busy(_))).unwrap()
        });
        let busy = std::iter::repeat_with(|| policy.allocate(&request("")).0)
            .take_while(|_| !spinning.is_finished())
            .any(|outcome| matches!(outcome, Err(PolicyCallError { failure: PolicyFailure::Busy(_), .. })));
        assert!(busy);
        assert_eq!(told(&neighbour, "").0["calls"], 1, "another policy has slots of its own");
        assert_eq!(spinning.join().unwrap(), PolicyFailure::Deadline { limit: limits.deadline });
    });
    told(&policy, "");
}

#[test]
fn wasi_is_there_and_nothing_is_behind_it() {
    let sandbox = Sandbox::start();
    let policy = sandbox.policy("curious-policy", &PolicyLimits::default());
    let (told, report) = told(&policy, "");
    for nothing in ["variables", "arguments", "folders"] {
        assert_eq!(told[nothing], 0, "{nothing}");
    }
    for absent in ["folder", "input", "terminal"] {
        assert_eq!(told[absent], false, "{absent}");
    }
    assert_eq!((&told["seconds"], &told["nanoseconds"]), (&json!(1_790_000_000), &json!(123_456_789)));
    // An hour of waiting took no time, and the clock shows it.
    assert_eq!((&told["waited"], &told["ready"], &told["polled"]), (&json!(3_600), &json!(false), &json!(1)));
    assert_eq!(report.output, "hello from the policy\n");
    for (order, import) in [
        ("socket", "wasi:sockets/tcp-create-socket#create-tcp-socket"),
        ("http", "wasi:http/types#[constructor]fields"),
    ] {
        assert_eq!(failure(&policy, order).0, PolicyFailure::NotGranted(import.to_owned()));
    }
    assert_eq!(failure(&policy, "exit").0, PolicyFailure::Exit);
    assert!(matches!(failure(&policy, "random").0, PolicyFailure::Trap(_)));
}

#[test]
fn output_is_bounded() {
    let sandbox = Sandbox::start();
    let policy = sandbox.policy("curious-policy", &PolicyLimits::default());
    let (_, report) = told(&policy, "chatter");
    assert!(report.output_truncated);
    assert_eq!(report.output.len(), MAX_OUTPUT_BYTES);
}

#[test]
fn the_same_request_has_the_same_outcome_and_another_seed_another() {
    let sandbox = Sandbox::start();
    let policy = sandbox.policy("curious-policy", &PolicyLimits::default());
    let outcome = |seed| policy.allocate(&Request { seed, ..request("") }).0.unwrap();
    assert_eq!(outcome(1), outcome(1));
    assert_ne!(outcome(1), outcome(2));
    // Also in another engine, which compiled the policy anew.
    let other = Sandbox::start().policy("curious-policy", &PolicyLimits::default());
    assert_eq!(other.allocate(&Request { seed: 1, ..request("") }).0.unwrap(), outcome(1));
}

#[test]
fn a_component_is_inspected_before_anybody_calls_it() {
    let sandbox = Sandbox::start();
    let curious = sandbox.policy("curious-policy", &PolicyLimits::default());
    let imports = &curious.inspect().imports;
    // Linkers raise the last number of the version to that of the WASI that they know.
    let access = |name: &str| imports.iter().find(|import| import.name.starts_with(name)).map(|import| import.access);
    assert_eq!(access("wasi:clocks/wall-clock@0.2."), Some(Access::Virtual));
    assert_eq!(access("wasi:sockets/tcp-create-socket@0.2."), Some(Access::Refused));
    assert!(!curious.inspect().is_configurable);
    assert_eq!(curious.configuration_schema(), None);
    let hostile = sandbox.policy("hostile-policy", &PolicyLimits::default());
    let bytes = paths::component("fixtures/hostile-policy").unwrap();
    let inspection = hostile.inspect();
    assert!(inspection.imports.is_empty());
    assert_eq!((inspection.size, &*inspection.contract), (bytes.len(), "0.1.0"));
    assert_eq!(inspection.digest.len(), 64);
    let schema: Value = serde_json::from_str(hostile.configuration_schema().unwrap()).unwrap();
    assert_eq!(schema["type"], "object");
}

#[test]
fn what_is_no_policy_is_refused_with_the_reason() {
    let sandbox = Sandbox::start();
    let compile = |bytes: &[u8], limits: &PolicyLimits| sandbox.engine.compile(&label("x"), bytes, limits).unwrap_err();
    let standard = PolicyLimits::default();
    assert!(matches!(compile(b"rubbish", &standard), PolicyError::NotAComponent(_)));
    let twin = paths::component("twin").unwrap();
    let error = compile(&twin, &standard);
    assert!(matches!(&error, PolicyError::World(text) if text.contains("nave:twin/twin@0.1.0")), "{error}");
    let mut torn = paths::component("allocation").unwrap();
    torn.truncate(torn.len() / 2);
    assert!(matches!(compile(&torn, &standard), PolicyError::Compile(_)));
    let policy = paths::component("fixtures/hostile-policy").unwrap();
    let tight = PolicyLimits { memory_bytes: 64 << 10, ..standard };
    assert!(matches!(compile(&policy, &tight), PolicyError::Start { failure: PolicyFailure::Memory { .. }, .. }));
    let greedy = PolicyLimits { stack_bytes: usize::MAX, ..standard };
    assert!(matches!(compile(&policy, &greedy), PolicyError::Limit(LimitError { name: "stackBytes", .. })));
}

/// One fixture for each release of the interface, from its own frozen source and WIT.
#[test]
fn a_policy_of_an_earlier_release_runs() {
    let sandbox = Sandbox::start();
    let policy = sandbox.policy("released-0-1-0", &PolicyLimits::default());
    assert_eq!(policy.inspect().contract, "0.1.0");
    let current = Assignment {
        hub: "old".to_owned(),
        device_id: Some("d7".to_owned()),
        initial_twin_json: None,
        payload_json: None,
    };
    let asked = Request { config_json: Some("{\"a\":1}".to_owned()), current: Some(current), ..request("") };
    let expected = Assignment {
        hub: "hub2.example.net".to_owned(),
        device_id: Some("d7".to_owned()),
        initial_twin_json: None,
        payload_json: asked.config_json.clone(),
    };
    assert_eq!(policy.allocate(&asked).0, Ok(Outcome::Assign(expected)));
    // The built-in policies implement the same interface.
    let bytes = paths::component("allocation").unwrap();
    let built_in = sandbox.engine.compile(&label("built-in"), &bytes, &PolicyLimits::default()).unwrap();
    let outcome = built_in.allocate(&Request { policy: "hashed".to_owned(), ..request("") }).0;
    assert!(matches!(outcome, Ok(Outcome::Assign(_))), "{outcome:?}");
}
