//! Publishing a site of any size: large ones go ahead in parts, since entries stay small.

use aws_lc_rs::rand;
use shoal_model::Revision;
use shoal_model::state::{Command, SiteText, Terms};

use super::{ConfigLog, ProposeError, Proposed};

/// A larger site text is uploaded in parts of this many bytes. JSON in JSON grows, but not to
/// [`MAX_ENTRY_BYTES`](crate::network::MAX_ENTRY_BYTES).
const PART_BYTES: usize = 256 << 10;

/// A site on its way to become a revision.
#[derive(Clone, Debug, Default)]
pub struct SiteChange {
    /// The same id is applied once.
    pub request_id: String,
    /// Refused unless this is the active revision.
    pub expected: Option<Revision>,
    /// Canonical JSON, private keys sealed.
    pub text: String,
    /// Who.
    pub author: String,
    /// Why.
    pub message: String,
    /// Unix milliseconds.
    pub at_ms: u64,
    /// Objects added, removed, changed.
    pub counts: [u32; 3],
    /// Whether it stays.
    pub terms: Terms,
}

impl ConfigLog {
    /// Makes a site the next revision.
    pub async fn propose_site(&self, mut site: SiteChange) -> Result<Proposed, ProposeError> {
        let text = std::mem::take(&mut site.text);
        let text = if text.len() <= PART_BYTES {
            SiteText::Inline(text)
        } else {
            self.upload(&text, site.at_ms).await?
        };
        self.propose(site.into_command(text)).await
    }

    async fn upload(&self, text: &str, at_ms: u64) -> Result<SiteText, ProposeError> {
        let upload = random_id();
        let mut parts = 0;
        for text in split(text, PART_BYTES) {
            let text = text.to_owned();
            self.propose(Command::UploadPart { upload: upload.clone(), part: parts, text, at_ms }).await?;
            parts += 1;
        }
        Ok(SiteText::Uploaded { upload, parts })
    }
}

impl SiteChange {
    fn into_command(self, site: SiteText) -> Command {
        Command::Publish {
            request_id: self.request_id,
            expected: self.expected,
            site,
            author: self.author,
            message: self.message,
            at_ms: self.at_ms,
            counts: self.counts,
            terms: self.terms,
        }
    }
}

/// Pieces of at most `size` bytes, cut between characters.
fn split(text: &str, size: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(size));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// 64 random bits, hex. Without randomness ids would be zeros: two uploads at once would then be refused, not mixed.
fn random_id() -> String {
    let mut bytes = [0; 8];
    if rand::fill(&mut bytes).is_err() {
        tracing::warn!("no randomness for an upload id");
    }
    format!("{:016x}", u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        let check = |text: &str, size, expected: &[&str]| {
            let pieces: Vec<_> = split(text, size).collect();
            assert_eq!(pieces, expected);
        };
        check("", 4, &[]);
        check("abcd", 4, &["abcd"]);
        check("abcde", 4, &["abcd", "e"]);
        check("abcöé", 4, &["abc", "öé"]);
    }
}
