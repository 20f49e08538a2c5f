//! Verbs about the tokens with which nodes join, and programs purge.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_cluster::join::{ROLE_NODE, ROLE_PURGE, Token, admits_nodes};
use shoal_model::state::{Command, ROLE_LEARNER, TokenRecord};
use shoal_proto::admin::{
    CreateTokenRequest, CreateTokenResponse, ListTokensResponse, RevokeTokenRequest, RevokeTokenResponse,
    TokenStatus,
};
use tonic::{Code, Status};

use super::base::{linearizable_base, newest_base, put, staleness_ms};
use super::failure::{Exit, with_exit};
use crate::node::{Node, now_ms};

/// Longest life of a token with which nodes join.
const MAX_NODE_SECONDS: u32 = 7 * 86_400;
/// Longest life of one with which programs purge.
const MAX_PURGE_SECONDS: u32 = 366 * 86_400;

/// Tokens for nodes that are good at once.
const MAX_NODE_TOKENS: usize = 400;
/// Tokens for programs that are good at once.
const MAX_PURGE_TOKENS: usize = 500;
/// Tokens that have not expired, also those that are used up and kept for the nodes that have used them. The log has room
/// for 1,000, and beyond that forgets the one that expires first: with so many one that is used up makes room.
const MAX_TOKENS: usize = 950;

/// A token with which nodes may join, or programs purge.
pub async fn create(
    node: &Arc<Node>,
    request: &CreateTokenRequest,
    caller: &str,
) -> Result<CreateTokenResponse, Status> {
    let refuse = |why: String| Err(with_exit(Code::InvalidArgument, Exit::Local, why));
    let (role, longest) = match request.role.as_str() {
        "" | ROLE_NODE => (ROLE_NODE, MAX_NODE_SECONDS),
        ROLE_LEARNER => (ROLE_LEARNER, MAX_NODE_SECONDS),
        ROLE_PURGE => (ROLE_PURGE, MAX_PURGE_SECONDS),
        other => {
            return refuse(format!("there is no role {other:?} for tokens; node, learner and purge are"));
        }
    };
    let ttl = request.ttl_seconds;
    if ttl == 0 || ttl > longest || request.uses == 0 || request.uses > 1000 {
        return refuse(format!("a token for a {role} lives 1 to {longest} seconds and has 1 to 1000 uses"));
    }
    linearizable_base(node).await?;
    let now = now_ms();
    let (good, spent) = node.log.with_state(|state| {
        let is_alike = |token: &&TokenRecord| admits_nodes(&token.role) == admits_nodes(role);
        let good = state.tokens.values().filter(is_alike).filter(|token| is_good(token, now));
        (good.count(), spent_token(&state.tokens, now))
    });
    let most = if admits_nodes(role) { MAX_NODE_TOKENS } else { MAX_PURGE_TOKENS };
    if good >= most {
        let of = if admits_nodes(role) { "by which nodes join" } else { "for purges" };
        let why = format!(
            "{most} tokens {of} are good already: `shoal token revoke` some, or wait until they expire"
        );
        return Err(with_exit(Code::ResourceExhausted, Exit::Remote, why));
    }
    if let Some((id, spent)) = spent {
        keep(node, id, ended(spent)).await?;
    }
    let agreed = node.log.with_state(|state| state.ca_certificate.clone());
    // The first entry of a new cluster is still on its way.
    let authority = if agreed.is_empty() { node.identity.ca_der.to_vec() } else { agreed };
    let token = Token::create(&authority, role);
    let expires_at_ms = now_ms() + u64::from(ttl) * 1000;
    let record = TokenRecord {
        secret_sha256: token.secret_sha256(),
        expires_at_ms,
        uses_left: request.uses,
        role: role.to_owned(),
        authority_sha256: token.ca_sha256.clone(),
    };
    keep(node, token.id.clone(), record).await?;
    tracing::info!(token = token.id, role, uses = request.uses, by = caller, "a token was created");
    Ok(CreateTokenResponse { token: token.reveal(), expires_at_ms })
}

