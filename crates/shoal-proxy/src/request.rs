//! A request, from the gate to its response: the whole story.

use std::convert::identity;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_LOCATION, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::request::Parts;
use http::response::Parts as ResponseHead;
use http::{Method, Response, StatusCode, Version};
use shoal_cache::{Bypass, CacheRequest, FetchTrace, Lookup, Sent};
use shoal_model::site::HeaderCase;
use shoal_model::view::{CacheRuleView, RouteView};
use shoal_policy::cache::invalidation::is_unsent;
use shoal_policy::cache::status::says_hit;
use shoal_policy::failure::Failure;
use shoal_policy::forwarding::{
    Client, OwnFields, RequestFields, believed_request_id, enter_trace, prepare_request, take_hop,
};
use shoal_policy::gate::{Admitted, Field, Rule};
use shoal_policy::grpc;
use shoal_policy::http1::Wire;
use shoal_policy::shedding::MemoryLevel;

use crate::answer::Answer;
use crate::body::Payload;
use crate::downstream_body::BodyLimits;
use crate::exchange::{Exchange, Record};
use crate::fetch::detach;
use crate::hints::pass_on_during;
use crate::incoming::Incoming;
use crate::listener::{Connection, Order};
use crate::metrics::{CacheUse, Limit};
use crate::pace::MinRate;
use crate::request_body::{Broken, RequestBody};
use crate::upstream::{Reply, UpstreamBody, forward, set_session_cookie};
use crate::{purge, refusal, tunnel};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Serves one request: makes the answer to it. An error closes the connection without one: there is nobody to read it.
pub(crate) async fn serve(
    connection: &Rc<Connection>,
    head: &mut Parts,
    incoming: Incoming,
    answer: &mut Answer,
) -> Result<(), Broken> {
    let version = head.version;
    let mut request_id = connection.worker.next_request_id();
    let made = make_answer(connection, head, incoming, &mut request_id, answer).await;
    if let Err(failure) = made {
        let exchange = &mut answer.body.exchange;
        exchange.fail(failure);
        if failure == Failure::DownstreamReset {
            exchange.status = failure.status();
            return Err(Broken(failure));
        }
        if let Some(record) = &mut exchange.record {
            record.request_id.get_or_insert_with(|| request_id.clone());
        }
        let refused = match exchange.grpc {
            true => refusal::grpc_response(failure),
            false => refusal::response(failure, &request_id, &connection.worker.own),
        };
        answer.put(refused, identity);
        if refusal::closes_connection(failure, connection.state.is_h2()) {
            close_after(connection, &mut answer.head);
        }
    }
    finish(connection, version, request_id, answer);
    Ok(())
}

