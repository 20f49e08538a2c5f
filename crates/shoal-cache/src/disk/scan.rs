//! Reading the records of a segment that has no list, or may have been damaged.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

#[cfg(feature = "fuzzing")]
use super::list;
use super::list::Listed;
use super::record::{HEAD_BYTES, Place, RecordHead, UNIT};
use super::segment::HEADER_BYTES;

/// Read at once where records are searched for.
const SEARCH_BYTES: usize = 1 << 20;
/// What looks like a record and is none, until a search is given up.
const MAX_TRIES: usize = 4096;

/// Where records are read from.
pub(super) trait Source {
    /// Bytes there are.
    fn length(&self) -> io::Result<u64>;
    /// Fills `into` with what is at `at`.
    fn read(&self, into: &mut [u8], at: u64) -> io::Result<()>;
}

impl Source for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(into, at)
    }
}

/// What a segment has, by its records.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Those that may be trusted.
    pub records: Vec<Listed>,
    /// Between records there was something that is none. What was written there is lost: it may have said that others are
    /// gone. What is known to be older is not to be used any more.
    pub has_gap: bool,
}

/// Reads the records of a segment one after the other. Where there is none and the file does not end, those further on are
/// what there is. What ends with the file was cut short, which is no harm: nobody was told that it was written.
pub(super) fn scan(file: &impl Source, segment: u32) -> io::Result<Scanned> {
    let length = file.length()?;
    let (mut scanned, mut at, mut tries) = (Scanned::default(), HEADER_BYTES, 0);
    loop {
        match read_record(file, at, length)? {
            Found::Record(head, end) => {
                let Ok(offset) = u32::try_from(at / UNIT) else { break };
                scanned.records.push(Listed { place: Place { segment, offset }, head });
                at = end;
            }
            Found::CutShort => break,
            Found::Nothing { may_be_cut_short } => {
                let next = next_record(file, at, length, &mut tries)?;
                let Some(next) = next.filter(|next| *next < length || !may_be_cut_short) else { break };
                scanned = Scanned { records: Vec::new(), has_gap: true };
                at = next;
            }
        }
    }
    Ok(scanned)
}

/// What is at some place of a segment.
enum Found {
    /// A sound record, and where it ends.
    Record(RecordHead, u64),
    /// One that is not all there.
    CutShort,
    Nothing {
        /// By what cannot be proven, it goes on behind the end.
        may_be_cut_short: bool,
    },
}

/// Bodies are not looked at: whoever reads one does that.
fn read_record(file: &impl Source, at: u64, length: u64) -> io::Result<Found> {
    if at + HEAD_BYTES as u64 > length {
        return Ok(Found::CutShort);
    }
    let mut bytes = [0; HEAD_BYTES];
    file.read(&mut bytes, at)?;
    let Some(head) = RecordHead::decode(&bytes) else {
        return Ok(Found::Nothing { may_be_cut_short: false });
    };
    if at + head.body_at() > length {
        return Ok(Found::Nothing { may_be_cut_short: true });
    }
    let mut meta = vec![0; head.meta_bytes as usize];
    file.read(&mut meta, at + HEAD_BYTES as u64)?;
    if !RecordHead::is_sound(&bytes, &meta) {
        return Ok(Found::Nothing { may_be_cut_short: false });
    }
    match head.record_bytes().and_then(|bytes| bytes.checked_add(at)) {
        Some(end) if end <= length => Ok(Found::Record(head, end)),
        Some(_) | None => Ok(Found::CutShort),
    }
}

/// Where the first sound record from `at` on begins, or else the end; `None` = nothing was ever written there. Whoever makes
/// bodies gains nothing by putting a record into one: keys are hashes under the cluster's secret.
fn next_record(file: &impl Source, at: u64, length: u64, tries: &mut usize) -> io::Result<Option<u64>> {
    let mut block = vec![0; SEARCH_BYTES];
    let (mut at, mut is_blank) = (at, true);
    while at < length {
        let there = usize::try_from(length - at).unwrap_or(SEARCH_BYTES).min(SEARCH_BYTES);
        file.read(&mut block[..there], at)?;
        for place in
            (0..there).step_by(UNIT as usize).filter(|place| RecordHead::may_begin(&block[*place..there]))
        {
            *tries += 1;
            if *tries > MAX_TRIES {
                return Ok(Some(length));
            }
            let place = at + place as u64;
            if let Found::Record(..) = read_record(file, place, length)? {
                return Ok(Some(place));
            }
        }
        is_blank &= block[..there].iter().all(|byte| *byte == 0);
        at += there as u64;
    }
    Ok((!is_blank).then_some(length))
}

