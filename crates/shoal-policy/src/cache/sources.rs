//! Whom a fill asks, and in which order: owners in its region, those that owned the object before, owners in the shield
//! region, the origin.
//!
//! Two nodes may see two different clusters, and what they ask each other has to end all the same. So every question says
//! how far it has come ([`Hop`]), whoever takes it asks only questions that have come further, and [`Hop::Last`] asks
//! nobody: whatever the views, a request passes three nodes at most. Nor does it wait there for one that has come less far
//! ([`may_wait`]).

use shoal_model::NodeId;

use super::placement::Owners;

/// Former owners that are asked for what they still have, at most.
pub const MAX_PEEKS: usize = 2;

/// How far a request has come. Every node it is sent to sees a greater one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hop {
    /// From downstream: the owners in this region may be asked.
    Ingress,
    /// From a node of this region: only owners in the shield region may be asked.
    Owner,
    /// Nobody may be asked but the origin.
    Last,
}

impl Hop {
    /// As a peer has written it. What is not known counts as the last one: it can do no harm.
    pub const fn read(number: u64) -> Self {
        match number {
            1 => Self::Owner,
            _ => Self::Last,
        }
    }

    /// As it is written to a peer.
    pub const fn number(self) -> u64 {
        match self {
            Self::Ingress => 0,
            Self::Owner => 1,
            Self::Last => 2,
        }
    }
}

/// In what role a peer is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is the primary: it fills.
    Primary,
    /// It is the second owner, and the primary cannot be reached: it fills.
    Deputy,
    /// Only for what it has, or what is on its way in.
    Holder,
}

/// What a node is asked in one role may mean something else in its own view: only the primary fills, and whoever is no
/// owner at all. The second owner waits until it is asked in the primary's place; one fetch is enough.
pub fn may_fill(role: Role, owners: Owners, local: NodeId) -> bool {
    match role {
        Role::Primary => owners.secondary != Some(local),
        Role::Deputy => true,
        Role::Holder => false,
    }
}

/// A fill that began with a request that has come as far as `hop` asks the owners in this region first.
pub fn asks_owners(hop: Hop, owners: Owners, local: NodeId) -> bool {
    hop == Hop::Ingress && owners.primary != Some(local)
}

/// A request that has come as far as `hop` may wait for what a fill brings. As long as that one waits for owners itself,
/// only requests from downstream may: two nodes that see two different clusters would wait for each other.
pub const fn may_wait(hop: Hop, waits_for_owners: bool) -> bool {
    matches!(hop, Hop::Ingress) || !waits_for_owners
}

/// A fill, as far as it decides whom to ask.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// This node.
    pub local: NodeId,
    /// How far the request has come that began the fill.
    pub hop: Hop,
    /// The peer that it came from.
    pub asker: Option<NodeId>,
    /// In this region.
    pub owners: Owners,
    /// Of a while ago, when this node was not among them.
    pub former: [Option<NodeId>; MAX_PEEKS],
    /// In the region that shields the upstream; `None` = there is none, or it is this one.
    pub shield: Option<Owners>,
    /// Only what is stored somewhere counts.
    pub is_peek: bool,
    /// There is an object here, and it only has to be validated.
    pub is_known: bool,
}

/// Owners to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// It fills.
    pub primary: NodeId,
    /// It fills when the primary cannot be reached.
    pub second: Option<NodeId>,
    /// What they are told.
    pub hop: Hop,
}

/// Whom a fill asks, in this order, each only if those before had nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Owners in this region.
    pub owners: Option<Asked>,
    /// Former owners, for what they have.
    pub peeks: [Option<NodeId>; MAX_PEEKS],
    /// Owners in the shield region.
    pub shield: Option<Asked>,
    /// The origin.
    pub origin: bool,
}

