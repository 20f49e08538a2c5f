//! What all checkers of an endpoint mean together.

use super::Availability;

/// Percent of the nodes whose traffic must fail at an endpoint before that counts as one more fact.
pub const EJECTING_PERCENT: usize = 30;

/// One assigned checker's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    /// It checks the endpoint and has nothing to say against it.
    Up,
    /// It says the endpoint is down.
    Down,
    /// It says nothing that counts: its facts are old, or it has not come round to checking yet.
    Unheard,
}

/// The majority of the votes that were heard. When none was, the answer is [`Availability::Unknown`]: the last word
/// stands. `ejecting` of `nodes` nodes say that their own traffic fails there; from [`EJECTING_PERCENT`] on that is one
/// more vote for down.
pub fn merge(votes: &[Vote], ejecting: usize, nodes: usize) -> Availability {
    let heard = votes.iter().filter(|vote| **vote != Vote::Unheard).count();
    if heard == 0 {
        return Availability::Unknown;
    }
    let by_traffic = usize::from(ejecting > 0 && ejecting * 100 >= nodes * EJECTING_PERCENT);
    let down = votes.iter().filter(|vote| **vote == Vote::Down).count() + by_traffic;
    // At least ⌈(n + 1) / 2⌉ of n: more than half.
    if down * 2 > heard + by_traffic { Availability::Down } else { Availability::Up }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_of_those_heard_decides() {
        // `u` up, `d` down, `-` unheard.
        let check = |votes: &str, ejecting, nodes, expected| {
            let votes: Vec<_> = votes
                .chars()
                .map(|vote| match vote {
                    'u' => Vote::Up,
                    'd' => Vote::Down,
                    _ => Vote::Unheard,
                })
                .collect();
            assert_eq!(merge(&votes, ejecting, nodes), expected, "{votes:?} {ejecting}/{nodes}");
        };
        check("", 0, 3, Availability::Unknown);
        check("---", 0, 3, Availability::Unknown);
        check("---", 3, 3, Availability::Unknown);
        check("u", 0, 1, Availability::Up);
        check("d", 0, 1, Availability::Down);
        check("du", 0, 2, Availability::Up);
        check("dd", 0, 2, Availability::Down);
        check("uuu", 0, 3, Availability::Up);
        check("duu", 0, 3, Availability::Up);
        check("ddu", 0, 3, Availability::Down);
        check("d--", 0, 3, Availability::Down);
        check("d-u", 0, 3, Availability::Up);
        check("ddduu", 0, 9, Availability::Down);
        check("du", 2, 10, Availability::Up);
        check("du", 3, 10, Availability::Down);
        check("uu", 10, 10, Availability::Up);
    }
}
