//! The nouns: ids, the site as written, validated and compiled, the replicated state (pure).

mod address;
mod deceptive;
pub mod id;
pub mod log_format;
pub mod path;
mod role;
pub mod site;
pub mod state;
pub mod units;
pub mod view;

pub use deceptive::is_deceptive;
pub use id::{ClusterId, EndpointId, NodeId, Revision, UpstreamId};
pub use role::{Role, UnknownRole};
pub use site::Site;
pub use view::ConfigView;
