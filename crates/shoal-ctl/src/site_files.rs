//! The site as it lies on disk: one file, a directory of files, or stdin; certificates are read in from beside it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use shoal_cluster::inspect_certificate;
use shoal_model::Site;
use shoal_model::site::{
    Absent, MAX_SITE_BYTES, Problem, Problems, check_certificates, locate, merge, parse_site, step, validate,
};

/// Largest certificate chain or key file, in bytes.
const MAX_PEM_BYTES: usize = 1 << 20;
/// Most files of a site directory.
const MAX_FILES: usize = 10_000;
/// Problems whose place is looked up: each costs a walk over its file.
const MAX_PLACED: usize = 50;

/// Site documents as they were read, with their texts, so that a problem can say where.
#[derive(Debug)]
pub struct SiteFiles {
    documents: Vec<Document>,
    site: Site,
}

#[derive(Debug)]
struct Document {
    name: String,
    /// Certificate files are relative to this.
    dir: PathBuf,
    text: String,
    site: Site,
}

/// Reads, merges and checks the site at `path`, with every certificate inline: ready for a node.
///
/// # Errors
/// Everything that is wrong, with its place.
pub fn load_site(path: &Path) -> Result<Site, Problems> {
    let files = SiteFiles::read(path)?;
    files.check_alone()?;
    files.with_certificates()
}

impl SiteFiles {
    /// Reads a file, every `*.yaml`, `*.yml` and `*.json` of a directory, or stdin (`-`), and checks their form.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        let texts = read_texts(path).map_err(|problem| Problems(vec![problem]))?;
        let mut documents = Vec::with_capacity(texts.len());
        let mut problems = Vec::new();
        for (name, dir, text) in texts {
            match parse_site(&name, &text) {
                Ok(site) => documents.push(Document { name, dir, text, site }),
                Err(problem) => problems.push(problem),
            }
        }
        let mut files = Self { documents, site: Site::default() };
        problems.extend(files.merge_documents());
        files.settle(problems)?;
        Ok(files)
    }

    /// The site as written.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Checks the meaning of the site by itself.
    pub fn check_alone(&self) -> Result<(), Problems> {
        self.settle(validate(&self.site))
    }

    /// Checks the meaning of the site laid over `active`: it may refer to what the cluster already has.
    pub fn check_over(&self, active: &Site) -> Result<(), Problems> {
        self.settle(validate(&merge(active, self.site.clone(), Absent::Keep)))
    }

    /// The site with certificate and key files read in; every pair is checked.
    pub fn with_certificates(&self) -> Result<Site, Problems> {
        let mut site = self.site.clone();
        let mut problems = Vec::new();
        for document in &self.documents {
            for name in document.site.certificates.keys() {
                let Some(certificate) = site.certificates.get_mut(name) else { continue };
                let path = format!("certificates.{}", step(name));
                for (field, file, text) in [
                    ("chain_file", &mut certificate.chain_file, &mut certificate.chain_pem),
                    ("key_file", &mut certificate.key_file, &mut certificate.key_pem),
                ] {
                    let Some(file) = file.take() else { continue };
                    match read_text(&document.dir.join(&file), MAX_PEM_BYTES) {
                        Ok(pem) => *text = Some(pem),
                        Err(why) => problems.push(Problem::at(format!("{path}.{field}"), why)),
                    }
                }
            }
        }
        problems.extend(check_certificates(&site, inspect_certificate));
        self.settle(problems)?;
        Ok(site)
    }

    /// Lays the documents together; an object may stand in one of them only.
    fn merge_documents(&mut self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut site = Site::default();
        let mut written: BTreeMap<String, String> = BTreeMap::new();
        for document in &self.documents {
            for path in object_paths(&document.site) {
                if let Some(first) = written.get(&path) {
                    let message = format!("is already written in {first}");
                    problems.push(document.place(Problem::at(path, message)));
                } else {
                    written.insert(path, document.name.clone());
                }
            }
            let Site { listeners, certificates, routes, upstreams } = document.site.clone();
            site.listeners.extend(listeners);
            site.certificates.extend(certificates);
            site.routes.extend(routes);
            site.upstreams.extend(upstreams);
        }
        self.site = site;
        problems
    }

    /// No problems, or all of them with their places, in the order of the files.
    fn settle(&self, mut problems: Vec<Problem>) -> Result<(), Problems> {
        if problems.is_empty() {
            return Ok(());
        }
        for problem in problems.iter_mut().filter(|problem| problem.place.is_none()).take(MAX_PLACED) {
            let home = self.documents.iter().find(|document| document.holds(&problem.path));
            if let Some(document) = home {
                *problem = document.place(problem.clone());
            }
        }
        problems.sort_by(|a, b| (a.place.is_none(), &a.place).cmp(&(b.place.is_none(), &b.place)));
        Err(Problems(problems))
    }
}

