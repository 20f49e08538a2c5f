//! What was taken back and comes again with something else beside it: the whole is another one, and in all that the revision in
//! quarantine had changed it is the same.

use std::sync::Arc;

use shoal_model::site::{Delta, ObjectName};
use shoal_model::state::{Quarantined, Revisions};
use shoal_model::{Revision, Site};
use shoal_proto::admin;

use super::base::stored_site;
use super::waves::quarantined_message;
use crate::sealed_site::redact;

/// Revisions in quarantine that a change is compared with, the newest: of each two sites have to be read.
const MAX_COMPARED: usize = 8;
/// Objects that are named.
const MAX_NAMED: usize = 5;

/// A revision in quarantine of which it is still known what it has changed.
pub(super) struct Suspect {
    quarantined: Quarantined,
    /// What was served before it.
    before: Arc<str>,
    content: Arc<str>,
}

/// What a change brings back.
pub(super) struct Relapse {
    quarantined: Quarantined,
    objects: Vec<ObjectName>,
}

/// Whom a change is compared with.
pub(super) fn suspects(revisions: &Revisions) -> Vec<Suspect> {
    let newest = revisions.quarantine().newest_first().into_iter();
    let known = newest.filter_map(|quarantined| {
        let before = Revision(quarantined.revision.0.checked_sub(1)?);
        let (before, content) = (revisions.content(before)?, revisions.content(quarantined.revision)?);
        Some(Suspect { quarantined: quarantined.clone(), before, content })
    });
    known.take(MAX_COMPARED).collect()
}

impl Relapse {
    /// That of a change which makes `next` of `active`, if it is one.
    pub(super) fn of(suspects: &[Suspect], active: &Site, next: &Site) -> Option<Self> {
        if suspects.is_empty() {
            return None;
        }
        // A key that is sealed again is the same key.
        let (active, next) = (redact(active.clone()), redact(next.clone()));
        suspects.iter().find_map(|Suspect { quarantined, before, content }| {
            let (before, bad) = (redact(stored_site(before).ok()?), redact(stored_site(content).ok()?));
            let objects = brought_back(&before, &bad, &active, &next);
            (!objects.is_empty()).then(|| Self { quarantined: quarantined.clone(), objects })
        })
    }

    /// Why it is refused.
    pub(super) fn why(&self) -> String {
        let Quarantined { revision, why, .. } = &self.quarantined;
        let objects = self.named().join(", ");
        format!("in {objects} it is what revision {revision} was, which is in quarantine ({why})")
    }

    /// The same for who only plans.
    pub(super) fn message(&self) -> admin::Quarantined {
        admin::Quarantined { objects: self.named(), ..quarantined_message(&self.quarantined) }
    }

    fn named(&self) -> Vec<String> {
        let mut names: Vec<String> = self.objects.iter().take(MAX_NAMED).map(ObjectName::to_string).collect();
        if let Some(more @ 1..) = self.objects.len().checked_sub(MAX_NAMED) {
            names.push(format!("{more} more"));
        }
        names
    }
}

/// All that `bad` had changed of what was `before`, where `next` is the same in all of that and `active` is not; else nothing:
/// who leaves out or mends a part of it has something else in mind.
fn brought_back(before: &Site, bad: &Site, active: &Site, next: &Site) -> Vec<ObjectName> {
    let changed = Delta::between(before, bad);
    let is_in = |site: &Site| {
        let differing = Delta::between(site, bad).put;
        changed.put.objects().all(|object| !differing.has(&object))
            && changed.removed.iter().all(|object| !site.has(object))
    };
    match is_in(next) && !is_in(active) {
        true => changed.put.objects().chain(changed.removed.iter().cloned()).collect(),
        false => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use shoal_model::site::parse_site;

    use super::*;

    /// Routes to an upstream each, as `a:u b:v`.
    fn site(routes: &str) -> Site {
        let mut text = String::from("upstreams: { u: { endpoints: ['h:1'] }, v: { endpoints: ['h:2'] } }\n");
        if !routes.is_empty() {
            text.push_str("routes:\n");
        }
        for route in routes.split_whitespace() {
            let (name, upstream) = route.split_once(':').unwrap();
            text.push_str(&format!("  {name}: {{ path: /{name}, upstream: {upstream} }}\n"));
        }
        parse_site("site.yaml", &text).unwrap()
    }

    #[test]
    fn what_comes_again_in_full_is_known_again() {
        // What was served, what did harm, what is active now, what is to be, and the objects that are told.
        for (before, bad, active, next, expected) in [
            ("a:u", "a:v", "a:u", "a:v", "route/a"),
            ("a:u", "a:v", "a:u", "a:v b:u", "route/a"),
            ("a:u", "a:v", "a:u b:u", "a:v b:u", "route/a"),
            ("a:u", "a:v", "a:u", "a:u b:u", ""),
            // It is there already, by somebody's will.
            ("a:u", "a:v", "a:v", "a:v b:u", ""),
            // Something else in the same place.
            ("a:u", "a:v", "a:u", "b:u", ""),
            // New objects, and objects that were taken away.
            ("a:u", "a:u b:v", "a:u", "a:u b:v c:u", "route/b"),
            ("a:u b:u", "a:u", "a:u b:u", "a:u c:u", "route/b"),
            ("a:u b:u", "a:v", "a:u b:u", "a:v c:u", "route/a, route/b"),
            // Of several all have to come again, those that are there already included.
            ("a:u b:u", "a:v b:v", "a:u b:u", "a:v b:v c:u", "route/a, route/b"),
            ("a:u b:u", "a:v b:v", "a:u b:v", "a:v b:v c:u", "route/a, route/b"),
            ("a:u b:u", "a:v b:v", "a:u b:u", "a:v b:u c:u", ""),
            ("a:u b:u", "a:v b:v c:u", "a:u b:u", "a:v b:v c:v", ""),
            ("a:u", "a:u", "a:u", "a:u b:u", ""),
        ] {
            let found = brought_back(&site(before), &site(bad), &site(active), &site(next));
            let found: Vec<String> = found.iter().map(ObjectName::to_string).collect();
            assert_eq!(found.join(", "), expected, "{before} | {bad} | {active} | {next}");
        }
    }

    #[test]
    fn the_revision_is_named_and_so_are_some_of_its_objects() {
        let text = |routes: &str| -> Arc<str> { site(routes).to_canonical_json().into() };
        let suspect = |revision, before: &str, content: &str| Suspect {
            quarantined: Quarantined { revision: Revision(revision), why: "n3 died of it".into(), at_ms: 7 },
            before: text(before),
            content: text(content),
        };
        let many = "a:v b:v c:v d:v e:v f:v g:v";
        let suspects = [suspect(9, "a:u", "a:u z:u"), suspect(4, "", many)];
        let relapse = |next: &str| Relapse::of(&suspects, &site(""), &site(next));
        assert!(relapse("a:u").is_none() && Relapse::of(&[], &site(""), &site(many)).is_none());
        let found = relapse(&format!("{many} y:u")).unwrap();
        let named = "route/a, route/b, route/c, route/d, route/e, 2 more";
        let told = format!("in {named} it is what revision 4 was, which is in quarantine (n3 died of it)");
        assert_eq!(found.why(), told);
        let message = found.message();
        assert_eq!((message.revision, message.objects.join(", ").as_str()), (4, named));
    }
}