/// Gate, route, upgrade, cache, origin.
async fn make_answer(
    connection: &Rc<Connection>,
    head: &mut Parts,
    mut incoming: Incoming,
    request_id: &mut HeaderValue,
    answer: &mut Answer,
) -> Result<(), Failure> {
    let exchange = &mut answer.body.exchange;
    let worker = &connection.worker;
    let upgradable = tunnel::take_upgradable(&mut incoming, connection);
    exchange.grpc = grpc::is_call(head.version, &head.method, &head.headers);
    let client = Client::of(&head.headers, &connection.caller, &connection.settings.view.trusted_proxies);
    let admitted = pass_gate(connection, head, &incoming, client, exchange)?;
    let route = find_route(connection, &admitted, head)?;
    exchange.route = Some(route.clone());
    name_and_trace(connection, head, &admitted, client, request_id, exchange);
    if let Some(status) = take_hop(&head.method, &mut head.headers) {
        answer.head.status = status;
        return Ok(());
    }
    // What a cached answer varies by must be true already.
    connection.vouch_for_downstream(&mut head.headers, admitted.present.has(Field::ClientCert));
    if let (Some(rule), None) = (&route.cache, &admitted.upgrade) {
        let has_body = !incoming.is_end_stream();
        let request = cache_request(connection, &route, rule, &admitted, head, has_body);
        if let Some(ready) = connection.listener.sources.cache.ready(&request) {
            exchange.signed = true;
            exchange.cached = CacheUse::Hit;
            let lines =
                !connection.state.is_h2() && connection.settings.view.header_case == HeaderCase::Lower;
            answer.put_ready(ready, lines);
            return Ok(());
        }
        if let Some(rule) = purge::asked(&request) {
            let purged = Box::pin(purge::carry_out(connection, &request, rule, client.address)).await;
            answer.put(purged, identity);
            return Ok(());
        }
    }
    if route.cache.is_none() || admitted.upgrade.is_some() {
        connection.listener.valve.pass(worker)?;
    }

    // One of HTTP/1.0 would not know what a 100 is (RFC 9110 §10.1.1).
    let expects_continue =
        admitted.present.has(Field::Expect) && head.version != Version::HTTP_10 && !incoming.is_end_stream();
    let fields = RequestFields {
        caller: &connection.caller,
        client,
        proxies: &connection.settings.view.trusted_proxies,
        own: &worker.own,
        request_id,
        keep_trailers: route.trailers || exchange.grpc,
        keep_expect: expects_continue && !route.expect_timeout.is_zero(),
    };
    let mut own = prepare_request(head, &admitted, fields)?;
    if route.cache.is_some() || admitted.upgrade.is_some() {
        // What an answer may vary by has to be in its place, and a tunnel is opened with the head alone.
        if let Some(own) = own.take() {
            own.add_to(&mut head.headers);
        }
    }
    // Once more: `Connection` may have named the field.
    connection.vouch_for_downstream(&mut head.headers, false);

    if route.upstream.proxy_protocol.is_some()
        && let Some(ends) = connection.ends
    {
        head.extensions.insert(ends);
    }
    let exchange = &mut answer.body.exchange;
    let body = take_body(connection, &route, incoming, exchange.grpc, expects_continue)?;
    exchange.request_body = body.progress();

    if let (Some(upgrade), Some(upgradable)) = (&admitted.upgrade, upgradable) {
        if tunnel::is_possible(&route, upgrade) {
            return Box::pin(tunnel::open(connection, &route, head, upgrade, upgradable, answer)).await;
        }
        if upgrade.extended {
            return Err(Failure::UnknownProtocol);
        }
    }
    match &route.cache {
        None => from_origin(connection, &route, head, own, body, answer).await?,
        Some(rule) => Box::pin(from_cache(connection, &route, rule, &admitted, head, body, answer)).await?,
    }
    if route.upstream.sticky.is_some() {
        set_session_cookie(&mut answer.head);
    }
    Ok(())
}

/// Lets the request through, in canonical form, or counts the rule it breaks. The access log learns of both.
fn pass_gate(
    connection: &Connection,
    head: &mut Parts,
    incoming: &Incoming,
    client: Client,
    exchange: &mut Exchange,
) -> Result<Admitted, Failure> {
    let gate = &connection.settings.gate;
    let wire = head.extensions.remove::<Wire>().unwrap_or_default();
    let mut admitted = match tunnel::take_protocol(head) {
        None => gate.admit(head, wire, !incoming.is_end_stream()),
        Some(protocol) => gate.admit_extended(head, wire, protocol.as_str()),
    };
    if admitted.as_ref().is_ok_and(|admitted| connection.is_misdirected(admitted)) {
        admitted = Err(Rule::Misdirected);
    }
    if connection.logs_request() {
        let host =
            admitted.as_ref().map_or_else(|_| head.headers.get(HOST), |admitted| Some(&admitted.authority));
        let record = record(client, host.cloned(), head);
        exchange.record = Some(Box::new(Record { logged: true, ..record }));
    }
    let upgrade = admitted.as_ref().ok().and_then(|admitted| admitted.upgrade.as_ref());
    exchange.asked_upgrade = upgrade.is_some_and(|upgrade| !upgrade.extended);
    admitted.map_err(|rule| {
        connection.worker.metrics.refuse(rule);
        rule.failure()
    })
}

