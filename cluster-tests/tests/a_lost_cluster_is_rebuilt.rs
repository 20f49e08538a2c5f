//! All of a cluster is lost, or so much of it that nothing can be decided any more: what was saved, or what is left, becomes
//! a cluster again, and what belonged to the old one stays outside.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::{
    Cluster, HOST, Origin, Ports, Scene, SiteFile, Verb, copy_directory, fetch, path_text, skip, wait_until,
    wait_until_some,
};

/// For a process to find out how things are, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
const PASSPHRASE: &str = "correct horse battery";

fn with_more(site: SiteFile, origin: &Origin) -> SiteFile {
    site.upstream("more", serde_json::json!({ "endpoints": [origin.endpoint()] }))
}

/// What the cluster's own certificates and keys are.
async fn keys(cluster: &Cluster, i: usize) -> Result<serde_json::Value> {
    cluster.nodes[i].told(&["cluster", "keys"]).await
}

/// Nothing is overwritten, and nothing goes without a passphrase that only who saves can read.
async fn any_node_saves_with_a_passphrase(cluster: &Cluster, file: &Path) -> Result<()> {
    let phrase = cluster.file("passphrase", format!("{PASSPHRASE}\n"))?;
    let save = |arguments: &[&str]| {
        cluster.nodes[2].verb(&[&["snapshot", "save", path_text(file)][..], arguments].concat())
    };
    fs::set_permissions(&phrase, fs::Permissions::from_mode(0o644))?;
    let open = save(&["--passphrase-file", path_text(&phrase)]).run().await?.expect(1)?;
    ensure!(open.stderr.contains("can be read by others"), "{}", open.stderr);
    fs::set_permissions(&phrase, fs::Permissions::from_mode(0o600))?;
    ensure!(save(&[]).run().await?.expect(1)?.stderr.contains("--passphrase-file"), "it asked nobody");
    let short = save(&[]).env("SHOAL_PASSPHRASE", "too short").run().await?.expect(1)?;
    ensure!(short.stderr.contains("12 characters"), "{}", short.stderr);
    save(&["--passphrase-file", path_text(&phrase)]).run().await?.expect(0)?;
    ensure!(fs::metadata(file)?.permissions().mode() & 0o777 == 0o600, "others may read it");
    let taken = save(&[]).env("SHOAL_PASSPHRASE", PASSPHRASE).run().await?.expect(1)?;
    ensure!(taken.stderr.contains("--force"), "{}", taken.stderr);
    save(&["--force"]).env("SHOAL_PASSPHRASE", PASSPHRASE).run().await?.expect(0)?;

    // It goes into a pipe, and to no terminal.
    let stream = || cluster.nodes[2].verb(&["snapshot", "save", "-"]).env("SHOAL_PASSPHRASE", PASSPHRASE);
    let shown = stream().on_terminal().run().await?.expect(1)?;
    ensure!(shown.stdout.contains("it is no text for a terminal"), "{}", shown.stdout);
    let piped = cluster.dir().join("piped.snapshot");
    let _saving = stream().start(fs::File::create(&piped)?)?;
    let inspect = ["snapshot", "inspect", path_text(&piped)];
    cluster
        .eventually("all of it is in the pipe", async || {
            Verb::from_afar(&inspect).run().await.ok().filter(|inspected| inspected.code == 0)
        })
        .await?;

    // Who has it is known on every node.
    let audit = cluster.nodes[0].told(&["audit"]).await?;
    let records: Vec<_> = audit["records"].as_array().into_iter().flatten().collect();
    let saved: Vec<_> = records.iter().filter(|record| record["call"] == "SaveSnapshot").collect();
    ensure!(saved.len() == 3, "{audit:#}");
    for record in saved {
        let told = ["by", "role", "node", "what", "outcome"].map(|name| record[name].as_str());
        let expected = ["local", "admin", "n3", "the whole state, sealed", "done"];
        ensure!(told == expected.map(Some), "{record:#}");
        ensure!(record["from"].as_str().is_some_and(|from| from.starts_with("socket, uid ")), "{record:#}");
    }
    Ok(())
}

