//! A file that only opens with a passphrase: what it is about can be read by everybody, and nothing else.
//!
//! ```text
//! shoal-sealed-1 {"kdf":{…},"check":"…","about":{…}}⏎ | AES-256-GCM(content) + 16 tag | SHA-256 of all before
//! ```
//! The key follows from the passphrase by Argon2id (RFC 9106 §4, the second recommended choice) and a salt that no other file
//! has; the first line is authenticated with the content. Three things can be wrong, and are told apart: the checksum needs no
//! key and tells damage, the check tells a wrong passphrase, and what passes both and does not open was made by somebody else.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::files::Base64;
use super::random_bytes;

const MAGIC: &str = "shoal-sealed-";
/// The only format there is.
const FORMAT: u32 = 1;
/// What the first line may weigh.
const MAX_HEADER_BYTES: usize = 64 << 10;
const SALT_BYTES: usize = 16;
/// Fewest characters of a passphrase: whoever has the file may try as many as he likes.
const MIN_PASSPHRASE: usize = 12;
/// Most bytes of one.
const MAX_PASSPHRASE: usize = 1024;
/// What a file may ask for to derive its key: it may come from anywhere.
const MAX_KDF: Kdf<()> = Kdf { memory_kib: 1 << 20, passes: 16, lanes: 8, salt: () };

/// A key of its own for each file, so that counters are nonces that never repeat.
const NONCE_OF_CHECK: u8 = 0;
const NONCE_OF_CONTENT: u8 = 1;

/// What a file is sealed under. Never printed.
pub struct Passphrase(String);

/// It is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a passphrase has {MIN_PASSPHRASE} characters at least, and {MAX_PASSPHRASE} bytes at most")]
pub struct BadPassphrase;

impl Passphrase {
    /// Without line breaks at its end, which files have.
    pub fn new(text: &str) -> Result<Self, BadPassphrase> {
        let text = text.trim_end_matches(['\r', '\n']);
        let fits = text.chars().count() >= MIN_PASSPHRASE && text.len() <= MAX_PASSPHRASE;
        if fits { Ok(Self(text.to_owned())) } else { Err(BadPassphrase) }
    }

    /// For handing it to the node that seals.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Why a file does not open.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealedFileError {
    /// Something else.
    #[error("it is not a file that shoal has sealed")]
    Foreign,
    /// Of a later version.
    #[error("it has format {0}, and this version knows only format {FORMAT}")]
    UnknownFormat(u32),
    /// It is not as it was written.
    #[error("it is damaged: it was cut off or changed since it was written, and its checksum is another")]
    Damaged,
    /// It may be right, but is too expensive to be tried.
    #[error("its key would take more memory or time than any file of ours")]
    TooExpensive,
    /// The file is whole.
    #[error("the passphrase is wrong; the file itself is not damaged")]
    WrongPassphrase,
    /// Whoever made it did not know the passphrase.
    #[error("it was altered: its checksum is right, and what is sealed in it is not what was sealed")]
    Altered,
}

#[derive(Serialize, Deserialize)]
struct Kdf<S> {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: S,
}

#[derive(Serialize, Deserialize)]
struct Header<A> {
    kdf: Kdf<Base64>,
    /// The tag of nothing.
    check: Base64,
    about: A,
}

/// A file in which `content` is sealed; `about` is in clear.
pub fn seal_file<A: Serialize>(
    about: &A,
    content: Vec<u8>,
    passphrase: &Passphrase,
) -> Result<Vec<u8>, serde_json::Error> {
    let salt: [u8; SALT_BYTES] = random_bytes();
    let kdf = Kdf { memory_kib: 64 << 10, passes: 3, lanes: 4, salt: Base64(salt.to_vec()) };
    let key = derive(&kdf, passphrase).expect("these are choices that Argon2 takes");
    let check = Base64(seal(&key, NONCE_OF_CHECK, &[], Vec::new()));
    let header = serde_json::to_string(&Header { kdf, check, about })?;
    let mut file = format!("{MAGIC}{FORMAT} {header}\n").into_bytes();
    let sealed = seal(&key, NONCE_OF_CONTENT, &file, content);
    file.extend_from_slice(&sealed);
    drop(sealed);
    let checksum = digest(&SHA256, &file);
    file.extend_from_slice(checksum.as_ref());
    Ok(file)
}

/// A file that is whole.
pub struct SealedFile<'a, A> {
    header: Header<A>,
    /// The first line.
    line: &'a [u8],
    sealed: &'a [u8],
}

impl<'a, A: DeserializeOwned> SealedFile<'a, A> {
    /// Reads what can be read without a passphrase.
    pub fn read(file: &'a [u8]) -> Result<Self, SealedFileError> {
        use SealedFileError::{Damaged, Foreign, UnknownFormat};
        let rest = file.strip_prefix(MAGIC.as_bytes()).ok_or(Foreign)?;
        let digits = rest.iter().take(9).take_while(|byte| byte.is_ascii_digit()).count();
        let format = std::str::from_utf8(&rest[..digits]).ok().and_then(|digits| digits.parse::<u32>().ok());
        match format.ok_or(Foreign)? {
            FORMAT => {}
            other => return Err(UnknownFormat(other)),
        }
        let (whole, checksum) = file.split_last_chunk::<SHA256_OUTPUT_LEN>().ok_or(Damaged)?;
        if digest(&SHA256, whole).as_ref() != checksum {
            return Err(Damaged);
        }
        let newline = whole.iter().take(MAX_HEADER_BYTES).position(|byte| *byte == b'\n').ok_or(Damaged)?;
        let (line, sealed) = whole.split_at(newline + 1);
        let json = line.get(MAGIC.len() + digits..).ok_or(Damaged)?;
        let header = serde_json::from_slice(json).map_err(|_| Damaged)?;
        Ok(Self { header, line, sealed })
    }

