//! What somebody wants the site to become, laid over what is active.

use std::collections::BTreeSet;

use shoal_cluster::identity::ClusterSecret;
use shoal_model::site::{Absent, Change, Delta, ObjectName, Problems, check_count, count_objects, diff};
use shoal_model::{Revision, Site};
use tonic::{Code, Status};

use super::failure::{self, Exit, with_exit, with_revision};
use super::next_site::next_site;

/// Objects as somebody sent them.
pub(super) struct Given {
    put_json: String,
    removed: Vec<ObjectName>,
    absent: Absent,
    /// No object that this changes may have been changed since.
    pub(super) since: Option<Revision>,
}

impl Given {
    /// A site file.
    pub(super) fn site(put_json: String, prune: bool) -> Self {
        let absent = if prune { Absent::Remove } else { Absent::Keep };
        Self { put_json, removed: Vec::new(), absent, since: None }
    }

    /// Single objects.
    pub(super) fn objects(put_json: String, removed: &[String], since: Option<u64>) -> Result<Self, Status> {
        let wrong = |why| with_exit(Code::InvalidArgument, Exit::Local, why);
        let removed = removed.iter().map(|object| object.parse::<ObjectName>()).collect::<Result<_, _>>();
        let removed = removed.map_err(wrong)?;
        Ok(Self { put_json, removed, absent: Absent::Keep, since: since.map(Revision) })
    }

    /// Bytes of the objects.
    pub(super) fn bytes(&self) -> usize {
        self.put_json.len()
    }

    /// The site after it and what that changes. `then` is the site that was active at `since`, if another one is now.
    pub(super) fn over(
        &self,
        secret: &ClusterSecret,
        active: &Site,
        then: Option<&Site>,
    ) -> Result<(Site, Vec<Change>), Status> {
        let count = count_objects(&self.put_json);
        if let Some(problem) = check_count(count).filter(|_| count > active.object_count()) {
            return Err(failure::site(&Problems(vec![problem])));
        }
        let put = Site::from_json(&self.put_json).map_err(|error| {
            with_exit(Code::InvalidArgument, Exit::Local, format!("the site cannot be read: {error}"))
        })?;
        if let Some(absent) = self.removed.iter().find(|object| !active.has(object)) {
            return Err(match then.is_some_and(|then| then.has(absent)) {
                true => self.conflict(&absent.to_string(), "is gone, and was there"),
                false => with_exit(Code::NotFound, Exit::Local, format!("there is no {absent}")),
            });
        }
        let next = next_site(secret, active, Delta { put, removed: self.removed.clone() }, self.absent)
            .map_err(|problems| failure::site(&problems))?;
        let changes = diff(active, &next);
        if let Some(then) = then {
            let mine: BTreeSet<_> = changes.iter().map(|change| (change.kind, &change.name)).collect();
            let theirs =
                diff(then, active).into_iter().find(|change| mine.contains(&(change.kind, &change.name)));
            if let Some(Change { kind, name, .. }) = theirs {
                return Err(self.conflict(&format!("{kind}/{name}"), "is not what it was"));
            }
        }
        Ok((next, changes))
    }

    fn conflict(&self, object: &str, what: &str) -> Status {
        let since = self.since.unwrap_or_default();
        let why = format!("{object} {what} in revision {since}: somebody else has changed it since");
        with_exit(Code::FailedPrecondition, Exit::Conflict, why)
    }
}

/// Nobody can tell what has changed since a revision whose content is gone.
pub(super) fn forgotten(since: Revision) -> Status {
    let why = format!("revision {since} is not stored (any more), so nobody can tell what has changed since");
    with_revision(with_exit(Code::FailedPrecondition, Exit::Conflict, why), since)
}

#[cfg(test)]
mod tests {
    use shoal_model::site::parse_site;

    use super::*;

    fn site(text: &str) -> Site {
        parse_site("site.yaml", text).unwrap()
    }

    /// What comes of `given` over `active`, when `then` was there at revision 3.
    fn check(given: (&str, &[&str]), then: Option<&str>, active: &str, expected: Result<&[&str], &str>) {
        let (put, removed) = given;
        let removed: Vec<String> = removed.iter().map(ToString::to_string).collect();
        let given = Given::objects(site(put).to_canonical_json(), &removed, then.map(|_| 3)).unwrap();
        let done = given.over(&ClusterSecret::generate(), &site(active), then.map(site).as_ref());
        let done = done.map(|(_, changes)| {
            changes.iter().map(|change| format!("{}/{}", change.kind, change.name)).collect::<Vec<_>>()
        });
        match (done, expected) {
            (Ok(done), Ok(expected)) => assert_eq!(done, expected),
            (Err(status), Err(part)) => assert!(status.message().contains(part), "{status:?}"),
            (done, expected) => panic!("{done:?} where {expected:?} was expected"),
        }
    }

    const ONE: &str = "upstreams: { a: { endpoints: ['h:1'] }, b: { endpoints: ['h:1'] } }";
    const B_CHANGED: &str = "upstreams: { a: { endpoints: ['h:1'] }, b: { endpoints: ['h:2'] } }";
    const ROUTED: &str = "upstreams: { a: { endpoints: ['h:1'] } }\nroutes: { r: { upstream: a } }\n\
                          listeners: { l: { address: ':1', protocol: http } }";

    #[test]
    fn only_changes_of_the_same_object_are_a_conflict() {
        let a2 = ("upstreams: { a: { endpoints: ['h:2'] } }", &[][..]);
        check(a2, None, ONE, Ok(&["upstream/a"]));
        check(a2, Some(ONE), B_CHANGED, Ok(&["upstream/a"]));
        let b3 = ("upstreams: { b: { endpoints: ['h:3'] } }", &[][..]);
        check(b3, Some(ONE), B_CHANGED, Err("upstream/b is not what it was in revision 3"));
        check(b3, None, B_CHANGED, Ok(&["upstream/b"]));
        let b2 = ("upstreams: { b: { endpoints: ['h:2'] } }", &[][..]);
        check(b2, Some(ONE), B_CHANGED, Ok(&[])); // both wanted the same
    }

    #[test]
    fn what_is_referred_to_stays() {
        check(("{}", &["upstream/a"]), None, ROUTED, Err("routes.r.upstream: upstream/a is used by route/r"));
        check(("{}", &["upstream/a", "route/r"]), None, ROUTED, Ok(&["route/r", "upstream/a"]));
        check(("{}", &["route/x"]), None, ROUTED, Err("there is no route/x"));
        check(
            ("{}", &["upstream/b"]),
            Some(ONE),
            ROUTED,
            Err("upstream/b is gone, and was there in revision 3"),
        );
    }
}
