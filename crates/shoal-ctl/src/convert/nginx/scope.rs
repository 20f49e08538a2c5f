//! What holds at one place of the file: settings are inherited from the blocks around it.

use std::collections::HashMap;
use std::rc::Rc;

use crate::convert::directive::Directive;

/// Longest value of a variable.
const MAX_VALUE_BYTES: usize = 4096;
/// How deep variables may stand in each other.
const MAX_VARIABLE_DEPTH: usize = 8;

/// The settings of one block by name; of `set`, by the variable.
type Level<'a> = Rc<HashMap<&'a str, Vec<&'a Directive>>>;

/// The blocks around a place, the outermost first.
#[derive(Clone)]
pub(super) struct Scope<'a>(Vec<Level<'a>>);

impl<'a> Scope<'a> {
    pub(super) fn new(block: &'a [Directive]) -> Self {
        Self(vec![level(block)])
    }

    /// The same within `block`.
    pub(super) fn within(&self, block: &'a [Directive]) -> Self {
        let mut levels = self.0.clone();
        levels.push(level(block));
        Self(levels)
    }

    /// The setting that holds.
    pub(super) fn find(&self, name: &str) -> Option<&'a Directive> {
        self.all(name).first().copied()
    }

    /// Settings that are written several times: those of the innermost block that has any.
    pub(super) fn all(&self, name: &str) -> &[&'a Directive] {
        self.0.iter().rev().find_map(|level| level.get(name)).map_or(&[], Vec::as_slice)
    }

    /// What the innermost block itself says.
    pub(super) fn own(&self, name: &str) -> Option<&'a Directive> {
        self.0.last()?.get(name)?.first().copied()
    }

    /// The first argument of a setting.
    pub(super) fn word(&self, name: &str) -> Option<&'a str> {
        self.find(name).map(Directive::first)
    }

    /// `text` with the variables that are set to something known. Errs with the first that is not.
    pub(super) fn expand(&self, text: &str) -> Result<String, String> {
        let mut expanded = String::new();
        self.expand_into(&mut expanded, text, 0)?;
        Ok(expanded)
    }

    fn expand_into(&self, expanded: &mut String, text: &str, depth: usize) -> Result<(), String> {
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            expanded.push_str(before);
            let braced = after.strip_prefix('{').and_then(|after| after.split_once('}'));
            let (name, after) = braced.unwrap_or_else(|| {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                after.split_at(end.unwrap_or(after.len()))
            });
            let unknown = || format!("${name}");
            let set = self.0.iter().rev().find_map(|level| level.get(format!("${name}").as_str()));
            let value = set.and_then(|sets| sets.last()?.args.get(1)).ok_or_else(unknown)?;
            if depth >= MAX_VARIABLE_DEPTH || expanded.len() > MAX_VALUE_BYTES {
                return Err(unknown());
            }
            self.expand_into(expanded, value, depth + 1)?;
            rest = after;
        }
        expanded.push_str(rest);
        if expanded.len() > MAX_VALUE_BYTES { Err(text.chars().take(40).collect()) } else { Ok(()) }
    }
}

fn level(block: &[Directive]) -> Level<'_> {
    let mut level: HashMap<&str, Vec<&Directive>> = HashMap::new();
    for directive in block {
        let name = if directive.name == "set" { directive.first() } else { &directive.name };
        level.entry(name).or_default().push(directive);
    }
    Rc::new(level)
}
