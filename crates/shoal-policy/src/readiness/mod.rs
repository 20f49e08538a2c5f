//! Whether a node should be sent requests, as those hear it who lead them there: by BGP, by DNS, by a balancer.
//!
//! What is found at one look is no reason to move traffic: a scope becomes ready after some good looks in a row and ceases to
//! be so after some bad ones ([`Steady`]). Traffic that leaves one node goes to the others of its region, so when most of
//! them would leave, none does ([`would_empty`]).

mod scope;
mod status;
mod steady;

pub use scope::{ParseScopeError, Ready, ReadyIn, Scope};
pub use status::{Look, Status};
pub use steady::{Finding, Rule, Steady};

/// Of a region with `unready` nodes, the asking one among them, out of `all`: more than half would be without traffic, so
/// that it is more likely that the reason lies elsewhere, and certain that the rest could not carry it.
pub const fn would_empty(unready: usize, all: usize) -> bool {
    unready * 2 > all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_a_region_may_leave() {
        for (unready, all, expected) in [
            (0, 0, false),
            (1, 1, true),
            (1, 2, false),
            (2, 2, true),
            (1, 3, false),
            (2, 3, true),
            (5, 10, false),
            (6, 10, true),
        ] {
            assert_eq!(would_empty(unready, all), expected, "{unready} of {all}");
        }
    }
}