/// Those that are good now: nobody joins by one that names an authority that has retired.
pub async fn list(node: &Arc<Node>) -> Result<ListTokensResponse, Status> {
    let (_, quorum) = newest_base(node).await?;
    let now_ms = now_ms();
    let tokens = node.log.with_state(|state| {
        let is_late = |token: &TokenRecord| {
            admits_nodes(&token.role) && state.keys.retired.contains(&token.authority_sha256)
        };
        let valid = state.tokens.iter().filter(|(_, token)| is_good(token, now_ms) && !is_late(token));
        let status = |(id, token): (&String, &TokenRecord)| TokenStatus {
            id: id.clone(),
            role: token.role.clone(),
            uses_left: token.uses_left,
            expires_at_ms: token.expires_at_ms,
        };
        valid.map(status).collect()
    });
    Ok(ListTokensResponse { tokens, quorum, staleness_ms: staleness_ms(node) })
}

/// Ids of those by which nodes join until the authority with this hash retires.
pub(super) fn naming(node: &Node, sha256: &str) -> Vec<String> {
    let now_ms = now_ms();
    let names_it = |token: &TokenRecord| {
        is_good(token, now_ms) && admits_nodes(&token.role) && token.authority_sha256 == sha256
    };
    node.log.with_state(|state| {
        state.tokens.iter().filter(|(_, token)| names_it(token)).map(|(id, _)| id.clone()).collect()
    })
}

/// Nobody does anything with it any more.
pub async fn revoke(
    node: &Arc<Node>,
    request: &RevokeTokenRequest,
    caller: &str,
) -> Result<RevokeTokenResponse, Status> {
    linearizable_base(node).await?;
    let now_ms = now_ms();
    let record = node.log.with_state(|state| state.tokens.get(&request.id).cloned());
    let Some(record) = record.filter(|token| token.expires_at_ms > now_ms) else {
        let why = format!("there is no token with the id {:?}, or none any more", request.id);
        return Err(with_exit(Code::NotFound, Exit::Local, why));
    };
    keep(node, request.id.clone(), ended(record)).await?;
    tracing::info!(token = request.id, by = caller, "a token was revoked");
    Ok(RevokeTokenResponse {})
}

/// Somebody may still begin something by it.
fn is_good(token: &TokenRecord, now_ms: u64) -> bool {
    token.expires_at_ms > now_ms && token.uses_left > 0
}

/// One that is used up, and has to make room for another.
fn spent_token(tokens: &BTreeMap<String, TokenRecord>, now_ms: u64) -> Option<(String, TokenRecord)> {
    let kept = || tokens.iter().filter(|(_, token)| token.expires_at_ms > now_ms);
    let spent = kept().filter(|(_, token)| token.uses_left == 0).min_by_key(|(_, token)| token.expires_at_ms);
    spent.filter(|_| kept().count() >= MAX_TOKENS).map(|(id, token)| (id.clone(), token.clone()))
}

/// What takes the place of a token that is to be good for nothing: every version of a node knows what that means.
fn ended(token: TokenRecord) -> TokenRecord {
    TokenRecord { expires_at_ms: 0, ..token }
}

async fn keep(node: &Arc<Node>, id: String, token: TokenRecord) -> Result<(), Status> {
    put(node, Command::CreateToken { id, token }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_up_makes_room_once_there_are_many_and_what_is_good_does_not() {
        let token = |expires_at_ms, uses_left| TokenRecord {
            secret_sha256: String::new(),
            expires_at_ms,
            uses_left,
            role: ROLE_NODE.to_owned(),
            authority_sha256: String::new(),
        };
        let tokens = |spent: usize, good: usize, ended: usize| -> BTreeMap<String, TokenRecord> {
            let spent = (0..spent).map(|n| (format!("spent-{n}"), token(2000 + n as u64, 0)));
            let good = (0..good).map(|n| (format!("good-{n}"), token(1500, 1)));
            let ended = (0..ended).map(|n| (format!("ended-{n}"), token(0, 0)));
            spent.chain(good).chain(ended).collect()
        };
        let check = |(spent, good, ended), expected: Option<&str>| {
            let makes_room = spent_token(&tokens(spent, good, ended), 1000);
            assert_eq!(makes_room.map(|(id, _)| id).as_deref(), expected, "{spent} {good} {ended}");
        };
        check((0, 0, 0), None);
        check((MAX_TOKENS - 1, 0, 50), None);
        check((MAX_TOKENS - 1, 1, 0), Some("spent-0"));
        check((1, MAX_TOKENS, 0), Some("spent-0"));
        check((0, MAX_TOKENS, 0), None);
    }
}
