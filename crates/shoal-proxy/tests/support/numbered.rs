//! Origins that tell which of them was asked.

use std::net::SocketAddr;

use super::{Origin, ok};

/// Origins that answer with their number.
pub async fn numbered(count: usize) -> Vec<Origin> {
    let mut origins = Vec::new();
    for n in 0..count {
        origins.push(Origin::start(move |_| ok(&n.to_string())).await);
    }
    origins
}

pub fn addresses(origins: &[Origin]) -> Vec<SocketAddr> {
    origins.iter().map(|origin| origin.address).collect()
}
