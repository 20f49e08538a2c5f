//! `shoal cache top`.

use clap::{Args, ValueEnum};
use shoal_model::units::{Period, millis_u32};
use shoal_proto::admin::CacheTopRequest;

use crate::client::{NodeArgs, some_time};
use crate::failure::{Exit, Failure};
use crate::render;
use crate::verbs::Session;

/// Show the objects in memory that are used most now, on all nodes together or on one
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal cache top
  shoal cache top --by saved --limit 50 --node a

Each node counts, for a moment, the hits of the 10000 objects of which there was most before; with --by rate, of those that
were used in the last 10 s. SAVED is what no origin had to send since the object was stored, as if each hit got the whole.")]
pub(super) struct TopArgs {
    /// What comes first: hits per second, hits since it was stored, bytes of its body, bytes that no origin had to send
    #[arg(long, value_enum, default_value_t = By::Rate)]
    by: By,
    /// How many objects
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    /// For how long hits are counted, 1s to 10s
    #[arg(long = "for", value_name = "TIME", value_parser = some_time, default_value = "2s")]
    window: Period,
    /// Only this node, by name [default: all, hits on the same object added up]
    #[arg(long = "node", value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    node: NodeArgs,
}

/// What there is to be most of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    Rate,
    Hits,
    Size,
    Saved,
}

impl TopArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        let order = match self.by {
            By::Rate => "rate",
            By::Hits => "hits",
            By::Size => "size",
            By::Saved => "saved",
        };
        let request = CacheTopRequest {
            node: self.name.unwrap_or_default(),
            limit: self.limit,
            window_ms: millis_u32(self.window.0),
            order: order.to_owned(),
        };
        let response = session.client.cache_top(request).await?;
        session.print(&response, render::hottest)?;
        Ok(Exit::Done)
    }
}
