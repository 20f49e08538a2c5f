//! Very many small objects in one cache: what each takes of memory, how long finding one takes, and what a start finds of
//! them on disk.
//!
//! `million memory OBJECTS`, `million fill DIRECTORY OBJECTS [crash]`, `million start DIRECTORY OBJECTS`.

#![expect(clippy::print_stdout, reason = "it is for reading")]

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use shoal_cache::{
    Answer, Cache, CacheRequest, CacheSettings, Changed, DiskSettings, Fetch, FetchFuture, FetchTrace,
    LinkFuture, Lookup, PeerIo, PeerLink, WorkerCache,
};
use shoal_cluster::{ClusterView, NodeView};
use shoal_model::site::read_site;
use shoal_model::view::RouteView;
use shoal_model::{ConfigView, NodeId, Revision};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SITE: &str = r#"
listeners: { web: { address: ":8001", protocol: http } }
routes: { all: { upstream: app, cache: {} } }
upstreams: { app: { endpoints: ["127.0.0.1:9"] } }
"#;
const BODY_BYTES: usize = 1024;
/// What is not counted: buffers, threads, the first pages of everything.
const FIRST: u64 = 2000;
const NODE: NodeId = NodeId(1);

/// There is nobody else.
struct Nobody;

impl PeerLink for Nobody {
    fn connect(&self, _: NodeId) -> LinkFuture<Box<dyn PeerIo>> {
        Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) })
    }

    fn invalidate(&self, _: NodeId, _: Changed) -> LinkFuture<()> {
        Box::pin(async { Ok(()) })
    }
}

/// Answers everything.
struct Origin;

impl Fetch for Origin {
    fn fetch(&self, _: Arc<RouteView>, head: Parts, _: Option<FetchTrace>) -> FetchFuture {
        let response = Response::builder()
            .header("server", "origin/1.0")
            .header("date", httpdate::fmt_http_date(std::time::SystemTime::now()))
            .header("content-type", "text/html; charset=utf-8")
            .header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")
            .header("etag", format!("\"{}\"", head.uri.path()))
            .header("cache-control", "public, max-age=86400")
            .header("accept-ranges", "bytes")
            .header("x-served-by", "origin-7");
        let body = Full::new(Bytes::from(body(head.uri.path()))).map_err(|never| match never {});
        Box::pin(async move { Ok(response.body(body.boxed_unsync()).expect("a response")) })
    }

    fn sign(&self, _: &mut HeaderMap) {}
}

struct Bench {
    cache: Arc<Cache>,
    worker: Rc<WorkerCache>,
    route: Arc<RouteView>,
}

impl Bench {
    async fn new(ram_bytes: u64, disk: Option<PathBuf>, objects: u64) -> Self {
        let node = NodeView { name: "n1".into(), active_revision: 1, ..NodeView::serving(NODE) };
        let view =
            ClusterView { nodes: vec![node], placement_id: 1, holders_id: 1, ..ClusterView::default() };
        let site = read_site("site.yaml", SITE).expect("a site");
        let config = ConfigView::compile(Revision(1), &site).expect("a config");
        let route = config.routes.by_name("all").expect("a route").clone();
        let cache = Cache::new(CacheSettings {
            node: NODE,
            name: "n1".into(),
            ram_bytes,
            intake_bytes: 0,
            disk: disk.map(|directory| DiskSettings { directory, budget_bytes: objects * 4096 }),
            key_seed: 42,
            cluster: Arc::new(ArcSwap::from_pointee(view)),
            config: Arc::new(ArcSwap::from_pointee(config)),
            peers: Arc::new(Nobody),
            unconfirmed: tokio::sync::mpsc::channel(1).0,
        });
        cache.set_lease(u64::MAX);
        cache.opened().await;
        let worker = cache.worker(Rc::new(Origin));
        Self { cache, worker, route }
    }

    /// What comes of asking for object `number`; its body is right.
    async fn ask(&self, number: u64) -> String {
        let head = head(number);
        let request = self.request(&head);
        let response = match self.worker.hit(&request) {
            Lookup::Fresh(response) => response,
            other => match self.worker.answer(request, other).await {
                Answer::Response(response) => response,
                Answer::Direct { .. } | Answer::Failed(_) => panic!("no answer"),
            },
        };
        let status = response.headers()["cache-status"].to_str().expect("text").to_owned();
        let read = response.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(read, body(head.uri.path()));
        status
    }

