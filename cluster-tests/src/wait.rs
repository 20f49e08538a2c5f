//! Waiting for something to become true, or for as long as it has to stay so: the only waiting in the stories.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `look` says true; after `deadline` it fails with `what` in the message.
pub async fn wait_until<F: AsyncFnMut() -> bool>(
    what: &str,
    deadline: Duration,
    mut look: F,
) -> Result<Duration> {
    let since = Instant::now();
    wait_until_some(what, deadline, async || look().await.then_some(())).await?;
    Ok(since.elapsed())
}

/// Looks until `look` has something to show, and returns it.
pub async fn wait_until_some<T, F: AsyncFnMut() -> Option<T>>(
    what: &str,
    deadline: Duration,
    mut look: F,
) -> Result<T> {
    let since = Instant::now();
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if since.elapsed() > deadline {
            bail!("not within {deadline:?}: {what}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Looks until `end`, and fails as soon as `look` says false: nothing may come of a time that passes.
pub async fn stays_so<F: AsyncFnMut() -> bool>(what: &str, end: Instant, mut look: F) -> Result<()> {
    loop {
        let is_over = Instant::now() >= end;
        ensure!(look().await, "not until the end: {what}");
        if is_over {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_ends_with_the_predicate_or_the_deadline() {
        let mut looks = 0;
        wait_until("three looks", Duration::from_secs(5), async || {
            looks += 1;
            looks == 3
        })
        .await
        .unwrap();
        assert_eq!(looks, 3);
        let error = wait_until("never", Duration::ZERO, async || false).await.unwrap_err();
        assert_eq!(error.to_string(), "not within 0ns: never");
    }

    #[tokio::test]
    async fn it_stays_so_until_the_end_or_fails() {
        let end = Instant::now() + Duration::from_millis(50);
        stays_so("always", end, async || true).await.unwrap();
        assert!(Instant::now() >= end);
        let mut looks = 0;
        let error = stays_so("twice", Instant::now() + Duration::from_secs(5), async || {
            looks += 1;
            looks < 3
        });
        assert_eq!(error.await.unwrap_err().to_string(), "not until the end: twice");
    }
}
