//! Values that several directives of a Caddyfile have.

use ipnet::IpNet;
use shoal_model::units::Period;

use crate::convert::directive::Directive;
use crate::convert::draft::Draft;
use crate::convert::units::go_duration;

/// What Caddy calls `private_ranges`.
const PRIVATE: [&str; 6] =
    ["192.168.0.0/16", "172.16.0.0/12", "10.0.0.0/8", "127.0.0.1/8", "fd00::/8", "::1"];

/// Networks by their names, `private_ranges` taken apart.
pub(super) fn trusted(words: &[String]) -> impl Iterator<Item = String> {
    words.iter().flat_map(|word| match word.as_str() {
        "private_ranges" => PRIVATE.map(str::to_owned).to_vec(),
        "static" => Vec::new(),
        word => vec![word.to_owned()],
    })
}

/// Networks that can be read.
pub(super) fn networks(words: &[String]) -> Vec<IpNet> {
    let read =
        |word: &String| word.parse().ok().or_else(|| word.parse().ok().map(|ip: std::net::IpAddr| ip.into()));
    words.iter().filter_map(read).collect()
}

/// A time that is written; what cannot be read, or would be over at once, is reported.
pub(super) fn period(at: &Directive, draft: &mut Draft) -> Option<Period> {
    let time = go_duration(at.first());
    match time {
        Some(time) if !time.0.is_zero() => return Some(time),
        Some(_) => draft.left_out(at, "a time of 0 would be over at once here"),
        None => draft.left_out(at, "it says no time that is known"),
    }
    None
}
