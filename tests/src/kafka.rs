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

use crate::{certificates, free_port, until};

/// How long the broker may take to come up or to answer.
const LIMIT: Duration = Duration::from_secs(60);

/// Who looks after a user's password.
const SCRAM: &str = "org.apache.kafka.common.security.scram.ScramLoginModule required;";

/// A running broker; it ends when this is dropped.
pub struct Kafka {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    controller: u16,
    child: Child,
    folder: TempDir,
    settings: Vec<String>,
}

impl Kafka {
    /// Starts a broker and waits until it answers.
    pub fn start() -> Kafka {
        Kafka::started(tempfile::tempdir().expect("a temporary folder"), (free_port(), free_port()), vec![])
    }

    /// The same, with a second listener at `localhost:<secure>` for those who trust the authority `ca.pem` of the folder, show `client.pem` and
    /// know a user's password (`create_user`).
    pub fn start_secure(secure: u16) -> Kafka {
        let (folder, (port, controller)) = (tempfile::tempdir().expect("a temporary folder"), (free_port(), free_port()));
        certificates(folder.path());
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a certificate");
        std::fs::write(folder.path().join("keystore.pem"), read("broker.key") + &read("broker.pem")).expect("a keystore is written");
        let settings = [
            format!("listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},SECURE://127.0.0.1:{secure}"),
            format!("advertised.listeners=PLAINTEXT://127.0.0.1:{port},SECURE://localhost:{secure}"),
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL".to_owned(),
            "listener.name.secure.sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512".to_owned(),
            format!("listener.name.secure.scram-sha-256.sasl.jaas.config={SCRAM}"),
            format!("listener.name.secure.scram-sha-512.sasl.jaas.config={SCRAM}"),
            "listener.name.secure.ssl.keystore.type=PEM".to_owned(),
            format!("listener.name.secure.ssl.keystore.location={}", folder.path().join("keystore.pem").display()),
            "listener.name.secure.ssl.truststore.type=PEM".to_owned(),
            format!("listener.name.secure.ssl.truststore.location={}", folder.path().join("ca.pem").display()),
            "listener.name.secure.ssl.client.auth=required".to_owned(),
        ];
        Kafka::started(folder, (port, controller), settings.into())
    }

    fn started(folder: TempDir, (port, controller): (u16, u16), settings: Vec<String>) -> Kafka {
        let child = serving(folder.path(), port, controller, &settings);
        let kafka = Kafka { port, controller, child, folder, settings };
        kafka.wait_until_it_answers();
        kafka
    }

    /// A file in the broker's folder.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Gives a user a password, for both kinds of SCRAM.
    pub fn create_user(&self, name: &str, password: &str) {
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let (address, of) = (self.address(), format!("{mechanism}=[password={password}]"));
            let who = ["--alter", "--entity-type", "users", "--entity-name", name, "--add-config", &of];
            let arguments = [&["kafka.admin.ConfigCommand", "--bootstrap-server", &address], &who[..]].concat();
            let output = tool(self.folder.path(), &arguments).output().expect("java starts");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
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
        self.child = serving(self.folder.path(), self.port, self.controller, &self.settings);
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
        self.consumed(topic, &["print.key=true"])
    }

    /// The same with the headers in front: `name:value`, parted by commas.
    pub fn committed_with_headers(&self, topic: &str) -> Vec<String> {
        self.consumed(topic, &["print.key=true", "print.headers=true"])
    }

    fn consumed(&self, topic: &str, shown: &[&str]) -> Vec<String> {
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
        ];
        let shown = shown.iter().flat_map(|property| ["--formatter-property", property]);
        let output = tool(self.folder.path(), &arguments).args(shown).output().expect("java starts");
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

/// The script is replaced by the broker, so the child is the broker itself.
fn serving(folder: &Path, port: u16, controller: u16, settings: &[String]) -> Child {
    let mut command = Command::new(crate::repository().join("tests/setup/kafka/broker.sh"));
    command.args([port.to_string(), controller.to_string()]).arg(folder).args(["auto.create.topics.enable=false"]).args(settings);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("bash starts");
    until("a broker that listens", LIMIT, || {
        let ended = child.try_wait().expect("a child of ours can be asked");
        assert!(ended.is_none(), "the broker ended: {ended:?} (tests/setup/install.sh installs java and fetches Apache Kafka)");
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    child
}

/// A tool of Apache Kafka with its arguments.
fn tool(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("java");
    command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.configurationFile=log4j2.xml", "-cp"]);
    command.arg(libraries().join("*")).args(arguments).current_dir(folder);
    command
}

/// Where `tests/setup/install.sh` puts Apache Kafka.
fn libraries() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"))).expect("HOME is set");
    cache.join("tidegate/tools/kafka")
}
