//! What describes an object on disk, beside the head of its record: everything but the body.

use http::{HeaderName, HeaderValue, StatusCode};
use shoal_model::site::Replicate;
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::selecting::{Selecting, Selector};
use shoal_policy::cache::storage::Terms;
use shoal_policy::cache::stored_fields::StoredFields;

use crate::chunks::ChunkOf;
use crate::object::Object;

/// An object without its body.
#[derive(Debug, PartialEq)]
pub(super) struct Meta {
    pub text: Box<str>,
    pub selecting: Selecting,
    pub status: StatusCode,
    pub fields: StoredFields,
    pub terms: Terms,
    pub tags: Box<[u64]>,
    pub replicate: Replicate,
    /// Of each piece of the body.
    pub sums: Box<[u64]>,
    pub form: Form,
}

/// How the body belongs to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// It is its body.
    Plain,
    /// There is none: it lies in chunks, the first of which has this key, and has so many bytes.
    Chunked { first: ObjectKey, length: u64 },
    /// It is a chunk of the body of an object.
    Chunk(ChunkOf),
}

/// How forms begin; of the plain one nothing is written.
const CHUNKED: u64 = 1;
const CHUNK: u64 = 2;

impl Form {
    fn of(object: &Object) -> Self {
        match (object.chunked(), object.chunk_of()) {
            (Some(chunked), _) => Self::Chunked { first: chunked.first_key(), length: chunked.length() },
            (None, Some(of)) => Self::Chunk(of),
            (None, None) => Self::Plain,
        }
    }
}

/// No value.
const ABSENT: u32 = u32::MAX;

impl Meta {
    /// The description of `object`, whose pieces have these sums.
    pub fn of(object: &Object, sums: Vec<u64>) -> Self {
        Self {
            text: object.text.clone(),
            selecting: object.selecting().clone(),
            status: object.status,
            fields: object.fields.clone(),
            terms: object.terms,
            tags: object.tags().into(),
            replicate: object.replicate,
            sums: sums.into(),
            form: Form::of(object),
        }
    }

    /// The key of the object that it belongs to, itself stored under `key`.
    pub const fn home(&self, key: ObjectKey) -> ObjectKey {
        match self.form {
            Form::Plain | Form::Chunked { .. } => key,
            Form::Chunk(of) => of.home,
        }
    }

    /// As it is written; `None` = it has more of something than can be written down.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Out(Vec::with_capacity(512 + self.text.len()));
        out.text(self.text.as_bytes())?;
        out.number(self.status.as_u16().into());
        out.number(match self.replicate {
            Replicate::Auto => 0,
            Replicate::Always => 1,
            Replicate::Never => 2,
        });
        out.terms(&self.terms);
        out.numbers(&self.tags);
        out.number(self.selecting.parts().count() as u64);
        for (selector, value) in self.selecting.parts() {
            out.text(selector.to_string().as_bytes())?;
            match value {
                Some(value) => out.text(value)?,
                None => out.0.extend_from_slice(&ABSENT.to_le_bytes()),
            }
        }
        out.number(self.fields.len() as u64);
        for (name, value) in self.fields.iter() {
            out.text(name)?;
            out.text(value)?;
        }
        out.numbers(&self.sums);
        match self.form {
            Form::Plain => {}
            Form::Chunked { first, length } => {
                out.number(CHUNKED);
                out.key(first);
                out.number(length);
            }
            Form::Chunk(ChunkOf { home, number }) => {
                out.number(CHUNK);
                out.key(home);
                out.number(number);
            }
        }
        Some(out.0)
    }

    /// What [`Self::encode`] has written; `None` = it is not that.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut read = In(bytes);
        let text = std::str::from_utf8(read.text()??).ok()?.into();
        let status = StatusCode::from_u16(u16::try_from(read.number()?).ok()?).ok()?;
        let replicate = match read.number()? {
            0 => Replicate::Auto,
            1 => Replicate::Always,
            2 => Replicate::Never,
            _ => return None,
        };
        let (terms, tags) = (read.terms()?, read.numbers()?);
        let parts: Option<Vec<_>> = (0..read.count(8)?)
            .map(|_| {
                let selector = Selector::parse(std::str::from_utf8(read.text()??).ok()?)?;
                Some((selector, read.text()?.map(<[u8]>::to_vec)))
            })
            .collect();
        let selecting = Selecting::from_parts(parts?.into_iter());
        let fields = read.fields()?;
        let sums = read.numbers()?;
        let form = read.form()?;
        let meta = Self { text, selecting, status, fields, terms, tags, replicate, sums, form };
        read.0.is_empty().then_some(meta)
    }
}

/// Numbers of eight bytes, texts behind their length in four.
struct Out(Vec<u8>);

impl Out {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn key(&mut self, key: ObjectKey) {
        self.0.extend_from_slice(&key.to_bytes());
    }

    fn numbers(&mut self, numbers: &[u64]) {
        self.number(numbers.len() as u64);
        numbers.iter().for_each(|number| self.number(*number));
    }

