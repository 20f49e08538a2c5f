//! Snapshots on disk: one file `<index>.snapshot`, replaced by rename so that there is always a whole one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::document::{Header, Snapshot, StateDocument};
use crate::room::Room;
use crate::types::SnapshotMeta;

const EXTENSION: &str = "snapshot";
const UNFINISHED: &str = "tmp";
/// What a header may weigh: it lists every node of the cluster.
const MAX_HEADER_BYTES: usize = 1 << 20;

/// The directory of snapshots. Every method blocks.
#[derive(Clone, Debug)]
pub struct SnapshotDir {
    path: PathBuf,
    room: Room,
}

impl SnapshotDir {
    /// Opens or creates the directory, and clears away what was not finished.
    pub fn open(path: PathBuf, room: Room) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        let dir = Self { path, room };
        for unfinished in dir.files(UNFINISHED)? {
            fs::remove_file(unfinished)?;
        }
        Ok(dir)
    }

    /// The directory as it is, untouched: for who will neither read nor write it.
    pub fn untouched(path: PathBuf) -> Self {
        Self { path, room: Room::default() }
    }

    /// Writes a snapshot so that it survives a power cut, then removes older ones. Waits for room.
    pub fn save(&self, meta: &SnapshotMeta, document: &StateDocument) -> io::Result<()> {
        self.room.wait_for(|| self.try_to_save(meta, document))
    }

    fn try_to_save(&self, meta: &SnapshotMeta, document: &StateDocument) -> io::Result<()> {
        let index = meta.last_log_id.map_or(0, |id| id.index);
        let path = self.path.join(format!("{index:020}.{EXTENSION}"));
        let temporary = path.with_extension(UNFINISHED);
        let mut file = File::create(&temporary)?;
        serde_json::to_writer(&mut file, &Header::of(meta.clone(), document)).map_err(io::Error::other)?;
        file.write_all(b"\n")?;
        file.write_all(&document.bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(&self.path)?.sync_all()?;
        // Newer ones stay: a snapshot from the leader may have overtaken one that was being built here.
        for older in self.files(EXTENSION)?.into_iter().take_while(|file| *file < path) {
            fs::remove_file(older)?;
        }
        Ok(())
    }

    /// The newest snapshot, verified.
    pub fn load(&self) -> io::Result<Option<Snapshot>> {
        let Some(path) = self.files(EXTENSION)?.pop() else { return Ok(None) };
        let snapshot = read_snapshot(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("snapshot {} is damaged: {error}", path.display()))
        })?;
        Ok(Some(snapshot))
    }

    /// Files with this extension, oldest first.
    fn files(&self, wanted: &str) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for item in fs::read_dir(&self.path)? {
            let path = item?.path();
            if path.extension().is_some_and(|extension| extension == wanted) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

fn read_snapshot(path: &Path) -> io::Result<Snapshot> {
    let invalid = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
    let bytes = bytes::Bytes::from(fs::read(path)?);
    let newline = bytes
        .iter()
        .take(MAX_HEADER_BYTES)
        .position(|byte| *byte == b'\n')
        .ok_or_else(|| invalid("it has no header".to_owned()))?;
    let header: Header =
        serde_json::from_slice(&bytes[..newline]).map_err(|error| invalid(error.to_string()))?;
    let document = StateDocument { bytes: bytes.slice(newline + 1..) };
    header.verify(&document).map_err(|error| invalid(error.to_string()))?;
    Ok(Snapshot { meta: header.meta, snapshot: document })
}

#[cfg(test)]
mod tests {
    use openraft::LogId;
    use openraft::vote::RaftLeaderId;
    use shoal_model::state::ConfigState;

    use super::*;

    fn meta(index: u64) -> SnapshotMeta {
        let leader = openraft::impls::leader_id_adv::LeaderId::new(1, 1).to_committed();
        SnapshotMeta { last_log_id: Some(LogId::new(leader, index)), ..SnapshotMeta::default() }
    }

    #[test]
    fn the_newest_snapshot_is_kept_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = SnapshotDir::open(dir.path().join("snapshots"), Room::default()).unwrap();
        assert!(snapshots.load().unwrap().is_none());
        let document = StateDocument::of(&ConfigState::default()).unwrap();
        for index in [9, 10, 100] {
            snapshots.save(&meta(index), &document).unwrap();
            assert_eq!(snapshots.load().unwrap().unwrap().meta, meta(index));
            assert_eq!(snapshots.files(EXTENSION).unwrap().len(), 1);
        }
        let path = snapshots.files(EXTENSION).unwrap().pop().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = snapshots.load().unwrap_err().to_string();
        assert!(error.contains("is damaged"), "{error}");
    }
}
