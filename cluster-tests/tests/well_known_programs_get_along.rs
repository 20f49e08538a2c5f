//! Programs that people have, on either side of a node: nginx as an endpoint, haproxy in front, and clients of every make.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use cluster_tests::{
    Answer, Cluster, HOST, HaproxyFront, NginxOrigin, OpenSsl, Origin, Ports, Reply, SelfSigned, SiteFile,
    Speak, fetch, find_program, path_text, pattern, send, skip, text_of, wait_until,
};
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

/// Where a balancer's PROXY headers are believed.
const BEHIND_PROXY: u16 = 8081;
/// nginx writes its log when it has answered.
const LOG_DEADLINE: Duration = Duration::from_secs(10);

/// A client of the command line.
struct Client(PathBuf);

impl Client {
    async fn say(&self, arguments: &[&str]) -> Result<String> {
        text_of(self.0.clone(), arguments.iter().map(|&argument| argument.to_owned()).collect()).await
    }

    /// curl: what is answered to `host` at `node` in clear text, to a caller at `from`.
    async fn get(&self, from: &str, node: SocketAddr, host: &str, path: &str) -> Result<String> {
        let (field, url) = (format!("Host: {host}"), format!("http://{node}{path}"));
        self.say(&["-sS", "--max-time", "60", "--interface", from, "-H", &field, &url]).await
    }
}

/// The three that most stories need; says so when one is missing.
fn nginx_openssl_and_curl(story: &str) -> Option<(PathBuf, Client)> {
    let found = (find_program("nginx"), find_program("openssl"), find_program("curl"));
    let (Some(_), Some(openssl), Some(curl)) = found else {
        skip(story, "nginx, openssl or curl is not installed");
        return None;
    };
    Some((openssl, Client(curl)))
}

/// An nginx with a server for each way in which endpoints differ, each of which says what it was sent.
async fn particular_nginx(dir: &Path) -> Result<NginxOrigin> {
    let (place, shown) = (dir.join("nginx"), dir.display());
    let nginx = NginxOrigin::serving(&place, |ip| {
        format!(
            "log_format callers '$proxy_protocol_addr $uri';
  server {{ listen {ip}:80; listen unix:{shown}/nginx.sock; location / {{ return 200 'plain $host'; }} }}
  server {{ listen {ip}:81 proxy_protocol; access_log {shown}/nginx/callers.log callers;
    location / {{ return 200 '$proxy_protocol_addr'; }} }}
  server {{ listen {ip}:443 ssl; ssl_certificate {shown}/inner.example.com.pem;
    ssl_certificate_key {shown}/inner.example.com.key; ssl_client_certificate {shown}/clients.pem;
    ssl_verify_client on; location / {{ return 200 '$ssl_server_name $ssl_client_verify $ssl_client_s_dn'; }} }}"
        )
    });
    nginx.await?.context("nginx has gone since it was found")
}

