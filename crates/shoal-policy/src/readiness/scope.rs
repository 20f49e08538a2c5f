//! Who leads requests here, and how nodes tell each other whether they should.

use std::fmt::{self, Write};
use std::str::FromStr;

/// Who asks whether a node is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What announces the node's routes.
    Bgp,
    /// What answers its addresses.
    Dns,
    /// A balancer in front of it.
    Lb,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bgp, Self::Dns, Self::Lb];

    /// As it is asked for.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bgp => "bgp",
            Self::Dns => "dns",
            Self::Lb => "lb",
        }
    }
}

/// A scope that there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no scope {0:?}; scopes are bgp, dns and lb")]
pub struct ParseScopeError(String);

impl FromStr for Scope {
    type Err = ParseScopeError;

    fn from_str(text: &str) -> Result<Self, ParseScopeError> {
        let found = Self::ALL.into_iter().find(|scope| scope.name() == text);
        found.ok_or_else(|| ParseScopeError(text.chars().take(40).collect()))
    }
}

/// How a node stands in a scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ready {
    /// It should be sent requests.
    Yes,
    /// It should not.
    #[default]
    No,
    /// It should not, and is all the same: most of its region would leave with it.
    Held,
}

impl Ready {
    /// Requests should be sent to it.
    pub const fn is_sent_requests(self) -> bool {
        matches!(self, Self::Yes | Self::Held)
    }

    const fn mark(self) -> char {
        match self {
            Self::Yes => '+',
            Self::No => '-',
            Self::Held => '=',
        }
    }
}

/// How a node stands in every scope. Written `bgp+ dns= lb-`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadyIn([Ready; Scope::ALL.len()]);

impl ReadyIn {
    /// The same in every scope.
    pub const fn all(ready: Ready) -> Self {
        Self([ready; Scope::ALL.len()])
    }

    /// In one scope.
    pub const fn of(&self, scope: Scope) -> Ready {
        self.0[scope as usize]
    }

    /// Says how it stands in one scope.
    pub const fn set(&mut self, scope: Scope, ready: Ready) {
        self.0[scope as usize] = ready;
    }

    /// Reads what another node says; scopes of a later version, and what makes no sense, are left out.
    pub fn read(text: &str) -> Self {
        let mut all = Self::default();
        for word in text.split(' ').take(2 * Scope::ALL.len()) {
            for ready in [Ready::Yes, Ready::Held] {
                if let Some(Ok(scope)) = word.strip_suffix(ready.mark()).map(str::parse) {
                    all.set(scope, ready);
                }
            }
        }
        all
    }
}

impl fmt::Display for ReadyIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, scope) in Scope::ALL.into_iter().enumerate() {
            f.write_str(if n == 0 { "" } else { " " })?;
            f.write_str(scope.name())?;
            f.write_char(self.of(scope).mark())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_back() {
        let mut all = ReadyIn::all(Ready::Yes);
        all.set(Scope::Dns, Ready::Held);
        all.set(Scope::Lb, Ready::No);
        assert_eq!(all.to_string(), "bgp+ dns= lb-");
        let check =
            |text: &str, expected: &str| assert_eq!(ReadyIn::read(text).to_string(), expected, "{text}");
        check("bgp+ dns= lb-", "bgp+ dns= lb-");
        check("ospf+ bgp+", "bgp+ dns- lb-");
        check("", "bgp- dns- lb-");
        check("+ = bgp dns++ lb+=", "bgp- dns- lb-");
        assert_eq!("dns".parse(), Ok(Scope::Dns));
        assert_eq!(
            "DNS".parse::<Scope>().unwrap_err().to_string(),
            "there is no scope \"DNS\"; scopes are bgp, dns and lb"
        );
    }
}
