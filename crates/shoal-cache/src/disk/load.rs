//! Objects on their way back from the disk into memory: at once where the kernel has them, else one reader a key.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustc_hash::FxHashMap;
use shoal_policy::cache::key::ObjectKey;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;

use super::body::{DiskBody, Patience, read_at};
use super::index::Entry;
use super::meta::{Form, Meta};
use super::record::{HEAD_BYTES, Kind, PIECE_BYTES, RecordHead, piece_sum};
use super::{Disk, STREAMED_BYTES, Shared, now_seconds, variant};
use crate::chunks::Chunked;
use crate::node::Cache;
use crate::object::{Object, OnDisk, Rare, UNCOPIED};
use crate::stored_body::StoredBody;
use crate::variants::Variants;

/// What is read of a record at first: the whole of nearly all of them, bytes.
const FIRST_BYTES: usize = STREAMED_BYTES as usize + 64 * 1024;
/// Pieces of a body that is read by pieces that are looked at before it is used.
const PROVEN_PIECES: usize = 4;
/// Reads that wait for the disk at once.
const MAX_READS: usize = 64;

/// Reads that wait for the disk.
pub(crate) struct Loads {
    /// By key; whoever comes later waits for the same read.
    running: Mutex<FxHashMap<ObjectKey, watch::Receiver<Loaded>>>,
    places: Arc<Semaphore>,
}

/// What came of a read: what is there of the key now.
type Loaded = Option<Variants>;

impl Default for Loads {
    fn default() -> Self {
        Self { running: Mutex::default(), places: Arc::new(Semaphore::new(MAX_READS)) }
    }
}

impl Cache {
    /// Reads what is on disk under `key`, and not in memory. `None` = nothing of it may be used.
    pub(crate) async fn load(self: &Arc<Self>, key: ObjectKey) -> Option<Variants> {
        let disk = self.disk.as_ref()?;
        let missing = disk.missing(key, self.purges.applied());
        if missing.is_empty() {
            return None;
        }
        if let Ok(loaded) = self.read_all(disk, &missing, Patience::Now) {
            return loaded;
        }
        let mut reading = disk.loads.join(key, |report| {
            let (cache, places) = (self.clone(), disk.loads.places.clone());
            tokio::spawn(async move {
                // It is never closed.
                let _place = places.acquire_owned().await;
                let reading = spawn_blocking(move || cache.finish_load(key, &missing, &report));
                // A read that panicked has said so; nobody waits for it.
                _ = reading.await;
            });
        });
        // The sender goes when the read has ended, however it has.
        _ = reading.changed().await;
        reading.borrow().clone()
    }

    fn finish_load(&self, key: ObjectKey, missing: &[Entry], report: &watch::Sender<Loaded>) {
        let Some(disk) = &self.disk else { return };
        // Nothing would block here.
        let loaded = self.read_all(disk, missing, Patience::Wait).unwrap_or_default();
        disk.loads.leave(key);
        report.send_replace(loaded);
    }

    /// An error is [`io::ErrorKind::WouldBlock`].
    fn read_all(&self, disk: &Disk, missing: &[Entry], patience: Patience) -> io::Result<Loaded> {
        let mut loaded = None;
        for entry in missing {
            match disk.shared.read(entry, patience) {
                Ok(object) if self.purges.check(&object).is_none() => {
                    disk.shared.index.remove(entry);
                }
                Ok(object) => {
                    disk.shared.index.used(entry);
                    let is_current = || disk.shared.index.holds(entry);
                    let inserted = self.store.insert_loaded(&object, is_current);
                    // Somebody else may have done the same.
                    loaded = inserted.or_else(|| self.store.find(object.key)).or(loaded);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                Err(error) => disk.shared.lost(entry, &error),
            }
        }
        Ok(loaded)
    }
}

impl Loads {
    /// A place in the read of `key`; `begin` begins it.
    fn join(&self, key: ObjectKey, begin: impl FnOnce(watch::Sender<Loaded>)) -> watch::Receiver<Loaded> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reading) = running.get(&key).filter(|reading| reading.has_changed().is_ok()) {
            return reading.clone();
        }
        let (report, reading) = watch::channel(None);
        running.insert(key, reading.clone());
        drop(running);
        begin(report);
        reading
    }

    fn leave(&self, key: ObjectKey) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }
}

impl Disk {
    /// What there is of `key`, read without its being taken into memory. It waits for the disk.
    pub(crate) fn stored(&self, key: ObjectKey) -> Vec<Arc<Object>> {
        if !self.shared.is_open() {
            return Vec::new();
        }
        let read = |entry: &Entry| match self.shared.read(entry, Patience::Wait) {
            Ok(object) => Some(object),
            Err(error) => {
                self.shared.lost(entry, &error);
                None
            }
        };
        self.shared.index.find(key).iter().filter_map(read).collect()
    }

