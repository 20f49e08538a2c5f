//! Why an HTTP/2 connection ends (RFC 9113 §7).

/// The codes of errors that a downstream may have made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// What it sent may not be sent, or not now.
    Protocol,
    /// More was sent or allowed than a window can hold.
    FlowControl,
    /// A frame on a stream that the downstream had ended.
    StreamClosed,
    /// A frame is too large, or has a size that its kind never has.
    FrameSize,
    /// Fields that cannot be decompressed.
    Compression,
    /// Far too much of something.
    EnhanceYourCalm,
}

impl ErrorCode {
    /// All of them, in the order of their places.
    pub const ALL: [Self; 6] = [
        Self::Protocol,
        Self::FlowControl,
        Self::StreamClosed,
        Self::FrameSize,
        Self::Compression,
        Self::EnhanceYourCalm,
    ];

    /// As it is written in a frame.
    pub const fn number(self) -> u32 {
        match self {
            Self::Protocol => 1,
            Self::FlowControl => 3,
            Self::StreamClosed => 5,
            Self::FrameSize => 6,
            Self::Compression => 9,
            Self::EnhanceYourCalm => 11,
        }
    }

    /// As the RFC calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Protocol => "PROTOCOL_ERROR",
            Self::FlowControl => "FLOW_CONTROL_ERROR",
            Self::StreamClosed => "STREAM_CLOSED",
            Self::FrameSize => "FRAME_SIZE_ERROR",
            Self::Compression => "COMPRESSION_ERROR",
            Self::EnhanceYourCalm => "ENHANCE_YOUR_CALM",
        }
    }

    /// The one that is written as `number`.
    pub fn numbered(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }
}
