//! Two operators who start from the same revision do not overwrite each other.

use anyhow::{Context, Result, ensure};
use cluster_tests::{Cluster, Origin, SiteFile};

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
    let file_text = file.to_str().context("a path of the story")?;
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

fn blog(prefix: &str) -> serde_json::Value {
    serde_json::json!({ "path_prefix": prefix, "upstream": "shop" })
}
