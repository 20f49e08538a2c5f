//! What is on disk, checked against purges: what was purged goes, what was not is known to be valid up to a log index, also
//! after a restart. Chunks stand and fall with their object, whatever is said of them: nobody finds them but by that.
//!
//! What was checked is written into the lists of segments that are full, which replace those of before as a whole. Whatever
//! is lost of that with a crash is only older than it could be: then it is validated before its next use.

use std::collections::BTreeSet;
use std::io;
use std::thread::sleep;
use std::time::Duration;

use shoal_policy::cache::purge::{Subject, Validity};

use super::body::{Patience, read_at};
use super::index::Entry;
use super::meta::Meta;
use super::record::{HEAD_BYTES, RecordHead};
use super::{Disk, Shared};
use crate::purges::Purges;

/// After each record that had to be read.
const READ_PAUSE: Duration = Duration::from_millis(1);

impl Disk {
    /// Checks what is there up to the log index `applied`, and waits for the disk. Says how much was purged. Once the disk
    /// is closed there is nothing.
    pub(crate) fn sweep(&self, purges: &Purges, applied: u64) -> usize {
        let (newest, newest_of_many) = (purges.newest(), purges.newest_of_many());
        let (mut touched, mut gone) = (BTreeSet::new(), 0);
        for shard in 0..self.shared.index.shards() {
            // What was filled or checked since the newest purge needs nothing.
            for entry in self.shared.index.older_than(shard, newest) {
                if !self.shared.is_open() {
                    return gone;
                }
                let seqs = (entry.fill_seq(), entry.checked_seq());
                let validity = match purges.judge_key(entry.key(), seqs, newest_of_many) {
                    Some(validity) => Ok(validity),
                    None => self.shared.judge_read(&entry, purges, applied),
                };
                match validity {
                    Ok(Validity::Valid) => self.shared.index.set_checked(&entry, applied),
                    Ok(Validity::Gone) => gone += usize::from(self.shared.index.remove(&entry)),
                    // Neither is of use before the origin was asked.
                    Ok(Validity::Stale | Validity::Unknown) => continue,
                    Err(error) => {
                        self.shared.lost(&entry, &error);
                        continue;
                    }
                }
                touched.insert(entry.place.segment);
            }
        }
        if !touched.is_empty() {
            self.shared.jobs.refresh_lists(touched);
        }
        gone
    }
}

impl Shared {
    /// Judges an object by what is written of it, but for the body.
    fn judge_read(&self, entry: &Entry, purges: &Purges, applied: u64) -> io::Result<Validity> {
        sleep(READ_PAUSE);
        let meta = self.read_meta(entry)?;
        let subject = Subject {
            key: meta.home(entry.key()),
            text: &meta.text,
            tags: &meta.tags,
            fill_seq: entry.fill_seq(),
            checked_seq: entry.checked_seq(),
        };
        Ok(purges.judge(&subject, applied))
    }

    fn read_meta(&self, entry: &Entry) -> io::Result<Meta> {
        let file = self.file(entry.place.segment).ok_or(io::ErrorKind::NotFound)?;
        let damaged = || io::Error::other("a record is not what was written");
        let begin = entry.place.byte();
        let first = read_at(&file, begin, HEAD_BYTES, Patience::Wait)?;
        let first = first.first_chunk().ok_or_else(damaged)?;
        let head = RecordHead::decode(first).filter(|head| head.key == entry.key()).ok_or_else(damaged)?;
        let meta = read_at(&file, begin + HEAD_BYTES as u64, head.meta_bytes as usize, Patience::Wait)?;
        let is_sound = RecordHead::is_sound(first, &meta);
        Meta::decode(&meta).filter(|_| is_sound).ok_or_else(damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::super::index::Index;
    use super::super::list::Listed;
    use super::super::record::{Kind, Place};
    use super::*;
    use shoal_policy::cache::key::ObjectKey;

    #[test]
    fn lists_tell_what_is_there_and_how_far_it_was_checked() {
        let index = Index::new();
        let listed = |kind, key, offset| Listed {
            place: Place { segment: 1, offset },
            head: RecordHead {
                kind,
                variant: 0,
                key: ObjectKey(key),
                fill_seq: 3,
                checked_seq: 4,
                expires: u64::MAX,
                body_bytes: 10,
                meta_bytes: 10,
            },
        };
        let records = [listed(Kind::Object, 1, 1), listed(Kind::Gone, 2, 3), listed(Kind::Object, 3, 5)];
        let entry = |at: usize| Entry::of(&records[at].head, records[at].place).unwrap();
        index.insert(entry(0));
        index.set_checked(&entry(0), 9);
        index.set_checked(&entry(0), 7); // it never sinks
        let mut refreshed = records.to_vec();
        refreshed.iter_mut().for_each(|record| index.refresh(record));
        let told: Vec<_> =
            refreshed.iter().map(|record| (record.head.kind, record.head.checked_seq)).collect();
        // What is not there any more had taken the place of what is older: that must not come back.
        assert_eq!(told, [(Kind::Object, 9), (Kind::Gone, 4), (Kind::VariantGone, 4)]);
        assert_eq!(index.older_than(1, 9), []);
        assert_eq!((0..index.shards()).flat_map(|shard| index.older_than(shard, 10)).count(), 1);
    }
}
