//! Two operators who start from the same revision do not overwrite each other.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use cluster_tests::{
    Bearer, Cluster, Origin, Ports, SelfSigned, SiteFile, VerbOutput, call, field, find_program, path_text,
    skip,
};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_of_two_changes_from_one_revision_is_refused() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let origin = Origin::of_patterns(50, "no-store").await?;
    let node = &cluster.nodes[0];
    let first = SiteFile::new().proxy("shop", &[origin.endpoint()]);
    cluster.apply(0, &first).await?;
    let revision = cluster.revision(0).await?;

    let second = first.clone().proxy("blog", &[origin.endpoint()]).route("blog", blog("/blog"));
    let file = cluster.dir().join("site.json");
    let file_text = path_text(&file);
    second.write(&file)?;
    let plan = node.shoal(&["plan", "-f", file_text]).await?.expect(3)?;
    ensure!(plan.text().contains("blog"), "the plan does not name what changes: {}", plan.text());

    let checked = revision.to_string();
    let mine = ["apply", "-f", file_text, "--check-revision", &checked, "-m", "add the blog"];
    node.shoal(&mine).await?.expect(0)?;
    ensure!(cluster.revision(0).await? == revision + 1, "the next revision is not one more");
    node.shoal(&["plan", "-f", file_text]).await?.expect(0)?;

    first.proxy("wiki", &[origin.endpoint()]).route("wiki", blog("/wiki")).write(&file)?;
    let refused = node.shoal(&["apply", "-f", file_text, "--check-revision", &checked]).await?.expect(4)?;
    let current = (revision + 1).to_string();
    ensure!(
        refused.stderr.contains(&current),
        "the refusal does not name revision {current}: {}",
        refused.stderr
    );
    let refused = node
        .shoal(&["-o", "json", "apply", "-f", file_text, "--check-revision", &checked])
        .await?
        .expect(4)?;
    let told: Value = serde_json::from_str(refused.stderr.trim())?;
    let asked = cluster.status(0).await?;
    ensure!(told["node"] == asked["node"], "another node has refused it: {told:#}");
    ensure!(told["revision"] == revision + 1, "it is about another revision: {told:#}");
    ensure!(cluster.revision(0).await? == revision + 1, "a refused change made a revision");

    let history = node.shoal(&["history"]).await?.expect(0)?;
    ensure!(history.stdout.contains("add the blog"), "history lacks the message: {}", history.stdout);
    node.shoal(&["rollback", "--to-revision", &checked]).await?.expect(0)?;
    ensure!(cluster.revision(0).await? == revision + 2, "a rollback is a new revision");
    let shown = node.shoal(&["-o", "json", "get"]).await?.expect(0)?;
    ensure!(!shown.stdout.contains("blog"), "the rollback left the blog: {}", shown.stdout);

    let told = node.shoal(&["apply", "-f", file_text, "--no-wait"]).await?.expect(0)?;
    ensure!(told.stdout.contains("no node was waited for"), "it does not say so: {}", told.stdout);
    let agreed = node.shoal(&["-o", "json", "get", "--consistent"]).await?.expect(0)?;
    ensure!(agreed.stdout.contains("wiki"), "what was agreed on is not there: {}", agreed.stdout);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_is_for_one_request() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let operator = Bearer::from(&cluster.nodes[0].data_dir().join("operator.json"))?;
    let ask = async |i: usize, method: &str, message: &[Vec<u8>]| {
        let mut connection = operator.connect(cluster.nodes[i].at(Ports::ADMIN)).await?;
        call(&mut connection, &format!("admin.v1.AdminService/{method}"), &message.concat()).await
    };
    let apply = async |i: usize, upstream: &str, id: &str| {
        let site = json!({ "upstreams": { upstream: { "endpoints": ["127.0.0.1:9"] } } });
        ask(i, "Apply", &[field(1, site.to_string()), field(6, id)]).await
    };
    let first = apply(0, "one", "job-7").await?;
    ensure!(first.status == "0", "{first:?}");
    let revision = cluster.revision(0).await?;
    let again = apply(1, "one", "job-7").await?;
    ensure!(again.status == "0" && cluster.revision(1).await? == revision, "{again:?}");
    let abort = ask(2, "Abort", &[field(4, "job-7")]).await?;
    for other in [apply(2, "two", "job-7").await?, abort] {
        ensure!(other.status == "3" && other.message.contains("used for something else"), "{other:?}");
    }
    ensure!(cluster.revision(2).await? == revision, "what was refused has made a revision");
    let fresh = apply(2, "two", "job-8").await?;
    ensure!(fresh.status == "0" && cluster.revision(2).await? == revision + 1, "{fresh:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_changes_one_object_is_no_conflict_for_who_changes_another() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let node = &cluster.nodes[0];
    let endpoints = ["127.0.0.1:9".to_owned()];
    let site = SiteFile::new().proxy("shop", &endpoints).upstream("blog", json!({ "endpoints": endpoints }));
    cluster.apply(0, &site).await?;
    let seen = cluster.revision(0).await?.to_string();

    let set = ["set", "upstream/blog", "-f", "-", "--check-revision", &seen];
    let whole = "endpoints: ['127.0.0.1:9']\nbalance: p2c_ewma\n";
    cluster.nodes[1].verb(&set).input(whole).run().await?.expect(0)?;
    let shop =
        ["set", "upstream/shop", "balance=least_requests", "health.http.path=/up", "--check-revision", &seen];
    node.shoal(&shop).await?.expect(0)?;
    let refused = cluster.nodes[2].verb(&set).input("endpoints: ['127.0.0.1:7']\n").run().await?.expect(4)?;
    ensure!(refused.stderr.contains("upstream/blog is not what it was"), "{}", refused.stderr);
    let expected = json!({ "endpoints": endpoints, "balance": "least_requests", "health": { "http": { "path": "/up" } } });
    ensure!(object(&cluster, "upstreams", "shop").await? == expected, "shop is something else");

    // All at once, on every node, and none is lost: each is set over what the others have made of it.
    let settings = ["connect_timeout=1s", "max_requests=7", "health.fall=4", "health.rise=5", "balance="];
    let verbs = settings.iter().enumerate().map(|(n, setting)| {
        let verb = cluster.nodes[n % 3].verb(&["set", "upstream/shop", setting]);
        tokio::spawn(verb.run())
    });
    for verb in verbs.collect::<Vec<_>>() {
        verb.await??.expect(0)?;
    }
    let shop = object(&cluster, "upstreams", "shop").await?;
    let health = json!({ "http": { "path": "/up" }, "fall": 4, "rise": 5 });
    let expected =
        json!({ "endpoints": endpoints, "connect_timeout": "1s", "max_requests": 7, "health": health });
    ensure!(shop == expected, "a setting is lost: {shop}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_deleted_and_edited_is_checked_first() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let node = &cluster.nodes[0];
    cluster.apply(0, &SiteFile::new().proxy("shop", &["127.0.0.1:9".to_owned()])).await?;
    let revision = cluster.revision(0).await?;
    let refused = async |arguments: &[&str], part: &str| -> Result<()> {
        let output = node.shoal(arguments).await?.expect(1)?;
        ensure!(output.stderr.contains(part), "{arguments:?}: {}", output.stderr);
        Ok(())
    };
    refused(&["set", "upstream/shop", "balnce=random"], "upstreams.shop.balnce: unknown field").await?;
    refused(
        &["set", "upstream/shop", "health.interval=2"],
        "upstreams.shop.health.interval: \"2\" has no unit",
    )
    .await?;
    refused(&["set", "route/shop", "upstream=shap"], "routes.shop.upstream: there is no upstream \"shap\"")
        .await?;
    refused(&["delete", "upstream/shop"], "routes.shop.upstream: upstream/shop is used by route/shop: ")
        .await?;
    refused(&["delete", "route/shop", "route/none"], "there is no route/none").await?;
    refused(&["edit"], "no terminal").await?;
    let plan = node.shoal(&["delete", "route/shop", "upstream/shop", "--dry-run"]).await?.expect(0)?;
    ensure!(plan.stdout.contains("- route shop"), "{}", plan.stdout);

    let same = edit(&cluster, &["edit", "-y"], "true").await?.expect(0)?;
    ensure!(same.stdout == "nothing was changed\n", "{}", same.text());
    let wrong = edit(&cluster, &["edit", "route/shop", "-y"], "sed -i s/shop$/shap/").await?.expect(1)?;
    ensure!(wrong.stderr.contains(":15: routes.shop.upstream: there is no"), "{}", wrong.stderr);
    let (_, kept) = wrong.stderr.split_once("is kept in ").context("where is the file?")?;
    let kept = Path::new(kept.split(';').next().unwrap_or(kept).trim());
    ensure!(std::fs::read_to_string(kept)?.contains("shap"), "the file is not what was edited");
    std::fs::remove_file(kept)?;
    // What an editor saves that is no UTF-8 is somebody's work as well.
    let garbled = edit(&cluster, &["edit", "route/shop", "-y"], "printf '\\377' >>").await?.expect(1)?;
    let (_, kept) = garbled.stderr.split_once("is kept in ").context("where is the file?")?;
    let kept = Path::new(kept.split(';').next().unwrap_or(kept).trim());
    ensure!(std::fs::read(kept)?.ends_with(b"\xff"), "the file is not what was edited");
    std::fs::remove_file(kept)?;
    ensure!(cluster.revision(0).await? == revision, "what was refused made a revision");

    // In the middle of one edit somebody else changes the same object, or another one.
    let meanwhile = |setting: &str, script: &str| {
        let socket = node.data_dir().join("admin.sock");
        let shoal = cluster_tests::shoal_binary().map_err(anyhow::Error::msg)?;
        let set =
            format!("'{}' --socket '{}' set upstream/shop {setting} >&2", shoal.display(), socket.display());
        let file = cluster.file("editor", format!("{set} && sed -i '{script}' \"$1\"\n"))?;
        anyhow::Ok(format!("sh {}", file.display()))
    };
    let lost =
        edit(&cluster, &["edit", "upstream/shop", "-y"], &meanwhile("max_requests=8", "s/:9/:7/")?).await?;
    let lost = lost.expect(4)?;
    ensure!(lost.stderr.contains("upstream/shop is not what it was"), "{}", lost.stderr);
    let editor = meanwhile("max_requests=9", "s,path_prefix: /,path: /only,")?;
    edit(&cluster, &["edit", "routes", "-y", "-m", "only that"], &editor).await?.expect(0)?;
    ensure!(object(&cluster, "routes", "shop").await?["path"] == "/only", "the edit is not in force");
    ensure!(object(&cluster, "upstreams", "shop").await?["max_requests"] == 9, "what was set is lost");

    node.shoal(&["delete", "route/shop", "upstream/shop"]).await?.expect(0)?;
    ensure!(object(&cluster, "routes", "shop").await?.is_null(), "the route is still there");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sits_at_a_terminal_is_asked() -> Result<()> {
    if find_program("script").is_none() {
        skip("who_sits_at_a_terminal_is_asked", "there is no `script`");
        return Ok(());
    }
    let cluster = Cluster::start(1).await?;
    cluster.apply(0, &SiteFile::new().proxy("shop", &["127.0.0.1:9".to_owned()])).await?;
    let edited = cluster.file("edited", "")?;
    std::fs::remove_file(&edited)?;
    let answering = async |arguments: &[&str], script: &str, answers: &str| {
        let editor = cluster.file("editor", format!("edited='{}'\n{script}\n", edited.display()))?;
        let verb = cluster.nodes[0].verb(arguments).env("VISUAL", format!("sh {}", editor.display()));
        let verb = verb.env("TMPDIR", cluster.dir().display().to_string());
        verb.on_terminal().input(answers).run().await
    };
    let port = "sed -i s/127.0.0.1:9/127.0.0.1:7/ \"$1\"";
    let no = answering(&["edit", "upstream/shop"], port, "n\n").await?.expect(1)?;
    ensure!(no.stdout.contains("127.0.0.1:7") && no.stdout.contains("apply it? [y/N]"), "{}", no.stdout);
    ensure!(no.stdout.contains("what was edited is kept in"), "{}", no.stdout);
    answering(&["edit", "upstream/shop"], port, "y\n").await?.expect(0)?;
    let shop = object(&cluster, "upstreams", "shop").await?;
    ensure!(shop["endpoints"] == json!(["127.0.0.1:7"]), "{shop}");

    // Wrong at first, and mended when it is opened again.
    let twice = "if [ -e \"$edited\" ]; then sed -i 's/upstream: shap/upstream: shop/; s,path_prefix: /,path: /only,' \"$1\"\n\
                 else touch \"$edited\"; sed -i 's/upstream: shop/upstream: shap/' \"$1\"; fi";
    let mended = answering(&["edit", "route/shop"], twice, "y\ny\n").await?.expect(0)?;
    ensure!(mended.stdout.contains("there is no upstream \"shap\""), "{}", mended.stdout);
    ensure!(mended.stdout.contains("open it again? [y/N]"), "{}", mended.stdout);
    ensure!(object(&cluster, "routes", "shop").await?["path"] == "/only", "the mended file is not in force");

    let both = ["delete", "route/shop", "upstream/shop"];
    let kept = answering(&both, "", "n\n").await?.expect(1)?;
    ensure!(kept.stdout.contains("- route shop") && kept.stdout.contains("delete them?"), "{}", kept.stdout);
    answering(&both, "", "y\n").await?.expect(0)?;
    ensure!(object(&cluster, "upstreams", "shop").await?.is_null(), "it is still there");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_exported_is_taken_back_without_a_difference() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let node = &cluster.nodes[0];
    let certificate = SelfSigned::create(cluster.dir(), &["shop.example.com"])?;
    let endpoints = ["127.0.0.1:9".to_owned()];
    let first = SiteFile::new().proxy("shop", &endpoints);
    let first = first.secure_by("shop.v2", &certificate);
    cluster.apply(0, &first).await?;
    let before = cluster.revision(0).await?.to_string();
    let second =
        first.clone().upstream("blog", json!({ "endpoints": endpoints })).route("blog", blog("/blog"));
    cluster.apply(0, &second).await?;
    let after = cluster.revision(0).await?.to_string();

    let dir = cluster.dir().join("exported");
    let to = path_text(&dir);
    let told = node.told(&["export", to]).await?;
    ensure!(told["objects"] == 7 && told["revision"] == cluster.revision(0).await?, "{told}");
    node.shoal(&["plan", "-f", to, "--prune"]).await?.expect(0)?;
    node.shoal(&["apply", "-f", to, "--prune"]).await?.expect(0)?;
    for file in std::fs::read_dir(&dir)? {
        let text = std::fs::read_to_string(file?.path())?;
        ensure!(!text.contains("PRIVATE KEY") && !text.contains("sealed"), "a key was exported: {text}");
    }

    let difference = node.shoal(&["diff", &before]).await?.expect(3)?;
    ensure!(
        difference.stdout.starts_with(&format!("changes from revision {before} to {after}:\n+ route blog")),
        "{}",
        difference.stdout
    );
    node.shoal(&["diff", &after]).await?.expect(0)?;
    node.shoal(&["diff", &after, "99"]).await?.expect(1)?;
    let whole = node.shoal(&["-o", "json", "diff", "0", &before]).await?.expect(3)?.json()?;
    ensure!(whole["changes"].as_array().is_some_and(|changes| changes.len() == 5), "{whole}");

    // An old revision over a newer one: what has gone since is not brought back by accident.
    let refused = node.shoal(&["export", "-r", &before, to]).await?.expect(1)?;
    ensure!(refused.stderr.contains("route.blog.yaml belongs to no object"), "{}", refused.stderr);
    node.shoal(&["export", "-r", &before, to, "--prune"]).await?.expect(0)?;
    node.shoal(&["apply", "-f", to, "--prune"]).await?.expect(0)?;
    node.shoal(&["diff", &before]).await?.expect(0)?;
    Ok(())
}

/// `shoal edit …` with an editor.
async fn edit(cluster: &Cluster, arguments: &[&str], editor: &str) -> Result<VerbOutput> {
    let here = cluster.dir().display().to_string();
    cluster.nodes[0].verb(arguments).env("VISUAL", "").env("EDITOR", editor).env("TMPDIR", here).run().await
}

/// An object of the active site; null = it is not there.
async fn object(cluster: &Cluster, kind: &str, name: &str) -> Result<Value> {
    Ok(cluster.nodes[0].told(&["get"]).await?[kind][name].clone())
}

fn blog(prefix: &str) -> Value {
    json!({ "path_prefix": prefix, "upstream": "shop" })
}
