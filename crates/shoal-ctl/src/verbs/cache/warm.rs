//! `shoal cache warm`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use shoal_proto::admin::{CacheWarmRequest, CacheWarmResponse};

use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format};
use crate::render::{self, Warmed};
use crate::verbs::Session;

/// URLs that are asked for in one call.
const URLS_PER_CALL: usize = 1000;
/// Of a line of a file, bytes.
const MAX_LINE_BYTES: usize = 8192;

/// Have the owners of URLs fetch them now
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal cache warm http://shop.example.com/ http://shop.example.com/logo.svg
  shoal cache warm --file urls.txt --rate 20
  sitemap-urls | shoal cache warm --file - --field 'Accept-Encoding: gzip'
  shoal cache warm http://10.0.0.1:8080/ --host shop.example.com --listener web

What is stored and fresh is not fetched. A URL that is not stored in the end gets a line that says why. With
`-o json` nothing is printed but the summary; it names the first 1000 of those.
Exit codes: 0 all of them are stored, 1 nothing was asked for or that cannot be read, 2 some are not.")]
pub(super) struct WarmArgs {
    /// URLs as a browser would ask for them
    #[arg(value_name = "URL", required_unless_present = "file")]
    urls: Vec<String>,
    /// A file with a URL in each line; empty lines and those that begin with # are skipped; - is stdin
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The host of the requests, where it is not the URLs'
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// The listener that such requests come in on [default: it makes no difference, or the URL's port tells]
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// A field of the requests: variants are chosen by them. May be given more than once
    #[arg(long, value_name = "NAME: VALUE")]
    field: Vec<String>,
    /// How many are fetched at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    concurrency: u32,
    /// How many are begun in a second
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    #[command(flatten)]
    node: NodeArgs,
}

impl WarmArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        let mut source = Source::open(self.urls, self.file.as_deref())?;
        let request = CacheWarmRequest {
            host: self.host.unwrap_or_default(),
            listener: self.listener.unwrap_or_default(),
            fields: self.field,
            concurrency: self.concurrency,
            per_second: self.rate,
            timeout_ms: session.timeout_ms(),
            ..CacheWarmRequest::default()
        };
        let mut warmed = Warmed::default();
        let mut telling = Telling::new(session.format.unwrap_or(Format::Table));
        loop {
            let urls = source.next()?;
            if urls.is_empty() {
                break;
            }
            let request = CacheWarmRequest { urls, ..request.clone() };
            let told = |one: CacheWarmResponse| {
                warmed.count(&one);
                telling.tell(&one, &warmed)
            };
            if let Err(failure) = session.client.cache_warm(request, told).await {
                telling.end();
                return Err(failure);
            }
        }
        telling.end();
        if warmed.all() == 0 {
            return Err(
                Failure::local("cache warm", "no URL was given").try_command("shoal cache warm --help")
            );
        }
        session.print(&warmed, render::warmed)?;
        Ok(if warmed.is_complete() { Exit::Done } else { Exit::Remote })
    }
}

/// Where the URLs come from.
struct Source {
    named: std::vec::IntoIter<String>,
    lines: Option<Box<dyn BufRead>>,
}

impl Source {
    fn open(named: Vec<String>, file: Option<&std::path::Path>) -> Result<Self, Failure> {
        let lines: Option<Box<dyn BufRead>> = match file {
            None => None,
            Some(file) if file.as_os_str() == "-" => Some(Box::new(BufReader::new(io::stdin()))),
            Some(file) => {
                let unread = |error| Failure::local("cache warm", format!("{}: {error}", file.display()));
                Some(Box::new(BufReader::new(File::open(file).map_err(unread)?)))
            }
        };
        Ok(Self { named: named.into_iter(), lines })
    }

    /// The next ones, for one call; none = that was all.
    fn next(&mut self) -> Result<Vec<String>, Failure> {
        let mut urls: Vec<String> = self.named.by_ref().take(URLS_PER_CALL).collect();
        while urls.len() < URLS_PER_CALL
            && let Some(lines) = &mut self.lines
        {
            let Some(line) = read_line(lines).map_err(|error| Failure::local("cache warm", error))? else {
                self.lines = None;
                break;
            };
            let url = line.trim();
            if !url.is_empty() && !url.starts_with('#') {
                urls.push(url.to_owned());
            }
        }
        Ok(urls)
    }
}

/// A line, not beyond what a URL may have; `None` = the end.
fn read_line(lines: &mut dyn BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let read = io::Read::take(&mut *lines, MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut line)?;
    if read > MAX_LINE_BYTES {
        return Err(io::Error::other(format!("a line has more than {MAX_LINE_BYTES} bytes")));
    }
    let text = String::from_utf8(line).map_err(|_| io::Error::other("a line is no text"))?;
    Ok((read > 0).then_some(text))
}

/// What people see meanwhile: a line for each failure, and how far it has come, where somebody looks on.
struct Telling {
    format: Format,
    shows_progress: bool,
}

impl Telling {
    fn new(format: Format) -> Self {
        Self { format, shows_progress: format == Format::Table && io::stderr().is_terminal() }
    }

    fn tell(&mut self, one: &CacheWarmResponse, all: &Warmed) -> Result<(), Failure> {
        if let (Format::Table, Some(line)) = (self.format, render::not_warmed(one)) {
            self.end();
            output::write_stdout(&line)?;
        }
        if self.shows_progress {
            // Nobody may be there to read it.
            _ = write!(io::stderr().lock(), "\r{} done, {} of them not stored", all.all(), all.failed());
        }
        Ok(())
    }

    /// The line of the progress is free for something else.
    fn end(&self) {
        if self.shows_progress {
            _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hold_a_url_in_each_line() {
        let text = b"http://a/1\r\n\n# no\n  http://a/2".to_vec();
        let mut source = Source {
            named: vec!["http://a/0".to_owned()].into_iter(),
            lines: Some(Box::new(io::Cursor::new(text))),
        };
        assert_eq!(source.next().unwrap(), ["http://a/0", "http://a/1", "http://a/2"]);
        assert!(source.next().unwrap().is_empty());
        for bad in [vec![b'x'; MAX_LINE_BYTES + 2], vec![0xff]] {
            let lines: Option<Box<dyn BufRead>> = Some(Box::new(io::Cursor::new(bad)));
            assert!(Source { named: Vec::new().into_iter(), lines }.next().is_err());
        }
    }

    #[test]
    fn calls_are_bounded() {
        let text = "http://a/\n".repeat(2 * URLS_PER_CALL + 1);
        let mut source =
            Source { named: Vec::new().into_iter(), lines: Some(Box::new(io::Cursor::new(text))) };
        let sizes = [0; 4].map(|_| source.next().unwrap().len());
        assert_eq!(sizes, [URLS_PER_CALL, URLS_PER_CALL, 1, 0]);
    }
}
