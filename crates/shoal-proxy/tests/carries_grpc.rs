//! gRPC from one end to the other: all kinds of streams, trailers, deadlines, and failures in its own words.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use support::{PATIENCE, Stage, nowhere};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::server::{NamedService, StreamingService};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower_service::Service;

type Texts = ProstCodec<String, String>;
type Answers = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

/// A server of calls that do as their names say.
#[derive(Clone)]
struct Calls;

impl NamedService for Calls {
    const NAME: &'static str = "test.Calls";
}

impl Service<http::Request<Body>> for Calls {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let name = request.uri().path().rsplit('/').next().unwrap().to_owned();
        Box::pin(async move {
            let mut codec = tonic::server::Grpc::new(Texts::default());
            Ok(codec.streaming(Call(name), request).await)
        })
    }
}

struct Call(String);

impl StreamingService<String> for Call {
    type Response = String;
    type ResponseStream = Answers;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answers>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<String>>) -> Self::Future {
        let name = self.0.clone();
        Box::pin(async move {
            let asked = request.metadata().get("x-asked").cloned();
            let mut messages = request.into_inner();
            if name == "Fail" {
                return Err(Status::failed_precondition("not now"));
            }
            let (sender, answers) = mpsc::channel(1);
            tokio::spawn(async move {
                let mut all = String::new();
                while let Some(Ok(message)) = messages.next().await {
                    match name.as_str() {
                        "Collect" => all += &message,
                        "Repeat" => {
                            for n in 0..3 {
                                let _ = sender.send(Ok(format!("{message} {n}"))).await;
                            }
                        }
                        _ => drop(sender.send(Ok(message)).await),
                    }
                }
                match name.as_str() {
                    "Collect" => drop(sender.send(Ok(all)).await),
                    "FailLate" => drop(sender.send(Err(Status::aborted("too late"))).await),
                    _ => {}
                }
            });
            let answers: Answers = Box::pin(ReceiverStream::new(answers));
            let mut response = Response::new(answers);
            if let Some(asked) = asked {
                response.metadata_mut().insert("x-answered", asked);
            }
            Ok(response)
        })
    }
}

async fn serve(tls: Option<ServerTlsConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls).unwrap();
    }
    tokio::spawn(server.add_service(Calls).serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

fn site(endpoint: SocketAddr, upstream: &str, route: &str) -> String {
    format!(
        "listeners:\n  web: {{ address: \"127.0.0.1:1\", protocol: http }}\n\
         routes:\n  calls: {{ upstream: app, path_prefix: /test.Calls{route} }}\n\
         upstreams:\n  app: {{ endpoints: [\"{endpoint}\"]{upstream} }}\n"
    )
}

type Client = tonic::client::Grpc<Channel>;

async fn client(stage: &Stage) -> Client {
    let channel = Channel::from_shared(format!("http://{}", stage.address("web"))).unwrap();
    let mut client = Client::new(channel.connect().await.unwrap());
    client.ready().await.unwrap();
    client
}

fn path(name: &str) -> PathAndQuery {
    format!("/test.Calls/{name}").parse().unwrap()
}

fn messages(texts: &[&str]) -> impl Stream<Item = String> + Send + 'static {
    let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    tokio_stream::iter(texts)
}

async fn all(answers: Streaming<String>) -> Result<Vec<String>, Status> {
    answers.collect::<Result<Vec<_>, _>>().await
}

/// All four kinds of calls.
async fn call_in_every_way(client: &mut Client) {
    let mut request = Request::new("hello".to_owned());
    request.metadata_mut().insert("x-asked", "yes".parse().unwrap());
    let answer = client.unary(request, path("Echo"), Texts::default()).await.unwrap();
    assert_eq!(answer.metadata().get("x-answered").unwrap(), "yes");
    assert_eq!(answer.into_inner(), "hello");

    client.ready().await.unwrap();
    let request = Request::new("a".to_owned());
    let answers = client.server_streaming(request, path("Repeat"), Texts::default()).await.unwrap();
    assert_eq!(all(answers.into_inner()).await.unwrap(), ["a 0", "a 1", "a 2"]);

    client.ready().await.unwrap();
    let request = Request::new(messages(&["a", "b", "c"]));
    let answer = client.client_streaming(request, path("Collect"), Texts::default()).await.unwrap();
    assert_eq!(answer.into_inner(), "abc");

    // Each answer is waited for before the next question: both directions must flow at once.
    client.ready().await.unwrap();
    let (questions, asked) = mpsc::channel(1);
    questions.send("0".to_owned()).await.unwrap();
    let request = Request::new(ReceiverStream::new(asked));
    let answers = client.streaming(request, path("Talk"), Texts::default()).await.unwrap();
    let mut answers = answers.into_inner();
    for n in 1..5 {
        let answer = tokio::time::timeout(PATIENCE, answers.next()).await.expect("an answer");
        assert_eq!(answer.unwrap().unwrap(), (n - 1).to_string());
        questions.send(n.to_string()).await.unwrap();
    }
    drop(questions);
    assert_eq!(all(answers).await.unwrap(), ["4"]);
}

