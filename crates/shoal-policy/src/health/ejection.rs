//! Ejection of an endpoint by what this node's own traffic shows there: it wins at once over what checkers say.

use shoal_model::view::PassiveView;

/// A trial request that was never answered for is forgotten after this long, and another one may go.
const TRIAL_TIMEOUT_MS: u64 = 60_000;

/// How a request to the endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered.
    Success,
    /// It answered 502, 503 or 504, or what is no HTTP.
    GatewayError,
    /// Nothing came of it: it could not be connected to, reset the connection, or took too long.
    LocalFailure,
    /// It answered with another 5xx, and the upstream ejects for those.
    ServerError,
}

/// What an outcome changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EjectionChange {
    /// Not to be used any more.
    Ejected,
    /// To be used again.
    Readmitted,
}

/// Whether a request may go to the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admittance {
    /// Yes.
    Open,
    /// This one alone, to find out; see [`Ejection::begin_trial`].
    Trial,
    /// No.
    Closed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    Ejected {
        until_ms: u64,
    },
    OnTrial {
        give_up_at_ms: u64,
    },
}

/// One endpoint as this node's traffic sees it. Errors in a row eject it for the base time × the number of ejections in
/// a row; then one request is let through, and only its success ends the ejection: a green probe is not enough. Times
/// are milliseconds of any clock that does not go back.
#[derive(Clone, Debug, Default)]
pub struct Ejection {
    phase: Phase,
    /// Local failures included.
    errors_in_a_row: u32,
    local_failures_in_a_row: u32,
    /// Gateway errors and local failures included.
    server_errors_in_a_row: u32,
    ejections_in_a_row: u32,
    readmitted_at_ms: u64,
}

impl Ejection {
    /// Whether it is out, on trial included.
    pub fn is_ejected(&self) -> bool {
        self.phase != Phase::Open
    }

    /// Whether a request may go there now.
    pub fn admittance(&self, now_ms: u64) -> Admittance {
        match self.phase {
            Phase::Open => Admittance::Open,
            Phase::Ejected { until_ms } if now_ms >= until_ms => Admittance::Trial,
            Phase::OnTrial { give_up_at_ms } if now_ms >= give_up_at_ms => Admittance::Trial,
            Phase::Ejected { .. } | Phase::OnTrial { .. } => Admittance::Closed,
        }
    }

    /// Claims the trial that [`Ejection::admittance`] offered; `false` = somebody else has it. Whoever claims it must
    /// report an [`Outcome`], or call [`Ejection::abandon_trial`].
    pub fn begin_trial(&mut self, now_ms: u64) -> bool {
        let offered = self.admittance(now_ms) == Admittance::Trial;
        if offered {
            self.phase = Phase::OnTrial { give_up_at_ms: now_ms + TRIAL_TIMEOUT_MS };
        }
        offered
    }

    /// The trial proved nothing (the downstream went away): another request may try.
    pub fn abandon_trial(&mut self, now_ms: u64) {
        if matches!(self.phase, Phase::OnTrial { .. }) {
            self.phase = Phase::Ejected { until_ms: now_ms };
        }
    }

    /// Takes in how a request ended. `may_eject` says whether the upstream can spare one more endpoint, see
    /// [`may_eject`].
    pub fn record(
        &mut self,
        outcome: Outcome,
        now_ms: u64,
        rule: &PassiveView,
        may_eject: bool,
    ) -> Option<EjectionChange> {
        match (self.phase, outcome) {
            (Phase::Open, Outcome::Success) => {
                self.forget_errors();
                None
            }
            (Phase::Open, Outcome::GatewayError | Outcome::LocalFailure | Outcome::ServerError) => {
                self.count(outcome);
                let enough = reaches(self.errors_in_a_row, rule.consecutive_errors)
                    || reaches(self.local_failures_in_a_row, rule.consecutive_local_failures)
                    || reaches(self.server_errors_in_a_row, rule.consecutive_5xx);
                (enough && may_eject).then(|| {
                    self.eject(now_ms, rule);
                    EjectionChange::Ejected
                })
            }
            // Requests that were under way when it was ejected.
            (Phase::Ejected { .. }, _) => None,
            (Phase::OnTrial { .. }, Outcome::Success) => {
                self.phase = Phase::Open;
                self.forget_errors();
                self.readmitted_at_ms = now_ms;
                Some(EjectionChange::Readmitted)
            }
            (Phase::OnTrial { .. }, Outcome::GatewayError | Outcome::LocalFailure | Outcome::ServerError) => {
                self.eject(now_ms, rule);
                None
            }
        }
    }

