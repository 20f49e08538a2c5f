//! Verbs about the tokens with which nodes join.

use std::sync::Arc;

use shoal_cluster::join::Token;
use shoal_model::state::{Command, Reply, TokenRecord};
use shoal_proto::admin::{
    CreateTokenRequest, CreateTokenResponse, ListTokensResponse, RevokeTokenRequest, RevokeTokenResponse,
    TokenStatus,
};
use tonic::{Code, Status};

use super::change::linearizable_base;
use super::failure::{self, Exit, with_exit};
use crate::node::{Node, now_ms};

/// Longest life of a token.
const MAX_TOKEN_SECONDS: u32 = 7 * 86_400;

/// A token with which nodes may join.
pub async fn create(
    node: &Arc<Node>,
    request: &CreateTokenRequest,
    caller: &str,
) -> Result<CreateTokenResponse, Status> {
    let ttl = request.ttl_seconds;
    if ttl == 0 || ttl > MAX_TOKEN_SECONDS || request.uses == 0 || request.uses > 1000 {
        let why = format!("a token lives 1 to {MAX_TOKEN_SECONDS} seconds and has 1 to 1000 uses");
        return Err(with_exit(Code::InvalidArgument, Exit::Local, why));
    }
    let token = Token::create(&node.identity.ca_der, "node");
    let expires_at_ms = now_ms() + u64::from(ttl) * 1000;
    let record = TokenRecord {
        secret_sha256: token.secret_sha256(),
        expires_at_ms,
        uses_left: request.uses,
        role: "node".to_owned(),
    };
    keep(node, token.id.clone(), record).await?;
    tracing::info!(token = token.id, uses = request.uses, by = caller, "a token was created");
    Ok(CreateTokenResponse { token: token.reveal(), expires_at_ms })
}

/// Those with which nodes may join now.
pub async fn list(node: &Arc<Node>) -> Result<ListTokensResponse, Status> {
    linearizable_base(node).await?;
    let now_ms = now_ms();
    let tokens = node.log.with_state(|state| {
        let valid = state.tokens.iter().filter(|(_, token)| token.expires_at_ms > now_ms);
        let status = |(id, token): (&String, &TokenRecord)| TokenStatus {
            id: id.clone(),
            role: token.role.clone(),
            uses_left: token.uses_left,
            expires_at_ms: token.expires_at_ms,
        };
        valid.map(status).collect()
    });
    Ok(ListTokensResponse { tokens })
}

/// Lets nobody in with it any more.
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
    let proposed = node.log.propose(Command::CreateToken { id, token }).await.map_err(failure::propose)?;
    match proposed.reply {
        Reply::Done => Ok(()),
        Reply::Refused(refusal) => Err(failure::refusal(&refusal)),
        _ => Err(failure::unexpected_reply()),
    }
}