/// A route for each name, which is the host that leads to its upstream.
fn by_host(site: SiteFile, upstreams: impl IntoIterator<Item = (&'static str, Value)>) -> SiteFile {
    upstreams.into_iter().fold(site, |site, (name, upstream)| {
        let route = json!({ "hosts": [name], "upstream": name });
        site.upstream(name, upstream).route(name, route)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_is_an_endpoint_like_others() -> Result<()> {
    let Some((openssl, curl)) = nginx_openssl_and_curl("nginx_is_an_endpoint_like_others") else {
        return Ok(());
    };
    let cluster = Cluster::start(1).await?;
    let openssl = OpenSsl::new(openssl, cluster.dir());
    openssl.authority("servers")?;
    openssl.authority("clients")?;
    openssl.certificate("inner.example.com", "servers", "20")?;
    openssl.certificate("caller", "clients", "21")?;
    let nginx = particular_nginx(cluster.dir()).await?;

    let file = |name: &str| cluster.dir().join(name);
    let verified = |tls: Value| {
        let mut tls = tls;
        tls["server_name"] = json!("inner.example.com");
        json!({ "endpoints": [nginx.endpoint_at(443)], "tls": tls })
    };
    let known = json!({ "ca_file": file("servers.pem"), "client_certificate": "caller" });
    let with_pin = |pin: String| {
        let mut known = known.clone();
        known["pins"] = json!([pin]);
        verified(known)
    };
    let upstreams = [
        ("mutual", verified(known.clone())),
        ("pinned", with_pin(openssl.pin("inner.example.com")?)),
        ("other-key", with_pin(openssl.pin("caller")?)),
        ("nobody", verified(json!({ "ca_file": file("servers.pem") }))),
        (
            "other-authority",
            verified(json!({ "ca_file": file("clients.pem"), "client_certificate": "caller" })),
        ),
        ("socket", json!({ "endpoints": [format!("unix:{}", file("nginx.sock").display())] })),
        ("v1", json!({ "endpoints": [nginx.endpoint_at(81)], "proxy_protocol": "v1" })),
        ("v2", json!({ "endpoints": [nginx.endpoint_at(81)], "proxy_protocol": "v2" })),
    ];
    let caller = json!({ "chain_file": file("caller.pem"), "key_file": file("caller.key") });
    let site = by_host(SiteFile::new(), upstreams).set("certificates", "caller", caller);
    cluster.apply(0, &site).await?;
    cluster.serves("socket", "/").await?;

    let (from, node) = (cluster.block().ip(77).to_string(), cluster.nodes[0].at(Ports::HTTP));
    for (host, expected) in [
        ("mutual", "inner.example.com SUCCESS CN=caller"),
        ("pinned", "inner.example.com SUCCESS CN=caller"),
        ("nobody", "No required SSL certificate was sent"),
        ("other-key", "upstream_connect_failed"),
        ("other-authority", "upstream_connect_failed"),
        ("socket", "plain socket"),
        ("v1", &from),
        ("v2", &from),
    ] {
        let said = curl.get(&from, node, host, &format!("/{host}")).await?;
        ensure!(said.contains(expected), "{host}: {said:?} instead of {expected:?}");
    }
    let expected = format!("{from} /v1\n{from} /v2\n");
    wait_until("nginx has logged the callers", LOG_DEADLINE, async || {
        nginx.log("callers.log").is_ok_and(|log| log == expected)
    })
    .await
    .with_context(|| nginx.log("callers.log").unwrap_or_default())?;
    Ok(())
}

/// A configuration that nginx serves at `ip`; the servers that it leads to say who they are and what they were asked.
fn in_front(ip: IpAddr, servers: &NginxOrigin) -> String {
    let (first, second, third) = (servers.endpoint(), servers.endpoint_at(81), servers.endpoint_at(82));
    format!(
        "# Two sites, and whatever else is asked for.
  proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  upstream shop {{ server {first}; server {second} backup; keepalive 8; }}
  server {{
    listen {ip}:80;
    server_name shop.example.com *.shop.example.com;
    client_max_body_size 1k;
    location / {{ proxy_pass http://shop; }}
    location = /exact {{ proxy_pass http://{second}; }}
    location /blog/ {{ proxy_pass http://{second}/blog/; proxy_read_timeout 10s; }}
    location /blog/old/ {{ proxy_pass http://{third}; }}
    location ~* \\.(png|css)$ {{ proxy_pass http://{third}; }}
    location ~ ^/v[0-9]+/users$ {{ proxy_pass http://{second}; }}
  }}
  server {{ listen {ip}:80; server_name .api.example.com; location / {{ proxy_pass http://{third}; }} }}
  server {{ listen {ip}:80 default_server; server_name _; location / {{ proxy_pass http://{second}; }} }}
"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nginx_did_is_done_once_it_is_converted() -> Result<()> {
    const STORY: &str = "what_nginx_did_is_done_once_it_is_converted";
    let cluster = Cluster::start(1).await?;
    let (node, dir) = (&cluster.nodes[0], cluster.dir());
    let (behind, before) = (dir.join("servers"), dir.join("front"));
    let servers = NginxOrigin::serving(&behind, |ip| {
        let server =
            |port| format!("server {{ listen {ip}:{port}; return 200 '{port} $host $request_uri'; }}\n");
        [80, 81, 82].map(server).concat()
    });
    let Some(servers) = servers.await? else {
        skip(STORY, "nginx is not installed");
        return Ok(());
    };
    let nginx = NginxOrigin::serving(&before, |ip| in_front(ip, &servers)).await?;
    let nginx: SocketAddr =
        nginx.as_ref().context("nginx has gone since it was found")?.endpoint().parse()?;

    let file = cluster.file("nginx.conf", in_front(node.at(80).ip(), &servers))?;
    let path = path_text(&file);
    let converted = node.shoal(&["convert", "--from", "nginx", "--strict", path]).await?.expect(0)?;
    ensure!(converted.stderr.contains("nginx.conf:11:5: location /blog/: warning: "), "{}", converted.stderr);
    let site = cluster.file("converted.yaml", &converted.stdout)?;
    node.shoal(&["apply", "--prune", "-f", path_text(&site)]).await?.expect(0)?;

    for (host, path) in [
        ("shop.example.com", "/"),
        ("SHOP.example.com", "/any/path?with=query"),
        ("eu.shop.example.com", "/exact"),
        ("shop.example.com", "/exact/not"),
        ("shop.example.com", "/blog/today"),
        ("shop.example.com", "/blog/old/yesterday"),
        ("shop.example.com", "/blog/picture.PNG?x"),
        ("shop.example.com", "/v12/users"),
        ("shop.example.com", "/v12/users/7"),
        ("api.example.com", "/exact"),
        ("v1.eu.api.example.com", "/blog/"),
        ("elsewhere.example.org", "/exact"),
    ] {
        let before = fetch(nginx, host, path).await?;
        let now = fetch(node.at(80), host, path).await?;
        let text = |answer: &Answer| String::from_utf8_lossy(&answer.body).to_lowercase();
        ensure!(before.status == 200 && text(&before).ends_with(&path.to_lowercase()), "{before:?}");
        ensure!(
            (now.status, text(&now)) == (before.status, text(&before)),
            "{host} {path}: {now:?}, {before:?}"
        );
    }
    for size in [1024, 1025] {
        let upload = || {
            let body = Full::new(Bytes::from(vec![b'x'; size])).map_err(|never| match never {}).boxed();
            Request::post("/").header("host", "shop.example.com").body(body)
        };
        let before = send(nginx, Speak::Http1, upload()?).await?.status;
        let now = send(node.at(80), Speak::Http1, upload()?).await?.status;
        ensure!(
            (before, now) == if size > 1024 { (413, 413) } else { (200, 200) },
            "{size}: {before}, {now}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_ends_the_tls_that_is_passed_through() -> Result<()> {
    const STORY: &str = "nginx_ends_the_tls_that_is_passed_through";
    let Some((openssl, curl)) = nginx_openssl_and_curl(STORY) else { return Ok(()) };
    let cluster = Cluster::start(1).await?;
    let openssl = OpenSsl::new(openssl, cluster.dir());
    openssl.authority("servers")?;
    openssl.certificate("one.example.com", "servers", "30")?;
    openssl.certificate("two.example.com", "servers", "31")?;
    let dir = cluster.dir().display().to_string();
    let secure = |listen: String, name: &str| {
        format!(
            "server {{ listen {listen} ssl http2; ssl_certificate {dir}/{name}.pem;
    ssl_certificate_key {dir}/{name}.key; location / {{ return 200 '{name} $ssl_server_name'; }} }}"
        )
    };
    let place = cluster.dir().join("nginx");
    let nginx = NginxOrigin::serving(&place, |ip| {
        let [one, two] = [(1443, "one"), (2443, "two")]
            .map(|(port, name)| (format!("{ip}:{port}"), format!("{name}.example.com")));
        format!("server {{ listen {ip}:80; }} {} {}", secure(one.0, &one.1), secure(two.0, &two.1))
    });
    let nginx = nginx.await?.context("nginx has gone since it was found")?;
    let listener = json!({
        "address": format!(":{}", Ports::HTTPS),
        "protocol": "tls_passthrough",
        "sni": { "one.example.com": "one", "*.example.com": "two" },
    });
    let site = SiteFile::new()
        .upstream("one", json!({ "endpoints": [nginx.endpoint_at(1443)] }))
        .upstream("two", json!({ "endpoints": [nginx.endpoint_at(2443)] }))
        .route("plain", json!({ "upstream": "one" }))
        .set("listeners", "through", listener);
    cluster.apply(0, &site).await?;

    let node = cluster.nodes[0].at(Ports::HTTPS);
    let authority = format!("{dir}/servers.pem");
    for (name, version) in
        [("one.example.com", "--http1.1"), ("one.example.com", "--http2"), ("two.example.com", "--http2")]
    {
        let (resolve, url) =
            (format!("{name}:{}:{}", node.port(), node.ip()), format!("https://{name}:{}/", node.port()));
        let arguments = ["-sS", "--max-time", "60", "--cacert", &authority, "--resolve", &resolve, version];
        let arguments = [&arguments[..], &["-w", " %{http_version}", &url]].concat();
        let said = curl.say(&arguments).await?;
        let expected = format!("{name} {name} {}", version.trim_start_matches("--http"));
        ensure!(said == expected, "{said:?} instead of {expected:?}");
    }
    let nowhere = format!("elsewhere.test:{}:{}", node.port(), node.ip());
    let url = format!("https://elsewhere.test:{}/", node.port());
    let refused = curl.say(&["-sS", "-k", "--max-time", "60", "--resolve", &nowhere, &url]).await;
    let refused = refused.err().context("a name that leads nowhere is answered")?.to_string();
    ensure!(refused.contains("unrecognized name"), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_in_front_says_who_calls() -> Result<()> {
    const STORY: &str = "haproxy_in_front_says_who_calls";
    let (Some(_), Some(curl)) = (find_program("haproxy"), find_program("curl")) else {
        skip(STORY, "haproxy or curl is not installed");
        return Ok(());
    };
    let curl = Client(curl);
    let cluster = Cluster::start(1).await?;
    let origin =
        Origin::start(|seen| Reply::ok(format!("{} {}", seen.field("x-forwarded-for"), seen.field("via"))));
    let origin = origin.await?;
    let certificate = SelfSigned::create(cluster.dir(), &[HOST])?;
    let believed = json!({ "trusted": ["127.0.0.0/8"] });
    let clear =
        json!({ "address": format!(":{BEHIND_PROXY}"), "protocol": "http", "proxy_protocol": believed });
    let secure = json!({
        "address": format!(":{}", Ports::HTTPS),
        "protocol": "https",
        "certificates": ["shop"],
        "proxy_protocol": believed,
    });
    let site = SiteFile::new()
        .proxy("app", &[origin.endpoint()])
        .secure_by("shop", &certificate)
        .set("listeners", "secure", secure)
        .set("listeners", "behind", clear);
    cluster.put_in_force(&site).await?;

    let node = &cluster.nodes[0];
    let (clear, secure) = (node.at(BEHIND_PROXY), node.at(Ports::HTTPS));
    let servers = [
        ("tcp", format!("{clear} send-proxy")),
        ("tcp", format!("{clear} send-proxy-v2")),
        ("tcp", format!("{secure} send-proxy-v2")),
        ("http", format!("{clear} send-proxy-v2 proto h2")),
    ];
    let front = HaproxyFront::start(&cluster.dir().join("haproxy"), &servers).await?;
    let front = front.context("haproxy has gone since it was found")?;
    let (from, authority) =
        (cluster.block().ip(77).to_string(), certificate.chain_file.display().to_string());
    for (way, (scheme, via)) in front.ways().iter().zip([
        ("http", "1.1 shoal-n1"),
        ("http", "1.1 shoal-n1"),
        ("https", "2.0 shoal-n1"),
        ("http", "2.0 shoal-n1"),
    ]) {
        let resolve = format!("{HOST}:{}:{}", way.port(), way.ip());
        let url = format!("{scheme}://{HOST}:{}/", way.port());
        let arguments = ["-sS", "--max-time", "60", "--interface", &from, "--cacert", &authority];
        let said = curl.say(&[&arguments[..], &["--resolve", &resolve, &url]].concat()).await?;
        ensure!(said == format!("{from} {via}"), "{way}: {said:?}");
    }
    Ok(())
}

/// One node with a clear and a secure listener in front of an origin that counts what it is sent.
async fn shop() -> Result<(Cluster, Origin, SelfSigned)> {
    let cluster = Cluster::start(1).await?;
    let origin = Origin::start(|seen| match seen.path.as_str() {
        "/upload" => Reply::ok(format!("{} bytes", seen.body.len())),
        _ => Reply::ok("short and stout").status(if seen.path == "/teapot" { 418 } else { 200 }),
    });
    let origin = origin.await?;
    let certificate = SelfSigned::create(cluster.dir(), &[HOST])?;
    let site = SiteFile::new().proxy("shop", &[origin.endpoint()]).secure_by("shop", &certificate);
    cluster.put_in_force(&site).await?;
    Ok((cluster, origin, certificate))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_agrees() -> Result<()> {
    let Some(curl) = find_program("curl") else {
        skip("curl_agrees", "curl is not installed");
        return Ok(());
    };
    let (curl, (cluster, _origin, certificate)) = (Client(curl), shop().await?);
    let node = &cluster.nodes[0];
    let [clear, secure] = [("http", Ports::HTTP), ("https", Ports::HTTPS)]
        .map(|(scheme, port)| (format!("{scheme}://{HOST}:{port}"), format!("{HOST}:{port}:{}", node.ip)));
    let trusted = certificate.chain_file.display().to_string();
    let content = cluster.file("content", pattern("content", 3 << 20))?;
    let data = format!("@{}", content.display());
    // What is offered in clear text by `--http2` is an upgrade to h2c, which a proxy may ignore, and ours does.
    for (version, (front, resolve), spoken) in [
        ("--http1.1", &secure, "1.1"),
        ("--http2", &secure, "2"),
        ("--http1.1", &clear, "1.1"),
        ("--http2", &clear, "1.1"),
        ("--http2-prior-knowledge", &clear, "2"),
    ] {
        let common = ["-sS", "--max-time", "60", version, "--cacert", &trusted, "--resolve", resolve];
        let common = [&common[..], &["-w", " %{response_code} %{http_version}"]].concat();
        let url = format!("{front}/teapot");
        let said = curl.say(&[&common[..], &[&url]].concat()).await?;
        ensure!(said == format!("short and stout 418 {spoken}"), "{version} {url}: {said}");
        let url = format!("{front}/upload");
        let upload = ["-H", "Expect: 100-continue", "--data-binary", &data, &url];
        let said = curl.say(&[&common[..], &upload].concat()).await?;
        ensure!(said == format!("{} bytes 200 {spoken}", 3 << 20), "{version} {url}: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nghttp_and_h2load_agree() -> Result<()> {
    let (Some(nghttp), Some(h2load)) = (find_program("nghttp"), find_program("h2load")) else {
        skip("nghttp_and_h2load_agree", "nghttp or h2load is not installed");
        return Ok(());
    };
    let (nghttp, h2load, (cluster, origin, _certificate)) = (Client(nghttp), Client(h2load), shop().await?);
    let node = &cluster.nodes[0];
    let fronts = [format!("http://{}", node.at(Ports::HTTP)), format!("https://{}", node.at(Ports::HTTPS))];
    let content = cluster.file("content", pattern("content", 1 << 20))?.display().to_string();
    for front in &fronts {
        let said = nghttp.say(&["--no-verify-peer", &format!("{front}/teapot")]).await?;
        ensure!(said.ends_with("short and stout"), "{front}: {said:?}");
        let upload = ["--no-verify-peer", "--expect-continue", "-d", &content, &format!("{front}/upload")];
        let said = nghttp.say(&upload).await?;
        ensure!(said.ends_with("1048576 bytes"), "{front}: {said:?}");
    }
    let before = origin.count("/many");
    let shapes: [(&str, &[&str]); 4] = [
        (&fronts[0], &["-m", "10"]),
        (&fronts[1], &["-m", "10"]),
        (&fronts[0], &["--h1"]),
        (&fronts[1], &["--h1"]),
    ];
    for (front, shape) in shapes {
        let url = format!("{front}/many");
        let said = h2load.say(&[&["-n", "500", "-c", "5"], shape, &[&url]].concat()).await?;
        ensure!(said.contains("500 succeeded, 0 failed, 0 errored, 0 timeout"), "{front} {shape:?}: {said}");
        ensure!(said.contains("status codes: 500 2xx"), "{front} {shape:?}: {said}");
    }
    ensure!(origin.count("/many") - before == 2000, "{} requests arrived", origin.count("/many") - before);
    Ok(())
}