    /// Takes in that it stands out among the others, see [`super::outliers`].
    pub fn record_outlier(
        &mut self,
        now_ms: u64,
        rule: &PassiveView,
        may_eject: bool,
    ) -> Option<EjectionChange> {
        (self.phase == Phase::Open && may_eject).then(|| {
            self.eject(now_ms, rule);
            EjectionChange::Ejected
        })
    }

    fn count(&mut self, error: Outcome) {
        let next = |count: u32, counts: bool| if counts { count.saturating_add(1) } else { 0 };
        let is_local = error == Outcome::LocalFailure;
        self.local_failures_in_a_row = next(self.local_failures_in_a_row, is_local);
        self.errors_in_a_row = next(self.errors_in_a_row, is_local || error == Outcome::GatewayError);
        self.server_errors_in_a_row = next(self.server_errors_in_a_row, true);
    }

    fn eject(&mut self, now_ms: u64, rule: &PassiveView) {
        let base_ms = rule.base_ejection.as_millis() as u64;
        let longest_ms = rule.max_ejection.as_millis() as u64;
        let behaved_for_ms = now_ms.saturating_sub(self.readmitted_at_ms);
        if self.phase == Phase::Open && behaved_for_ms > longest_ms {
            self.ejections_in_a_row = 0;
        }
        self.ejections_in_a_row = self.ejections_in_a_row.saturating_add(1);
        let ejection_ms = base_ms.saturating_mul(u64::from(self.ejections_in_a_row)).min(longest_ms);
        self.phase = Phase::Ejected { until_ms: now_ms.saturating_add(ejection_ms) };
        self.forget_errors();
    }

    fn forget_errors(&mut self) {
        self.errors_in_a_row = 0;
        self.local_failures_in_a_row = 0;
        self.server_errors_in_a_row = 0;
    }
}

/// `errors` are as many as `limit` allows, unless that is 0.
const fn reaches(errors: u32, limit: u32) -> bool {
    limit > 0 && errors >= limit
}

