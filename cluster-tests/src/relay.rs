//! A relay between regions: everything that one region sends to another goes through it, and takes as long, gets lost, comes
//! twice, late or damaged as the [`Wire`] says.
//!
//! Kernels without `netem` cannot do that by themselves. Each place has a TUN device for what is not of its region; the
//! packets that the kernel writes into it are read, held and written into the device of the place they are for.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Where TUN devices come from.
const DEVICES: &str = "/dev/net/tun";
/// The longest packet that a device hands over, and more.
const PACKET: usize = 4096;
/// Packets that are held at once; further ones are lost, as in a router.
const HELD: usize = 20_000;
/// In the header of IPv4: the protocol, and where the packet is to go.
const PROTOCOL: usize = 9;
const DESTINATION: std::ops::Range<usize> = 16..20;
/// The protocol UDP, and what its header is made of.
const UDP: u8 = 17;
const UDP_HEADER: usize = 8;
const UDP_CHECKSUM: std::ops::Range<usize> = 6..8;

/// What becomes of packets between regions. The default is a wire without length or faults.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wire {
    /// One way.
    pub delay: Duration,
    /// The share of packets that take up to as long again, and so are overtaken.
    pub late: f64,
    /// The share that never arrives.
    pub lost: f64,
    /// The share that arrives twice.
    pub doubled: f64,
    /// The share of UDP datagrams that arrive with a bit turned over, and no checksum that would show it. What is damaged in TCP
    /// the kernel drops: it is lost.
    pub damaged: f64,
}

/// How many packets went between regions, and what became of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Carried {
    /// In all.
    pub packets: u64,
    /// See [`Wire::late`].
    pub late: u64,
    /// See [`Wire::lost`].
    pub lost: u64,
    /// See [`Wire::doubled`].
    pub doubled: u64,
    /// See [`Wire::damaged`].
    pub damaged: u64,
    /// Between regions that were cut off from each other.
    pub cut: u64,
}

/// The relay. Its threads end with the devices.
#[derive(Clone, Default)]
pub(crate) struct Relay {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Something is held that was not.
    held: Condvar,
}

#[derive(Default)]
struct State {
    wire: Wire,
    doors: Vec<Door>,
    /// Regions that nothing goes into or comes out of.
    cut: BTreeSet<usize>,
    held: BinaryHeap<Reverse<Held>>,
    /// How many ever were.
    numbered: u64,
    chance: Chance,
    carried: Carried,
    delivers: bool,
}

/// Where packets of a place come out and go in.
struct Door {
    address: Ipv4Addr,
    region: usize,
    device: Arc<File>,
}

/// A packet on its way; those that are due first come first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    due: Instant,
    number: u64,
    door: usize,
    packet: Vec<u8>,
}

/// Numbers that look random (xorshift), the same in every story.
struct Chance(u64);

impl Default for Chance {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Between 0 and 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn happens(&mut self, share: f64) -> bool {
        share > 0.0 && self.share() < share
    }
}

impl Relay {
    /// Carries from now on what comes out of `device`, which is that of the place with `address` in `region`.
    pub(crate) fn add(&self, address: Ipv4Addr, region: usize, device: File) -> Result<()> {
        let device = Arc::new(device);
        let mut state = self.shared.lock();
        state.doors.push(Door { address, region, device: device.clone() });
        let shared = self.shared.clone();
        let reading = thread::Builder::new().name(format!("relay {address}"));
        reading.spawn(move || shared.take_all(&device, region)).context("start a thread")?;
        if !std::mem::replace(&mut state.delivers, true) {
            let shared = self.shared.clone();
            let delivering = thread::Builder::new().name("relay".to_owned());
            delivering.spawn(move || shared.deliver_all()).context("start a thread")?;
        }
        Ok(())
    }

    /// What is sent from now on goes over this wire.
    pub(crate) fn lay(&self, wire: Wire) {
        self.shared.lock().wire = wire;
    }

    /// Nothing goes into `region` or comes out of it from now on, or it does again. What is under way is lost.
    pub(crate) fn set_cut(&self, region: usize, is_cut: bool) {
        let mut state = self.shared.lock();
        match is_cut {
            true => _ = state.cut.insert(region),
            false => _ = state.cut.remove(&region),
        }
        state.held.clear();
    }

