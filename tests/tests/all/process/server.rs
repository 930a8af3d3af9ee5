//! A hub's directory, its process, and what its ready file says.

use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, thread};

use nave_tests::{leaks, paths};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;
use tempfile::TempDir;

use super::PATIENCE;

/// The name of the ready file.
pub(super) const READY_FILE: &str = "connection.json";

/// One hub and the provisioning service, on free ports of this machine only.
const CONFIGURATION: &str = r#"
[listen]
mqtts = "127.0.0.1:0"
https = "127.0.0.1:0"
admin = "127.0.0.1:0"

[[hub]]
name = "hub1"
host_name = "hub1.nave.test"
partitions = 4

[provisioning]
host_name = "dps.nave.test"
"#;

/// Lines of the hub's log that a failed test shows.
const SHOWN_LINES: usize = 40;

/// How often a condition outside of this process is looked at.
const GLANCE: Duration = Duration::from_millis(2);

/// The program under test.
pub(super) fn binary() -> PathBuf {
    let path = env::var_os("NAVE_BIN").map_or_else(|| paths::root().join("target/release/nave"), PathBuf::from);
    assert!(path.is_file(), "there is no program {}; run: cargo xtask build", path.display());
    path
}

/// A directory for one hub: configuration, data, log.
pub(crate) struct Site {
    dir: TempDir,
    data: PathBuf,
}

impl Site {
    /// A directory with the usual configuration.
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// A directory whose configuration goes on with `more`, which may continue the section of the provisioning service.
    pub(super) fn with(more: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("nave-process-").tempdir().unwrap();
        // The program may have to run as a user who does not own this directory.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("nave.toml"), format!("{CONFIGURATION}{more}")).unwrap();
        let data = dir.path().join("data");
        Self { dir, data }
    }

    /// The same directory with another place for the data.
    pub(super) fn keep_data_in(mut self, data: PathBuf) -> Self {
        self.data = data;
        self
    }

    /// Everything of this hub.
    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    /// The data directory.
    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    /// Where the ready file is when there is one.
    pub(super) fn ready_file(&self) -> PathBuf {
        self.data.join(READY_FILE)
    }

    /// What all hubs of this directory wrote to standard error.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn output_file(&self) -> PathBuf {
        self.dir.path().join("output")
    }

    /// `nave serve` for this directory, with nothing of this process's environment that could change it.
    pub(super) fn command(&self) -> Command {
        self.command_of(&binary(), &[])
    }

    /// The same, with another copy of the program behind the words of `wrapper`.
    pub(super) fn command_of(&self, program: &Path, wrapper: &[&str]) -> Command {
        let mut words = wrapper.iter().map(PathBuf::from).chain([program.to_owned()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg("serve").arg("--data-dir").arg(&self.data);
        command.arg("--config").arg(self.dir.path().join("nave.toml"));
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("NAVE_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Starts a hub and does not wait for it.
    pub(super) fn launch(&self) -> Nave {
        self.launch_as(self.command())
    }

    /// Starts a hub by a command from [`Site::command_of`] and does not wait for it.
    pub(super) fn launch_as(&self, mut command: Command) -> Nave {
        let open = |file: PathBuf| OpenOptions::new().create(true).append(true).open(file).unwrap();
        let (log, output) = (open(self.log_file()), open(self.output_file()));
        let child = command.stdin(Stdio::null()).stdout(output).stderr(log).spawn().unwrap();
        Nave { child: RefCell::new(child), data: self.data.clone(), log: self.log_file() }
    }

    /// Starts a hub and waits until it is ready.
    pub(crate) fn start(&self) -> (Nave, Ready) {
        let nave = self.launch();
        let ready = nave.wait_ready();
        (nave, ready)
    }

    /// Another command of the program, for this directory, with nothing of this process's environment.
    pub(crate) fn tool(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binary());
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("NAVE_") {
                command.env_remove(name);
            }
        }
        command.args(words).env("NAVE_DATA_DIR", &self.data);
        command
    }

    /// What another command prints when it succeeds, as JSON.
    pub(super) fn json(&self, words: &[&str]) -> Value {
        let output = self.tool(words).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        leaks::collect(&format!("the errors of nave {}", words.join(" ")), &errors);
        // The others show keys to whoever asks for them.
        if matches!(words.first(), Some(&("status" | "doctor" | "config" | "backup" | "restore" | "policy"))) {
            let text = String::from_utf8_lossy(&output.stdout);
            leaks::collect(&format!("the output of nave {}", words.join(" ")), &text);
        }
        assert!(output.status.success(), "nave {words:?}: {errors}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("nave {words:?}: {error}"))
    }

    /// The configuration file.
    pub(super) fn config(&self) -> PathBuf {
        self.dir.path().join("nave.toml")
    }

    /// Runs a hub that is expected to give up.
    pub(super) fn refused(&self, command: Command) -> Refusal {
        let before = self.log().len();
        let nave = self.launch_as(command);
        let status = nave.wait();
        Refusal { code: status.code(), message: self.log().split_off(before) }
    }
}

/// Whatever the hubs of a directory wrote holds no secret.
impl Drop for Site {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        remember_private_keys(&self.data);
        for (what, file) in [
            ("the log", self.log_file()),
            ("standard output", self.output_file()),
            ("the audit records", self.dir.path().join("audit.jsonl")),
        ] {
            if let Ok(bytes) = fs::read(&file) {
                leaks::collect(what, &String::from_utf8_lossy(&bytes));
            }
        }
    }
}

/// Notes the private keys that a hub made.
fn remember_private_keys(data: &Path) {
    for entry in fs::read_dir(data.join("tls")).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "key")
            && let Ok(text) = fs::read_to_string(&path)
        {
            leaks::remember(&text);
        }
    }
}

