//! What is damaged or missing loses objects, and never changes one or brings one back.

use super::super::segment::list_path;
use super::*;

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
