//! Whoever reads a disk, a log, a page of figures or what operators are shown finds no secret but where it has to be: the
//! private keys of the site, of nodes and of operators, the cluster's secret, and those of tokens, in whatever spelling.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cluster_tests::{Cluster, Origin, Ports, SelfSigned, SiteFile, fetch, path_text, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

/// For a node to have said all that it knows.
const DEADLINE: Duration = Duration::from_secs(30);
/// Revisions of a site of four megabytes, so that the log is compacted into a snapshot.
const LARGE_REVISIONS: usize = 5;
/// Routes of it.
const ROUTES: usize = 4000;

/// Bytes that a spelling is looked up by; each has more.
const BEGINNING: usize = 8;

/// Something that must not be found.
struct Secret {
    what: String,
    spellings: Vec<Vec<u8>>,
    /// The only files it may be in, and has to.
    homes: BTreeSet<PathBuf>,
}

impl Secret {
    /// `bytes` as they are, in hex, as a list of numbers, and in base64 wherever in a text they begin.
    fn of(what: &str, bytes: &[u8], homes: impl IntoIterator<Item = PathBuf>) -> Self {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let list: Vec<String> = bytes.iter().map(u8::to_string).collect();
        let mut spellings = vec![
            bytes.to_vec(),
            hex.to_uppercase().into_bytes(),
            hex.into_bytes(),
            list.join(",").into_bytes(),
            list.join(", ").into_bytes(),
        ];
        for skipped in 0..3 {
            let whole = (bytes.len() - skipped) / 3 * 3;
            spellings.push(STANDARD.encode(&bytes[skipped..skipped + whole]).into_bytes());
        }
        Self { what: what.to_owned(), spellings, homes: homes.into_iter().collect() }
    }
}

/// Everything that is looked for. Texts are long and secrets many: nearly every place is told by its first two bytes, and nearly
/// all others by a few more.
struct Spellings<'a> {
    first_two: Vec<bool>,
    /// Secrets and their spellings, by how these begin.
    by_beginning: HashMap<&'a [u8], Vec<(usize, &'a [u8])>>,
}

impl<'a> Spellings<'a> {
    fn of(secrets: &'a [Secret]) -> Self {
        let mut all = Self { first_two: vec![false; 1 << 16], by_beginning: HashMap::new() };
        for (i, secret) in secrets.iter().enumerate() {
            for spelling in &secret.spellings {
                all.first_two[usize::from(u16::from_be_bytes([spelling[0], spelling[1]]))] = true;
                all.by_beginning.entry(&spelling[..BEGINNING]).or_default().push((i, spelling));
            }
        }
        all
    }

    /// The secrets that are in `text`.
    fn found_in(&self, text: &[u8]) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        for (place, beginning) in text.windows(BEGINNING).enumerate() {
            if !self.first_two[usize::from(u16::from_be_bytes([beginning[0], beginning[1]]))] {
                continue;
            }
            for (secret, spelling) in self.by_beginning.get(beginning).into_iter().flatten() {
                if text[place..].starts_with(spelling) {
                    found.insert(*secret);
                }
            }
        }
        found
    }
}

/// The number that is the private part of a key on P-256: an OCTET STRING of 32 bytes (RFC 5915).
fn scalar(pkcs8: &[u8]) -> Result<&[u8]> {
    let place = pkcs8.windows(2).position(|tag| tag == [0x04, 0x20]).context("not a key on P-256")?;
    pkcs8.get(place + 2..place + 34).context("it is cut off")
}

fn part(file: &Path, name: &str) -> Result<Vec<u8>> {
    let file: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
    Ok(STANDARD.decode(file[name].as_str().with_context(|| format!("there is no {name}"))?)?)
}

