//! The binary `tidegate` with a pipeline and a data directory of its own, in a temporary folder.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::until;

/// A pipeline that can be run, killed, run again and queried. Its working directory is `folder`.
pub struct Tidegate {
    /// Holds `pipeline.toml`, the data directory `data`, inputs and logs.
    pub folder: TempDir,
    runs: std::cell::Cell<u32>,
    shared: bool,
    environment: Vec<(&'static str, &'static str)>,
}

/// A process that runs the pipeline. Dropping it kills it.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Tidegate {
    /// A pipeline; `toml` is everything but `[pipeline]` and `[observability]`, which this adds with epochs of half a second.
    pub fn new(toml: &str) -> Tidegate {
        Tidegate::made(toml, false)
    }

    /// The same, of a pipeline that several processes share (`run --instance NAME`).
    pub fn shared(toml: &str) -> Tidegate {
        Tidegate::made(toml, true)
    }

    fn made(toml: &str, shared: bool) -> Tidegate {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tidegate = Tidegate { folder, runs: std::cell::Cell::new(0), shared, environment: vec![] };
        tidegate.rewrite(toml);
        tidegate
    }

    /// Puts another pipeline in the place of this one, on the same data directory; for the next start.
    pub fn rewrite(&self, toml: &str) {
        let shared = if self.shared { "shared = true\n" } else { "" };
        let head = "[pipeline]\nname = \"test\"\ndata_dir = \"data\"\nlanes = 4\nepoch = \"500ms\"\n";
        let head = format!("{head}{shared}\n[observability]\nmetrics = \"127.0.0.1:0\"\n\n");
        std::fs::write(self.folder.path().join("pipeline.toml"), format!("{head}{toml}")).expect("the pipeline is written");
    }

    /// The same, with a variable in the environment of its processes.
    pub fn with_environment(mut self, name: &'static str, value: &'static str) -> Tidegate {
        self.environment.push((name, value));
        self
    }

    /// Starts `run` with these further arguments and does not wait.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let (mut command, log) = self.prepared();
        command.args(["run", "pipeline.toml"]).args(arguments);
        Running { child: command.spawn().expect("tidegate starts"), log }
    }

    /// The binary, with a new log.
    fn prepared(&self) -> (Command, PathBuf) {
        self.runs.set(self.runs.get() + 1);
        let log = self.folder.path().join(format!("run-{}.log", self.runs.get()));
        let file = File::create(&log).expect("a log file");
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        (command, log)
    }

    /// Starts `run` so that it ends at a place of `world::Point` when it comes there after so many times. The binary must have the feature.
    pub fn start_failing_at(&self, point: world::Point, times: u64) -> Running {
        let (mut command, log) = self.prepared();
        let before = if times > 0 { format!("{times}*off->") } else { String::new() };
        command.args(["run", "pipeline.toml"]).env("FAILPOINTS", format!("{point:?}={before}return"));
        Running { child: command.spawn().expect("tidegate starts"), log }
    }

    /// Starts `run` so that the kernel kills it as it enters its call number `count` (of each thread) of what makes things durable.
    pub fn start_killed_at(&self, count: u64) -> Running {
        const DURABLE: &str = "fsync,fdatasync,link,linkat,rename,renameat,renameat2,unlink,unlinkat,ftruncate";
        self.runs.set(self.runs.get() + 1);
        let log = self.folder.path().join(format!("run-{}.log", self.runs.get()));
        let file = File::create(&log).expect("a log file");
        let mut command = Command::new("strace");
        // With -D the tracer is not the parent, so the child is the process itself.
        command.args(["-D", "-f", "-qqq", "-o", "/dev/null", "-e", &format!("trace={DURABLE}")]);
        command.args(["-e", &format!("inject={DURABLE}:signal=SIGKILL:when={count}")]);
        command.arg(binary()).args(["run", "pipeline.toml"]).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        Running { child: command.spawn().expect("strace starts (tests/setup/install.sh installs it)"), log }
    }

    /// Runs the pipeline until it ends by itself with success.
    pub fn run(&self, arguments: &[&str]) {
        let mut running = self.start(arguments);
        let status = running.wait(Duration::from_secs(300));
        assert!(status.success(), "run ended with {status}\n{}", running.log());
    }

    /// Runs another command of the binary in the folder, to its end.
    pub fn call(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().expect("tidegate starts")
    }

    /// Starts another command of the binary in the folder, and does not wait. What it prints is thrown away.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("tidegate starts")
    }

    /// The same, and what it prints can be read when it has ended (`Child::wait_with_output`): little, or it waits for a reader.
    pub fn spawn_heard(&self, arguments: &[&str]) -> Child {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("tidegate starts")
    }

    /// What SQL answers, as CSV with a header. Panics when it fails.
    pub fn sql(&self, sql: &str) -> String {
        let output = self.try_sql(sql);
        let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{sql}: {}\n{errors}", output.status);
        text.into_owned()
    }

    /// The same, but the caller judges.
    pub fn try_sql(&self, sql: &str) -> Output {
        let mut command = self.command();
        command.args(["sql", "--config", "pipeline.toml", "--format", "csv", sql]).output().expect("tidegate starts")
    }

    /// The one whole number that SQL answers.
    #[track_caller]
    pub fn count(&self, sql: &str) -> u64 {
        let text = self.sql(sql);
        let number = text.lines().nth(1).and_then(|line| line.trim().parse().ok());
        number.unwrap_or_else(|| panic!("{sql}: not one number: {text}"))
    }

    /// A path in the folder, as text for a command line.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("temporary folders have UTF-8 names").to_owned()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.current_dir(self.folder.path()).envs(self.environment.iter().copied());
        command
    }
}

