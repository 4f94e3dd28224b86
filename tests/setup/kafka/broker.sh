#!/usr/bin/env bash
# An Apache Kafka broker (KRaft, one node) in the foreground: broker.sh PORT CONTROLLER_PORT FOLDER [SETTING=VALUE ...]
# Its data and log lie in FOLDER; what is there goes on.
set -euo pipefail
port=$1 controller=$2 folder=$3
shift 3
libraries=${XDG_CACHE_HOME:-$HOME/.cache}/tidegate/tools/kafka
if [ ! -d "$libraries" ]; then
  echo "broker: $libraries is missing: tests/setup/install.sh fetches Apache Kafka" >&2
  exit 1
fi
mkdir -p "$folder"
cd "$folder"
cat > server.properties <<SETTINGS
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
log.dirs=data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.consumer.min.session.timeout.ms=6000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=500
SETTINGS
printf '%s\n' "$@" >> server.properties
cat > log4j2.xml <<'LOG'
<Configuration status="WARN">
  <Appenders><File name="file" fileName="server.log"><PatternLayout pattern="%d %p %m%n"/></File></Appenders>
  <Loggers><Root level="info"><AppenderRef ref="file"/></Root></Loggers>
</Configuration>
LOG
java=(java -Xmx400m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile=log4j2.xml -cp "$libraries/*")
if [ ! -d data ]; then
  "${java[@]}" kafka.tools.StorageTool format --cluster-id AAAAAAAAAAAAAAAAAAAAAQ --config server.properties > /dev/null
fi
exec "${java[@]}" kafka.Kafka server.properties
