//! Whether a revision is to blame for the death of a node that has just taken it up. Processes that somebody kills look like
//! those that crash: it is the other nodes that tell one from the other.

/// What another member has made of the revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has died of it as well.
    Died,
    /// It has served it for as long as it takes to count as good.
    Proven,
    /// It has not served it for long, or not at all, or does not tell.
    Undecided,
    /// It does not answer.
    Unheard,
}

/// Who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The revision: it is not to be applied again.
    Revision,
    /// The node, or whoever kills it: most of the others that can be asked live with the revision.
    Node,
    /// Too few can say so far. Should another one die of it, that one will know.
    Open,
}

/// Says who is to blame for the deaths of a node of a revision that `is_on_trial`, or was in force for good; `others` = all other
/// members. Where there are none, nobody speaks for the revision.
pub fn blame(is_on_trial: bool, others: &[Fate]) -> Blame {
    let count = |wanted| others.iter().filter(|fate| **fate == wanted).count();
    let heard = others.len() - count(Fate::Unheard);
    match () {
        () if count(Fate::Died) > 0 || others.is_empty() => Blame::Revision,
        () if heard * 2 < others.len() => Blame::Open,
        () if count(Fate::Proven) * 2 > heard => Blame::Node,
        () if is_on_trial => Blame::Revision,
        () => Blame::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `others`: `d`ied, `p`roven, `u`ndecided, `-` unheard; what holds of a revision in force for good, and of one on trial.
    fn check(others: &str, for_good: Blame, on_trial: Blame) {
        let fate = |letter| match letter {
            'd' => Fate::Died,
            'p' => Fate::Proven,
            'u' => Fate::Undecided,
            _ => Fate::Unheard,
        };
        let fates: Vec<_> = others.chars().map(fate).collect();
        assert_eq!([blame(false, &fates), blame(true, &fates)], [for_good, on_trial], "{others:?}");
    }

    #[test]
    fn one_node_that_dies_says_little_and_two_are_enough() {
        use Blame::{Node, Open, Revision};
        check("", Revision, Revision); // nobody else can tell
        check("pp", Node, Node); // somebody kills that one
        check("pu", Open, Revision);
        check("uu", Open, Revision);
        check("du", Revision, Revision);
        check("dp", Revision, Revision);
        check("d-", Revision, Revision);
        check("p-", Node, Node);
        check("u-", Open, Revision);
        check("--", Open, Open); // it was just started
        check("pppuu", Node, Node);
        check("ppuuu", Open, Revision);
        check("p----", Open, Open);
    }
}
