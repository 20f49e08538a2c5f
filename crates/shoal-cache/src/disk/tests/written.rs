//! What was written is there, as long as it may be, and nothing but that.

use super::*;

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
fn a_small_disk_takes_nothing_from_memory() {
    let directory = tempfile::tempdir().unwrap();
    let (shared, writer) = open_beside(64 << 20, directory.path(), BUDGET, EPOCH);
    let mut bench = Bench { directory, budget_bytes: BUDGET, shared, writer: Some(writer) };
    for n in 1..=60 {
        let written = object(version(n, 1), 500_000);
        assert!(bench.shared.store.insert_if(&written, |_| true));
        assert!(bench.shared.jobs.offer(written));
        bench.work();
    }
    assert!(bench.found().len() < 20, "a disk of 8 MiB");
    for n in 1..=60 {
        let in_memory = bench.shared.store.find(ObjectKey(n)).unwrap().objects()[0].clone();
        assert!(in_memory.disk_body().is_none());
        assert_eq!(proven(&in_memory), Some(version(n, 1)));
    }
}
