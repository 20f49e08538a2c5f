//! The one thread that writes: what it is asked for, one behind the other, and room for it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::iter::once;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use shoal_policy::cache::key::ObjectKey;

use super::active::{Active, Pending};
use super::body::{DiskBody, Patience, read_at};
use super::index::Entry;
use super::jobs::{Put, Ticket, Work};
use super::list::{Listed, read_list, write_list};
use super::meta::Meta;
use super::record::{HEAD_BYTES, Kind, MAX_META_BYTES, PIECE_BYTES, RecordHead, piece_sums};
use super::segment::{self, Epoch, Header};
use super::tail::Tail;
use super::{STREAMED_BYTES, Shared, is_roomier, now_seconds, variant};
use crate::object::Object;

/// What is written at once, bytes.
const BATCH_BYTES: usize = 1 << 20;
/// Of the file system, this fraction is left to others.
const FREE_SHARE: u64 = 20;
/// Of a segment, this fraction is given to what was used of those that go.
const KEPT_SHARE: u64 = 2;
/// Segments at most: each is an open file, and every start begins one.
const MAX_SEGMENTS: usize = 192;

/// Where the writer writes.
pub(super) struct Ground {
    pub directory: PathBuf,
    pub epoch: Epoch,
    /// Bytes of all segments together.
    pub budget_bytes: u64,
    /// Bytes of a segment, unless one object needs more.
    pub segment_bytes: u64,
    /// Keeps other processes out.
    pub lock: File,
    /// Says how far the newest segment is written.
    pub tail: File,
}

/// A segment that was taken away, and records of it that are to be written once more.
type Going = (Arc<File>, Vec<(Entry, Ticket)>);

/// Appends to the newest segment.
pub(super) struct Writer {
    ground: Ground,
    shared: Arc<Shared>,
    /// `None` = nothing was written yet, or nothing can be.
    active: Option<Active>,
    /// `None` = there are no more numbers.
    next: Option<u32>,
    /// Bytes of all other segments, oldest first.
    sealed: VecDeque<(u32, u64)>,
    /// The disk takes nothing; that was said.
    is_in_trouble: bool,
}

impl Writer {
    /// `sealed`: the segments there are, oldest first.
    pub fn new(ground: Ground, shared: Arc<Shared>, sealed: VecDeque<(u32, u64)>, next: Option<u32>) -> Self {
        let mut writer = Self { ground, shared, active: None, next, sealed, is_in_trouble: false };
        while writer.sealed_bytes() > writer.ground.budget_bytes {
            writer.drop_oldest();
        }
        writer.tell_bytes();
        writer
    }

    /// Until the jobs are closed.
    pub fn run(mut self) {
        let shared = self.shared.clone();
        while let Some(work) = shared.jobs.take() {
            self.work(work);
            self.tell_bytes();
        }
        self.seal();
        // From now on another process may write here.
        _ = self.ground.lock.unlock();
    }

    pub fn work(&mut self, work: Work) {
        if work.forget_everything {
            self.drop_everything();
        }
        for (key, variant) in work.forget {
            self.append(RecordHead::gone(key, variant), &[], None, None);
        }
        self.flush();
        self.note_tail();
        self.shared.orders_done.send_replace(work.orders);
        work.puts.into_iter().for_each(|put| self.put(put));
        self.flush();
        self.note_tail();
        // One that has gone meanwhile has no list any more, and the one that is written to none yet.
        if let Some(segment) = work.list
            && self.sealed.iter().any(|(sealed, _)| *sealed == segment)
            && let Err(error) = self.refresh_list(segment)
        {
            self.failed(&error);
        }
    }

    /// What is written by now must be there at the next start.
    fn note_tail(&mut self) {
        let Some(Active { segment, end, .. }) = self.active else { return };
        if let Err(error) = (Tail { segment, end }).note(&self.ground.tail) {
            self.failed(&error);
        }
    }

    fn put(&mut self, Put { object, ticket }: Put) {
        let described = if self.shared.jobs.is_wanted(object.key, ticket) { describe(&object) } else { None };
        match described {
            Some((head, meta)) => self.append(head, &meta, Some(ticket), Some(object)),
            None => self.give_up(object.key, Some(ticket)),
        }
    }

