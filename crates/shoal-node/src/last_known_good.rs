//! The site this node served last, on disk: what it serves after a restart when nobody else can be asked.
//!
//! Two files, the current one and the last one before that has proven itself. Each is one line of header (version, revision, checksum) and the
//! site document with its keys sealed, written to a temporary file, synced and renamed.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use shoal_cluster::identity::sha256_hex;
use shoal_model::Revision;

const MAGIC: &str = "shoal-lkg-1";
/// No header is longer.
const MAX_HEADER_BYTES: u64 = 256;

/// The files below a data directory.
#[derive(Clone, Debug)]
pub struct LastKnownGood {
    current: PathBuf,
    previous: PathBuf,
    directory: PathBuf,
}

impl LastKnownGood {
    /// The files below `data_dir`.
    pub fn in_dir(data_dir: &Path) -> Self {
        Self {
            current: data_dir.join("last-known-good.json"),
            previous: data_dir.join("last-known-good.previous.json"),
            directory: data_dir.to_owned(),
        }
    }

    /// Keeps `site_json` (canonical, sealed) as the site of `revision`, and the current one as the one before, unless that
    /// is of the same revision.
    pub fn save(&self, revision: Revision, site_json: &str) -> io::Result<()> {
        let temporary = self.write_beside(revision, site_json)?;
        if self.revision() != Some(revision) {
            match fs::rename(&self.current, &self.previous) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.put_in_place(&temporary)
    }

    /// The same in the place of the current one, which is worth being kept only as long as there is none before it.
    pub fn overwrite(&self, revision: Revision, site_json: &str) -> io::Result<()> {
        if !self.previous.exists() {
            return self.save(revision, site_json);
        }
        let temporary = self.write_beside(revision, site_json)?;
        self.put_in_place(&temporary)
    }

    fn write_beside(&self, revision: Revision, site_json: &str) -> io::Result<PathBuf> {
        let temporary = self.current.with_extension("tmp");
        // One that was left behind, or put there, is not written through.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        writeln!(file, "{MAGIC} {revision} {}", sha256_hex(site_json.as_bytes()))?;
        file.write_all(site_json.as_bytes())?;
        file.sync_all()?;
        Ok(temporary)
    }

    fn put_in_place(&self, temporary: &Path) -> io::Result<()> {
        fs::rename(temporary, &self.current)?;
        File::open(&self.directory)?.sync_all()
    }

    /// That `revision` could not be kept, to whoever can mend it.
    pub fn in_words(&self, revision: Revision, error: &io::Error) -> String {
        format!(
            "revision {revision} is served but could not be written to {}: {error}; until another one is, a start without \
             a leader begins with what is there",
            self.current.display()
        )
    }

    /// The revision of the current site, by its header alone.
    pub fn revision(&self) -> Option<Revision> {
        let mut header = String::new();
        let mut file = BufReader::new(File::open(&self.current).ok()?).take(MAX_HEADER_BYTES);
        file.read_line(&mut header).ok()?;
        let (MAGIC, rest) = header.split_once(' ')? else { return None };
        rest.split(' ').next()?.parse().ok().map(Revision)
    }

    /// The newest site that is whole and not that of `refused`, with its revision. A damaged file is passed over with a
    /// warning.
    pub fn load(&self, refused: Option<Revision>) -> Option<(Revision, String)> {
        [&self.current, &self.previous].into_iter().find_map(|path| match read(path) {
            Ok((revision, _)) if refused == Some(revision) => None,
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "passing over a damaged last-known-good site");
                None
            }
        })
    }
}

fn read(path: &Path) -> io::Result<(Revision, String)> {
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let text = fs::read_to_string(path)?;
    let (header, site) = text.split_once('\n').ok_or_else(|| damaged("it has no header"))?;
    let mut fields = header.split(' ');
    if fields.next() != Some(MAGIC) {
        return Err(damaged("it was written by another version"));
    }
    let revision =
        fields.next().and_then(|field| field.parse().ok()).ok_or_else(|| damaged("its header is short"))?;
    if fields.next() != Some(sha256_hex(site.as_bytes()).as_str()) {
        return Err(damaged("its checksum is wrong"));
    }
    Ok((Revision(revision), site.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_gives_way_to_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let kept = LastKnownGood::in_dir(dir.path());
        assert_eq!(kept.load(None), None);
        kept.save(Revision(1), "{\"a\":1}").unwrap();
        kept.save(Revision(2), "{\"a\":2}").unwrap();
        assert_eq!(kept.load(None), Some((Revision(2), "{\"a\":2}".into())));

        let path = dir.path().join("last-known-good.json");
        let whole = fs::read_to_string(&path).unwrap();
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            assert_eq!(kept.load(None), Some((Revision(1), "{\"a\":1}".into())), "cut at {end}");
        }
        fs::write(&path, whole.replace(":2", ":3")).unwrap();
        assert_eq!(kept.load(None).unwrap().0, Revision(1));
    }

    #[test]
    fn what_stands_in_the_way_is_told_until_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let kept = LastKnownGood::in_dir(dir.path());
        kept.save(Revision(1), "{}").unwrap();
        let in_the_way = dir.path().join("last-known-good.tmp");
        fs::create_dir(&in_the_way).unwrap();
        let error = kept.save(Revision(2), "{}").unwrap_err();
        let told = kept.in_words(Revision(2), &error);
        assert!(
            told.starts_with("revision 2 is served but") && told.contains("last-known-good.json: "),
            "{told}"
        );
        assert_eq!(kept.revision(), Some(Revision(1)));
        fs::remove_dir(&in_the_way).unwrap();
        kept.save(Revision(2), "{}").unwrap();
        assert_eq!(kept.revision(), Some(Revision(2)));
    }

    #[test]
    fn the_one_before_is_the_last_good_one() {
        let dir = tempfile::tempdir().unwrap();
        let kept = LastKnownGood::in_dir(dir.path());
        let check = |current: u64, before: Option<u64>| {
            assert_eq!(kept.revision(), Some(Revision(current)));
            let loaded = |refused| kept.load(refused).map(|(revision, _)| revision.0);
            assert_eq!((loaded(None), loaded(Some(Revision(current)))), (Some(current), before));
        };
        assert_eq!(kept.revision(), None);
        kept.overwrite(Revision(0), "{}").unwrap();
        kept.overwrite(Revision(1), "{}").unwrap();
        check(1, Some(0));
        kept.save(Revision(2), "{}").unwrap();
        check(2, Some(1));
        kept.save(Revision(2), "{}").unwrap(); // after a restart
        check(2, Some(1));
        kept.overwrite(Revision(3), "{}").unwrap();
        check(3, Some(1));
    }
}