    /// What there is of `key` and is not in memory. What was filled by somebody whose log is ahead of `applied` is not
    /// judged yet.
    fn missing(&self, key: ObjectKey, applied: u64) -> Vec<Entry> {
        let mut found = self.shared.index.find(key);
        if found.is_empty() || !self.shared.is_open() {
            return Vec::new();
        }
        let now = now_seconds();
        let in_memory = self.shared.store.peek(key).unwrap_or_default();
        let in_memory: Vec<u16> = in_memory.objects().iter().map(|object| variant(object)).collect();
        found.retain(|entry| {
            let is_useless = u64::from(entry.expires) <= now;
            if is_useless {
                self.shared.index.remove(entry);
            }
            !is_useless && !in_memory.contains(&entry.variant) && entry.fill_seq() <= applied
        });
        found
    }
}

impl Shared {
    /// The object of `entry`; an error when it is not what was written.
    pub(super) fn read(self: &Arc<Self>, entry: &Entry, patience: Patience) -> io::Result<Arc<Object>> {
        let file = self.file(entry.place.segment).ok_or(io::ErrorKind::NotFound)?;
        let whole = usize::try_from(entry.bytes()).map_err(io::Error::other)?;
        let mut bytes = read_at(&file, entry.place.byte(), whole.min(FIRST_BYTES), patience)?;
        let damaged = || io::Error::other("a record is not what was written");
        let head = bytes.first_chunk().and_then(RecordHead::decode).ok_or_else(damaged)?;
        let is_streamed = head.body_bytes > STREAMED_BYTES;
        let needed = if is_streamed { head.body_at() } else { head.body_at() + head.body_bytes };
        let needed = usize::try_from(needed).ok().filter(|needed| *needed <= whole).ok_or_else(damaged)?;
        if needed > bytes.len() {
            bytes = read_at(&file, entry.place.byte(), needed, patience)?;
        }
        let is_entry = head.kind == Kind::Object
            && head.key == entry.key()
            && head.record_bytes() == Some(entry.bytes());
        let meta_end = HEAD_BYTES + head.meta_bytes as usize;
        let (head_bytes, meta) =
            bytes.first_chunk().zip(bytes.get(HEAD_BYTES..meta_end)).ok_or_else(damaged)?;
        if !is_entry || !RecordHead::is_sound(head_bytes, meta) {
            return Err(damaged());
        }
        let meta = Meta::decode(meta).ok_or_else(damaged)?;
        if meta.sums.len() as u64 != head.body_bytes.div_ceil(PIECE_BYTES as u64) {
            return Err(damaged());
        }
        if !is_streamed {
            let body = &bytes[meta_end..needed];
            if !body.chunks(PIECE_BYTES).map(piece_sum).eq(meta.sums.iter().copied()) {
                return Err(damaged());
            }
            // A piece of its own: what described it is not needed any more.
            self.figures.read_bytes.fetch_add(head.body_bytes, Relaxed);
            let body = StoredBody::Whole(
                body.chunks(PIECE_BYTES).map(Bytes::copy_from_slice).collect::<Vec<_>>().into(),
            );
            return Ok(self.object(&head, entry, meta, body));
        }
        let body = DiskBody {
            file,
            at: entry.place.byte() + head.body_at(),
            bytes: head.body_bytes,
            sums: meta.sums.clone(),
            entry: *entry,
            shared: Arc::downgrade(self),
        };
        for number in 0..meta.sums.len().min(PROVEN_PIECES) {
            body.proven_piece(number, patience)?;
        }
        Ok(self.object(&head, entry, meta, StoredBody::OnDisk(Arc::new(body))))
    }

    /// What a record and its entry say.
    fn object(&self, head: &RecordHead, entry: &Entry, meta: Meta, body: StoredBody) -> Arc<Object> {
        let (body, rare) = match meta.form {
            Form::Plain => (body, Rare::of(meta.selecting, &meta.tags, None)),
            Form::Chunk(of) => (body, Rare::of_chunk(of, &meta.tags)),
            Form::Chunked { first, length } => {
                let chunked = Chunked::new(head.key, first, length, &self.store);
                (StoredBody::Chunked(chunked.into()), Rare::of(meta.selecting, &meta.tags, None))
            }
        };
        let object = Object {
            key: head.key,
            text: meta.text,
            rare,
            status: meta.status,
            fields: meta.fields,
            terms: meta.terms,
            body,
            body_bytes: head.body_bytes,
            fill_seq: head.fill_seq,
            checked_seq: AtomicU64::new(head.checked_seq.max(entry.checked_seq())),
            replicate: meta.replicate,
            hits: AtomicU32::new(entry.hits.into()),
            edition: AtomicU32::new(0),
            used_ms: AtomicU64::new(meta.terms.response_ms),
            heat: AtomicU64::new(0),
            copied_from: None,
            copied_under: AtomicU64::new(UNCOPIED),
            disk: OnDisk { is_seen_to: AtomicBool::new(true), is_untold: AtomicBool::new(true) },
        };
        Arc::new(object)
    }
}
