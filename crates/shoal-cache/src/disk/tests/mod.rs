//! The disk with objects and without a network: what was written is there, and nothing else ever is.

mod damaged;
mod directory;
mod forgotten;
mod misplaced;
mod room;
mod written;

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

use super::*;
use crate::object::{OnDisk, Rare, UNCOPIED};
use crate::stored_body::StoredBody;

const EPOCH: Epoch = Epoch(7);
const BUDGET: u64 = 8 << 20;
/// Bytes of memory beside it.
const MEMORY: u64 = 4 << 20;

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
    open_beside(MEMORY, directory, budget_bytes, epoch)
}

fn open_beside(memory: u64, directory: &Path, budget_bytes: u64, epoch: Epoch) -> (Arc<Shared>, Writer) {
    let shared = Arc::new(Shared::new(Arc::new(Store::new(memory))));
    let settings = DiskSettings { directory: directory.to_owned(), budget_bytes };
    let writer = begin(&settings, epoch, &shared).unwrap().unwrap();
    (shared, writer)
}

/// A disk whose writer works by itself.
fn open_disk(directory: &Path) -> Disk {
    let settings = DiskSettings { directory: directory.to_owned(), budget_bytes: BUDGET };
    Disk::open(settings, EPOCH.0, Arc::new(Store::new(1 << 20))).unwrap()
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
