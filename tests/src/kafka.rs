//! An Apache Kafka of our own: one broker in KRaft mode on free ports, with its data in a temporary folder.

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

use crate::{free_port, until};

/// How long the broker may take to come up or to answer.
const LIMIT: Duration = Duration::from_secs(60);

/// A running broker; it ends when this is dropped.
pub struct Kafka {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    child: Child,
    folder: TempDir,
}

impl Kafka {
    /// Starts a broker and waits until it answers.
    pub fn start() -> Kafka {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (port, controller) = (free_port(), free_port());
        let settings = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\nlog.dirs={}\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=4\n\
             share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\nauto.create.topics.enable=false\nlog.retention.check.interval.ms=1000\n",
            folder.path().join("data").display(),
        );
        std::fs::write(folder.path().join("server.properties"), settings).expect("the broker's settings are written");
        let log = "<Configuration status=\"WARN\"><Appenders><File name=\"f\" fileName=\"server.log\"><PatternLayout pattern=\"%d %p %m%n\"/></File></Appenders>\
                   <Loggers><Root level=\"info\"><AppenderRef ref=\"f\"/></Root></Loggers></Configuration>";
        std::fs::write(folder.path().join("log4j2.xml"), log).expect("the broker's log settings are written");
        let formatted = java(
            folder.path(),
            &["kafka.tools.StorageTool", "format", "--cluster-id", "AAAAAAAAAAAAAAAAAAAAAQ", "--config", "server.properties"],
        )
        .output()
        .expect("java starts (tests/setup/install.sh installs it)");
        assert!(formatted.status.success(), "formatting the broker's storage: {}", String::from_utf8_lossy(&formatted.stderr));
        let child = serving(folder.path(), port);
        let kafka = Kafka { port, child, folder };
        kafka.wait_until_it_answers();
        kafka
    }

    /// The broker's address, as clients take it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends the broker as an administrator does.
    pub fn stop(&mut self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success(), "kill -TERM: {sent}");
        self.child.wait().expect("a child of ours can be waited for");
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child of ours can be killed");
        self.child.wait().expect("a child of ours can be waited for");
    }

    /// Starts it again with what it has kept.
    pub fn start_again(&mut self) {
        self.child = serving(self.folder.path(), self.port);
        self.wait_until_it_answers();
    }

    /// Makes a topic.
    pub fn create(&self, topic: &str, partitions: i32) {
        self.create_with(topic, partitions, &[]);
    }

    /// The same, with settings of the topic.
    pub fn create_with(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let made = block(self.admin().create_topics([&new], &options()));
        assert!(made.as_ref().is_ok_and(|results| results.iter().all(Result::is_ok)), "creating {topic}: {made:?}");
        let is_there = || {
            let client: BaseProducer = self.client().create().expect("a producer");
            let metadata = client.client().fetch_metadata(Some(topic), LIMIT);
            metadata.is_ok_and(|of| of.topics().iter().any(|t| t.name() == topic && t.partitions().len() == partitions as usize))
        };
        until("the topic's partitions", LIMIT, is_there);
    }

    /// Deletes a topic.
    pub fn delete(&self, topic: &str) {
        let gone = block(self.admin().delete_topics(&[topic], &options()));
        assert!(gone.as_ref().is_ok_and(|results| results.iter().all(Result::is_ok)), "deleting {topic}: {gone:?}");
    }

    /// Gives a topic more partitions.
    pub fn grow(&self, topic: &str, partitions: usize) {
        let made = block(self.admin().create_partitions([&NewPartitions::new(topic, partitions)], &options()));
        assert!(made.as_ref().is_ok_and(|results| results.iter().all(Result::is_ok)), "growing {topic}: {made:?}");
    }

    /// Deletes a partition's records, as retention does.
    pub fn truncate(&self, topic: &str, partition: i32) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::End).expect("an offset");
        block(self.admin().delete_records(&list, &options())).expect("records are deleted");
    }

    /// Settings of a client.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address());
        config
    }

    /// The committed records of a topic, as the console consumer of Apache Kafka prints them: key, a tab, value.
    pub fn committed(&self, topic: &str) -> Vec<String> {
        let address = self.address();
        let arguments = [
            "org.apache.kafka.tools.consumer.ConsoleConsumer",
            "--bootstrap-server",
            &address,
            "--topic",
            topic,
            "--from-beginning",
            "--isolation-level",
            "read_committed",
            "--timeout-ms",
            "4000",
            "--formatter-property",
            "print.key=true",
        ];
        let output = java(self.folder.path(), &arguments).output().expect("java starts");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// The offset that a group has committed in a partition; none where it has none.
    pub fn group_offset(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        use rdkafka::consumer::{BaseConsumer, Consumer as _};
        let consumer: BaseConsumer = self.client().set("group.id", group).create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let offsets = consumer.committed_offsets(list, LIMIT).expect("the group's offsets");
        offsets.elements().first().and_then(|of| of.offset().to_raw()).filter(|offset| *offset >= 0)
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("an admin client")
    }

    fn wait_until_it_answers(&self) {
        let answers = || {
            let client: BaseProducer = self.client().set("log_level", "0").create().expect("a producer");
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
                && client.client().fetch_metadata(None, Duration::from_secs(2)).is_ok_and(|of| !of.brokers().is_empty())
        };
        until("an answer of the broker", LIMIT, answers);
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(LIMIT))
}

fn block<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(what)
}

fn serving(folder: &Path, port: u16) -> Child {
    let mut command = java(folder, &["kafka.Kafka", "server.properties"]);
    let child = command.spawn().expect("java starts (tests/setup/install.sh installs it)");
    until("a broker that listens", LIMIT, || TcpStream::connect(("127.0.0.1", port)).is_ok());
    child
}

/// A main class of Apache Kafka with its arguments.
fn java(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("java");
    command.args(["-Xmx400m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.configurationFile=log4j2.xml", "-cp"]);
    command.arg(libraries().join("*")).args(arguments).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    if arguments[0] == "kafka.Kafka" {
        command.stdout(Stdio::null());
    }
    command
}

/// Where `tests/setup/install.sh` puts Apache Kafka.
fn libraries() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"))).expect("HOME is set");
    let libraries = cache.join("tidegate/tools/kafka");
    assert!(libraries.is_dir(), "{} is missing: tests/setup/install.sh fetches Apache Kafka", libraries.display());
    libraries
}
