//! How many nodes one leader feeds.

/// Learners beyond which somebody is told.
const MANY: usize = 50;

/// What is to be said of so many learners; `None` = nothing.
pub fn learners_problem(learners: usize) -> Option<String> {
    (learners > MANY).then(|| {
        format!(
            "{learners} nodes follow the log without a vote, and the leader sends it to each of them: beyond {MANY} changes may \
             take longer, and a leader that is too busy is replaced"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_too_many_is_told() {
        let check = |learners, expected: Option<&str>| {
            let told = learners_problem(learners);
            assert_eq!(told.as_deref().and_then(|told| told.split(" nodes ").next()), expected);
        };
        check(0, None);
        check(50, None);
        check(51, Some("51"));
        check(995, Some("995"));
    }
}
