//! The disk with objects and without a network: what was written is there, and nothing else ever is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64};

use bytes::Bytes;
use http::header::{ACCEPT_LANGUAGE, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use shoal_model::site::Replicate;
use shoal_policy::cache::selecting::Selecting;
use shoal_policy::cache::storage::Terms;
use shoal_policy::cache::stored_fields::StoredFields;
use tempfile::TempDir;

use super::segment::list_path;
use super::*;
use crate::object::{OnDisk, Rare, UNCOPIED};
use crate::stored_body::StoredBody;

const EPOCH: Epoch = Epoch(7);
const BUDGET: u64 = 8 << 20;

/// A disk whose writer works when it is told to.
struct Bench {
    directory: TempDir,
    budget_bytes: u64,
    shared: Arc<Shared>,
    writer: Option<Writer>,
}

/// What one object is, as far as the disk is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    key: u128,
    language: u8,
    number: u64,
}

impl Bench {
    fn new(budget_bytes: u64) -> Self {
        Self::on(tempfile::tempdir().unwrap(), budget_bytes)
    }

    fn on(directory: TempDir, budget_bytes: u64) -> Self {
        let (shared, writer) = open(directory.path(), budget_bytes, EPOCH);
        Self { directory, budget_bytes, shared, writer: Some(writer) }
    }

    fn put(&mut self, version: Version, bytes: usize) -> Arc<Object> {
        let object = object(version, bytes);
        assert!(self.shared.jobs.offer(object.clone()));
        self.work();
        object
    }

    fn forget(&mut self, key: u128, language: Option<u8>) {
        let key = ObjectKey(key);
        let variant =
            language.map(|language| variant(&object(Version { key: key.0, language, number: 0 }, 0)));
        if self.shared.jobs.forget(key, variant, || self.shared.index.forget(key, variant)) > 0 {
            self.work();
        }
    }

    fn forget_everything(&mut self) {
        self.shared.jobs.forget_everything(|| self.shared.index.clear());
        self.work();
    }

    fn work(&mut self) {
        let work = self.shared.jobs.take().unwrap();
        self.writer.as_mut().unwrap().work(work);
    }

    /// A stop that was asked for, and a start.
    fn restart(mut self) -> Self {
        self.shared.jobs.close();
        self.writer.take().unwrap().run();
        Self::on(self.directory, self.budget_bytes)
    }

    /// An end without a warning, and a start.
    fn crash(self) -> Self {
        drop(self.writer);
        Self::on(self.directory, self.budget_bytes)
    }

    /// All that is found, whole and right.
    fn found(&self) -> BTreeMap<(u128, u8), u64> {
        let mut found = BTreeMap::new();
        let keys: std::collections::BTreeSet<u128> = (0..=self.writer_segment())
            .flat_map(|segment| self.shared.index.of_segment(segment))
            .map(|entry| entry.key().0)
            .collect();
        for key in keys {
            for entry in self.shared.index.find(ObjectKey(key)) {
                let Ok(object) = self.shared.read(&entry, Patience::Wait) else { continue };
                let Some(version) = proven(&object) else { continue };
                assert_eq!(version.key, key);
                assert!(found.insert((key, version.language), version.number).is_none());
            }
        }
        found
    }

    fn writer_segment(&self) -> u32 {
        self.shared.files.read().unwrap().keys().next_back().copied().unwrap_or(0)
    }

    fn segments(&self) -> Vec<u32> {
        self.shared.files.read().unwrap().keys().copied().collect()
    }
}

fn open(directory: &Path, budget_bytes: u64, epoch: Epoch) -> (Arc<Shared>, Writer) {
    let shared = Arc::new(Shared {
        index: Index::new(),
        files: RwLock::default(),
        jobs: Jobs::default(),
        figures: Figures::default(),
        state: watch::Sender::new(State::Opening),
        orders_done: watch::Sender::new(0),
        store: Arc::new(Store::new(64 << 20)),
        has_told_of_damage: AtomicBool::new(false),
    });
    let settings = DiskSettings { directory: directory.to_owned(), budget_bytes };
    let writer = begin(&settings, epoch, &shared).unwrap().unwrap();
    (shared, writer)
}

fn version(key: u128, number: u64) -> Version {
    Version { key, language: 0, number }
}