/// Somebody with `role` asks for a snapshot in vain; the identity.
async fn is_not_allowed_to_save(cluster: &Cluster, role: &str) -> Result<PathBuf> {
    let (identity, stolen) =
        (cluster.dir().join(format!("{role}.json")), cluster.dir().join("stolen.snapshot"));
    let create = ["operator", "create", role, path_text(&identity), "--role", role];
    cluster.nodes[0].shoal(&create).await?.expect(0)?;
    let address = cluster.nodes[0].at(Ports::ADMIN).to_string();
    let from_afar =
        ["--addr", &address, "--identity", path_text(&identity), "snapshot", "save", path_text(&stolen)];
    let refused = Verb::from_afar(&from_afar).env("SHOAL_PASSPHRASE", PASSPHRASE).run().await?.expect(2)?;
    ensure!(refused.stderr.contains("takes the role admin") && !stolen.exists(), "{}", refused.stderr);
    Ok(identity)
}

/// What it is of is shown to anybody, what is in it to who knows the passphrase, secrets to nobody.
async fn what_is_in_it_takes_the_passphrase(cluster: &Cluster, file: &Path, revision: u64) -> Result<()> {
    let bytes = fs::read(file)?;
    for secret in ["PRIVATE KEY", "shop"] {
        let in_clear = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        ensure!(!in_clear, "{secret} is in the file in clear");
    }
    let inspect = |path: &Path, phrase: &str| {
        Verb::from_afar(&["snapshot", "inspect", path_text(path), "-o", "json"])
            .env("SHOAL_PASSPHRASE", phrase)
    };
    let shown = inspect(file, PASSPHRASE).run().await?.expect(0)?;
    let found = shown.json()?;
    ensure!(found["about"]["revision"] == revision && found["about"]["newest"] == true, "{found}");
    ensure!(found["contents"]["certificates"] == serde_json::json!(["shop"]), "{found}");
    ensure!(found["contents"]["nodes"].as_array().map(Vec::len) == Some(3), "{found}");
    ensure!(!shown.text().contains("PRIVATE"), "a key is shown");
    let outside = Verb::from_afar(&["snapshot", "inspect", path_text(file)]).run().await?.expect(0)?;
    ensure!(outside.stdout.contains("not opened"), "{}", outside.stdout);
    let wrong = inspect(file, "incorrect horse battery").run().await?.expect(1)?;
    ensure!(wrong.stderr.contains("the passphrase is wrong"), "{}", wrong.stderr);
    let mut damaged = bytes.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let damaged = cluster.file("damaged.snapshot", damaged)?;
    let refused = inspect(&damaged, PASSPHRASE).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("it is damaged"), "{}", refused.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_saved_becomes_a_cluster_of_its_own() -> Result<()> {
    let cluster = Cluster::start_with(3, &["--drain-delay", "0s"]).await?;
    let Scene { mut cluster, origin, site, certificate } = Scene::set(cluster).await?;
    let revision = cluster.revision(0).await?;
    let old_id = cluster.status(0).await?["cluster_id"].clone();

    cluster.nodes[1].shoal(&["cluster", "node-life", "2d"]).await?.expect(0)?;
    cluster.nodes[1].shoal(&["cluster", "rotate", "gossip-key"]).await?.expect(0)?;
    let old_keys = keys(&cluster, 1).await?;
    ensure!(old_keys["gossip_key"] != 0, "{old_keys}");

    let file = cluster.dir().join("all.snapshot");
    any_node_saves_with_a_passphrase(&cluster, &file).await?;
    is_not_allowed_to_save(&cluster, "viewer").await?;
    let operator = is_not_allowed_to_save(&cluster, "operator").await?;
    what_is_in_it_takes_the_passphrase(&cluster, &file, revision).await?;

    // Everything is lost, but for a copy of n2's disk.
    let copy = cluster.dir().join("n2-of-before");
    for node in &mut cluster.nodes {
        node.kill9()?;
    }
    copy_directory(&cluster.nodes[1].data_dir(), &copy)?;
    for node in &cluster.nodes {
        fs::remove_dir_all(node.data_dir())?;
    }
    let dir = cluster.nodes[0].data_dir();
    let restore = |dir: &Path| {
        let words = ["snapshot", "restore", path_text(&file), "--data-dir", path_text(dir), "--name", "n1"];
        Verb::from_afar(&words).env("SHOAL_PASSPHRASE", PASSPHRASE)
    };
    let refused = restore(&copy).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("is of a node"), "{}", refused.stderr);
    let restored = restore(&dir).run().await?.expect(0)?;
    ensure!(restored.stdout.contains("shoal run --data-dir"), "{}", restored.stdout);
    cluster.restart(0)?;
    cluster.answers(0).await?;
    cluster.node_serves(0, HOST, "/").await?;
    certificate.is_shown_by(&cluster.nodes[0]).await?;
    ensure!(cluster.revision(0).await? == revision + 1_000_000_000, "revisions have other numbers");
    let status = cluster.status(0).await?;
    ensure!(status["cluster_id"] != old_id, "it is another cluster");
    ensure!(status["nodes"].as_array().map(Vec::len) == Some(1), "nobody else is in it: {status}");
    let new_keys = keys(&cluster, 0).await?;
    ensure!(new_keys["node_seconds"] == 2 * 86_400 && new_keys["gossip_key"] == 0, "{new_keys}");
    ensure!(new_keys["authority_sha256"] != old_keys["authority_sha256"], "it has an authority of its own");
    let audit = cluster.nodes[0].shoal(&["audit"]).await?.expect(0)?;
    ensure!(audit.stdout.contains("Restore"), "it is not on the record: {}", audit.stdout);
    let operators = cluster.nodes[0].shoal(&["operator", "list"]).await?.expect(0)?;
    ensure!(operators.stdout.contains("admin"), "its operator can be revoked: {}", operators.stdout);
    let address = cluster.nodes[0].at(Ports::ADMIN).to_string();
    let refused = Verb::from_afar(&["--addr", &address, "--identity", path_text(&operator), "status"]);
    refused.run().await?.expect(2)?;

    // A node of before stays by itself, and serves what it has.
    copy_directory(&copy, &cluster.nodes[1].data_dir())?;
    cluster.restart(1)?;
    cluster.node_serves(1, HOST, "/").await?;
    cluster.answers(1).await?;
    let apart = cluster.status(1).await?;
    ensure!(apart["cluster_id"] == old_id && apart["quorum"] == false, "{apart}");
    let refused = cluster.try_apply(1, &SiteFile::new()).await?;
    ensure!(refused.code == 6, "{}", refused.text());
    let status = cluster.status(0).await?;
    ensure!(status["nodes"].as_array().map(Vec::len) == Some(1), "they have mixed: {status}");

    // With empty directories they come in.
    cluster.nodes[1].kill9()?;
    fs::remove_dir_all(cluster.nodes[1].data_dir())?;
    for i in 1..3 {
        cluster.let_join(i).await?;
        cluster.answers(i).await?;
    }
    cluster.settle().await?;
    cluster.apply(2, &with_more(site, &origin)).await?;
    ensure!(cluster.revision(1).await? == revision + 1_000_000_001, "changes go on from there");
    Ok(())
}

