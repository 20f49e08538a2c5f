//! Parts of large site documents on their way in, until they are a revision, withdrawn, or too old.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Refusal, Reply};

/// Site documents on their way in at once.
pub const MAX_UPLOADS: usize = 16;
/// Bytes of all of them together, as far as whoever writes entries knows: the whole state has to fit through a door.
pub const MAX_UPLOADED_BYTES: usize = 64 << 20;
/// A number of parts that no document has: to publish it is to have its parts forgotten. Every version refuses it.
pub const WITHDRAWN: u32 = u32::MAX;
/// For how long the parts of one are kept, in milliseconds.
const LIFE_MS: u64 = 10 * 60_000;
/// Bytes of one of them.
const MAX_BYTES: usize = 128 << 20;

/// Those that have begun, by upload id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Uploads(BTreeMap<String, Upload>);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Upload {
    started_at_ms: u64,
    text: String,
    parts: u32,
}

impl Upload {
    fn is_over(&self, now_ms: u64) -> bool {
        self.started_at_ms.saturating_add(LIFE_MS) <= now_ms
    }
}

impl Uploads {
    /// Takes the next part of one. Below [`REFUSING_WHOLLY`](super::REFUSING_WHOLLY) one that is refused for not being the
    /// first holds a place.
    pub(super) fn add(
        &mut self,
        id: String,
        part: u32,
        text: &str,
        at_ms: u64,
        refuses_wholly: bool,
    ) -> Reply {
        self.0.retain(|_, upload| !upload.is_over(at_ms));
        let known = self.0.get(&id);
        let is_full = known.is_none() && self.0.len() >= MAX_UPLOADS;
        let bytes = known.map_or(0, |upload| upload.text.len());
        if is_full || bytes + text.len() > MAX_BYTES {
            return Reply::Refused(Refusal::UploadTooLarge);
        }
        if refuses_wholly && known.is_none() && part != 0 {
            return Reply::Refused(Refusal::UploadIncomplete);
        }
        let upload = self.0.entry(id).or_insert(Upload { started_at_ms: at_ms, ..Upload::default() });
        if part != upload.parts {
            return if part < upload.parts { Reply::Done } else { Reply::Refused(Refusal::UploadIncomplete) };
        }
        upload.text.push_str(text);
        upload.parts += 1;
        Reply::Done
    }

    /// All of its parts are there.
    pub(super) fn is_complete(&self, id: &str, parts: u32) -> bool {
        self.0.get(id).is_some_and(|upload| upload.parts == parts)
    }

    /// Forgets it; its text, if all of its parts were there.
    pub(super) fn take(&mut self, id: &str, parts: u32) -> Option<String> {
        self.0.remove(id).filter(|upload| upload.parts == parts).map(|upload| upload.text)
    }

    /// Whether `bytes` more may come in.
    pub(super) fn have_room(&self, bytes: usize, now_ms: u64) -> bool {
        let live = self.0.values().filter(|upload| !upload.is_over(now_ms));
        live.map(|upload| upload.text.len()).sum::<usize>() + bytes <= MAX_UPLOADED_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Command, ConfigState, REFUSING_WHOLLY, RevisionRecord, SiteText, Terms};
    use super::*;
    use crate::Revision;

    fn part(id: &str, part: u32, text: &str, at_ms: u64) -> Command {
        Command::UploadPart { upload: id.to_owned(), part, text: text.to_owned(), at_ms }
    }

    fn publish(id: &str, parts: u32, expected: Option<u64>) -> Command {
        Command::Publish {
            request_id: String::new(),
            expected: expected.map(Revision),
            site: SiteText::Uploaded { upload: id.to_owned(), parts },
            author: String::new(),
            message: String::new(),
            at_ms: 1,
            counts: [0; 3],
            terms: Terms::default(),
        }
    }

    /// A state of a cluster at this level.
    fn at(level: u32) -> ConfigState {
        let mut state = ConfigState::default();
        state.level.number = level;
        state
    }

    const BEFORE: u32 = REFUSING_WHOLLY - 1;

    #[test]
    fn what_is_refused_keeps_its_parts_until_they_are_withdrawn() {
        let conflict =
            Reply::Refused(Refusal::RevisionConflict { expected: Revision(7), active: Revision(0) });
        let incomplete = Reply::Refused(Refusal::UploadIncomplete);
        let check = |level, second: u32, expected: &Reply| {
            let mut state = at(level);
            assert_eq!(state.apply(1, part("u", 0, "{}", 1)), Reply::Done);
            assert_eq!(state.apply(2, publish("u", 1, Some(7))), conflict, "{level}");
            assert_eq!(state.apply(3, publish("u", second, Some(0))), *expected, "{level} {second}");
            assert!(second != WITHDRAWN || !state.uploads.is_complete("u", 1), "{level}");
        };
        check(BEFORE, 1, &incomplete);
        for level in [REFUSING_WHOLLY, REFUSING_WHOLLY + 1] {
            check(level, 1, &Reply::Published(Revision(1)));
            check(level, 2, &incomplete);
            check(level, WITHDRAWN, &incomplete);
        }
        // Also while nothing may be published.
        let mut state = at(REFUSING_WHOLLY);
        let waits = Terms { confirm_within_ms: Some(9), ..Terms::default() };
        state.revisions.publish(None, "{}".to_owned(), RevisionRecord::default(), waits, true);
        state.apply(1, part("u", 0, "{}", 1));
        assert_eq!(
            state.apply(2, publish("u", 1, None)),
            Reply::Refused(Refusal::Unconfirmed(Revision(1))),
            "it is decided first"
        );
        assert!(state.uploads.is_complete("u", 1));
        state.apply(3, publish("u", WITHDRAWN, None));
        assert_eq!(state.uploads, Uploads::default());
    }

    #[test]
    fn what_does_not_begin_with_its_first_part_holds_no_place() {
        for (level, places) in [(BEFORE, 1), (REFUSING_WHOLLY, 0)] {
            let mut state = at(level);
            assert_eq!(state.apply(1, part("u", 1, "x", 1)), Reply::Refused(Refusal::UploadIncomplete));
            assert_eq!(state.uploads.0.len(), places, "{level}");
        }
        let mut state = at(REFUSING_WHOLLY);
        for (index, command, expected) in [
            (1, part("u", 0, "a", 1), Reply::Done),
            (2, part("u", 2, "c", 1), Reply::Refused(Refusal::UploadIncomplete)),
            (3, part("u", 1, "b", 1), Reply::Done),
            (4, part("u", 0, "a", 1), Reply::Done), // once more
            (5, publish("u", 2, None), Reply::Published(Revision(1))),
        ] {
            assert_eq!(state.apply(index, command), expected, "{index}");
        }
        assert_eq!(&*state.revisions.active().1, "ab");
    }

    #[test]
    fn all_together_have_room_for_so_much() {
        let mut uploads = Uploads::default();
        let half = "x".repeat(MAX_UPLOADED_BYTES / 2);
        for id in ["a", "b"] {
            assert!(uploads.have_room(half.len(), 5), "{id}");
            uploads.add(id.to_owned(), 0, &half, 5, true);
        }
        assert!(uploads.have_room(0, 5) && !uploads.have_room(1, 5));
        assert!(uploads.have_room(half.len() * 2, 5 + LIFE_MS), "they are too old");
        uploads.take("a", WITHDRAWN);
        assert!(uploads.have_room(half.len(), 5));
    }
}