impl Running {
    /// What it has logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its page of metrics, from the address that its log names.
    pub fn metrics(&self) -> String {
        let log = self.log();
        let line =
            log.lines().find(|line| line.contains("\"message\":\"metrics\"")).unwrap_or_else(|| panic!("no address of metrics in\n{log}"));
        let line: serde_json::Value = serde_json::from_str(line).expect("a log that is no terminal's is JSON");
        let address = line.get("address").and_then(|a| a.as_str()).unwrap_or_else(|| panic!("no address in {line}"));
        let mut stream = TcpStream::connect(address).expect("the endpoint listens");
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").expect("a request is sent");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("a page comes back");
        page
    }

    /// Waits until it logs "ready". Panics with the log when it ends first.
    pub fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.log().contains("ready") {
            assert!(self.is_running(), "ended before it was ready\n{}", self.log());
            assert!(Instant::now() < deadline, "not ready within a minute\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The most physical memory that it has held at once, in bytes (`VmHWM`).
    pub fn peak_memory_bytes(&self) -> u64 {
        self.peak_memory_bytes_if_running().expect("a running process has a status")
    }

    /// The same; none when it has ended.
    pub fn peak_memory_bytes_if_running(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap_or_else(|e| panic!("{line}: {e}"));
        Some(kilobytes * 1024)
    }

    /// Has it not ended yet?
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours can be asked").is_none()
    }

    /// Has SIGKILL ended it? Panics with the log when something else has.
    pub fn was_killed(&mut self) -> bool {
        self.was_ended_by(9)
    }

    /// Has it ended itself by SIGABRT, as it does at a fail point? Panics with the log when something else has.
    pub fn was_aborted(&mut self) -> bool {
        self.was_ended_by(6)
    }

    fn was_ended_by(&mut self, signal: i32) -> bool {
        let Some(status) = self.child.try_wait().expect("a child of ours can be asked") else { return false };
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(signal), "ended with {status}\n{}", self.log());
        true
    }

    /// Waits for its end. Panics with the log after `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours can be asked") {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {limit:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().expect("a child of ours can be killed");
        self.child.wait().expect("a child of ours can be waited for");
    }

    /// Sends it a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success(), "kill -{name}: {sent}");
    }

    /// SIGTERM: it seals and leaves with success.
    pub fn stop(mut self) {
        self.signal("TERM");
        let status = self.wait(Duration::from_secs(60));
        assert!(status.success(), "after SIGTERM: {status}\n{}", self.log());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        until("the end of a killed process", Duration::from_secs(10), || self.child.try_wait().map_or(true, |ended| ended.is_some()));
    }
}

/// `TIDEGATE_BIN`, or the binary that cargo builds into the folder this test runs from.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| std::env::var_os("TIDEGATE_BIN").map_or_else(built, PathBuf::from))
}

/// Builds it first: cargo builds binaries only for the tests of their own package. The whole workspace, so that the features of
/// dependencies are those of the tests and nothing is built twice.
fn built() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.parent().and_then(Path::parent).expect("tests lie in <target>/<profile>/deps");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--workspace", "--bins", "--target-dir"]);
    cargo.arg(profile.parent().expect("a profile lies in the target folder")).current_dir(crate::repository());
    if cfg!(feature = "failpoints") {
        cargo.args(["--features", "tests/failpoints"]);
    }
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    // What cargo tells this test of its own package: build scripts that look at it would run again, and half of the dependencies with them.
    let told = |name: &std::ffi::OsStr| ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|of| name.to_string_lossy().starts_with(of));
    for (name, _) in std::env::vars_os().filter(|(name, _)| told(name)) {
        cargo.env_remove(name);
    }
    assert!(cargo.status().expect("cargo runs").success(), "the binary tidegate does not build");
    profile.join("tidegate")
}
