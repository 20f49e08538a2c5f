//! Where operators come in: mutual TLS on the admin address, and the local socket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_cluster::channel::Cuttable;
use shoal_cluster::tls::{Caller, Credentials, LOCAL, ProvenOperator, peer_identity};
use shoal_model::{Revision, Role};
use shoal_proto::MAX_ADMIN_MESSAGE;
use shoal_proto::admin::admin_service_server::AdminServiceServer;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;

use super::AdminRpc;
use super::gate::{Gate, Porch};
use crate::accept::{Accepting, is_own};
use crate::crowd::{Crowd, shake_hands};
use crate::incoming::{CallerIo, Origin};
use crate::keys::Proof;
use crate::node::{Node, now_ms};
use crate::pace::Pace;
use crate::refusals::Refusals;
use crate::shares::{Portions, Shares};

/// TLS handshakes under way at once.
const MAX_HANDSHAKES: usize = 256;
/// And of one address.
const MAX_HANDSHAKES_OF_ONE: usize = 128;
/// Connections that are open on the admin address, and those of one operator; the socket has no such limit.
const CONNECTIONS: Portions = Portions { most: 512, each: 64, reserve: 0 };
/// How long a connection lasts whose operator was revoked before it was made.
const REFUSAL_TIME: Duration = Duration::from_secs(5);
/// For this node to hear of a certificate that was just given.
const LIST_WAIT: Duration = Duration::from_secs(2);
/// Certificates that are not on the list as this node knows it, for which it asks the leader each second.
const MAX_LOOK_UPS_PER_SECOND: u32 = 5;
/// A connection over TLS is that old at most: then it is told to end, so that what certificates say is looked at again.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// For calls under way to end then.
const AGE_GRACE: Duration = Duration::from_secs(60);
/// Calls answered at once on one connection.
const MAX_CALLS_PER_CONNECTION: usize = 32;

/// Both doors, already bound.
pub struct AdminListeners {
    /// Mutual TLS.
    pub tcp: TcpListener,
    /// What operators are shown. They have to show a certificate as well.
    pub credentials: Credentials,
    /// Local root, who may do everything: the directory's rights are the proof.
    pub socket: UnixListener,
}

/// Serves operators until `stop`; then lets running calls end.
pub async fn serve(
    node: Arc<Node>,
    listeners: AdminListeners,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let AdminListeners { tcp, credentials, socket } = listeners;
    let (over_tls, tls_incoming) = mpsc::channel(MAX_HANDSHAKES);
    let (over_socket, socket_incoming) =
        mpsc::channel::<std::io::Result<CallerIo<UnixStream>>>(MAX_HANDSHAKES);
    let router = |node: &Arc<Node>, age: Option<Duration>| {
        let service = AdminServiceServer::new(AdminRpc::new(node.clone(), stop.clone()))
            .max_decoding_message_size(MAX_ADMIN_MESSAGE)
            .max_encoding_message_size(MAX_ADMIN_MESSAGE);
        let server = match age {
            Some(age) => Server::builder().max_connection_age(age).max_connection_age_grace(AGE_GRACE),
            None => Server::builder(),
        };
        server
            .concurrency_limit_per_connection(MAX_CALLS_PER_CONNECTION)
            .http2_keepalive_interval(Some(Duration::from_secs(20)))
            .add_service(Porch::of(node.clone(), InterceptedService::new(service, Gate(node.clone()))))
    };
    let stopped = || stop.clone().cancelled_owned();
    let tls_server = router(&node, Some(MAX_AGE))
        .serve_with_incoming_shutdown(ReceiverStream::new(tls_incoming), stopped());
    let socket_server =
        router(&node, None).serve_with_incoming_shutdown(ReceiverStream::new(socket_incoming), stopped());
    let accept_tls = accept_tls(node.clone(), tcp, credentials, over_tls, stop.clone());
    let accept_socket = accept_socket(socket, over_socket, stop.clone());
    let (tls_served, socket_served, (), ()) =
        tokio::join!(tls_server, socket_server, accept_tls, accept_socket);
    tls_served?;
    Ok(socket_served?)
}

type TlsIo = CallerIo<Cuttable<tokio_rustls::server::TlsStream<tokio::net::TcpStream>>>;

