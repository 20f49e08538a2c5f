//! Nodes in one process: caches joined by in-memory pipes, with an origin that does as it is told.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use shoal_cache::{
    Answer, Cache, CacheRequest, CacheSettings, DiskSettings, Fetch, FillJob, Lookup, PendingChange,
    WorkerCache,
};
use shoal_cluster::{ClusterView, NodeView};
use shoal_model::site::read_site;
use shoal_model::view::RouteView;
use shoal_model::{ConfigView, NodeId, Revision};
use shoal_proto::cache::InvalidateRequest;
use shoal_proto::cache::cache_service_server::CacheService;
use tokio::sync::{Semaphore, mpsc};

use crate::got::{Got, collect};
use crate::origin::{Fetcher, Origin, Reply};
use crate::wires::{Link, Wires};

const SITE: &str = r#"
listeners:
  web: { address: ":8001", protocol: http }
  inside: { address: ":8002", protocol: http }
routes:
  shop: { listeners: [web], upstream: u, cache: { max_object_size: 1MiB } }
  office: { listeners: [inside], upstream: v, cache: { max_object_size: 8MiB } }
  kiosk: { listeners: [inside], path: /kiosk, upstream: v, cache: { purge_unverified: serve } }
  vault: { listeners: [inside], path: /vault, upstream: v, cache: { purge_unverified: fail } }
  mill: { listeners: [inside], path_prefix: /mill, upstream: w, cache: {} }
  lone: { listeners: [inside], path_prefix: /lone, upstream: v, cache: { replicate: never } }
  gate: { listeners: [inside], path_prefix: /gate, upstream: x, cache: {} }
  lists:
    listeners: [inside]
    path: /lists
    upstream: v
    cache:
      negative_ttl: { 404: 10s }
      error_ttl: 2s
      request_errors: pass
      key: { exclude_query: [utm_*, fbclid], cookies: [kind] }
  strict: { listeners: [inside], path: /strict, upstream: v, cache: { strict_fill: [x-tenant] } }
  literal: { listeners: [inside], path: /literal, upstream: v, cache: { no_vary_search: ignore } }
  film: { listeners: [inside], path: /film, upstream: v, cache: { chunked_from: 2MiB } }
  show: { listeners: [inside], path: /show, upstream: u, cache: { chunked_from: 2MiB } }
  reel: { listeners: [inside], path: /reel, upstream: v, cache: { chunked_from: 2MiB, range_miss: whole } }
  clip: { listeners: [inside], path: /clip, upstream: v, cache: { chunked_from: 2MiB, range_miss: pass } }
  files: { listeners: [inside], path: /files, upstream: v, cache: { extensions: [css] } }
upstreams:
  u: { endpoints: ["127.0.0.1:9"], shield: far }
  v: { endpoints: ["127.0.0.1:10"] }
  w: { endpoints: ["127.0.0.1:11"], max_fills: 2, fill_queue_timeout: 60s }
  x: { endpoints: ["127.0.0.1:12"], max_fills: 1, fill_queue_timeout: 0s }
"#;

/// The nodes, and the wires between them.
pub struct Town {
    pub nodes: Vec<Node>,
    pub origin: Rc<Origin>,
    pub wires: Arc<Wires>,
    /// What each node knows of the others.
    views: Vec<Arc<ArcSwap<ClusterView>>>,
    config: Arc<ArcSwap<ConfigView>>,
    route: Arc<RouteView>,
    office: Arc<RouteView>,
    disk: Option<PathBuf>,
}

pub struct Node {
    pub id: NodeId,
    pub cache: Arc<Cache>,
    pub worker: Rc<WorkerCache>,
}

impl Node {
    fn start(
        id: NodeId,
        view: &Arc<ArcSwap<ClusterView>>,
        config: &Arc<ArcSwap<ConfigView>>,
        wires: &Arc<Wires>,
        origin: &Rc<Origin>,
        disk: Option<DiskSettings>,
    ) -> Self {
        let cache = Cache::new(CacheSettings {
            node: id,
            name: format!("n{}", id.0).into(),
            ram_bytes: 64 << 20,
            intake_bytes: 8 << 20,
            disk,
            key_seed: 42,
            cluster: view.clone(),
            config: config.clone(),
            peers: Arc::new(Link(wires.clone(), id)),
            unconfirmed: mpsc::channel(1).0,
        });
        cache.set_lease(u64::MAX);
        let worker = cache.worker(Rc::new(Fetcher(origin.clone())));
        let (jobs, mut queue) = mpsc::channel::<FillJob>(64);
        cache.register_worker(jobs);
        let runner = worker.clone();
        tokio::task::spawn_local(async move {
            while let Some(job) = queue.recv().await {
                runner.run_job(job);
            }
        });
        wires.caches.lock().unwrap().insert(id, cache.clone());
        Self { id, cache, worker }
    }
}

