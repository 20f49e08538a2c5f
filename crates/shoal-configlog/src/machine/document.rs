//! The whole state as one document: how it is stored, sent to other nodes, and proven undamaged.

use std::io;

use aws_lc_rs::digest::{Context, Digest, SHA256, digest};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shoal_model::state::{ClusterLevel, ConfigState, UnknownCommand};

use openraft::type_config::alias::SnapshotOf;

use crate::levels::known_level;
use crate::trouble::Trouble;
use crate::types::{SnapshotMeta, TypeConfig};

/// A document, and what it covers.
pub type Snapshot = SnapshotOf<TypeConfig, StateDocument>;

/// The only format there is.
const FORMAT: u32 = 1;

/// A state as bytes (JSON); cheap to clone.
#[derive(Clone, Debug)]
pub struct StateDocument {
    pub bytes: Bytes,
}

impl StateDocument {
    /// The document of `state`. Takes milliseconds per MiB.
    pub fn of(state: &ConfigState) -> io::Result<Self> {
        Ok(Self { bytes: serde_json::to_vec(state).map_err(io::Error::other)?.into() })
    }

    /// The state it holds.
    pub fn read(&self) -> Result<ConfigState, Unreadable> {
        read_state(&self.bytes)
    }
}

/// The state that a document holds. One of a cluster whose level is beyond this version may say what this version would leave
/// out.
pub fn read_state(document: &[u8]) -> Result<ConfigState, Unreadable> {
    let (Leveled { level }, known) = (serde_json::from_slice(document)?, known_level());
    match level.number {
        needs if needs > known => Err(Unreadable::Unknown(UnknownCommand::NewState { needs, known })),
        _ => Ok(serde_json::from_slice(document)?),
    }
}

/// A document holds nothing that this version can take over.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is for a later one.
    #[error(transparent)]
    Unknown(UnknownCommand),
    /// It is no state.
    #[error(transparent)]
    Malformed(#[from] serde_json::Error),
}

impl Unreadable {
    /// Noted where everybody can look, if this version is all that is wrong.
    pub(crate) fn note_in(self, trouble: &Trouble) -> io::Error {
        if let Self::Unknown(why) = &self {
            trouble.stop(why);
        }
        io::Error::new(io::ErrorKind::InvalidData, self)
    }
}

/// As much of a state as every version can read.
#[derive(Deserialize)]
struct Leveled {
    #[serde(default)]
    level: ClusterLevel,
}

/// What stands before the document, in the file and on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    format: u32,
    /// SHA-256 of the document, hex.
    sha256: String,
    /// Bytes of the document.
    pub length: u64,
    /// What it covers.
    pub meta: SnapshotMeta,
}

/// A document is not what its header says.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DamagedSnapshot {
    /// Of a later version.
    #[error("it has format {0}, and this version knows only format {FORMAT}")]
    UnknownFormat(u32),
    /// Cut off, or too long.
    #[error("it has {found} bytes instead of {expected}")]
    Length {
        /// As announced.
        expected: u64,
        /// As found.
        found: u64,
    },
    /// Changed on the way.
    #[error("its SHA-256 is not the one in its header")]
    Digest,
}

impl AsRef<Self> for Header {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Header {
    /// The header of a document that covers what `meta` says.
    pub fn of(meta: SnapshotMeta, document: &StateDocument) -> Self {
        Self {
            format: FORMAT,
            sha256: hex_sha256(&document.bytes),
            length: document.bytes.len() as u64,
            meta,
        }
    }

    /// Whether `document` is the one this header was made for.
    pub fn verify(&self, document: &StateDocument) -> Result<(), DamagedSnapshot> {
        let found = document.bytes.len() as u64;
        if self.format != FORMAT {
            Err(DamagedSnapshot::UnknownFormat(self.format))
        } else if self.length != found {
            Err(DamagedSnapshot::Length { expected: self.length, found })
        } else if self.sha256 != hex_sha256(&document.bytes) {
            Err(DamagedSnapshot::Digest)
        } else {
            Ok(())
        }
    }
}

/// SHA-256 of what is written to it.
pub struct Hasher(Context);

impl Hasher {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Of all that was written.
    pub fn finish(self) -> Digest {
        self.0.finish()
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hex_sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_noticed() {
        let document = StateDocument::of(&ConfigState::default()).unwrap();
        let header = Header::of(SnapshotMeta::default(), &document);
        let check = |bytes: Vec<u8>, header: &Header, expected| {
            assert_eq!(header.verify(&StateDocument { bytes: bytes.into() }), expected);
        };
        let good = document.bytes.to_vec();
        check(good.clone(), &header, Ok(()));
        let mut flipped = good.clone();
        flipped[10] ^= 1;
        check(flipped, &header, Err(DamagedSnapshot::Digest));
        let cut = good[..good.len() - 1].to_vec();
        let lengths = DamagedSnapshot::Length { expected: good.len() as u64, found: cut.len() as u64 };
        check(cut, &header, Err(lengths));
        check(good, &Header { format: 2, ..header.clone() }, Err(DamagedSnapshot::UnknownFormat(2)));
    }
}
