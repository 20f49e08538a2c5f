//! Those who do something all the time, each at a pace of his own, and when it was acknowledged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

/// A crowd that grows with [`Crowd::join`], until it is told to leave.
pub struct Crowd {
    /// Between two things that one of them does.
    pace: Duration,
    acknowledged: Arc<Mutex<Vec<Instant>>>,
    is_over: Arc<AtomicBool>,
    members: JoinSet<Result<()>>,
}

impl Crowd {
    /// Nobody yet.
    pub fn at_pace(pace: Duration) -> Self {
        Self { pace, acknowledged: Arc::default(), is_over: Arc::default(), members: JoinSet::new() }
    }

    /// One more, who does `act` again and again; true = that was acknowledged.
    pub fn join<F: Future<Output = Result<bool>> + Send>(
        &mut self,
        mut act: impl FnMut() -> F + Send + 'static,
    ) {
        let (acknowledged, is_over, pace) = (self.acknowledged.clone(), self.is_over.clone(), self.pace);
        self.members.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                if act().await? {
                    acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                }
                tokio::time::sleep(pace).await;
            }
            Ok(())
        });
    }

    /// How much was acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.times().len()
    }

    /// Whether something was within the last `moment`.
    pub fn goes_on(&self, moment: Duration) -> bool {
        self.times().last().is_some_and(|last| last.elapsed() < moment)
    }

    /// The longest time between two acknowledgements, the second of them after `happened`.
    pub fn longest_gap(&self, happened: Instant) -> Duration {
        let times = self.times();
        let gaps = times.windows(2).filter(|pair| pair[1] > happened).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or(Duration::MAX)
    }

    /// Lets everybody have his last answer.
    pub async fn leave(mut self) -> Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        while let Some(left) = self.members.join_next().await {
            left??;
        }
        Ok(())
    }

    fn times(&self) -> Vec<Instant> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_may_have_begun_before_it_happened() {
        let crowd = Crowd::at_pace(Duration::ZERO);
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        crowd.acknowledged.lock().unwrap().extend([0, 500, 600, 900, 1000].map(at));
        for (happened, gap) in [(0, 500), (550, 300), (950, 100)] {
            assert_eq!(crowd.longest_gap(at(happened)), Duration::from_millis(gap), "{happened}");
        }
        assert_eq!(crowd.longest_gap(at(1000)), Duration::MAX, "nothing since");
    }

    #[tokio::test]
    async fn it_leaves_with_what_it_could_not_do() {
        let mut crowd = Crowd::at_pace(Duration::from_millis(1));
        crowd.join(async || anyhow::bail!("no"));
        crowd.join(async || Ok(true));
        crate::wait_until("something is acknowledged", Duration::from_secs(5), async || {
            crowd.acknowledged() > 2 && crowd.goes_on(Duration::from_secs(5))
        })
        .await
        .unwrap();
        assert_eq!(crowd.leave().await.unwrap_err().to_string(), "no");
    }
}
