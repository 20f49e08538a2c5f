//! The TLS greeting of a connection whose TLS is not ended here: looked into, and passed on byte for byte.

use bytes::{Bytes, BytesMut};
use shoal_policy::failure::Failure;
use shoal_policy::tcp::client_hello::{self, ClientHello};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A fatal `unrecognized_name` (RFC 8446 §6.2), as a record of its own.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
const USUAL_HELLO: usize = 2048;

/// Reads the greeting; answers it with the bytes read, which are the endpoint's.
pub(super) async fn read(stream: &mut TcpStream) -> Result<(ClientHello, Bytes), Failure> {
    let mut bytes = BytesMut::with_capacity(USUAL_HELLO);
    loop {
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Err(Failure::DownstreamReset),
            Ok(_) => {}
        }
        match client_hello::read(&bytes) {
            Ok(Some(hello)) => return Ok((hello, bytes.freeze())),
            Ok(None) => {}
            Err(client_hello::Malformed) => return Err(Failure::BadRequest("client_hello")),
        }
    }
}

/// Says that nobody of that name is here.
pub(super) async fn refuse(stream: &mut TcpStream) {
    // Whoever does not read it finds the connection closed.
    let _ = stream.write_all(&UNRECOGNIZED_NAME).await;
    let _ = stream.shutdown().await;
}
