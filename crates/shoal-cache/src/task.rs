//! One fill as work to do: what to ask, whom, and for whom.

use std::sync::Arc;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, Uri};
use shoal_model::NodeId;
use shoal_model::view::{CacheRuleView, QueryView, RouteView};
use shoal_policy::cache::directives::Wishes;
use shoal_policy::cache::query::write_counted;
use shoal_policy::cache::refusal::Refusal;
use shoal_policy::cache::sources::Hop;
use shoal_policy::cache::validation::{asked_tags, remove_conditions};
use tokio::sync::oneshot;

use crate::body::OriginBody;
use crate::conditions::Conditions;
use crate::fetch_trace::FetchTrace;
use crate::fill::{Fill, Landing, UnderWay};
use crate::lookup::{Found, Probe};
use crate::portion::Portion;
use crate::promotion::Promotion;

/// One fill as work to do. Dropping it ends the fill, so no request waits for a fill that nobody works on.
pub(crate) struct FillTask {
    landing: Landing,
    /// The request that began the fill, as it would be sent to the origin, without conditions; with its range, if the fill is
    /// for that part.
    pub(crate) head: Parts,
    /// What of that request may make less than the object enough.
    pub(crate) conditions: Conditions,
    pub(crate) route: Arc<RouteView>,
    pub(crate) rule: CacheRuleView,
    pub(crate) wishes: Wishes,
    /// The object to validate, or to complete.
    pub(crate) found: Option<Found>,
    /// What the fill is for.
    pub(crate) portion: Portion,
    pub(crate) asker: Asker,
    /// Only what the owners have: the origin is not asked.
    pub(crate) is_peek: bool,
    /// What comes in is kept although this node does not own it.
    pub(crate) promotion: Option<Promotion>,
    /// What downstream has already, where its answer comes from here.
    pub(crate) asked_tags: Vec<HeaderValue>,
    /// Its place among the fills of the upstream, once the origin is asked.
    pub(crate) under_way: Option<UnderWay>,
    /// Others wait for what this one finds out: how large the whole is, and of which version.
    pub(crate) description: Option<Landing>,
    /// Takes the response if it is for the first request alone.
    pub(crate) own: Option<oneshot::Sender<Unshared>>,
    /// The first request wants to know what the origin was asked.
    pub(crate) trace: Option<FetchTrace>,
}

/// A response for the request that began a fill alone.
pub(crate) struct Unshared {
    pub(crate) response: Response<OriginBody>,
    /// Why it is not stored, where that was judged.
    pub(crate) why: Option<Refusal>,
}

/// Who began a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A request that came in here.
    Downstream,
    /// Another node, whose request has come this far.
    Peer(NodeId, Hop),
}

impl Asker {
    /// How far the request has come.
    pub(crate) const fn hop(self) -> Hop {
        match self {
            Self::Downstream => Hop::Ingress,
            Self::Peer(_, hop) => hop,
        }
    }

    /// The node that asked.
    pub(crate) const fn node(self) -> Option<NodeId> {
        match self {
            Self::Downstream => None,
            Self::Peer(node, _) => Some(node),
        }
    }
}

/// What a task is made from.
pub(crate) struct TaskSeed<'a> {
    pub(crate) head: &'a Parts,
    pub(crate) route: &'a Arc<RouteView>,
    pub(crate) rule: &'a CacheRuleView,
    pub(crate) probe: &'a Probe,
    pub(crate) asker: Asker,
}

impl TaskSeed<'_> {
    pub(crate) fn task(&self, landing: Landing, own: Option<oneshot::Sender<Unshared>>) -> FillTask {
        let mut head = whole_request(self.head, self.rule);
        self.probe.portion.write(&self.head.headers, &mut head.headers);
        let is_for_downstream = own.is_some() && self.asker == Asker::Downstream;
        FillTask {
            landing,
            asked_tags: if is_for_downstream { asked_tags(&self.head.headers) } else { Vec::new() },
            head,
            conditions: Conditions::of(self.head, &self.probe.portion),
            route: self.route.clone(),
            rule: self.rule.clone(),
            wishes: self.probe.wishes,
            found: self.probe.found.clone(),
            portion: self.probe.portion.clone(),
            asker: self.asker,
            is_peek: false,
            promotion: None,
            under_way: None,
            description: None,
            own,
            trace: None,
        }
    }
}

impl FillTask {
    pub(crate) fn fill(&self) -> &Arc<Fill> {
        self.landing.fill()
    }
}

/// Asks for the whole of what `asked` asks for, without conditions.
pub(crate) fn whole_request(asked: &Parts, rule: &CacheRuleView) -> Parts {
    let mut request = Request::new(());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = counted_uri(&asked.uri, rule);
    *request.version_mut() = asked.version;
    *request.headers_mut() = asked.headers.clone();
    remove_conditions(request.headers_mut());
    request.into_parts().0
}

/// What the origin is asked for: nothing that does not count reaches it, or else it could choose the response.
pub(crate) fn counted_uri(uri: &Uri, rule: &CacheRuleView) -> Uri {
    let mut text = Vec::new();
    let path_and_query = uri.path_and_query().filter(|_| rule.key.query != QueryView::All);
    let Some(path_and_query) = path_and_query else { return uri.clone() };
    write_counted(&mut text, &rule.key.query, path_and_query.as_str());
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::from_maybe_shared(text).ok();
    // It is a part of what was a URI.
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}
