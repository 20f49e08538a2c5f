//! Limits of a listener that end what reaches them: each has a counter of its own.

use shoal_policy::gate::Flood;

/// A limit that has ended a connection or a stream, or refused a head. Those that refuse connections are counted as
/// [`super::TurnedAway`], those that a request answers for as its failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    TlsHandshakeTimeout = 0,
    HeaderTimeout = 1,
    MaxHeaderBytes = 2,
    WriteIdleTimeout = 3,
    MinRate = 4,
    KeepaliveTimeout = 5,
    MaxRequestsPerConnection = 6,
    MaxConnectionAge = 7,
    H2MaxIdleFrames = 8,
    H2MaxResets = 9,
    TunnelIdleTimeout = 10,
    /// No setting: floods that the codec of HTTP/2 counts itself.
    H2Codec = 11,
    /// No setting: an idle connection of whoever has the most, when little room is left for others.
    Crowded = 12,
}

impl Limit {
    /// One of each, in the order of their numbers.
    pub(crate) const ALL: [Self; 13] = [
        Self::TlsHandshakeTimeout,
        Self::HeaderTimeout,
        Self::MaxHeaderBytes,
        Self::WriteIdleTimeout,
        Self::MinRate,
        Self::KeepaliveTimeout,
        Self::MaxRequestsPerConnection,
        Self::MaxConnectionAge,
        Self::H2MaxIdleFrames,
        Self::H2MaxResets,
        Self::TunnelIdleTimeout,
        Self::H2Codec,
        Self::Crowded,
    ];

    /// As the site and the metrics name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TlsHandshakeTimeout => "tls_handshake_timeout",
            Self::HeaderTimeout => "header_timeout",
            Self::MaxHeaderBytes => "max_header_bytes",
            Self::WriteIdleTimeout => "write_idle_timeout",
            Self::MinRate => "min_rate",
            Self::KeepaliveTimeout => "keepalive_timeout",
            Self::MaxRequestsPerConnection => "max_requests_per_connection",
            Self::MaxConnectionAge => "max_connection_age",
            Self::H2MaxIdleFrames => "h2_max_idle_frames",
            Self::H2MaxResets => "h2_max_resets",
            Self::TunnelIdleTimeout => "tunnel_idle_timeout",
            Self::H2Codec => "h2_codec",
            Self::Crowded => "crowded",
        }
    }

    /// The limit with this number.
    pub(crate) fn numbered(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

impl From<Flood> for Limit {
    fn from(flood: Flood) -> Self {
        match flood {
            Flood::IdleFrames => Self::H2MaxIdleFrames,
            Flood::Resets => Self::H2MaxResets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_their_own_number_and_are_called_as_in_the_site() {
        for (number, limit) in Limit::ALL.iter().enumerate() {
            assert_eq!(Limit::numbered(number as u8), Some(*limit));
            if matches!(limit, Limit::H2Codec | Limit::Crowded) {
                continue;
            }
            let value = match limit.name() {
                name if name.ends_with("_timeout") || name.ends_with("_age") => "1s",
                _ => "8192",
            };
            let site = format!(
                "listeners:\n  web: {{ address: \":80\", protocol: http, limits: {{ {}: {value} }} }}\n",
                limit.name()
            );
            let read = shoal_model::site::read_site("site.yaml", &site);
            assert!(read.is_ok(), "{}: {read:?}", limit.name());
        }
        assert_eq!(Limit::numbered(Limit::ALL.len() as u8), None);
    }
}
