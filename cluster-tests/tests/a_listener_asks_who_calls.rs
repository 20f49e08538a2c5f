//! A listener that asks for certificates, speaks one version and one cipher suite, and staples: looked at with curl and
//! with openssl's client.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, OpenSsl, Origin, Ports, SiteFile, find_program, skip};
use serde_json::json;

const STORY: &str = "a_listener_asks_who_calls";
const NAME: &str = "asks.example.com";

/// What curl got, with the certificate `who` if there is one: the status, or nothing.
fn ask(curl: &Path, dir: &Path, node: std::net::SocketAddr, who: Option<&str>) -> Result<String> {
    let mut command = Command::new(curl);
    let resolve = format!("{NAME}:{}:{}", node.port(), node.ip());
    command.current_dir(dir).args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "60"]);
    command.args(["--cacert", "servers.pem", "--resolve", &resolve]);
    if let Some(who) = who {
        command.args(["--cert", &format!("{who}.pem"), "--key", &format!("{who}.key")]);
    }
    let output = command.arg(format!("https://{NAME}:{}/", node.port())).output()?;
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_versions_ciphers_and_staples() -> Result<()> {
    let (Some(program), Some(curl)) = (find_program("openssl"), find_program("curl")) else {
        skip(STORY, "openssl or curl is not installed");
        return Ok(());
    };
    let cluster = Cluster::start(1).await?;
    let openssl = OpenSsl::new(program, cluster.dir());
    for authority in ["servers", "clients", "strangers"] {
        openssl.authority(authority)?;
    }
    openssl.certificate(NAME, "servers", "10")?;
    openssl.certificate("good", "clients", "11")?;
    openssl.certificate("bad", "strangers", "12")?;
    openssl.old_certificate("old", "clients")?;
    openssl.staple(NAME, "servers", "0A")?;
    let origin = Origin::of_patterns(100, "no-store").await?;
    let file = |name: &str| cluster.dir().join(name);
    let (chain, key) = (file(&format!("{NAME}.pem")), file(&format!("{NAME}.key")));
    let certificate = json!({ "chain_file": chain, "key_file": key, "ocsp_file": file("staple.der") });
    let listener = json!({
        "address": format!(":{}", Ports::HTTPS),
        "protocol": "https",
        "certificates": ["server"],
        "min_tls": "1.3",
        "ciphers": ["TLS_AES_128_GCM_SHA256"],
        "client_auth": { "ca_file": file("clients.pem") },
    });
    let site = SiteFile::new()
        .proxy("app", &[origin.endpoint()])
        .set("certificates", "server", certificate)
        .set("listeners", "secure", listener);
    cluster.apply(0, &site).await?;
    cluster.serves(NAME, "/").await?;
    let node = cluster.nodes[0].at(Ports::HTTPS);
    for (who, expected, result) in
        [(Some("good"), "200", "verified"), (None, "000", "missing"), (Some("bad"), "000", "refused")]
    {
        ensure!(ask(&curl, cluster.dir(), node, who)? == expected, "{who:?} gets {expected}");
        let labels = format!("result=\"{result}\"");
        let counted = cluster.metric(0, "shoal_tls_client_certificates_total", &labels).await?;
        ensure!(counted >= 1.0, "{result}: {counted}");
    }
    ensure!(ask(&curl, cluster.dir(), node, Some("old"))? == "000", "version 1 is refused");
    for reason in ["untrusted", "version"] {
        let labels = format!("reason=\"{reason}\"");
        let counted = cluster.metric(0, "shoal_tls_client_certificates_refused_total", &labels).await?;
        ensure!(counted == 1.0, "{reason}: {counted}");
    }
    let address = node.to_string();
    let common = ["s_client", "-connect", &address, "-servername", NAME, "-CAfile", "servers.pem"];
    let common = [&common[..], &["-cert", "good.pem", "-key", "good.key", "-status"]].concat();
    for (arguments, connects) in [
        (["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"], true),
        (["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"], false),
        (["-tls1_2", "-cipher", "ALL"], false),
    ] {
        let output = openssl.run(&[&common[..], &arguments].concat())?;
        let said = String::from_utf8_lossy(&output.stdout);
        let seen = said.contains("Cipher is TLS_AES_128_GCM_SHA256");
        ensure!(seen == connects, "{arguments:?}: {said}");
        ensure!(said.contains("Cert Status: good") == connects, "the staple of {arguments:?}: {said}");
    }
    Ok(())
}