    fn request<'a>(&'a self, head: &'a Parts) -> CacheRequest<'a> {
        let rule = self.route.cache.as_ref().expect("it caches");
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

    /// Fills objects, and gives the disk the time to take them.
    async fn fill(&self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.ask(number).await;
            let figures = self.cache.counters();
            if number % 1000 == 0 && figures.disk_budget_bytes > 0 {
                while self.cache.counters().disk_written + 1000 < number {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    }

    async fn memory(&self, objects: u64) {
        self.fill(0..FIRST).await;
        let (before, charged) = (resident_bytes(), self.cache.counters().bytes);
        let began = Instant::now();
        self.fill(FIRST..FIRST + objects).await;
        let fill_ns = began.elapsed().as_nanos() as u64 / objects;
        let beside = BODY_BYTES as u64 + self.field_bytes(FIRST);
        let (grown, charged) = (resident_bytes() - before, self.cache.counters().bytes - charged);
        let began = Instant::now();
        let mut hits = 0;
        for n in 0..objects {
            let head = head(FIRST + n * 7919 % objects);
            hits += u64::from(matches!(self.worker.hit(&self.request(&head)), Lookup::Fresh(_)));
        }
        let hit_ns = began.elapsed().as_nanos() as u64 / objects;
        let grown_hit = resident_bytes() - before;
        println!("bytes of memory for each object beyond body and fields: {}", grown / objects - beside);
        println!("the same once it was a hit: {}", grown_hit / objects - beside);
        println!("bytes of memory for each that is charged: {:.3}", grown_hit as f64 / charged as f64);
        println!("ns to fill one: {fill_ns}, ns for a hit: {hit_ns}, of which fresh: {hits}");
    }

    /// Bytes of the lines that are stored of an object.
    fn field_bytes(&self, number: u64) -> u64 {
        let head = head(number);
        let Lookup::Fresh(response) = self.worker.hit(&self.request(&head)) else { panic!("it is stored") };
        let stored = response.headers().iter().filter(|(name, _)| *name != "age" && *name != "cache-status");
        stored.map(|(name, value)| (name.as_str().len() + value.len() + 4) as u64).sum()
    }

    async fn start(&self, took: Duration, objects: u64) {
        let figures = self.cache.counters();
        println!("ms to open: {}, of which reading: {}", took.as_millis(), figures.disk_open_ms);
        println!("objects found: {} of {objects}, damaged: {}", figures.disk_objects, figures.disk_damaged);
        println!("bytes of memory for each: {}", resident_bytes() / objects);
        let (mut kept, began) = (0, Instant::now());
        for number in 0..objects {
            kept += u64::from(self.ask(number).await.contains("hit"));
        }
        println!("kept: {kept}, that is {:.3} %", 100.0 * kept as f64 / objects as f64);
        println!("ns to read one: {}", began.elapsed().as_nanos() as u64 / objects);
    }
}

fn head(number: u64) -> Parts {
    let request = Request::builder().uri(format!("/objects/{number:08}")).header("host", "a.org");
    request.body(()).expect("a request").into_parts().0
}

fn body(path: &str) -> Vec<u8> {
    path.bytes().cycle().take(BODY_BYTES).collect()
}

/// Of this process.
fn resident_bytes() -> u64 {
    let figures = std::fs::read_to_string("/proc/self/statm").expect("proc");
    figures.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
}

async fn run(arguments: &[&str]) {
    match *arguments {
        ["memory", objects] => {
            let objects = objects.parse().expect("a number");
            Bench::new(1 << 40, None, objects).await.memory(objects).await;
        }
        ["fill", directory, objects, ref rest @ ..] => {
            let objects = objects.parse().expect("a number");
            let bench = Bench::new(64 << 20, Some(directory.into()), objects).await;
            let began = Instant::now();
            bench.fill(0..objects).await;
            println!("ns to fill one: {}", began.elapsed().as_nanos() as u64 / objects);
            if !rest.is_empty() {
                std::process::abort();
            }
            bench.cache.close_disk().await;
        }
        ["start", directory, objects] => {
            let (objects, began) = (objects.parse().expect("a number"), Instant::now());
            let bench = Bench::new(64 << 20, Some(directory.into()), objects).await;
            bench.start(began.elapsed(), objects).await;
        }
        _ => println!("memory OBJECTS | fill DIRECTORY OBJECTS [crash] | start DIRECTORY OBJECTS"),
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, run(&arguments));
}
