//! The sharded index, asked over gRPC: what this node holds of a key.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::ETAG;
use shoal_policy::cache::fields::Fields;
use shoal_policy::cache::key::{ObjectKey, url_of};
use shoal_proto::cache::cache_service_server::CacheService;
use shoal_proto::cache::{InvalidateRequest, InvalidateResponse, LookupRequest, LookupResponse, ObjectInfo};
use tonic::{Request, Response, Status};

use crate::clock::now_ms;
use crate::node::Cache;
use crate::object::Object;

/// Answers for what this node holds.
struct CacheIndex(Arc<Cache>);

impl Cache {
    /// The gRPC half of the peer protocol.
    pub fn service(self: &Arc<Self>) -> impl CacheService + use<> {
        CacheIndex(self.clone())
    }
}

#[tonic::async_trait]
impl CacheService for CacheIndex {
    async fn lookup(&self, request: Request<LookupRequest>) -> Result<Response<LookupResponse>, Status> {
        let key = read_key(&request.get_ref().key)?;
        let loaded = self.0.load(key).await;
        let variants = loaded.or_else(|| self.0.store.find(key));
        let now_ms = now_ms();
        let held = variants.iter().flat_map(|variants| variants.objects());
        let valid = held.filter(|object| self.0.purges.check(object).is_some());
        let objects = valid.map(|object| describe(object, now_ms)).collect();
        Ok(Response::new(LookupResponse { objects, filling: self.0.flights.is_running(key) }))
    }

    async fn invalidate(
        &self,
        request: Request<InvalidateRequest>,
    ) -> Result<Response<InvalidateResponse>, Status> {
        let InvalidateRequest { keys, everything } = request.into_inner();
        let dropped: usize = if everything {
            let cache = self.0.clone();
            // It walks through the whole store.
            let forgetting = tokio::task::spawn_blocking(move || cache.forget_everything());
            forgetting.await.map_err(|error| Status::internal(error.to_string()))?
        } else {
            let keys: Vec<ObjectKey> = keys.iter().map(|key| read_key(key)).collect::<Result<_, _>>()?;
            keys.into_iter().map(|key| self.0.forget(key)).sum()
        };
        self.0.forgotten().await;
        Ok(Response::new(InvalidateResponse { dropped: u32::try_from(dropped).unwrap_or(u32::MAX) }))
    }
}

fn read_key(bytes: &[u8]) -> Result<ObjectKey, Status> {
    ObjectKey::from_bytes(bytes).ok_or_else(|| Status::invalid_argument("a key has 16 bytes"))
}

fn describe(object: &Object, now_ms: u64) -> ObjectInfo {
    ObjectInfo {
        status: u32::from(object.status.as_u16()),
        body_bytes: object.body_bytes,
        age_seconds: i64::try_from(object.terms.age_ms(now_ms) / 1000).unwrap_or(i64::MAX),
        ttl_seconds: object.terms.time_left_ms(now_ms).div_euclid(1000),
        fill_seq: object.fill_seq,
        etag: etag(object),
        url: url_of(&object.text).to_owned(),
        hits: object.hits.load(Ordering::Relaxed).into(),
    }
}

fn etag(object: &Object) -> String {
    let tag = object.fields.line(&ETAG).filter(|tag| tag.is_ascii());
    tag.map(|tag| String::from_utf8_lossy(tag).into_owned()).unwrap_or_default()
}
