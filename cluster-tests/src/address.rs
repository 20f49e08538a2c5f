//! Loopback addresses that no other test process uses: ports may then be fixed and never collide.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

/// Port whose holder owns a block.
const LEASE_PORT: u16 = 7399;
/// Blocks 127.1.0.0/24 to 127.254.255.0/24.
const BLOCKS: u32 = 254 * 256;
/// Neighbours tried when a block is taken.
const ATTEMPTS: u32 = 64;

/// 127.x.y.0/24, ours until dropped. The lease is a listening socket, so that other processes see it and it cannot leak.
pub struct LoopbackBlock {
    base: [u8; 2],
    _lease: TcpListener,
}

impl LoopbackBlock {
    /// Claims a free block.
    pub fn claim() -> Result<Self> {
        static CLAIMED: AtomicU32 = AtomicU32::new(0);
        for _ in 0..ATTEMPTS {
            let n = CLAIMED.fetch_add(1, Ordering::Relaxed);
            let block = process::id().wrapping_mul(31).wrapping_add(n) % BLOCKS;
            let base = [1 + (block / 256) as u8, (block % 256) as u8];
            if let Ok(lease) = TcpListener::bind((Ipv4Addr::new(127, base[0], base[1], 1), LEASE_PORT)) {
                return Ok(Self { base, _lease: lease });
            }
        }
        bail!("no free loopback block after {ATTEMPTS} attempts")
    }

    /// The `n`-th address of the block.
    pub fn ip(&self, n: u8) -> IpAddr {
        Ipv4Addr::new(127, self.base[0], self.base[1], n).into()
    }

    /// A port on the `n`-th address.
    pub fn socket(&self, n: u8, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(n), port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_blocks_never_share_an_address() {
        let (one, other) = (LoopbackBlock::claim().unwrap(), LoopbackBlock::claim().unwrap());
        assert_ne!(one.ip(9), other.ip(9));
        let _first = TcpListener::bind(one.socket(9, 8080)).unwrap();
        TcpListener::bind(other.socket(9, 8080)).unwrap();
    }
}
