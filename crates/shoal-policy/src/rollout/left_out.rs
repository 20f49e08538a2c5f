//! Nodes that do not count while a revision is tried: what they refuse they refused before it.

use shoal_model::Revision;

/// A node that serves `active` and has `refused` something newer, for this reason (empty = nothing), refuses already what
/// everybody else serves, which is `before`. What it makes of the revision that follows says nothing about that one, whichever
/// reason it gives: it is sick whatever is applied. It is the same that is asked of who is in the way of a change.
pub fn refuses_already(active: Revision, refused: &str, before: Revision) -> bool {
    !refused.is_empty() && active < before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_serves_what_is_active_has_to_take_what_follows() {
        let check = |active, refused, expected| {
            assert_eq!(
                refuses_already(Revision(active), refused, Revision(7)),
                expected,
                "{active} {refused:?}"
            );
        };
        check(7, "", false);
        check(8, "", false);
        check(7, "port in use", false); // that is the one that is tried
        check(6, "", false); // it has not decided yet
        check(6, "port in use", true);
        check(0, "port in use", true); // it serves nothing at all
    }
}
