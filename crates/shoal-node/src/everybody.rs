//! Asking many nodes at once.

use shoal_model::NodeId;

/// What came of asking one of them.
pub(crate) struct Asked<T> {
    pub id: NodeId,
    pub name: String,
    /// What it answered, or why nobody knows: whoever asked it has panicked.
    pub answer: Result<T, String>,
}

/// Asks all of `members` at once, each in a task of its own. Nobody is left out: the answers are as many as they are, in
/// their order.
pub(crate) async fn ask_all<T, F>(
    members: impl IntoIterator<Item = (NodeId, String)>,
    ask: impl Fn(NodeId, String) -> F,
) -> Vec<Asked<T>>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let begin = |(id, name): (NodeId, String)| (id, tokio::spawn(ask(id, name.clone())), name);
    let asking: Vec<_> = members.into_iter().map(begin).collect();
    let mut answers = Vec::with_capacity(asking.len());
    for (id, asked, name) in asking {
        let answer = asked.await.map_err(|error| format!("asking it failed: {error}"));
        answers.push(Asked { id, name, answer });
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_and_panics_leaves_its_node_on_the_list() {
        let members = ["a", "b", "c"].map(|name| (NodeId(name.len() as u64), name.to_owned()));
        let asked = ask_all(members, |_, name| async move {
            assert_ne!(name, "b", "a mistake");
            name
        });
        let asked: Vec<(String, Option<String>)> =
            asked.await.into_iter().map(|asked| (asked.name, asked.answer.ok())).collect();
        let expected = [("a", Some("a")), ("b", None), ("c", Some("c"))];
        assert_eq!(asked, expected.map(|(name, answer)| (name.to_owned(), answer.map(str::to_owned))));
    }
}