impl Town {
    pub fn new(size: u64) -> Self {
        Self::of(&(1..=size).map(|_| ("", "")).collect::<Vec<_>>())
    }

    /// Three nodes, after both owners of `/x` have stored this reply to it: the first owner, the second one, and who is none.
    pub async fn with_copies(reply: Reply) -> (Self, [usize; 3]) {
        let town = Self::new(3);
        let roles = town.roles("/x");
        town.origin.say(reply);
        town.get(roles[0], "/x").await;
        town.settle(|town| town.held(roles[0]) + town.held(roles[1]) == 2).await;
        (town, roles)
    }

    /// Every node keeps its objects in a directory of its own below `directory`, too.
    pub async fn on_disk(size: u64, directory: &Path) -> Self {
        let mut town = Self::new(size);
        town.disk = Some(directory.to_owned());
        for node in 0..town.nodes.len() {
            town.restart(node).await;
        }
        town
    }

    /// Nodes in these regions and zones.
    pub fn of(places: &[(&str, &str)]) -> Self {
        let ids: Vec<NodeId> = (1..=places.len() as u64).map(NodeId).collect();
        let members = ids.iter().zip(places).map(|(id, (region, zone))| member(*id, region, zone));
        let members: Vec<NodeView> = members.collect();
        let views: Vec<_> =
            ids.iter().map(|_| Arc::new(ArcSwap::from_pointee(view(members.clone())))).collect();
        let site = read_site("site.yaml", SITE).unwrap();
        let config = Arc::new(ArcSwap::from_pointee(ConfigView::compile(Revision(1), &site).unwrap()));
        let route = config.load().routes.by_name("shop").unwrap().clone();
        let office = config.load().routes.by_name("office").unwrap().clone();
        let wires = Arc::new(Wires::default());
        let origin = Rc::new(Origin::new());
        let start = |(id, view): (&NodeId, &Arc<ArcSwap<ClusterView>>)| {
            Node::start(*id, view, &config, &wires, &origin, None)
        };
        let nodes = ids.iter().zip(&views).map(start).collect();
        Self { nodes, origin, wires, views, config, route, office, disk: None }
    }

    /// The node is stopped and started again: what it has on disk is what it has.
    pub async fn restart(&mut self, node: usize) {
        let id = self.nodes[node].id;
        self.nodes[node].cache.close_disk().await;
        let disk = self
            .disk
            .as_ref()
            .map(|disk| DiskSettings { directory: disk.join(id.0.to_string()), budget_bytes: 128 << 20 });
        self.nodes[node] = Node::start(id, &self.views[node], &self.config, &self.wires, &self.origin, disk);
        self.nodes[node].cache.opened().await;
    }

    /// From now on, requests come in on the other listener.
    pub fn move_inside(&mut self) {
        std::mem::swap(&mut self.route, &mut self.office);
    }

    /// From now on, requests take the route called `name`.
    pub fn take_route(&mut self, name: &str) {
        self.route = self.config.load().routes.by_name(name).unwrap().clone();
    }

    /// The next connection between nodes waits for what is answered.
    pub fn hold_connection(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        *self.wires.held.lock().unwrap() = Some(gate.clone());
        gate
    }

    /// The node can be reached again, and has all that it had.
    pub fn bring_back(&self, node: NodeId) {
        self.wires.down.lock().unwrap().remove(&node);
    }

    /// The node is gone; everybody else knows at once if `seen`.
    pub fn kill(&self, node: NodeId, seen: bool) {
        self.wires.down.lock().unwrap().insert(node);
        for connection in self.wires.served.lock().unwrap().remove(&node).unwrap_or_default() {
            connection.abort();
        }
        if seen {
            self.change(node, |member| member.alive = false);
        }
    }

    /// The node is another process from now on, with nothing in it. The others have not missed it.
    pub fn start_anew(&mut self, node: usize) {
        let id = self.nodes[node].id;
        for connection in self.wires.served.lock().unwrap().remove(&id).unwrap_or_default() {
            connection.abort();
        }
        self.nodes[node] = Node::start(id, &self.views[node], &self.config, &self.wires, &self.origin, None);
        self.change(id, |member| member.active_revision += 1);
    }