/// Whatever a file says, what is read of it lies inside it, and is read again from what is written of it.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    struct Bytes(Vec<u8>);
    impl Source for Bytes {
        fn length(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }

        fn read(&self, into: &mut [u8], at: u64) -> io::Result<()> {
            let from = usize::try_from(at).ok().and_then(|at| self.0.get(at..)?.get(..into.len()));
            into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }
    }
    let mut segment = [&[0; HEADER_BYTES as usize], bytes].concat();
    let end = repair(&mut segment);
    let file = Bytes(segment);
    let Scanned { records, has_gap } = scan(&file, 3).expect("all of it is in memory");
    let mut at = records.first().map_or(HEADER_BYTES, |first| first.place.byte());
    assert!(has_gap || at == HEADER_BYTES);
    for Listed { place, head } in &records {
        assert_eq!(place.byte(), at, "one behind the other");
        at += head.record_bytes().expect("it has room");
    }
    assert!(has_gap || at >= end, "all that is sound");
    assert!(at <= file.0.len() as u64, "and nothing else");
    list::fuzz(bytes, records);
}

/// Makes the sums of records right, as far as they are records otherwise; says how far that is.
#[cfg(feature = "fuzzing")]
fn repair(segment: &mut [u8]) -> u64 {
    let mut at = HEADER_BYTES;
    while let Some(record) = segment.get_mut(at as usize..)
        && let Some(head) = record.first_chunk().and_then(RecordHead::decode)
        && let Some(bytes) = head.record_bytes().filter(|bytes| *bytes <= record.len() as u64)
    {
        let meta = record[HEAD_BYTES..head.body_at() as usize].to_vec();
        record[..HEAD_BYTES].copy_from_slice(&head.encode(&meta));
        at += bytes;
    }
    at
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::list::listed;
    use super::super::segment::data_path;
    use super::*;

    #[test]
    fn a_scan_ends_where_a_write_was_cut_short() {
        let directory = tempfile::tempdir().unwrap();
        let mut bytes = vec![0; HEADER_BYTES as usize];
        for offset in [1, 3, 5] {
            let head = listed(offset).head;
            bytes.extend_from_slice(&head.encode(b"abc"));
            bytes.extend_from_slice(b"abc");
            bytes.extend_from_slice(b"de");
            bytes.resize(bytes.len().next_multiple_of(UNIT as usize), 0);
        }
        let path = data_path(directory.path(), 9);
        for (end, expected) in [(448, 3), (447, 2), (320, 2), (319, 1), (160, 0), (64, 0), (0, 0)] {
            fs::write(&path, &bytes[..end]).unwrap();
            let Scanned { records, has_gap } = scan(&File::open(&path).unwrap(), 9).unwrap();
            assert_eq!((records.len(), has_gap), (expected, false), "{end} bytes");
            assert!(records.iter().zip([1, 3, 5]).all(|(found, offset)| *found == listed(offset)));
        }
    }

    #[test]
    fn what_comes_behind_damage_is_all_there_is() {
        let mut bytes = vec![0; HEADER_BYTES as usize];
        for offset in [1, 3, 5, 7] {
            bytes.extend_from_slice(&listed(offset).head.encode(b"abc"));
            bytes.extend_from_slice(b"abcde");
            bytes.resize(bytes.len().next_multiple_of(UNIT as usize), 0);
        }
        let directory = tempfile::tempdir().unwrap();
        let path = data_path(directory.path(), 9);
        let check = |damaged: &[usize], expected: &[u32], has_gap: bool| {
            let mut bytes = bytes.clone();
            damaged.iter().for_each(|place| bytes[*place] ^= 1);
            fs::write(&path, &bytes).unwrap();
            let scanned = scan(&File::open(&path).unwrap(), 9).unwrap();
            let records = expected.iter().map(|offset| listed(*offset)).collect();
            assert_eq!(scanned, Scanned { records, has_gap }, "{damaged:?}");
        };
        // The second record begins at byte 192, its description is at 260, its body at 263.
        check(&[], &[1, 3, 5, 7], false);
        check(&[263], &[1, 3, 5, 7], false);
        for place in [192, 196, 200, 250, 259, 260, 262] {
            check(&[place], &[5, 7], true);
        }
        check(&[64], &[3, 5, 7], true);
        check(&[64, 320], &[7], true);
        check(&[448], &[], true);
        check(&[64, 192, 320, 448], &[], true);
    }

    #[test]
    fn a_search_that_leads_nowhere_ends() {
        let mut bytes = vec![0; HEADER_BYTES as usize];
        let lie = RecordHead { meta_bytes: 0, body_bytes: 0, ..listed(1).head };
        for _ in 0..=MAX_TRIES + 1 {
            bytes.extend_from_slice(&lie.encode(b"")[..60]);
            bytes.resize(bytes.len().next_multiple_of(UNIT as usize), 0);
        }
        bytes.extend_from_slice(&listed(1).head.encode(b"abc"));
        bytes.resize(bytes.len() + 60, 0);
        let directory = tempfile::tempdir().unwrap();
        let path = data_path(directory.path(), 9);
        fs::write(&path, &bytes).unwrap();
        let scanned = scan(&File::open(&path).unwrap(), 9).unwrap();
        assert_eq!(scanned, Scanned { records: Vec::new(), has_gap: true }, "nothing is trusted then");
    }
}
