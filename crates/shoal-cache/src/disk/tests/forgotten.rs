//! What is forgotten does not come back, however early or late that was said.

use super::*;

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

#[tokio::test]
async fn what_is_forgotten_before_the_disk_is_open_does_not_come_back() {
    for is_everything in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let found = |disk: &Disk| -> Vec<(u128, u64)> {
            let objects = (1..=4).flat_map(|key| disk.stored(ObjectKey(key)));
            objects.map(|object| proven(&object).unwrap()).map(|found| (found.key, found.number)).collect()
        };
        let first = open_disk(directory.path());
        (1..=4).for_each(|key| assert!(first.offer(object(version(key, 1), 10))));
        first.opened().await;

        // It waits for the first, and knows of nothing that is there.
        let second = open_disk(directory.path());
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
        let third = open_disk(copy.path());
        third.opened().await;
        let old: Vec<_> = found(&third).into_iter().filter(|(_, number)| *number == 1).collect();
        assert_eq!(old, expected);

        second.close();
        let last = open_disk(directory.path());
        last.opened().await;
        assert_eq!(found(&last), [&[(1, 2)][..], expected].concat());
    }
}

#[tokio::test]
async fn what_is_forgotten_and_never_written_down_is_taken_away_with_all_else() {
    let directory = tempfile::tempdir().unwrap();
    let open = || open_disk(directory.path());
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