/// Notes the keys of connection strings and the admin token.
fn remember_secrets(value: &Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text) if name == "token" => leaks::remember(text),
                    Value::String(text) if name.to_ascii_lowercase().ends_with("connectionstring") => {
                        let keys = text.split(';').filter_map(|part| part.strip_prefix("SharedAccessKey="));
                        keys.for_each(leaks::remember);
                    }
                    other => remember_secrets(other),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(remember_secrets),
        _ => {}
    }
}

/// What a process is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Signal {
    /// To stop, by a service manager.
    Terminate,
    /// To stop, by Ctrl-C.
    Interrupt,
    /// To load functions again.
    Reload,
}

impl Signal {
    /// Its name for the shell, and a word for other uses.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Terminate => "TERM",
            Self::Interrupt => "INT",
            Self::Reload => "HUP",
        }
    }
}

/// How a hub that did not start ended.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: Option<i32>,
    pub(super) message: String,
}

impl Refusal {
    /// Checks the exit code, and that the message says all of this.
    pub(super) fn expect(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.message);
        for word in words {
            assert!(self.message.contains(word), "`{word}` is not in: {}", self.message);
        }
        assert!(!self.message.contains("panicked"), "{}", self.message);
    }
}

/// A running hub. Dropping it kills it.
pub(crate) struct Nave {
    child: RefCell<Child>,
    data: PathBuf,
    log: PathBuf,
}

impl Nave {
    /// The process.
    pub(super) fn pid(&self) -> u32 {
        self.child.borrow().id()
    }

    /// What the ready file of this process says; nothing while there is none.
    pub(super) fn ready(&self) -> Option<Ready> {
        let ready = Ready::read(&self.data)?;
        (ready.json["pid"] == self.pid()).then_some(ready)
    }

    /// Blocks until the hub is ready.
    pub(super) fn wait_ready(&self) -> Ready {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.look(deadline) {
                Some(ready) => return ready,
                None => thread::sleep(GLANCE),
            }
        }
    }

    /// Waits until the hub is ready.
    pub(super) async fn until_ready(&self) -> Ready {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.look(deadline) {
                Some(ready) => return ready,
                None => tokio::time::sleep(GLANCE).await,
            }
        }
    }

    fn look(&self, deadline: Instant) -> Option<Ready> {
        if let Some(status) = self.child.borrow_mut().try_wait().unwrap() {
            panic!("the hub ended with {status} before it was ready");
        }
        assert!(Instant::now() < deadline, "the hub did not become ready");
        self.ready()
    }

    /// Whether the process has not ended.
    pub(super) fn is_running(&self) -> bool {
        self.child.borrow_mut().try_wait().unwrap().is_none()
    }

    /// `kill -9`.
    pub(super) fn kill(&self) {
        let mut child = self.child.borrow_mut();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends a signal.
    pub(super) fn signal(&self, signal: Signal) {
        // Every shell has this built in; the standard library can only kill.
        let status = Command::new("sh").arg("-c").arg(format!("kill -{} {}", signal.name(), self.pid())).status();
        assert!(status.unwrap().success());
    }

    /// Blocks until the process has ended.
    pub(super) fn wait(&self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.borrow_mut().try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the hub did not end");
            thread::sleep(GLANCE);
        }
    }

    /// Waits until the process has ended.
    pub(super) async fn ended(&self) -> ExitStatus {
        while self.is_running() {
            tokio::time::sleep(GLANCE).await;
        }
        self.wait()
    }

    /// Asks the hub to stop, which must end well.
    pub(crate) fn stop(&self) {
        self.signal(Signal::Terminate);
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "the hub was asked to stop");
    }

    /// Bytes of memory that the process really has.
    pub(super) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Nave {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        // It may have ended long ago.
        let _ = child.kill();
        let _ = child.wait();
        if thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
            eprintln!("the end of the hub's log:\n{}", shown.join("\n"));
        }
    }
}

/// What a ready file says.
#[derive(Clone)]
pub(crate) struct Ready {
    pub(super) json: Value,
    /// What trusts the hub's certificate.
    pub(super) tls: Arc<ClientConfig>,
}

impl Ready {
    /// Reads the ready file, which must be whole whenever it is there.
    pub(super) fn read(data: &Path) -> Option<Self> {
        let text = fs::read(data.join(READY_FILE)).ok()?;
        let json: Value = serde_json::from_slice(&text).expect("a ready file is whole");
        remember_secrets(&json);
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(json["caCertificate"].as_str().unwrap()).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Some(Self { json, tls: Arc::new(tls) })
    }

    /// Where MQTT is spoken.
    pub(super) fn mqtts(&self) -> SocketAddr {
        address(&self.json["hubs"][0]["mqttsPort"])
    }

    /// Where HTTPS is spoken.
    pub(super) fn https(&self) -> SocketAddr {
        address(&self.json["hubs"][0]["httpsPort"])
    }
}

fn address(port: &Value) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, u16::try_from(port.as_u64().expect("a port")).unwrap()).into()
}

/// Whether this test may do what only root may; if not, the reader of the test's output learns what was skipped.
pub(super) fn is_root(what_for: &str) -> bool {
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root {
        skip(&format!("{what_for} needs root"));
    }
    root
}

/// Says loudly, past the capture of the test harness, that something is not tested here.
pub(super) fn skip(why: &str) {
    use std::io::Write as _;
    // Not by `eprintln!`, which the harness captures. Without anybody to read it there is nobody to tell.
    let _ = std::io::stderr().write_all(format!("\nSKIPPED: {why}\n").as_bytes());
}
