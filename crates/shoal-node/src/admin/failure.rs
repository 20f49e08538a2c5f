//! Errors as the CLI expects them: a gRPC code, one line, and the exit code it ends with.

use shoal_configlog::{ConfigLog, ProposeError};
use shoal_model::Revision;
use shoal_model::site::Problems;
use shoal_model::state::{OtherReply, Refusal};
pub use shoal_proto::Exit;
use shoal_proto::{EXIT_METADATA, REVISION_METADATA};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Problems of a site that are told.
const MAX_PROBLEMS: usize = 20;
/// Bytes of a reason: it goes into a field of the answer, whose whole head may not be longer than 16 KiB.
const MAX_REASON: usize = 4096;
/// Bytes of the id under which a request is done once.
pub const MAX_REQUEST_ID: usize = 64;

/// An error that ends the CLI with `exit`.
pub fn with_exit(code: Code, exit: Exit, message: impl Into<String>) -> Status {
    let mut message = message.into();
    if message.len() > MAX_REASON {
        message.truncate(message.floor_char_boundary(MAX_REASON));
        message.push_str(" …");
    }
    let mut status = Status::new(code, message);
    let digits = MetadataValue::from(exit as u16);
    status.metadata_mut().insert(EXIT_METADATA, digits);
    status
}

/// The same error, which is about `revision`.
pub fn with_revision(mut status: Status, revision: Revision) -> Status {
    status.metadata_mut().insert(REVISION_METADATA, MetadataValue::from(revision.0));
    status
}

/// The site is wrong.
pub fn site(problems: &Problems) -> Status {
    with_exit(Code::InvalidArgument, Exit::Local, problems.lines(MAX_PROBLEMS).join("\n"))
}

/// The log did not take a command.
pub fn propose(error: ProposeError) -> Status {
    match error {
        ProposeError::NoQuorum { .. } => with_exit(Code::Unavailable, Exit::NoQuorum, error.to_string()),
        ProposeError::Broken { .. } | ProposeError::Diverged { .. } => {
            with_exit(Code::Unavailable, Exit::Remote, error.to_string())
        }
        ProposeError::OutOfSpace { .. } => {
            with_exit(Code::ResourceExhausted, Exit::Remote, error.to_string())
        }
        ProposeError::NotFinalized { .. } => {
            with_exit(Code::FailedPrecondition, Exit::Remote, error.to_string())
        }
        _ => with_exit(Code::Aborted, Exit::Remote, error.to_string()),
    }
}

/// Refuses what only the log can tell, where this node has none: an empty one would be a wrong answer.
pub fn check_log(log: &ConfigLog) -> Result<(), Status> {
    match log.status().broken {
        reason if reason.is_empty() => Ok(()),
        reason => Err(propose(ProposeError::Broken { reason })),
    }
}

/// The replicated state said no.
pub fn refusal(refusal: &Refusal) -> Status {
    let status = |exit| with_exit(Code::FailedPrecondition, exit, refusal.to_string());
    match refusal {
        Refusal::RevisionConflict { active: revision, .. }
        | Refusal::Unconfirmed(revision)
        | Refusal::NotUnconfirmed(revision)
        | Refusal::NotInWaves(revision)
        | Refusal::WaveOver { revision, .. } => with_revision(status(Exit::Conflict), *revision),
        Refusal::Quarantined { revision, .. } => with_revision(status(Exit::Local), *revision),
        Refusal::Succession | Refusal::LastVoter => status(Exit::Local),
        _ => status(Exit::Remote),
    }
}

/// Nobody can be shown or given back what is not kept.
pub fn no_such_revision(revision: Revision) -> Status {
    let why = format!("revision {revision} is not stored (any more); `shoal history` lists those that are");
    with_revision(with_exit(Code::NotFound, Exit::Local, why), revision)
}

/// What is kept for long has to be short.
pub fn check_length(what: &str, text: &str, max_bytes: usize) -> Result<(), Status> {
    if text.len() <= max_bytes {
        return Ok(());
    }
    let why = format!("{what} has {} bytes; at most {max_bytes} are kept", text.len());
    Err(with_exit(Code::InvalidArgument, Exit::Local, why))
}

/// The replicated state said no, or something else than it was asked.
pub fn reply(other: OtherReply) -> Status {
    match other {
        OtherReply::Refused(why) => refusal(&why),
        OtherReply::Stray => with_exit(Code::Internal, Exit::Remote, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use shoal_model::site::Problem;

    use super::*;

    #[test]
    fn reasons_fit_into_the_head_of_an_answer() {
        let problems = |count: usize, text: &str| Problems(vec![Problem::at("routes.r", text); count]);
        let told = |count, text: &str| site(&problems(count, text)).message().to_owned();
        assert_eq!(told(2, "no"), "routes.r: no\nroutes.r: no");
        assert!(told(1_000, "no").ends_with("routes.r: no\n… and 980 more"));
        let long = told(50, &"ö".repeat(1_000));
        assert!(long.len() < MAX_REASON + 8 && long.ends_with("ö …"), "{} bytes", long.len());
    }

    #[test]
    fn a_refusal_says_which_revision_it_is_about() {
        let conflict = Refusal::RevisionConflict { expected: Revision(7), active: Revision(8) };
        let quarantined = Refusal::Quarantined { revision: Revision(4), why: "it did harm".to_owned() };
        for (status, exit, revision) in [
            (refusal(&conflict), "4", Some("8")),
            (refusal(&Refusal::Unconfirmed(Revision(9))), "4", Some("9")),
            (refusal(&quarantined), "1", Some("4")),
            (refusal(&Refusal::Succession), "1", None),
            (refusal(&Refusal::UploadIncomplete), "2", None),
            (no_such_revision(Revision(3)), "1", Some("3")),
        ] {
            let told = |key: &str| status.metadata().get(key).map(|value| value.to_str().unwrap());
            assert_eq!((told(EXIT_METADATA), told(REVISION_METADATA)), (Some(exit), revision), "{status}");
        }
    }

    #[test]
    fn what_is_too_long_is_refused_as_a_mistake_of_the_caller() {
        assert!(check_length("the message", "short", 5).is_ok());
        let status = check_length("the message", "longer", 5).unwrap_err();
        assert_eq!(status.metadata().get(EXIT_METADATA).unwrap(), "1");
        assert_eq!(status.message(), "the message has 6 bytes; at most 5 are kept");
    }
}