    /// Adds a record.
    fn append(&mut self, head: RecordHead, meta: &[u8], ticket: Option<Ticket>, object: Option<Arc<Object>>) {
        let bytes = head.record_bytes().unwrap_or(u64::MAX);
        let kept = object.clone().filter(|object| self.takes_over(object));
        self.make_room(bytes);
        let Some(active) = &mut self.active else { return self.give_up(head.key, ticket) };
        let encoded = head.encode(meta);
        let body = object.as_ref().map_or(&[][..], |object| object.body.pieces());
        let parts = [&encoded[..], meta].into_iter().chain(body.iter().map(|piece| &piece[..]));
        if bytes <= BATCH_BYTES as u64 {
            active.add(head, parts, ticket, kept);
            if active.batch_bytes() >= BATCH_BYTES {
                self.flush();
            }
            return;
        }
        let written = active.write_through(head, parts.map(|part| Ok(Cow::Borrowed(part))));
        match written {
            Ok(listed) => self.publish(Pending { listed, ticket, object }),
            Err(error) => {
                self.failed(&error);
                self.give_up(head.key, ticket);
            }
        }
    }

    /// A segment with room for `bytes` more, and an empty batch where they do not go through it.
    fn make_room(&mut self, bytes: u64) {
        if bytes > BATCH_BYTES as u64 {
            self.flush();
        }
        let segment_bytes = self.ground.segment_bytes;
        let fits = |active: &Active| active.is_empty() || active.full_end() + bytes <= segment_bytes;
        if self.active.as_ref().is_some_and(fits) {
            return;
        }
        self.flush();
        self.seal();
        let wanted = bytes.max(segment_bytes);
        let mut going = Vec::new();
        while (self.sealed_bytes() + wanted > self.ground.budget_bytes || self.sealed.len() >= MAX_SEGMENTS)
            && let Some((segment, _)) = self.sealed.front().copied()
        {
            // A record that takes most of a segment leaves no room for second chances.
            if bytes <= segment_bytes / KEPT_SHARE {
                going.extend(self.shared.file(segment).map(|file| (file, self.worth_keeping(segment))));
            }
            self.drop_oldest();
        }
        while !self.has_space(wanted) && !self.sealed.is_empty() {
            // Others have filled the disk. As long as a file is open, its room is not free.
            self.let_go(std::mem::take(&mut going));
            self.drop_oldest();
        }
        if !self.has_space(wanted) {
            self.let_go(going);
            return self.failed(&io::ErrorKind::StorageFull.into());
        }
        match self.create() {
            Ok(active) => {
                self.shared.add_file(active.segment, active.file.clone());
                self.active = Some(active);
            }
            Err(error) => self.failed(&error),
        }
        self.keep(going);
    }

