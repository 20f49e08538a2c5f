//! What a node's refusal means, and what to type next.

use std::error::Error;
use std::fmt::Display;

use shoal_cluster::tls::CLOCK_HERE;
use shoal_proto::{EXIT_METADATA, NODE_METADATA, REVISION_METADATA};
use tonic::{Code, Status};

use super::Target;
use super::connector::OTHER_AUTHORITY;
use crate::failure::{Exit, Failure};

/// The connection broke before an answer, as opposed to a node that answered "unavailable".
pub(super) fn was_lost(status: &Status) -> bool {
    let broken =
        matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal);
    broken && !status.metadata().contains_key(EXIT_METADATA) && status.source().is_some()
}

/// The failure that the answer of the node at `asked` is.
pub(super) fn refusal(verb: &str, asked: impl Display, status: &Status) -> Failure {
    let sent = |key: &str| status.metadata().get(key).and_then(|value| value.to_str().ok());
    let exit = sent(EXIT_METADATA).and_then(|code| code.parse().ok());
    let exit = exit.and_then(Exit::from_code).filter(|exit| *exit != Exit::Done).unwrap_or(Exit::Remote);
    let why = match (status.code(), status.message()) {
        (Code::Unimplemented, _) => {
            "this node does not know the verb: it runs another version, or this is not its --admin-addr"
                .to_owned()
        }
        (code, "") => code.description().to_ascii_lowercase(),
        (_, message) => message.to_owned(),
    };
    let node = sent(NODE_METADATA).map_or_else(|| asked.to_string(), str::to_owned);
    let revision = sent(REVISION_METADATA).and_then(|revision| revision.parse().ok());
    let failure = Failure::new(exit, verb, why).of_node(node, revision);
    match exit {
        // What is in the way is another change, not the state that this one was made for.
        Exit::Conflict if status.code() == Code::AlreadyExists => {
            failure.try_command("shoal rollout status, then shoal confirm, or shoal abort")
        }
        Exit::Conflict if matches!(verb, "confirm" | "abort") || verb.starts_with("rollout ") => {
            failure.try_command("shoal history")
        }
        Exit::Conflict if matches!(verb, "set" | "delete" | "edit") => {
            failure.try_command("shoal history, then shoal get KIND/NAME, and change that")
        }
        Exit::Conflict => failure.try_command("shoal history, then shoal plan -f FILE"),
        Exit::NoQuorum => failure.try_command("shoal status, and start the voters that are dead"),
        Exit::Local if status.code() == Code::FailedPrecondition => match verb {
            "apply" | "set" | "delete" | "edit" | "rollback" | "node drain" | "node cordon"
            | "upgrade hold" | "cluster node-life" => {
                failure.try_command(format!("shoal {verb} --force, if that is meant"))
            }
            _ => failure.try_command(overview(verb)),
        },
        Exit::Local if status.code() == Code::NotFound => failure.try_command(overview(verb)),
        Exit::Local => failure.try_command(format!("shoal {verb} --help")),
        _ if status.code() == Code::PermissionDenied => {
            failure.try_command("shoal --identity FILE, of somebody who may: shoal operator create --help")
        }
        _ => failure.try_command("shoal status"),
    }
}

/// Somebody was asked and is lost; what others say after that is true of them alone.
pub(super) fn may_be_done(verb: &str, lost: &str, failure: &Failure) -> Failure {
    let why = format!("{lost}: it may have been done; after that: {}", failure.why);
    Failure { source: failure.source.clone(), ..Failure::new(Exit::Remote, verb, why) }
        .try_command("shoal history, or shoal audit, before it is done again")
}

/// The verb that lists what was asked for and is not there.
fn overview(verb: &str) -> &'static str {
    match verb {
        "get" | "export" | "diff" | "rollback" | "confirm" | "abort" => "shoal history",
        "set" | "delete" | "edit" => "shoal get",
        "health" => "shoal health",
        "node remove" | "node revoke" | "node describe" | "node drain" | "node undrain" | "node cordon"
        | "node uncordon" | "node promote" | "node demote" => "shoal node list",
        "token revoke" => "shoal token list",
        "cluster rotate ca" => "shoal cluster keys",
        _ => "shoal status",
    }
}