#[tokio::test]
async fn every_kind_of_call_passes_in_clear_text() {
    let stage = Stage::start(&site(serve(None).await, ", protocol: h2c", ""));
    call_in_every_way(&mut client(&stage).await).await;
}

#[tokio::test]
async fn every_kind_of_call_passes_over_tls() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let authority = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = params.self_signed(&authority).unwrap().pem();
    let issuer = Issuer::new(params, authority);
    let certificate = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    };
    let (chain, key) = certificate("app.internal");
    let address = serve(Some(ServerTlsConfig::new().identity(Identity::from_pem(chain, key)))).await;
    let (chain, key) = certificate("shop.example");
    let tls = format!(", protocol: auto, tls: {{ ca_pem: {ca_pem:?}, server_name: app.internal }}");
    let site = site(address, &tls, "").replace("protocol: http }", "protocol: https, certificates: [shop] }");
    let stage = Stage::with_certificates(&site, vec![("shop".to_owned(), chain, key)]);
    let channel = Channel::from_shared(format!("https://{}", stage.address("web"))).unwrap();
    let trust =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&ca_pem)).domain_name("shop.example");
    let channel = channel
        .origin("https://shop.example".parse().unwrap())
        .tls_config(trust)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client = Client::new(channel);
    client.ready().await.unwrap();
    call_in_every_way(&mut client).await;
}

#[tokio::test]
async fn statuses_come_through() {
    let stage = Stage::start(&site(serve(None).await, ", protocol: h2c", ""));
    let mut client = client(&stage).await;
    let early = client.unary(Request::new(String::new()), path("Fail"), Texts::default()).await.unwrap_err();
    assert_eq!(
        (early.code(), early.message()),
        (Code::FailedPrecondition, "not now"),
        "a head that is trailers"
    );
    client.ready().await.unwrap();
    let answers = client
        .server_streaming(Request::new("a".to_owned()), path("FailLate"), Texts::default())
        .await
        .unwrap();
    let mut answers = answers.into_inner();
    assert_eq!(answers.next().await.unwrap().unwrap(), "a");
    let late = answers.next().await.unwrap().unwrap_err();
    assert_eq!((late.code(), late.message()), (Code::Aborted, "too late"), "trailers after messages");
}

/// An endpoint that knows no time: it never ends a call, and to `HangLate` it sends a head first.
async fn serve_for_ever() -> SocketAddr {
    support::serve_raw(Arc::default(), |stream, _| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut held = Vec::new();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let late = request.uri().path().ends_with("HangLate");
            let body = late.then(|| respond.send_response(head, false).unwrap());
            held.push((request, respond, body));
        }
    })
    .await
}

/// The status of a call and its reason, wherever they come: in the head or after the messages. This client has no clock
/// of its own.
async fn status_of(stage: &Stage, name: &str, timeout: &str) -> (String, String) {
    let stream = TcpStream::connect(stage.address("web")).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    // One message: not compressed, three bytes, of which the last is the text.
    let message = Full::<bytes::Bytes>::from(&b"\0\0\0\0\x03\x0a\x01a"[..]);
    let request = http::Request::post(format!("http://a.example/test.Calls/{name}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout)
        .body(message)
        .unwrap();
    let answered = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("an answer");
    let (head, body) = answered.unwrap().into_parts();
    assert_eq!(head.headers["content-type"], "application/grpc");
    let trailers = body.collect().await.unwrap().trailers().cloned();
    let fields = trailers.unwrap_or(head.headers);
    let text = |name: &str| fields[name].to_str().unwrap().to_owned();
    (text("grpc-status"), text("grpc-message"))
}

#[tokio::test]
async fn nobody_waits_longer_than_the_caller_said() {
    let stage = Stage::start(&site(serve_for_ever().await, ", protocol: h2c", ""));
    for name in ["Hang", "HangLate"] {
        let began = Instant::now();
        let (status, message) = status_of(&stage, name, "300m").await;
        assert_eq!((status.as_str(), message.as_str()), ("4", "upstream_response_timeout"), "{name}");
        assert!(began.elapsed() >= Duration::from_millis(300), "{name}");
    }
    assert_eq!(stage.metric("shoal_failures_total{reason=\"upstream_response_timeout\"}"), 2);
}

#[tokio::test]
async fn failures_are_told_in_its_own_words() {
    let dead = Stage::start(&site(nowhere().await, ", protocol: h2c", ""));
    let mut client = client(&dead).await;
    let check = |status: Status, code: Code, message: &str| {
        assert_eq!((status.code(), status.message()), (code, message));
    };
    let refused =
        client.unary(Request::new(String::new()), path("Echo"), Texts::default()).await.unwrap_err();
    check(refused, Code::Unavailable, "upstream_connect_failed");
    client.ready().await.unwrap();
    let elsewhere = PathAndQuery::from_static("/other.Calls/Echo");
    let unknown = client.unary(Request::new(String::new()), elsewhere, Texts::default()).await.unwrap_err();
    check(unknown, Code::Unimplemented, "node_no_route");
}
