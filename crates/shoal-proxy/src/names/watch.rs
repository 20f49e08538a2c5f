//! One name under observation.

use std::sync::Arc;

use tokio::time::sleep;

use super::look_up::look_up;
use super::{Names, Question};
use crate::entropy::random_seed;

/// Looks `question` up again and again: at once, and then whenever its answer is old.
pub(super) async fn watch(question: Question, names: Arc<Names>) {
    let mut entropy = random_seed();
    loop {
        let parts = look_up(&question).await;
        // Any sequence will do that differs from node to node (Knuth's MMIX constants).
        entropy = entropy.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        match names.learn(&question, parts, entropy >> 32) {
            Some(pause) => sleep(pause).await,
            None => return,
        }
    }
}
