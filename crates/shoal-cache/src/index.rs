//! The sharded index, asked over gRPC: what this node holds of a key, and what else nodes ask of each other's caches.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::ETAG;
use shoal_policy::cache::fields::Fields;
use shoal_policy::cache::key::{ObjectKey, route_of, url_of};
use shoal_policy::cache::purge::Validity;
use shoal_policy::cache::selecting::Selecting;
use shoal_proto::cache::cache_service_server::CacheService;
use shoal_proto::cache::{
    HotObject, HottestOrder, HottestRequest, HottestResponse, InvalidateRequest, InvalidateResponse,
    LookupRequest, LookupResponse, ObjectInfo, PurgeVerdict, SelectingField, WarmRequest, WarmResponse,
};
use tonic::{Request, Response, Status};

use crate::clock::now_ms;
use crate::holdings::Holding;
use crate::hottest::{Hot, Order};
use crate::node::Cache;
use crate::object::Object;

/// Objects that are told of at most where the hottest are asked for.
const MAX_HOTTEST: usize = 1000;
/// For so long are hits counted at most.
const MAX_WINDOW: Duration = Duration::from_secs(10);

/// Answers for what this node holds.
struct CacheIndex(Arc<Cache>);

impl Cache {
    /// The gRPC half of the peer protocol (`proto/shoal/cache/v1`): what is stored here, what is to be forgotten, what is
    /// used most. Whoever calls it is taken to be of the cluster.
    pub fn service(self: &Arc<Self>) -> impl CacheService + use<> {
        CacheIndex(self.clone())
    }
}

#[tonic::async_trait]
impl CacheService for CacheIndex {
    async fn lookup(&self, request: Request<LookupRequest>) -> Result<Response<LookupResponse>, Status> {
        let key = read_key(&request.get_ref().key)?;
        let now_ms = now_ms();
        if request.get_ref().everything {
            let holdings = self.0.holdings(key).await;
            let objects = holdings.iter().map(|holding| describe_all(holding, now_ms)).collect();
            return Ok(Response::new(LookupResponse { objects, filling: self.0.flights.is_running(key) }));
        }
        let loaded = self.0.load(key).await;
        let variants = loaded.or_else(|| self.0.store.find(key));
        let held = variants.iter().flat_map(|variants| variants.objects());
        let valid = held.filter(|object| self.0.purges.check(object).is_some());
        let objects = valid.map(|object| describe(object, now_ms)).collect();
        Ok(Response::new(LookupResponse { objects, filling: self.0.flights.is_running(key) }))
    }

    async fn invalidate(
        &self,
        request: Request<InvalidateRequest>,
    ) -> Result<Response<InvalidateResponse>, Status> {
        let InvalidateRequest { keys, everything, urls } = request.into_inner();
        let dropped: usize = if everything {
            let cache = self.0.clone();
            // It walks through the whole store.
            let forgetting = tokio::task::spawn_blocking(move || cache.forget_everything());
            forgetting.await.map_err(|error| Status::internal(error.to_string()))?
        } else {
            let keys: Vec<ObjectKey> = keys.iter().map(|key| read_key(key)).collect::<Result<_, _>>()?;
            if urls.len() > keys.len() {
                return Err(Status::invalid_argument("there are more URLs than keys"));
            }
            let by_key: usize = keys.into_iter().map(|key| self.0.forget(key)).sum();
            by_key + urls.iter().map(|url| self.0.forget_equal(url)).sum::<usize>()
        };
        if self.0.is_retired() {
            // The disk may be another process's by now: that one has to forget it.
            return Err(Status::unavailable("this process is being replaced"));
        }
        self.0.forgotten().await;
        Ok(Response::new(InvalidateResponse { dropped: u32::try_from(dropped).unwrap_or(u32::MAX) }))
    }