fn body(version: Version, bytes: usize) -> Vec<u8> {
    let mut state = (version.number << 17) ^ (u64::from(version.language) << 9) ^ version.key as u64 ^ 1;
    (0..bytes).map(|_| random(&mut state) as u8).collect()
}

fn object(version: Version, bytes: usize) -> Arc<Object> {
    let language = HeaderValue::from(u64::from(version.language));
    let request = HeaderMap::from_iter([(ACCEPT_LANGUAGE, language)]);
    let object = Object {
        key: ObjectKey(version.key),
        text: format!("http://a.org/{} shop", version.key).into(),
        status: StatusCode::OK,
        fields: StoredFields::from_iter([
            (CONTENT_TYPE, HeaderValue::from(version.number)),
            (http::header::AGE, HeaderValue::from(u64::from(version.language))),
        ]),
        terms: Terms { response_ms: now_ms(), lifetime_ms: 3_600_000, ..Terms::default() },
        rare: Rare::of(Selecting::of(&[ACCEPT_LANGUAGE.into()], &request), &[version.number], None),
        body: StoredBody::whole(&[Bytes::from(body(version, bytes))]),
        body_bytes: 0,
        fill_seq: version.number,
        checked_seq: AtomicU64::new(version.number),
        replicate: Replicate::Auto,
        hits: AtomicU32::new(0),
        edition: AtomicU32::new(0),
        used_ms: AtomicU64::new(0),
        heat: AtomicU64::new(0),
        copied_from: None,
        copied_under: AtomicU64::new(UNCOPIED),
        disk: OnDisk::default(),
    };
    object.seal()
}

/// What `object` is, if every byte of it is right.
fn proven(object: &Object) -> Option<Version> {
    let fields = object.fields.to_map(0);
    let number = |name| fields[name].to_str().unwrap().parse::<u64>().unwrap();
    let version = Version {
        key: object.key.0,
        language: number(http::header::AGE) as u8,
        number: number(CONTENT_TYPE),
    };
    let expected = body(version, object.body_bytes as usize);
    let read = match object.disk_body() {
        None => object.body.pieces().concat(),
        Some(body) => {
            let pieces = (body.bytes() as usize).div_ceil(record::PIECE_BYTES);
            let pieces: io::Result<Vec<Bytes>> = (0..pieces).map(|n| body.piece(n, Patience::Wait)).collect();
            pieces.ok()?.concat()
        }
    };
    assert_eq!(read, expected, "{version:?}");
    assert_eq!((object.tags(), object.fill_seq), (&[version.number][..], version.number));
    Some(version)
}

fn make_pipe(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

fn file_bytes(bench: &Bench, segment: u32) -> u64 {
    fs::metadata(segment::data_path(bench.directory.path(), segment)).unwrap().len()
}

/// A step of xorshift: enough to be unlike each other.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn what_was_written_is_there_after_a_stop_and_after_a_crash() {
    for is_asked in [true, false] {
        let mut bench = Bench::new(BUDGET);
        for n in 0..100 {
            bench.put(version(n, n as u64), n as usize * 37);
        }
        bench.put(Version { key: 5, language: 1, number: 200 }, 10);
        bench.put(version(6, 300), 600_000);
        let mut expected: BTreeMap<(u128, u8), u64> = (0..100).map(|n| ((n, 0), n as u64)).collect();
        expected.extend([((5, 1), 200), ((6, 0), 300)]);
        assert_eq!(bench.found(), expected);
        for _ in 0..3 {
            bench = if is_asked { bench.restart() } else { bench.crash() };
            assert_eq!(bench.found(), expected, "asked: {is_asked}");
        }
    }
}

#[test]
fn what_is_forgotten_does_not_come_back() {
    let mut bench = Bench::new(BUDGET);
    for language in 0..3 {
        bench.put(Version { key: 1, language, number: 1 }, 10);
        bench.put(Version { key: 2, language, number: 1 }, 10);
    }
    bench.forget(1, Some(1));
    bench.forget(2, None);
    bench.forget(3, None);
    bench.put(Version { key: 2, language: 2, number: 2 }, 10);
    let expected = BTreeMap::from([((1, 0), 1), ((1, 2), 1), ((2, 2), 2)]);
    assert_eq!(bench.found(), expected);
    let bench = bench.crash();
    assert_eq!(bench.found(), expected);
    let mut bench = bench.restart();
    assert_eq!(bench.found(), expected);
    bench.forget_everything();
    assert!(bench.found().is_empty());
    assert!(bench.crash().found().is_empty());
}

