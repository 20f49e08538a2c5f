//! Is an object still valid after the purges this node has applied?

use shoal_model::state::{PurgeTable, PurgeTables};

use super::key::{KeyParts, ObjectKey, host_scope, prefix_scopes, url_of};

/// What purges look at in an object.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its key.
    pub key: ObjectKey,
    /// The text of its key.
    pub text: &'a str,
    /// Scopes of its tags.
    pub tags: &'a [u64],
    /// The log index its filler had applied when it asked the origin.
    pub fill_seq: u64,
    /// The log index up to which it is known to be valid.
    pub checked_seq: u64,
}

/// The outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// No purge concerns it: `checked_seq` may rise to the applied index.
    Valid,
    /// Purged: never to be used again.
    Gone,
    /// Purged softly: stale.
    Stale,
    /// It is older than what the tables remember: to be validated once.
    Unknown,
}

/// Judges an object against the tables of this node, which stand for the log up to `applied`.
pub fn judge_validity(seed: u64, subject: &Subject<'_>, tables: &PurgeTables, applied: u64) -> Validity {
    if subject.checked_seq >= applied {
        return Validity::Valid;
    }
    if newest(seed, subject, &tables.hard) > subject.fill_seq {
        return Validity::Gone;
    }
    if subject.fill_seq.max(subject.checked_seq) < tables.floor {
        return Validity::Unknown;
    }
    if newest(seed, subject, &tables.soft) > subject.fill_seq { Validity::Stale } else { Validity::Valid }
}

/// Judges an object of which only the key is at hand. `None` = its text and tags have to be read: there was a purge of many
/// objects since it was last checked (`newest_of_many`: [`PurgeTables::newest_of_many`], or when those were that the tables
/// have forgotten).
pub fn judge_key(
    key: ObjectKey,
    (fill_seq, checked_seq): (u64, u64),
    tables: &PurgeTables,
    newest_of_many: u64,
) -> Option<Validity> {
    let newest = |table: &PurgeTable| table.all.max(table.url.get(&key.0).copied().unwrap_or(0));
    let known_seq = fill_seq.max(checked_seq);
    Some(if newest(&tables.hard) > fill_seq {
        Validity::Gone
    } else if newest_of_many > known_seq.max(tables.floor) {
        return None;
    } else if known_seq < tables.floor {
        Validity::Unknown
    } else if newest(&tables.soft) > fill_seq {
        Validity::Stale
    } else {
        Validity::Valid
    })
}

/// Judges what was filled at `fill_seq` by the purges of one URL alone: one that it answers for and that is not the one it is
/// stored under. What it was checked against since says nothing of that URL.
pub fn judge_url(key: ObjectKey, fill_seq: u64, tables: &PurgeTables) -> Validity {
    let is_newer = |table: &PurgeTable| table.url.get(&key.0).is_some_and(|seq| *seq > fill_seq);
    if is_newer(&tables.hard) {
        Validity::Gone
    } else if fill_seq < tables.floor {
        Validity::Unknown
    } else if is_newer(&tables.soft) {
        Validity::Stale
    } else {
        Validity::Valid
    }
}

