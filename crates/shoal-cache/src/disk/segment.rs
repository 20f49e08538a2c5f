//! A segment: a file of records, one behind the other, and beside it, once it is full, a list of them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use xxhash_rust::xxh3::xxh3_64;

use super::index::Place;
use super::record::{HEAD_BYTES, RecordHead, UNIT};

/// What a segment begins with takes up one unit.
pub(super) const HEADER_BYTES: u64 = UNIT;
const SEGMENT_MAGIC: &[u8; 8] = b"shoalsg1";
const LIST_MAGIC: &[u8; 8] = b"shoalix1";
/// Bytes of a record in a list: its offset, and its head.
const LISTED_BYTES: usize = 4 + HEAD_BYTES;
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

/// Which cluster the objects of a segment belong to: those of another have other keys and other purges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch(pub u128);

/// A record, as a list has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub place: Place,
    pub head: RecordHead,
}

/// Where the records of a segment are.
pub(super) fn data_path(directory: &Path, segment: u32) -> PathBuf {
    directory.join(format!("{segment:010}.seg"))
}

/// Where the list of them is.
pub(super) fn list_path(directory: &Path, segment: u32) -> PathBuf {
    data_path(directory, segment).with_extension("idx")
}

/// What has the number of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Segment,
    /// Something of others, which is let be: a directory, a pipe, a link.
    Other,
}

/// The numbers that are in use, oldest first. Lists without a segment are taken away: a later one must not get them.
pub(super) fn numbers(directory: &Path) -> io::Result<BTreeMap<u32, Named>> {
    let (mut numbers, mut lists) = (BTreeMap::new(), Vec::new());
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let number = stem.and_then(|stem| stem.parse().ok());
        let number = number.filter(|number| path.with_extension("seg") == data_path(directory, *number));
        match (path.extension().and_then(|extension| extension.to_str()), number) {
            (Some("seg"), Some(number)) => {
                numbers.insert(number, if is_file { Named::Segment } else { Named::Other });
            }
            (Some("idx" | "tmp"), _) if is_file => lists.push(path),
            (Some("idx" | "tmp"), Some(number)) => _ = numbers.entry(number).or_insert(Named::Other),
            _ => {}
        }
    }
    for path in lists {
        let is_lost = !is_file(&path.with_extension("seg"));
        if is_lost || path.extension().is_some_and(|extension| extension == "tmp") {
            fs::remove_file(path)?;
        }
    }
    Ok(numbers)
}

/// There is a file of that name, and nothing else.
fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

/// Opens a file for reading. Anything else is refused: opening a pipe would wait for somebody at its other end.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    Ok(file)
}

/// Begins a file; an error where there is anything of that name.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).open(path)
}

/// Something has a name that the list of this segment would need.
pub(super) fn is_list_taken(directory: &Path, segment: u32) -> bool {
    let path = list_path(directory, segment);
    [path.with_extension("tmp"), path].iter().any(|path| fs::symlink_metadata(path).is_ok())
}

/// Takes a segment away. The list goes first: without it the segment is read, it without the segment would be of another.
pub(super) fn remove(directory: &Path, segment: u32) -> io::Result<()> {
    let paths = [list_path(directory, segment), data_path(directory, segment)];
    for path in paths.iter().filter(|path| is_file(path)) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// What a segment begins with.
pub(super) fn header(epoch: Epoch) -> [u8; HEADER_BYTES as usize] {
    let mut out = [0; HEADER_BYTES as usize];
    out[..8].copy_from_slice(SEGMENT_MAGIC);
    out[8..24].copy_from_slice(&epoch.0.to_le_bytes());
    let sum = xxh3_64(&out[..24]);
    out[24..32].copy_from_slice(&sum.to_le_bytes());
    out
}

/// Whose a segment is, by what it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Written by this version, for this cluster.
    Ours,
    /// It says that it is of another cluster, or it was not even begun.
    Others,
    /// What it was is not known any more, or never was.
    Unknown,
}

/// Whose the segment in `file` is.
pub(super) fn origin(file: &File, epoch: Epoch) -> io::Result<Origin> {
    let mut found = [0; HEADER_BYTES as usize];
    match file.read_exact_at(&mut found, 0) {
        Ok(()) if found == header(epoch) => Ok(Origin::Ours),
        Ok(()) => {
            let said = found[8..].first_chunk().map(|epoch| Epoch(u128::from_le_bytes(*epoch)));
            let is_sound = said.is_some_and(|epoch| found == header(epoch));
            Ok(if is_sound { Origin::Others } else { Origin::Unknown })
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Origin::Others),
        Err(error) => Err(error),
    }
}

/// Writes the list of a segment, all or nothing.
pub(super) fn write_list(directory: &Path, segment: u32, records: &[Listed]) -> io::Result<()> {
    let path = list_path(directory, segment);
    let unfinished = path.with_extension("tmp");
    let mut file = create_file(&unfinished)?;
    let written = file.write_all(&encode_list(records)).and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        // It would be in the way of the next one.
        _ = fs::remove_file(unfinished);
    }
    written
}