    fn terms(&mut self, terms: &Terms) {
        for number in [
            terms.lifetime_ms,
            terms.initial_age_ms,
            terms.response_ms,
            terms.fetch_ms,
            terms.date,
            terms.stale_while_revalidate_ms,
            terms.stale_if_error_ms,
        ] {
            self.number(number);
        }
        for flag in [terms.always_validate, terms.forbids_stale, terms.answers_authorized] {
            self.number(flag.into());
        }
    }

    fn text(&mut self, text: &[u8]) -> Option<()> {
        let length = u32::try_from(text.len()).ok().filter(|length| *length != ABSENT)?;
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(text);
        Some(())
    }
}

struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn numbers(&mut self) -> Option<Box<[u64]>> {
        (0..self.count(8)?).map(|_| self.number()).collect()
    }

    fn key(&mut self) -> Option<ObjectKey> {
        ObjectKey::from_bytes(self.take(16)?)
    }

    fn form(&mut self) -> Option<Form> {
        if self.0.is_empty() {
            return Some(Form::Plain);
        }
        match self.number()? {
            CHUNKED => Some(Form::Chunked { first: self.key()?, length: self.number()? }),
            CHUNK => Some(Form::Chunk(ChunkOf { home: self.key()?, number: self.number()? })),
            _ => None,
        }
    }

    fn flag(&mut self) -> Option<bool> {
        match self.number()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn terms(&mut self) -> Option<Terms> {
        Some(Terms {
            lifetime_ms: self.number()?,
            initial_age_ms: self.number()?,
            response_ms: self.number()?,
            fetch_ms: self.number()?,
            date: self.number()?,
            stale_while_revalidate_ms: self.number()?,
            stale_if_error_ms: self.number()?,
            always_validate: self.flag()?,
            forbids_stale: self.flag()?,
            answers_authorized: self.flag()?,
        })
    }

    fn fields(&mut self) -> Option<StoredFields> {
        let count = self.count(8)?;
        let line = |_| {
            let name = HeaderName::from_bytes(self.text()??).ok()?;
            Some((name, HeaderValue::from_bytes(self.text()??).ok()?))
        };
        (0..count).map(line).collect()
    }

    /// A number of things of at least `least` bytes each: no more than there is room for.
    fn count(&mut self, least: usize) -> Option<usize> {
        let count = usize::try_from(self.number()?).ok()?;
        (count <= self.0.len() / least).then_some(count)
    }

    /// `Some(None)` = there is none.
    fn text(&mut self) -> Option<Option<&'a [u8]>> {
        let length = u32::from_le_bytes(self.take(4)?.try_into().ok()?);
        if length == ABSENT { Some(None) } else { Some(Some(self.take(length as usize)?)) }
    }
}

/// What is read is written and read again.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    if let Some(meta) = Meta::decode(bytes) {
        let again = meta.encode().expect("it was written before");
        assert_eq!(Meta::decode(&again), Some(meta));
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::{ACCEPT, ACCEPT_LANGUAGE, CONTENT_TYPE, LINK};

    use super::*;

    fn meta() -> Meta {
        let request = HeaderMap::from_iter([(ACCEPT_LANGUAGE, HeaderValue::from_static("de, en"))]);
        let mut fields = HeaderMap::new();
        fields.append(LINK, HeaderValue::from_static("one"));
        fields.append(LINK, HeaderValue::from_bytes(b"tw\xff").unwrap());
        fields.append(CONTENT_TYPE, HeaderValue::from_static(""));
        Meta {
            text: "http://a.org/x shop".into(),
            selecting: Selecting::of(
                &[ACCEPT_LANGUAGE.into(), ACCEPT.into(), Selector::Cookie("c".into())],
                &request,
            ),
            status: StatusCode::NOT_FOUND,
            fields: StoredFields::of(&fields),
            terms: Terms {
                lifetime_ms: u64::MAX,
                fetch_ms: 3,
                date: 5,
                forbids_stale: true,
                ..Terms::default()
            },
            tags: [1, u64::MAX].into(),
            replicate: Replicate::Always,
            sums: [7].into(),
            form: Form::Plain,
        }
    }

    #[test]
    fn what_is_written_is_read_and_no_part_of_it() {
        let bytes = meta().encode().unwrap();
        assert_eq!(Meta::decode(&bytes), Some(meta()));
        for end in 0..bytes.len() {
            assert_eq!(Meta::decode(&bytes[..end]), None, "{end} bytes");
        }
        assert_eq!(Meta::decode(&[&bytes[..], b"x"].concat()), None);
        let key = ObjectKey(u128::MAX - 7);
        let chunk = Form::Chunk(ChunkOf { home: key, number: 7 });
        for form in [Form::Chunked { first: key, length: 1 << 40 }, chunk] {
            let longer = Meta { form, ..meta() }.encode().unwrap();
            assert_eq!(Meta::decode(&longer), Some(Meta { form, ..meta() }));
            // A form that is cut off is none, and not the plain one.
            for end in bytes.len() + 1..longer.len() {
                assert_eq!(Meta::decode(&longer[..end]), None, "{form:?} {end} bytes");
            }
        }
    }

    #[test]
    fn a_count_beyond_what_is_there_is_refused_before_anything_is_reserved() {
        let bytes = meta().encode().unwrap();
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] = 0xff;
            // Whatever comes of it, it ends.
            _ = Meta::decode(&damaged);
        }
    }
}
