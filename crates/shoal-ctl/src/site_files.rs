//! The site as it lies on disk: one file, a directory of files, or stdin; certificates are read in from beside it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use shoal_cluster::{inspect_authorities, inspect_certificate, inspect_client_auth, inspect_staple};
use shoal_model::Site;
use shoal_model::site::{
    Absent, MAX_SITE_BYTES, ObjectName, Problem, ProblemKind, Problems, check_authorities,
    check_certificates, check_client_auth, check_staples, holds, locate, merge, parse_object, parse_site,
    validate, validate_next,
};

/// Largest file that a site names, in bytes.
const MAX_PEM_BYTES: usize = 1 << 20;
/// Most files of a site directory.
pub const MAX_FILES: usize = 10_000;
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
    /// Key path of what it holds; empty = a site.
    root: String,
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
        Self::of(texts.into_iter().map(Document::of_site))
    }

    /// The site in `text`: complaints call it `name`, and the files that it names are relative to `dir`.
    pub fn of_text(name: &str, dir: &Path, text: String) -> Result<Self, Problems> {
        Self::of([Document::of_site((name.to_owned(), dir.to_owned(), text))])
    }

    /// Reads a file or stdin (`-`) with the settings of `object`, or with a site that has nothing else, as it is shown.
    pub fn read_object(path: &Path, object: &ObjectName) -> Result<Self, Problems> {
        let mut texts = read_texts(path).map_err(|problem| Problems(vec![problem]))?;
        let (1, Some(text)) = (texts.len(), texts.pop()) else {
            let why = format!("{} has several files; {object} is to be in one", path.display());
            return Err(Problems(vec![Problem::at("", why).of_kind(ProblemKind::Unread)]));
        };
        let is_site = holds(&text.2, object.kind.plural());
        let files =
            Self::of([if is_site { Document::of_site(text) } else { Document::of_object(text, object) }])?;
        let others = files.site.objects().filter(|other| other != object);
        files.settle(
            others
                .map(|other| Problem::at(other.path(), format!("is not {object}, which is to be set")))
                .collect(),
        )?;
        match files.site.has(object) {
            true => Ok(files),
            false => Err(Problems(vec![Problem::at(object.path(), format!("is not in {}", path.display()))])),
        }
    }

    fn of(read: impl IntoIterator<Item = Result<Document, Problem>>) -> Result<Self, Problems> {
        let mut documents = Vec::new();
        let mut problems = Vec::new();
        for document in read {
            match document {
                Ok(document) => documents.push(document),
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

    /// Checks the meaning of a part of a site: what it names and does not hold may be in the cluster. These names are
    /// the answer.
    pub fn check_part(&self) -> Result<Vec<Problem>, Problems> {
        let (absent, wrong) =
            validate(&self.site).into_iter().partition(|problem| problem.kind == ProblemKind::Absent);
        self.settle(wrong)?;
        Ok(absent)
    }

    /// Checks the meaning of the site laid over `active`: it may refer to what the cluster already has.
    pub fn check_over(&self, active: &Site) -> Result<(), Problems> {
        self.settle(validate_next(&merge(active, self.site.clone(), Absent::Keep), active))
    }

    /// The site with certificate and key files read in; every pair is checked.
    pub fn with_certificates(&self) -> Result<Site, Problems> {
        let mut homes = HashMap::new();
        for document in &self.documents {
            homes.extend(document.site.objects().map(|object| (object.path(), document.dir.as_path())));
        }
        let mut site = self.site.clone();
        let mut problems = Vec::new();
        for named in site.take_files() {
            let path = named.path();
            let home = homes.get(&named.object).copied().unwrap_or(Path::new(""));
            let file = home.join(&named.file);
            let read = read_bytes(&file, MAX_PEM_BYTES).and_then(|content| named.fill(content));
            if let Err(why) = read {
                problems.push(Problem::at(path, format!("{} {why}", file.display())));
            }
        }
        problems.extend(check_certificates(&site, inspect_certificate));
        problems.extend(check_staples(&site, inspect_staple));
        problems.extend(check_authorities(&site, inspect_authorities));
        problems.extend(check_client_auth(&site, inspect_client_auth));
        self.settle(problems)?;
        Ok(site)
    }

    /// Lays the documents together; an object may stand in one of them only.
    fn merge_documents(&mut self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut site = Site::default();
        let mut written: BTreeMap<String, String> = BTreeMap::new();
        for document in &self.documents {
            for object in document.site.objects() {
                let path = object.path();
                if let Some(first) = written.get(&path) {
                    let message = format!("is already written in {first}");
                    problems.push(document.place(Problem::at(path, message)));
                } else {
                    written.insert(path, document.name.clone());
                }
            }
            let Site { listeners, certificates, routes, upstreams, dns_zones } = document.site.clone();
            site.listeners.extend(listeners);
            site.certificates.extend(certificates);
            site.routes.extend(routes);
            site.upstreams.extend(upstreams);
            site.dns_zones.extend(dns_zones);
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

/// Name, directory and text of a document.
type Text = (String, PathBuf, String);

impl Document {
    fn of_site((name, dir, text): Text) -> Result<Self, Problem> {
        let site = parse_site(&name, &text)?;
        Ok(Self { name, dir, text, root: String::new(), site })
    }

    fn of_object((name, dir, text): Text, object: &ObjectName) -> Result<Self, Problem> {
        let site = parse_object(object, &name, &text)?;
        Ok(Self { name, dir, text, root: object.path(), site })
    }

    fn holds(&self, path: &str) -> bool {
        self.site.objects().any(|object| {
            path.strip_prefix(object.path().as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    fn place(&self, problem: Problem) -> Problem {
        let path = problem.path.strip_prefix(self.root.as_str()).unwrap_or(&problem.path);
        let (line, column) = locate(&self.text, path).unwrap_or((1, 1));
        Problem { place: Some((self.name.clone(), line, column)), ..problem }
    }
}

/// Name, directory and text of every document at `path`, by name.
fn read_texts(path: &Path) -> Result<Vec<Text>, Problem> {
    let whole = |why: String| Problem::at("", why).of_kind(ProblemKind::Unread);
    if path == Path::new("-") {
        let text = read_stdin(MAX_SITE_BYTES).map_err(whole)?;
        return Ok(vec![("stdin".to_owned(), PathBuf::from("."), text)]);
    }
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        files = site_files_of(path)
            .map_err(|error| whole(format!("{} {}", path.display(), unreadable(error))))?;
        if let Some(below) = site_files_below(path) {
            let why = format!("{} is not read, and it is below {}", below.display(), path.display());
            return Err(whole(format!(
                "{why}; put all site files into one directory, or apply each one by itself"
            )));
        }
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

/// The files of a directory that hold a site, by name.
pub(crate) fn site_files_of(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if is_named_as_site(&path) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What an editor or a file system leaves behind begins with a dot.
fn is_named_as_site(path: &Path) -> bool {
    let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !is_hidden && path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml" || ext == "json")
}

/// A site file one directory further down: whoever keeps them there expects them to be read, and with --prune everything that
/// is in them would be removed.
fn site_files_below(dir: &Path) -> Option<PathBuf> {
    let below = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path());
    let directories = below.filter(|path| path.is_dir() && !path.is_symlink()).take(MAX_FILES);
    directories.into_iter().find_map(|path| site_files_of(&path).ok()?.into_iter().next())
}

/// What stdin has, of at most `max_bytes`; else why not.
pub(crate) fn read_stdin(max_bytes: usize) -> Result<String, String> {
    read_bounded(io::stdin().lock(), max_bytes).and_then(decode).map_err(|why| format!("stdin {why}"))
}

/// The text of a file of at most `max_bytes`; else why not, with its name.
pub(crate) fn read_text(path: &Path, max_bytes: usize) -> Result<String, String> {
    read_bytes(path, max_bytes).and_then(decode).map_err(|why| format!("{} {why}", path.display()))
}

fn read_bytes(path: &Path, max_bytes: usize) -> Result<Vec<u8>, String> {
    File::open(path).map_err(unreadable).and_then(|file| read_bounded(file, max_bytes))
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

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "routes:\n  shop: { path_prefix: /, upstream: shop }\n";
    const UPSTREAMS: &str = "upstreams:\n  shop: { endpoints: [\"10.0.0.1:9000\"] }\n";

    /// Loads a directory of `files`; the places of what is wrong are relative to it.
    fn check(files: &[(&str, &[u8])], expected: Result<usize, &[&str]>) {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let prefix = format!("{}/", dir.path().display());
        let loaded = load_site(dir.path()).map(|site| site.objects().count());
        let loaded = loaded.map_err(|problems| {
            problems.0.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect::<Vec<_>>()
        });
        assert_eq!(loaded, expected.map_err(|lines| lines.iter().map(ToString::to_string).collect()));
    }

    #[test]
    fn a_directory_is_one_site() {
        check(&[("a.yaml", ROUTES.as_bytes()), ("b.yml", UPSTREAMS.as_bytes()), ("notes.txt", b"[")], Ok(2));
        check(&[("a.yaml", UPSTREAMS.as_bytes()), (".#a.yaml", b"["), ("certs/shop.pem", b"")], Ok(1));
        check(
            &[("a.yaml", ROUTES.as_bytes()), ("b.json", br#"{"upstreams":{"shop":{"endpoints":["h:1"]}}}"#)],
            Ok(2),
        );
        check(
            &[("a.yaml", ROUTES.as_bytes()), ("b.yaml", UPSTREAMS.as_bytes()), ("c.yaml", ROUTES.as_bytes())],
            Err(&["c.yaml:2:9: routes.shop: is already written in a.yaml"]),
        );
        check(
            &[("a.yaml", ROUTES.as_bytes()), ("b.yaml", b"listeners: {}\n")],
            Err(&[
                "a.yaml:2:37: routes.shop.upstream: there is no upstream \"shop\"; no upstream is defined",
            ]),
        );
        check(
            &[("a.yaml", b"routes: []\n"), ("b.yaml", b"upstreams: \xff\n")],
            Err(&["b.yaml is not UTF-8 text: byte 0xff at offset 11"]),
        );
    }

    #[test]
    fn an_object_is_read_by_itself_or_as_it_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("shop.yaml");
        let check = |text: &str, expected: Result<(), &str>| {
            fs::write(&file, text).unwrap();
            let read = SiteFiles::read_object(&file, &"route/shop".parse().unwrap());
            let read = read.and_then(|files| files.check_over(&parse_site("", UPSTREAMS).unwrap()));
            let read = read.map_err(|why| why.to_string().replace(&format!("{}/", dir.path().display()), ""));
            assert_eq!(read, expected.map_err(str::to_owned), "{text}");
        };
        check("path_prefix: /\nupstream: shop\n", Ok(()));
        check(ROUTES, Ok(()));
        check(
            "path_prefix: /\nupstream: shap\n",
            Err("shop.yaml:2:11: routes.shop.upstream: there is no upstream \"shap\"; upstreams are: shop"),
        );
        check(
            "routes: { shop: { upstream: shop }, blog: { upstream: shop } }\n",
            Err("shop.yaml:1:43: routes.blog: is not route/shop, which is to be set"),
        );
        check("routes: {}\n", Err("routes.shop: is not in shop.yaml"));
    }

    #[test]
    fn every_file_with_a_problem_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), "routes: 1\n").unwrap();
        fs::write(dir.path().join("b.yaml"), "rutes: {}\n").unwrap();
        let problems = SiteFiles::read(dir.path()).unwrap_err();
        assert_eq!(problems.0.len(), 2, "{problems}");
        assert!(load_site(&dir.path().join("c.yaml")).unwrap_err().to_string().contains("cannot be read"));
    }

    #[test]
    fn certificates_are_read_beside_the_file_that_names_them() {
        let pair = rcgen::generate_simple_self_signed(["shop.example.com".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["shop.example.com".to_owned()]).unwrap();
        let (chain, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
        let site: &[u8] = b"certificates:\n  shop: { chain_file: shop.pem, key_file: shop.key }\n";
        check(&[("site.yaml", site), ("shop.pem", chain.as_bytes()), ("shop.key", key.as_bytes())], Ok(1));

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("site.yaml");
        fs::write(&file, site).unwrap();
        let why = load_site(&file).unwrap_err().to_string();
        let missing = format!(
            "{}:2:23: certificates.shop.chain_file: {} cannot be read: No such file",
            file.display(),
            dir.path().join("shop.pem").display()
        );
        assert!(why.starts_with(&missing), "{why}");

        fs::write(dir.path().join("shop.pem"), &chain).unwrap();
        fs::write(dir.path().join("shop.key"), other.signing_key.serialize_pem()).unwrap();
        let why = load_site(&file).unwrap_err().to_string();
        assert!(why.starts_with(&format!("{}:2:9: certificates.shop: ", file.display())), "{why}");
        assert!(why.contains("key"), "{why}");

        fs::write(dir.path().join("shop.key"), &key).unwrap();
        let site = load_site(&file).unwrap();
        assert_eq!(site.certificates["shop"].chain_pem.as_deref(), Some(chain.as_str()));
        assert_eq!(site.certificates["shop"].chain_file, None);
    }

    #[test]
    fn authorities_are_read_beside_the_file_that_names_them() {
        let authority = rcgen::generate_simple_self_signed(["ca.example.com".to_owned()]).unwrap().cert.pem();
        let site = "upstreams:\n  app: { endpoints: [\"a.example:443\"], tls: { ca_file: ca.pem } }\n";
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("site.yaml");
        fs::write(&file, site).unwrap();
        let refused = |start: &str, part: &str| {
            let why = load_site(&file).unwrap_err().to_string();
            assert!(why.starts_with(&format!("{}:{start}", file.display())), "{why}");
            assert!(why.contains(part), "{why}");
        };
        refused("2:56: upstreams.app.tls.ca_file: ", "cannot be read");
        fs::write(dir.path().join("ca.pem"), "nothing").unwrap();
        refused("2:45: upstreams.app.tls: ", "no certificate");
        fs::write(dir.path().join("ca.pem"), &authority).unwrap();
        let tls = load_site(&file).unwrap().upstreams["app"].tls.clone().unwrap();
        assert_eq!((tls.ca_file, tls.ca_pem), (None, Some(authority)));
    }

    #[test]
    fn a_part_of_a_site_may_lean_on_the_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("site.yaml");
        fs::write(&file, ROUTES).unwrap();
        let files = SiteFiles::read(&file).unwrap();
        assert!(files.check_alone().is_err());
        let absent = files.check_part().unwrap();
        assert_eq!(
            absent.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(),
            ["routes.shop.upstream"]
        );
        let active = parse_site("active", UPSTREAMS).unwrap();
        assert_eq!(files.check_over(&active), Ok(()));
        assert!(files.check_over(&Site::default()).is_err());
    }
}
