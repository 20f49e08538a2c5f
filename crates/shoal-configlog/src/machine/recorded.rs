//! Logs as versions of before have written them, in `testdata/logs`: a file of entries for each level, as they lie on disk, and
//! the state that they led to. A version that reads one of them differently would be another node's downfall.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use openraft::entry::RaftEntry;
use openraft::vote::RaftLeaderId;
use shoal_model::state::{
    Admission, Asker, COMMANDS, ClusterSetup, Envelope, Hold, KeyOrder, MemberRecord, NextWave, NodeStanding,
    OperatorRecord, Pace, PurgeKind, PurgeScope, ROLE_LEARNER, RevertCause, RolloutStep, SetupOrder,
    SiteText, Stage, StandingOrder, Terms, TokenRecord, WITHDRAWN,
};
use shoal_model::{ClusterId, NodeId};

use super::*;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/logs")
}

fn node(name: &str) -> MemberRecord {
    MemberRecord {
        name: name.into(),
        region: "eu".into(),
        zone: "a".into(),
        cluster_addr: "10.0.0.1:7400".into(),
        admin_addr: "10.0.0.1:7401".into(),
        public_key_sha256: name.repeat(3),
        purge_lease_ms: 2000,
    }
}

fn publish(request_id: &str, site: SiteText, terms: Terms) -> Command {
    Command::Publish {
        request_id: request_id.into(),
        expected: None,
        site,
        author: "ada".into(),
        message: "why not".into(),
        at_ms: 1_000,
        counts: [1, 2, 3],
        terms,
    }
}

fn rollout(request_id: &str, revision: u64, step: RolloutStep) -> Command {
    Command::Rollout {
        request_id: request_id.into(),
        revision: Revision(revision),
        step,
        author: "bob".into(),
        message: String::new(),
        at_ms: 2_000,
    }
}

/// Every command there is at the newest level, at least once.
fn story() -> Vec<Command> {
    let token = TokenRecord {
        secret_sha256: "s".into(),
        expires_at_ms: 9_000,
        uses_left: 3,
        role: "node".into(),
        ..TokenRecord::default()
    };
    let for_learners = TokenRecord { role: ROLE_LEARNER.into(), ..token.clone() };
    let admit_by = |token: &str, name: &str| {
        let (token_id, secret_sha256) = (token.into(), "s".into());
        Command::Admit(Admission { token_id, secret_sha256, at_ms: 1, node: node(name) })
    };
    let admit = |name: &str| admit_by("t", name);
    let set_vote = |id, may_vote| Command::SetVote { node_id: NodeId(id), may_vote };
    let inline = |text: &str| SiteText::Inline(text.into());
    let confirmed_later = Terms { confirm_within_ms: Some(60_000), ..Terms::default() };
    let canary = Terms { canary: Some(BTreeSet::from([NodeId(1)])), ..confirmed_later.clone() };
    let in_waves =
        Terms { waves: Some(Pace::default()), fingerprint: "f".into(), overrides: true, ..canary.clone() };
    let next_wave =
        NextWave { wave: 2, stage: Stage::OnePerRegion, nodes: BTreeSet::from([NodeId(1), NodeId(2)]) };
    let asker = Asker { by: "ada".into(), request_id: "asked".into(), ..Asker::default() };
    let purge = |request_id: &str, scopes| Command::Purge {
        request_id: request_id.into(),
        scopes,
        kind: PurgeKind::Hard,
        at_ms: 3_000,
    };
    let hold = Hold { by: "ada".into(), message: "wait for monday".into(), at_ms: 4_000 };
    let ignored =
        Envelope { cmd_version: u32::MAX, kind: "of later".into(), may_ignore: true, payload: "{}".into() };
    let part = |upload: &str, part| Command::UploadPart {
        upload: upload.into(),
        part,
        text: "{      }".into(),
        at_ms: 5_000,
    };
    let publish_over = |expected: u64, upload: &str| {
        let site = SiteText::Uploaded { upload: upload.into(), parts: 1 };
        let mut command = publish("five", site, Terms::default());
        if let Command::Publish { expected: over, .. } = &mut command {
            *over = Some(Revision(expected));
        }
        command
    };
    vec![
        Command::Bootstrap {
            cluster_id: ClusterId(7),
            ca_certificate: vec![1],
            ca_key_sealed: vec![2],
            node: node("n1"),
            setup: ClusterSetup::default(),
            level: COMMANDS,
        },
        Command::CreateToken { id: "t".into(), token },
        admit("n2").asked_by(vec![asker.clone()]),
        admit("n3"),
        Command::UpdateNode { node_id: NodeId(3), record: node("n2") },
        publish("one", inline("{}"), Terms::default()),
        Command::UploadPart { upload: "u".into(), part: 0, text: "{ }".into(), at_ms: 900 },
        publish("two", SiteText::Uploaded { upload: "u".into(), parts: 1 }, confirmed_later),
        rollout("keep", 2, RolloutStep::Confirm).asked_by(vec![asker]),
        rollout("late", 2, RolloutStep::Confirm),
        publish("three", inline("{  }"), canary),
        rollout("back", 3, RolloutStep::Revert(RevertCause::Aborted)),
        purge("all", vec![PurgeScope::All]),
        purge("url", vec![PurgeScope::Url(5)]),
        Command::ForgetPurges { up_to: 12 },
        Command::SetStanding(StandingOrder {
            node_id: NodeId(4),
            standing: NodeStanding::Cordoned,
            over: 0,
            force: true,
            author: "ada".into(),
            at_ms: 3_500,
        }),
        Command::GiveCertificate {
            serial: "0a".into(),
            record: OperatorRecord {
                name: "ada".into(),
                role: "admin".into(),
                given_at_ms: 4_000,
                ends_at_ms: 8_000,
            },
        },
        Command::RevokeOperator { name: "bob".into(), at_ms: 5_000 },
        Command::RevokeNode { node_id: NodeId(4) },
        Command::RemoveNode { node_id: NodeId(3) },
        Command::CompareStates,
        Command::Recover { survivor: NodeId(1), cluster_epoch: 1 },
        Command::ChangeSetup(SetupOrder { max_voters: Some(3), ..SetupOrder::default() }),
        Command::SetRolloutPolicy { waves: Some(Pace::default()) },
        publish("four", inline("{    }"), in_waves),
        rollout("wait", 5, RolloutStep::Pause),
        rollout("go on", 5, RolloutStep::Resume),
        rollout("next", 5, RolloutStep::Advance(next_wave)),
        rollout("everywhere", 5, RolloutStep::Confirm),
        Command::Quarantine { revision: Revision(5), why: "n1 died of it".into(), at_ms: 6_000 },
        Command::HoldLevel { hold: Some(hold) },
        Command::SetLevel { from: COMMANDS, to: COMMANDS },
        Command::Later(ignored),
        Command::KeepKeys(KeyOrder::NodeLife { seconds: 3_600 }),
        // What is refused changes nothing: the parts are there when it is tried again, and no place is held.
        part("v", 1),
        part("w", 0),
        publish_over(9, "w"),
        publish_over(5, "w"),
        part("x", 0),
        publish("gone", SiteText::Uploaded { upload: "x".into(), parts: WITHDRAWN }, Terms::default()),
        publish("six", inline("{     }"), Terms { confirm_within_ms: Some(60_000), ..Terms::default() }),
        rollout("nobody saw", 7, RolloutStep::Revert(RevertCause::Unwatched)),
        Command::CreateToken { id: "l".into(), token: for_learners },
        admit_by("l", "n4"),
        // Nobody else may vote, and then somebody may.
        set_vote(1, false),
        set_vote(44, true),
        set_vote(1, false),
    ]
}

