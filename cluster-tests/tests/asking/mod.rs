//! Nodes asked over the admin service, whatever they hear of each other, for changes of one route.

use std::time::Duration;

use cluster_tests::NodeProcess;
use serde_json::json;
use shoal_ctl::{Client, Failure};
use shoal_proto::admin::ApplyRequest;

/// The way to `node`, which has so much time for an answer.
pub fn client_of(node: &NodeProcess, patience: Duration) -> Client {
    Client::local(node.data_dir().join("admin.sock"), patience)
}

/// Makes `route` say `value`, over the upstream `shop`; acknowledged when it is in the log for good.
pub fn change_of(route: &str, value: u64, patience: Duration) -> ApplyRequest {
    let says = json!({ "hosts": [format!("v{value}.example.com")], "path_prefix": "/", "upstream": "shop" });
    ApplyRequest {
        site_json: json!({ "routes": { route: says } }).to_string(),
        request_id: format!("value-{value}"),
        timeout_ms: patience.as_millis() as u32,
        no_wait: true,
        ..ApplyRequest::default()
    }
}

/// Why a node did not do what it was asked.
pub fn in_words(failure: Failure) -> anyhow::Error {
    anyhow::anyhow!("{}", failure.to_text())
}