    /// A new segment, with the next number that nothing else has. Behind the last one it begins anew, with nothing: what is
    /// older is told by its number.
    fn create(&mut self) -> io::Result<Active> {
        loop {
            let segment = self.next.unwrap_or_else(|| {
                self.drop_everything();
                0
            });
            let before = self.sealed.back().map(|(segment, _)| *segment);
            let header = Header { epoch: self.ground.epoch, segment, before };
            let created = Active::create(&self.ground.directory, header);
            let is_taken = created.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists);
            if is_taken || created.is_ok() {
                self.next = segment.checked_add(1);
            }
            if !is_taken {
                return created;
            }
        }
    }

    /// Records of `segment` that were used since they were written, or are used now: they can be found no longer, but are
    /// to be written once more.
    fn worth_keeping(&self, segment: u32) -> Vec<(Entry, Ticket)> {
        let now = now_seconds();
        let is_used = |entry: &Entry| {
            u64::from(entry.expires) > now && (entry.hits > 0 || self.shared.store.has(entry.key()))
        };
        let used = self.shared.index.of_segment(segment).into_iter().filter(is_used);
        used.map(|entry| (entry, self.shared.jobs.announce(entry.key()))).collect()
    }

    /// Writes records once more, as far as they do not fill the segment.
    fn keep(&mut self, going: Vec<Going>) {
        let mut room = self.ground.segment_bytes / KEPT_SHARE;
        for (file, entries) in going {
            for (entry, ticket) in entries {
                let key = entry.key();
                let left = room.checked_sub(entry.bytes());
                let is_wanted = left.is_some() && self.shared.jobs.is_wanted(key, ticket);
                if let (Some(active), Some(left), true) = (&mut self.active, left, is_wanted) {
                    match copy(&file, &entry, active) {
                        Ok(listed) => {
                            room = left;
                            self.publish(Pending { listed, ticket: Some(ticket), object: None });
                            continue;
                        }
                        Err(error) => self.failed(&error),
                    }
                }
                self.give_up(key, Some(ticket));
            }
        }
    }

    fn let_go(&self, going: Vec<Going>) {
        let entries = going.into_iter().flat_map(|(_, entries)| entries);
        entries.for_each(|(entry, ticket)| self.shared.leave_out(entry.key(), ticket));
    }

    /// Writes the batch. What was written is found from then on.
    fn flush(&mut self) {
        let Some(active) = self.active.as_mut().filter(|active| active.batch_bytes() > 0) else { return };
        let mut written = active.write_batch();
        if written.is_err() && !self.sealed.is_empty() {
            self.drop_oldest();
            written = self.active.as_mut().map_or(Ok(()), Active::write_batch);
        }
        let Some(active) = &mut self.active else { return };
        let batched = active.take_batched(written.is_ok());
        match written {
            Ok(()) => {
                if std::mem::take(&mut self.is_in_trouble) {
                    tracing::info!("the disk of the cache takes writes again");
                }
                batched.into_iter().for_each(|pending| self.publish(pending));
            }
            Err(error) => {
                self.failed(&error);
                let has_forgotten = batched.iter().any(|pending| pending.ticket.is_none());
                for pending in batched.iter().filter(|pending| pending.ticket.is_some()) {
                    self.give_up(pending.listed.head.key, pending.ticket);
                }
                if has_forgotten || self.sealed.is_empty() {
                    // What could not be written down as gone must not be there after a restart.
                    self.drop_everything();
                }
            }
        }
    }

    /// From when it is written, the body of `object` lies on disk alone. Not where memory has as much room: what goes with
    /// its segment would leave memory empty.
    fn takes_over(&self, object: &Object) -> bool {
        object.body_bytes > STREAMED_BYTES && is_roomier(self.ground.budget_bytes, &self.shared.store)
    }

    /// What was written holds from now on.
    fn publish(&self, Pending { listed, ticket, object }: Pending) {
        let Some(ticket) = ticket else { return };
        let Some(entry) = Entry::of(&listed.head, listed.place) else {
            return self.shared.leave_out(listed.head.key, ticket);
        };
        let is_found =
            self.shared.jobs.settle(listed.head.key, ticket, Some(|| self.shared.index.insert(entry)));
        if !is_found {
            return;
        }
        self.shared.figures.written.fetch_add(1, Relaxed);
        if let Some(object) = object.filter(|object| self.takes_over(object))
            && let Some(file) = self.shared.file(entry.place.segment)
        {
            let body = DiskBody {
                file,
                at: entry.place.byte() + listed.head.body_at(),
                bytes: listed.head.body_bytes,
                sums: piece_sums(object.body.pieces().iter().map(|piece| &piece[..])).into(),
                entry,
                shared: Arc::downgrade(&self.shared),
            };
            self.shared.store.exchange(&object, object.with_body_on_disk(Arc::new(body)));
        }
    }

    /// A record is not written. One that says that something is gone cannot be left out, though.
    fn give_up(&mut self, key: ObjectKey, ticket: Option<Ticket>) {
        match ticket {
            Some(ticket) => self.shared.leave_out(key, ticket),
            None => self.drop_everything(),
        }
    }

    /// Said once, until it goes well again.
    fn failed(&mut self, error: &io::Error) {
        self.shared.figures.errors.fetch_add(1, Relaxed);
        if !std::mem::replace(&mut self.is_in_trouble, true) {
            let directory = self.ground.directory.display();
            tracing::warn!(%directory, %error, "cannot write to the disk of the cache: its objects stay in memory only");
        }
    }

    /// The active segment gets no more.
    fn seal(&mut self) {
        self.flush();
        let Some(mut active) = self.active.take() else { return };
        active.raise(&self.shared.index);
        // Without its list it is read from beginning to end at the next start.
        if let Err(error) = active.seal(&self.ground.directory) {
            self.failed(&error);
        }
        self.sealed.push_back((active.segment, active.end));
    }

    fn drop_oldest(&mut self) {
        if let Some((segment, _)) = self.sealed.pop_front() {
            self.drop_segment(segment);
        }
    }

    fn drop_segment(&mut self, segment: u32) {
        let gone = self.shared.drop_segment(segment);
        self.shared.figures.evicted.fetch_add(gone as u64, Relaxed);
        if let Err(error) = segment::remove(&self.ground.directory, segment) {
            self.failed(&error);
        }
    }

    fn drop_everything(&mut self) {
        if let Some(mut active) = self.active.take() {
            for pending in active.take_batched(false) {
                if let Some(ticket) = pending.ticket {
                    self.give_up(pending.listed.head.key, Some(ticket));
                }
            }
            self.sealed.push_back((active.segment, active.end));
        }
        while !self.sealed.is_empty() {
            self.drop_oldest();
        }
    }

    /// Writes the list of a full segment again: what is found there no longer is gone, and how far the rest was checked.
    fn refresh_list(&self, segment: u32) -> io::Result<()> {
        let directory = &self.ground.directory;
        let Some(mut records) = read_list(directory, segment) else { return Ok(()) };
        records.iter_mut().for_each(|record| self.shared.index.refresh(record));
        write_list(directory, segment, &records)
    }

    /// The file system has room for so much more, and for others.
    fn has_space(&self, bytes: u64) -> bool {
        free_bytes(&self.ground.directory).is_ok_and(|free| free >= bytes)
    }

    fn sealed_bytes(&self) -> u64 {
        self.sealed.iter().map(|(_, bytes)| bytes).sum()
    }

    fn tell_bytes(&self) {
        let active = self.active.as_ref().map_or(0, |active| active.end);
        self.shared.figures.bytes.store(self.sealed_bytes() + active, Relaxed);
    }
}