    async fn hottest(&self, request: Request<HottestRequest>) -> Result<Response<HottestResponse>, Status> {
        let request = request.into_inner();
        let order = match request.order() {
            HottestOrder::Rate => Order::Rate,
            HottestOrder::Hits => Order::Hits,
            HottestOrder::Size => Order::Size,
            HottestOrder::Saved => Order::Saved,
            HottestOrder::Unspecified => return Err(Status::invalid_argument("no order is named")),
        };
        let limit = (request.limit as usize).min(MAX_HOTTEST);
        let window = Duration::from_millis(request.window_ms.into()).min(MAX_WINDOW);
        let hottest = self.0.hottest(order, limit, window).await;
        let busy = || Status::resource_exhausted("others are counting hits on this node; try again later");
        let objects = hottest.ok_or_else(busy)?.into_iter().map(hot_object).collect();
        Ok(Response::new(HottestResponse { objects }))
    }

    async fn warm(&self, request: Request<WarmRequest>) -> Result<Response<WarmResponse>, Status> {
        Ok(Response::new(self.0.warm(request.into_inner()).await))
    }
}

fn hot_object(hot: Hot) -> HotObject {
    HotObject {
        url: url_of(&hot.text).to_owned(),
        route: route_of(&hot.text).to_owned(),
        selecting: selecting_fields(&hot.selecting),
        body_bytes: hot.body_bytes,
        hits: hot.hits,
        window_hits: hot.window_hits,
    }
}

fn selecting_fields(selecting: &Selecting) -> Vec<SelectingField> {
    let field = |(selector, value): (&_, Option<&[u8]>)| SelectingField {
        name: ToString::to_string(selector),
        value: value.map(<[u8]>::to_vec),
    };
    selecting.parts().map(field).collect()
}

/// All that is to be told of a stored object.
fn describe_all(holding: &Holding, now_ms: u64) -> ObjectInfo {
    let object = &holding.object;
    let purge = match holding.validity {
        Validity::Valid => PurgeVerdict::Valid,
        Validity::Stale => PurgeVerdict::Stale,
        Validity::Gone => PurgeVerdict::Gone,
        Validity::Unknown => PurgeVerdict::Unknown,
    };
    ObjectInfo {
        route: route_of(&object.text).to_owned(),
        in_memory: holding.in_memory,
        on_disk: holding.on_disk,
        selecting: selecting_fields(object.selecting()),
        tags: object.tags().to_vec(),
        checked_seq: object.checked_seq.load(Ordering::Relaxed),
        purge: purge.into(),
        unused_seconds: now_ms.saturating_sub(object.used_ms.load(Ordering::Relaxed)) / 1000,
        whole: object.body.length() == Some(holding.held_bytes),
        held_bytes: Some(holding.held_bytes),
        promoted: object.is_promoted(),
        ..describe(object, now_ms)
    }
}

fn read_key(bytes: &[u8]) -> Result<ObjectKey, Status> {
    ObjectKey::from_bytes(bytes).ok_or_else(|| Status::invalid_argument("a key has 16 bytes"))
}

fn describe(object: &Object, now_ms: u64) -> ObjectInfo {
    ObjectInfo {
        status: u32::from(object.status.as_u16()),
        body_bytes: object.body.length().unwrap_or(object.body_bytes),
        age_seconds: i64::try_from(object.terms.age_ms(now_ms) / 1000).unwrap_or(i64::MAX),
        ttl_seconds: object.terms.time_left_ms(now_ms).div_euclid(1000),
        fill_seq: object.fill_seq,
        etag: etag(object),
        url: url_of(&object.text).to_owned(),
        hits: object.hits.load(Ordering::Relaxed).into(),
        ..ObjectInfo::default()
    }
}

fn etag(object: &Object) -> String {
    let tag = object.fields.line(&ETAG).filter(|tag| tag.is_ascii());
    tag.map(|tag| String::from_utf8_lossy(tag).into_owned()).unwrap_or_default()
}
