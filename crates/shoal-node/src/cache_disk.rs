//! How much of which disk the cache gets.

use std::fs;
use std::io;
use std::path::Path;

use shoal_cache::{DiskSettings, LEAST_DISK_BYTES, distrust_disk};

use crate::settings::{CacheDisk, RunSettings};

/// Where objects are kept, in the data directory.
pub(crate) const DIRECTORY: &str = "cache";
/// Of what is free, this fraction.
const SHARE: u64 = 10;
/// But no more than this, bytes: whoever wants more says so.
const MOST_BYTES: u64 = 10 << 30;

/// Where objects are kept on disk; `None` = nowhere: what is there from before is not to be used again.
pub fn disk_settings(settings: &RunSettings) -> Option<DiskSettings> {
    let directory = settings.cache_dir.clone().unwrap_or_else(|| settings.data_dir.join(DIRECTORY));
    let budget_bytes = budget_bytes(settings.cache_disk, &directory);
    if budget_bytes.is_none() {
        distrust_disk(&directory);
    }
    Some(DiskSettings { budget_bytes: budget_bytes?, directory })
}

fn budget_bytes(wanted: CacheDisk, directory: &Path) -> Option<u64> {
    match wanted {
        CacheDisk::Off => None,
        CacheDisk::Bytes(bytes) => Some(bytes.max(LEAST_DISK_BYTES)),
        CacheDisk::Auto => match look(directory) {
            Ok((free, used)) => share(free, used),
            Err(error) => {
                let directory = directory.display();
                tracing::warn!(%directory, %error, "nothing is cached on disk: cannot tell what is free there");
                None
            }
        },
    }
}

/// Bytes that are free where `directory` is, and bytes of what is in it.
fn look(directory: &Path) -> io::Result<(u64, u64)> {
    fs::create_dir_all(directory)?;
    let space = rustix::fs::statvfs(directory)?;
    let mut used = 0;
    for file in fs::read_dir(directory)? {
        used += file?.metadata()?.len();
    }
    Ok((space.f_bavail.saturating_mul(space.f_frsize), used))
}

/// What the cache may have where nobody says how much; `None` = there is too little. It does not shrink by what it has.
fn share(free: u64, used: u64) -> Option<u64> {
    let share = (free.saturating_add(used) / SHARE).min(MOST_BYTES);
    (share >= LEAST_DISK_BYTES).then_some(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_of_what_would_be_free_without_the_cache() {
        let check =
            |free, used, expected| assert_eq!(share(free, used), expected, "{free} free, {used} used");
        check(100 << 30, 0, Some(10 << 30));
        check(90 << 30, 10 << 30, Some(10 << 30));
        check(u64::MAX, 5, Some(10 << 30));
        check(1000 << 20, 0, Some(100 << 20));
        check(79 << 20, 0, None);
        check(79 << 20, 1 << 20, Some(8 << 20));
    }
}
