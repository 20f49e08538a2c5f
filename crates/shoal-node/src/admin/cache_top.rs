//! `shoal cache top`: the objects in memory of which there is most, on a node or on all.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shoal_model::NodeId;
use shoal_model::units::Period;
use shoal_proto::admin::{CacheTopRequest, CacheTopResponse, HotUrl};
use shoal_proto::cache::cache_service_server::CacheService;
use shoal_proto::cache::{HotObject, HottestOrder, HottestRequest, HottestResponse};
use tonic::{Code, Request, Status};

use super::cache::named_members;
use super::cache_get::selecting;
use super::failure::{Exit, with_exit};
use crate::everybody::ask_all;
use crate::node::Node;

/// Objects told of where nobody says how many.
const DEFAULT_LIMIT: u32 = 20;
/// And at most.
const MAX_LIMIT: u32 = 500;
/// Hits are counted for so long where nobody says how long.
const DEFAULT_WINDOW_MS: u32 = 2000;
/// And at least, and at most: workers tell of the hits on what they use most once a second.
const WINDOW_MS: std::ops::RangeInclusive<u32> = 1000..=10_000;
/// What a node takes beside the time that it counts.
const ANSWER_TIME: Duration = Duration::from_secs(3);

/// Asks the nodes, all at once, and adds up what they say of the same object.
pub async fn top(node: &Arc<Node>, request: &CacheTopRequest) -> Result<CacheTopResponse, Status> {
    let misread = |why: String| with_exit(Code::InvalidArgument, Exit::Local, why);
    let limit = if request.limit == 0 { DEFAULT_LIMIT } else { request.limit };
    let window_ms = if request.window_ms == 0 { DEFAULT_WINDOW_MS } else { request.window_ms };
    if limit > MAX_LIMIT {
        return Err(misread(format!("{limit} objects; at most {MAX_LIMIT} are told of")));
    }
    if !WINDOW_MS.contains(&window_ms) {
        let period = |ms: &u32| Period(Duration::from_millis((*ms).into()));
        let [least, most, wanted] = [WINDOW_MS.start(), WINDOW_MS.end(), &window_ms].map(period);
        return Err(misread(format!("hits are counted for {least} to {most}, not for {wanted}")));
    }
    let order = read_order(&request.order).map_err(misread)?;
    // Each node tells of more than is wanted: what is much used on all may be little used on each.
    let asked = HottestRequest { limit: limit * 2, window_ms, order: order.into() };
    let told = ask_all(named_members(node, &request.node)?, |id, _| {
        let node = node.clone();
        async move { hottest(&node, id, asked).await }
    });
    let mut response = CacheTopResponse { window_ms, ..CacheTopResponse::default() };
    let mut sums = BTreeMap::new();
    for told in told.await {
        match told.answer.ok().flatten() {
            Some(answer) => answer.objects.into_iter().for_each(|object| add(&mut sums, &told.name, object)),
            None => response.silent.push(told.name),
        }
    }
    response.objects = sorted(sums, order, limit as usize, window_ms);
    Ok(response)
}

fn read_order(text: &str) -> Result<HottestOrder, String> {
    match text {
        "" | "rate" => Ok(HottestOrder::Rate),
        "hits" => Ok(HottestOrder::Hits),
        "size" => Ok(HottestOrder::Size),
        "saved" => Ok(HottestOrder::Saved),
        _ => Err(format!("{text:?} is no order: rate, hits, size and saved are")),
    }
}

async fn hottest(node: &Node, id: NodeId, asked: HottestRequest) -> Option<HottestResponse> {
    let timeout = Duration::from_millis(asked.window_ms.into()) + ANSWER_TIME;
    let mut request = Request::new(asked);
    request.set_timeout(timeout);
    let response = if id == node.id() {
        node.cache.service().hottest(request).await
    } else {
        let mut client = node.peers.cache(id).ok()?;
        tokio::time::timeout(timeout, client.hottest(request)).await.ok()?
    };
    response.ok().map(tonic::Response::into_inner)
}

/// By URL, route and selecting fields: an object on all nodes, and its hits while they were counted.
type Sums = BTreeMap<(String, String, Vec<String>), (HotUrl, u64)>;

fn add(sums: &mut Sums, node: &str, object: HotObject) {
    let key = (object.url, object.route, selecting(&object.selecting));
    let (sum, window_hits) = sums.entry(key).or_default();
    *window_hits += object.window_hits;
    sum.hits += object.hits;
    sum.body_bytes = sum.body_bytes.max(object.body_bytes);
    sum.saved_bytes = sum.saved_bytes.saturating_add(object.hits.saturating_mul(object.body_bytes));
    sum.nodes.push(node.to_owned());
}

fn sorted(sums: Sums, order: HottestOrder, limit: usize, window_ms: u32) -> Vec<HotUrl> {
    let mut rows: Vec<_> = sums.into_iter().collect();
    rows.sort_by_key(|(_, (sum, window_hits))| {
        Reverse(match order {
            HottestOrder::Rate | HottestOrder::Unspecified => *window_hits,
            HottestOrder::Hits => sum.hits,
            HottestOrder::Size => sum.body_bytes,
            HottestOrder::Saved => sum.saved_bytes,
        })
    });
    rows.truncate(limit);
    let row = |((url, route, selecting), (sum, window_hits))| {
        let hits_per_second = window_hits as f64 * 1000.0 / f64::from(window_ms);
        HotUrl { url, route, selecting, hits_per_second, ..sum }
    };
    rows.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_on_two_nodes_is_one() {
        let mut sums = Sums::new();
        let object = |url: &str, window_hits, hits, body_bytes| HotObject {
            url: url.into(),
            route: "r".into(),
            window_hits,
            hits,
            body_bytes,
            ..HotObject::default()
        };
        add(&mut sums, "a", object("/x", 4, 100, 10));
        add(&mut sums, "b", object("/x", 6, 50, 10));
        add(&mut sums, "b", object("/y", 8, 60, 1000));
        let check = |order, limit, expected: &[&str]| {
            let rows = sorted(sums.clone(), order, limit, 2000);
            assert_eq!(rows.iter().map(|row| &*row.url).collect::<Vec<_>>(), expected, "{order:?}");
            rows
        };
        let rows = check(HottestOrder::Rate, 9, &["/x", "/y"]);
        assert_eq!((rows[0].hits_per_second, rows[0].hits, rows[0].saved_bytes), (5.0, 150, 1500));
        assert_eq!((&rows[0].nodes[..], rows[1].nodes.len()), (&["a".to_owned(), "b".to_owned()][..], 1));
        check(HottestOrder::Hits, 1, &["/x"]);
        check(HottestOrder::Size, 1, &["/y"]);
        check(HottestOrder::Saved, 1, &["/y"]);
    }
}
