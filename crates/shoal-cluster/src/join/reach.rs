//! Finding a node that answers, of those whose addresses were given.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use shoal_model::ClusterId;
use shoal_proto::raft::peer_service_client::PeerServiceClient;
use tokio::net::lookup_host;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::JoinError;
use crate::channel::{
    ConnectError, Connector, MAX_MESSAGE_BYTES, Target, connect_tls, endpoint, wants_certificate,
};
use crate::tls::{ClientSide, clock_trouble, names};

/// Longest wait for an admission: it is an entry of the log, and the leader may have to be found first.
const JOIN_DEADLINE: Duration = Duration::from_secs(15);
/// For how long a node asks again where too many are joining at once.
const BUSY_PATIENCE: Duration = Duration::from_secs(60);
/// Between two times.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What one of them answers that has proven itself and is not at a loss; asked again for a while if none has a place.
pub(super) async fn at_one_of<T>(
    addresses: &[String],
    tls: Arc<ClientConfig>,
    call: impl AsyncFn(PeerServiceClient<Channel>) -> Result<Response<T>, Status>,
) -> Result<(T, SocketAddr), JoinError> {
    let deadline = Instant::now() + BUSY_PATIENCE;
    let mut is_first = true;
    loop {
        match ask_each(addresses, &tls, std::mem::take(&mut is_first), &call).await {
            Err(JoinError::Busy(why)) if Instant::now() < deadline => {
                tracing::info!(why, "many nodes are joining: asking again in a moment");
                tokio::time::sleep(ASK_AGAIN).await;
            }
            asked => return asked,
        }
    }
}

/// The first of `addresses` that has an answer. `looks_closer`: where there is none it is found out what else answers.
async fn ask_each<T>(
    addresses: &[String],
    tls: &Arc<ClientConfig>,
    looks_closer: bool,
    call: &impl AsyncFn(PeerServiceClient<Channel>) -> Result<Response<T>, Status>,
) -> Result<(T, SocketAddr), JoinError> {
    let mut last = JoinError::NoAddress;
    for address in addresses {
        let resolved = match lookup_host(address.as_str()).await {
            Ok(resolved) => resolved,
            Err(error) => {
                last = worse(last, JoinError::Unreachable(format!("{address}: {error}")));
                continue;
            }
        };
        for address in resolved {
            let name = names::any_node_server_name(ClusterId::default());
            let target = Target { address, name, tls: ClientSide::Fixed(tls.clone()), key: None };
            match ask(target, looks_closer, call).await {
                Ok(answer) => return Ok((answer, address)),
                // Another node may be nearer to the leader, or have a place.
                Err(
                    error @ (JoinError::Unreachable(_)
                    | JoinError::OtherCluster { .. }
                    | JoinError::AdminAddress(_)
                    | JoinError::Untimely { .. }
                    | JoinError::Busy(_)),
                ) => last = worse(last, error),
                Err(error) => return Err(error),
            }
        }
    }
    Err(last)
}

/// What is told of two addresses: that one has no place just now, since it is worth asking again, else what came last.
fn worse(before: JoinError, error: JoinError) -> JoinError {
    if matches!(before, JoinError::Busy(_)) { before } else { error }
}

async fn ask<T>(
    target: Target,
    looks_closer: bool,
    call: &impl AsyncFn(PeerServiceClient<Channel>) -> Result<Response<T>, Status>,
) -> Result<T, JoinError> {
    let address = target.address;
    // Connected to by hand first: the channel would only say "transport error".
    match connect_tls(&target).await {
        Ok(connection) => drop(connection),
        Err(ConnectError::Prove { source, .. }) => {
            return Err(match clock_trouble(&source) {
                Some(why) => JoinError::Untimely { address, why },
                None => JoinError::OtherCluster { address, why: source },
            });
        }
        Err(error) => return Err(JoinError::Unreachable(error.to_string())),
    }
    let connector = Connector::to(target.clone(), CancellationToken::new());
    let connecting = endpoint(JOIN_DEADLINE).connect_with_connector(connector).await;
    let answer = match connecting {
        Ok(channel) => {
            call(PeerServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES)).await
        }
        Err(error) => Err(Status::unavailable(error.to_string())),
    };
    let status = match answer {
        Ok(answer) => return Ok(answer.into_inner()),
        Err(status) => status,
    };
    if looks_closer
        && matches!(status.code(), Code::Unknown | Code::Unavailable | Code::Cancelled | Code::Internal)
        && wants_certificate(&target).await
    {
        return Err(JoinError::AdminAddress(address));
    }
    Err(match status.code() {
        // The last one is no answer at all: the connection was cut, since there are too many.
        Code::ResourceExhausted | Code::Unknown => {
            JoinError::Busy(format!("{address}: {}", status.message()))
        }
        // Nothing that another node, or this one a moment later, would have to refuse as well.
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Unimplemented
        | Code::Aborted
        | Code::Internal => JoinError::Unreachable(format!("{address}: {}", status.message())),
        _ => JoinError::Refused(status.message().to_owned()),
    })
}
