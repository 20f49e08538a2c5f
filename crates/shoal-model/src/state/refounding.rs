//! A state of one cluster that becomes the first one of another: what people have written goes along, and who they were stays
//! behind.

use std::collections::{BTreeMap, BTreeSet};

use super::uploads::Uploads;
use super::{Asker, ClusterLevel, ConfigState, MemberRecord, OperatorRecord, Operators, PurgeTables, Reply};
use crate::id::{ClusterId, NodeId, Revision};

/// A new cluster.
#[derive(Clone, Debug)]
pub struct Founding {
    /// Its id.
    pub cluster_id: ClusterId,
    /// Its authority's certificate, DER.
    pub ca_certificate: Vec<u8>,
    /// The key of that, sealed with its secret.
    pub ca_key_sealed: Vec<u8>,
    /// Its only node, which has the id 1.
    pub node: MemberRecord,
    /// The serial number of its first operator's certificate, hex, and what is known of it.
    pub operator: (String, OperatorRecord),
    /// Who founds it.
    pub asker: Asker,
}

impl ConfigState {
    /// The first state of a new cluster, with the revisions of this one and the record of its changes, after the entry at
    /// `index`. Nodes, tokens, operators, purges, authorities and keys are of the old one; `carry` makes of each site what the
    /// nodes of the new one can read. Old revisions of which it makes nothing are left out: which, by their new numbers, and why.
    ///
    /// # Errors
    /// That of `carry` of the active one.
    pub fn refounded<E>(
        self,
        founding: Founding,
        index: u64,
        carry: impl FnMut(&str) -> Result<String, E>,
    ) -> Result<(Self, BTreeMap<Revision, E>), E> {
        let Founding { cluster_id, ca_certificate, ca_key_sealed, node, operator, asker } = founding;
        let (revision, _) = self.revisions.active();
        let what = format!("cluster {}, revision {revision}, {}", self.cluster_id, node.name);
        let level = self.level.number;
        let mut operators = Operators::of_new_cluster(level);
        _ = operators.give(operator.0, operator.1, level);
        let mut audit = self.audit;
        audit.note(index, vec![Asker { what, ..asker }], false, &Reply::Done);
        let (revisions, left_out) = self.revisions.carried_over(carry)?;
        let state = Self {
            cluster_id,
            cluster_epoch: self.cluster_epoch.saturating_add(1),
            ca_certificate,
            ca_key_sealed,
            nodes: BTreeMap::from([(NodeId(1), node)]),
            standings: BTreeMap::new(),
            voteless: BTreeSet::new(),
            revoked: BTreeSet::new(),
            revoked_in: BTreeMap::new(),
            tokens: BTreeMap::new(),
            revisions,
            rollout_policy: self.rollout_policy,
            // Nothing that was purged is in any cache of the new one.
            purges: PurgeTables::default(),
            operators,
            audit,
            uploads: Uploads::default(),
            remembered: BTreeMap::new(),
            remembered_order: Default::default(),
            // What its sites and its record say takes the same versions to read. Who could go back is not there any more.
            level: ClusterLevel { number: level, held: None },
            setup: self.setup,
            keys: self.keys.refounded(),
        };
        Ok((state, left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Command, GossipKeyStep, Hold, KeyOrder, RESTORE, SiteText, Terms, TokenRecord};

    #[test]
    fn what_was_written_goes_along_and_who_was_there_does_not() {
        let mut old = ConfigState { cluster_id: ClusterId(1), ..ConfigState::default() };
        let node = |name: &str| MemberRecord { name: name.to_owned(), ..MemberRecord::default() };
        old.nodes = BTreeMap::from([(NodeId(1), node("a")), (NodeId(7), node("b"))]);
        old.revoked = BTreeSet::from([NodeId(3)]);
        let held = Some(Hold { by: "ann".into(), message: String::new(), at_ms: 1 });
        old.level = ClusterLevel { number: 7, held };
        old.apply(5, Command::CreateToken { id: "t".into(), token: TokenRecord::default() });
        let make = GossipKeyStep::Make { sealed: vec![7], after: 0, without: BTreeSet::new(), at_ms: 1 };
        for order in [KeyOrder::NodeLife { seconds: 60 }, KeyOrder::Gossip(make)] {
            assert_eq!(old.apply(5, Command::KeepKeys(order)), Reply::Done);
        }
        for (index, site) in [(6, "first"), (7, "second")] {
            let publish = Command::Publish {
                request_id: site.into(),
                expected: None,
                site: SiteText::Inline(site.into()),
                author: "ann".into(),
                message: String::new(),
                at_ms: 1,
                counts: [0; 3],
                terms: Terms { confirm_within_ms: (index == 7).then_some(9), ..Terms::default() },
            };
            old.apply(index, publish);
        }
        let founding = Founding {
            cluster_id: ClusterId(2),
            ca_certificate: vec![1],
            ca_key_sealed: vec![2],
            node: node("new"),
            operator: ("5e".into(), OperatorRecord { ends_at_ms: 9, ..OperatorRecord::default() }),
            asker: Asker { by: "local".into(), call: RESTORE.into(), ..Asker::default() },
        };
        assert_eq!(old.audit.restored_at(), None);
        let carry = |site: &str| Ok::<_, ()>(format!("{site}, carried over"));
        let (new, left_out) = old.refounded(founding, 8, carry).unwrap();
        assert!(left_out.is_empty());
        assert_eq!((new.cluster_id, new.cluster_epoch), (ClusterId(2), 1));
        assert_eq!(new.nodes.keys().collect::<Vec<_>>(), [&NodeId(1)]);
        assert_eq!(new.level, ClusterLevel { number: 7, held: None });
        assert_eq!(new.operators.given(1).map(|(serial, _)| serial.as_str()).collect::<Vec<_>>(), ["5e"]);
        assert!(new.tokens.is_empty() && new.revoked.is_empty() && new.answered("second").is_none());
        assert_eq!(
            (new.keys.node_seconds(), new.keys.gossip.newest().id),
            (60, 0),
            "a promise, and a secret"
        );
        let (revision, site) = new.revisions.active();
        assert_eq!((revision, &*site), (Revision(1_000_000_002), "second, carried over"));
        let before = new.revisions.content(Revision(1_000_000_001));
        assert_eq!(before.as_deref(), Some("first, carried over"));
        assert_eq!(new.revisions.rollout().map(|rollout| rollout.before), Some(Revision(1_000_000_001)));
        let (_, record) = new.audit.changes.newest_first().next().unwrap();
        assert_eq!(
            (record.index, record.asker.what.as_str()),
            (8, "cluster 0000000000000001, revision 2, new")
        );
        assert_eq!(new.audit.restored_at(), Some(8));
        assert_eq!(
            new.revisions.after(Some(Revision(2))).map(|step| step.before),
            Some(None),
            "all of it anew"
        );
    }
}
