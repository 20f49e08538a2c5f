//! An operator says once where a cluster is and with which identity it is called; from then on a name means all of that,
//! whichever node is gone, and gives nobody more than the identity does.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::{Cluster, Ports, SiteFile, Verb, VerbOutput, path_text, wait_until};
use serde_json::Value;

/// For every node to hear of what was revoked or given.
const DEADLINE: Duration = Duration::from_secs(30);

/// What an operator has where he types.
struct Home {
    contexts: PathBuf,
}

impl Home {
    /// Runs a verb, to which nothing says where a cluster is but the file of contexts.
    async fn shoal(&self, verb: &[&str]) -> Result<VerbOutput> {
        Verb::from_afar(verb).env("SHOAL_CONTEXTS", path_text(&self.contexts)).run().await
    }

    /// What that prints as JSON.
    async fn told(&self, verb: &[&str]) -> Result<Value> {
        self.shoal(&[&["-o", "json"], verb].concat()).await?.expect(0)?.json()
    }

    /// The cluster that answers.
    async fn cluster_of(&self, which: &[&str]) -> Result<Value> {
        Ok(self.told(&[which, &["status"]].concat()).await?["cluster_id"].clone())
    }

    /// Names of the contexts that are said to be used.
    async fn used(&self) -> Result<Vec<String>> {
        let list = self.told(&["context", "list"]).await?;
        let used = list.as_array().into_iter().flatten().filter(|row| row["current"] == true);
        Ok(used.filter_map(|row| row["name"].as_str().map(str::to_owned)).collect())
    }
}

fn mode_of(file: &Path) -> Result<u32> {
    Ok(fs::metadata(file)?.permissions().mode() & 0o777)
}

fn set_mode(file: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(file, Permissions::from_mode(mode))?)
}

/// A new identity, made over the socket of the `i`-th node.
async fn identity(cluster: &Cluster, i: usize, name: &str, role: &str) -> Result<PathBuf> {
    let file = cluster.dir().join(format!("{name}.json"));
    let make = ["operator", "create", name, path_text(&file), "--role", role];
    cluster.nodes[i].shoal(&make).await?.expect(0)?;
    ensure!(mode_of(&file)? == 0o600, "{name} lies there with mode {:03o}", mode_of(&file)?);
    Ok(file)
}