    /// What everybody knows of a node is something else now.
    pub fn change(&self, node: NodeId, change: impl Fn(&mut NodeView)) {
        (0..self.nodes.len()).for_each(|seen_by| self.change_for(seen_by, node, &change));
    }

    /// What one node knows of another one is something else now.
    pub fn change_for(&self, seen_by: usize, node: NodeId, change: impl Fn(&mut NodeView)) {
        let mut nodes = self.views[seen_by].load().nodes.clone();
        nodes.iter_mut().filter(|member| member.id == node).for_each(change);
        self.views[seen_by].store(Arc::new(view(nodes)));
    }

    /// The node is there, but answers nobody any more.
    pub fn silence(&self, node: NodeId) {
        self.wires.silent.lock().unwrap().insert(node, Vec::new());
        for connection in self.wires.served.lock().unwrap().remove(&node).unwrap_or_default() {
            connection.abort();
        }
    }

    /// One node is told that `path` has changed.
    pub async fn forget(&self, node: usize, path: &str) {
        let (key, _) = self.nodes[node].cache.locate(&format!("http://a.org{path}"))[0];
        self.tell(
            node,
            InvalidateRequest { keys: vec![key.to_bytes().to_vec()], ..InvalidateRequest::default() },
        )
        .await;
    }

    /// One node is told that so much else has changed that it does not remember what changed before.
    pub async fn crowd_out_changes(&self, node: usize) {
        let keys = (0..100_000_u128).map(|key| key.to_be_bytes().to_vec()).collect();
        self.tell(node, InvalidateRequest { keys, ..InvalidateRequest::default() }).await;
    }

    /// One node is told that everything may have changed.
    pub async fn forget_everything(&self, node: usize) {
        self.tell(node, InvalidateRequest { everything: true, ..InvalidateRequest::default() }).await;
    }

    async fn tell(&self, node: usize, request: InvalidateRequest) {
        let request = tonic::Request::new(request);
        self.nodes[node].cache.service().invalidate(request).await.unwrap();
    }

    /// Bytes that nodes have had from each other since this was asked last.
    pub fn carried(&self) -> usize {
        self.wires.carried.swap(0, Ordering::Relaxed)
    }

    /// Connections between nodes so far.
    pub fn connections(&self) -> usize {
        self.wires.served.lock().unwrap().values().map(Vec::len).sum()
    }

    pub async fn get(&self, node: usize, path: &str) -> Got {
        self.ask(node, Method::GET, path, &[]).await
    }

