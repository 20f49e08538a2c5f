//! Levels: which commands the nodes of a cluster may write. A version knows all up to a number of its own; the cluster agrees
//! on one that every member knows, so that nobody meets a command in the log that it cannot apply.
//!
//! Up to [`LEVELS`] a command is written as a variant of [`Command`] by itself. What was added since travels in an [`Envelope`],
//! which every version can read: one that does not know the command then knows at least which version would, and whether it
//! may go on without it.

use serde::{Deserialize, Serialize};

use super::command::Command;

/// The least [`COMMANDS`](super::COMMANDS) of a node that knows [`Command::SetLevel`], [`Command::HoldLevel`] and
/// [`Command::Later`].
pub const LEVELS: u32 = super::command::KEEPING_KEYS + 1;
/// The lowest level of a cluster that this version can be a node of: that of the release before this one. There is none yet.
pub const OLDEST_LEVEL: u32 = 0;

/// What the nodes of a cluster may write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterLevel {
    /// Commands up to this number; 0 = of before there were levels.
    pub number: u32,
    /// Why it is not raised by itself, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Hold>,
}

/// Somebody does not want the level to be raised yet: as long as it is not, nodes may go back to the version before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Who.
    pub by: String,
    /// Why.
    pub message: String,
    /// Unix milliseconds.
    pub at_ms: u64,
}

impl ClusterLevel {
    /// Nothing was ever agreed upon.
    pub(super) fn is_unset(&self) -> bool {
        *self == Self::default()
    }
}

/// A command as versions see it that may not know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The least number of commands that a node has to know.
    pub cmd_version: u32,
    /// What it is called.
    pub kind: String,
    /// Who does not know it may leave it out: nothing that nodes agree on depends on it.
    #[serde(default)]
    pub may_ignore: bool,
    /// The command, JSON.
    pub payload: String,
}

/// A command of the log that this version cannot apply, or what came of some.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownCommand {
    /// It was added later.
    #[error(
        "its log has a command ({kind}) of level {needs}, and this version knows up to level {known}: start a version that \
         knows level {needs}"
    )]
    TooNew {
        /// What is to be done.
        kind: String,
        /// The level that knows it.
        needs: u32,
        /// What this version knows.
        known: u32,
    },
    /// What later commands have led to cannot be taken over either.
    #[error(
        "its state is of level {needs}, and this version knows up to level {known}: start a version that knows level {needs}"
    )]
    NewState {
        /// The level that knows it.
        needs: u32,
        /// What this version knows.
        known: u32,
    },
    /// It claims to be known, and is not.
    #[error("a command ({kind}) of level {needs} cannot be read: {why}")]
    Unreadable {
        /// What it is called.
        kind: String,
        /// The level that knows it.
        needs: u32,
        /// What is wrong with it.
        why: String,
    },
}

impl Command {
    /// The same in an [`Envelope`] that says which level it `needs`; who has asked for it stays outside.
    pub fn sealed(self, needs: u32) -> Self {
        match self {
            Self::AskedBy { askers, command } => {
                Self::AskedBy { askers, command: Box::new(command.sealed(needs)) }
            }
            Self::Later(envelope) => Self::Later(envelope),
            command => {
                let payload = serde_json::to_string(&command).unwrap_or_default();
                let kind = command.to_string();
                Self::Later(Envelope { cmd_version: needs, kind, may_ignore: false, payload })
            }
        }
    }

    /// The command as a node applies it that knows those up to `known`: out of its envelope. `None` = it may be left out.
    pub fn opened(self, known: u32) -> Result<Option<Self>, UnknownCommand> {
        match self {
            Self::AskedBy { askers, command } => {
                let command = command.opened(known)?;
                Ok(command.map(|command| Self::AskedBy { askers, command: Box::new(command) }))
            }
            Self::Later(envelope) => envelope.opened(known),
            command => command.check_known(known).map(|()| Some(command)),
        }
    }

    /// Whether a node that knows commands up to `known` applies it or leaves it out, as far as can be seen without opening it.
    pub fn check_known(&self, known: u32) -> Result<(), UnknownCommand> {
        let innermost = self.innermost();
        let needs = match innermost {
            Self::Later(envelope) if envelope.may_ignore => return Ok(()),
            Self::Later(envelope) => envelope.cmd_version,
            command => command.needs(),
        };
        match needs > known {
            true => Err(UnknownCommand::TooNew { kind: innermost.kind(), needs, known }),
            false => Ok(()),
        }
    }

    /// What it is called, in an envelope or without one.
    pub fn kind(&self) -> String {
        match self.innermost() {
            Self::Later(envelope) => envelope.kind.clone(),
            command => command.to_string(),
        }
    }
}

