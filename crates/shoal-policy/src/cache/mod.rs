//! RFC 9111 and what lies around it: storing, freshness, validation, placement, purges.
//!
//! In the order of an exchange: [`key`] (with [`query`] and [`search`]) names the object, [`selecting`] and [`preference`]
//! choose among its variants, [`reuse`] judges a stored one (with [`purge`], [`trust`], [`lease`] and [`confirmed`]),
//! [`placement`] says who owns it, [`sources`] whom a fill asks (for how long: [`patience`]), [`storage`] judges a response (with [`refusal`], [`freshness`],
//! [`vary`] and [`content`]), [`stored_fields`] is the form in which its fields are kept, [`resume`] goes on where one broke
//! off, [`heat`] says who keeps a copy, [`validation`] asks again, [`condition`] and [`range`] (with [`content_range`],
//! [`span`], [`chunks`] and [`multipart`]) fit the answer to the request. [`warming`] makes a request of what an operator
//! writes, and [`forgetting`] says how far purges need no longer be remembered.

pub mod chunks;
pub mod condition;
pub mod confirmed;
pub mod content;
pub mod content_range;
pub mod date;
pub mod directives;
pub mod early;
pub mod fields;
pub mod fill_request;
pub mod forgetting;
pub mod freshness;
pub mod heat;
pub mod invalidation;
pub mod keeping;
pub mod key;
pub mod lease;
pub mod multipart;
pub mod patience;
pub mod placement;
pub mod preference;
pub mod purge;
pub mod purge_call;
pub mod query;
pub mod range;
pub mod refusal;
pub mod resume;
pub mod reuse;
pub mod search;
pub mod selecting;
pub mod sources;
pub mod span;
pub mod status;
pub mod storage;
pub mod stored_fields;
mod structured;
pub mod tags;
pub mod targeted;
pub mod trust;
pub mod validation;
pub mod vary;
pub mod warming;

#[cfg(test)]
mod golden;
