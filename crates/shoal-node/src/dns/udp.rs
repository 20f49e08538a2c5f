//! Questions in datagrams.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;

use super::Responder;

/// Bytes of a question that are read; what is longer is cut, and so malformed.
const MAX_QUESTION: usize = 4096;
/// After an error of the socket: do not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// Answers for as long as it is polled.
pub(super) async fn serve(socket: UdpSocket, responder: Arc<Responder>) {
    match answer(&socket, &responder).await {}
}

async fn answer(socket: &UdpSocket, responder: &Responder) -> Infallible {
    let mut question = [0; MAX_QUESTION];
    loop {
        let Ok((length, source)) = socket.recv_from(&mut question).await else {
            tokio::time::sleep(ERROR_PAUSE).await;
            continue;
        };
        // Nobody receives at port 0.
        if source.port() > 0
            && let Some(answer) = responder.answer_datagram(&question[..length], source.ip())
        {
            // Who is not reached asks again; where the queue is full there is no point in waiting.
            _ = socket.try_send_to(&answer, source);
        }
    }
}
