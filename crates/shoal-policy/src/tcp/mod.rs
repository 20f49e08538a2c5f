//! What is said on a connection before, or instead of, HTTP: PROXY headers, the TLS greeting, how fast callers may come.

pub mod arrival;
pub mod client_hello;
pub mod proxy_header;
