//! Operators have roles, which their certificates carry: each call takes one, and who has less is refused, counted and told.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cluster_tests::{Cluster, NodeProcess, Ports, SiteFile, Verb, VerbOutput};

/// From the least to the highest.
const ROLES: [&str; 3] = ["viewer", "operator", "admin"];

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{path:?} is not UTF-8"))
}

/// Runs a verb from afar with the identity in `file`.
async fn run_as(file: &Path, node: &NodeProcess, verb: &[&str]) -> Result<VerbOutput> {
    let address = node.at(Ports::ADMIN).to_string();
    Verb::from_afar(&[&["--addr", &address, "--identity", text(file)?], verb].concat()).run().await
}

/// A new identity of the name `name` with `role`, made over the socket.
async fn identity(cluster: &Cluster, name: &str, role: &str) -> Result<PathBuf> {
    let file = cluster.dir().join(format!("{name}.json"));
    let make = ["operator", "create", name, text(&file)?, "--role", role];
    cluster.nodes[0].shoal(&make).await?.expect(0)?;
    Ok(file)
}

/// What each call is, by the verb that makes it, and the least role that it takes.
fn calls<'a>(site: &'a str, new_file: &'a str) -> Vec<(&'static str, &'static str, Vec<&'a str>)> {
    let url = "http://shop.example.com/";
    vec![
        ("Plan", "viewer", vec!["plan", "-f", site]),
        ("Show", "viewer", vec!["get"]),
        ("History", "viewer", vec!["history"]),
        ("Diff", "viewer", vec!["diff", "0"]),
        ("PlanEdit", "viewer", vec!["delete", "route/none", "--dry-run"]),
        ("Status", "viewer", vec!["status"]),
        ("Health", "viewer", vec!["health"]),
        ("Top", "viewer", vec!["top", "--once"]),
        ("CacheStats", "viewer", vec!["cache", "stats"]),
        ("CacheLocate", "viewer", vec!["cache", "locate", url]),
        ("CacheGet", "viewer", vec!["cache", "get", url]),
        ("CacheTop", "viewer", vec!["cache", "top", "--for", "1s"]),
        ("PurgeStatus", "viewer", vec!["cache", "purge-status"]),
        ("ListTokens", "viewer", vec!["token", "list"]),
        ("Apply", "operator", vec!["apply", "-f", site]),
        ("Stage", "operator", vec!["apply", "-f", site, "--confirm-timeout", "5s"]),
        ("Confirm", "operator", vec!["confirm"]),
        ("Abort", "operator", vec!["abort"]),
        ("Edit", "operator", vec!["delete", "route/none"]),
        ("Rollback", "operator", vec!["rollback", "--to-revision", "1"]),
        ("Purge", "operator", vec!["cache", "purge", "--url", url]),
        ("CacheWarm", "operator", vec!["cache", "warm", url]),
        ("CreateToken", "admin", vec!["token", "create"]),
        ("RevokeToken", "admin", vec!["token", "revoke", "0123456789abcdef"]),
        ("IssueOperator", "admin", vec!["operator", "create", "eve", new_file]),
        ("RemoveNode", "admin", vec!["node", "remove", "n9"]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_takes_a_role() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let node = &cluster.nodes[0];
    let (site, new_file) = (cluster.dir().join("site.json"), cluster.dir().join("eve.json"));
    SiteFile::new().proxy("shop", &["127.0.0.1:9".to_owned()]).write(&site)?;
    let mut refused = 0_u32;
    for (rank, role) in ROLES.iter().enumerate() {
        let file = identity(&cluster, &format!("ada-{role}"), role).await?;
        for (call, least, verb) in calls(text(&site)?, text(&new_file)?) {
            let output = run_as(&file, node, &verb).await?;
            let may = ROLES.iter().position(|role| *role == least).is_some_and(|least| least <= rank);
            let why = format!("\"ada-{role}\" has the role {role}, and {call} takes the role {least}");
            if may {
                ensure!(!output.text().contains("has the role"), "{role} may {call}: {output:?}");
            } else {
                ensure!(output.stderr.contains(&why), "{role} {call}: {output:?}");
                output.expect(2)?;
                refused += 1;
            }
        }
        // Of its own accord nobody becomes more than he is.
        if *role != "admin" {
            ensure!(!new_file.exists(), "{role} has made an identity");
            let before = std::fs::read(&file)?;
            run_as(&file, node, &["operator", "renew", text(&file)?]).await?.expect(2)?;
            ensure!(std::fs::read(&file)? == before, "{role} was renewed");
            refused += 1;
        }
    }
    ensure!(new_file.exists(), "the admin has made no identity");
    let counted = cluster.metric(0, "shoal_admin_refused_total", "").await?;
    ensure!(counted == f64::from(refused), "{counted} of {refused} refusals were counted");
    let told = node.log();
    ensure!(told.contains("an operator was refused") && told.contains("ada-viewer"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identities_end_and_keep_their_role() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let node = &cluster.nodes[0];
    // As all were before there were roles.
    let first = node.data_dir().join("operator.json");
    run_as(&first, node, &["token", "create"]).await?.expect(0)?;
    let guest = identity(&cluster, "guest", "viewer").await?;
    run_as(&first, node, &["operator", "renew", text(&guest)?]).await?.expect(0)?;
    let denied = run_as(&guest, node, &["token", "create"]).await?.expect(2)?;
    ensure!(denied.stderr.contains("\"guest\" has the role viewer"), "{denied:?}");
    run_as(&guest, node, &["status"]).await?.expect(0)?;
    run_as(&first, node, &["operator", "renew", text(&guest)?, "--ttl", "1s"]).await?.expect(0)?;
    let file = &guest;
    cluster
        .eventually("the identity has ended", async || {
            run_as(file, node, &["status"]).await.ok().filter(|output| output.code == 2)
        })
        .await?;
    let wrong = node.shoal(&["operator", "create", "eve", "x.json", "--role", "root"]).await?;
    ensure!(wrong.code != 0 && wrong.stderr.contains("viewer, operator, admin"), "{wrong:?}");
    Ok(())
}