    pub async fn get_with(&self, node: usize, path: &str, fields: &[(&'static str, &str)]) -> Got {
        self.ask(node, Method::GET, path, fields).await
    }

    pub async fn ask(&self, node: usize, method: Method, path: &str, fields: &[(&'static str, &str)]) -> Got {
        match self.answer(node, method, path, fields).await {
            Answer::Response(response) => collect(response).await,
            Answer::Direct { cache_status } => Got {
                status: StatusCode::OK,
                fields: HeaderMap::from_iter([(http::HeaderName::from_static("cache-status"), cache_status)]),
                body: None,
                is_direct: true,
            },
            Answer::Failed(failure) => Got {
                status: StatusCode::from_u16(failure.status()).unwrap(),
                fields: HeaderMap::new(),
                body: None,
                is_direct: false,
            },
        }
    }

    pub async fn answer(
        &self,
        node: usize,
        method: Method,
        path: &str,
        fields: &[(&'static str, &str)],
    ) -> Answer {
        let head = head(method, path, fields);
        let request = self.request(&head);
        let worker = &self.nodes[node].worker;
        if let Some(ready) = worker.ready(&request) {
            let mut response = Response::new(ready.body);
            *response.status_mut() = ready.status;
            *response.headers_mut() = ready.fields.map().clone();
            return Answer::Response(response);
        }
        match worker.hit(&request) {
            Lookup::Fresh(response) => Answer::Response(response),
            other => worker.answer(request, other).await,
        }
    }

    /// An unsafe request that the origin answered.
    pub async fn after_unsafe(&self, node: usize, method: Method, path: &str, status: StatusCode) {
        let head = head(method, path, &[]);
        let change = self.nodes[node].worker.expect_change(&self.request(&head));
        change.settle(status, &HeaderMap::new()).await;
    }

    /// A POST that the origin answers as it is told, on the way that the proxy takes.
    pub async fn post(&self, node: usize, path: &str) -> Got {
        let head = head(Method::POST, path, &[]);
        let (request, worker) = (self.request(&head), &self.nodes[node].worker);
        let change = worker.expect_change(&request);
        let fetched = Fetcher(self.origin.clone()).fetch(self.route.clone(), head.clone(), None).await;
        let (answer, body) = fetched.unwrap().into_parts();
        let sent = change.settle(answer.status, &answer.headers).await;
        let answer = Response::from_parts(answer, ());
        match worker.judge_shown(&request, sent, &answer) {
            Some(shown) => collect(worker.keep_shown(&request, shown, answer.map(|()| body))).await,
            None => {
                let (head, ()) = answer.into_parts();
                let body = body.collect().await.unwrap().to_bytes().to_vec();
                Got {
                    status: head.status,
                    fields: head.headers,
                    body: String::from_utf8(body).ok(),
                    is_direct: true,
                }
            }
        }
    }

    /// An unsafe request on its way to the origin.
    pub fn begin_unsafe(&self, node: usize, method: Method, path: &str) -> PendingChange {
        let head = head(method, path, &[]);
        self.nodes[node].worker.expect_change(&self.request(&head))
    }

    /// A POST that the origin answered with 201 and a `Location`.
    pub async fn after_creation(&self, node: usize, path: &str, location: &str) {
        let head = head(Method::POST, path, &[]);
        let fields = HeaderMap::from_iter([(http::header::LOCATION, location.parse().unwrap())]);
        let change = self.nodes[node].worker.expect_change(&self.request(&head));
        change.settle(StatusCode::CREATED, &fields).await;
    }

    pub fn plain(&self, path: &str) -> Parts {
        head(Method::GET, path, &[])
    }

    pub fn request<'a>(&'a self, head: &'a Parts) -> CacheRequest<'a> {
        let rule = self.route.cache.as_ref().unwrap();
        CacheRequest {
            head,
            https: false,
            host: "a.org",
            route: &self.route,
            rule,
            has_body: false,
            trace: None,
        }
    }

    /// The places of primary, second owner and stranger of `path`.
    pub fn roles(&self, path: &str) -> [usize; 3] {
        let (_, owners) = self.nodes[0].cache.locate(&format!("http://a.org{path}"))[0];
        let place = |id: Option<NodeId>| self.nodes.iter().position(|node| Some(node.id) == id).unwrap();
        let (primary, second) = (place(owners.primary), place(owners.secondary));
        let stranger = (0..self.nodes.len()).find(|n| *n != primary && *n != second).unwrap();
        [primary, second, stranger]
    }

    /// The origin was asked so many times.
    pub async fn until_asked(&self, times: usize) {
        self.settle(|town| town.origin.fetches() == times).await;
    }

    /// Once it was asked so many times, the origin gives so many answers.
    pub async fn let_go(&self, times: usize, answers: usize) {
        self.until_asked(times).await;
        self.origin.let_go(answers);
    }

    /// What the node has stored.
    pub fn held(&self, node: usize) -> u64 {
        self.nodes[node].cache.counters().objects
    }

    /// The other nodes have heard of everything that was going on.
    pub async fn settle(&self, done: impl Fn(&Self) -> bool) {
        let deadline = std::time::Duration::from_secs(5);
        let waiting = async {
            while !done(self) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(deadline, waiting).await.expect("it happens in time");
    }

    pub fn sum(&self, figure: impl Fn(shoal_cache::Counters) -> u64) -> u64 {
        self.nodes.iter().map(|node| figure(node.cache.counters())).sum()
    }
}

fn head(method: Method, path: &str, fields: &[(&'static str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(path).header("host", "a.org");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn member(id: NodeId, region: &str, zone: &str) -> NodeView {
    NodeView {
        name: format!("n{}", id.0).into(),
        region: region.into(),
        zone: zone.into(),
        active_revision: 1,
        ..NodeView::serving(id)
    }
}

fn view(nodes: Vec<NodeView>) -> ClusterView {
    let serving = nodes.iter().filter(|node| node.is_serving());
    // Who began anew says so by the revision it serves, here.
    let holders_id = serving.fold(1, |sum, node| sum * 31 + node.id.0 + 1000 * node.active_revision);
    ClusterView { nodes, placement_id: holders_id, holders_id, ..ClusterView::default() }
}

/// Runs a story on one thread, as a worker does.
pub fn play(story: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, story());
}
