//! Why a response is not stored.

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Only answers to GET are, and those to POST that show what a GET would.
    Method,
    /// 1xx, 304, a 416 to a request for a range, or a status that `must-understand` is about and we do not know.
    Status,
    /// A 206 that does not say what single part it carries, or that nobody asked for.
    Part,
    /// The request says `no-store`.
    RequestNoStore,
    /// The response says `no-store`.
    NoStore,
    /// It is for one user.
    Private,
    /// The request carried `Authorization` and nothing makes the response shareable.
    Authorization,
    /// It varies over everything, or over too much.
    Vary,
    /// It sets a cookie.
    SetCookie,
    /// Nothing says that it may be used again, and there is no way to ask.
    NoLifetime,
    /// An error that anybody can cause, and the route keeps none.
    RequestError,
    /// It is not what the end of its path promises.
    ContentType,
    /// It is larger than what is kept.
    TooLarge,
    /// It ends where its connection does: nobody can tell whether it is whole.
    UntilClose,
    /// It has more tags and groups than are kept: a purge of the others would not find it.
    TooManyTags,
    /// What it says of queries is at odds with the query that was asked for.
    Query,
}

impl Refusal {
    const ALL: [(Self, &'static str); 16] = [
        (Self::Method, "method"),
        (Self::Status, "status"),
        (Self::Part, "part"),
        (Self::RequestNoStore, "request-no-store"),
        (Self::NoStore, "no-store"),
        (Self::Private, "private"),
        (Self::Authorization, "authorization"),
        (Self::Vary, "vary"),
        (Self::SetCookie, "set-cookie"),
        (Self::NoLifetime, "no-lifetime"),
        (Self::RequestError, "request-error"),
        (Self::ContentType, "content-type"),
        (Self::TooLarge, "too-large"),
        (Self::UntilClose, "until-close"),
        (Self::TooManyTags, "too-many-tags"),
        (Self::Query, "query"),
    ];

    /// The word for it, a token (RFC 9651 §3.3.4).
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(refusal, _)| *refusal == self).map_or("", |(_, word)| word)
    }

    /// What `word` is the word for, if for anything.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == word).map(|(refusal, _)| *refusal)
    }

    /// The next response under the same URL will be no more cacheable than this one.
    pub const fn is_lasting(self) -> bool {
        match self {
            Self::Status
            | Self::NoStore
            | Self::Private
            | Self::Vary
            | Self::SetCookie
            | Self::NoLifetime
            | Self::RequestError
            | Self::ContentType
            | Self::TooLarge
            | Self::UntilClose
            | Self::TooManyTags => true,
            // These are about the request.
            Self::Method | Self::Part | Self::RequestNoStore | Self::Authorization | Self::Query => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        for (refusal, word) in Refusal::ALL {
            assert_eq!(refusal.word(), word);
            assert_eq!(Refusal::of_word(word), Some(refusal));
            assert!(word.bytes().all(|byte| byte == b'-' || byte.is_ascii_lowercase()), "{word:?}");
        }
        let all = Refusal::ALL.map(|(refusal, _)| refusal);
        assert!(all.iter().enumerate().all(|(n, refusal)| *refusal as usize == n), "one is missing");
        assert_eq!((Refusal::of_word(""), Refusal::of_word("No-Store")), (None, None));
    }

    #[test]
    fn what_the_request_was_about_says_nothing_of_the_next_one() {
        for (refusal, word) in Refusal::ALL {
            let is_of_request =
                ["method", "part", "request-no-store", "authorization", "query"].contains(&word);
            assert_eq!(refusal.is_lasting(), !is_of_request, "{word}");
        }
    }
}
