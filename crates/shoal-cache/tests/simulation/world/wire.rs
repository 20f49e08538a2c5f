//! What is on its way between nodes, and to the origin and back.

use shoal_policy::cache::sources::{Hop, Role};

use crate::node::Stored;

/// Something on its way. Whatever is, may arrive next.
#[derive(Clone, Debug)]
pub enum Wire {
    Ask {
        from: usize,
        life: u32,
        fill: usize,
        to: usize,
        key: usize,
        role: Role,
        hop: Hop,
        min_seq: u64,
        memory: u64,
    },
    Answer {
        to: usize,
        life: u32,
        fill: usize,
        answer: Answer,
    },
    Fetch {
        node: usize,
        life: u32,
        fill: usize,
        known: Option<u64>,
    },
    Fetched {
        node: usize,
        life: u32,
        fill: usize,
        version: u64,
        confirmed: bool,
    },
    BodyEnd {
        node: usize,
        life: u32,
        fill: usize,
    },
    Copy {
        to: usize,
        key: usize,
        stored: Stored,
    },
    LeaseAsk {
        node: usize,
        life: u32,
        asked_ms: u64,
    },
    LeaseGrant {
        node: usize,
        life: u32,
        asked_ms: u64,
        committed: u64,
    },
    News {
        to: usize,
        about: usize,
        about_life: Option<u32>,
        stamp: u64,
    },
}

/// What a peer says.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Object(Stored),
    Miss { views_differ: bool },
    Behind,
    Unreachable,
}