/// Settles what the request is called, in its log line and in traces: where it is to be followed, its span begins here.
fn name_and_trace(
    connection: &Connection,
    head: &mut Parts,
    admitted: &Admitted,
    client: Client,
    request_id: &mut HeaderValue,
    exchange: &mut Exchange,
) {
    let worker = &connection.worker;
    if let Some(believed) = believed_request_id(&head.headers, admitted, &connection.caller) {
        *request_id = believed.clone();
    }
    if let Some(record) = &mut exchange.record {
        record.request_id = Some(request_id.clone());
    }
    if let Some(tracing) = &connection.settings.view.tracing {
        let begins = tracing.sample.includes(worker.entropy());
        let span = enter_trace(&mut head.headers, begins, || worker.entropy());
        if let Some(collector) = exchange.follow(span) {
            let host = || Some(admitted.authority.clone());
            let record = exchange.record.get_or_insert_with(|| Box::new(record(client, host(), head)));
            record.collector = Some(collector);
            record.request_id = Some(request_id.clone());
        }
        if let Some(record) = &mut exchange.record {
            record.span = span;
        }
    }
}

fn find_route(connection: &Connection, admitted: &Admitted, head: &Parts) -> Result<Arc<RouteView>, Failure> {
    connection.worker.with_config(|config| {
        let listener = connection.listener_place(config);
        config.routes.find(listener, admitted.host(), head.uri.path()).cloned().ok_or(Failure::NoRoute)
    })
}

/// The body, to be read as it is needed. What says that it is too long is refused before the first byte.
fn take_body(
    connection: &Connection,
    route: &RouteView,
    incoming: Incoming,
    grpc: bool,
    expects_continue: bool,
) -> Result<RequestBody, Failure> {
    let keep_trailers = route.trailers || grpc;
    let limits = &connection.settings.view.limits;
    if incoming.size_hint().lower() > limits.max_body_bytes {
        return Err(Failure::BodyTooLarge);
    }
    let limits = BodyLimits {
        max_bytes: limits.max_body_bytes,
        // The side of a gRPC stream that only listens is silent for as long as the other may be.
        idle_timeout: match grpc {
            true => limits.body_idle_timeout.max(route.idle_timeout),
            false => limits.body_idle_timeout,
        },
        // Streams in both directions, as gRPC has them, may be slow by nature: their routes keep trailers.
        min_rate: MinRate {
            bytes_per_second: if keep_trailers { 0 } else { limits.min_rate },
            window: limits.min_rate_window,
        },
        keep_trailers,
        reserved_header: connection.settings.view.trusted_proxies.reserved_header.clone(),
        is_chunked: !connection.state.is_h2() && incoming.size_hint().exact().is_none(),
        expects_continue,
    };
    Ok(RequestBody::new(incoming, limits, &connection.worker.deadlines))
}

async fn from_origin(
    connection: &Connection,
    route: &Arc<RouteView>,
    head: &mut Parts,
    own: Option<Rc<OwnFields>>,
    body: RequestBody,
    answer: &mut Answer,
) -> Result<(), Failure> {
    let (worker, sources) = (&connection.worker, &connection.listener.sources);
    let exchange = &mut answer.body.exchange;
    let mut answered = UpstreamBody::default();
    let (trace, hints) = (&mut exchange.trace, Some(&connection.hints));
    let reply = Reply { head: &mut answer.head, body: &mut answered, trace, hints, is_fill: false };
    forward(worker, &sources.upstreams, route, head, own, body, reply).await?;
    exchange.trace.first_byte = Some(exchange.started.elapsed());
    answer.body.payload = Payload::Upstream(answered);
    Ok(())
}

