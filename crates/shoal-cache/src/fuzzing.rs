//! What peers and disks say of objects, for fuzzing: whatever it is, what is read of it is written and read again.

use http::HeaderMap;
use shoal_policy::cache::selecting::Selecting;

use crate::peer::wire::{self, AnswerKind, InChunks, Meta};

const NOW_MS: u64 = 1_700_000_000_000;

/// The head of a peer's request or response.
pub fn peer_fields(fields: &HeaderMap) {
    if let Some(meta) = Meta::read(fields, NOW_MS) {
        assert!(meta.terms.response_ms <= NOW_MS, "nothing was received in the future");
        for now_ms in [0, NOW_MS, u64::MAX] {
            let is_fresh = meta.terms.is_fresh(now_ms);
            assert!(!is_fresh || meta.terms.time_left_ms(now_ms) > 0);
        }
        let again = rewritten(|written| meta.write(written, NOW_MS));
        let again = Meta::read(&again, NOW_MS).expect("what is written can be read");
        assert_eq!((again.terms, again.tags), (meta.terms, meta.tags));
        assert_eq!((again.fill_seq, again.checked_seq), (meta.fill_seq, meta.checked_seq));
    }
    if let Some(selecting) = wire::read_selecting(fields) {
        let again = rewritten(|written| wire::write_selecting(&selecting, written));
        assert_eq!(wire::read_selecting(&again), Some(selecting.clone()));
        assert!(
            Selecting::of(&selecting.selectors(), fields).matches(fields),
            "a request chooses its own variant"
        );
    }
    if let Some(in_chunks) = InChunks::read(fields) {
        let again = rewritten(|written| in_chunks.write(written));
        assert_eq!(InChunks::read(&again), Some(in_chunks));
    }
    if let Some(conditions) = wire::read_conditions(fields) {
        let again = rewritten(|written| wire::write_conditions(&conditions, written));
        assert_eq!(wire::read_conditions(&again), Some(conditions));
    }
    if let Some(kind) = AnswerKind::read(fields) {
        let again = rewritten(|written| _ = written.insert(wire::ANSWER.clone(), kind.value()));
        assert_eq!(AnswerKind::read(&again), Some(kind));
    }
    let failure = wire::read_failure(fields);
    assert_eq!(wire::read_failure(&rewritten(|written| wire::write_failure(failure, written))), failure);
    let mut others = fields.clone();
    wire::remove_own_fields(&mut others);
    assert!(
        others.keys().all(|name| !name.as_str().starts_with("shoal-")),
        "nothing of ours leaves the cluster"
    );
}

/// A segment of the cache on disk, its list, or the description of an object.
pub fn disk_segment(bytes: &[u8]) {
    crate::disk::fuzz(bytes);
}

fn rewritten(write: impl FnOnce(&mut HeaderMap)) -> HeaderMap {
    let mut fields = HeaderMap::new();
    write(&mut fields);
    fields
}