/// The list of a segment; `None` = there is none that is whole.
pub(super) fn read_list(directory: &Path, segment: u32) -> Option<Vec<Listed>> {
    let mut bytes = Vec::new();
    open_file(&list_path(directory, segment)).ok()?.read_to_end(&mut bytes).ok()?;
    decode_list(&bytes, segment)
}

fn encode_list(records: &[Listed]) -> Vec<u8> {
    let mut out = Vec::with_capacity(LIST_MAGIC.len() + records.len() * LISTED_BYTES + 8);
    out.extend_from_slice(LIST_MAGIC);
    for Listed { place, head } in records {
        out.extend_from_slice(&place.offset.to_le_bytes());
        // Without its description: the sum of the list holds for all of it.
        out.extend_from_slice(&head.encode(&[]));
    }
    let sum = xxh3_64(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

fn decode_list(bytes: &[u8], segment: u32) -> Option<Vec<Listed>> {
    let (rest, sum) = bytes.split_last_chunk::<8>()?;
    if xxh3_64(rest).to_le_bytes() != *sum {
        return None;
    }
    let records = rest.strip_prefix(LIST_MAGIC)?.chunks(LISTED_BYTES).map(|listed| {
        let (offset, head) = listed.split_first_chunk::<4>()?;
        let place = Place { segment, offset: u32::from_le_bytes(*offset) };
        Some(Listed { place, head: RecordHead::decode(head.try_into().ok()?)? })
    });
    records.collect()
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
    let mut segment = [&header(Epoch(1)), bytes].concat();
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
    assert_eq!(decode_list(&encode_list(&records), 3), Some(records));
    let mut list = [&LIST_MAGIC[..], bytes].concat();
    list.extend_from_slice(&xxh3_64(&list).to_le_bytes());
    if let Some(records) = decode_list(&list, 3) {
        assert_eq!(decode_list(&encode_list(&records), 3), Some(records));
    }
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
    use shoal_policy::cache::key::ObjectKey;

    use super::super::record::Kind;
    use super::*;

    fn listed(offset: u32) -> Listed {
        let head = RecordHead {
            kind: Kind::Object,
            variant: 1,
            key: ObjectKey(u128::from(offset) << 77),
            fill_seq: 3,
            checked_seq: 4,
            expires: 5,
            meta_bytes: 3,
            body_bytes: 2,
        };
        Listed { place: Place { segment: 9, offset }, head }
    }

    #[test]
    fn lists_are_whole_or_nothing() {
        let records = [listed(1), listed(3), listed(7)];
        let bytes = encode_list(&records);
        assert_eq!(decode_list(&bytes, 9).as_deref(), Some(&records[..]));
        assert_eq!(decode_list(&encode_list(&[]), 9).as_deref(), Some(&[][..]));
        for end in 0..bytes.len() {
            assert_eq!(decode_list(&bytes[..end], 9), None, "{end} bytes");
            let mut damaged = bytes.clone();
            damaged[end] ^= 1;
            assert_eq!(decode_list(&damaged, 9), None, "byte {end}");
        }
    }

    #[test]
    fn a_scan_ends_where_a_write_was_cut_short() {
        let directory = tempfile::tempdir().unwrap();
        let mut bytes = header(Epoch(1)).to_vec();
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
        let mut bytes = header(Epoch(1)).to_vec();
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
        let mut bytes = header(Epoch(1)).to_vec();
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

    #[test]
    fn what_is_no_segment_is_let_be_and_lists_without_one_go() {
        let directory = tempfile::tempdir().unwrap();
        for name in
            ["0000000009.seg", "0000000009.idx", "0000000008.idx", "0000000009.tmp", "9.seg", "x.seg", "y"]
        {
            fs::write(directory.path().join(name), b"").unwrap();
        }
        fs::create_dir(directory.path().join("0000000007.seg")).unwrap();
        fs::create_dir(directory.path().join("0000000006.idx")).unwrap();
        let expected = BTreeMap::from([(6, Named::Other), (7, Named::Other), (9, Named::Segment)]);
        assert_eq!(numbers(directory.path()).unwrap(), expected);
        let left = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut left: Vec<String> = left.map(|name| name.into_string().unwrap()).collect();
        left.sort();
        let others = ["0000000006.idx", "0000000007.seg"];
        let ours = ["0000000009.idx", "0000000009.seg"];
        assert_eq!(left, [&others[..], &ours, &["9.seg", "x.seg", "y"]].concat());
    }

    #[test]
    fn segments_of_others_are_told_by_their_beginning() {
        let directory = tempfile::tempdir().unwrap();
        let path = data_path(directory.path(), 1);
        let check = |bytes: &[u8], expected: Origin| {
            fs::write(&path, bytes).unwrap();
            assert_eq!(origin(&File::open(&path).unwrap(), Epoch(1)).unwrap(), expected);
        };
        let ours = header(Epoch(1));
        check(&ours, Origin::Ours);
        check(&header(Epoch(2)), Origin::Others);
        check(&ours[..63], Origin::Others);
        check(b"", Origin::Others);
        for place in 0..ours.len() {
            let mut other = ours;
            other[place] ^= 1;
            check(&other, Origin::Unknown);
        }
    }
}