fn entries() -> Vec<Entry> {
    let id = |index| LogId::new(openraft::impls::leader_id_adv::LeaderId::new(1, 1).to_committed(), index);
    let numbered = (1..).zip(story());
    numbered.map(|(index, command)| Entry::new(id(index), EntryPayload::Normal(command))).collect()
}

/// A state that has applied all of this.
fn replayed(entries: impl IntoIterator<Item = Entry>) -> ConfigState {
    let machine = StateMachine::unused(PathBuf::new());
    for entry in entries {
        machine.apply_entry(entry).unwrap();
    }
    machine.read().clone()
}

fn lines(entries: &[Entry]) -> String {
    entries.iter().map(|entry| serde_json::to_string(entry).unwrap() + "\n").collect()
}

#[test]
fn the_newest_level_is_on_record() {
    let story = story();
    for level in 1..=COMMANDS {
        assert!(
            story.iter().any(|command| command.needs() == level),
            "no command of level {level} is told of"
        );
    }
    let (entries, base) = (entries(), directory().join(format!("level-{COMMANDS}")));
    let (log, state) = (base.with_extension("log"), base.with_extension("state.json"));
    if env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&log, lines(&entries)).unwrap();
        fs::write(&state, serde_json::to_string_pretty(&replayed(entries.clone())).unwrap() + "\n").unwrap();
    }
    let recorded = fs::read_to_string(&log).unwrap_or_default();
    let hint = "a level that nodes are at never changes: what is written otherwise gets another one (UPDATE_EXPECT=1 \
                records a new level)";
    assert_eq!(lines(&entries), recorded, "{}: {hint}", log.display());
}

#[test]
fn every_recorded_log_leads_to_the_state_that_it_led_to() {
    let files = fs::read_dir(directory()).unwrap().map(|file| file.unwrap().path());
    let logs: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|it| it == "log")).collect();
    assert!(logs.len() > 1, "{logs:?}");
    for path in logs {
        let log = fs::read_to_string(&path).unwrap();
        let state = fs::read_to_string(path.with_extension("state.json")).unwrap();
        let expected: ConfigState = serde_json::from_str(&state).unwrap();
        let entries = log.lines().map(|line| serde_json::from_str::<Entry>(line).unwrap());
        assert_eq!(replayed(entries), expected, "{}", path.display());
        let document = StateDocument { bytes: state.into_bytes().into() };
        assert_eq!(document.read().unwrap(), expected, "a snapshot of {}", path.display());
    }
}

#[test]
fn nothing_is_applied_after_what_is_not_known() {
    let machine = StateMachine::unused(PathBuf::new());
    let mut entries = entries();
    let later = Command::SetLevel { from: COMMANDS, to: COMMANDS + 1 };
    entries.insert(3, Entry::new(entries[3].log_id, EntryPayload::Normal(later)));
    let ended = entries.into_iter().try_for_each(|entry| machine.apply_entry(entry).map(drop));
    let why = ended.unwrap_err().to_string();
    assert!(why.contains(&format!("start a version that knows level {}", COMMANDS + 1)), "{why}");
    assert_eq!(*machine.applied().borrow(), 3);
    assert_eq!(machine.trouble().of_version(), Some(why));

    // Nor is a snapshot of such a cluster taken over.
    let mut state = machine.read().clone();
    state.level.number = COMMANDS + 1;
    let refused = StateDocument::of(&state).unwrap().read().unwrap_err().to_string();
    assert!(refused.contains("its state is of level"), "{refused}");
}
