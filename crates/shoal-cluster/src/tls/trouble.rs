//! What kept two machines from talking to each other, in words that tell people what to do.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError, Error as TlsFailure};
use rustls_pki_types::UnixTime;
use shoal_model::units::moment;
use tonic::Status;

/// What [`clock_trouble`] says of this machine, whatever else is told.
pub const CLOCK_HERE: &str = "the clock here says";

/// Why a call has failed: what the other side has said, or what kept it from saying anything, of which the message of a status
/// tells no more than "transport error".
pub fn cause_of(status: &Status) -> String {
    status.source().map_or_else(|| status.message().to_owned(), deepest)
}

/// The cause at the bottom, where the operating system or TLS says what happened.
pub fn deepest(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    let text = error.to_string();
    let told = error.downcast_ref::<io::Error>().and_then(clock_trouble);
    told.or_else(|| of_alert_in(&text, UnixTime::now())).unwrap_or(text)
}

/// What to make of a handshake that has failed for the time of day, on this machine or on the other one; `None` = it has not.
pub fn clock_trouble(error: &io::Error) -> Option<String> {
    of_clocks(error.get_ref()?.downcast_ref::<TlsFailure>()?, UnixTime::now())
}

/// The same where HTTP/2 has kept nothing of an alert but its text.
fn of_alert_in(text: &str, now: UnixTime) -> Option<String> {
    let alert = TlsFailure::AlertReceived(AlertDescription::CertificateExpired);
    of_clocks(&alert, now).filter(|_| text.contains(&alert.to_string()))
}

fn of_clocks(failure: &TlsFailure, now: UnixTime) -> Option<String> {
    use CertificateError as C;
    let (what, now) = match failure {
        TlsFailure::InvalidCertificate(C::ExpiredContext { time, not_after }) => {
            (format!("its certificate has ended at {}", told(*not_after)), *time)
        }
        TlsFailure::InvalidCertificate(C::NotValidYetContext { time, not_before }) => {
            (format!("its certificate is good from {} on", told(*not_before)), *time)
        }
        TlsFailure::InvalidCertificate(C::Expired | C::NotValidYet) => {
            ("its certificate has ended, or is not good yet".to_owned(), now)
        }
        TlsFailure::AlertReceived(AlertDescription::CertificateExpired) => {
            ("by its clock the certificate of this side has ended, or is not good yet".to_owned(), now)
        }
        _ => return None,
    };
    Some(format!("{what}; {CLOCK_HERE} {}: is it right?", told(now)))
}

fn told(time: UnixTime) -> String {
    moment(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn what_only_clocks_explain_names_the_clock() {
        let check = |failure: TlsFailure, expected: Option<&str>| {
            let expected = expected
                .map(|what| format!("{what}; the clock here says 2026-03-01 12:34:56Z: is it right?"));
            assert_eq!(of_clocks(&failure, at(1_772_368_496)), expected, "{failure}");
        };
        let time = at(1_772_368_496);
        check(
            CertificateError::ExpiredContext { time, not_after: at(1_772_368_490) }.into(),
            Some("its certificate has ended at 2026-03-01 12:34:50Z"),
        );
        check(
            CertificateError::NotValidYetContext { time, not_before: at(1_772_454_896) }.into(),
            Some("its certificate is good from 2026-03-02 12:34:56Z on"),
        );
        for bare in [CertificateError::Expired, CertificateError::NotValidYet] {
            check(bare.into(), Some("its certificate has ended, or is not good yet"));
        }
        check(
            TlsFailure::AlertReceived(AlertDescription::CertificateExpired),
            Some("by its clock the certificate of this side has ended, or is not good yet"),
        );
        check(TlsFailure::AlertReceived(AlertDescription::UnknownCA), None);
        check(CertificateError::UnknownIssuer.into(), None);
    }

    #[test]
    fn the_bottom_is_told_and_an_alert_is_known_by_its_text() {
        let check = |error: io::Error, is_of_clocks: bool| {
            let told = deepest(&error);
            assert_eq!(told.contains(CLOCK_HERE), is_of_clocks, "{told}");
            assert!(is_of_clocks || told == error.to_string(), "{told}");
        };
        check(io::Error::other(TlsFailure::from(CertificateError::Expired)), true);
        check(io::Error::other("received fatal alert: CertificateExpired"), true);
        check(io::Error::other("received fatal alert: UnknownCA"), false);
        check(io::ErrorKind::ConnectionRefused.into(), false);
        assert_eq!(cause_of(&Status::not_found("no such node")), "no such node");
    }
}
