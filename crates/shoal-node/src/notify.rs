//! Readiness for the service manager (sd_notify protocol: one datagram to `$NOTIFY_SOCKET`).

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::MissedTickBehavior;

/// A sign of life. Nobody gives any while one process takes the place of another: the time for the next one begins anew before
/// that, and after it.
const ALIVE: &str = "WATCHDOG=1\n";

/// The node serves.
pub fn ready() {
    send("READY=1\n");
}

/// The node is about to be replaced by a new process; [`ready`] or [`handed_over`] follows.
pub fn reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    let now_us = now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000;
    send(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}\n{ALIVE}"));
}

/// How often the service manager wants a sign of life; `None` = never. The variables name the process that it has started,
/// and go for the one that took its place, too.
pub fn watchdog(took_over: bool) -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse().ok();
    watchdog_interval(number("WATCHDOG_USEC"), number("WATCHDOG_PID"), process::id(), took_over)
}

/// Several times within the time that is allowed: one that is left out, as nobody was well just then, is not the last.
fn watchdog_interval(usec: Option<u64>, pid: Option<u64>, own: u32, took_over: bool) -> Option<Duration> {
    let is_meant = took_over || pid.is_none_or(|pid| pid == u64::from(own));
    usec.filter(|usec| *usec > 0 && is_meant).map(|usec| Duration::from_micros(usec.div_ceil(4)))
}

/// Gives signs of life for as long as this runtime runs, and whenever the node `is_well`.
pub async fn keep_alive(interval: Duration, is_well: impl Fn() -> bool + Send) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if is_well() {
            send(ALIVE);
        }
    }
}

/// Another process is the node from now on, and it serves.
pub fn handed_over(pid: u32) {
    send(&format!("MAINPID={pid}\nREADY=1\n{ALIVE}"));
}

/// The node is on its way out.
pub fn stopping() {
    send("STOPPING=1\n");
}

/// Without a service manager nothing is sent; a manager that does not listen is not worth failing for.
fn send(message: &str) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return };
    let bytes = path.as_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent =
        address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!(%error, "could not notify the service manager");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_of_life_come_four_times_as_often_as_asked() {
        let check = |usec, pid, took_over, expected: Option<u64>| {
            let seen = watchdog_interval(usec, pid, 7, took_over);
            assert_eq!(seen, expected.map(Duration::from_micros), "{usec:?} {pid:?} {took_over}");
        };
        check(None, None, false, None);
        check(Some(20), None, false, Some(5));
        check(Some(20), Some(7), false, Some(5));
        check(Some(20), Some(8), false, None);
        check(Some(20), Some(8), true, Some(5));
        check(Some(1), Some(7), false, Some(1));
        check(Some(0), Some(7), false, None);
    }
}