#[test]
fn what_is_forgotten_while_it_waits_is_not_written() {
    let mut bench = Bench::new(BUDGET);
    let key = ObjectKey(1);
    assert!(bench.shared.jobs.offer(object(version(1, 1), 10)));
    bench.shared.jobs.forget(key, None, || bench.shared.index.forget(key, None));
    assert!(bench.shared.jobs.offer(object(version(1, 2), 10)));
    bench.work();
    assert_eq!(bench.found(), BTreeMap::from([((1, 0), 2)]));
    assert_eq!(bench.crash().found(), BTreeMap::from([((1, 0), 2)]));
}

#[test]
fn the_oldest_goes_when_there_is_no_room_and_what_is_used_stays() {
    let mut bench = Bench::new(BUDGET);
    for n in 0..1000 {
        bench.put(version(n, 1), 30_000);
        if let [first] = &bench.shared.index.find(ObjectKey(0))[..] {
            bench.shared.index.used(first);
        }
    }
    let bytes: u64 = fs::read_dir(bench.directory.path())
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes <= BUDGET + BUDGET / 20, "{bytes} bytes with the lists");
    let found = bench.found();
    assert!(found.len() > 200 && found.contains_key(&(999, 0)) && !found.contains_key(&(1, 0)));
    assert!(found.contains_key(&(0, 0)), "it was used all the while");
    assert_eq!(bench.crash().found(), found);
}

#[test]
fn large_bodies_are_read_by_pieces_and_leave_memory() {
    let mut bench = Bench::new(BUDGET);
    let written = object(version(1, 1), 700_000);
    assert!(bench.shared.store.insert_if(&written, |_| true));
    assert!(bench.shared.jobs.offer(written.clone()));
    bench.work();
    let in_memory = bench.shared.store.find(ObjectKey(1)).unwrap().objects()[0].clone();
    assert!(in_memory.is_same_as(&written) && in_memory.disk_body().is_some());
    assert_eq!(proven(&in_memory), Some(version(1, 1)));

    // Its segment goes: what was in memory of it goes, too, but not for whoever is reading it.
    (2..400).for_each(|n| _ = bench.put(version(n, 1), 60_000));
    while bench.shared.index.find(ObjectKey(1)).iter().any(|entry| entry.place.segment == 0) {
        bench.put(version(2, 1), 60_000);
    }
    assert!(bench.shared.store.find(ObjectKey(1)).is_none());
    assert_eq!(proven(&in_memory), Some(version(1, 1)));
}

#[test]
fn a_body_that_is_damaged_is_dropped_and_never_passed_on() {
    let mut bench = Bench::new(BUDGET);
    bench.put(version(1, 1), 2_000_000);
    let [entry] = bench.shared.index.find(ObjectKey(1))[..] else { panic!() };
    let loaded = bench.shared.read(&entry, Patience::Wait).unwrap();
    let data = segment::data_path(bench.directory.path(), entry.place.segment);
    let mut bytes = fs::read(&data).unwrap();
    let end = bytes.len() - 70;
    bytes[end] ^= 1;
    fs::write(&data, bytes).unwrap();
    assert!(bench.shared.store.insert_if(&loaded, |_| true));
    assert_eq!(proven(&loaded), None);
    assert!(bench.shared.index.find(ObjectKey(1)).is_empty(), "nobody finds it any more");
    assert!(bench.shared.store.find(ObjectKey(1)).is_none());
    assert_eq!(bench.shared.figures.damaged.load(Relaxed), 1);
}

#[test]
fn damage_loses_objects_but_never_changes_them() {
    for seed in 1..100u64 {
        let mut state = seed;
        let mut bench = Bench::new(BUDGET);
        let mut written = BTreeMap::new();
        for n in 0..20 {
            let bytes = random(&mut state) as usize % 3000;
            bench.put(version(n, seed), bytes);
            written.insert((n, 0), seed);
        }
        let bench = if seed % 2 == 0 { bench.restart() } else { bench };
        drop(bench.writer);
        let data = segment::data_path(bench.directory.path(), 0);
        let mut bytes = fs::read(&data).unwrap();
        match seed % 3 {
            0 => bytes.truncate(random(&mut state) as usize % bytes.len()),
            1 => {
                let at = random(&mut state) as usize % bytes.len();
                bytes[at] ^= 1 << (random(&mut state) % 8);
            }
            _ => {
                let at = random(&mut state) as usize % bytes.len();
                let end = (at + random(&mut state) as usize % 512).min(bytes.len());
                bytes[at..end].fill(0);
            }
        }
        fs::write(&data, bytes).unwrap();
        if seed % 5 == 0 {
            _ = fs::remove_file(list_path(bench.directory.path(), 0));
        }
        let again = Bench::on(bench.directory, BUDGET);
        let found = again.found();
        assert!(found.iter().all(|(place, number)| written.get(place) == Some(number)), "seed {seed}");
    }
}

