//! From a committed revision to the view that requests read: unseal, compile, bind, swap, remember.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use shoal_cluster::gossip::Gossip;
use shoal_cluster::identity::Identity;
use shoal_configlog::ConfigLog;
use shoal_model::{ConfigView, Revision, Site};
use shoal_proxy::{BindError, Proxy};
use tokio::sync::watch;

use crate::crash_guard::{Before, CrashGuard};
use crate::hard_work::{ACTIVATIONS, GivenUp, LIMIT};
use crate::last_known_good::LastKnownGood;
use crate::planted;
use crate::rollout::Overdue;
use crate::sealed_site::unseal;
use crate::watchdog::Suspicion;

/// Between a refusal and the next attempt, at first.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// The same, at most.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// What this node made of the newest revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activation {
    /// The revision it serves.
    pub active: Revision,
    /// The newest revision it refused and why; the active one goes on.
    pub refused: Option<(Revision, String)>,
    /// The newest revision that this node will never serve, whatever else changes.
    pub poison: Option<Poison>,
    /// Why what it serves is not on disk, for the next start.
    pub unkept: Option<String>,
    /// Refusals of this process that were news.
    pub refusals: u64,
}

/// A revision that a node will never serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poison {
    /// Which.
    pub revision: Revision,
    /// How that came out.
    pub sign: Sign,
}

/// How a revision has shown that it is not to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Processes have died soon after they took it up: those that somebody kills look the same.
    Deaths,
    /// It panicked, or took too long: by its own fault.
    Failure,
}

impl Activation {
    /// `revision` is served, refused, or overtaken.
    pub fn has_decided(&self, revision: Revision) -> bool {
        self.active >= revision || self.refused.as_ref().is_some_and(|(refused, _)| *refused >= revision)
    }

    /// Why `revision` is not served; `None` = it is, or was, or may still be. That a later one was refused says nothing
    /// about it.
    pub fn refusal_of(&self, revision: Revision) -> Option<String> {
        let (_, why) = self.refused.as_ref().filter(|(refused, _)| *refused >= revision)?;
        (self.active < revision).then(|| why.clone())
    }

    /// There is something to serve, `newest` being the newest revision known, and nothing of it is served.
    pub fn serves_nothing(&self, newest: Revision) -> bool {
        self.active == Revision(0) && (newest > Revision(0) || self.refused.is_some())
    }

    /// Nothing is served yet, and `newest` is on its way to be: it has been neither refused nor overtaken.
    pub fn activates_first(&self, newest: Revision) -> bool {
        self.serves_nothing(newest) && !self.has_decided(newest)
    }

    /// `revision` is not served; answers whether that is news.
    fn refuse(&mut self, revision: Revision, Trouble { why, sign }: Trouble) -> bool {
        let poison = sign.map(|sign| Poison { revision, sign }).or(self.poison);
        let refused = Some((revision, why));
        let is_news = self.poison != poison || self.refused != refused;
        (self.poison, self.refused) = (poison, refused);
        self.refusals += u64::from(is_news);
        is_news
    }

    /// What it serves is on disk, or why it is not; answers whether that is news.
    fn note_kept(&mut self, unkept: Option<String>) -> bool {
        let is_news = self.unkept != unkept;
        self.unkept = unkept;
        is_news
    }
}

/// Why a revision is not served.
struct Trouble {
    why: String,
    /// It is not tried again, for what it has shown.
    sign: Option<Sign>,
}

impl Trouble {
    fn poison(sign: Sign, why: impl Into<String>) -> Self {
        Self { why: why.into(), sign: Some(sign) }
    }
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self { why, sign: None }
    }
}

impl From<GivenUp> for Trouble {
    fn from(given_up: GivenUp) -> Self {
        Self { why: given_up.to_string(), sign: given_up.is_final().then_some(Sign::Failure) }
    }
}

/// A site as the log has it.
#[derive(Clone)]
struct Content {
    text: Arc<str>,
    /// What others serve meanwhile, where this node tries it before them.
    beside: Option<(Revision, Arc<str>)>,
}

impl Content {
    /// In force everywhere, as far as is known.
    fn alone(text: &str) -> Self {
        Self { text: text.into(), beside: None }
    }

    fn of(log: &ConfigLog, revision: Revision) -> Option<Self> {
        let beside = Self::beside(log, revision);
        log.with_state(|state| {
            let beside = beside.and_then(|beside| Some((beside, state.revisions.content(beside)?)));
            Some(Self { text: state.revisions.content(revision)?, beside })
        })
    }

    fn beside(log: &ConfigLog, revision: Revision) -> Option<Revision> {
        log.with_state(|state| {
            let is_active = state.revisions.active().0 == revision;
            state.revisions.tried_beside(log.node_id()).filter(|_| is_active)
        })
    }

