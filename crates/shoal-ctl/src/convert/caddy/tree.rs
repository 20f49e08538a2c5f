//! Lines to directives, with snippets and files imported in their places.

use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

use super::lexer::{Lexer, Word};
use crate::convert::directive::{Directive, Mistake, Place};
use crate::convert::surroundings::{Surroundings, is_pattern};
use crate::convert::{MAX_DEPTH, MAX_DIRECTIVES, MAX_INCLUDE_DEPTH, MAX_INCLUDES, MAX_TEXT_BYTES};

/// Longest word once variables and arguments stand in it.
const MAX_WORD_BYTES: usize = 64 << 10;

/// A Caddyfile.
#[derive(Debug, Default)]
pub(super) struct File {
    /// The block without a name that begins it.
    pub(super) options: Vec<Directive>,
    /// Addresses (the name and the arguments) with what holds for them.
    pub(super) sites: Vec<Directive>,
    /// Imports of files that are not there.
    pub(super) missing: Vec<Directive>,
}

/// Everything that `text`, which stands in `file`, says and imports.
pub(super) fn read(file: &str, text: &str, surroundings: &dyn Surroundings) -> Result<File, Mistake> {
    let mut reader = Reader {
        surroundings,
        snippets: HashMap::new(),
        imported: 0,
        directives: 0,
        bytes_left: MAX_TEXT_BYTES,
    };
    let lines = reader.file(&file.into(), text, 0)?;
    let mut found = File::default();
    let mut lines = lines.into_iter().peekable();
    if let Some(options) = lines.next_if(|line| line.name.is_empty()) {
        found.options = reader.resolve(options.block.unwrap_or_default(), 0)?;
    }
    let lines = reader.resolve(lines.collect(), 0)?;
    let (missing, lines): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.name == "import");
    found.missing = missing;
    // A single site needs no braces: its addresses stand in the first line, and all else is about it.
    if let Some((first, rest)) = lines.split_first()
        && first.block.is_none()
    {
        found.sites.push(Directive { block: Some(rest.to_vec()), ..first.clone() });
        return Ok(found);
    }
    if let Some(line) = lines.iter().find(|line| line.block.is_none() || line.name.is_empty()) {
        let why = format!("{:?} stands in no site: addresses are followed by `{{`", line.name);
        return Err(Mistake::at(&line.place, why));
    }
    found.sites = lines;
    Ok(found)
}

struct Reader<'a> {
    surroundings: &'a dyn Surroundings,
    snippets: HashMap<String, Rc<Vec<Directive>>>,
    imported: usize,
    directives: usize,
    bytes_left: usize,
}

