//! Between lanes and their second stage where processes share them: what is elsewhere is known by its records, which are read again and again.
//!
//! The stage is where the first partition of the source's first topic is, so it goes to another process with that. There, the records of all lanes
//! elsewhere feed it as those of its own process do. Here, its record says what it has taken and when it would act next.

use crate::run::handles::Handles;
use crate::run::outlets::{Outlets, TIMER};
use flow::{EventTime, Lane, Result};
use std::sync::Arc;
use std::time::Duration;
use storage::epoch::{EpochStore as _, LocalEpochs};
use tokio_util::sync::CancellationToken;

/// See the page.
#[derive(Clone)]
pub(crate) struct Liaison {
    pub(crate) epochs: LocalEpochs,
    pub(crate) outlets: Arc<Outlets>,
    /// The lanes of this process.
    pub(crate) here: Handles,
    /// What the names of all lanes of the source begin with.
    pub(crate) stem: String,
    /// The lane of the second stage.
    pub(crate) stage: Lane,
}

impl Liaison {
    /// Looks every so often until it is stopped. What cannot be read now can be later.
    pub(crate) async fn run(self, every: Duration, stop: CancellationToken) {
        let this = Arc::new(self);
        while !stop.is_cancelled() {
            let looking = this.clone();
            match tokio::task::spawn_blocking(move || looking.look()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(stage = %this.stage.0, %error, "the records of other instances cannot be read now"),
                Err(error) => tracing::error!(%error, "a look at the records of other instances broke off"),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(every) => {}
            }
        }
    }

    fn look(&self) -> Result<()> {
        if self.here.get(&self.stage).is_some() { self.feed() } else { self.follow() }
    }

    /// Tells the stage, which is here, what the lanes elsewhere have sealed.
    pub(crate) fn feed(&self) -> Result<()> {
        let is_fed = |name: &String| name.starts_with(&self.stem) && **name != *self.stage.0;
        for name in self.epochs.lanes()?.into_iter().filter(is_fed) {
            if self.here.get(&Lane(name.as_str().into())).is_none()
                && let Some(newest) = self.epochs.newest_of_another(&name)?
            {
                self.outlets.tell(name, newest.whole);
            }
        }
        Ok(())
    }

    /// Tells the lanes here how far the stage is, which is elsewhere.
    fn follow(&self) -> Result<()> {
        let Some(newest) = self.epochs.newest_of_another(&self.stage.0)? else { return Ok(()) };
        self.outlets.reached(&newest.whole.positions);
        let timer = newest.whole.counters.get(TIMER).copied().filter(|timer| *timer > 0);
        self.outlets.want(timer.map(|timer| EventTime(timer as i64)));
        Ok(())
    }
}