impl Document {
    fn holds(&self, path: &str) -> bool {
        object_paths(&self.site).any(|object| {
            path.strip_prefix(object.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    fn place(&self, problem: Problem) -> Problem {
        let (line, column) = locate(&self.text, &problem.path).unwrap_or((1, 1));
        Problem { place: Some((self.name.clone(), line, column)), ..problem }
    }
}

/// The key path of every object of `site`.
fn object_paths(site: &Site) -> impl Iterator<Item = String> {
    let path = |kind: &'static str| move |name: &String| format!("{kind}.{}", step(name));
    let listeners = site.listeners.keys().map(path("listeners"));
    let certificates = site.certificates.keys().map(path("certificates"));
    let routes = site.routes.keys().map(path("routes"));
    listeners.chain(certificates).chain(routes).chain(site.upstreams.keys().map(path("upstreams")))
}

/// Name, directory and text of every document at `path`, by name.
fn read_texts(path: &Path) -> Result<Vec<(String, PathBuf, String)>, Problem> {
    let whole = |why: String| Problem::at("", why);
    if path == Path::new("-") {
        let text = read_bounded(io::stdin().lock(), MAX_SITE_BYTES).and_then(decode);
        let text = text.map_err(|why| whole(format!("stdin {why}")))?;
        return Ok(vec![("stdin".to_owned(), PathBuf::from("."), text)]);
    }
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        files = site_files_of(path)
            .map_err(|error| whole(format!("{} {}", path.display(), unreadable(error))))?;
        if files.is_empty() || files.len() > MAX_FILES {
            let why = format!("{} has {} site files (*.yaml, *.yml, *.json)", path.display(), files.len());
            return Err(whole(format!("{why}; 1 to {MAX_FILES} can be read")));
        }
    }
    let mut texts = Vec::with_capacity(files.len());
    let mut left = MAX_SITE_BYTES;
    for file in files {
        let text = read_text(&file, left).map_err(whole)?;
        left -= text.len();
        let dir = file.parent().map(Path::to_owned).unwrap_or_default();
        texts.push((file.display().to_string(), dir, text));
    }
    Ok(texts)
}

fn site_files_of(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let known = path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml" || ext == "json");
        if known && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_text(path: &Path, max_bytes: usize) -> Result<String, String> {
    let bytes = File::open(path).map_err(unreadable).and_then(|file| read_bounded(file, max_bytes));
    bytes.and_then(decode).map_err(|why| format!("{} {why}", path.display()))
}

fn read_bounded(source: impl Read, max_bytes: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    source.take(max_bytes as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > max_bytes {
        return Err(format!("has more than {max_bytes} bytes, which is the most that is read"));
    }
    Ok(bytes)
}

fn unreadable(error: io::Error) -> String {
    format!("cannot be read: {error}")
}

fn decode(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        format!("is not UTF-8 text: byte {:#04x} at offset {offset}", error.as_bytes()[offset])
    })
}
