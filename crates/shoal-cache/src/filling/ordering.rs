//! Asking for chunks that are missing: of the owners, of those that were owners, of the region that shields the upstream, and
//! of the origin, in this order. An answer has just these, of this version, or it is none.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::Response;
use http::request::Parts;
use shoal_policy::cache::chunks::Run;
use shoal_policy::cache::fill_request::limit_to_shared;
use shoal_policy::cache::sources::{Asked, Hop, Role, Situation, plan};
use shoal_policy::cache::validation::{add_range, strong_validator};
use shoal_policy::failure::Failure;

use super::bringing::{Delivery, Pace};
use super::completing::accepts;
use super::from_owners::is_of_origin;
use crate::body::OriginBody;
use crate::clock::now_ms;
use crate::fill::{Fill, FillSource, Landing, UnderWay};
use crate::lookup::Wanted;
use crate::object::{Object, UNCOPIED};
use crate::peer::client::{PeerAnswer, PeerObject};
use crate::task::FillTask;
use crate::worker::WorkerCache;

/// An answer with the chunks that were asked for.
pub(super) enum Delivered {
    ByPeer(ByPeer),
    ByOrigin(ByOrigin),
}

/// What a peer gave.
pub(super) struct ByPeer {
    body: OriginBody,
    /// As the head of a fill has it.
    pub(super) source: FillSource,
    copied_under: u64,
    /// How far the request has come that it was asked for.
    hop: Hop,
}

/// What the origin gave, when asked at that time.
pub(super) struct ByOrigin {
    pub(super) response: Response<OriginBody>,
    pub(super) request_ms: u64,
    under_way: UnderWay,
}

/// Why there are no chunks.
pub(super) enum NoDelivery {
    Failed(Failure),
    /// The origin said this, when asked at that time.
    Other(Response<OriginBody>, u64),
}

impl ByPeer {
    pub(super) fn delivery(self, header: &Arc<Object>, run: Run, pace: &Rc<Pace>) -> Delivery {
        let (header, pace) = (header.clone(), pace.clone());
        let Self { body, copied_under, hop, .. } = self;
        Delivery { header, run, body, pace, under_way: None, copied_under, hop }
    }
}

impl ByOrigin {
    pub(super) fn delivery(self, header: &Arc<Object>, run: Run, pace: &Rc<Pace>) -> Delivery {
        let (header, pace, under_way) = (header.clone(), pace.clone(), Some(self.under_way));
        let (body, copied_under, hop) = (self.response.into_body(), UNCOPIED, Hop::Last);
        Delivery { header, run, body, pace, under_way, copied_under, hop }
    }
}

impl WorkerCache {
    /// Asks for the chunks of `run`, the first of which `fill` is for.
    pub(super) async fn ask_for(
        &self,
        task: &FillTask,
        header: &Arc<Object>,
        run: Run,
        fill: &Fill,
    ) -> Result<Delivered, NoDelivery> {
        let internal = NoDelivery::Failed(Failure::Internal);
        let (Some(validator), Some(length)) = (strong_validator(&header.fields), header.body.length()) else {
            return Err(internal);
        };
        let Some(span) = run.span(length) else { return Err(internal) };
        let mut head = task.head.clone();
        add_range(&mut head.headers, &validator, span, span.last + 1 == length);
        let wanted = Wanted { object: header.clone(), span, is_part: true };
        if let Some(brought) = self.ask_peers_for(task, &wanted, &head, fill).await? {
            return Ok(Delivered::ByPeer(brought));
        }
        limit_to_shared(&mut head.headers, &task.rule, &header.selecting().selectors());
        let begun = self.cache.fill_limits.begin(&task.route.upstream).await;
        let under_way = begun.map_err(NoDelivery::Failed)?;
        self.cells.origin_fetches.count();
        let request_ms = now_ms();
        fill.ask(self.cache.purges.applied(), request_ms);
        let asked = Instant::now();
        let fetched = self.fetch.fetch(task.route.clone(), head, task.trace.clone()).await;
        self.cells.origin_times.note(asked.elapsed());
        let response = fetched.map_err(NoDelivery::Failed)?;
        match accepts(header, span, length, &response) {
            true => Ok(Delivered::ByOrigin(ByOrigin { response, request_ms, under_way })),
            false => Err(NoDelivery::Other(response, request_ms)),
        }
    }