    /// What was carried so far.
    pub(crate) fn carried(&self) -> Carried {
        self.shared.lock().carried
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_all(&self, mut device: &File, region: usize) {
        let mut packet = [0; PACKET];
        while let Ok(length) = device.read(&mut packet) {
            self.lock().take(region, &packet[..length]);
            self.held.notify_one();
        }
    }

    fn deliver_all(&self) {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let next = state.held.peek().map(|Reverse(held)| held.due.saturating_duration_since(now));
            state = match next {
                Some(Duration::ZERO) => {
                    if let Some(Reverse(held)) = state.held.pop() {
                        let mut device = &*state.doors[held.door].device;
                        // A place may be gone, or not be there yet: then nobody misses it.
                        _ = device.write(&held.packet);
                    }
                    state
                }
                Some(wait) => self.held.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0,
                None => self.held.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl State {
    fn take(&mut self, from: usize, packet: &[u8]) {
        let Some(door) = self.door_of(packet) else { return };
        self.carried.packets += 1;
        if self.cut.contains(&from) || self.cut.contains(&self.doors[door].region) {
            self.carried.cut += 1;
            return;
        }
        let Wire { late, lost, doubled, damaged, .. } = self.wire;
        if self.held.len() >= HELD || self.chance.happens(lost) {
            self.carried.lost += 1;
            return;
        }
        let mut packet = packet.to_vec();
        if is_udp(&packet) && self.chance.happens(damaged) {
            self.carried.damaged += 1;
            damage(&mut packet, self.chance.next());
        }
        if self.chance.happens(doubled) {
            self.carried.doubled += 1;
            self.hold(door, packet.clone(), late);
        }
        self.hold(door, packet, late);
    }

    fn hold(&mut self, door: usize, packet: Vec<u8>, late: f64) {
        let mut delay = self.wire.delay;
        if self.chance.happens(late) {
            self.carried.late += 1;
            delay += delay.mul_f64(self.chance.share());
        }
        self.numbered += 1;
        let number = self.numbered;
        self.held.push(Reverse(Held { due: Instant::now() + delay, number, door, packet }));
    }

    fn door_of(&self, packet: &[u8]) -> Option<usize> {
        // The kernel looks for routers of IPv6, too.
        let is_ipv4 = packet.first().is_some_and(|first| first >> 4 == 4);
        let to: [u8; 4] = packet.get(DESTINATION)?.try_into().ok()?;
        self.doors.iter().position(|door| is_ipv4 && door.address.octets() == to)
    }
}

/// Where the header of IPv4 ends.
fn header_of(packet: &[u8]) -> usize {
    usize::from(packet[0] & 0x0f) * 4
}

fn is_udp(packet: &[u8]) -> bool {
    packet.get(PROTOCOL) == Some(&UDP) && packet.len() > header_of(packet) + UDP_HEADER
}

/// Turns a bit of a datagram over, and takes its checksum out: what the kernel would find is not what is to be shown.
fn damage(packet: &mut [u8], chance: u64) {
    let header = header_of(packet);
    let datagram = &mut packet[header..];
    datagram[UDP_CHECKSUM].fill(0);
    let bits = ((datagram.len() - UDP_HEADER) * 8) as u64;
    let bit = (chance % bits) as usize;
    datagram[UDP_HEADER + bit / 8] ^= 1 << (bit % 8);
}

/// A TUN device called `name` in this network namespace; whatever becomes of it, the file is its other end.
#[allow(unsafe_code, reason = "the system call has no safe form")]
pub(crate) fn open_device(name: &str) -> Result<File> {
    /// `struct ifreq` of netdevice(7), as large as its largest member.
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        flags: u16,
        rest: [u8; 22],
    }
    const TUNSETIFF: rustix::ioctl::Opcode = 0x4004_54ca;
    /// Packets of IP, with nothing before them.
    const IFF_TUN_NO_PI: u16 = 0x1001;
    let device = OpenOptions::new().read(true).write(true).open(DEVICES).context(DEVICES)?;
    let mut request = Request { name: [0; 16], flags: IFF_TUN_NO_PI, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which this is in size and layout.
    let made = unsafe {
        rustix::ioctl::ioctl(&device, rustix::ioctl::Updater::<TUNSETIFF, Request>::new(&mut request))
    };
    made.with_context(|| format!("make the device {name}"))?;
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A datagram of four bytes from 10.77.1.11 to 10.77.2.12.
    fn datagram() -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, UDP, 0, 0, 10, 77, 1, 11, 10, 77, 2, 12];
        packet.extend([0x1c, 0xe8, 0x1c, 0xe8, 0, 12, 0xab, 0xcd, 1, 2, 3, 4]);
        packet
    }

    fn state(wire: Wire) -> State {
        let device = Arc::new(File::open("/dev/null").unwrap());
        let door =
            |address: [u8; 4], region| Door { address: address.into(), region, device: device.clone() };
        let doors = vec![door([10, 77, 1, 11], 0), door([10, 77, 2, 12], 1)];
        State { wire, doors, ..State::default() }
    }

    #[test]
    fn a_packet_takes_its_time_and_finds_its_door() {
        let mut state = state(Wire { delay: Duration::from_millis(40), ..Wire::default() });
        let sent = Instant::now();
        state.take(0, &datagram());
        state.take(0, &[0x60; 60]);
        let Reverse(held) = state.held.pop().unwrap();
        assert!(held.due >= sent + Duration::from_millis(40));
        assert_eq!((held.door, held.packet), (1, datagram()));
        assert!(state.held.is_empty(), "what is not IPv4 is nobody's");
    }

    #[test]
    fn a_region_that_is_cut_off_hears_and_says_nothing() {
        let mut state = state(Wire::default());
        state.cut.insert(1);
        state.take(0, &datagram());
        state.take(1, &datagram());
        assert!(state.held.is_empty());
        assert_eq!(state.carried.cut, 2);
    }

    #[test]
    fn faults_come_as_often_as_the_wire_says() {
        let mut state =
            state(Wire { late: 0.25, lost: 0.05, doubled: 0.05, damaged: 0.01, ..Wire::default() });
        for _ in 0..10_000 {
            state.take(0, &datagram());
        }
        let Carried { packets, late, lost, doubled, damaged, cut } = state.carried;
        assert_eq!((packets, cut), (10_000, 0));
        assert!((400..600).contains(&lost), "{lost} were lost");
        assert!((400..600).contains(&doubled), "{doubled} came twice");
        assert!((60..140).contains(&damaged), "{damaged} were damaged");
        assert!((2200..2800).contains(&late), "{late} were late");
        assert_eq!(state.held.len() as u64, packets - lost + doubled);
        let is_damaged = |held: &Reverse<Held>| held.0.packet != datagram();
        assert!(state.held.iter().filter(|held| is_damaged(held)).count() as u64 >= damaged);
    }

    #[test]
    fn damage_is_a_bit_of_the_content() {
        let mut packet = datagram();
        damage(&mut packet, 9);
        assert_eq!(packet[28..], [1, 2 ^ 2, 3, 4]);
        assert_eq!(packet[26..28], [0, 0], "the checksum");
        assert_eq!(packet[..26], datagram()[..26]);
    }
}
