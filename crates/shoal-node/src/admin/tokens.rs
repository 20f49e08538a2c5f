//! Verbs about the tokens with which nodes join, and programs purge.

use std::sync::Arc;

use shoal_cluster::join::{ROLE_NODE, ROLE_PURGE, Token};
use shoal_model::state::{Command, TokenRecord};
use shoal_proto::admin::{
    CreateTokenRequest, CreateTokenResponse, ListTokensResponse, RevokeTokenRequest, RevokeTokenResponse,
    TokenStatus,
};
use tonic::{Code, Status};

use super::base::{linearizable_base, newest_base, put};
use super::failure::{Exit, with_exit};
use crate::node::{Node, now_ms};

/// Longest life of a token with which nodes join.
const MAX_NODE_SECONDS: u32 = 7 * 86_400;
/// Longest life of one with which programs purge.
const MAX_PURGE_SECONDS: u32 = 366 * 86_400;

/// Tokens for nodes that are good at once. The log has room for 1,000 of both kinds, and beyond that forgets the one that
/// expires first: it never comes to that.
const MAX_NODE_TOKENS: usize = 400;
/// Tokens for programs that are good at once.
const MAX_PURGE_TOKENS: usize = 500;

/// A token with which nodes may join, or programs purge.
pub async fn create(
    node: &Arc<Node>,
    request: &CreateTokenRequest,
    caller: &str,
) -> Result<CreateTokenResponse, Status> {
    let refuse = |why: String| Err(with_exit(Code::InvalidArgument, Exit::Local, why));
    let (role, longest) = match request.role.as_str() {
        "" | ROLE_NODE => (ROLE_NODE, MAX_NODE_SECONDS),
        ROLE_PURGE => (ROLE_PURGE, MAX_PURGE_SECONDS),
        other => return refuse(format!("there is no role {other:?} for tokens; node and purge are")),
    };
    let ttl = request.ttl_seconds;
    if ttl == 0 || ttl > longest || request.uses == 0 || request.uses > 1000 {
        return refuse(format!("a token for a {role} lives 1 to {longest} seconds and has 1 to 1000 uses"));
    }
    linearizable_base(node).await?;
    let now = now_ms();
    let good = node.log.with_state(|state| {
        state.tokens.values().filter(|token| token.role == role && token.expires_at_ms > now).count()
    });
    let most = if role == ROLE_NODE { MAX_NODE_TOKENS } else { MAX_PURGE_TOKENS };
    if good >= most {
        let why = format!(
            "{most} tokens for a {role} are good already: `shoal token revoke` some, or wait until they expire"
        );
        return Err(with_exit(Code::ResourceExhausted, Exit::Remote, why));
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
            token.role == ROLE_NODE && state.keys.retired.contains(&token.authority_sha256)
        };
        let valid = state.tokens.iter().filter(|(_, token)| token.expires_at_ms > now_ms && !is_late(token));
        let status = |(id, token): (&String, &TokenRecord)| TokenStatus {
            id: id.clone(),
            role: token.role.clone(),
            uses_left: token.uses_left,
            expires_at_ms: token.expires_at_ms,
        };
        valid.map(status).collect()
    });
    Ok(ListTokensResponse { tokens, quorum })
}

/// Ids of those by which nodes join until the authority with this hash retires.
pub(super) fn naming(node: &Node, sha256: &str) -> Vec<String> {
    let now_ms = now_ms();
    let is_good =
        |token: &TokenRecord| token.expires_at_ms > now_ms && token.uses_left > 0 && token.role == ROLE_NODE;
    let names_it = |token: &TokenRecord| is_good(token) && token.authority_sha256 == sha256;
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
    // One that has ended takes its place: every version of a node knows what that means.
    keep(node, request.id.clone(), TokenRecord { expires_at_ms: 0, ..record }).await?;
    tracing::info!(token = request.id, by = caller, "a token was revoked");
    Ok(RevokeTokenResponse {})
}

async fn keep(node: &Arc<Node>, id: String, token: TokenRecord) -> Result<(), Status> {
    put(node, Command::CreateToken { id, token }).await
}