#[test]
fn what_was_forgotten_does_not_come_back_where_that_was_lost() {
    // What is damaged: the beginning of the segment, the record before the one that says so, that one, the one behind it.
    for damaged in 0..4 {
        let mut bench = Bench::new(BUDGET);
        bench.put(version(1, 1), 100);
        bench.put(version(2, 1), 100);
        let mut bench = bench.restart();
        bench.put(version(3, 1), 100);
        let before = file_bytes(&bench, 1) as usize;
        bench.forget(1, None);
        let after = file_bytes(&bench, 1) as usize;
        bench.put(version(4, 1), 100);
        drop(bench.writer.take());
        let data = segment::data_path(bench.directory.path(), 1);
        let mut bytes = fs::read(&data).unwrap();
        bytes[[8, segment::HEADER_BYTES as usize + 9, before + 9, after + 9][damaged]] ^= 1;
        fs::write(&data, bytes).unwrap();
        let mut bench = Bench::on(bench.directory, BUDGET);
        // Once more, as a later start finds it.
        for _ in 0..2 {
            let found: Vec<u128> = bench.found().into_keys().map(|(key, _)| key).collect();
            assert_eq!(found, [&[][..], &[4], &[4], &[]][damaged], "{damaged}");
            bench = bench.crash();
        }
        assert!(bench.found().len() <= 1);
    }
}

#[test]
fn a_segment_that_is_missing_takes_what_is_older_with_it() {
    for (missing, is_old_there) in [(0, true), (1, false)] {
        let mut bench = Bench::new(BUDGET);
        bench.put(version(1, 1), 10);
        (10..50).for_each(|key| _ = bench.put(version(key, 1), 30_000));
        bench.forget(1, None);
        (50..130).for_each(|key| _ = bench.put(version(key, 1), 30_000));
        let bench = bench.restart();
        assert!(bench.found().contains_key(&(10, 0)) && bench.segments().len() > 3);
        let expected: Vec<u128> = (missing + 1..=bench.writer_segment())
            .flat_map(|segment| bench.shared.index.of_segment(segment))
            .map(|entry| entry.key().0)
            .collect();
        assert!(expected.len() > 50);
        drop(bench.writer);
        segment::remove(bench.directory.path(), missing).unwrap();
        let mut bench = Bench::on(bench.directory, BUDGET);
        for _ in 0..2 {
            let found: Vec<u128> = bench.found().into_keys().map(|(key, _)| key).collect();
            assert_eq!(found, expected, "without {missing}");
            assert_eq!(bench.segments().contains(&1), is_old_there);
            bench = bench.crash();
        }
    }
}

#[test]
fn what_was_cut_off_at_the_end_takes_everything_with_it() {
    // What is left of the last segment, in bytes behind the record that says what is gone; `None` = nothing at all.
    for (left, is_stopped, expected) in [
        (Some(0), false, &[1, 2, 3][..]),
        (Some(-1), false, &[][..]),
        (Some(-100), false, &[][..]),
        (None, false, &[][..]),
        // Its list has what is gone.
        (Some(-1), true, &[1, 2, 3][..]),
        (None, true, &[][..]),
    ] {
        let mut bench = Bench::new(BUDGET);
        (1..=4).for_each(|key| _ = bench.put(version(key, 1), 100));
        let mut bench = bench.restart();
        bench.forget(4, None);
        let end = file_bytes(&bench, 1);
        let bench = if is_stopped { bench.restart() } else { bench };
        drop(bench.writer);
        let data = segment::data_path(bench.directory.path(), 1);
        match left {
            Some(left) => {
                let data = File::options().write(true).open(data).unwrap();
                data.set_len(end.checked_add_signed(left).unwrap()).unwrap();
            }
            None => segment::remove(bench.directory.path(), 1).unwrap(),
        }
        let mut bench = Bench::on(bench.directory, BUDGET);
        // Once more, as a later start finds it.
        for _ in 0..2 {
            let found: Vec<u128> = bench.found().into_keys().map(|(key, _)| key).collect();
            assert_eq!(found, expected, "{left:?} {is_stopped}");
            bench = bench.crash();
        }
        bench.put(version(5, 1), 100);
        assert_eq!(bench.crash().found().len(), expected.len() + 1, "{left:?} {is_stopped}");
    }
}

