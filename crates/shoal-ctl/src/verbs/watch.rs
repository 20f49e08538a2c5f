//! `shoal watch`: revisions as they come.

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use shoal_proto::admin::WatchResponse;

use super::Session;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::output::{Format, is_read, print_line, to_json_line, to_yaml};
use crate::render;

/// What `shoal watch` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal watch
  shoal --addr a:7401,b:7401 --identity ada.json watch --from 7 -o json

A line for each revision, or with -o json a document on a line of its own: `full` has the whole site in `put`, `delta` the
objects that are new or differ, and the names of those in `removed`. It begins with the active revision as a whole, or with
--from with that revision, which may be yet to come; if that is not stored any more, with the active one as a whole.
Revisions are printed once and none is left out: when the node is lost, the next of --addr goes on where it was.
Ends when nobody reads it, or no node answers for as long as --timeout.")]
pub struct WatchArgs {
    /// First revision [default: the active one, whole]
    #[arg(long, value_name = "REV", value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    #[command(flatten)]
    node: NodeArgs,
}

/// A revision as it is printed as data.
#[derive(Serialize)]
struct Document<'a> {
    event: &'a str,
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_revision: Option<u64>,
    put: Value,
    removed: &'a [String],
    author: &'a str,
    message: &'a str,
    at_ms: u64,
    on_trial: bool,
}

impl WatchArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        let mut is_unread = false;
        let failure = session
            .client
            .watch(self.from.unwrap_or(0), |event| {
                is_unread = match event {
                    Some(event) => !print_line(&text_of(&event, session.format)?)?,
                    None => !is_read(),
                };
                match is_unread {
                    true => Err(Failure::local("watch", "nobody reads it any more")),
                    false => Ok(()),
                }
            })
            .await;
        if is_unread { Ok(Exit::Done) } else { Err(failure) }
    }
}

fn text_of(event: &WatchResponse, format: Option<Format>) -> Result<String, Failure> {
    let unreadable = |error| Failure::new(Exit::Remote, "watch", format!("the node sent no site: {error}"));
    let put: Value = serde_json::from_str(&event.put_json).map_err(unreadable)?;
    if matches!(format, None | Some(Format::Table)) {
        return Ok(render::revision(event, &put));
    }
    let document = Document {
        event: &event.event,
        revision: event.revision,
        previous_revision: Some(event.previous_revision).filter(|_| event.event == "delta"),
        put,
        removed: &event.removed,
        author: &event.author,
        message: &event.message,
        at_ms: event.at_ms,
        on_trial: event.on_trial,
    };
    match format {
        Some(Format::Yaml) => Ok(format!("---\n{}", to_yaml(&document)?)),
        _ => to_json_line(&document),
    }
}