    /// Asks the nodes that the plan of a fill names, in its order, for what `head` asks for.
    async fn ask_peers_for(
        &self,
        task: &FillTask,
        wanted: &Wanted,
        head: &Parts,
        fill: &Fill,
    ) -> Result<Option<ByPeer>, NoDelivery> {
        let owners = self.cache.placement.owners(task.fill().key);
        if !self.keeps(&task.rule, owners) {
            return Ok(None);
        }
        let plan = plan(&Situation { is_known: false, ..self.situation(task, owners) });
        let filling = |asked: Asked| {
            let second = asked.second.map(|second| (second, Role::Deputy, asked.hop));
            [Some((asked.primary, Role::Primary, asked.hop)), second].into_iter().flatten()
        };
        let peeks = plan.peeks.into_iter().flatten().map(|peer| (peer, Role::Holder, Hop::Last));
        // As it was when others could decide whether to wait for it.
        let asked = plan.owners.filter(|_| fill.asks_owners());
        let sources = asked.into_iter().flat_map(filling).chain(peeks);
        for (peer, role, hop) in sources.chain(plan.shield.into_iter().flat_map(filling)) {
            fill.ask_elsewhere();
            match self.ask_peer_for(task, head, peer, role, hop).await {
                PeerAnswer::Object(object) if self.is_as_wanted(task, wanted, &object) => {
                    if object.is_hit {
                        self.cells.peer_hits.count();
                    }
                    // What a former owner or another region has given is not where its second copy belongs.
                    let copied_under =
                        if owners.includes(peer) { self.cache.placement.id() } else { UNCOPIED };
                    let source = FillSource::Peer { member: object.member.clone(), is_hit: object.is_hit };
                    let hop = task.asker.hop();
                    return Ok(Some(ByPeer { body: object.into_body(), source, copied_under, hop }));
                }
                PeerAnswer::Failed(failure) if is_of_origin(failure) => {
                    return Err(NoDelivery::Failed(failure));
                }
                PeerAnswer::Unreachable => self.cells.peer_errors.count(),
                PeerAnswer::Object(_)
                | PeerAnswer::Own(_)
                | PeerAnswer::Direct(_)
                | PeerAnswer::Alone
                | PeerAnswer::Miss
                | PeerAnswer::Failed(_) => {}
            }
        }
        Ok(None)
    }

    /// What a peer gives is what is wanted, of this version, and nothing that it has not heard of speaks against that.
    fn is_as_wanted(&self, task: &FillTask, wanted: &Wanted, object: &PeerObject) -> bool {
        let Wanted { object: header, span, .. } = wanted;
        let is_it = |length| accepts(header, *span, length, &object.response);
        header.body.length().is_some_and(is_it)
            // Else it may be from after a purge of the header that is still to be heard of here.
            && object.meta.fill_seq <= self.cache.purges.applied()
            && self.is_untouched(task.fill(), &object.meta)
            && !self.cache.changed_since(header.key, object.received_ms)
    }

    /// Has `run` brought, now that some of the object was passed on: bytes of another version never follow.
    pub(super) async fn order(
        self: &Rc<Self>,
        task: &FillTask,
        header: &Arc<Object>,
        run: Run,
        landing: Landing,
        pace: &Rc<Pace>,
    ) -> Result<(), Failure> {
        let delivery = match self.ask_for(task, header, run, landing.fill()).await {
            Ok(Delivered::ByPeer(brought)) => brought.delivery(header, run, pace),
            Ok(Delivered::ByOrigin(brought)) => brought.delivery(header, run, pace),
            Err(NoDelivery::Failed(failure)) => {
                landing.fill().fail(failure);
                return Err(failure);
            }
            Err(NoDelivery::Other(response, _)) => {
                if !response.status().is_server_error() {
                    self.cache.discard(header);
                }
                landing.fill().fail(Failure::UpstreamReset);
                return Err(Failure::UpstreamReset);
            }
        };
        self.bring(delivery, landing);
        Ok(())
    }
}