#[test]
fn what_a_thread_had_that_panicked_is_not_used_again() {
    for is_at_fault in [false, true] {
        let mut bench = Bench::new(BUDGET);
        bench.put(version(1, 1), 10);
        drop(bench.writer.take());
        let directory = bench.directory.path().to_owned();
        let keeper = std::thread::spawn(move || {
            let _mark = UntilPanic(&directory);
            assert!(!is_at_fault, "a mistake");
        });
        assert_eq!(keeper.join().is_err(), is_at_fault);
        let mut bench = Bench::on(bench.directory, BUDGET);
        assert_eq!(bench.found().is_empty(), is_at_fault);
        // What comes after that is as good as any.
        bench.put(version(2, 1), 10);
        assert!(bench.crash().found().contains_key(&(2, 0)));
    }
}

#[test]
fn what_is_no_file_is_let_be_and_in_nobodys_way() {
    let directory = tempfile::tempdir().unwrap();
    let directories = ["0000000000.seg", "0000000002.idx", "x.idx", "y.tmp"];
    let pipes = ["0000000001.seg", "0000000003.idx", "0000000004.tmp", "0000000006.seg", "4294967295.seg"];
    for name in directories {
        fs::create_dir(directory.path().join(name)).unwrap();
    }
    for name in pipes {
        make_pipe(&directory.path().join(name));
    }
    let mut bench = Bench::on(directory, BUDGET);
    (0..60).for_each(|key| _ = bench.put(version(key, 1), 30_000));
    assert_eq!(bench.segments(), [5, 7]);
    let expected = bench.found();
    assert_eq!(expected.len(), 60);
    for is_asked in [true, false, false] {
        bench = if is_asked { bench.restart() } else { bench.crash() };
        assert_eq!(bench.found(), expected);
        assert_eq!(bench.shared.figures.errors.load(Relaxed), 0);
    }
    for name in directories.iter().chain(&pipes) {
        assert!(bench.directory.path().join(name).symlink_metadata().is_ok(), "{name}");
    }
}

#[test]
fn a_lock_that_is_no_file_is_an_error_and_no_wait() {
    let directory = tempfile::tempdir().unwrap();
    make_pipe(&directory.path().join(LOCK));
    let settings = DiskSettings { directory: directory.path().to_owned(), budget_bytes: BUDGET };
    let disk = Disk::open(settings, EPOCH.0, Arc::new(Store::new(1 << 20))).unwrap();
    disk.close();
    assert_eq!(disk.figures().errors.load(Relaxed), 1);
}

#[test]
fn behind_the_last_number_it_begins_anew() {
    let mut bench = Bench::new(BUDGET);
    bench.put(version(1, 1), 10);
    let bench = bench.restart();
    drop(bench.writer);
    let path = |segment| segment::data_path(bench.directory.path(), segment);
    // Not even begun: nobody's.
    fs::write(path(u32::MAX), b"").unwrap();
    let (shared, writer) = open(bench.directory.path(), BUDGET, EPOCH);
    assert_eq!((shared.index.len(), path(u32::MAX).exists()), (1, false));
    drop(writer);
    fs::rename(path(0), path(u32::MAX)).unwrap();
    fs::remove_file(bench.directory.path().join("tail")).unwrap();
    let mut bench = Bench::on(bench.directory, BUDGET);
    assert_eq!(bench.segments(), [u32::MAX]);
    assert_eq!(bench.shared.index.find(ObjectKey(1)).len(), 1);
    bench.put(version(2, 1), 10);
    assert_eq!(bench.segments(), [0]);
    let expected = BTreeMap::from([((2, 0), 1)]);
    assert_eq!(bench.found(), expected);
    assert_eq!(bench.crash().found(), expected);
}