    fn compile(&self, identity: &Identity, revision: Revision) -> Result<ConfigView, String> {
        let site = read(&self.text)?;
        // What cannot be read is other than anything.
        let beside = self.beside.as_ref().map(|(_, text)| Site::from_json(text).unwrap_or_default());
        let tried = beside.map(|beside| site.answered_otherwise(&beside)).unwrap_or_default();
        compile_trial(identity, revision, site, &tried)
    }
}

/// Takes revisions into service, one at a time, newest only.
pub struct Activator {
    /// Opens sealed keys.
    pub identity: Arc<Identity>,
    /// Binds listeners and serves.
    pub proxy: Arc<Proxy>,
    /// Remembers across restarts.
    pub kept: LastKnownGood,
    /// Remembers what did not survive.
    pub guard: Arc<CrashGuard>,
    /// While anybody seems to hang, nothing has survived.
    pub suspicion: Arc<Suspicion>,
    /// What is not to be served any more, until the log says otherwise.
    pub overdue: watch::Receiver<Option<Overdue>>,
    /// Tells the others.
    pub gossip: Arc<Gossip>,
    /// Tells this process.
    pub status: watch::Sender<Activation>,
    /// What others serve beside the revision that this node tries, as that was taken up; 0 = it tries none.
    pub beside: AtomicU64,
}

impl Activator {
    /// Takes up the revisions of `log` as `newest` names them, until its sender is gone. What was refused is tried again: a
    /// port may have become free. Not what this node has died of, nor what is overdue.
    pub async fn run(self: Arc<Self>, log: Arc<ConfigLog>, mut newest: watch::Receiver<Revision>) {
        let this = self;
        let mut overdue = this.overdue.clone();
        let mut pause = FIRST_RETRY;
        loop {
            let is_overdue = overdue.borrow().is_some();
            let refused = this.status.borrow().refused.as_ref().map(|(revision, _)| *revision);
            let poison = this.status.borrow().poison.map(|poison| poison.revision);
            let worth_a_try = refused.is_some_and(|revision| poison != Some(revision));
            let is_new = tokio::select! {
                changed = newest.changed() => match changed {
                    Ok(()) => true,
                    Err(_) => return,
                },
                () = tokio::time::sleep(pause), if worth_a_try && !is_overdue => false,
                () = this.guard.prove_in_time(&this.suspicion) => continue,
                // Its sender lives as long as the node.
                Ok(()) = overdue.changed() => {
                    let now = *overdue.borrow_and_update();
                    if let Some(overdue) = now {
                        this.clone().go_back(&log, overdue).await;
                        continue;
                    }
                    false
                }
            };
            pause = if is_new { FIRST_RETRY } else { (pause * 2).min(LONGEST_RETRY) };
            let revision = *newest.borrow_and_update();
            if is_new && this.is_tried_otherwise(&log, revision) {
                this.clone().take_up_again(&log, revision).await;
            }
            let decided = match is_new {
                true => this.status.borrow().has_decided(revision),
                false => this.status.borrow().active >= revision,
            };
            if !decided {
                this.clone().take_up(&log, revision).await;
            }
        }
    }