impl Envelope {
    fn opened(self, known: u32) -> Result<Option<Command>, UnknownCommand> {
        let Self { cmd_version: needs, kind, may_ignore, payload } = self;
        if needs > known {
            return if may_ignore { Ok(None) } else { Err(UnknownCommand::TooNew { kind, needs, known }) };
        }
        match serde_json::from_str(&payload) {
            // One layer is all there ever is: a file made by hand must not have this end in another one.
            Ok(Command::Later(_) | Command::AskedBy { .. }) => {
                Err(UnknownCommand::Unreadable { kind, needs, why: "it is wrapped once more".to_owned() })
            }
            Ok(command) => Ok(Some(command)),
            Err(error) => Err(UnknownCommand::Unreadable { kind, needs, why: error.to_string() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Asker, COMMANDS, ConfigState, Refusal, Reply, TokenRecord};
    use super::*;

    fn token() -> Command {
        Command::CreateToken { id: "t".into(), token: TokenRecord::default() }
    }

    fn asked(command: Command) -> Command {
        command.asked_by(vec![Asker::default()])
    }

    #[test]
    fn who_knows_a_command_opens_it_and_nobody_else_does() {
        let needs = COMMANDS + 1;
        let too_new = |kind: &str, known| UnknownCommand::TooNew { kind: kind.into(), needs, known };
        for wrap in [std::convert::identity::<Command>, asked] {
            let sealed = wrap(token()).sealed(needs);
            assert_eq!(sealed.needs(), needs, "{sealed:?}");
            let text = serde_json::to_string(&sealed).unwrap();
            let read: Command = serde_json::from_str(&text).unwrap();
            assert_eq!(read.clone().opened(needs), Ok(Some(wrap(token()))));
            assert_eq!(read.check_known(needs), Ok(()));
            assert_eq!(read.check_known(COMMANDS), Err(too_new("create token", COMMANDS)));
            assert_eq!(read.opened(COMMANDS), Err(too_new("create token", COMMANDS)));
        }
        let level = Command::SetLevel { from: COMMANDS, to: needs };
        assert_eq!(level.clone().opened(COMMANDS), Err(too_new("set level", COMMANDS)));
        assert_eq!(level.clone().opened(needs), Ok(Some(level)));
    }

    #[test]
    fn what_may_be_ignored_is_left_out() {
        let envelope = Envelope {
            cmd_version: COMMANDS + 1,
            kind: "wave".into(),
            may_ignore: true,
            payload: "?".into(),
        };
        assert_eq!(Command::Later(envelope.clone()).check_known(COMMANDS), Ok(()));
        assert_eq!(Command::Later(envelope.clone()).opened(COMMANDS), Ok(None));
        assert_eq!(asked(Command::Later(envelope.clone())).opened(COMMANDS), Ok(None));
        let opened = Command::Later(envelope).opened(COMMANDS + 1);
        assert!(matches!(opened, Err(UnknownCommand::Unreadable { .. })), "{opened:?}");
    }

    #[test]
    fn envelopes_hold_one_command_and_no_envelope() {
        let inner = serde_json::to_string(&token().sealed(LEVELS)).unwrap();
        let envelope = Envelope { cmd_version: LEVELS, kind: "x".into(), may_ignore: false, payload: inner };
        let opened = Command::Later(envelope).opened(COMMANDS);
        assert!(matches!(opened, Err(UnknownCommand::Unreadable { .. })), "{opened:?}");
    }

    #[test]
    fn the_level_is_raised_from_what_was_seen_and_never_lowered() {
        let mut state = ConfigState::default();
        let changed = |now| Reply::Refused(Refusal::LevelChanged { now });
        let hold = Hold { by: "ada".into(), message: "a night's sleep".into(), at_ms: 7 };
        for (index, command, expected) in [
            (1, Command::SetLevel { from: 0, to: 7 }, Reply::Done),
            (2, Command::SetLevel { from: 0, to: 8 }, changed(7)),
            (3, Command::SetLevel { from: 7, to: 6 }, changed(7)),
            (4, Command::HoldLevel { hold: Some(hold.clone()) }, Reply::Done),
        ] {
            assert_eq!(state.apply(index, command), expected, "{index}");
        }
        assert_eq!(state.level, ClusterLevel { number: 7, held: Some(hold) });
        state.apply(5, Command::SetLevel { from: 7, to: 8 });
        assert_eq!(state.level, ClusterLevel { number: 8, held: None }, "there is nothing to hold any more");
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<ConfigState>(&text).unwrap(), state);
    }
}
