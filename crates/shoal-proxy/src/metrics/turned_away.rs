//! Connections that are closed before they are served.

/// Why a connection was closed before it was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    /// The listener has as many as it may.
    ListenerFull = 0,
    /// Its address has as many as it may.
    AddressFull = 1,
    /// New connections come too fast.
    TooFast = 2,
    /// It does not say on whose behalf it comes, or may not.
    ProxyHeader = 3,
    /// The node has as many, on all listeners, as it may.
    NodeFull = 4,
    /// New connections of its address come too fast.
    AddressTooFast = 5,
}

impl TurnedAway {
    /// One of each, in the order of their numbers.
    pub(crate) const ALL: [Self; 6] = [
        Self::ListenerFull,
        Self::AddressFull,
        Self::TooFast,
        Self::ProxyHeader,
        Self::NodeFull,
        Self::AddressTooFast,
    ];

    /// As metrics name it.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::ListenerFull => "listener_full",
            Self::AddressFull => "address_full",
            Self::TooFast => "too_fast",
            Self::ProxyHeader => "proxy_header",
            Self::NodeFull => "node_full",
            Self::AddressTooFast => "address_too_fast",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_their_own_number() {
        for (number, reason) in TurnedAway::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
        }
    }
}