    /// Without a log there is nothing to follow: tries what was served last until it is in force.
    pub async fn hold(self: Arc<Self>) {
        let mut pause = FIRST_RETRY;
        while self.status.borrow().refused.is_some() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_RETRY);
            self.clone().resume_aside().await;
        }
        loop {
            self.guard.prove_in_time(&self.suspicion).await;
        }
    }

    /// The first site of this process: the newest of `log` if that has `caught_up` with the cluster, else the one that was
    /// served last. That one also in place of a newest one that is refused here, as if the node had never been away.
    pub async fn begin(self: Arc<Self>, log: &ConfigLog, caught_up: bool) {
        let newest = log.with_state(|state| state.revisions.served_by(log.node_id()));
        if caught_up && newest > Revision(0) {
            self.clone().take_up(log, newest).await;
            if self.status.borrow().active == newest {
                return;
            }
        }
        self.resume_aside().await;
    }

    /// Serves what was before, as if the revision had been refused: once the log can be asked again, it is tried again.
    async fn go_back(self: Arc<Self>, log: &ConfigLog, overdue: Overdue) {
        let Overdue { revision, before, is_late } = overdue;
        if self.status.borrow().active != revision {
            return;
        }
        self.clone().take_up(log, before).await;
        let why = match is_late {
            true => "nobody has confirmed it in time, and there is no quorum to say more",
            false => "some nodes have it before the others, and nobody is heard who watches over that",
        };
        tracing::warn!(%revision, %before, why, "going back without the cluster");
        // What nobody has decided against is no refusal: whoever leads next would take it for one.
        if is_late {
            self.status.send_modify(|status| status.refused = Some((revision, why.to_owned())));
        }
    }

    async fn resume_aside(self: Arc<Self>) {
        if tokio::task::spawn_blocking(move || self.resume()).await.is_err() {
            tracing::error!("resuming panicked");
        }
    }

    async fn take_up(self: Arc<Self>, log: &ConfigLog, revision: Revision) {
        let Some(content) = Content::of(log, revision) else { return };
        let (worker, began) = (self.clone(), Instant::now());
        let activated = tokio::task::spawn_blocking(move || worker.activate(revision, &content)).await;
        let activated =
            activated.unwrap_or_else(|_| Err(Trouble::poison(Sign::Failure, "activating it panicked")));
        self.tell(revision, activated, began.elapsed());
    }

    /// What others serve beside `revision`, which is in force here, is not what they did when it was taken up.
    fn is_tried_otherwise(&self, log: &ConfigLog, revision: Revision) -> bool {
        let beside = Content::beside(log, revision).unwrap_or_default();
        self.status.borrow().active == revision && self.beside.load(Ordering::Relaxed) != beside.0
    }

    /// It is served on, with what is cached for all, or for those alone that try it.
    async fn take_up_again(self: Arc<Self>, log: &ConfigLog, revision: Revision) {
        let Some(content) = Content::of(log, revision) else { return };
        let is_tried = content.beside.is_some();
        match tokio::task::spawn_blocking(move || self.put_in_force(revision, content, LIMIT)).await {
            Ok(Ok(())) => tracing::info!(%revision, is_tried, "revision stays in force"),
            Ok(Err(Trouble { why, .. })) => {
                tracing::error!(%revision, why, "what is cached by it is not shared until the next revision");
            }
            Err(error) => tracing::error!(%revision, %error, "taking a revision up again failed"),
        }
    }

    /// Serves what was served last, before anything is known from the log.
    pub fn resume(&self) {
        let kept = self.kept.load(self.guard.refused()).or_else(|| self.kept.load(None));
        let Some((revision, content)) = kept else { return };
        tracing::info!(%revision, "resuming with the last known site");
        let began = Instant::now();
        // What was good once is good: a machine that has just been started may take its time.
        let outcome = self.put_in_force_guarded(revision, &Content::alone(&content), Duration::MAX).map(drop);
        self.tell(revision, outcome, began.elapsed());
    }

    fn activate(&self, revision: Revision, content: &Content) -> Result<(), Trouble> {
        let before = self.put_in_force_guarded(revision, content, LIMIT)?;
        let saved = match before.is_good {
            true => self.kept.save(revision, &content.text),
            false => self.kept.overwrite(revision, &content.text),
        };
        let unkept = saved.err().map(|error| self.kept.in_words(revision, &error));
        if let Some(why) = &unkept {
            tracing::error!("{why}");
        }
        self.status.send_if_modified(|status| status.note_kept(unkept));
        Ok(())
    }

    /// Notes it first, in case this process does not live to say how it was.
    fn put_in_force_guarded(
        &self,
        revision: Revision,
        content: &Content,
        limit: Duration,
    ) -> Result<Before, Trouble> {
        // Without anything else to serve it is tried once more: somebody may have the time to mend it.
        if let Some(why) = self.guard.refusal(revision)
            && self.kept.load(Some(revision)).is_some()
        {
            return Err(Trouble::poison(Sign::Deaths, why));
        }
        let before = self.guard.begin(revision);
        match self.put_in_force(revision, content.clone(), limit) {
            Ok(()) => {
                self.guard.serves(revision);
                Ok(before)
            }
            Err(trouble) => {
                self.guard.abandon(before);
                Err(trouble)
            }
        }
    }

    /// One bad site must not take the node down, or hold it up, least of all at every start.
    fn put_in_force(&self, revision: Revision, content: Content, limit: Duration) -> Result<(), Trouble> {
        let identity = self.identity.clone();
        let beside = content.beside.as_ref().map_or(Revision(0), |(beside, _)| *beside);
        let view = ACTIVATIONS.within(limit, move || content.compile(&identity, revision))??;
        let applied = catch_unwind(AssertUnwindSafe(|| self.proxy.apply(Arc::new(view))));
        applied.map_err(|_| Trouble::poison(Sign::Failure, "taking it up panicked"))?.map_err(one_reason)?;
        self.beside.store(beside.0, Ordering::Relaxed);
        Ok(())
    }

    fn tell(&self, revision: Revision, outcome: Result<(), Trouble>, took: Duration) {
        match outcome {
            Ok(()) => {
                tracing::info!(%revision, took_ms = took.as_millis() as u64, "revision is in force");
                self.gossip.set_active_revision(revision.0);
                // What was refused is refused as long as nothing newer is served.
                self.status.send_modify(|status| {
                    status.active = revision;
                    status.refused.take_if(|(refused, _)| *refused <= revision);
                    status.poison.take_if(|poison| poison.revision <= revision);
                });
            }
            Err(trouble) => {
                let why = trouble.why.clone();
                if self.status.send_if_modified(|status| status.refuse(revision, trouble)) {
                    tracing::error!(%revision, why, "revision refused; what was served before stays in force");
                }
            }
        }
    }
}

