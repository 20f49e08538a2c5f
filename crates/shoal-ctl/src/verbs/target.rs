//! A node that a verb is about.

use clap::Args;
use shoal_model::NodeId;

/// Which node is meant.
#[derive(Args, Clone, Debug)]
pub(super) struct TargetArgs {
    /// Its name
    #[arg(value_name = "NAME", required_unless_present = "id", conflicts_with = "id")]
    name: Option<String>,
    /// Its id, as `shoal node list` shows it
    #[arg(long, value_name = "ID")]
    id: Option<NodeId>,
}

impl TargetArgs {
    /// The name and the id, of which one is empty.
    pub(super) fn into_parts(self) -> (String, u64) {
        (self.name.unwrap_or_default(), self.id.map_or(0, |id| id.0))
    }
}