impl Reader<'_> {
    fn file(&mut self, file: &Rc<str>, text: &str, depth: usize) -> Result<Vec<Directive>, Mistake> {
        let mut lexer = Lexer::new(file, text);
        let Some(left) = self.bytes_left.checked_sub(text.len()) else {
            return Err(Mistake::at(lexer.place(), format!("more than {MAX_TEXT_BYTES} bytes are too many")));
        };
        self.bytes_left = left;
        self.block(&mut lexer, None, depth)
    }

    fn block(
        &mut self,
        lexer: &mut Lexer<'_>,
        opened: Option<&Place>,
        depth: usize,
    ) -> Result<Vec<Directive>, Mistake> {
        let mut directives = Vec::new();
        loop {
            let mut words = lexer.line()?;
            // Addresses may go on after a comma.
            while depth == 0 && words.last().is_some_and(|word| !word.is_quoted && word.text.ends_with(',')) {
                let more = lexer.line()?;
                if more.is_empty() {
                    break;
                }
                words.extend(more);
            }
            let Some(first) = words.first() else {
                return match opened {
                    None => Ok(directives),
                    Some(opened) => Err(Mistake::at(opened, "this `{` is never closed")),
                };
            };
            if is_sign(first, "}") {
                let why = match (opened, words.get(1)) {
                    (Some(_), None) => return Ok(directives),
                    (None, _) => "there is no `{` for this `}`",
                    (Some(_), Some(_)) => "a `}` stands in a line of its own",
                };
                return Err(Mistake::at(&first.place, why));
            }
            directives.push(self.directive(words, lexer, depth)?);
        }
    }

    fn directive(
        &mut self,
        mut words: Vec<Word>,
        lexer: &mut Lexer<'_>,
        depth: usize,
    ) -> Result<Directive, Mistake> {
        let place = words.first().map_or(lexer.place(), |word| &word.place).clone();
        self.count(&place)?;
        let opened = words.pop_if(|last| is_sign(last, "{")).map(|last| last.place);
        let mut texts = Vec::with_capacity(words.len());
        for word in words {
            self.substituted(&word, &mut texts)?;
        }
        let block = match opened {
            Some(opened) if depth >= MAX_DEPTH => {
                return Err(Mistake::at(&opened, format!("blocks are nested deeper than {MAX_DEPTH}")));
            }
            Some(opened) => Some(self.block(lexer, Some(&opened), depth + 1)?),
            None => None,
        };
        let mut texts = texts.into_iter();
        let name = texts.next().unwrap_or_default();
        Ok(Directive { name, args: texts.collect(), place, block })
    }

    /// The word with variables of the environment (`{$NAME:default}`) in their places: none, one or several words.
    fn substituted(&self, word: &Word, texts: &mut Vec<String>) -> Result<(), Mistake> {
        if !word.text.contains("{$") {
            texts.push(word.text.clone());
            return Ok(());
        }
        let mut text = String::new();
        let mut rest = word.text.as_str();
        while let Some((before, after)) = rest.split_once("{$") {
            text.push_str(before);
            let Some((variable, after)) = after.split_once('}') else {
                return Err(Mistake::at(&word.place, "there is no `}` for this `{$`"));
            };
            let (name, default) = variable.split_once(':').map_or((variable, None), |(n, d)| (n, Some(d)));
            let value = self.surroundings.variable(name).or_else(|| default.map(str::to_owned));
            let Some(value) = value else {
                let why = format!(
                    "the variable {name} is not set here: set it, or give it a default as in {{${name}:…}}"
                );
                return Err(Mistake::at(&word.place, why));
            };
            text.push_str(&value);
            rest = after;
        }
        text.push_str(rest);
        if text.len() > MAX_WORD_BYTES {
            return Err(Mistake::at(&word.place, "the values of its variables are too long"));
        }
        match word.is_quoted {
            true => texts.push(text),
            false => texts.extend(text.split_whitespace().map(str::to_owned)),
        }
        Ok(())
    }

    /// Learns snippets, and puts what is imported into its place.
    fn resolve(&mut self, lines: Vec<Directive>, imports: usize) -> Result<Vec<Directive>, Mistake> {
        let mut resolved = Vec::with_capacity(lines.len());
        for mut line in lines {
            let snippet = line.name.strip_prefix('(').and_then(|name| name.strip_suffix(')'));
            if let (Some(name), Some(block)) = (snippet, &mut line.block) {
                self.snippets.insert(name.to_owned(), Rc::new(std::mem::take(block)));
            } else if line.name == "import" && line.block.is_none() {
                resolved.extend(self.import(&line, imports)?);
            } else {
                if let Some(block) = line.block.take() {
                    line.block = Some(self.resolve(block, imports)?);
                }
                resolved.push(line);
            }
        }
        Ok(resolved)
    }

    fn import(&mut self, import: &Directive, imports: usize) -> Result<Vec<Directive>, Mistake> {
        let Some((target, arguments)) = import.args.split_first() else {
            return Err(Mistake::at(&import.place, "`import` takes a snippet, a file or a pattern"));
        };
        if imports >= MAX_INCLUDE_DEPTH {
            let why = format!("imports stand in each other deeper than {MAX_INCLUDE_DEPTH}");
            return Err(Mistake::at(&import.place, why));
        }
        if let Some(snippet) = self.snippets.get(target).cloned() {
            self.count_import(import)?;
            let lines = self.with_arguments(&snippet, arguments, &import.place)?;
            return self.resolve(lines, imports + 1);
        }
        let path = Path::new(&*import.place.file).parent().unwrap_or(Path::new("")).join(target);
        let files = if is_pattern(target) { self.surroundings.matching(&path) } else { vec![path] };
        if files.is_empty() {
            return Ok(vec![import.clone()]);
        }
        let mut found = Vec::new();
        for file in files {
            self.count_import(import)?;
            let text = self.surroundings.read(&file, self.bytes_left);
            let text = text.map_err(|why| Mistake::at(&import.place, why))?;
            let lines = self.file(&file.display().to_string().into(), &text, 0)?;
            let lines = self.with_arguments(&lines, arguments, &import.place)?;
            found.extend(self.resolve(lines, imports + 1)?);
        }
        Ok(found)
    }

    /// A copy of `lines` with what was written behind the name of the snippet in its places.
    fn with_arguments(
        &mut self,
        lines: &[Directive],
        arguments: &[String],
        place: &Place,
    ) -> Result<Vec<Directive>, Mistake> {
        let mut copy = Vec::with_capacity(lines.len());
        for line in lines {
            self.count(place)?;
            let mut words = Vec::with_capacity(1 + line.args.len());
            for word in std::iter::once(&line.name).chain(&line.args) {
                match word.as_str() {
                    "{args[:]}" | "{args.*}" => words.extend_from_slice(arguments),
                    word => words.push(with_arguments(word, arguments, place)?),
                }
            }
            let block = match &line.block {
                Some(block) => Some(self.with_arguments(block, arguments, place)?),
                None => None,
            };
            let mut words = words.into_iter();
            let name = words.next().unwrap_or_default();
            copy.push(Directive { name, args: words.collect(), place: line.place.clone(), block });
        }
        Ok(copy)
    }

    fn count(&mut self, place: &Place) -> Result<(), Mistake> {
        self.directives += 1;
        if self.directives > MAX_DIRECTIVES {
            return Err(Mistake::at(place, format!("more than {MAX_DIRECTIVES} directives are too many")));
        }
        Ok(())
    }

    fn count_import(&mut self, import: &Directive) -> Result<(), Mistake> {
        self.imported += 1;
        if self.imported > MAX_INCLUDES {
            return Err(Mistake::at(&import.place, format!("more than {MAX_INCLUDES} imports are too many")));
        }
        Ok(())
    }
}

/// `{args[0]}`, and `{args.0}` as it was written before, within a word.
fn with_arguments(word: &str, arguments: &[String], place: &Place) -> Result<String, Mistake> {
    if !word.contains("{args") {
        return Ok(word.to_owned());
    }
    let mut text = word.to_owned();
    for (n, argument) in arguments.iter().enumerate() {
        text = text.replace(&format!("{{args[{n}]}}"), argument).replace(&format!("{{args.{n}}}"), argument);
        if text.len() > MAX_WORD_BYTES {
            return Err(Mistake::at(place, "the arguments are too long"));
        }
    }
    Ok(text)
}

fn is_sign(word: &Word, sign: &str) -> bool {
    !word.is_quoted && word.text == sign
}
