//! Ranges of what nobody here knows: the first of them finds out how large the whole is and of which version, and asks for
//! whole chunks at once where only what is kept in chunks can have such a range; the others wait for what it finds.

use http::header::{IF_RANGE, RANGE};
use http::{Response, StatusCode};
use shoal_model::site::RangeMiss;
use shoal_policy::cache::chunks::widened;
use shoal_policy::cache::content_range::ContentRange;
use shoal_policy::cache::range::ByteRange;
use shoal_policy::cache::reuse::Reuse;
use shoal_policy::cache::selecting::Selecting;
use shoal_policy::cache::sources::Hop;
use shoal_policy::cache::storage::Storage;

use super::Step;
use super::origin_answer::judge;
use super::question::Question;
use crate::body::OriginBody;
use crate::chunks::is_kept_in_chunks;
use crate::clock::now_ms;
use crate::fill::{Errand, Joined};
use crate::lookup::{Choice, Found, Signs, Sought, look};
use crate::portion::Portion;
use crate::seam::UntilClose;
use crate::search::Alias;
use crate::task::FillTask;
use crate::worker::WorkerCache;

impl WorkerCache {
    /// Waits for what another request finds out about the same, or is the one to find it out. Done = that was all there is
    /// to know.
    pub(super) async fn await_description(&self, task: &mut FillTask) -> Step {
        if task.found.is_none() && task.rule.range_miss == RangeMiss::Whole {
            task.portion = Portion::Whole;
            [RANGE, IF_RANGE].iter().for_each(|name| _ = task.head.headers.remove(name));
        }
        if self.wide_range(task).is_none() {
            return Step::Next;
        }
        let fill = task.fill().clone();
        let (selecting, portion) = (Selecting::default(), Portion::Description);
        let errand = Errand {
            text: &fill.text,
            alias: None,
            selecting: &selecting,
            portion: &portion,
            hop: Hop::Last,
        };
        let begin = || self.cache.new_fill(fill.key, &fill.text, Hop::Last);
        match self.cache.flights.join(fill.key, errand, |_| true, begin) {
            Joined::New(reader) => task.description = Some(self.cache.flights.landing(reader.fill())),
            Joined::Running(reader) => {
                // However it has ended: what it has found is in the store.
                drop(reader.arrival().await);
                task.found = self.find_described(task);
            }
            Joined::Full => {}
        }
        match &task.found {
            Some(found) if found.suffices() => {
                fill.resolve(found.object.clone());
                Step::Done
            }
            Some(_) | None => Step::Next,
        }
    }

    /// An object that may be used for the request of `task`.
    fn find_described(&self, task: &FillTask) -> Option<Found> {
        let now_ms = now_ms();
        let (text, fields) = (&task.fill().text, &task.head.headers);
        let alias = Alias::of(&self.cache, text, &task.head.uri);
        let sought = Sought {
            text: text.as_bytes(),
            alias: alias.as_ref(),
            method: &task.head.method,
            fields,
            signs: Signs::read(fields),
            wishes: &task.wishes,
            trust: self.cache.trust(&task.rule, now_ms),
            now_ms,
        };
        let variants = self.cache.store.find(task.fill().key)?;
        match look(Some(&variants), &sought, &self.cache.purges) {
            Choice::Found(found) => Some(found).filter(|found| found.reuse == Reuse::Fresh),
            Choice::OtherVariants(_) | Choice::Nothing => None,
        }
    }

    /// What is asked about what is not known.
    pub(super) fn first_question(&self, task: &FillTask) -> Question {
        self.wide_range(task).map_or(Question::Plain, Question::Wide)
    }

    /// The chunks that a range lies in, if what has it is kept in chunks.
    fn wide_range(&self, task: &FillTask) -> Option<ByteRange> {
        let Portion::Part { range, .. } = &task.portion else { return None };
        let range = widened(*range, task.rule.chunked_from_bytes?)?;
        (task.found.is_none() && !self.is_left_whole(task)).then_some(range)
    }

    /// Chunks of it are not asked for: it was said to be left whole ([`Self::leave_whole`]).
    pub(super) fn is_left_whole(&self, task: &FillTask) -> bool {
        self.cache.is_uncacheable(&chunks_of(&task.fill().text))
    }

    /// What has such a range is not kept in chunks after all, or cannot be had by chunks: they are not asked for any more.
    pub(super) fn leave_whole(&self, task: &FillTask) {
        self.cache.remember_uncacheable(&chunks_of(&task.fill().text), None);
    }

    /// What was found is not what there is any more.
    pub(super) fn forget_found(&self, task: &mut FillTask) {
        task.found.take().iter().for_each(|found| self.cache.discard(&found.object));
    }
}

/// A 206 is of what is kept in chunks, and says where it ends: else it would be passed on, and it is more than was asked for.
pub(super) fn is_of_chunks(task: &FillTask, response: &Response<OriginBody>, request_ms: u64) -> bool {
    let length = ContentRange::read(response.headers()).and_then(|range| range.length);
    let storage = judge(task, response.status(), response.headers(), request_ms, now_ms());
    let is_kept = |length| is_kept_in_chunks(&task.rule, StatusCode::OK, response.headers(), length);
    matches!(storage, Storage::Store(_))
        && length.is_some_and(is_kept)
        && response.extensions().get::<UntilClose>().is_none()
}

/// What chunks are remembered by: no text of a key ends so.
fn chunks_of(text: &str) -> String {
    format!("{text} in chunks")
}
