//! Readiness for the service manager (sd_notify protocol: one datagram to `$NOTIFY_SOCKET`).

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The node serves.
pub fn ready() {
    send("READY=1\n");
}

/// Another process is the node from now on, and it serves.
pub fn handed_over(pid: u32) {
    send(&format!("MAINPID={pid}\nREADY=1\n"));
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