/// The newest purge of one kind that concerns the object; 0 = none.
fn newest(seed: u64, subject: &Subject<'_>, table: &PurgeTable) -> u64 {
    let mut newest = table.all;
    let mut probe = |found: Option<&u64>| newest = newest.max(found.copied().unwrap_or(0));
    if !table.url.is_empty() {
        probe(table.url.get(&subject.key.0));
    }
    if !table.host.is_empty() {
        probe(table.host.get(&host_scope(seed, KeyParts::of(url_of(subject.text)).host)));
    }
    if !table.tag.is_empty() {
        subject.tags.iter().for_each(|tag| probe(table.tag.get(tag)));
    }
    if !table.prefix.is_empty() {
        prefix_scopes(seed, KeyParts::of(url_of(subject.text)))
            .for_each(|scope| probe(table.prefix.get(&scope)));
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::super::key::{prefix_scope, tag_scope};
    use super::*;

    fn check(
        fill_seq: u64,
        checked_seq: u64,
        applied: u64,
        build: impl FnOnce(&mut PurgeTables),
        expected: Validity,
    ) {
        let text = "http://a.org/x/y";
        let key = ObjectKey::of(7, text.as_bytes());
        let tags = [tag_scope(7, "red")];
        let subject = Subject { key, text, tags: &tags, fill_seq, checked_seq };
        let mut tables = PurgeTables::default();
        build(&mut tables);
        assert_eq!(judge_validity(7, &subject, &tables, applied), expected, "{subject:?}");
    }

    #[test]
    fn a_url_that_an_object_answers_for_is_purged_by_itself() {
        let check = |build: fn(&mut PurgeTables), expected| {
            let mut tables = PurgeTables::default();
            build(&mut tables);
            assert_eq!(judge_url(ObjectKey(1), 5, &tables), expected, "{tables:?}");
        };
        check(|_| {}, Validity::Valid);
        check(|t| _ = t.hard.url.insert(2, 8), Validity::Valid);
        check(|t| _ = t.hard.url.insert(1, 5), Validity::Valid);
        check(|t| _ = t.hard.url.insert(1, 6), Validity::Gone);
        check(|t| _ = t.soft.url.insert(1, 6), Validity::Stale);
        check(|t| t.floor = 5, Validity::Valid);
        check(|t| t.floor = 6, Validity::Unknown);
    }

    #[test]
    fn purges_reach_what_was_filled_before_them() {
        let key = ObjectKey::of(7, b"http://a.org/x/y").0;
        check(5, 5, 9, |_| {}, Validity::Valid);
        check(5, 5, 9, |t| t.hard.all = 6, Validity::Gone);
        check(6, 6, 9, |t| t.hard.all = 6, Validity::Valid);
        check(5, 9, 9, |t| t.hard.all = 6, Validity::Valid);
        check(5, 5, 9, |t| _ = t.hard.url.insert(key, 8), Validity::Gone);
        check(5, 5, 9, |t| _ = t.hard.url.insert(key ^ 1, 8), Validity::Valid);
        check(5, 5, 9, |t| _ = t.hard.host.insert(host_scope(7, "A.org"), 8), Validity::Gone);
        check(5, 5, 9, |t| _ = t.hard.host.insert(host_scope(7, "b.org"), 8), Validity::Valid);
        check(5, 5, 9, |t| _ = t.hard.prefix.insert(prefix_scope(7, "a.org", "/x"), 8), Validity::Gone);
        check(5, 5, 9, |t| _ = t.hard.prefix.insert(prefix_scope(7, "a.org", "/x/y"), 8), Validity::Gone);
        check(5, 5, 9, |t| _ = t.hard.prefix.insert(prefix_scope(7, "a.org", "/x/yy"), 8), Validity::Valid);
        check(5, 5, 9, |t| _ = t.hard.tag.insert(tag_scope(7, "red"), 8), Validity::Gone);
        check(5, 5, 9, |t| _ = t.hard.tag.insert(tag_scope(7, "Red"), 8), Validity::Valid);
    }

    #[test]
    fn a_newer_soft_purge_does_not_hide_an_older_hard_one() {
        check(5, 5, 9, |t| t.soft.all = 8, Validity::Stale);
        check(
            5,
            5,
            9,
            |t| {
                t.hard.all = 6;
                t.soft.all = 8;
            },
            Validity::Gone,
        );
    }

    #[test]
    fn a_key_is_enough_while_no_purge_of_many_came() {
        let key = ObjectKey(9);
        let check = |seqs, build: &dyn Fn(&mut PurgeTables), expected| {
            let mut tables = PurgeTables::default();
            build(&mut tables);
            let newest_of_many = tables.newest_of_many();
            assert_eq!(judge_key(key, seqs, &tables, newest_of_many), expected, "{seqs:?} {tables:?}");
        };
        check((5, 5), &|_| {}, Some(Validity::Valid));
        check((5, 5), &|t| _ = t.hard.url.insert(9, 6), Some(Validity::Gone));
        check((5, 5), &|t| _ = t.soft.url.insert(9, 6), Some(Validity::Stale));
        check((6, 6), &|t| _ = t.hard.url.insert(9, 6), Some(Validity::Valid));
        check((5, 5), &|t| t.hard.all = 6, Some(Validity::Gone));
        check((5, 5), &|t| t.floor = 6, Some(Validity::Unknown));
        check((5, 6), &|t| t.floor = 6, Some(Validity::Valid));
        check((5, 5), &|t| _ = t.hard.tag.insert(1, 6), None);
        check((5, 5), &|t| _ = (t.hard.tag.insert(1, 6), t.hard.url.insert(9, 6)), Some(Validity::Gone));
        check((5, 6), &|t| _ = t.soft.host.insert(1, 6), Some(Validity::Valid));
    }

    #[test]
    fn a_key_is_enough_where_the_purges_of_many_were_forgotten() {
        let check = |known_seq, floor, newest_of_many, expected| {
            let tables = PurgeTables { floor, ..PurgeTables::default() };
            let validity = judge_key(ObjectKey(9), (known_seq, known_seq), &tables, newest_of_many);
            assert_eq!(validity, expected, "{known_seq} {floor} {newest_of_many}");
        };
        check(5, 6, 6, Some(Validity::Unknown));
        check(5, 7, 6, Some(Validity::Unknown));
        check(7, 7, 6, Some(Validity::Valid));
        check(5, 6, 7, None);
        check(6, 6, 7, None);
        check(7, 6, 7, Some(Validity::Valid));
    }

    #[test]
    fn what_the_tables_forgot_is_validated() {
        check(5, 5, 9, |t| t.floor = 6, Validity::Unknown);
        check(5, 6, 9, |t| t.floor = 6, Validity::Valid);
        check(5, 5, 9, |t| (t.floor, t.hard.all) = (6, 8), Validity::Gone);
    }
}