/// Decides whom a fill asks.
pub fn plan(situation: &Situation) -> Plan {
    let Situation { local, hop, asker, owners, former, shield, is_peek, is_known } = *situation;
    let is_stranger = asks_owners(hop, owners, local);
    let asked = |owners: Owners, hop| {
        let second = owners.secondary.filter(|second| *second != local);
        owners.primary.filter(|primary| *primary != local).map(|primary| Asked { primary, second, hop })
    };
    let may_peek = !is_stranger && !is_known;
    Plan {
        owners: if is_stranger { asked(owners, Hop::Owner) } else { None },
        peeks: former.map(|node| node.filter(|node| may_peek && *node != local && Some(*node) != asker)),
        shield: shield.filter(|_| hop < Hop::Last && !is_peek).and_then(|owners| asked(owners, Hop::Last)),
        origin: !is_peek,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);
    const FAR: Owners = Owners { primary: Some(NodeId(8)), secondary: Some(NodeId(9)) };

    const fn owners(primary: NodeId, second: NodeId) -> Owners {
        Owners { primary: Some(primary), secondary: Some(second) }
    }

    const fn at(local: NodeId, hop: Hop) -> Situation {
        Situation {
            local,
            hop,
            asker: None,
            owners: owners(A, B),
            former: [None; MAX_PEEKS],
            shield: None,
            is_peek: false,
            is_known: false,
        }
    }

    #[test]
    fn owners_first_then_the_shield_then_the_origin() {
        let ask = |primary, second, hop| Some(Asked { primary, second, hop });
        let nobody = [None; MAX_PEEKS];
        let check = |situation: Situation, owners, peeks, shield, origin| {
            assert_eq!(plan(&situation), Plan { owners, peeks, shield, origin }, "{situation:?}");
        };
        let region = ask(A, Some(B), Hop::Owner);
        let far = ask(NodeId(8), Some(NodeId(9)), Hop::Last);
        check(at(C, Hop::Ingress), region, nobody, None, true);
        check(at(B, Hop::Ingress), ask(A, None, Hop::Owner), nobody, None, true);
        check(at(A, Hop::Ingress), None, nobody, None, true);
        check(at(A, Hop::Owner), None, nobody, None, true);

        let shielded = |local, hop| Situation { shield: Some(FAR), ..at(local, hop) };
        check(shielded(C, Hop::Ingress), region, nobody, far, true);
        check(shielded(A, Hop::Owner), None, nobody, far, true);
        check(shielded(A, Hop::Last), None, nobody, None, true);
        check(Situation { is_peek: true, ..shielded(C, Hop::Ingress) }, region, nobody, None, false);

        let former = [Some(B), Some(C)];
        let new = |local, hop| Situation { former, ..at(local, hop) };
        check(new(A, Hop::Ingress), None, former, None, true);
        check(Situation { asker: Some(C), ..new(A, Hop::Owner) }, None, [Some(B), None], None, true);
        check(Situation { is_known: true, ..new(A, Hop::Ingress) }, None, nobody, None, true);
        check(new(C, Hop::Ingress), region, nobody, None, true);
    }

    #[test]
    fn the_second_owner_fills_in_the_place_of_the_primary_only() {
        for (role, local, expected) in [
            (Role::Primary, A, true),
            (Role::Primary, B, false),
            (Role::Primary, C, true),
            (Role::Deputy, B, true),
            (Role::Holder, A, false),
        ] {
            assert_eq!(may_fill(role, owners(A, B), local), expected, "{role:?} {local}");
        }
    }

    #[test]
    fn who_was_asked_waits_for_nobody_who_asks() {
        for (hop, waits_for_owners, expected) in [
            (Hop::Ingress, true, true),
            (Hop::Owner, true, false),
            (Hop::Last, true, false),
            (Hop::Ingress, false, true),
            (Hop::Owner, false, true),
            (Hop::Last, false, true),
        ] {
            assert_eq!(may_wait(hop, waits_for_owners), expected, "{hop:?} {waits_for_owners}");
        }
        for (hop, local, expected) in [
            (Hop::Ingress, A, false),
            (Hop::Ingress, B, true),
            (Hop::Ingress, C, true),
            (Hop::Owner, C, false),
        ] {
            assert_eq!(asks_owners(hop, owners(A, B), local), expected, "{hop:?} {local}");
        }
    }

    /// Every node sees other owners than the next one, everywhere, and is shielded by the next one: still it ends.
    #[test]
    fn no_views_make_a_loop() {
        let nodes: Vec<NodeId> = (1..=4).map(NodeId).collect();
        for views in 0..4usize.pow(4) {
            let seen = |node: NodeId| nodes[views / 4usize.pow(node.0 as u32 - 1) % 4];
            for start in &nodes {
                assert!(longest(*start, Hop::Ingress, &seen) <= 3, "views {views} from {start}");
            }
        }
    }

    /// Nodes that a request passes at most.
    fn longest(local: NodeId, hop: Hop, seen: &dyn Fn(NodeId) -> NodeId) -> usize {
        let others = owners(seen(local), seen(seen(local)));
        let shield = Some(owners(seen(seen(local)), seen(local)));
        let plan = plan(&Situation { owners: others, shield, ..at(local, hop) });
        let asked = plan.owners.into_iter().chain(plan.shield);
        let further =
            asked.flat_map(|asked| [Some(asked.primary), asked.second].map(|node| (node, asked.hop)));
        let further = further.filter_map(|(node, hop)| Some(longest(node?, hop, seen)));
        1 + further.max().unwrap_or(0)
    }

    #[test]
    fn what_a_peer_writes_is_read() {
        for hop in [Hop::Owner, Hop::Last] {
            assert_eq!(Hop::read(hop.number()), hop);
        }
        for number in [0, 3, u64::MAX] {
            assert_eq!(Hop::read(number), Hop::Last);
        }
    }
}