/// Bytes that may be used of the file system, beside those that are left to others.
pub(super) fn free_bytes(directory: &Path) -> io::Result<u64> {
    let space = rustix::fs::statvfs(directory)?;
    let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
    Ok(bytes(space.f_bavail).saturating_sub(bytes(space.f_blocks) / FREE_SHARE))
}

/// The head and the description of an object; `None` = it cannot be written down.
fn describe(object: &Object) -> Option<(RecordHead, Vec<u8>)> {
    let meta = Meta::of(object, piece_sums(object.body.pieces().iter().map(|piece| &piece[..]))).encode()?;
    let head = RecordHead {
        kind: Kind::Object,
        variant: variant(object),
        key: object.key,
        fill_seq: object.fill_seq,
        checked_seq: object.checked_seq.load(Relaxed),
        expires: object.useless_at_ms() / 1000,
        body_bytes: object.body_bytes,
        meta_bytes: u32::try_from(meta.len()).ok()?,
    };
    (meta.len() <= MAX_META_BYTES).then_some((head, meta))
}

/// Writes a record once more, as it is.
fn copy(file: &File, entry: &Entry, into: &mut Active) -> io::Result<Listed> {
    let begin = entry.place.byte();
    let first = read_at(file, begin, HEAD_BYTES, Patience::Wait)?;
    let head = first.first_chunk().and_then(RecordHead::decode);
    let head = head.filter(|head| head.key == entry.key() && head.record_bytes() == Some(entry.bytes()));
    let head = head.ok_or_else(|| io::Error::other("a record is not where it was"))?;
    let end = begin + entry.bytes();
    let pieces = (begin + HEAD_BYTES as u64..end).step_by(PIECE_BYTES).map(|at| {
        let length = (end - at).min(PIECE_BYTES as u64) as usize;
        read_at(file, at, length, Patience::Wait).map(Cow::Owned)
    });
    // What is written stays as it was; what is known of it is in the list.
    let head = RecordHead { checked_seq: head.checked_seq.max(entry.checked_seq()), ..head };
    into.write_through(head, once(Ok(Cow::Owned(first))).chain(pieces))
}

impl Shared {
    /// A record that was handed in is not written.
    fn leave_out(&self, key: ObjectKey, ticket: Ticket) {
        self.figures.dropped.fetch_add(1, Relaxed);
        self.jobs.settle(key, ticket, None::<fn()>);
    }

    fn add_file(&self, segment: u32, file: Arc<File>) {
        self.files.write().unwrap_or_else(PoisonError::into_inner).insert(segment, file);
    }

    /// Nothing of `segment` is found any more; says how much that was.
    fn drop_segment(&self, segment: u32) -> usize {
        self.files.write().unwrap_or_else(PoisonError::into_inner).remove(&segment);
        let taken = self.index.take_segment(segment);
        for entry in taken.iter().filter(|entry| entry.bytes() > STREAMED_BYTES) {
            self.store.forget_on_disk(entry.key(), |body| body.entry.place.segment == segment);
        }
        taken.len()
    }
}