/// What to do when nobody could be reached, by what the system said.
pub(super) fn way_in(verb: &str, first: Option<&Target>, why: &str) -> String {
    match first {
        _ if why.contains("Permission denied") => {
            format!("sudo shoal {verb}, or as the user who runs the node")
        }
        Some(Target::Address(_)) if why.contains(OTHER_AUTHORITY) => {
            "shoal operator renew FILE on a node, over its socket, if the authority was replaced".to_owned()
        }
        Some(Target::Address(_)) if why.contains(CLOCK_HERE) => {
            "date -u here and there; shoal operator renew FILE on a node, over its socket, if the identity has ended"
                .to_owned()
        }
        Some(Target::Address(_)) => {
            format!("shoal --addr HOST:7401 {verb}, with the --admin-addr of a node that runs")
        }
        Some(Target::Socket(_)) | None => {
            format!("shoal --socket DIR/admin.sock {verb}, with the --data-dir of a node that runs")
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataMap;

    use super::*;
    use crate::failure::Source;

    fn check(code: Code, exit: Option<&str>, expected: Exit) {
        let mut metadata = MetadataMap::new();
        if let Some(exit) = exit {
            metadata.insert(EXIT_METADATA, exit.parse().unwrap());
        }
        let status = Status::with_metadata(code, "because", metadata);
        let failure = refusal("apply", "a:1", &status);
        assert_eq!((failure.exit, failure.why.as_str()), (expected, "because"), "{code:?} {exit:?}");
    }

    #[test]
    fn refusals_end_as_the_node_says() {
        check(Code::Aborted, Some("4"), Exit::Conflict);
        check(Code::Unavailable, Some("6"), Exit::NoQuorum);
        check(Code::InvalidArgument, Some("1"), Exit::Local);
        check(Code::Internal, None, Exit::Remote);
        check(Code::Internal, Some("0"), Exit::Remote);
        check(Code::Internal, Some("99"), Exit::Remote);
    }

    #[test]
    fn a_refusal_says_who_answered_and_of_which_revision() {
        let check = |sent: &[(&'static str, &'static str)], node: &str, revision| {
            let mut metadata = MetadataMap::new();
            for (key, value) in sent {
                metadata.insert(*key, value.parse().unwrap());
            }
            let failure = refusal("apply", "a:1", &Status::with_metadata(Code::Aborted, "because", metadata));
            assert_eq!(failure.source.as_deref(), Some(&Source { node: node.to_owned(), revision }));
            let unsure = may_be_done("apply", "a:1 was lost", &failure);
            assert_eq!(unsure.source, failure.source);
        };
        check(&[], "a:1", None);
        check(&[(NODE_METADATA, "n1")], "n1", None);
        check(&[(NODE_METADATA, "n1"), (REVISION_METADATA, "8")], "n1", Some(8));
        check(&[(REVISION_METADATA, "many")], "a:1", None);
    }

    #[test]
    fn a_failure_says_what_to_do_next() {
        let check = |code, exit: Exit, verb, expected: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert(EXIT_METADATA, (exit as u8).to_string().parse().unwrap());
            let failure = refusal(verb, "a:1", &Status::with_metadata(code, "because", metadata));
            assert_eq!(failure.hint.as_deref(), Some(expected), "{verb}");
        };
        check(Code::NotFound, Exit::Local, "get", "shoal history");
        check(Code::NotFound, Exit::Local, "export", "shoal history");
        check(Code::NotFound, Exit::Local, "health", "shoal health");
        check(Code::NotFound, Exit::Local, "token revoke", "shoal token list");
        check(Code::InvalidArgument, Exit::Local, "cache purge", "shoal cache purge --help");
        check(Code::FailedPrecondition, Exit::Conflict, "apply", "shoal history, then shoal plan -f FILE");
        check(
            Code::AlreadyExists,
            Exit::Conflict,
            "apply",
            "shoal rollout status, then shoal confirm, or shoal abort",
        );
        check(Code::FailedPrecondition, Exit::Conflict, "confirm", "shoal history");
        check(Code::FailedPrecondition, Exit::Conflict, "rollout pause", "shoal history");
        check(Code::FailedPrecondition, Exit::Local, "rollback", "shoal rollback --force, if that is meant");
        check(Code::Unavailable, Exit::NoQuorum, "apply", "shoal status, and start the voters that are dead");
        let (socket, address) = (Target::Socket("/x".into()), Target::Address("a:1".into()));
        for (target, why, expected) in [
            (&socket, "/x: Permission denied (os error 13)", "sudo shoal status, "),
            (
                &address,
                "a:1: x; the clock here says 2026-03-01 12:34:56Z: is it right?",
                "date -u here and there; ",
            ),
            (&address, "a:1: invalid socket address", "shoal --addr HOST:7401 status, "),
            (&socket, "/x: Connection refused (os error 111)", "shoal --socket DIR/admin.sock status, "),
        ] {
            assert!(way_in("status", Some(target), why).starts_with(expected), "{why}");
        }
    }
}
