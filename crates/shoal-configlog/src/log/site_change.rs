//! Publishing a site of any size: large ones go ahead in parts, since entries stay small. Parts of what does not become a
//! revision are withdrawn: there is room for few at once, on all nodes together.

use shoal_cluster::identity;
use shoal_model::Revision;
use shoal_model::state::{Command, MAX_UPLOADS, Reply, SiteText, Terms, WITHDRAWN};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::asked::{asker, on_behalf_of};
use super::{ConfigLog, ProposeError, Proposed, lock};

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
    /// Makes a site the next revision. When the caller is gone before all parts are written, it does not become one.
    pub async fn propose_site(&self, mut site: SiteChange) -> Result<Proposed, ProposeError> {
        let text = std::mem::take(&mut site.text);
        if text.len() <= PART_BYTES {
            return self.propose(site.into_command(SiteText::Inline(text))).await;
        }
        let (log, asker) = (self.clone(), asker());
        let (_waiting, is_waited_for) = oneshot::channel();
        // A task of its own: it ends in order whatever becomes of the caller.
        let writing = tokio::spawn(async move {
            let upload = identity::random_id();
            let in_parts = log.publish_in_parts(site, &text, upload.clone(), is_waited_for);
            let proposed = on_behalf_of(asker, in_parts).await;
            if !matches!(proposed, Ok(Proposed { reply: Reply::Published(_), .. })) {
                log.leave_over(upload);
            }
            // Nobody waits for that: without a quorum it takes as long as any change.
            tokio::spawn(async move { log.withdraw_left_over().await });
            proposed
        });
        writing.await.unwrap_or_else(|_| {
            Err(ProposeError::OutcomeUnknown { reason: "the task that wrote it has ended badly".to_owned() })
        })
    }

    async fn publish_in_parts(
        &self,
        site: SiteChange,
        text: &str,
        upload: String,
        mut is_waited_for: oneshot::Receiver<()>,
    ) -> Result<Proposed, ProposeError> {
        let mut parts = 0;
        for text in split(text, PART_BYTES) {
            if is_waited_for.try_recv() == Err(TryRecvError::Closed) {
                let reason = "whoever asked for it is gone".to_owned();
                return Err(ProposeError::OutcomeUnknown { reason });
            }
            let (upload, text, at_ms) = (upload.clone(), text.to_owned(), site.at_ms);
            let proposed = self.propose(Command::UploadPart { upload, part: parts, text, at_ms }).await?;
            if proposed.reply != Reply::Done {
                return Ok(proposed);
            }
            parts += 1;
        }
        self.propose(site.into_command(SiteText::Uploaded { upload, parts })).await
    }

    /// Its parts are to be withdrawn. Of more than may be under way the first ones were forgotten by all.
    fn leave_over(&self, upload: String) {
        let mut left_over = lock(&self.shared.left_over);
        left_over.push_back(upload);
        if left_over.len() > MAX_UPLOADS {
            left_over.pop_front();
        }
    }

    /// Withdraws the parts of what this node has not made a revision. What cannot be withdrawn for want of a quorum is when
    /// the next large site comes, or forgotten after the ten minutes that anything may wait.
    async fn withdraw_left_over(&self) {
        loop {
            let Some(upload) = lock(&self.shared.left_over).pop_front() else { return };
            let text = SiteText::Uploaded { upload: upload.clone(), parts: WITHDRAWN };
            if let Err(error) = self.propose(SiteChange::default().into_command(text)).await {
                tracing::debug!(%error, "parts of a site are not withdrawn yet");
                return self.leave_over(upload);
            }
        }
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