/// `shoal recover apply` on the first node, with further arguments.
fn recover_apply(dir: &Path, arguments: &[&str]) -> Verb {
    Verb::from_afar(&[&["recover", "apply", "--data-dir", path_text(dir)][..], arguments].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_left_goes_on_and_the_others_stay_outside() -> Result<()> {
    let cluster = Cluster::start_with(3, &["--drain-delay", "0s"]).await?;
    let Scene { mut cluster, origin, site, certificate } = Scene::set(cluster).await?;
    let revision = cluster.revision(0).await?;
    let refused = cluster.nodes[0].shoal(&["recover", "plan", "--lost", "n9"]).await?.expect(1)?;
    ensure!(refused.stderr.contains("no node called"), "{}", refused.stderr);
    let refused = cluster.nodes[0].shoal(&["recover", "plan"]).await?.expect(2)?;
    ensure!(refused.stdout.contains("which is a majority"), "{}", refused.stdout);

    // Two of three are lost; what was on their disks comes back later.
    let copies = [1, 2].map(|i| cluster.dir().join(format!("n{}-of-before", i + 1)));
    for (i, copy) in [1, 2].into_iter().zip(&copies) {
        cluster.nodes[i].kill9()?;
        copy_directory(&cluster.nodes[i].data_dir(), copy)?;
        fs::remove_dir_all(cluster.nodes[i].data_dir())?;
    }
    wait_until("n1 finds out that it has no quorum", DEADLINE, async || {
        cluster.status(0).await.is_ok_and(|status| status["quorum"] == false)
    })
    .await?;
    for _ in 0..20 {
        let answer = fetch(cluster.nodes[0].at(Ports::HTTP), HOST, "/").await?;
        ensure!(answer.status == 200, "it does not serve any more");
    }
    ensure!(cluster.try_apply(0, &site).await?.code == 6, "it cannot decide anything");

    // Nobody goes on as long as somebody may know more.
    let plan = async |lost: &[&str], code| -> Result<String> {
        let lost: Vec<&str> = lost.iter().flat_map(|name| ["--lost", name]).collect();
        let words = [&["recover", "plan"][..], &lost].concat();
        Ok(cluster.nodes[0].shoal(&words).await?.expect(code)?.stdout)
    };
    ensure!(plan(&[], 2).await?.contains("may live, and may know more: n"), "both may live");
    ensure!(plan(&["n2"], 2).await?.contains("may know more: n3"), "n3 may live");
    ensure!(plan(&["n1", "n2", "n3"], 2).await?.contains("n1 answers and is not lost"), "n1 lives");
    let shown = plan(&["n2", "n3"], 0).await?;
    ensure!(shown.contains("n1 may go on alone") && shown.contains("lost are changes"), "{shown}");
    let found = cluster.nodes[0].told(&["recover", "plan", "--lost", "n2", "--lost", "n3"]).await?;
    let last = found["last"].as_str().context("no end of the log")?.to_owned();
    let dir = cluster.nodes[0].data_dir();
    let both = ["--lost", "n2", "--lost", "n3", "--at", &last];
    let refused = recover_apply(&dir, &[&both[..], &["-y"]].concat()).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("has to be stopped first"), "{}", refused.stderr);
    let saved = cluster.dir().join("before.snapshot");
    let save =
        cluster.nodes[0].verb(&["snapshot", "save", path_text(&saved)]).env("SHOAL_PASSPHRASE", PASSPHRASE);
    ensure!(save.run().await?.expect(0)?.stderr.contains("no majority"), "it is not known to be complete");
    cluster.nodes[0].kill9()?;
    for (arguments, why) in [
        (&["--lost", "n2", "--at", &last, "-y"][..], "may know more: n3"),
        (&["--lost", "n2", "--lost", "n3", "--at", "999.1", "-y"][..], "another node that goes on"),
        (&both[..], "nothing was changed"),
    ] {
        let refused = recover_apply(&dir, arguments).run().await?.expect(1)?;
        ensure!(refused.stderr.contains(why), "{arguments:?}: {}", refused.stderr);
    }
    let began = std::time::Instant::now();
    let done = recover_apply(&dir, &[&both[..], &["-y", "-o", "json"]].concat()).run().await?.expect(0)?;
    ensure!(done.json()?["cluster_epoch"] == 1, "{}", done.stdout);
    cluster.restart(0)?;
    cluster.answers(0).await?;
    let more = with_more(site.clone(), &origin);
    let applied = async || cluster.try_apply(0, &more).await.is_ok_and(|output| output.code == 0);
    wait_until("it takes changes again", DEADLINE, applied).await?;
    eprintln!("from recover apply to the first change: {:?}", began.elapsed());
    ensure!(cluster.revision(0).await? == revision + 1, "nothing that it had is lost");
    certificate.is_shown_by(&cluster.nodes[0]).await?;
    let audit = cluster.nodes[0].shoal(&["audit"]).await?.expect(0)?;
    ensure!(audit.stdout.contains("gone: n"), "it is not on the record: {}", audit.stdout);
    wait_until("the gossip is sealed with what the lost ones do not know", DEADLINE, async || {
        keys(&cluster, 0).await.is_ok_and(|keys| keys["gossip_key"] != 0)
    })
    .await?;

    // The two come back with their old disks, a majority of the old voters: they are told, and end.
    for (i, copy) in [1, 2].into_iter().zip(&copies) {
        copy_directory(copy, &cluster.nodes[i].data_dir())?;
        cluster.restart(i)?;
    }
    for i in 1..3 {
        let ended = cluster.nodes[i].ended(DEADLINE).await?;
        ensure!(!ended.success(), "n{} ended with success", i + 1);
        ensure!(cluster.nodes[i].log().contains("was removed from the cluster"), "n{} was not told", i + 1);
        cluster.restart(i)?;
        ensure!(!cluster.nodes[i].ended(DEADLINE).await?.success(), "n{} starts again", i + 1);
    }
    let status = cluster.status(0).await?;
    ensure!(status["nodes"].as_array().map(Vec::len) == Some(1), "they have mixed: {status}");
    ensure!(cluster.revision(0).await? == revision + 1, "they have changed something");

    // What a node served last can be had even without its log.
    let file = cluster.dir().join("rebuilt.json");
    let words = ["recover", "site", path_text(&file), "--data-dir", path_text(&copies[0])];
    Verb::from_afar(&words).run().await?.expect(0)?;
    ensure!(fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600, "others may read it");
    let rebuilt = fs::read_to_string(&file)?;
    ensure!(rebuilt.contains("PRIVATE KEY") && !rebuilt.contains("key_sealed"), "it has no key");
    Verb::from_afar(&["validate", "-f", path_text(&file)]).run().await?.expect(0)?;

    // With empty directories they come in.
    for i in 1..3 {
        fs::remove_dir_all(cluster.nodes[i].data_dir())?;
        cluster.let_join(i).await?;
        cluster.answers(i).await?;
    }
    cluster.settle().await?;
    cluster.apply(2, &site).await?;
    certificate.is_shown_by(&cluster.nodes[2]).await
}

/// The first node goes and comes back as the version that is a release ahead, or as the one that there is.
async fn change_version(cluster: &mut Cluster, is_ahead: bool) -> Result<()> {
    const RELEASES_AHEAD: &str = "SHOAL_PRETEND_RELEASES_AHEAD";
    cluster.nodes[0].term()?;
    cluster.nodes[0].ended(DEADLINE).await?;
    cluster.nodes[0].unset_environment(RELEASES_AHEAD);
    if is_ahead {
        cluster.nodes[0].set_environment(RELEASES_AHEAD, "1");
    }
    cluster.restart(0)?;
    cluster.answers(0).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_later_version_knows_can_be_left_out() -> Result<()> {
    if !cfg!(debug_assertions) {
        skip(
            "what_only_a_later_version_knows_can_be_left_out",
            "only a debug build pretends to be of another release",
        );
        return Ok(());
    }
    let mut cluster = Cluster::start_with(1, &["--drain-delay", "0s"]).await?;
    let origin = Origin::of_patterns(100, "no-store").await?;
    let site = SiteFile::new().proxy("shop", &[origin.endpoint()]);
    cluster.apply(0, &site).await?;
    change_version(&mut cluster, true).await?;
    cluster.nodes[0].shoal(&["upgrade", "finalize"]).await?.expect(0)?;
    cluster.nodes[0].shoal(&["token", "create"]).await?.expect(0)?;
    change_version(&mut cluster, false).await?;

    // It says which entry it is, and both ways on.
    let told = wait_until_some("the plan says what to do", DEADLINE, async || {
        let told = cluster.nodes[0].shoal(&["recover", "plan"]).await.ok()?;
        (told.code == 2 && told.stderr.contains("start a version that knows level")).then_some(told.stderr)
    })
    .await?;
    let word_after = |flag: &str| -> Result<String> {
        let (_, rest) = told.split_once(flag).with_context(|| format!("no {flag} in {told}"))?;
        let word = rest.split_whitespace().next().context("nothing follows")?;
        Ok(word.trim_end_matches(',').to_owned())
    };
    let (at, without) = (word_after("--at ")?, word_after("--without ")?);
    cluster.nodes[0].kill9()?;
    let dir = cluster.nodes[0].data_dir();
    let refused = recover_apply(&dir, &["--at", &at, "-y"]).run().await?.expect(1)?;
    ensure!(refused.stderr.contains(&format!("by --without {without}")), "{}", refused.stderr);
    let elsewhere = ["--at", &at, "--without", "1.1", "-y"];
    let refused = recover_apply(&dir, &elsewhere).run().await?.expect(1)?;
    ensure!(refused.stderr.contains(&format!("not with 1.1: entry {without}: ")), "{}", refused.stderr);
    let there = ["--at", &at, "--without", &without, "-y"];
    let refused = recover_apply(&dir, &there).run().await?.expect(1)?;
    ensure!(
        refused.stderr.contains(&format!("entry {without} is known to be committed")),
        "{}",
        refused.stderr
    );
    let (_, phrase) = refused.stderr.split_once("--phrase '").context("no phrase")?;
    let phrase = phrase.split('\'').next().unwrap_or_default();
    let done = recover_apply(&dir, &[&there[..], &["--phrase", phrase]].concat()).run().await?.expect(0)?;
    let left_out = format!(" from {without} on (");
    for part in [left_out.as_str(), "1 create token", "1 set level"] {
        ensure!(done.stdout.contains(part), "{part:?} is missing: {}", done.stdout);
    }

    cluster.restart(0)?;
    cluster.answers(0).await?;
    let more = with_more(site, &origin);
    let applied = async || cluster.try_apply(0, &more).await.is_ok_and(|output| output.code == 0);
    wait_until("it takes changes again", DEADLINE, applied).await?;
    let audit = cluster.nodes[0].shoal(&["audit"]).await?.expect(0)?;
    ensure!(audit.stdout.contains("without "), "it is not on the record: {}", audit.stdout);
    Ok(())
}
