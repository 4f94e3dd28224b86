//! The pipeline of the demo: `tidegate run` as a process of its own, seen only through what every user has: its metrics, its SQL over
//! HTTP, the files of its folder, and signals.

use super::figures::{Figures, tiers};
use super::folder::Folder;
use flow::{Error, Remedy, Result};
use gateway::format::Format;
use reqwest::Client;
use std::fs::File;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use storage::epoch::{EpochStore, LocalEpochs};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// The file of the data directory that says where a pipeline answers.
const ADDRESS: &str = "instance.json";
/// How long the pipeline may take to be ready: an unoptimised build on a busy machine takes a few seconds.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A little more than the 30 s that the pipeline gives itself to seal.
const STOPS_WITHIN: Duration = Duration::from_secs(40);
/// Longer than the pipeline's own deadline for queries.
const ANSWERS_WITHIN: Duration = Duration::from_secs(40);
/// How often it is looked at while it starts.
const LOOK: Duration = Duration::from_millis(200);
/// From the connection, which metrics show, to the subscription, which they do not: a packet each way on loopback.
const SUBSCRIBED_AFTER: Duration = Duration::from_millis(500);

/// A running pipeline.
pub(super) struct Instance {
    child: Child,
    folder: Folder,
    client: Client,
    metrics: String,
    /// The address of its SQL, once it is ready.
    sql: String,
}

impl Instance {
    /// Starts the pipeline of a folder.
    pub(super) fn start(folder: &Folder, metrics: SocketAddr) -> Result<Self> {
        let failed = |e| Error::stop("starting the demo's pipeline", e);
        let log = File::create(folder.log()).map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("run").arg(folder.pipeline()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // A group of its own: Ctrl-C reaches the demo alone, which stops the devices first. Proxies are for others than loopback.
        let child = command.process_group(0).kill_on_drop(true).spawn().map_err(failed)?;
        let client = Client::builder().no_proxy().timeout(ANSWERS_WITHIN).build().map_err(|e| Error::stop("making an HTTP client", e))?;
        Ok(Self { child, folder: folder.clone(), client, metrics: format!("http://{metrics}/metrics"), sql: String::new() })
    }

    /// Waits until it takes readings.
    pub(super) async fn ready(&mut self) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < READY_WITHIN {
            self.check()?;
            if self.is_ready().await {
                sleep(SUBSCRIBED_AFTER).await;
                return Ok(());
            }
            sleep(LOOK).await;
        }
        Err(self.failed(&format!("the demo's pipeline was not ready within {} s", READY_WITHIN.as_secs())))
    }

    async fn is_ready(&mut self) -> bool {
        let Some(address) = self.address() else { return false };
        self.sql = format!("http://{address}/api/v1/sql");
        let healthy = self.client.get(format!("http://{address}/health/ready")).send().await;
        healthy.is_ok_and(|answer| answer.status().is_success()) && self.page().await.is_ok_and(|page| Figures::read(&page).connected > 0)
    }

    fn address(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.folder.data().join(ADDRESS)).ok()?;
        let facts: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some(facts.get("http")?.as_str()?.to_owned())
    }

    /// An error when it has ended by itself.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failed(&format!("the demo's pipeline ended with {status}"))),
            Err(e) => Err(Error::stop("looking at the demo's pipeline", e)),
        }
    }

    fn failed(&self, what: &str) -> Error {
        Error::new(Remedy::Stop, format!("{what}; its log is {} and ends:\n{}", self.folder.log().display(), self.folder.end_of_log()))
    }

    /// What it says of itself now.
    pub(super) async fn figures(&self) -> Result<Figures> {
        let page = self.page().await.map_err(|e| Error::stop("reading the pipeline's metrics", e))?;
        let by_tier = self.ask("SELECT _tier, count(*) AS n FROM tiers.readings GROUP BY 1", Format::Ndjson).await?;
        Ok(Figures { tiers: tiers(&by_tier), epoch: self.epoch().await.unwrap_or(0), ..Figures::read(&page) })
    }

    async fn page(&self) -> reqwest::Result<String> {
        self.client.get(&self.metrics).send().await?.error_for_status()?.text().await
    }

    /// The newest sealed epoch of the lane that is behind all others.
    async fn epoch(&self) -> Option<u64> {
        let epochs = LocalEpochs::new(&self.folder.data(), super::PIPELINE);
        let newest = |epochs: &LocalEpochs, lane: &str| epochs.numbers(lane).ok()?.last().copied();
        let least = move || epochs.lanes().ok()?.iter().map(|lane| newest(&epochs, lane).unwrap_or(0)).min();
        tokio::task::spawn_blocking(least).await.ok().flatten()
    }

    /// The answer to a statement.
    pub(super) async fn ask(&self, sql: &str, format: Format) -> Result<String> {
        let failed = |e: reqwest::Error| Error::stop(format!("asking `{sql}`"), e);
        let request = self.client.post(&self.sql).header("accept", format.media_type()).header("content-type", "text/plain");
        let answer = request.body(sql.to_owned()).send().await.map_err(failed)?;
        let good = answer.status().is_success();
        let text = answer.text().await.map_err(failed)?;
        if good { Ok(text) } else { Err(Error::new(Remedy::Stop, format!("asking `{sql}`: {text}"))) }
    }

    /// Asks it to end, and waits until it has sealed what it has.
    pub(super) async fn stop(mut self) -> Result<()> {
        let failed = |e| Error::stop("stopping the demo's pipeline", e);
        let Some(id) = self.child.id() else { return Ok(()) };
        // Only a shell sends SIGTERM without unsafe code; the one of POSIX is everywhere.
        Command::new("sh").args(["-c", "kill -TERM \"$0\"", &id.to_string()]).status().await.map_err(failed)?;
        match timeout(STOPS_WITHIN, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.failed(&format!("the demo's pipeline stopped with {status}"))),
            Ok(Err(e)) => Err(failed(e)),
            Err(_) => {
                let killed = self.child.kill().await;
                let how = if killed.is_ok() { "and was killed" } else { "and could not be killed" };
                Err(self.failed(&format!("the demo's pipeline did not end within {} s {how}", STOPS_WITHIN.as_secs())))
            }
        }
    }
}
