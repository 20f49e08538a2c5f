//! A data directory or a key that others may touch: the node does not start, says which file it is and what mends that, and
//! serves as soon as somebody has typed it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::{Cluster, HOST, NodeProcess, Origin, Ports, SiteFile, fetch};
use rustix::process::geteuid;

/// For a node to find out that it must not start.
const DEADLINE: Duration = Duration::from_secs(30);

/// A file that is not as it has to be.
struct Wrong<'a> {
    file: &'a Path,
    /// The command and its argument by which it came about.
    made_by: [&'a str; 2],
    told: &'a str,
    mended_by: [&'a str; 2],
}

fn run([program, argument]: [&str; 2], file: &Path) -> Result<()> {
    let ended = Command::new(program).arg(argument).arg(file).status().context(program.to_owned())?;
    ensure!(ended.success(), "{program} {argument} {}: {ended}", file.display());
    Ok(())
}

/// It ends with 1 instead of starting, and tells all of this.
async fn does_not_start(node: &mut NodeProcess, expected: &[&str]) -> Result<()> {
    let before = node.log().len();
    node.start(None)?;
    let status = node.ended(DEADLINE).await?;
    let told = node.log()[before..].to_owned();
    ensure!(status.code() == Some(1), "{} ended with {status}: {told}", node.name);
    for part in expected {
        ensure!(told.contains(part), "{part:?} is not told: {told}");
    }
    ensure!(!told.contains("panicked"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_may_touch_is_refused_until_it_is_mended() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let origin = Origin::of_patterns(50, "no-store").await?;
    cluster.put_in_force(&SiteFile::new().proxy("shop", &[origin.endpoint()])).await?;

    let dir = cluster.nodes[2].data_dir();
    let key = dir.join("identity/node.json");
    let of_a_key = |made_by, told| Wrong { file: &key, made_by, told, mended_by: ["chmod", "600"] };
    let mut wrongs = vec![
        Wrong { file: &dir, made_by: ["chmod", "777"], told: "(mode 777)", mended_by: ["chmod", "o-w"] },
        of_a_key(["chmod", "640"], "(mode 640)"),
        of_a_key(["chmod", "604"], "(mode 604)"),
    ];
    // Nobody else gives files away.
    if geteuid().is_root() {
        let (made_by, mended_by) = (["chown", "54321"], ["chown", "0"]);
        wrongs.push(Wrong { file: &dir, made_by, told: "belongs to user 54321, not to 0", mended_by });
    }
    for Wrong { file, made_by, told, mended_by } in wrongs {
        cluster.nodes[2].kill9()?;
        run(made_by, file)?;
        let (name, command) = (file.display().to_string(), format!("`{}", mended_by.join(" ")));
        does_not_start(&mut cluster.nodes[2], &[&name, told, &command]).await?;
        let answer = fetch(cluster.nodes[0].at(Ports::HTTP), HOST, "/").await?;
        ensure!(answer.status == 200, "the others do not serve: {answer:?}");
        run(mended_by, file)?;
        cluster.restart(2)?;
        cluster.answers(2).await?;
        cluster.node_serves(2, HOST, "/").await?;
    }
    // That its group may still write there is no reason not to serve, and is told.
    let warned = cluster.nodes[2].log();
    ensure!(warned.contains("a group may write to the data directory"), "{warned}");

    // A node that is new writes nothing where somebody else could take it away.
    let home = cluster.dir().join("n4");
    let mut newcomer = NodeProcess::new("n4", cluster.block().ip(40), &home, &[]);
    let dir = newcomer.data_dir();
    fs::create_dir_all(&dir)?;
    fs::set_permissions(&dir, Permissions::from_mode(0o777))?;
    does_not_start(&mut newcomer, &["(mode 777)", "`chmod o-w"]).await?;
    ensure!(fs::read_dir(&dir)?.next().is_none(), "something was written into {}", dir.display());
    run(["chmod", "o-w"], &dir)?;
    cluster.nodes.push(newcomer);
    cluster.let_join(3).await?;
    cluster.answers(3).await?;
    cluster.node_serves(3, HOST, "/").await
}
