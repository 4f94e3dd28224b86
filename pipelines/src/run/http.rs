//! The HTTP sources of a pipeline, as the gateway sees them.

use crate::plan::Plan;
use crate::run::files;
use crate::spec::Source;
use async_trait::async_trait;
use flow::Result;
use gateway::ingest::{Ingest, NotTaken, Reject, Sent, Taken};
use ingest::http::{HttpSource, Intake, Receipt, Refusal, Request, messages};
use std::collections::BTreeMap;

/// The ways in, by the name of the source.
#[derive(Clone, Default)]
pub(crate) struct Intakes(pub(crate) BTreeMap<String, Intake>);

#[async_trait]
impl Ingest for Intakes {
    fn max_body(&self, source: &str) -> Option<usize> {
        self.0.get(source).map(Intake::max_body)
    }

    async fn take(&self, source: &str, sent: Sent) -> std::result::Result<Taken, NotTaken> {
        let intake = self.0.get(source).ok_or(NotTaken::NoSource)?;
        let messages = messages(sent.content_type.as_deref(), &sent.body);
        let request = Request { topic: sent.topic.into(), messages, key: sent.key, trace: sent.trace.map(Into::into) };
        intake.take(request).await.map(taken).map_err(|refusal| match refusal {
            Refusal::Busy => NotTaken::Busy,
            Refusal::Stopping => NotTaken::Stopping,
        })
    }
}

fn taken(receipt: Receipt) -> Taken {
    let rejects: Vec<_> =
        receipt.refused.into_iter().map(|r| Reject { message: r.message, reason: r.reason.as_str(), detail: r.detail }).collect();
    Taken { accepted: receipt.accepted, rejected: rejects.len() as u64, rejects, duplicate: receipt.duplicate }
}

/// The HTTP sources, each with its number.
pub(crate) fn sources(plan: &Plan) -> Result<Vec<(usize, HttpSource)>> {
    let mut sources: Vec<(usize, HttpSource)> = vec![];
    for (index, source) in plan.sources.iter().enumerate() {
        let Source::Http(options) = &source.kind else { continue };
        let source = HttpSource {
            name: source.name.as_str().into(),
            producer: source.producers().start,
            options: options.clone(),
            decoder: files::decoder(source)?,
            key: source.key_columns.clone(),
            lanes: plan.lanes,
            max_message: usize::try_from(source.max_message).unwrap_or(usize::MAX),
            max_future: source.watermark.max_future.0,
        };
        sources.push((index, source));
    }
    Ok(sources)
}
