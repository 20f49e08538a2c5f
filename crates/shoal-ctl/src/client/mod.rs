//! The admin API of any node: over mutual TLS by address, or over the local socket.
//!
//! Addresses are tried in turn, also when a node is lost in the middle of a call, where it may be repeated: because it
//! changes nothing, or carries a request id that is applied once.

mod calls;
mod connector;
mod node_args;
mod refusal;
mod tls;
mod watch;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use shoal_cluster::tls::deepest;
use shoal_proto::MAX_ADMIN_MESSAGE;
use shoal_proto::admin::admin_service_client::AdminServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

use crate::failure::{Exit, Failure};
use connector::Connector;
pub use node_args::{NodeArgs, some_time};
use refusal::{may_be_done, refusal, was_lost, way_in};
pub use tls::IdentityFiles;

/// Longest wait for a connection, TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How much longer than the node's own deadline the answer is waited for.
const ANSWER_MARGIN: Duration = Duration::from_secs(2);
/// Silence after which the connection is tested, and then given up.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Most addresses that are tried.
const MAX_TARGETS: usize = 64;

/// Where a node listens for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `DIR/admin.sock` of a node on this machine.
    Socket(PathBuf),
    /// `host:port`, mutual TLS.
    Address(String),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Address(address) => f.write_str(address),
        }
    }
}

/// A way to the cluster: nothing is connected before the first call.
#[derive(Clone, Debug)]
pub struct Client {
    targets: Vec<Target>,
    identity: Option<IdentityFiles>,
    server_name: Option<String>,
    deadline: Duration,
}

impl Client {
    /// A client of the nodes at `targets`, which must prove `server_name` (absent = any node of the operator's
    /// cluster); every call ends within about `deadline`.
    pub fn new(
        mut targets: Vec<Target>,
        identity: Option<IdentityFiles>,
        server_name: Option<String>,
        deadline: Duration,
    ) -> Self {
        targets.truncate(MAX_TARGETS);
        Self { targets, identity, server_name, deadline }
    }

    /// A client of the node whose local socket is `path`.
    pub fn local(path: impl Into<PathBuf>, deadline: Duration) -> Self {
        Self::new(vec![Target::Socket(path.into())], None, None, deadline)
    }

    /// Unix seconds at which the operator's own certificate expires, if less than a third of its life is left.
    pub fn identity_ends_soon(&self, now: u64) -> Option<i64> {
        self.identity.as_ref()?.ends_soon(now)
    }

    /// How long a call may take.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Every message of an answer, as it comes, for as long as none takes longer than a call may.
    async fn hear<T>(
        &self,
        verb: &str,
        mut telling: Streaming<T>,
        mut told: impl FnMut(T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            let next = tokio::time::timeout(self.deadline + ANSWER_MARGIN, telling.message()).await;
            let silent = || format!("nothing was heard for {} s; it may go on", self.deadline.as_secs());
            let is_silent = |_| Failure::new(Exit::Remote, verb, silent()).of_node(self.asked(), None);
            match next.map_err(is_silent)? {
                Ok(Some(message)) => told(message)?,
                Ok(None) => return Ok(()),
                Err(status) => return Err(refusal(verb, self.asked(), &status)),
            }
        }
    }

