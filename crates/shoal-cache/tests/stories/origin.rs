//! An origin that does as it is told.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::request::Parts;
use http::{HeaderMap, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use shoal_cache::{Fetch, FetchFuture, FetchNotes, FetchTrace, UntilClose};
use shoal_model::view::RouteView;
use shoal_policy::failure::Failure;
use tokio::sync::Semaphore;

use crate::edition::Edition;

/// The origin: answers from a script, and can be held back.
pub struct Origin {
    pub requests: RefCell<Vec<Parts>>,
    script: RefCell<VecDeque<Reply>>,
    /// What it answers once the script is over.
    always: RefCell<Option<Reply>>,
    /// What it has instead, and gives out by ranges.
    edition: RefCell<Option<Edition>>,
    gate: Arc<Semaphore>,
    is_gated: Cell<bool>,
}

/// One answer of the origin.
#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub fields: Vec<(&'static str, String)>,
    pub body: Vec<&'static str>,
    /// The body breaks off after its last piece.
    pub breaks: bool,
    /// Every piece but the first waits for [`Origin::let_go`].
    pub drips: bool,
    /// It ends where its connection does.
    pub until_close: bool,
    /// Instead of an answer.
    pub failure: Option<Failure>,
}

pub fn reply(cache_control: &str, body: &'static str) -> Reply {
    Reply {
        status: 200,
        fields: vec![("cache-control", cache_control.to_owned())],
        body: vec![body],
        breaks: false,
        drips: false,
        until_close: false,
        failure: None,
    }
}

impl Reply {
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, value.to_owned()));
        self
    }

    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub fn broken(mut self) -> Self {
        self.breaks = true;
        self
    }

    pub fn dripping(mut self, body: Vec<&'static str>) -> Self {
        self.body = body;
        self.drips = true;
        self
    }

    pub fn until_close(mut self) -> Self {
        self.until_close = true;
        self
    }

    pub fn failed(failure: Failure) -> Self {
        Self { failure: Some(failure), ..reply("", "") }
    }
}

impl Origin {
    pub fn new() -> Self {
        Self {
            requests: RefCell::default(),
            script: RefCell::default(),
            always: RefCell::default(),
            edition: RefCell::default(),
            gate: Arc::new(Semaphore::new(0)),
            is_gated: Cell::new(false),
        }
    }

    pub fn say(&self, reply: Reply) {
        self.script.borrow_mut().push_back(reply);
    }

    pub fn say_always(&self, reply: Reply) {
        *self.always.borrow_mut() = Some(reply);
    }

    /// Once the script is over, it answers out of `edition`.
    pub fn publish(&self, edition: Edition) {
        *self.edition.borrow_mut() = Some(edition);
    }

    /// The `Range` and `If-Range` of every request from the `n`th on; `-` where there is none.
    pub fn ranges_from(&self, n: usize) -> Vec<(String, String)> {
        let requests = self.requests.borrow();
        let field = |head: &Parts, name: &str| {
            head.headers.get(name).map_or("-", |value| value.to_str().unwrap()).to_owned()
        };
        requests[n..].iter().map(|head| (field(head, "range"), field(head, "if-range"))).collect()
    }

    /// Its standing answer with one more field.
    pub fn always_with(&self, name: &'static str, value: &str) -> Reply {
        self.always.borrow().clone().expect("it has a standing answer").with(name, value)
    }

    pub fn fetches(&self) -> usize {
        self.requests.borrow().len()
    }

    /// From now on, every answer waits for [`Self::let_go`].
    pub fn hold(&self) {
        self.is_gated.set(true);
    }

    pub fn let_go(&self, answers: usize) {
        self.gate.add_permits(answers);
    }
}

/// The way of a worker to the origin.
pub struct Fetcher(pub Rc<Origin>);

impl Fetch for Fetcher {
    fn fetch(&self, _: Arc<RouteView>, head: Parts, trace: Option<FetchTrace>) -> FetchFuture {
        let origin = self.0.clone();
        let from_edition = origin.edition.borrow().as_ref().map(|edition| edition.answer(&head));
        origin.requests.borrow_mut().push(head);
        if let Some(trace) = trace {
            trace.note(FetchNotes { tries: 1, ..FetchNotes::default() });
        }
        let next = origin.script.borrow_mut().pop_front();
        let next = next.or(from_edition);
        let reply = next.or_else(|| origin.always.borrow().clone()).expect("the origin has nothing to say");
        Box::pin(async move {
            if origin.is_gated.get() {
                origin.gate.acquire().await.unwrap().forget();
            }
            if let Some(failure) = reply.failure {
                return Err(failure);
            }
            let pieces =
                reply.body.into_iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
            let end = reply.breaks.then_some(Err(Failure::UpstreamReset));
            let frames = pieces.chain(end).collect::<Vec<_>>().into_iter().enumerate();
            let gate = origin.gate.clone();
            let body = StreamBody::new(futures_util::stream::iter(frames).then(move |(n, frame)| {
                let gate = gate.clone();
                async move {
                    if reply.drips && n > 0 {
                        gate.acquire().await.unwrap().forget();
                    }
                    frame
                }
            }));
            let mut response = Response::builder().status(reply.status);
            if reply.until_close {
                response = response.extension(UntilClose);
            }
            for (name, value) in reply.fields {
                response = response.header(name, value);
            }
            Ok(response.body(body.boxed_unsync()).unwrap())
        })
    }

    fn sign(&self, fields: &mut HeaderMap) {
        fields.insert("via", http::HeaderValue::from_static("1.1 town"));
    }
}
