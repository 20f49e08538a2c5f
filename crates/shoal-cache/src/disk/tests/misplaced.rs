//! What is not where it was, or is there no longer, brings nothing back that was forgotten.

use std::path::PathBuf;

use super::super::segment::{data_path, list_path};
use super::*;

/// Segments with lists, stopped. An object of the first one is forgotten in the second one.
fn forgotten_in_the_second() -> Bench {
    let mut bench = Bench::new(BUDGET);
    bench.put(version(1, 1), 10);
    (10..50).for_each(|key| _ = bench.put(version(key, 1), 30_000));
    bench.forget(1, None);
    (50..130).for_each(|key| _ = bench.put(version(key, 1), 30_000));
    let mut bench = bench.restart();
    assert!(bench.found().contains_key(&(10, 0)) && bench.segments().len() > 3);
    drop(bench.writer.take());
    bench
}

/// The keys of what was in `first` and those behind it.
fn keys_from(bench: &Bench, first: u32) -> Vec<u128> {
    let entries = (first..=bench.writer_segment()).flat_map(|segment| bench.shared.index.of_segment(segment));
    let mut keys: Vec<u128> = entries.map(|entry| entry.key().0).collect();
    keys.sort_unstable();
    keys
}

/// `expected` is what a start finds, and so does a later one.
fn finds(directory: TempDir, expected: &[u128], what: &str) -> Bench {
    let mut bench = Bench::on(directory, BUDGET);
    for _ in 0..2 {
        let found: Vec<u128> = bench.found().into_keys().map(|(key, _)| key).collect();
        assert_eq!(found, expected, "{what}");
        bench = bench.crash();
    }
    bench
}

#[test]
fn a_segment_that_is_missing_takes_what_is_older_with_it_whatever_has_its_place() {
    for missing in [0, 1] {
        for place in ["nothing", "a directory", "a pipe", "a link to it"] {
            let bench = forgotten_in_the_second();
            let expected = keys_from(&bench, missing + 1);
            assert!(expected.len() > 50);
            let directory = bench.directory.path();
            let (data, moved) = (data_path(directory, missing), directory.join("moved"));
            fs::rename(&data, &moved).unwrap();
            match place {
                "a directory" => fs::create_dir(&data).unwrap(),
                "a pipe" => make_pipe(&data),
                "a link to it" => std::os::unix::fs::symlink(&moved, &data).unwrap(),
                _ => {}
            }
            let bench = finds(bench.directory, &expected, &format!("{place} instead of {missing}"));
            assert_eq!(data.symlink_metadata().is_ok(), place != "nothing", "it is let be");
            assert_eq!(bench.segments().contains(&1), missing == 0);
        }
    }
}

#[test]
fn what_says_another_number_than_its_name_is_not_trusted() {
    type Paths = fn(&Path, u32) -> PathBuf;
    let swap = |directory: &Path, path: Paths| {
        let (first, second, aside) = (path(directory, 0), path(directory, 1), directory.join("aside"));
        fs::rename(&first, &aside).unwrap();
        fs::rename(&second, &first).unwrap();
        fs::rename(&aside, &second).unwrap();
    };
    for (what, first_trusted) in [("segments", 2), ("both", 2), ("lists", 0), ("a copied list", 0)] {
        let bench = forgotten_in_the_second();
        let expected = keys_from(&bench, first_trusted);
        let directory = bench.directory.path();
        if matches!(what, "segments" | "both") {
            swap(directory, data_path);
        }
        if matches!(what, "lists" | "both") {
            swap(directory, list_path);
        }
        if what == "a copied list" {
            fs::copy(list_path(directory, 0), list_path(directory, 1)).unwrap();
        }
        let mut bench = finds(bench.directory, &expected, what);
        bench.put(version(1, 2), 10);
        assert_eq!(bench.crash().found().get(&(1, 0)), Some(&2), "{what}");
    }
}

#[test]
fn without_a_note_of_how_far_it_went_nothing_is_trusted() {
    for is_there in [true, false] {
        for is_last_there in [true, false] {
            let mut bench = Bench::new(BUDGET);
            (1..=4).for_each(|key| _ = bench.put(version(key, 1), 100));
            let mut bench = bench.restart();
            bench.forget(4, None);
            drop(bench.writer.take());
            let tail = bench.directory.path().join("tail");
            match is_there {
                true => fs::write(tail, b"").unwrap(),
                false => fs::remove_file(tail).unwrap(),
            }
            if !is_last_there {
                segment::remove(bench.directory.path(), 1).unwrap();
            }
            let mut bench = finds(bench.directory, &[], &format!("{is_there} {is_last_there}"));
            bench.put(version(5, 1), 100);
            assert_eq!(bench.crash().found(), BTreeMap::from([((5, 0), 1)]));
        }
    }
}