#[test]
fn whatever_happens_only_the_newest_that_was_not_forgotten_is_found() {
    for seed in 1..30u64 {
        let mut state = (seed << 32) | seed;
        let mut bench = Bench::new(BUDGET);
        let mut model: BTreeMap<(u128, u8), u64> = BTreeMap::new();
        for step in 0..120 {
            let key = u128::from(random(&mut state) % 12);
            let language = (random(&mut state) % 3) as u8;
            match random(&mut state) % 20 {
                0..=11 => {
                    let bytes = if random(&mut state).is_multiple_of(30) {
                        700_000
                    } else {
                        random(&mut state) as usize % 90_000
                    };
                    bench.put(Version { key, language, number: step }, bytes);
                    model.insert((key, language), step);
                }
                12..=14 => {
                    bench.forget(key, None);
                    model.retain(|(known, _), _| *known != key);
                }
                15 | 16 => {
                    bench.forget(key, Some(language));
                    model.remove(&(key, language));
                }
                17 => bench = bench.restart(),
                18 => bench = bench.crash(),
                _ if random(&mut state).is_multiple_of(4) => {
                    bench.forget_everything();
                    model.clear();
                }
                _ => {}
            }
            let bytes: u64 = bench.segments().iter().map(|segment| file_bytes(&bench, *segment)).sum();
            assert!(bytes <= BUDGET, "seed {seed}, step {step}: {bytes} bytes");
        }
        let found = bench.crash().found();
        // What went with an old segment is missing, which is no harm.
        assert!(
            found.iter().all(|(place, number)| model.get(place) == Some(number)),
            "seed {seed}: {found:?} {model:?}"
        );
        assert!(found.len() * 2 >= model.len(), "seed {seed}: {} of {}", found.len(), model.len());
    }
}

#[test]
fn objects_of_another_cluster_or_version_are_taken_away() {
    let mut bench = Bench::new(BUDGET);
    bench.put(version(1, 1), 10);
    drop(bench.writer.take());
    let (shared, writer) = open(bench.directory.path(), BUDGET, Epoch(8));
    assert_eq!((shared.index.len(), shared.figures.damaged.load(Relaxed)), (0, 1));
    drop(writer);
    assert!(Bench::on(bench.directory, BUDGET).found().is_empty());
}

#[test]
fn a_smaller_budget_takes_effect_at_the_start() {
    let mut bench = Bench::new(4 * BUDGET);
    (0..800).for_each(|n| _ = bench.put(version(n, 1), 30_000));
    let bench = bench.restart();
    let bench = Bench { budget_bytes: BUDGET, ..bench }.restart();
    assert!(bench.shared.figures.bytes.load(Relaxed) <= BUDGET);
    assert!(bench.found().contains_key(&(799, 0)));
}

#[tokio::test]
async fn two_processes_never_write_in_one_directory() {
    let directory = tempfile::tempdir().unwrap();
    let settings = DiskSettings { directory: directory.path().to_owned(), budget_bytes: BUDGET };
    let open = || Disk::open(settings.clone(), EPOCH.0, Arc::new(Store::new(1 << 20))).unwrap();
    let first = open();
    first.opened().await;
    assert!(first.offer(object(version(1, 1), 10)));
    let (second, third) = (open(), open());
    assert!(!second.shared.is_open());
    third.close();
    first.close();
    assert_eq!(first.objects(), 0, "it finds nothing that the other one may have changed");
    second.opened().await;
    assert_eq!(second.objects(), 1);
}

