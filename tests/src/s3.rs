//! An S3 server of our own on a free port: s3s-fs over a folder, with one bucket.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::python::tools;
use crate::{free_port, until};

const KEY: &str = "tidegate";
const SECRET: &str = "tidegate-secret";
const BUCKET: &str = "cold";

/// A running server; it ends when this is dropped, and its folder with it.
pub struct S3 {
    port: u16,
    folder: TempDir,
    child: Child,
}

impl S3 {
    /// Starts the server and waits until it takes connections.
    pub fn start() -> S3 {
        let (folder, port) = (tempfile::tempdir().expect("a temporary folder"), free_port());
        std::fs::create_dir(folder.path().join(BUCKET)).expect("a folder in a temporary folder");
        let child = listening(&folder, port);
        S3 { port, folder, child }
    }

    /// `kill -9`: what it has answered is kept.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child of ours can be killed");
        self.child.wait().expect("a child of ours can be waited for");
    }

    /// Starts it again over the same folder, on the same port.
    pub fn start_again(&mut self) {
        self.child = listening(&self.folder, self.port);
    }

    /// The options of a cold table whose tables lie below `prefix`: `url = …, s3 = { … }`.
    pub fn cold(&self, prefix: &str) -> String {
        let options = self.options().map(|(key, value)| format!("{key} = \"{value}\""));
        format!("url = \"s3://{BUCKET}/{prefix}\", s3 = {{ {} }}", options.join(", "))
    }

    /// How clients reach it, by the names that object_store, deltalake and Polars use.
    pub fn options(&self) -> [(&'static str, String); 4] {
        [
            ("endpoint", format!("http://127.0.0.1:{}", self.port)),
            ("region", "us-east-1".into()),
            ("access_key_id", KEY.into()),
            ("secret_access_key", SECRET.into()),
        ]
    }

    /// The address below which the tables of `prefix` lie.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// The folder that the objects of `prefix` lie in.
    pub fn objects(&self, prefix: &str) -> PathBuf {
        self.folder.path().join(BUCKET).join(prefix)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listening(folder: &TempDir, port: u16) -> Child {
    let binary = tools().join("bin/s3s-fs");
    let mut command = Command::new(&binary);
    command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--access-key", KEY, "--secret-key", SECRET]).arg(folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap_or_else(|e| panic!("{}: {e} (tests/setup/install.sh makes it)", binary.display()));
    until("the S3 server listening", Duration::from_secs(20), || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    child
}
