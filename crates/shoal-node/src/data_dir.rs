//! The data directory: whose it is, told by what is in it before anything is written, and the lock that keeps other
//! processes out.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::OFlags;
use shoal_cluster::identity::Identity;

use crate::cache_disk::DIRECTORY;
use crate::crash_guard;

/// The first entry of a new cluster, until it is in the log.
pub(crate) const BOOTSTRAP: &str = "bootstrap.json";
/// Whom to talk to first, until this node has the log of the cluster it joined.
pub(crate) const PEERS: &str = "joined.json";
/// What holds for the cluster as a whole, as this node knew it last: how patient it is has to be known before the log is.
pub(crate) const SETUP: &str = "setup.json";
/// The first operator of a new cluster.
pub(crate) const OPERATOR: &str = "operator.json";
/// Where this node was reached last.
pub(crate) const ADDRESS: &str = "address";
/// Who has the directory, has locked this file.
const LOCK: &str = "lock";
/// What only a node has that has taken part in its cluster.
const OF_A_MEMBER: [&str; 5] =
    ["raft.redb", "snapshots", "last-known-good.json", "last-known-good.previous.json", crash_guard::FILE];
/// What a first start may leave that was cut short, and what the file system has put there.
const OF_A_BEGINNING: [&str; 13] = [
    LOCK,
    "identity",
    BOOTSTRAP,
    "bootstrap.new",
    PEERS,
    "joined.new",
    SETUP,
    "setup.new",
    "operator.new",
    ADDRESS,
    "address.new",
    DIRECTORY,
    "lost+found",
];

/// Why a new node must not be made in a directory.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum NotNew {
    #[error(
        "has {0:?} of a node whose identity (identity/node.json) is gone: restore it from a backup; or move the \
         directory away, remove that node from its cluster, and join again with a new token"
    )]
    LostIdentity(String),
    #[error(
        "is not empty and not of a node, it has {0:?} in it: give --data-dir a directory of the node's own"
    )]
    Foreign(String),
}

/// The identity in `dir`, if it is of a node. If it is not, there must be nothing in it that somebody could miss.
pub fn look(dir: &Path) -> anyhow::Result<Option<Identity>> {
    if let Some(identity) = Identity::load(dir)? {
        return Ok(Some(identity));
    }
    let cannot_read = || format!("cannot read the data directory {}", dir.display());
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        entries => entries.with_context(cannot_read)?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect::<std::io::Result<_>>().with_context(cannot_read)?;
    names.sort();
    if let Err(why) = check_new(&names) {
        bail!("{} {why}; nothing was written", dir.display());
    }
    Ok(None)
}

/// Whether a directory with these entries, and without an identity, may become that of a new node.
fn check_new(names: &[String]) -> Result<(), NotNew> {
    let has = |name: &str| names.iter().any(|known| known == name);
    // The first start writes down what it has begun before it makes an operator, and forgets it when it is done.
    let of_a_member = OF_A_MEMBER.into_iter().chain((!has(BOOTSTRAP)).then_some(OPERATOR));
    if let Some(name) = of_a_member.into_iter().find(|name| has(name)) {
        return Err(NotNew::LostIdentity(name.to_owned()));
    }
    let is_foreign = |name: &&String| !OF_A_BEGINNING.contains(&name.as_str()) && *name != OPERATOR;
    names.iter().find(is_foreign).map_or(Ok(()), |name| Err(NotNew::Foreign(name.clone())))
}

/// Whoever may write into the directory can put files there that lead elsewhere, and take the node's identity away.
fn check_owner(dir: &Path) -> anyhow::Result<()> {
    let cannot_read = || format!("cannot read the data directory {}", dir.display());
    let about = fs::metadata(dir).with_context(cannot_read)?;
    let (owner, own, mode) = (about.uid(), rustix::process::geteuid().as_raw(), about.mode() & 0o777);
    if owner != own && owner != 0 {
        bail!(
            "the data directory {0} belongs to user {owner}, not to {own}, who runs this: run this as that user, or, if it \
             is this node's, `chown {own} {0}`",
            dir.display()
        );
    }
    if mode & 0o002 != 0 {
        bail!(
            "everybody may write to the data directory {0} (mode {mode:03o}): run `chmod o-w {0}`",
            dir.display()
        );
    }
    if mode & 0o020 != 0 {
        tracing::warn!(dir = %dir.display(), mode = format!("{mode:03o}"), "a group may write to the data directory");
    }
    Ok(())
}

/// Makes `dir` if need be, and keeps other processes out of it for as long as the answer lives.
pub fn lock(dir: &Path) -> anyhow::Result<File> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot create the data directory {}", dir.display()))?;
    let path = dir.join(LOCK);
    check_owner(dir)?;
    // What others had put there before would be emptied, or made, where it leads to.
    let not_elsewhere = OFlags::NOFOLLOW.bits().cast_signed();
    let opened = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(not_elsewhere)
        .open(&path);
    let lock = opened.with_context(|| format!("cannot write to {}", dir.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            bail!("another shoal process uses the data directory {}", dir.display())
        }
        Err(TryLockError::Error(error)) => Err(error).context(format!("cannot lock {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_others_is_not_taken() {
        use std::os::unix::fs::{PermissionsExt, symlink};

        let dir = tempfile::tempdir().unwrap();
        let check = |mode, expected: Option<&str>| {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            let refused = lock(dir.path()).err().map(|error| format!("{error:#}"));
            match expected {
                None => assert_eq!(refused, None, "{mode:03o}"),
                Some(part) => assert!(refused.is_some_and(|why| why.contains(part)), "{mode:03o}"),
            }
        };
        check(0o700, None);
        check(0o755, None);
        check(0o775, None);
        check(0o777, Some("(mode 777): run `chmod o-w "));
        let (victim, link) = (dir.path().join("victim"), dir.path().join(LOCK));
        fs::write(&victim, "precious").unwrap();
        fs::remove_file(&link).unwrap();
        symlink(&victim, &link).unwrap();
        check(0o700, Some("cannot write to"));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[test]
    fn only_what_nobody_can_miss_becomes_a_new_node() {
        let check = |names: &[&str], expected: Result<(), NotNew>| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(check_new(&names), expected, "{names:?}");
        };
        let lost = |name: &str| Err(NotNew::LostIdentity(name.to_owned()));
        let foreign = |name: &str| Err(NotNew::Foreign(name.to_owned()));
        check(&[], Ok(()));
        check(&["lost+found"], Ok(()));
        check(&["cache"], Ok(())); // a disk of its own
        check(&["identity", "lock"], Ok(()));
        check(&["bootstrap.json", "lock", "operator.json", "setup.json"], Ok(())); // cut short
        check(&["bootstrap.json", "lock", "operator.new"], Ok(()));
        check(&["identity", "lock", "operator.json"], lost("operator.json"));
        check(&["identity", "lock", "operator.json", "raft.redb"], lost("raft.redb"));
        check(&["last-known-good.json"], lost("last-known-good.json"));
        check(&["bootstrap.json", "raft.redb"], lost("raft.redb"));
        check(&["lock", "notes.txt"], foreign("notes.txt"));
        check(&[".git"], foreign(".git"));
    }
}
