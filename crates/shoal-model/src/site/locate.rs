//! Key path to line and column, by walking the text once more: only done when there is something to complain about.

use std::cell::Cell;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::yaml::reading_options;

/// Line and column (from 1) of the value at `path` in `text`, or of the nearest parent that exists.
pub fn locate(text: &str, path: &str) -> Option<(u32, u32)> {
    let mut steps = split(path);
    loop {
        let found = Cell::new(None);
        let walked =
            serde_saphyr::with_deserializer_from_str_with_options(text, reading_options(), |deserializer| {
                Walk { steps: &steps, found: &found }.deserialize(deserializer)
            });
        if walked.is_ok() && found.get().is_some() {
            return found.get();
        }
        steps.pop()?;
    }
}

/// One of the steps of a key path.
#[derive(Default)]
pub(super) struct Step {
    pub(super) name: String,
    /// Written `[N]`.
    pub(super) is_item: bool,
}

/// Splits `routes.shop.hosts[1]` into its steps; a name with dots in it is written `routes."a.b".hosts`.
pub(super) fn split(path: &str) -> Vec<Step> {
    let mut steps = vec![Step::default()];
    let mut quoted = false;
    for c in path.chars() {
        match c {
            '"' => quoted = !quoted,
            '.' | '[' if !quoted => steps.push(Step { name: String::new(), is_item: c == '[' }),
            ']' if !quoted => {}
            _ => steps.last_mut().expect("it starts with one").name.push(c),
        }
    }
    steps.retain(|step| !step.name.is_empty());
    steps
}

#[derive(Clone, Copy)]
struct Walk<'a> {
    steps: &'a [Step],
    found: &'a Cell<Option<(u32, u32)>>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.steps.is_empty() {
            let value = Spanned::<IgnoredAny>::deserialize(deserializer)?;
            self.found.set(Some((value.referenced.line() as u32, value.referenced.column() as u32)));
            return Ok(());
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a map or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == self.steps[0].name {
                map.next_value_seed(Walk { steps: &self.steps[1..], ..self })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let wanted: Option<usize> = self.steps[0].name.parse().ok();
        let mut index = 0;
        loop {
            let more = if Some(index) == wanted {
                seq.next_element_seed(Walk { steps: &self.steps[1..], ..self })?.is_some()
            } else {
                seq.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                return Ok(());
            }
            index += 1;
        }
    }
}
