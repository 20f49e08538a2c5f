//! Who stands in the history, and the id under which a write is done once.

use crate::failure::Failure;

/// `user@host` of whoever runs the verb; only the history reads it, so it need not be proven.
pub(super) fn author() -> String {
    let named = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    let user = named.unwrap_or_else(|| format!("uid{}", rustix::process::getuid().as_raw()));
    let system = rustix::system::uname();
    format!("{user}@{}", system.nodename().to_string_lossy())
}

/// 128 random bits: a write that is sent again after a lost connection is not done twice.
pub(super) fn request_id() -> Result<String, Failure> {
    let mut bits = [0; 16];
    aws_lc_rs::rand::fill(&mut bits).map_err(|_| Failure::local("make a request id", "no randomness"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bits)))
}
