//! The operator's verbs: each reads its input, asks a node by gRPC and prints the answer.
//!
//! Verbs ([`Verb`]) hold no formatting and renderers ([`render`]) hold no input or output, so what an operator reads is
//! tested as text.

pub mod client;
pub mod contexts;
pub mod convert;
pub mod failure;
pub mod output;
pub mod render;
pub mod site_files;
mod verbs;

pub use client::{Client, NodeArgs, some_time};
pub use failure::{Exit, Failure};
pub use site_files::{SiteFiles, load_site};
pub use verbs::{UpgradeVerb, Verb};

/// Runs `verb` to its end; `root` holds the connection flags that were written before it.
///
/// # Errors
/// Whatever keeps the verb from its answer, with the exit code it ends with. A verb that worked may still end with
/// another code than 0, see [`Exit`].
pub async fn run(verb: Verb, root: NodeArgs) -> Result<Exit, Failure> {
    verbs::run(verb, root).await
}
