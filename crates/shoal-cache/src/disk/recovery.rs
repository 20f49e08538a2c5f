//! What is on disk from before: read once, at the start.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::index::{Entry, Index};
use super::list::{Listed, read_list, write_list};
use super::record::Kind;
use super::scan::{Scanned, scan};
use super::segment::{Epoch, HEADER_BYTES, Named, Origin, data_path, numbers, open_file, origin, remove};
use super::tail::Tail;

/// What was found.
pub(super) struct Recovered {
    pub files: BTreeMap<u32, Arc<File>>,
    /// The number behind the last one; `None` = there is none.
    pub next: Option<u32>,
    /// Segments that were of no use.
    pub refused: u64,
}

/// Reads the lists of the segments in `directory` into `index`, and what has none from beginning to end. What is of no
/// more use at `now` (Unix seconds) stays out. Where something is lost, so is all that is older: it may have been forgotten
/// since; where that is the end, it is all there is. Segments go from the oldest on, and each says which one came before it:
/// one that is missing between others is lost, too, whatever has its name now. So is one that says another number than that.
pub(super) fn recover(directory: &Path, epoch: Epoch, now: u64, index: &Index) -> io::Result<Recovered> {
    let mut recovered = Recovered { files: BTreeMap::new(), next: Some(0), refused: 0 };
    let tail = Tail::read(directory)?;
    let (mut is_whole, mut has_told_of_older) = (false, false);
    for (segment, named) in numbers(directory)? {
        if named == Named::Other {
            tracing::warn!(segment, "what is named as a segment of the cache is not a file: it is let be");
            continue;
        }
        let trouble = match open(directory, segment, epoch) {
            Ok(Opened::Segment { file, before, scanned: Scanned { records, has_gap } }) => {
                let last = recovered.files.last_key_value().map(|(last, _)| *last);
                let is_missing = last.is_some() && last != before;
                if has_gap || is_missing {
                    let what = if has_gap { "is damaged" } else { "has lost the one before" };
                    tracing::warn!(segment, "a segment of the cache {what}: what is older is taken away");
                    recovered.distrust(directory, index)?;
                }
                records.iter().for_each(|record| apply(index, record, now));
                is_whole |= tail.is_some_and(|tail| tail.is_reached_by(segment, end_of(&records)));
                recovered.files.insert(segment, Arc::new(file));
                recovered.next = segment.checked_add(1);
                continue;
            }
            Ok(Opened::Older) => {
                if !std::mem::replace(&mut has_told_of_older, true) {
                    tracing::info!(
                        "what the cache has on disk was written by an older version: it is taken away"
                    );
                }
                remove(directory, segment)?;
                continue;
            }
            Ok(Opened::Others) => None,
            Ok(Opened::Misplaced) => Some("it says another number".to_owned()),
            Ok(Opened::Unknown) => Some("it has lost its beginning".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(trouble) = trouble {
            tracing::warn!(
                segment,
                %trouble,
                "a segment of the cache cannot be read: it is taken away, and so is what is older"
            );
            recovered.distrust(directory, index)?;
        }
        // One that a crash left without its beginning is nobody's.
        let is_begun = fs::metadata(data_path(directory, segment)).is_ok_and(|data| data.len() > 0);
        recovered.refused += u64::from(is_begun);
        remove(directory, segment)?;
    }
    if !is_whole && !recovered.files.is_empty() {
        tracing::warn!("what the cache has written last is missing: what it has on disk is taken away");
        recovered.distrust(directory, index)?;
    }
    Ok(recovered)
}

impl Recovered {
    /// Takes away all that was found so far.
    fn distrust(&mut self, directory: &Path, index: &Index) -> io::Result<()> {
        index.clear();
        self.refused += 1;
        // The oldest first: what says of others that they are gone outlives them.
        while let Some((segment, _)) = self.files.pop_first() {
            remove(directory, segment)?;
        }
        Ok(())
    }
}

/// Where the last one of the records of a segment ends.
fn end_of(records: &[Listed]) -> u64 {
    records.last().map_or(HEADER_BYTES, |last| {
        last.place.byte().saturating_add(last.head.record_bytes().unwrap_or_default())
    })
}

/// What a segment turned out to be.
enum Opened {
    Segment {
        file: File,
        before: Option<u32>,
        scanned: Scanned,
    },
    Older,
    /// Of another cluster, or never begun.
    Others,
    Misplaced,
    Unknown,
}

fn open(directory: &Path, segment: u32, epoch: Epoch) -> io::Result<Opened> {
    let file = open_file(&data_path(directory, segment))?;
    let before = match origin(&file, epoch, segment)? {
        Origin::Ours { before } => before,
        Origin::Older => return Ok(Opened::Older),
        Origin::Others => return Ok(Opened::Others),
        Origin::Misplaced => return Ok(Opened::Misplaced),
        Origin::Unknown => return Ok(Opened::Unknown),
    };
    if let Some(records) = read_list(directory, segment) {
        return Ok(Opened::Segment { file, before, scanned: Scanned { records, has_gap: false } });
    }
    let scanned = scan(&file, segment)?;
    // The next start is spared that; if it cannot be written, it is not. Where there is a gap, what is older goes first.
    if !scanned.has_gap
        && let Err(error) = write_list(directory, segment, &scanned.records)
    {
        tracing::debug!(segment, %error, "cannot write the list of a segment of the cache");
    }
    Ok(Opened::Segment { file, before, scanned })
}

/// What a record says holds from there on: all that is known yet was written before it.
fn apply(index: &Index, record: &Listed, now: u64) {
    let head = &record.head;
    match head.kind {
        Kind::Object => {
            let entry = Entry::of(head, record.place).filter(|_| head.expires > now);
            match entry {
                Some(entry) => index.insert(entry),
                // It has taken the place of what was there before, all the same.
                None => _ = index.forget(head.key, Some(head.variant)),
            }
        }
        Kind::Gone => _ = index.forget(head.key, None),
        Kind::VariantGone => _ = index.forget(head.key, Some(head.variant)),
    }
}
