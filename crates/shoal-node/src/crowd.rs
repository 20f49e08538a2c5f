//! Connections that nobody has vouched for yet. None of them can keep a new one out: whoever is silent gives way.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// Everybody who has a place, the oldest first.
#[derive(Debug)]
pub struct Crowd {
    most: usize,
    most_of_one: usize,
    seats: VecDeque<Weak<Seat>>,
}

/// A place, as long as it lives.
#[derive(Clone, Debug)]
pub struct Place(Arc<Seat>);

#[derive(Debug)]
struct Seat {
    home: IpAddr,
    has_spoken: AtomicBool,
    given_up: CancellationToken,
}

impl Crowd {
    /// So many at once, and so many of one address.
    pub fn new(most: usize, most_of_one: usize) -> Self {
        Self { most, most_of_one, seats: VecDeque::new() }
    }

    /// A place for somebody from `from`. Where there are as many as there may be, the oldest that has said nothing gives way,
    /// or else the oldest: one of the same address, if that has its share.
    pub fn admit(&mut self, from: IpAddr) -> Place {
        self.seats.retain(|seat| seat.strong_count() > 0);
        let home = home_of(from);
        let is_neighbour = |seat: &Seat| seat.home == home;
        let neighbours =
            self.seats.iter().filter_map(Weak::upgrade).filter(|seat| is_neighbour(seat)).count();
        if neighbours >= self.most_of_one {
            self.displace(is_neighbour);
        } else if self.seats.len() >= self.most {
            self.displace(|_| true);
        }
        let seat = Seat { home, has_spoken: AtomicBool::new(false), given_up: CancellationToken::new() };
        let place = Place(Arc::new(seat));
        self.seats.push_back(Arc::downgrade(&place.0));
        place
    }

    fn displace(&mut self, may_go: impl Fn(&Seat) -> bool) {
        let first = |is_silent: bool| {
            self.seats.iter().position(|seat| {
                let goes = |seat: Arc<Seat>| may_go(&seat) && !(is_silent && seat.has_spoken.load(Relaxed));
                seat.upgrade().is_some_and(goes)
            })
        };
        let oldest = first(true).or_else(|| first(false));
        if let Some(seat) = oldest.and_then(|n| self.seats.remove(n)).and_then(|seat| seat.upgrade()) {
            seat.given_up.cancel();
        }
    }
}

impl Place {
    /// Whoever has it has said something.
    pub fn has_spoken(&self) {
        self.0.has_spoken.store(true, Relaxed);
    }

    /// Resolves when somebody else has it.
    pub fn given_up(&self) -> WaitForCancellationFutureOwned {
        self.0.given_up.clone().cancelled_owned()
    }
}

/// What counts as one address: of IPv6 it is a network of 64 bits, which is what one machine has.
fn home_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

/// TLS with whoever has come, in time, and only as long as the place is not somebody else's.
pub async fn shake_hands(tls: TlsAcceptor, stream: TcpStream, place: Place) -> Option<TlsStream<TcpStream>> {
    let handshake = async {
        if stream.peek(&mut [0]).await.ok()? == 0 {
            return None;
        }
        place.has_spoken();
        tls.accept(stream).await.ok()
    };
    tokio::select! {
        shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake) => shaken.ok().flatten(),
        () = place.given_up() => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_silent_one_gives_way() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut crowd = Crowd::new(4, 2);
        let has_left = |place: &Place| place.0.given_up.is_cancelled();
        let [one, two] = ["10.0.0.1", "10.0.0.1"].map(|from| crowd.admit(address(from)));
        one.has_spoken();
        let third = crowd.admit(address("10.0.0.1"));
        assert_eq!([&one, &two, &third].map(has_left), [false, true, false], "its own neighbour");
        let [other, next] = ["10.0.0.2", "2001:db8::1"].map(|from| crowd.admit(address(from)));
        let neighbour = crowd.admit(address("2001:db8::ffff:0:1"));
        assert_eq!(
            [&one, &third, &other].map(has_left),
            [false, true, false],
            "the oldest silent one of all"
        );
        let last = crowd.admit(address("2001:db8::2"));
        assert_eq!([&next, &neighbour].map(has_left), [true, false], "one network is one address");
        [&other, &neighbour, &last].into_iter().for_each(Place::has_spoken);
        let loud = crowd.admit(address("10.0.0.9"));
        assert_eq!([&one, &other].map(has_left), [true, false], "all have spoken: the oldest");
        drop((other, neighbour, last, loud));
        crowd.admit(address("10.0.0.3"));
        assert_eq!(crowd.seats.len(), 1, "who is gone has no place");
    }
}
