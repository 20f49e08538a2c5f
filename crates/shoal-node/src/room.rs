//! Waiting for what the log brings, unless there is no room for it.

use std::time::Duration;

use crate::node::Node;

/// After so long without room a log brings nothing soon: whoever waits for it is told.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Node {
    /// Resolves once the log of this node has waited for room on its disk for so long: what it says.
    pub(crate) async fn lacks_room_for(&self, at_least: Duration) -> String {
        loop {
            if let Some(why) = self.log.lacks_room_for(at_least) {
                return why;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// What is waited for, or why there is no room for it, whichever comes first.
pub(crate) async fn unless_full<T>(
    waiting: impl Future<Output = T>,
    full: impl Future<Output = String>,
) -> Result<T, String> {
    tokio::select! {
        biased;
        answer = waiting => Ok(answer),
        why = full => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn who_has_no_room_is_not_waited_for() {
        let full = || "no room".to_owned();
        assert_eq!(unless_full(ready(7), pending()).await, Ok(7));
        assert_eq!(unless_full(ready(7), ready(full())).await, Ok(7));
        assert_eq!(unless_full(pending::<u8>(), ready(full())).await, Err(full()));
    }
}
