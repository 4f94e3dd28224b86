//! How far the partitions of a topic reach: for people who want to know how far a pipeline is behind.

use super::options::KafkaOptions;
use flow::{Error, Remedy, Result};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use std::time::Duration;

/// How long the brokers may take to answer.
const ASK: Duration = Duration::from_secs(5);

/// The offset behind the last record of each partition, in their order; none of one that is not there. It waits for brokers.
pub fn ends(options: &KafkaOptions, partitions: &[(String, i32)]) -> Result<Vec<Option<u64>>> {
    let consumer = client(options)?;
    let failed = |e| Error::stop("asking for the ends of partitions", e);
    // Who asks for one partition of a cluster that is away waits once, not for each.
    consumer.fetch_metadata(partitions.first().map(|(topic, _)| topic.as_str()), ASK).map_err(failed)?;
    let end = |(topic, partition): &(String, i32)| consumer.fetch_watermarks(topic, *partition, ASK).ok();
    Ok(partitions.iter().map(|of| end(of).and_then(|(_, high)| u64::try_from(high).ok())).collect())
}

/// All partitions of a source's topics with the offset behind their last record. It waits for brokers; a topic that is not there is an error.
pub fn reach(options: &KafkaOptions) -> Result<Vec<(String, i32, u64)>> {
    let consumer = client(options)?;
    let mut all = vec![];
    for topic in &options.topics {
        let failed = |e| Error::stop(format!("asking for topic {topic}"), e);
        let metadata = consumer.fetch_metadata(Some(topic), ASK).map_err(failed)?;
        let partitions: Vec<_> = metadata.topics().iter().filter(|of| of.name() == topic).flat_map(|of| of.partitions()).collect();
        if partitions.is_empty() {
            return Err(Error::new(Remedy::Stop, format!("topic {topic} is not there: nothing can be read of it")));
        }
        for partition in partitions {
            let (_, high) = consumer.fetch_watermarks(topic, partition.id(), ASK).map_err(failed)?;
            all.push((topic.clone(), partition.id(), u64::try_from(high).unwrap_or(0)));
        }
    }
    Ok(all)
}

fn client(options: &KafkaOptions) -> Result<BaseConsumer> {
    let config = options.connection().properties().map_err(|e| Error::stop(format!("{}: {}", e.path, e.message), e))?;
    config.create().map_err(|e| Error::stop("making a Kafka client", e))
}
