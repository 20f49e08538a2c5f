//! A TLS session that began on one node goes on on another without a full handshake.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use cluster_tests::{Cluster, OpenSsl, Origin, Ports, SelfSigned, SiteFile, find_program, skip};

const STORY: &str = "tls_sessions_resume_on_another_node";
const NAME: &str = "resumed.example.com";

/// Asks for `/` over TLS with openssl's client; answers what it says of the session and the answer.
async fn ask(
    openssl: PathBuf,
    node: SocketAddr,
    version: &'static str,
    session: [String; 2],
) -> Result<String> {
    let run = move || -> Result<String> {
        let mut client = Command::new(openssl);
        client.args(["s_client", "-connect", &node.to_string(), "-servername", NAME, version, "-ign_eof"]);
        client.args(&session);
        let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let request = format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
        let mut stdin = client.stdin.take().context("no stdin")?;
        std::io::Write::write_all(&mut stdin, request.as_bytes())?;
        let output = client.wait_with_output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    tokio::task::spawn_blocking(run).await?
}

fn session_file(dir: &Path, version: &str) -> String {
    dir.join(format!("session{version}")).display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_of_one_node_is_good_on_another() -> Result<()> {
    let Some(openssl) = find_program("openssl") else {
        skip(STORY, "openssl is not installed");
        return Ok(());
    };
    let cluster = Cluster::start(2).await?;
    let origin = Origin::of_patterns(100, "no-store").await?;
    let certificate = SelfSigned::create(cluster.dir(), &[NAME])?;
    let site = SiteFile::new().proxy("app", &[origin.endpoint()]).secure_by("app", &certificate);
    cluster.apply(0, &site).await?;
    cluster.serves(NAME, "/").await?;
    let [first, second] = [0, 1].map(|i| cluster.nodes[i].at(Ports::HTTPS));
    for version in ["-tls1_2", "-tls1_3"] {
        let file = session_file(cluster.dir(), version);
        let began = ask(openssl.clone(), first, version, ["-sess_out".into(), file.clone()]).await?;
        ensure!(began.contains("HTTP/1.1 200") && began.contains("New, TLSv1."), "{version}: {began}");
        for node in [second, first] {
            let goes_on = ask(openssl.clone(), node, version, ["-sess_in".into(), file.clone()]).await?;
            ensure!(
                goes_on.contains("HTTP/1.1 200") && goes_on.contains("Reused, TLSv1."),
                "{version} on {node}: {goes_on}"
            );
        }
    }
    // A handshake, and five more with its session.
    let address = first.to_string();
    let reconnect = ["s_client", "-connect", &address, "-servername", NAME, "-tls1_2", "-reconnect"];
    let again = OpenSsl::new(openssl, cluster.dir()).run(&reconnect)?.stdout;
    let again = String::from_utf8_lossy(&again);
    ensure!(again.matches("Reused, TLSv1.2").count() == 5, "{again}");
    Ok(())
}
