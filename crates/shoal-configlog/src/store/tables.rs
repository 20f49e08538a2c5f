//! The tables of the log's database: entries by index, and a handful of named records.

use std::io;
use std::path::Path;

use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shoal_model::{ClusterId, NodeId};

use super::MAX_BATCH_BYTES;
use super::patient_file::PatientFile;
use super::tail::{Budget, Tail};
use crate::room::Room;
use crate::trouble::io_error;
use crate::types::{Entry, LogId, Vote};

pub const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
pub const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");

pub const VOTE: &str = "vote";
pub const COMMITTED: &str = "committed";
pub const PURGED: &str = "purged";
const STAMP: &str = "stamp";

/// Memory redb may use for pages; recent entries are in the [`Tail`] anyway.
const PAGE_CACHE_BYTES: usize = 8 << 20;

/// Whether a log must be there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// This node starts for the first time: its log may have to be created.
    MayBeNew,
    /// This node has taken part before. Without its log it would have forgotten how it voted and what it acknowledged, so
    /// that a missing one is damage and not a beginning.
    Kept,
}

/// Whose log this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The node.
    pub node_id: NodeId,
    /// Its cluster.
    pub cluster_id: ClusterId,
}

/// The log on disk could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A second process in the same directory.
    #[error("{path} is in use by another process; stop the other shoal first")]
    InUse {
        /// The file.
        path: String,
    },
    /// Another node's directory.
    #[error(
        "{path} belongs to node {found_node} of cluster {found_cluster}, not to {node} of {cluster}; \
         a log is never moved to another node"
    )]
    Foreign {
        /// The file.
        path: String,
        /// What the file says.
        found_node: NodeId,
        /// What the file says.
        found_cluster: ClusterId,
        /// Who asked.
        node: NodeId,
        /// Who asked.
        cluster: ClusterId,
    },
    /// It was there and is no more.
    #[error("the log {path} is missing or empty, although this node has one")]
    Missing {
        /// The file.
        path: String,
    },
    /// What is in the file is not what was written.
    #[error("the log {path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file cannot be read or written.
    #[error("cannot open the log {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// Opens or creates the database, checks that it is whole and whose it is, and reads the end of the log. What is written to it
/// waits for `room`. Blocks.
pub fn open(path: &Path, stamp: Stamp, past: Past, room: Room) -> Result<(Database, Tail), StoreError> {
    let path_text = path.display().to_string();
    let failed = |source| StoreError::Io { path: path_text.clone(), source };
    let is_new = std::fs::metadata(path).map_or(true, |metadata| metadata.len() == 0);
    if is_new && past == Past::Kept {
        return Err(StoreError::Missing { path: path_text });
    }
    let file = PatientFile::open(path, room);
    let opened =
        file.and_then(|file| Database::builder().set_cache_size(PAGE_CACHE_BYTES).create_with_backend(file));
    let mut database = match opened {
        Ok(database) => database,
        Err(DatabaseError::DatabaseAlreadyOpen) => return Err(StoreError::InUse { path: path_text }),
        Err(error) => return Err(failed(io_error(error))),
    };
    if !is_new {
        check_integrity(&mut database)
            .map_err(|reason| StoreError::Damaged { path: path_text.clone(), reason })?;
    }
    let found = read_or_write_stamp(&database, stamp).map_err(failed)?;
    if found != stamp {
        return Err(StoreError::Foreign {
            path: path_text,
            found_node: found.node_id,
            found_cluster: found.cluster_id,
            node: stamp.node_id,
            cluster: stamp.cluster_id,
        });
    }
    let tail = read_tail(&database).map_err(failed)?;
    Ok((database, tail))
}