#[tokio::test]
async fn what_is_forgotten_before_the_disk_is_open_does_not_come_back() {
    for is_everything in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let open = |directory: &Path| {
            let settings = DiskSettings { directory: directory.to_owned(), budget_bytes: BUDGET };
            Disk::open(settings, EPOCH.0, Arc::new(Store::new(1 << 20))).unwrap()
        };
        let found = |disk: &Disk| -> Vec<(u128, u64)> {
            let objects = (1..=4).flat_map(|key| disk.stored(ObjectKey(key)));
            objects.map(|object| proven(&object).unwrap()).map(|found| (found.key, found.number)).collect()
        };
        let first = open(directory.path());
        (1..=4).for_each(|key| assert!(first.offer(object(version(key, 1), 10))));
        first.opened().await;

        // It waits for the first, and knows of nothing that is there.
        let second = open(directory.path());
        if is_everything {
            assert_eq!(second.forget_everything(), 0);
        } else {
            assert_eq!(second.forget(ObjectKey(1)), 0);
            second.forget_variant(&object(version(2, 1), 10));
            second.forget_variant(&object(Version { key: 3, language: 1, number: 1 }, 10));
        }
        assert!(second.offer(object(version(1, 2), 10)));
        assert!(!second.shared.is_open());
        assert_eq!(*second.shared.orders_done.borrow(), 0, "a crash now would bring it back");
        first.close();
        second.opened().await;
        let old: Vec<_> = found(&second).into_iter().filter(|(_, number)| *number == 1).collect();
        let expected = if is_everything { &[][..] } else { &[(3, 1), (4, 1)] };
        assert_eq!(old, expected);

        // As a crash would leave it.
        second.forgotten().await;
        let copy = tempfile::tempdir().unwrap();
        for file in fs::read_dir(directory.path()).unwrap().map(Result::unwrap) {
            fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        let third = open(copy.path());
        third.opened().await;
        let old: Vec<_> = found(&third).into_iter().filter(|(_, number)| *number == 1).collect();
        assert_eq!(old, expected);

        second.close();
        let last = open(directory.path());
        last.opened().await;
        assert_eq!(found(&last), [&[(1, 2)][..], expected].concat());
    }
}

#[tokio::test]
async fn what_is_forgotten_and_never_written_down_is_taken_away_with_all_else() {
    let directory = tempfile::tempdir().unwrap();
    let settings = DiskSettings { directory: directory.path().to_owned(), budget_bytes: BUDGET };
    let open = || Disk::open(settings.clone(), EPOCH.0, Arc::new(Store::new(1 << 20))).unwrap();
    let first = open();
    first.opened().await;
    assert!(first.offer(object(version(1, 1), 10)));
    let second = open();
    second.forget(ObjectKey(1));
    second.close();
    first.close();
    let third = open();
    third.opened().await;
    assert_eq!(third.objects(), 0);
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_no_reason_not_to_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a file");
    fs::write(&path, b"").unwrap();
    let disk = Disk::open(
        DiskSettings { directory: path, budget_bytes: BUDGET },
        EPOCH.0,
        Arc::new(Store::new(1 << 20)),
    );
    let disk = disk.unwrap();
    disk.opened().await;
    assert!(!disk.offer(object(version(1, 1), 10)));
    assert_eq!(disk.figures().errors.load(Relaxed), 1);
}

/// A file system of its own, taken away in the end. `None` = this machine does not let us.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(directory.path())
            .output();
        mount.is_ok_and(|mount| mount.status.success()).then_some(Self(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        _ = std::process::Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
fn a_full_disk_loses_objects_and_nothing_else() {
    let Some(small) = SmallDisk::mount("8m") else { return };
    let (shared, mut writer) = open(small.0.path(), 64 << 20, EPOCH);
    let mut put = |number: u64, bytes| {
        shared.jobs.offer(object(version(u128::from(number % 50), number), bytes));
        writer.work(shared.jobs.take().unwrap());
    };
    (1..200).for_each(|n| put(n, 200_000));
    assert_eq!(shared.figures.errors.load(Relaxed), 0, "it knows how much there is");
    assert!(shared.index.len() > 10);
    // Others fill it up, and take what is let go of, until there is nothing left.
    for round in 0..20 {
        let others = small.0.path().join(format!("others {round}"));
        fs::write(others, vec![0; 8 << 20]).unwrap_err();
        (0..10).for_each(|n| put(200 + 10 * round + n, 200_000));
    }
    assert!(shared.figures.errors.load(Relaxed) > 0, "it did run full");
    (0..20).for_each(|round| fs::remove_file(small.0.path().join(format!("others {round}"))).unwrap());
    (500..550).for_each(|n| put(n, 20_000));
    let find = |key| shared.index.find(ObjectKey(key));
    let read = |entry: &Entry| proven(&shared.read(entry, Patience::Wait).unwrap()).unwrap();
    let found: Vec<Version> = (0..50).flat_map(find).map(|entry| read(&entry)).collect();
    assert!(found.iter().filter(|version| version.number >= 500).count() == 50, "{found:?}");
    drop(writer);
    let (again, _writer) = open(small.0.path(), 64 << 20, EPOCH);
    assert_eq!(again.index.len(), found.len());
}
