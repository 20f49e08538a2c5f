//! HTTP/1.1 (RFC 9112), as far as it is bytes in a buffer: heads read and written, on both sides, bodies framed, chunks
//! taken apart.

mod chunked;
mod ends;
mod framing;
mod keeper;
mod known_fields;
mod known_head;
mod known_lines;
mod odd_target;
mod persistence;
mod request_head;
mod request_reader;
mod response_head;
mod response_writer;
mod shared_fields;
mod spelling;

pub use chunked::{Chunked, Piece, write_chunk_size, write_last_chunk};
pub(crate) use framing::plain_number;
pub use framing::{Ambiguous, Framing, request_framing};
pub use known_head::KnownHead;
pub use persistence::{Persistence, persists};
pub use request_head::{write_fields, write_request_head};
pub use request_reader::{HeadLimits, RequestHead, RequestReader, Unreadable, Wire};
pub use response_head::{HeadReader, ResponseHead};
pub use response_writer::{Answered, Asked, Departure, write_response_head};
pub use shared_fields::SharedFields;
pub use spelling::{Spelling, WrittenLines};

/// Why the bytes of an endpoint are no HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A status line or a field line that is none.
    #[error("the head of the response is malformed")]
    Head,
    /// The head, or its number of fields, is above the limit.
    #[error("the head of the response is too large")]
    HeadTooLarge,
    /// A line that does not tell the size of a chunk, or a chunk that does not end where it should.
    #[error("a chunk of the response is malformed")]
    Chunk,
    /// Extensions of chunks, or trailers, above the limit.
    #[error("too much beside the chunks of the response")]
    ChunkOverhead,
}