/// Resolves when what an operator has shown is good for nothing any more.
async fn end_of(node: Arc<Node>, caller: Option<Caller>, proof: Proof) {
    let Some(Caller::Operator(operator)) = caller else { return node.disbelief_in(proof).await };
    if node.admits(&operator).is_err() {
        // Each of its calls is refused; it has the time to hear why.
        return tokio::time::sleep(REFUSAL_TIME).await;
    }
    let left_ms = operator.ends_at.map_or(0, |at| at.saturating_mul(1000).saturating_sub_unsigned(now_ms()));
    let ended = tokio::time::sleep(Duration::from_millis(u64::try_from(left_ms).unwrap_or_default()));
    tokio::select! {
        () = ended => {}
        () = revocation_of(&node, &operator) => {}
        () = node.clone().disbelief_in(proof) => {}
    }
}

/// Whoever has just been given a certificate may come before this node has heard of it.
async fn hear_of(node: &Node, caller: Option<&Caller>, look_ups: &Pace) {
    let Some(Caller::Operator(operator)) = caller else { return };
    if node.admits(operator).is_err()
        && look_ups.takes(Instant::now())
        && let Ok(index) = node.log.try_read_index().await
    {
        node.await_applied(index, Revision(0), LIST_WAIT).await;
    }
}

async fn revocation_of(node: &Node, operator: &ProvenOperator) {
    let mut applied = node.log.applied();
    while node.admits(operator).is_ok() {
        if applied.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

async fn accept_tls(
    node: Arc<Node>,
    tcp: TcpListener,
    credentials: Credentials,
    accepted: mpsc::Sender<std::io::Result<TlsIo>>,
    stop: CancellationToken,
) {
    let mut handshakes = Crowd::new(MAX_HANDSHAKES, MAX_HANDSHAKES_OF_ONE);
    let (connections, too_many) = (Shares::of(CONNECTIONS), Arc::new(Refusals::default()));
    let look_ups = Arc::new(Pace::per_second(MAX_LOOK_UPS_PER_SECOND));
    let tcp = Accepting::on(tcp, "the admin address");
    loop {
        let (stream, from) = tokio::select! {
            () = stop.cancelled() => return,
            incoming = tcp.next() => incoming,
        };
        let tls = TlsAcceptor::from(credentials.admin_server());
        let (node, accepted) = (node.clone(), accepted.clone());
        let (connections, too_many, look_ups) = (connections.clone(), too_many.clone(), look_ups.clone());
        let place = handshakes.admit(from.ip());
        tokio::spawn(async move {
            let Some(stream) = shake_hands(tls, stream, place).await else { return };
            // TLS may have been begun with what was believed a moment ago.
            let Some(proof) = node.proof_on(stream.get_ref().1) else { return };
            let caller = peer_identity(stream.get_ref().1);
            // Nodes have no business here, and share what one operator may have.
            let who = match &caller {
                Some(Caller::Operator(operator)) => operator.name.as_str(),
                Some(Caller::Node(_)) | None => "",
            };
            let Ok(share) = connections.take(who, 1) else {
                if let Some(unsaid) = too_many.note(Instant::now()) {
                    let Portions { most, each, .. } = CONNECTIONS;
                    tracing::warn!(
                        operator = who,
                        most,
                        each,
                        unsaid,
                        "too many connections on the admin address"
                    );
                }
                return;
            };
            Box::pin(hear_of(&node, caller.as_ref(), &look_ups)).await;
            let stream = Cuttable::until(stream, end_of(node, caller.clone(), proof));
            let io = CallerIo::new(stream, caller, Origin::Address(from)).counted(share);
            _ = accepted.send(Ok(io)).await;
        });
    }
}

async fn accept_socket(
    socket: UnixListener,
    accepted: mpsc::Sender<std::io::Result<CallerIo<UnixStream>>>,
    stop: CancellationToken,
) {
    let socket = Accepting::on(socket, "the local admin socket");
    loop {
        let (stream, _) = tokio::select! {
            () = stop.cancelled() => return,
            incoming = socket.next() => incoming,
        };
        if is_own(&stream) {
            tracing::debug!("a proxied connection to the local admin socket was refused");
            continue;
        }
        let local = ProvenOperator { name: LOCAL.to_owned(), role: Role::Admin, serial: None, ends_at: None };
        let from = Origin::Socket { uid: stream.peer_cred().ok().map(|user| user.uid()) };
        _ = accepted.send(Ok(CallerIo::new(stream, Some(Caller::Operator(local)), from))).await;
    }
}
