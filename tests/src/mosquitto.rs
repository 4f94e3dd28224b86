//! A Mosquitto of our own on a free port, with persistence and no limit on what waits for an absent subscriber.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::{free_port, until};

/// A running broker; it ends when this is dropped.
pub struct Mosquitto {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    log: PathBuf,
    config: PathBuf,
    child: Child,
    _folder: TempDir,
}

impl Mosquitto {
    /// Starts the broker and waits until it takes connections.
    pub fn start() -> Mosquitto {
        Mosquitto::start_with("")
    }

    /// The same with further settings, such as a second listener.
    pub fn start_with(further: &str) -> Mosquitto {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (port, log, config) = (free_port(), folder.path().join("log"), folder.path().join("mosquitto.conf"));
        let settings = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}/\nmax_queued_messages 0\n\
             log_dest file {}\nlog_type all\nuser {}\n{further}\n",
            folder.path().display(),
            log.display(),
            user(),
        );
        std::fs::write(&config, settings).expect("the broker's settings are written");
        let child = listening(&config, port);
        Mosquitto { port, log, config, child, _folder: folder }
    }

    /// Ends the broker as an administrator does, and starts it again with what it has kept.
    pub fn restart(&mut self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success(), "kill -TERM: {sent}");
        self.child.wait().expect("a child of ours can be waited for");
        self.child = listening(&self.config, self.port);
    }

    /// The broker's address as pipelines take it.
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Lines of the broker's log that hold `text`.
    pub fn logged(&self, text: &str) -> usize {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).lines().filter(|line| line.contains(text)).count()
    }

    /// Waits until a client has subscribed: from then on its session keeps every message.
    pub fn wait_for_subscriber(&self) {
        until("a subscription at the broker", Duration::from_secs(60), || self.logged("Sending SUBACK to") > 0);
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A broker that takes connections.
fn listening(config: &Path, port: u16) -> Child {
    let mut command = Command::new("mosquitto");
    command.arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("mosquitto starts (tests/setup/install.sh installs it)");
    until("mosquitto listening", Duration::from_secs(20), || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    child
}

/// Started by root, Mosquitto would change to a user that cannot write our folder.
fn user() -> String {
    std::env::var("USER").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "root".into())
}