/// Why listeners cannot be as they shall be, in one line.
pub fn one_reason(errors: Vec<BindError>) -> String {
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    errors.join("; ")
}

/// From the document in the log to what is served.
pub fn compile(identity: &Identity, revision: Revision, content: &str) -> Result<ConfigView, String> {
    compile_site(identity, revision, read(content)?)
}

/// The same from a site as it is in the log.
pub fn compile_site(identity: &Identity, revision: Revision, site: Site) -> Result<ConfigView, String> {
    compile_trial(identity, revision, site, &BTreeSet::new())
}

fn compile_trial(
    identity: &Identity,
    revision: Revision,
    site: Site,
    tried: &BTreeSet<String>,
) -> Result<ConfigView, String> {
    let site = unseal(site, &identity.secret).map_err(|error| error.to_string())?;
    planted::poison(&site);
    ConfigView::compile_trial(revision, &site, tried).map_err(|problems| problems.to_string())
}

fn read(content: &str) -> Result<Site, String> {
    Site::from_json(content).map_err(|error| format!("it cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_nothing_of_what_is_served() {
        let activation = Activation {
            active: Revision(7),
            refused: Some((Revision(8), "no".into())),
            ..Activation::default()
        };
        let check = |revision, decided, refusal: Option<&str>| {
            assert_eq!(activation.has_decided(Revision(revision)), decided, "{revision}");
            assert_eq!(activation.refusal_of(Revision(revision)).as_deref(), refusal, "{revision}");
        };
        check(0, true, None); // who waits for a purge waits for no revision
        check(7, true, None);
        check(8, true, Some("no"));
        check(9, false, None);
    }

    #[test]
    fn what_could_not_be_kept_is_told_until_something_is() {
        let mut activation = Activation::default();
        assert!(!activation.note_kept(None));
        assert!(activation.note_kept(Some("no room".to_owned())));
        assert!(!activation.note_kept(Some("no room".to_owned())));
        assert!(activation.note_kept(None));
        assert_eq!(activation, Activation::default());
    }

    #[test]
    fn what_was_died_of_is_told_from_what_has_failed() {
        let check = |trouble: Trouble, expected: Option<Sign>| {
            let mut activation = Activation::default();
            let again = || Trouble { why: trouble.why.clone(), sign: trouble.sign };
            assert!(activation.refuse(Revision(8), again()) && !activation.refuse(Revision(8), again()));
            let poison = expected.map(|sign| Poison { revision: Revision(8), sign });
            assert_eq!(activation.poison, poison, "{}", trouble.why);
            // What may still be served says nothing of what never will be.
            assert!(activation.refuse(Revision(9), "its port is taken".to_owned().into()));
            assert_eq!((activation.poison, activation.refused.unwrap().0), (poison, Revision(9)));
            assert_eq!(activation.refusals, 2);
        };
        check("its port is taken".to_owned().into(), None);
        check(GivenUp::Busy(2).into(), None);
        check(GivenUp::Panicked.into(), Some(Sign::Failure));
        check(GivenUp::TooSlow(LIMIT).into(), Some(Sign::Failure));
        check(Trouble::poison(Sign::Deaths, "2 processes have died"), Some(Sign::Deaths));
    }

    #[test]
    fn a_site_that_is_not_served_is_told_from_no_site() {
        let check = |active, refused: Option<u64>, newest, expected| {
            let refused = refused.map(|revision| (Revision(revision), String::new()));
            let activation = Activation { active: Revision(active), refused, ..Activation::default() };
            let newest = Revision(newest);
            let seen = (activation.serves_nothing(newest), activation.activates_first(newest));
            assert_eq!(seen, expected, "{activation:?} {newest}");
        };
        check(0, None, 0, (false, false));
        check(0, None, 1, (true, true));
        check(0, Some(1), 1, (true, false));
        check(0, Some(1), 2, (true, true));
        check(0, Some(1), 0, (true, false)); // the last known site, before the log is read
        check(1, Some(2), 2, (false, false));
        check(1, None, 2, (false, false));
    }
}
