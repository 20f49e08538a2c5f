//! What the origin is asked: as downstream asked, about what is stored, or for what that lacks.

use std::collections::VecDeque;

use http::HeaderMap;
use http::header::{HeaderValue, RANGE};
use shoal_policy::cache::range::{ByteRange, if_range_holds};
use shoal_policy::cache::span::{Segment, Span, plan};
use shoal_policy::cache::validation::{add_conditions, add_range, add_tags, has_validator, strong_validator};

use crate::lookup::Found;
use crate::portion::Portion;
use crate::stored_body::StoredBody;
use crate::task::FillTask;

/// What the origin is asked.
pub(super) enum Question {
    /// For what downstream asked for.
    Plain,
    /// For the chunks that have it.
    Wide(ByteRange),
    /// Whether the object is still good.
    Validation(Found),
    /// For what an object lacks of what downstream asked for.
    Completion(Completion),
}

/// An object of which some bytes are here and others are to be fetched, under one validator.
pub(super) struct Completion {
    pub(super) found: Found,
    pub(super) validator: HeaderValue,
    /// Of the whole body, bytes.
    pub(super) length: u64,
    pub(super) wanted: Span,
    /// What comes before the first missing stretch.
    pub(super) held: Option<Span>,
    pub(super) missing: Span,
    /// What comes behind it.
    pub(super) rest: VecDeque<Segment>,
}

impl Question {
    /// About what was found, unless that is of no use.
    pub(super) fn of(task: &FillTask) -> Self {
        let Some(found) = &task.found else { return Self::Plain };
        if !found.suffices() && found.object.chunked().is_none() {
            return Completion::of(task, found).map_or(Self::Plain, Self::Completion);
        }
        if has_validator(&found.object.fields) { Self::Validation(found.clone()) } else { Self::Plain }
    }

    /// Makes `fields`, those of the request for what downstream asked for, ask this. `asked_tags`: what downstream has.
    pub(super) fn write(&self, asked_tags: &[HeaderValue], fields: &mut HeaderMap) {
        match self {
            Self::Plain => {}
            Self::Wide(range) => {
                // Digits fit into every field.
                if let Ok(range) = HeaderValue::try_from(range.to_string()) {
                    fields.insert(RANGE, range);
                }
            }
            Self::Validation(found) => {
                let range = fields.remove(RANGE);
                add_conditions(fields, &found.object.fields);
                add_tags(fields, asked_tags);
                // The object is a part: no more than that is asked for (RFC 9111 §4.3.1).
                if let Some(range) = range {
                    fields.insert(RANGE, range);
                }
            }
            Self::Completion(completion) => completion.write(completion.missing, fields),
        }
    }
}

impl Completion {
    fn of(task: &FillTask, found: &Found) -> Option<Self> {
        let object = &found.object;
        let StoredBody::Spans(spans) = &object.body else { return None };
        let validator = strong_validator(&object.fields)?;
        let length = spans.length()?;
        let wanted = match &task.portion {
            Portion::Whole => Span::all(length)?,
            // Where the condition does not hold, downstream gets a whole that is another one, or a part of that.
            Portion::Part { range, .. } if if_range_holds(&task.head.headers, &object.fields) => {
                range.within(length)?
            }
            Portion::Part { .. } | Portion::Several | Portion::Description => return None,
        };
        let mut rest = VecDeque::from(plan(&spans.held(), wanted));
        let held = match rest.front() {
            Some(Segment::Held(span)) => Some(*span),
            Some(Segment::Missing(_)) | None => None,
        };
        if held.is_some() {
            rest.pop_front();
        }
        let Some(Segment::Missing(missing)) = rest.pop_front() else { return None };
        Some(Self { found: found.clone(), validator, length, wanted, held, missing, rest })
    }

    /// Makes `fields` ask for `span`.
    pub(super) fn write(&self, span: Span, fields: &mut HeaderMap) {
        add_range(fields, &self.validator, span, span.last + 1 == self.length);
    }
}
