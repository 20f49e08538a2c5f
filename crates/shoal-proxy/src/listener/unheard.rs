//! What never became a request: a head that cannot be read, is too large or does not end, TLS where it is not spoken, plain
//! HTTP where it is. It is refused like any other: with a body, an id, a line in the access log, and its metrics.

use std::rc::Rc;
use std::time::Duration;

use shoal_policy::failure::Failure;
use shoal_policy::gate::Rule;
use shoal_policy::http1::Unreadable;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::connection::Connection;
use crate::exchange::{Exchange, Record};
use crate::refusal;

/// Longest time for the last words to a downstream that breaks the rules.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

/// Why nothing was heard.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unheard {
    /// It broke a rule before there was a head.
    Broken(Rule),
    /// The head is larger than it may be.
    TooLarge,
    /// The head takes too long.
    Late,
}

impl From<Unreadable> for Unheard {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::LineEnd => Self::Broken(Rule::LineEnd),
            Unreadable::Malformed => Self::Broken(Rule::Unparsable),
            Unreadable::Target => Self::Broken(Rule::Target),
            Unreadable::TargetTooLong => Self::Broken(Rule::UriTooLong),
            Unreadable::TooLarge => Self::TooLarge,
        }
    }
}

impl Unheard {
    /// Plain HTTP, where TLS is spoken. The answer is in plain text, too, so that it may be shown.
    pub(super) const PLAIN_HTTP: Self = Self::Broken(Rule::PlainHttp);
    /// TLS, where plain HTTP is spoken.
    pub(super) const UNEXPECTED_TLS: Self = Self::Broken(Rule::UnexpectedTls);

    fn failure(self) -> Failure {
        match self {
            Self::Broken(rule) => rule.failure(),
            Self::TooLarge => Failure::HeadTooLarge,
            Self::Late => Failure::DownstreamTimeout,
        }
    }

    fn rule(self) -> Option<Rule> {
        match self {
            Self::Broken(rule) => Some(rule),
            Self::TooLarge | Self::Late => None,
        }
    }
}

/// Refuses it, as a request of its own, and ends the connection.
pub(super) async fn refuse(
    connection: &Rc<Connection>,
    mut stream: impl AsyncWrite + Unpin,
    unheard: Unheard,
) {
    let worker = &connection.worker;
    let (failure, rule) = (unheard.failure(), unheard.rule());
    if let Some(rule) = rule {
        worker.metrics.refuse(rule);
    }
    let mut exchange = Exchange::begin(connection);
    exchange.fail(failure);
    exchange.status = failure.status();
    exchange.complete = true;
    let request_id = worker.next_request_id();
    if connection.logs_request() {
        let request_id = Some(request_id.clone());
        exchange.record = Some(Box::new(Record { logged: true, request_id, ..Record::default() }));
    }
    let case = connection.settings.view.header_case;
    let (bytes, body) = refusal::last_words(failure, rule, request_id, &worker.own, case);
    let said = timeout(FAREWELL, async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    });
    exchange.complete = matches!(said.await, Ok(Ok(())));
    exchange.response_bytes = if exchange.complete { body as u64 } else { 0 };
    drop(exchange);
    // What was not read of it would reset the connection, and the answer with it.
    connection.state.set_unread(true);
    // Whoever does not listen goes without.
    _ = timeout(FAREWELL, stream.shutdown()).await;
}
