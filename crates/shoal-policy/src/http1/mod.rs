//! HTTP/1.1 towards endpoints (RFC 9112), as far as it is bytes in a buffer: heads written and read, chunks taken apart.

mod chunked;
mod request_head;
mod response_head;

pub use chunked::{Chunked, Piece, write_chunk_size, write_last_chunk};
pub use request_head::{write_fields, write_request_head};
pub use response_head::{HeadReader, ResponseHead};

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
