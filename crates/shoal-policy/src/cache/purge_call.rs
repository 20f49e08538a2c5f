//! What a `PURGE` request asks for besides its URL, in one field of its own.

use http::header::{HeaderMap, HeaderName};
use shoal_model::state::PurgeKind;

static SHOAL_PURGE: HeaderName = HeaderName::from_static("shoal-purge");

/// How a URL is to be purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurgeCall {
    /// Forget (the default), or only treat as stale.
    pub kind: PurgeKind,
    /// Answer when no node serves it any more, not as soon as that is in the log.
    pub wait_complete: bool,
}

impl PurgeCall {
    /// Reads `Shoal-Purge: soft, wait=complete`: words in any order, on any line. An unknown word is an error, told by its
    /// text: whoever wrote it believes that it means something.
    pub fn read(fields: &HeaderMap) -> Result<Self, String> {
        let mut call = Self { kind: PurgeKind::Hard, wait_complete: false };
        for line in fields.get_all(&SHOAL_PURGE) {
            let line = line.to_str().map_err(|_| "Shoal-Purge is not plain text".to_owned())?;
            for word in line.split(',').map(str::trim).filter(|word| !word.is_empty()) {
                match word.to_ascii_lowercase().as_str() {
                    "hard" => call.kind = PurgeKind::Hard,
                    "soft" => call.kind = PurgeKind::Soft,
                    "wait=committed" => call.wait_complete = false,
                    "wait=complete" => call.wait_complete = true,
                    _ => {
                        let known = "hard, soft, wait=committed and wait=complete";
                        return Err(format!("{word:?} in Shoal-Purge means nothing; there are {known}"));
                    }
                }
            }
        }
        Ok(call)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn words_say_how() {
        let check = |lines: &[&'static str], expected: Result<(PurgeKind, bool), &str>| {
            let mut fields = HeaderMap::new();
            for line in lines {
                fields.append(&SHOAL_PURGE, HeaderValue::from_static(line));
            }
            match (PurgeCall::read(&fields), expected) {
                (Ok(read), Ok((kind, wait_complete))) => assert_eq!(read, PurgeCall { kind, wait_complete }),
                (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
                (read, _) => panic!("{lines:?}: {read:?}"),
            }
        };
        check(&[], Ok((PurgeKind::Hard, false)));
        check(&[""], Ok((PurgeKind::Hard, false)));
        check(&["soft"], Ok((PurgeKind::Soft, false)));
        check(&["Soft ,wait=complete"], Ok((PurgeKind::Soft, true)));
        check(&["wait=complete", "hard"], Ok((PurgeKind::Hard, true)));
        check(&["wait=complete, wait=committed"], Ok((PurgeKind::Hard, false)));
        check(&["gently"], Err("\"gently\" in Shoal-Purge means nothing"));
        check(&["soft; wait"], Err("means nothing"));
    }
}