    /// Sends what changes nothing to the first node that answers.
    async fn look<Q: Clone, A>(
        &self,
        verb: &str,
        request: Q,
        send: impl AsyncFn(AdminServiceClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        self.try_all(verb, request, Again::AtOthers, send).await.map_err(|(failure, _)| failure)
    }

    /// Sends what may change something, and is done once whoever is asked for it how often, to the first node that answers.
    /// Where one was lost that had been asked, nothing that another one says means that it was not done.
    async fn call<Q: Clone, A>(
        &self,
        verb: &str,
        request: Q,
        send: impl AsyncFn(AdminServiceClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        self.change(verb, request, Again::AtOthers, send).await
    }

    /// The same of what would be done twice if two nodes were asked.
    async fn call_once<Q: Clone, A>(
        &self,
        verb: &str,
        request: Q,
        send: impl AsyncFn(AdminServiceClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        self.change(verb, request, Again::Never, send).await
    }

    async fn change<Q: Clone, A>(
        &self,
        verb: &str,
        request: Q,
        again: Again,
        send: impl AsyncFn(AdminServiceClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        self.try_all(verb, request, again, send).await.map_err(|(failure, lost)| match lost {
            None => failure,
            Some(lost) => may_be_done(verb, &lost, &failure),
        })
    }

    /// Sends `request` to the first node that answers; else why none did what it asks for, and who was lost after it had been
    /// asked.
    async fn try_all<Q: Clone, A>(
        &self,
        verb: &str,
        request: Q,
        again: Again,
        send: impl AsyncFn(AdminServiceClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, (Failure, Option<String>)> {
        let (mut unreachable, mut lost) = (String::new(), None);
        for target in &self.targets {
            let why = match Box::pin(self.connect(target)).await {
                Err(Unconnected::Misconfigured(failure)) => return Err((failure, lost)),
                Err(Unconnected::Unreachable(why)) => why,
                Ok(node) => {
                    let mut request = Request::new(request.clone());
                    request.set_timeout(self.deadline + ANSWER_MARGIN);
                    let answer =
                        tokio::time::timeout(self.deadline + ANSWER_MARGIN, Box::pin(send(node, request)));
                    match answer.await {
                        Ok(Ok(response)) => return Ok(response.into_inner()),
                        Ok(Err(status)) if was_lost(&status) => {
                            let why = deepest(&status);
                            lost = Some(format!("{target} was lost after it had been asked ({why})"));
                            why
                        }
                        Ok(Err(status)) => return Err((refusal(verb, target, &status), lost)),
                        Err(_) => return Err((self.no_answer(verb, target), lost)),
                    }
                }
            };
            let _ = write!(unreachable, "{}{target}: {why}", if unreachable.is_empty() { "" } else { ", " });
            if lost.is_some() && again == Again::Never {
                break;
            }
        }
        let hint = way_in(verb, self.targets.first(), &unreachable);
        let nobody = Failure::new(Exit::Remote, verb, format!("no node answers ({unreachable})"));
        Err((nobody.of_node(self.asked(), None).try_command(hint), lost))
    }

    /// All addresses, where nobody can tell which of them it was.
    fn asked(&self) -> String {
        self.targets.iter().map(Target::to_string).collect::<Vec<_>>().join(", ")
    }

    async fn connect(&self, target: &Target) -> Result<AdminServiceClient<Channel>, Unconnected> {
        let connector = match target {
            Target::Socket(path) => Connector::socket(path.clone()),
            Target::Address(address) => {
                let identity =
                    self.identity.as_ref().ok_or_else(|| Unconnected::Misconfigured(no_identity()))?;
                let name = self.server_name.as_deref();
                let (config, name) = identity.client_config(name).map_err(Unconnected::Misconfigured)?;
                Connector::tls(address.clone(), config, name)
            }
        };
        let endpoint = Endpoint::from_static("http://shoal.internal")
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let connecting =
            tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect_with_connector(connector)).await;
        let channel = match connecting {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(Unconnected::Unreachable(deepest(&error))),
            Err(_) => {
                let why = format!("no connection within {} s", CONNECT_TIMEOUT.as_secs());
                return Err(Unconnected::Unreachable(why));
            }
        };
        Ok(AdminServiceClient::new(channel)
            .max_decoding_message_size(MAX_ADMIN_MESSAGE)
            .max_encoding_message_size(MAX_ADMIN_MESSAGE))
    }

    fn no_answer(&self, verb: &str, target: &Target) -> Failure {
        let why =
            format!("{target} did not answer within {} s; it may still be done", self.deadline.as_secs());
        Failure::new(Exit::Remote, verb, why).of_node(target, None).try_command("shoal status")
    }
}

/// Whether somebody else is asked for what somebody was asked for who is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    AtOthers,
    Never,
}

enum Unconnected {
    /// No other address would help.
    Misconfigured(Failure),
    Unreachable(String),
}

fn no_identity() -> Failure {
    Failure::local("connect", "an address needs an operator's identity")
        .try_command("shoal --addr HOST:PORT --identity FILE status, or shoal --socket DIR/admin.sock status")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_target_is_tried_and_named() {
        let dir = std::env::temp_dir();
        let targets =
            vec![Target::Socket(dir.join("no-shoal-a.sock")), Target::Socket(dir.join("no-shoal-b.sock"))];
        let failure = Client::new(targets, None, None, Duration::from_secs(1)).status().await.unwrap_err();
        assert_eq!(failure.exit, Exit::Remote);
        assert!(
            failure.why.contains("no-shoal-a.sock: ") && failure.why.contains("no-shoal-b.sock: "),
            "{}",
            failure.why
        );
        let asked = failure.source.unwrap().node;
        assert!(asked.contains("no-shoal-a.sock, ") && asked.ends_with("no-shoal-b.sock"), "{asked}");
    }

    #[tokio::test]
    async fn an_address_needs_an_identity() {
        let client =
            Client::new(vec![Target::Address("127.0.0.1:1".into())], None, None, Duration::from_secs(1));
        assert_eq!(client.status().await.unwrap_err().exit, Exit::Local);
    }
}
