//! What was said of an endpoint lately, so that it is not said with every request.

use std::sync::{Mutex, PoisonError};

use shoal_policy::health::Reason;

/// How long nothing is said twice, ms.
const SILENCE_MS: u64 = 60_000;

/// When which reason was complained of last, ms: a row for each that ever was.
#[derive(Debug, Default)]
pub(crate) struct Complaints(Mutex<Vec<(Reason, u64)>>);

impl Complaints {
    /// Whether it is time to say `reason` again.
    pub(crate) fn are_due(&self, reason: Reason, now_ms: u64) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match said.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, at_ms)) if now_ms.saturating_sub(*at_ms) < SILENCE_MS => return false,
            Some((_, at_ms)) => *at_ms = now_ms,
            None => said.push((reason, now_ms)),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_once_a_minute() {
        let complaints = Complaints::default();
        for (reason, now_ms, due) in [
            (Reason::TlsWrongName, 5, true),
            (Reason::TlsWrongName, 60_004, false),
            (Reason::TlsWrongPin, 60_004, true),
            (Reason::TlsWrongName, 60_005, true),
            (Reason::TlsWrongName, 60_006, false),
            (Reason::TlsWrongPin, 120_003, false),
        ] {
            assert_eq!(complaints.are_due(reason, now_ms), due, "{reason:?} at {now_ms}");
        }
    }
}
