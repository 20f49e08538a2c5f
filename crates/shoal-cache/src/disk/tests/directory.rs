//! The directory: whose it is, and what of others lies in it.

use std::os::unix::fs::FileExt;

use super::super::segment::{HEADER_BYTES, Header};
use super::super::tail::Tail;
use super::*;

#[tokio::test]
async fn two_processes_never_write_in_one_directory() {
    let directory = tempfile::tempdir().unwrap();
    let open = || open_disk(directory.path());
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

#[test]
fn objects_of_another_cluster_or_version_are_taken_away() {
    let mut bench = Bench::new(BUDGET);
    bench.put(version(1, 1), 10);
    drop(bench.writer.take());
    let (shared, writer) = open(bench.directory.path(), BUDGET, Epoch(8));
    assert_eq!((shared.index.len(), shared.figures.damaged.load(Relaxed)), (0, 1));
    drop(writer);
    let mut bench = Bench::on(bench.directory, BUDGET);
    assert!(bench.found().is_empty());

    (0..100).for_each(|key| _ = bench.put(version(key, 1), 30_000));
    let bench = bench.restart();
    let segments = bench.segments();
    assert!(segments.len() > 2 && !bench.found().is_empty());
    drop(bench.writer);
    for segment in &segments {
        let data = segment::data_path(bench.directory.path(), *segment);
        let data = File::options().write(true).open(data).unwrap();
        data.write_all_at(b"shoalsg1", 0).unwrap();
    }
    let mut bench = Bench::on(bench.directory, BUDGET);
    assert!(bench.found().is_empty() && bench.segments().is_empty());
    assert_eq!(bench.shared.figures.damaged.load(Relaxed), 0);
    assert!(segments.iter().all(|n| !segment::data_path(bench.directory.path(), *n).exists()));
    bench.put(version(1, 2), 10);
    assert_eq!(bench.crash().found(), BTreeMap::from([((1, 0), 2)]));
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_no_reason_not_to_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a file");
    fs::write(&path, b"").unwrap();
    let disk = open_disk(&path);
    disk.opened().await;
    assert!(!disk.offer(object(version(1, 1), 10)));
    assert_eq!(disk.figures().errors.load(Relaxed), 1);
}

#[test]
fn a_lock_that_is_no_file_is_an_error_and_no_wait() {
    let directory = tempfile::tempdir().unwrap();
    make_pipe(&directory.path().join(LOCK));
    let disk = open_disk(directory.path());
    disk.close();
    assert_eq!(disk.figures().errors.load(Relaxed), 1);
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
    let mut bytes = fs::read(path(0)).unwrap();
    let header = Header { epoch: EPOCH, segment: u32::MAX, before: None };
    bytes[..HEADER_BYTES as usize].copy_from_slice(&header.encode());
    fs::write(path(u32::MAX), &bytes).unwrap();
    fs::remove_file(path(0)).unwrap();
    let tail = Tail { segment: u32::MAX, end: bytes.len() as u64 };
    tail.note(&tail::open(bench.directory.path()).unwrap()).unwrap();
    let mut bench = Bench::on(bench.directory, BUDGET);
    assert_eq!(bench.segments(), [u32::MAX]);
    assert_eq!(bench.shared.index.find(ObjectKey(1)).len(), 1);
    bench.put(version(2, 1), 10);
    assert_eq!(bench.segments(), [0]);
    let expected = BTreeMap::from([((2, 0), 1)]);
    assert_eq!(bench.found(), expected);
    assert_eq!(bench.crash().found(), expected);
}