async fn from_cache(
    connection: &Rc<Connection>,
    route: &Arc<RouteView>,
    rule: &CacheRuleView,
    admitted: &Admitted,
    head: &mut Parts,
    body: RequestBody,
    answer: &mut Answer,
) -> Result<(), Failure> {
    let sources = &connection.listener.sources;
    let has_body = body.has_bytes();
    let request = cache_request(connection, route, rule, admitted, head, has_body);
    let lookup = sources.cache.hit(&request);
    if !matches!(lookup, Lookup::Fresh(_)) {
        // What is here costs least when it is simply given.
        connection.listener.valve.pass(&connection.worker)?;
    }
    match lookup {
        Lookup::Fresh(response) => {
            answer.body.exchange.cached = CacheUse::Hit;
            answer.put(response, Payload::Cache);
        }
        Lookup::Bypass(Bypass::Method) => {
            // From now on, however this ends: what the origin may have changed is forgotten.
            let change = sources.cache.expect_change(&request);
            match from_origin(connection, route, head, None, body, answer).await {
                Ok(()) => {}
                Err(failure) if is_unsent(failure, answer.body.exchange.trace.tries) => {
                    change.spare();
                    return Err(failure);
                }
                Err(failure) => {
                    change.assume().await;
                    return Err(failure);
                }
            }
            let request = cache_request(connection, route, rule, admitted, head, has_body);
            let (sent, ()) = tokio::join!(
                change.settle(answer.head.status, &answer.head.headers),
                purge::forget_groups(connection, &request, &answer.head),
            );
            if head.method != Method::POST
                || route.trailers
                || !keep_shown(connection, &request, sent, answer)
            {
                answer.head.headers.append(CACHE_STATUS, sources.cache_statuses.method.clone());
            }
        }
        Lookup::Bypass(Bypass::Request) => {
            from_origin(connection, route, head, None, body, answer).await?;
            answer.head.headers.append(CACHE_STATUS, sources.cache_statuses.bypass.clone());
        }
        lookup @ (Lookup::Stale(_) | Lookup::Miss(_)) => {
            let exchange = &mut answer.body.exchange;
            exchange.cached = CacheUse::Miss;
            let trace = FetchTrace::default();
            let request = CacheRequest { trace: Some(&trace), ..request };
            let answering = Box::pin(sources.cache.answer(request, lookup));
            let answered = pass_on_during(answering, |cx| {
                for (status, fields) in trace.take_said(cx) {
                    connection.hints.add(status, fields);
                }
            })
            .await;
            if exchange.record.is_some() {
                exchange.trace.adopt(trace.notes(), exchange.started);
            }
            match answered {
                shoal_cache::Answer::Response(response) => {
                    // Ours is the last one.
                    let member = response.headers().get_all(CACHE_STATUS).iter().next_back();
                    if member.is_some_and(says_hit) {
                        exchange.cached = CacheUse::Hit;
                    }
                    answer.put(response, Payload::Cache);
                }
                shoal_cache::Answer::Failed(failure) => return Err(failure),
                shoal_cache::Answer::Direct { cache_status } => {
                    from_origin(connection, route, head, None, body, answer).await?;
                    answer.head.headers.append(CACHE_STATUS, cache_status);
                }
            }
        }
    }
    Ok(())
}

/// An answer to a POST that shows what a GET would is kept on its way; says whether it is.
fn keep_shown(connection: &Connection, request: &CacheRequest<'_>, sent: Sent, answer: &mut Answer) -> bool {
    if !answer.head.headers.contains_key(CONTENT_LOCATION) {
        return false;
    }
    let cache = &connection.listener.sources.cache;
    let head = std::mem::replace(&mut answer.head, Response::new(()).into_parts().0);
    let head = Response::from_parts(head, ());
    let shown = cache.judge_shown(request, sent, &head);
    let (head, ()) = head.into_parts();
    let Some(shown) = shown else {
        answer.head = head;
        return false;
    };
    match std::mem::replace(&mut answer.body.payload, Payload::Empty) {
        Payload::Upstream(body) => {
            let response = Response::from_parts(head, detach(body, None));
            answer.put(cache.keep_shown(request, shown, response), Payload::Cache);
            true
        }
        payload @ (Payload::Empty | Payload::Text(_) | Payload::Cache(_)) => {
            answer.head = head;
            answer.body.payload = payload;
            false
        }
    }
}