/// Every page against its checksum. What redb would repair by going back to an older state is damage to us: what it
/// forgets may have been acknowledged.
fn check_integrity(database: &mut Database) -> Result<(), String> {
    match database.check_integrity() {
        Ok(true) => Ok(()),
        Ok(false) => Err("its checksums do not match".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn read_or_write_stamp(database: &Database, stamp: Stamp) -> io::Result<Stamp> {
    let write = database.begin_write().map_err(io_error)?;
    let found = {
        write.open_table(ENTRIES).map_err(io_error)?;
        let mut records = write.open_table(RECORDS).map_err(io_error)?;
        let found =
            records.get(STAMP).map_err(io_error)?.map(|value| decode::<Stamp>(value.value())).transpose()?;
        if found.is_none() {
            records.insert(STAMP, encode(&stamp)?.as_slice()).map_err(io_error)?;
        }
        found
    };
    match found {
        Some(found) => {
            write.abort().map_err(io_error)?;
            Ok(found)
        }
        None => {
            write.commit().map_err(io_error)?;
            Ok(stamp)
        }
    }
}

fn read_tail(database: &Database) -> io::Result<Tail> {
    let read = database.begin_read().map_err(io_error)?;
    let vote: Option<Vote> = read_record(&read, VOTE)?;
    let committed: Option<LogId> = read_record(&read, COMMITTED)?;
    let purged: Option<LogId> = read_record(&read, PURGED)?;
    let entries = read.open_table(ENTRIES).map_err(io_error)?;
    let last =
        entries.last().map_err(io_error)?.map(|(_, value)| decode::<Entry>(value.value())).transpose()?;
    Ok(Tail::on_disk(vote, committed, purged, last.map(|entry| entry.log_id)))
}

fn read_record<T: DeserializeOwned>(read: &ReadTransaction, name: &str) -> io::Result<Option<T>> {
    let records = read.open_table(RECORDS).map_err(io_error)?;
    records.get(name).map_err(io_error)?.map(|value| decode(value.value())).transpose()
}

/// Writes a log that begins after `purged`, of which nothing is there yet, for who has given `vote`. Blocks.
pub fn write_beginning(path: &Path, stamp: Stamp, vote: &Vote, purged: LogId) -> Result<(), StoreError> {
    let (database, _) = open(path, stamp, Past::MayBeNew, Room::default())?;
    let write = || {
        let records = [(VOTE, encode(vote)?), (COMMITTED, encode(&purged)?), (PURGED, encode(&purged)?)];
        write_at_once(&database, &[], &records)
    };
    write().map_err(|source| StoreError::Io { path: path.display().to_string(), source })
}

/// What is known of a log beside its entries.
pub struct Records {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
}

/// Opens a log that no process uses. Blocks.
pub fn open_stopped(path: &Path, stamp: Stamp) -> Result<(Database, Records), StoreError> {
    let (database, tail) = open(path, stamp, Past::Kept, Room::default())?;
    Ok((database, Records { vote: tail.vote, committed: tail.committed }))
}

/// The next entries from `start` on; none = there are no more. Blocks.
pub fn read_batch(database: &Database, start: u64) -> io::Result<Vec<Entry>> {
    read_entries(database, start, u64::MAX, &mut Budget::of(MAX_BATCH_BYTES))
}

/// Puts `entries`, all of which are committed, written by who has given `vote`, in the place of what there is from the first of
/// them on. Blocks.
pub fn write_end(database: &Database, entries: &[Entry], vote: &Vote) -> io::Result<()> {
    let committed = entries.last().map(|entry| entry.log_id);
    write_at_once(database, entries, &[(VOTE, encode(vote)?), (COMMITTED, encode(&committed)?)])
}

/// Puts entries in the place of what there is from the first of them on, and records in theirs, all of them or none, on the disk
/// for good. Blocks.
pub fn write_at_once(database: &Database, entries: &[Entry], records: &[(&str, Vec<u8>)]) -> io::Result<()> {
    let mut write = database.begin_write().map_err(io_error)?;
    write.set_durability(Durability::Immediate).map_err(io_error)?;
    {
        let mut table = write.open_table(ENTRIES).map_err(io_error)?;
        if let Some(first) = entries.first() {
            table.retain_in(first.log_id.index.., |_, _| false).map_err(io_error)?;
        }
        for entry in entries {
            table.insert(entry.log_id.index, encode(entry)?.as_slice()).map_err(io_error)?;
        }
        let mut table = write.open_table(RECORDS).map_err(io_error)?;
        for (name, value) in records {
            table.insert(*name, value.as_slice()).map_err(io_error)?;
        }
    }
    write.commit().map_err(io_error)
}

/// Reads entries of `start..end` as long as `budget` lasts. Blocks.
pub fn read_entries(
    database: &Database,
    start: u64,
    end: u64,
    budget: &mut Budget,
) -> io::Result<Vec<Entry>> {
    let read = database.begin_read().map_err(io_error)?;
    let table = read.open_table(ENTRIES).map_err(io_error)?;
    let mut entries = Vec::new();
    for item in table.range(start..end).map_err(io_error)? {
        let (_, value) = item.map_err(io_error)?;
        if !budget.spend(value.value().len()) {
            break;
        }
        entries.push(decode(value.value())?);
    }
    Ok(entries)
}

/// The form in which entries and records are stored.
pub fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(io::Error::other)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
