//! What came of a purge, as those are told who ask over HTTP.

use axum::http::StatusCode;
use serde::Serialize;
use shoal_configlog::ProposeError;
use shoal_model::state::{OtherReply, Refusal};
use shoal_model::units::millis_u64;

use crate::purging::{PurgeError, Purged};

#[derive(Serialize)]
struct Reply<'a> {
    seq: u64,
    /// No node serves what it forgets; false = that was not waited for, or not long enough.
    complete: bool,
    elapsed_ms: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<NodeReply<'a>>,
}

#[derive(Serialize)]
struct NodeReply<'a> {
    node: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    elapsed_ms: Option<u32>,
}

#[derive(Serialize)]
struct Trouble<'a> {
    error: &'a str,
}

/// Status and JSON of the answer: 202 where the wait was too short to know that no node serves it.
pub fn reply(outcome: &Result<Purged, PurgeError>, was_awaited: bool) -> (StatusCode, String) {
    match outcome {
        Ok(purged) => {
            let status = match purged.is_complete || !was_awaited {
                true => StatusCode::OK,
                false => StatusCode::ACCEPTED,
            };
            (status, to_line(&purged_reply(purged)))
        }
        Err(error) => (status_of(error), trouble(&error.to_string())),
    }
}

/// What is wrong, as JSON.
pub fn trouble(why: &str) -> String {
    to_line(&Trouble { error: why })
}

fn purged_reply(purged: &Purged) -> Reply<'_> {
    let acks = purged.acks.iter().map(|ack| NodeReply {
        node: &ack.node,
        state: ack.state().purge_word(),
        detail: &ack.detail,
        elapsed_ms: Some(ack.elapsed_ms),
    });
    let absent = purged.absent.iter().map(|absent| NodeReply {
        node: &absent.node,
        state: "absent",
        detail: &absent.state,
        elapsed_ms: None,
    });
    Reply {
        seq: purged.seq,
        complete: purged.is_complete,
        elapsed_ms: millis_u64(purged.elapsed),
        nodes: acks.chain(absent).collect(),
    }
}

fn status_of(error: &PurgeError) -> StatusCode {
    match error {
        PurgeError::TooFast(_) | PurgeError::Reply(OtherReply::Refused(Refusal::TooManyPurges)) => {
            StatusCode::TOO_MANY_REQUESTS
        }
        PurgeError::Log(ProposeError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
        PurgeError::Log(_) => StatusCode::SERVICE_UNAVAILABLE,
        PurgeError::Reply(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn to_line(reply: &impl Serialize) -> String {
    serde_json::to_string(reply).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shoal_proto::admin::{AbsentNode, AckState, NodeAck};

    use super::*;

    #[test]
    fn callers_learn_what_each_node_made_of_it() {
        let ack = |node: &str, state: AckState, detail: &str| NodeAck {
            node: node.into(),
            state: state.into(),
            detail: detail.into(),
            elapsed_ms: 3,
            ..NodeAck::default()
        };
        let mut purged = Purged {
            seq: 42,
            acks: vec![ack("a", AckState::Applied, ""), ack("b", AckState::Silent, "no \"answer\"")],
            absent: vec![AbsentNode { node_id: 3, node: "c".into(), state: "dead".into() }],
            elapsed: Duration::from_millis(17),
            is_complete: false,
        };
        let nodes = r#"[{"node":"a","state":"acknowledged","elapsed_ms":3},{"node":"b","state":"silent","detail":"no \"answer\"","elapsed_ms":3},{"node":"c","state":"absent","detail":"dead"}]"#;
        let expected = format!("{{\"seq\":42,\"complete\":false,\"elapsed_ms\":17,\"nodes\":{nodes}}}\n");
        assert_eq!(reply(&Ok(purged.clone()), true), (StatusCode::ACCEPTED, expected));
        (purged.acks, purged.absent) = (Vec::new(), Vec::new());
        let expected = "{\"seq\":42,\"complete\":false,\"elapsed_ms\":17}\n".to_owned();
        assert_eq!(reply(&Ok(purged), false), (StatusCode::OK, expected));
    }

    #[test]
    fn what_failed_has_the_status_of_its_cause() {
        let check = |error: PurgeError, status: u16, part: &str| {
            let (seen, json) = reply(&Err(error), true);
            assert_eq!(seen.as_u16(), status);
            assert!(json.starts_with("{\"error\":\"") && json.contains(part), "{json}");
        };
        check(PurgeError::TooFast(7), 429, "more than 7 purges a second");
        check(PurgeError::Reply(Refusal::TooManyPurges.into()), 429, "too many purges wait");
        check(PurgeError::Reply(Refusal::LastNode.into()), 500, "the last node");
        let reason = "this node has known of no leader for 9 s".to_owned();
        let no_quorum = ProposeError::NoQuorum { reason, lost_for: Duration::from_secs(9) };
        check(PurgeError::Log(no_quorum), 503, "no quorum: this node has known of no leader for 9 s");
        check(PurgeError::Log(ProposeError::TooLarge { bytes: 9 }), 413, "too large");
        check(PurgeError::Reply(OtherReply::Stray), 500, "does not belong");
    }
}