/// This context alone is said to be used, and its cluster answers where nothing else is named.
async fn is_used(home: &Home, name: &str, cluster: &Value) -> Result<()> {
    let (used, answered) = (home.used().await?, home.cluster_of(&[]).await?);
    ensure!(used == [name] && answered == *cluster, "{used:?} are used, {answered} answers");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_leads_to_its_cluster_as_far_as_its_identity_goes() -> Result<()> {
    let (mut prod, stage) = (Cluster::start(3).await?, Cluster::start(1).await?);
    let home = Home { contexts: prod.dir().join("home/shoal/contexts.yaml") };
    let (in_prod, in_stage) =
        (prod.status(0).await?["cluster_id"].clone(), stage.status(0).await?["cluster_id"].clone());
    ensure!(in_prod.is_string() && in_prod != in_stage, "{in_prod}, {in_stage}");
    let (ada, eve) =
        (identity(&prod, 0, "ada", "operator").await?, identity(&prod, 0, "eve", "viewer").await?);

    // One node is named, the others are found out; the last one that was given a name is used.
    let first = prod.nodes[0].at(Ports::ADMIN).to_string();
    let login = home.shoal(&["login", "prod", "--addr", &first, "--identity", path_text(&ada)]).await?;
    ensure!(login.expect(0)?.stdout.contains("3 nodes are tried in turn"), "not all three are known");
    home.shoal(&["login", "look", "--addr", &first, "--identity", path_text(&eve)]).await?.expect(0)?;
    let socket = stage.nodes[0].data_dir().join("admin.sock");
    let login = home.shoal(&["login", "stage", "--socket", path_text(&socket)]).await?.expect(0)?;
    ensure!(login.stdout.contains("one way to it"), "{login:?}");
    is_used(&home, "stage", &in_stage).await?;

    // What was written is for nobody else, and has no key in it.
    let written = fs::read_to_string(&home.contexts)?;
    ensure!(mode_of(&home.contexts)? == 0o600, "mode {:03o}", mode_of(&home.contexts)?);
    let shown: Value = serde_json::from_str(&fs::read_to_string(&ada)?)?;
    let key = shown["key"].as_str().context("ada has no key")?;
    ensure!(written.contains("ada.json") && !written.contains(key), "{written}");

    // Who cannot be logged in to changes nothing.
    let second = stage.nodes[0].at(Ports::ADMIN).to_string();
    let mixed = ["login", "mixed", "--addr", &second, "--identity", path_text(&ada)];
    let refused = home.shoal(&mixed).await?.expect(2)?;
    ensure!(refused.stderr.contains("this node is of another cluster"), "{refused:?}");
    ensure!(fs::read_to_string(&home.contexts)? == written, "it has left its mark");

    // A name goes before the one that is used, in a flag or in the environment.
    home.shoal(&["context", "use", "prod"]).await?.expect(0)?;
    is_used(&home, "prod", &in_prod).await?;
    let named = home.cluster_of(&["-c", "stage"]).await?;
    ensure!(named == in_stage, "{named} answers for stage");
    let variables = Verb::from_afar(&["-o", "json", "status"]).env("SHOAL_CONTEXT", "stage");
    let told = variables.env("SHOAL_CONTEXTS", path_text(&home.contexts)).run().await?.expect(0)?.json()?;
    ensure!(told["cluster_id"] == in_stage, "{told}");
    let unknown = home.shoal(&["-c", "dev", "status"]).await?.expect(1)?;
    ensure!(unknown.stderr.contains("contexts are: look, prod, stage"), "{unknown:?}");

    // A viewer looks, an operator changes; the other cluster hears nothing of it.
    let (file, untouched) = (prod.dir().join("site.json"), stage.revision(0).await?);
    SiteFile::new().proxy("shop", &["127.0.0.1:9".to_owned()]).write(&file)?;
    let apply = ["apply", "-f", path_text(&file)];
    let refused = home.shoal(&[&["-c", "look"], &apply[..]].concat()).await?.expect(2)?;
    let why = "\"eve\" has the role viewer, and this takes the role operator";
    ensure!(
        refused.stderr.contains(why) && refused.stderr.contains("; try: shoal --identity"),
        "{refused:?}"
    );
    let applied = home.shoal(&apply).await?.expect(0)?;
    ensure!(applied.stdout.contains("applied on 3/3 nodes"), "{applied:?}");
    let seen = home.shoal(&["-c", "look", "get"]).await?.expect(0)?;
    ensure!(seen.stdout.contains("127.0.0.1:9"), "{seen:?}");
    ensure!(stage.revision(0).await? == untouched, "the other cluster was changed");

    // The node that was named is gone: its name leads to the others.
    prod.nodes[0].kill9()?;
    is_used(&home, "prod", &in_prod).await?;
    SiteFile::new().proxy("shop", &["127.0.0.1:8".to_owned()]).write(&file)?;
    home.shoal(&apply).await?.expect(0)?;
    let seen = home.shoal(&["get"]).await?.expect(0)?;
    ensure!(seen.stdout.contains("127.0.0.1:8"), "{seen:?}");

    // Of identities that are good no more it says what to do.
    set_mode(&ada, 0o644)?;
    let open = home.shoal(&["status"]).await?.expect(1)?;
    ensure!(open.stderr.contains("(mode 644): run `chmod 600` on it"), "{open:?}");
    set_mode(&ada, 0o600)?;
    home.shoal(&["status"]).await?.expect(0)?;
    prod.nodes[1].shoal(&["operator", "revoke", "ada"]).await?.expect(0)?;
    let (why, advice) = ("the identity of \"ada\" was revoked", "; try: shoal --identity FILE");
    wait_until("ada is told that she was revoked", DEADLINE, async || {
        home.shoal(&["history"]).await.is_ok_and(|output| {
            output.code == 2 && output.stderr.contains(why) && output.stderr.contains(advice)
        })
    })
    .await?;
    home.shoal(&["-c", "look", "history"]).await?.expect(0)?;

    // She is given another one where the last one was: the name is good as it is.
    fs::remove_file(&ada)?;
    identity(&prod, 1, "ada", "operator").await?;
    wait_until("the new one is good", DEADLINE, async || {
        home.shoal(&["history"]).await.is_ok_and(|output| output.code == 0)
    })
    .await?;

    let removed = home.shoal(&["context", "remove", "prod"]).await?.expect(0)?;
    ensure!(removed.stderr.contains("no cluster is used now"), "{removed:?}");
    let used = home.used().await?;
    ensure!(used.is_empty(), "{used:?} are used");
    home.shoal(&["-c", "prod", "status"]).await?.expect(1).map(drop)
}