fn cache_request<'a>(
    connection: &Connection,
    route: &'a Arc<RouteView>,
    rule: &'a CacheRuleView,
    admitted: &'a Admitted,
    head: &'a Parts,
    has_body: bool,
) -> CacheRequest<'a> {
    let host = admitted.authority_text();
    CacheRequest { head, https: connection.settings.gate.https, host, route, rule, has_body, trace: None }
}

/// Signs the response, says whether the connection goes on, and ties the end of the exchange to the end of the body.
fn finish(connection: &Rc<Connection>, version: Version, mut request_id: HeaderValue, answer: &mut Answer) {
    // Ours is the last one.
    let cache_status =
        answer.body.exchange.record.as_ref().and_then(|_| answer.last_field(&CACHE_STATUS).cloned());
    let Answer { head, shared, request_id: beside, body } = answer;
    let own = &connection.worker.own;
    if !body.exchange.signed {
        own.sign(&mut head.headers);
    }
    if connection.state.is_h2() {
        // It is never the same: in the table that both ends keep it would only drive out the fields that are. Once it is
        // there for its name.
        request_id.set_sensitive(connection.has_named_request_id.replace(true));
    }
    match shared {
        Some(_) => *beside = Some(request_id),
        None => own.set_request_id(&mut head.headers, request_id),
    }
    let limits = &connection.settings.view.limits;
    let upgrade_refused = body.exchange.asked_upgrade && body.exchange.tunnel.is_none();
    // Before HTTP/1.1 only the end of the connection can be that of a body whose length nobody knows.
    let ends_body = version < Version::HTTP_11 && body.payload.size_hint().exact().is_none();
    let is_last = connection.state.requests() >= limits.max_requests_per_connection;
    if is_last {
        connection.state.reached(Limit::MaxRequestsPerConnection);
    }
    if is_last
        || connection.state.order() != Order::GoOn
        || connection.listener.valve.memory() != MemoryLevel::Ample
        || upgrade_refused
        || ends_body
    {
        close_after(connection, head);
    }
    let exchange = &mut body.exchange;
    exchange.status = head.status.as_u16();
    if exchange.route.is_some() && exchange.cached != CacheUse::Hit {
        let first_byte = exchange.trace.first_byte;
        exchange.answered = Some(first_byte.unwrap_or_else(|| exchange.started.elapsed()));
    }
    if let Some(record) = &mut exchange.record {
        record.cache_status = cache_status;
    }
    let keep_trailers = exchange.grpc || exchange.route.as_ref().is_some_and(|route| route.trailers);
    body.begin(keep_trailers);
}

/// The connection ends after this response: said by a field on HTTP/1, by GOAWAY on HTTP/2.
fn close_after(connection: &Connection, head: &mut ResponseHead) {
    let upgraded = head.status == StatusCode::SWITCHING_PROTOCOLS;
    if !connection.state.is_h2() && !upgraded {
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    connection.state.give(Order::Finish);
}

fn record(client: Client, host: Option<HeaderValue>, head: &Parts) -> Record {
    Record {
        logged: false,
        collector: None,
        method: Some(head.method.clone()),
        version: head.version,
        target: head.uri.to_string(),
        host,
        client_addr: Some(client.address),
        request_id: None,
        cache_status: None,
        user_agent: head.headers.get(USER_AGENT).cloned(),
        span: None,
    }
}
