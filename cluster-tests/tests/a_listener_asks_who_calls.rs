//! A listener that asks for certificates, speaks one version and one cipher suite, and staples: looked at with curl and
//! with openssl's client.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use cluster_tests::{Cluster, Origin, Ports, SiteFile, find_program, skip};
use serde_json::json;

const STORY: &str = "a_listener_asks_who_calls";
const NAME: &str = "asks.example.com";
const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// openssl at work in the directory of the story.
struct OpenSsl {
    program: PathBuf,
    dir: PathBuf,
}

impl OpenSsl {
    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.dir).args(arguments).stdin(Stdio::null());
        command.output().context("openssl cannot be started")
    }

    fn must(&self, arguments: &[&str]) -> Result<()> {
        let output = self.run(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "openssl {arguments:?}: {said}");
        Ok(())
    }

    /// `<name>.pem` and `<name>.key` of an authority.
    fn authority(&self, name: &str) -> Result<()> {
        let (key, chain, subject) =
            (format!("{name}.key"), format!("{name}.pem"), format!("/CN=authority {name}"));
        let front = ["req", "-x509", "-days", "30", "-keyout", &key, "-out", &chain, "-subj", &subject];
        self.must(&[&front[..], &KEY].concat())
    }

    /// `<name>.pem` and `<name>.key`, signed by the authority `by`.
    fn certificate(&self, name: &str, by: &str, serial: &str) -> Result<()> {
        let file = |extension: &str| format!("{name}.{extension}");
        let (key, request, chain) = (file("key"), file("csr"), file("pem"));
        let names = format!("subjectAltName=DNS:{name}");
        let subject = format!("/CN={name}");
        let front = ["req", "-keyout", &key, "-out", &request, "-subj", &subject, "-addext", &names];
        self.must(&[&front[..], &KEY].concat())?;
        let (ca, ca_key) = (format!("{by}.pem"), format!("{by}.key"));
        self.must(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-set_serial",
            serial,
            "-days",
            "10",
            "-copy_extensions",
            "copyall",
            "-out",
            &chain,
        ])
    }

    /// `staple.der`: the authority `by` says that the certificate `name` is good.
    fn staple(&self, name: &str, by: &str, serial: &str) -> Result<()> {
        std::fs::write(
            self.dir.join("index.txt"),
            format!("V\t20991231235959Z\t\t{serial}\tunknown\t/CN={name}\n"),
        )?;
        let (ca, ca_key, chain) = (format!("{by}.pem"), format!("{by}.key"), format!("{name}.pem"));
        self.must(&["ocsp", "-issuer", &ca, "-cert", &chain, "-reqout", "request.der", "-no_nonce"])?;
        self.must(&[
            "ocsp",
            "-index",
            "index.txt",
            "-CA",
            &ca,
            "-rsigner",
            &ca,
            "-rkey",
            &ca_key,
            "-reqin",
            "request.der",
            "-respout",
            "staple.der",
            "-ndays",
            "5",
        ])
    }
}

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
    let openssl = OpenSsl { program, dir: cluster.dir().to_owned() };
    for authority in ["servers", "clients", "strangers"] {
        openssl.authority(authority)?;
    }
    openssl.certificate(NAME, "servers", "10")?;
    openssl.certificate("good", "clients", "11")?;
    openssl.certificate("bad", "strangers", "12")?;
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