/// Every file below `dir`, with all that is in it.
fn read_all(dir: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() => read_all(&entry.path(), into)?,
            kind if kind.is_file() => {
                // A file that was replaced meanwhile has a successor.
                if let Ok(content) = fs::read(entry.path()) {
                    into.insert(entry.path(), content);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn secrets(cluster: &Cluster, site: &SelfSigned, tokens: &[String]) -> Result<Vec<Secret>> {
    let pem = fs::read_to_string(&site.key_file)?;
    let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let key = STANDARD.decode(lines.concat())?;
    let mut secrets = vec![
        Secret::of("the key of the site", scalar(&key)?, []),
        // As a text within a text: the middle of its first line.
        Secret::of("the file of that key", &lines[0].as_bytes()[8..56], []),
    ];
    // Every node has to have it.
    let homes: Vec<PathBuf> =
        cluster.nodes.iter().map(|node| node.data_dir().join("identity/node.json")).collect();
    secrets.push(Secret::of("the cluster's secret", &part(&homes[0], "secret")?, homes));
    for node in &cluster.nodes {
        let home = node.data_dir().join("identity/node.json");
        let key = part(&home, "key")?;
        secrets.push(Secret::of(&format!("the key of {}", node.name), scalar(&key)?, [home]));
    }
    let operator = cluster.nodes[0].data_dir().join("operator.json");
    let key = part(&operator, "key")?;
    secrets.push(Secret::of("the key of the first operator", scalar(&key)?, [operator]));
    for token in tokens {
        let secret = token.rsplit('.').next().context("a token has parts")?;
        secrets.push(Secret::of("the secret of a token", secret.as_bytes(), []));
    }
    Ok(secrets)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_never_found() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let origin = Origin::of_patterns(50, "max-age=60").await?;
    let certificate = SelfSigned::create(cluster.dir(), &["shop.example.com"])?;
    let site = |round: usize| {
        let large: BTreeMap<String, Value> = (0..ROUTES)
            .map(|i| {
                (
                    format!("r{i}"),
                    json!({ "path_prefix": format!("/of-{round}/{i:0>900}"), "upstream": "shop" }),
                )
            })
            .collect();
        let site = SiteFile::new().cached("shop", &[origin.endpoint()]).secure_by("shop", &certificate);
        large.into_iter().fold(site, |site, (name, route)| site.route(&name, route))
    };
    let tokens = [cluster.token().await?, {
        let purge = ["token", "create", "--role", "purge"];
        cluster.nodes[1].shoal(&purge).await?.expect(0)?.stdout.trim().to_owned()
    }];
    for round in 0..LARGE_REVISIONS {
        cluster.apply(round % 3, &site(round)).await?;
    }
    cluster.serves("shop.example.com", "/").await?;
    // A node that begins anew reads it all.
    cluster.nodes[2].kill9()?;
    cluster.restart(2)?;
    cluster.answers(2).await?;
    cluster.settle().await?;
    let secrets = secrets(&cluster, &certificate, &tokens)?;

    // What nodes keep, and what they say of themselves.
    let mut found: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    for node in &cluster.nodes {
        node.signal(Signal::QUIT)?;
        wait_until("it has told what it knows", DEADLINE, async || {
            node.log().contains("state: that was all")
        })
        .await?;
        found.insert(format!("log of {}", node.name).into(), node.log().into_bytes());
        found.insert(format!("output of {}", node.name).into(), node.stdout().into_bytes());
        let page = fetch(node.at(Ports::OPS), "ops", "/metrics").await?;
        found.insert(format!("figures of {}", node.name).into(), page.body.to_vec());
        read_all(&node.data_dir(), &mut found)?;
    }
    // What operators are shown.
    let exported = cluster.dir().join("exported");
    let exported_to = path_text(&exported);
    let file = cluster.file("site.json", site(LARGE_REVISIONS).text())?;
    let file = path_text(&file);
    for verb in [
        &["get"][..],
        &["-o", "json", "get"],
        &["get", "certificate/shop"],
        &["history"],
        &["-o", "json", "history"],
        &["diff", "0"],
        &["plan", "-f", file],
        &["audit"],
        &["-o", "json", "audit"],
        &["-o", "json", "status"],
        &["-o", "json", "operator", "list"],
        &["-o", "json", "token", "list"],
        &["node", "describe", "n1"],
        &["export", exported_to],
    ] {
        let output = cluster.nodes[0].shoal(verb).await?;
        ensure!([0, 3].contains(&output.code), "{verb:?}: {output:?}");
        let shown = [output.stdout, output.stderr].concat();
        found.insert(format!("shoal {}", verb.join(" ")).into(), shown.into_bytes());
    }
    read_all(&exported, &mut found)?;

    let bytes: usize = found.values().map(Vec::len).sum();
    println!("{} places, {bytes} bytes", found.len());
    let mut places = vec![BTreeSet::new(); secrets.len()];
    let spellings = Spellings::of(&secrets);
    for (place, text) in &found {
        spellings.found_in(text).into_iter().for_each(|i| _ = places[i].insert(place.clone()));
    }
    for (secret, places) in secrets.iter().zip(places) {
        ensure!(places == secret.homes, "{} is in {places:?}, not in {:?}", secret.what, secret.homes);
    }
    let snapshots =
        found.keys().filter(|place| place.parent().is_some_and(|dir| dir.ends_with("snapshots"))).count();
    ensure!(snapshots > 0, "no snapshot was looked into");
    Ok(())
}