    /// What it is about.
    pub fn about(&self) -> &A {
        &self.header.about
    }

    /// What is sealed in it.
    pub fn open(&self, passphrase: &Passphrase) -> Result<Vec<u8>, SealedFileError> {
        let key = derive(&self.header.kdf, passphrase)?;
        let check = self.header.check.0.clone();
        unseal(&key, NONCE_OF_CHECK, &[], check).ok_or(SealedFileError::WrongPassphrase)?;
        unseal(&key, NONCE_OF_CONTENT, self.line, self.sealed.to_vec()).ok_or(SealedFileError::Altered)
    }
}

fn derive(kdf: &Kdf<Base64>, passphrase: &Passphrase) -> Result<LessSafeKey, SealedFileError> {
    let Kdf { memory_kib, passes, lanes, salt } = kdf;
    if *memory_kib > MAX_KDF.memory_kib || *passes > MAX_KDF.passes || *lanes > MAX_KDF.lanes {
        return Err(SealedFileError::TooExpensive);
    }
    let mut key = [0; 32];
    let params = Params::new(*memory_kib, *passes, *lanes, Some(key.len()));
    let params = params.map_err(|_| SealedFileError::Altered)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2
        .hash_password_into(passphrase.0.as_bytes(), &salt.0, &mut key)
        .map_err(|_| SealedFileError::Altered)?;
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).expect("AES-256 takes 32 bytes")))
}

fn nonce(number: u8) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - 1] = number;
    Nonce::assume_unique_for_key(bytes)
}

fn seal(key: &LessSafeKey, number: u8, line: &[u8], mut plain: Vec<u8>) -> Vec<u8> {
    key.seal_in_place_append_tag(nonce(number), Aad::from(line), &mut plain)
        .expect("shorter than the 64 GiB AES-GCM can seal");
    plain
}

fn unseal(key: &LessSafeKey, number: u8, line: &[u8], mut sealed: Vec<u8>) -> Option<Vec<u8>> {
    let length = key.open_in_place(nonce(number), Aad::from(line), &mut sealed).ok()?.len();
    sealed.truncate(length);
    Some(sealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(text).unwrap()
    }

    fn why(file: &[u8], with: &str) -> Option<SealedFileError> {
        SealedFile::<String>::read(file).and_then(|file| file.open(&passphrase(with))).err()
    }

    #[test]
    fn damage_and_a_wrong_passphrase_are_told_apart() {
        use SealedFileError::{Altered, Damaged, Foreign, TooExpensive, UnknownFormat, WrongPassphrase};
        let right = "correct horse\n";
        let file = seal_file(&"what it is".to_owned(), b"secret".to_vec(), &passphrase(right)).unwrap();
        let opened = SealedFile::<String>::read(&file).unwrap();
        assert_eq!(opened.about(), "what it is");
        assert_eq!(opened.open(&passphrase("correct horse")).unwrap(), b"secret");
        assert!(!file.windows(6).any(|window| window == b"secret"));
        assert_eq!(why(&file, "correct house"), Some(WrongPassphrase));
        for end in [20, 60, file.len() - 1] {
            assert_eq!(why(&file[..end], right), Some(Damaged), "cut at {end}");
        }
        for place in (20..file.len()).step_by(7) {
            let mut bad = file.clone();
            bad[place] ^= 1;
            assert_eq!(why(&bad, right), Some(Damaged), "byte {place}");
        }
        // With a checksum that was made to fit.
        let forge = |from: &str, to: &str| {
            let whole = &file[..file.len() - SHA256_OUTPUT_LEN];
            let at = whole.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
            let mut bad = [&whole[..at], to.as_bytes(), &whole[at + from.len()..]].concat();
            let checksum = digest(&SHA256, &bad);
            bad.extend_from_slice(checksum.as_ref());
            bad
        };
        assert_eq!(why(&forge("what it is", "what it isn't"), right), Some(Altered));
        assert_eq!(
            why(&forge("\"memory_kib\":65536", "\"memory_kib\":4000000000"), right),
            Some(TooExpensive)
        );
        assert_eq!(why(b"something else", right), Some(Foreign));
        assert_eq!(why(b"shoal-sealed-2 {}\n", right), Some(UnknownFormat(2)));
    }

    #[test]
    fn short_passphrases_are_refused() {
        for text in ["", "eleven char\n", &"x".repeat(MAX_PASSPHRASE + 1)] {
            assert_eq!(Passphrase::new(text).err(), Some(BadPassphrase), "{text:?}");
        }
    }
}
