//! The site this node served last, on disk: what it serves after a restart when nobody else can be asked.
//!
//! Two files, the current one and the one before. Each is one line of header (version, revision, checksum) and the
//! site document with its keys sealed, written to a temporary file, synced and renamed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use shoal_cluster::identity::sha256_hex;
use shoal_model::Revision;

const MAGIC: &str = "shoal-lkg-1";

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

    /// Keeps `site_json` (canonical, sealed) as the site of `revision`.
    pub fn save(&self, revision: Revision, site_json: &str) -> io::Result<()> {
        let temporary = self.current.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        writeln!(file, "{MAGIC} {revision} {}", sha256_hex(site_json.as_bytes()))?;
        file.write_all(site_json.as_bytes())?;
        file.sync_all()?;
        match fs::rename(&self.current, &self.previous) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(&temporary, &self.current)?;
        File::open(&self.directory)?.sync_all()
    }

    /// The newest site that is whole, with its revision. A damaged file is passed over with a warning.
    pub fn load(&self) -> Option<(Revision, String)> {
        [&self.current, &self.previous].into_iter().find_map(|path| match read(path) {
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
        assert_eq!(kept.load(), None);
        kept.save(Revision(1), "{\"a\":1}").unwrap();
        kept.save(Revision(2), "{\"a\":2}").unwrap();
        assert_eq!(kept.load(), Some((Revision(2), "{\"a\":2}".into())));

        let path = dir.path().join("last-known-good.json");
        let whole = fs::read_to_string(&path).unwrap();
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            assert_eq!(kept.load(), Some((Revision(1), "{\"a\":1}".into())), "cut at {end}");
        }
        fs::write(&path, whole.replace(":2", ":3")).unwrap();
        assert_eq!(kept.load().unwrap().0, Revision(1));
    }
}
