//! Words to directives, with everything included in its place.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::lexer::{Lexer, Token};
use crate::convert::directive::{Directive, Mistake, Place};
use crate::convert::surroundings::{Surroundings, is_pattern};
use crate::convert::{MAX_DEPTH, MAX_DIRECTIVES, MAX_INCLUDE_DEPTH, MAX_INCLUDES, MAX_TEXT_BYTES};

/// Files that come with nginx and say nothing of a proxy: nobody misses them where nginx is not installed.
const STOCK_FILES: [&str; 8] = [
    "mime.types",
    "fastcgi_params",
    "fastcgi.conf",
    "uwsgi_params",
    "scgi_params",
    "koi-utf",
    "koi-win",
    "win-utf",
];

/// Everything that `text`, which stands in `file`, says and includes.
pub(super) fn read(
    file: &str,
    text: &str,
    surroundings: &dyn Surroundings,
) -> Result<Vec<Directive>, Mistake> {
    let home = Path::new(file).parent().map(Path::to_owned).unwrap_or_default();
    let mut reader = Reader { surroundings, home, included: 0, directives: 0, bytes_left: MAX_TEXT_BYTES };
    reader.file(&file.into(), text, 0, 0)
}

struct Reader<'a> {
    surroundings: &'a dyn Surroundings,
    /// Relative files are looked for here, wherever they are included from.
    home: PathBuf,
    included: usize,
    directives: usize,
    bytes_left: usize,
}

impl Reader<'_> {
    fn file(
        &mut self,
        file: &Rc<str>,
        text: &str,
        depth: usize,
        includes: usize,
    ) -> Result<Vec<Directive>, Mistake> {
        let mut lexer = Lexer::new(file, text);
        let Some(left) = self.bytes_left.checked_sub(text.len()) else {
            return Err(Mistake::at(lexer.place(), format!("more than {MAX_TEXT_BYTES} bytes are too many")));
        };
        self.bytes_left = left;
        self.block(&mut lexer, None, depth, includes)
    }

    fn block(
        &mut self,
        lexer: &mut Lexer<'_>,
        opened: Option<&Place>,
        depth: usize,
        includes: usize,
    ) -> Result<Vec<Directive>, Mistake> {
        let mut directives = Vec::new();
        loop {
            let name = match (lexer.next()?, opened) {
                (None, None) => return Ok(directives),
                (None, Some(opened)) => return Err(Mistake::at(opened, "this `{` is never closed")),
                (Some((Token::Word(name), place)), _) => (name, place),
                (Some((Token::Close, _)), Some(_)) => return Ok(directives),
                (Some((Token::Close, place)), None) => {
                    return Err(Mistake::at(&place, "there is no `{` for this `}`"));
                }
                (Some((Token::End, place)), _) => {
                    return Err(Mistake::at(&place, "there is no directive before this `;`"));
                }
                (Some((Token::Open, place)), _) => {
                    return Err(Mistake::at(&place, "there is no directive before this `{`"));
                }
            };
            let directive = self.directive(lexer, name, depth, includes)?;
            if directive.name == "include" && directive.block.is_none() {
                directives.extend(self.include(directive, depth, includes)?);
            } else {
                directives.push(directive);
            }
        }
    }

    fn directive(
        &mut self,
        lexer: &mut Lexer<'_>,
        (name, place): (String, Place),
        depth: usize,
        includes: usize,
    ) -> Result<Directive, Mistake> {
        self.directives += 1;
        if self.directives > MAX_DIRECTIVES {
            return Err(Mistake::at(&place, format!("more than {MAX_DIRECTIVES} directives are too many")));
        }
        let mut args = Vec::new();
        let opened = loop {
            match lexer.next()? {
                Some((Token::Word(word), _)) => args.push(word),
                Some((Token::End, _)) => return Ok(Directive { name, args, place, block: None }),
                Some((Token::Open, opened)) => break opened,
                Some((Token::Close, _)) | None => {
                    return Err(Mistake::at(&place, format!("{name:?} is not ended by `;`")));
                }
            }
        };
        if depth >= MAX_DEPTH {
            return Err(Mistake::at(&opened, format!("blocks are nested deeper than {MAX_DEPTH}")));
        }
        let block = if name.ends_with("_by_lua_block") {
            lexer.skip_block()?;
            Vec::new()
        } else {
            self.block(lexer, Some(&opened), depth + 1, includes)?
        };
        Ok(Directive { name, args, place, block: Some(block) })
    }

    /// What stands in the files that are included, or the directive itself where no file matches.
    fn include(
        &mut self,
        include: Directive,
        depth: usize,
        includes: usize,
    ) -> Result<Vec<Directive>, Mistake> {
        let [pattern] = &include.args[..] else {
            return Err(Mistake::at(&include.place, "`include` takes one file or pattern"));
        };
        if includes >= MAX_INCLUDE_DEPTH {
            let why = format!("files include each other deeper than {MAX_INCLUDE_DEPTH}");
            return Err(Mistake::at(&include.place, why));
        }
        let path = self.home.join(pattern);
        let is_pattern = is_pattern(pattern);
        let files = if is_pattern { self.surroundings.matching(&path) } else { vec![path] };
        if files.is_empty() {
            return Ok(vec![include]);
        }
        let mut found = Vec::new();
        for file in files {
            self.included += 1;
            if self.included > MAX_INCLUDES {
                let why = format!("more than {MAX_INCLUDES} files are included");
                return Err(Mistake::at(&include.place, why));
            }
            match self.surroundings.read(&file, self.bytes_left) {
                Ok(text) => {
                    let name = file.display().to_string();
                    found.extend(self.file(&name.into(), &text, depth, includes + 1)?);
                }
                Err(_) if is_stock(&file) => {}
                Err(why) => return Err(Mistake::at(&include.place, why)),
            }
        }
        Ok(found)
    }
}

fn is_stock(file: &Path) -> bool {
    file.file_name().is_some_and(|name| STOCK_FILES.iter().any(|stock| name == *stock))
}