/// Whether one more of `total` endpoints may be ejected when `ejected` are already: never more than
/// `max_ejected_percent`, so the last one always stays.
pub const fn may_eject(ejected: usize, total: usize, max_ejected_percent: u8) -> bool {
    (ejected + 1) * 100 <= total * max_ejected_percent as usize && ejected + 1 < total
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rule() -> PassiveView {
        PassiveView {
            consecutive_errors: 3,
            consecutive_5xx: 4,
            consecutive_local_failures: 2,
            success_rate: None,
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(75),
            max_ejected_percent: 50,
        }
    }

    /// Each step: second, event, what comes of it. `ok`/`err` report outcomes, `try` claims a trial, `drop` abandons it,
    /// `may` asks for admittance.
    fn check(script: &[(u64, &str, &str)]) {
        let mut ejection = Ejection::default();
        for (step, (second, event, expected)) in script.iter().enumerate() {
            let now_ms = second * 1000;
            let mut record = |outcome, spare| match ejection.record(outcome, now_ms, &rule(), spare) {
                None => "-",
                Some(EjectionChange::Ejected) => "ejected",
                Some(EjectionChange::Readmitted) => "readmitted",
            };
            let seen = match *event {
                "ok" => record(Outcome::Success, true),
                "5xx" => record(Outcome::ServerError, true),
                "err" => record(Outcome::GatewayError, true),
                "err, none to spare" => record(Outcome::GatewayError, false),
                "local" => record(Outcome::LocalFailure, true),
                "outlier" => match ejection.record_outlier(now_ms, &rule(), true) {
                    Some(EjectionChange::Ejected) => "ejected",
                    Some(EjectionChange::Readmitted) | None => "-",
                },
                "outlier, none to spare" => {
                    assert_eq!(ejection.record_outlier(now_ms, &rule(), false), None);
                    "-"
                }
                "try" => {
                    if ejection.begin_trial(now_ms) {
                        "claimed"
                    } else {
                        "taken"
                    }
                }
                "drop" => {
                    ejection.abandon_trial(now_ms);
                    "-"
                }
                _ => match ejection.admittance(now_ms) {
                    Admittance::Open => "open",
                    Admittance::Trial => "trial",
                    Admittance::Closed => "closed",
                },
            };
            assert_eq!(seen, *expected, "step {step}: {event} at {second} s");
        }
    }

    #[test]
    fn errors_in_a_row_eject_and_one_good_request_readmits() {
        check(&[
            (0, "err", "-"),
            (0, "err", "-"),
            (0, "ok", "-"),
            (0, "err", "-"),
            (0, "err", "-"),
            (0, "err", "ejected"),
            (1, "may", "closed"),
            (1, "ok", "-"),
            (29, "may", "closed"),
            (30, "may", "trial"),
            (30, "try", "claimed"),
            (30, "try", "taken"),
            (30, "may", "closed"),
            (31, "ok", "readmitted"),
            (31, "may", "open"),
        ]);
    }

    #[test]
    fn each_failed_trial_lasts_longer_up_to_the_limit() {
        check(&[
            (0, "err", "-"),
            (0, "err", "-"),
            (0, "err", "ejected"),
            (30, "try", "claimed"),
            (30, "err", "-"),
            (89, "may", "closed"),
            (90, "try", "claimed"),
            (90, "err", "-"),
            (164, "may", "closed"),
            (165, "may", "trial"),
            (165, "try", "claimed"),
            (165, "ok", "readmitted"),
            // Soon again: still counted on.
            (170, "err", "-"),
            (170, "err", "-"),
            (170, "err", "ejected"),
            (244, "may", "closed"),
            (245, "try", "claimed"),
            (245, "ok", "readmitted"),
            // It behaved for long enough: the count starts anew.
            (400, "err", "-"),
            (400, "err", "-"),
            (400, "err", "ejected"),
            (429, "may", "closed"),
            (430, "may", "trial"),
        ]);
    }

    #[test]
    fn server_errors_count_by_themselves_and_gateway_errors_with_them() {
        check(&[
            (0, "5xx", "-"),
            (0, "5xx", "-"),
            (0, "ok", "-"),
            (0, "err", "-"),
            (0, "err", "-"),
            (0, "5xx", "-"),
            (0, "err", "ejected"),
            (1, "5xx", "-"),
            (30, "try", "claimed"),
            (30, "5xx", "-"),
            (89, "may", "closed"),
            (90, "try", "claimed"),
            (90, "ok", "readmitted"),
        ]);
    }

    #[test]
    fn local_failures_count_by_themselves_and_among_the_others() {
        check(&[(0, "local", "-"), (0, "err", "-"), (0, "local", "ejected")]);
        check(&[(0, "local", "-"), (0, "5xx", "-"), (0, "local", "-"), (0, "local", "ejected")]);
        check(&[(0, "local", "-"), (0, "ok", "-"), (0, "local", "-"), (0, "local", "ejected")]);
        check(&[(0, "local", "-"), (0, "5xx", "-"), (0, "5xx", "-"), (0, "local", "ejected")]);
    }

    #[test]
    fn outliers_go_the_same_way() {
        check(&[
            (0, "outlier, none to spare", "-"),
            (0, "may", "open"),
            (0, "outlier", "ejected"),
            (1, "outlier", "-"),
            (29, "may", "closed"),
            (30, "try", "claimed"),
            (30, "outlier", "-"),
            (30, "ok", "readmitted"),
            (31, "outlier", "ejected"),
            (90, "may", "closed"),
            (91, "may", "trial"),
        ]);
    }

    #[test]
    fn lost_trials_do_not_shut_it_out_for_ever() {
        check(&[
            (0, "err", "-"),
            (0, "err", "-"),
            (0, "err", "ejected"),
            (30, "try", "claimed"),
            (40, "drop", "-"),
            (40, "may", "trial"),
            (40, "try", "claimed"),
            (99, "may", "closed"),
            (100, "may", "trial"),
        ]);
    }

    #[test]
    fn stays_while_none_can_be_spared() {
        check(&[
            (0, "err, none to spare", "-"),
            (0, "err, none to spare", "-"),
            (0, "err, none to spare", "-"),
            (0, "may", "open"),
            (1, "err", "ejected"),
        ]);
    }

    #[test]
    fn never_ejects_more_than_the_share() {
        let check = |ejected, total, percent, expected| {
            assert_eq!(may_eject(ejected, total, percent), expected, "{ejected}/{total} at {percent} %");
        };
        check(0, 0, 50, false);
        check(0, 1, 50, false);
        check(0, 2, 50, true);
        check(1, 2, 50, false);
        check(0, 3, 50, true);
        check(1, 3, 50, false);
        check(1, 4, 50, true);
        check(0, 1, 100, false);
        check(1, 3, 100, true);
        check(2, 3, 100, false);
        check(0, 10, 0, false);
    }
}
