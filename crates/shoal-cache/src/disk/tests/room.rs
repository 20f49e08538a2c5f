//! What becomes of objects when there is no room for more.

use super::*;

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
fn a_smaller_budget_takes_effect_at_the_start() {
    let mut bench = Bench::new(4 * BUDGET);
    (0..800).for_each(|n| _ = bench.put(version(n, 1), 30_000));
    let bench = bench.restart();
    let bench = Bench { budget_bytes: BUDGET, ..bench }.restart();
    assert!(bench.shared.figures.bytes.load(Relaxed) <= BUDGET);
    assert!(bench.found().contains_key(&(799, 0)));
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
