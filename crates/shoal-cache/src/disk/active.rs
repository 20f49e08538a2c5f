//! The segment that is written to.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::index::Index;
use super::jobs::Ticket;
use super::list::{Listed, is_list_taken, write_list};
use super::record::{Kind, Place, RecordHead, UNIT};
use super::segment::{HEADER_BYTES, Header, create_file, data_path};
use crate::object::Object;

/// Segments by their number.
pub(super) type Files = BTreeMap<u32, Arc<File>>;

/// The segment that is written to.
pub(super) struct Active {
    pub segment: u32,
    pub file: Arc<File>,
    /// Bytes that are written.
    pub end: u64,
    records: Vec<Listed>,
    /// What is to be written next, and what it is.
    batch: Vec<u8>,
    batched: Vec<Pending>,
}

/// A record that is not written yet.
pub(super) struct Pending {
    pub listed: Listed,
    /// `None` = it says that something is gone.
    pub ticket: Option<Ticket>,
    /// Where it is in memory, as long as it is.
    pub object: Option<Arc<Object>>,
}

impl Active {
    /// [`io::ErrorKind::AlreadyExists`] = something else has that number.
    pub fn create(directory: &Path, header: Header) -> io::Result<Self> {
        let segment = header.segment;
        let path = data_path(directory, segment);
        if is_list_taken(directory, segment) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = create_file(&path)?;
        if let Err(error) = file.write_all_at(&header.encode(), 0) {
            _ = std::fs::remove_file(path);
            return Err(error);
        }
        let (file, end) = (Arc::new(file), HEADER_BYTES);
        Ok(Self { segment, file, end, records: Vec::new(), batch: Vec::new(), batched: Vec::new() })
    }

    /// Bytes once the batch is written.
    pub fn full_end(&self) -> u64 {
        self.end + self.batch.len() as u64
    }

    pub fn batch_bytes(&self) -> usize {
        self.batch.len()
    }

    pub fn is_empty(&self) -> bool {
        self.full_end() == HEADER_BYTES
    }

    /// Adds a record in parts to the batch.
    pub fn add<'a>(
        &mut self,
        head: RecordHead,
        parts: impl Iterator<Item = &'a [u8]>,
        ticket: Option<Ticket>,
        object: Option<Arc<Object>>,
    ) {
        let listed = Listed { place: self.place(self.full_end()), head };
        self.batched.push(Pending { listed, ticket, object });
        parts.for_each(|part| self.batch.extend_from_slice(part));
        self.batch.resize(self.batch.len().next_multiple_of(UNIT as usize), 0);
    }

    /// Writes the batch. What was in it holds from then on, or does not, and nothing is left of it.
    pub fn write_batch(&mut self) -> io::Result<()> {
        let written = self.file.write_all_at(&self.batch, self.end);
        match written {
            Ok(()) => self.end += self.batch.len() as u64,
            // What was begun must not be taken for a record later.
            Err(_) => self.file.set_len(self.end)?,
        }
        written
    }

    /// What the last batch was: it was written, or was not.
    pub fn take_batched(&mut self, is_written: bool) -> Vec<Pending> {
        self.batch.clear();
        let batched = std::mem::take(&mut self.batched);
        if is_written {
            self.records.extend(batched.iter().map(|pending| pending.listed));
        }
        batched
    }

    /// Writes a record in parts, past the batch, which is empty.
    pub fn write_through<'a>(
        &mut self,
        head: RecordHead,
        parts: impl Iterator<Item = io::Result<std::borrow::Cow<'a, [u8]>>>,
    ) -> io::Result<Listed> {
        let listed = Listed { place: self.place(self.end), head };
        match self.write_parts(parts) {
            Ok(end) => {
                self.end = end;
                self.records.push(listed);
                Ok(listed)
            }
            Err(error) => {
                self.file.set_len(self.end)?;
                Err(error)
            }
        }
    }

    fn write_parts<'a>(
        &self,
        parts: impl Iterator<Item = io::Result<std::borrow::Cow<'a, [u8]>>>,
    ) -> io::Result<u64> {
        let mut at = self.end;
        for part in parts {
            let part = part?;
            self.file.write_all_at(&part, at)?;
            at += part.len() as u64;
        }
        let end = at.next_multiple_of(UNIT);
        self.file.write_all_at(&[0; UNIT as usize][..(end - at) as usize], at)?;
        Ok(end)
    }

    /// Notes how far what is in it was checked against purges.
    pub fn raise(&mut self, index: &Index) {
        let objects = self.records.iter_mut().filter(|record| record.head.kind == Kind::Object);
        objects.for_each(|record| _ = index.raise(record));
    }

    /// It gets no more: what is in it is written down beside it.
    pub fn seal(&self, directory: &Path) -> io::Result<()> {
        self.file.sync_data()?;
        write_list(directory, self.segment, &self.records)
    }

    /// A segment has fewer than 2^32 units: its size is bounded.
    const fn place(&self, at: u64) -> Place {
        Place { segment: self.segment, offset: (at / UNIT) as u32 }
    }
}
