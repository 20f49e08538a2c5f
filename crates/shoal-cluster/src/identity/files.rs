//! The identity on disk: one file, secret, replaced whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shoal_model::{ClusterId, NodeId};

use super::{ClusterSecret, Identity, IdentityError, KeyRing, NodeKey, Succession};

/// Largest file that is read as an identity, bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// As many links as the system follows.
const MAX_LINKS: u32 = 40;

#[derive(Serialize, Deserialize)]
struct IdentityFile {
    cluster_id: ClusterId,
    #[serde(default)]
    cluster_epoch: u64,
    node_id: NodeId,
    name: String,
    ca: Base64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    other_authorities: Vec<Base64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bridge: Option<Base64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former_authorities: Vec<String>,
    certificate: Base64,
    key: Base64,
    secret: Base64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gossip_keys: Vec<Base64>,
}

#[derive(Serialize, Deserialize)]
struct JoinKeyFile {
    key: Base64,
}

impl Identity {
    /// The identity kept in `data_dir`; `None` = this node has none yet.
    pub fn load(data_dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = identity_path(data_dir);
        if !is_there(&path)? {
            return Ok(None);
        }
        let file: IdentityFile = read_secret_file(&path)?;
        let secret = ClusterSecret::from_bytes(&file.secret.0).ok_or_else(|| IdentityError::Damaged {
            path,
            message: format!("the secret has {} bytes instead of 32", file.secret.0.len()),
        })?;
        Ok(Some(Self {
            cluster_id: file.cluster_id,
            cluster_epoch: file.cluster_epoch,
            node_id: file.node_id,
            name: file.name,
            ca_der: CertificateDer::from(file.ca.0),
            succession: Succession {
                others: file
                    .other_authorities
                    .into_iter()
                    .map(|other| CertificateDer::from(other.0))
                    .collect(),
                bridge: file.bridge.map(|bridge| CertificateDer::from(bridge.0)),
                former: file.former_authorities,
            },
            cert_der: CertificateDer::from(file.certificate.0),
            key_der: PrivatePkcs8KeyDer::from(file.key.0),
            secret,
            gossip_keys: KeyRing::of_keys(file.gossip_keys.iter().map(|key| key.0.as_slice())),
        }))
    }

    /// Keeps it in `data_dir`, and forgets the key that was kept for joining.
    pub fn save(&self, data_dir: &Path) -> Result<(), IdentityError> {
        let path = identity_path(data_dir);
        make_secret_dir(&path)?;
        let file = IdentityFile {
            cluster_id: self.cluster_id,
            cluster_epoch: self.cluster_epoch,
            node_id: self.node_id,
            name: self.name.clone(),
            ca: Base64(self.ca_der.to_vec()),
            other_authorities: self.succession.others.iter().map(|other| Base64(other.to_vec())).collect(),
            bridge: self.succession.bridge.as_ref().map(|bridge| Base64(bridge.to_vec())),
            former_authorities: self.succession.former.clone(),
            certificate: Base64(self.cert_der.to_vec()),
            key: Base64(self.key_der.secret_pkcs8_der().to_vec()),
            secret: Base64(self.secret.expose().to_vec()),
            gossip_keys: self
                .gossip_keys
                .iter()
                .flat_map(KeyRing::expose)
                .map(|key| Base64(key.to_vec()))
                .collect(),
        };
        write_secret_file(&path, &file)?;
        let join_key = join_key_path(data_dir);
        match fs::remove_file(&join_key) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(IdentityError::File { what: "remove", path: join_key, source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl NodeKey {
    /// The key kept in `data_dir` for joining, or a new one: a node whose first attempt was cut short is still the same
    /// node at the second.
    pub fn load_or_generate(data_dir: &Path) -> Result<Self, IdentityError> {
        let path = join_key_path(data_dir);
        if is_there(&path)? {
            let file: JoinKeyFile = read_secret_file(&path)?;
            return Self::from_der(&PrivatePkcs8KeyDer::from(file.key.0));
        }
        make_secret_dir(&path)?;
        let key = Self::generate()?;
        write_secret_file(&path, &JoinKeyFile { key: Base64(key.pair.serialize_der()) })?;
        Ok(key)
    }

    /// Whether an attempt to join from `data_dir` was begun and not completed: the cluster may know this node already.
    pub fn is_kept_in(data_dir: &Path) -> Result<bool, IdentityError> {
        is_there(&join_key_path(data_dir))
    }
}

/// Whether `path` lies in the data directory of a node, of this one or another, wherever links lead. What is not there yet does
/// if the directory does that it is to be in. Looks at the disk.
pub fn is_in_data_dir(path: &Path) -> bool {
    let real = resolved(path, MAX_LINKS);
    real.is_some_and(|real| real.ancestors().skip(1).any(|dir| identity_path(dir).exists()))
}

/// Where `path` leads, over `links` that lead to what is not there at most; `None` = nowhere.
fn resolved(path: &Path, links: u32) -> Option<PathBuf> {
    if let Ok(real) = fs::canonicalize(path) {
        return Some(real);
    }
    let (dir, name) = (directory_of(path), path.file_name()?);
    match fs::read_link(path) {
        Ok(target) => resolved(&dir.join(target), links.checked_sub(1)?),
        Err(_) => Some(resolved(dir, links)?.join(name)),
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        Some(_) | None => Path::new("."),
    }
}

fn identity_path(data_dir: &Path) -> PathBuf {
    data_dir.join("identity").join("node.json")
}

fn join_key_path(data_dir: &Path) -> PathBuf {
    data_dir.join("identity").join("joining.json")
}

/// A file that cannot be looked at is an error, not an absent one: a node must not become another because of it.
fn is_there(path: &Path) -> Result<bool, IdentityError> {
    path.try_exists().map_err(|source| IdentityError::File {
        what: "look for",
        path: path.to_owned(),
        source,
    })
}

fn make_secret_dir(path: &Path) -> Result<(), IdentityError> {
    let Some(dir) = path.parent() else { return Ok(()) };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| IdentityError::File {
        what: "make",
        path: dir.to_owned(),
        source,
    })
}

/// Reads a file that nobody but its owner may be able to read.
pub(super) fn read_secret_file<T: DeserializeOwned>(path: &Path) -> Result<T, IdentityError> {
    let failed = |source| IdentityError::File { what: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Permissions { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
    // The parser's own message could quote what is secret.
    serde_json::from_str(&text).map_err(|error| IdentityError::Damaged {
        path: path.to_owned(),
        message: format!("not as it was written, at line {} column {}", error.line(), error.column()),
    })
}

/// Writes what [`read_secret_file`] reads.
pub(super) fn write_secret_file<T: Serialize>(path: &Path, content: &T) -> Result<(), IdentityError> {
    let failed = |source| IdentityError::File { what: "write", path: path.to_owned(), source };
    let mut text = serde_json::to_vec_pretty(content).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    write_private(path, &text)
}

/// Writes `content` to `path`, mode 0600, beside it first and then renamed: after a crash the file is the old one or the
/// new one, never half of either.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    let failed = |source| IdentityError::File { what: "write", path: path.to_owned(), source };
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    // A file left behind could have another mode: it is made anew.
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)?;
    File::open(directory_of(path)).and_then(|dir| dir.sync_all()).map_err(failed)
}

/// Bytes that are text in the file.
pub(super) struct Base64(pub(super) Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_into_data_directories_also_to_what_is_not_there() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        Identity::bootstrap("one").unwrap().0.save(&at("data")).unwrap();
        fs::create_dir_all(at("data/raft")).unwrap();
        fs::create_dir_all(at("logs/old")).unwrap();
        for (link, target) in [
            ("logs/there", at("data/identity/node.json")),
            ("logs/dangling", at("data/a.log")),
            ("logs/relative", "../data/a.log".into()),
            ("logs/deeper", at("data/raft/new/a.log")),
            ("logs/chain", "relative".into()),
            ("logs/dir", at("data/new")),
            ("logs/round", "round".into()),
            ("logs/harmless", "old/a.log".into()),
            ("data/out", at("logs/a.log")),
            ("old", at("logs/old")),
            ("logs/old/up", "../../data/a.log".into()),
        ] {
            symlink(target, at(link)).unwrap();
        }
        for (path, expected) in [
            ("data/identity/node.json", true),
            ("data/a.log", true),
            ("data/new/a.log", true),
            ("logs/there", true),
            ("logs/dangling", true),
            ("logs/relative", true),
            ("logs/deeper", true),
            ("logs/chain", true),
            ("logs/dir", true),
            ("logs/dir/a.log", true),
            ("logs/../data/a.log", true),
            // As the system sees it, from where the link lies and not from where it was come by.
            ("old/up", true),
            ("logs/a.log", false),
            ("logs/new/a.log", false),
            ("logs/harmless", false),
            ("logs/round", false),
            ("data/out", false),
        ] {
            assert_eq!(is_in_data_dir(&at(path)), expected, "{path}");
        }
    }

    #[test]
    fn identity_is_kept_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Identity::load(dir.path()).unwrap().is_none());
        let key = NodeKey::load_or_generate(dir.path()).unwrap();
        assert!(NodeKey::is_kept_in(dir.path()).unwrap());
        let again = NodeKey::load_or_generate(dir.path()).unwrap();
        assert_eq!(key.public_key_sha256(), again.public_key_sha256());

        let (identity, _) = Identity::bootstrap("one").unwrap();
        identity.save(dir.path()).unwrap();
        identity.save(dir.path()).unwrap();
        let read = Identity::load(dir.path()).unwrap().unwrap();
        assert_eq!(read.cluster_id, identity.cluster_id);
        assert_eq!((read.node_id, read.name.as_str()), (NodeId(1), "one"));
        assert_eq!(read.cert_der, identity.cert_der);
        assert_eq!(read.secret, identity.secret);
        assert_eq!(read.public_key_sha256().unwrap(), identity.public_key_sha256().unwrap());
        assert!(!NodeKey::is_kept_in(dir.path()).unwrap());
        let mode = fs::metadata(identity_path(dir.path())).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }

    #[test]
    fn identities_others_can_read_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (identity, authority) = Identity::bootstrap("one").unwrap();
        identity.save(dir.path()).unwrap();
        let operator = dir.path().join("operator.json");
        authority.issue_operator("root").unwrap().save(&operator).unwrap();
        let check = |mode, expected: bool| {
            for path in [identity_path(dir.path()), operator.clone()] {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            }
            assert_eq!(Identity::load(dir.path()).is_ok(), expected, "{mode:03o}");
            assert_eq!(super::super::Operator::load(&operator).is_ok(), expected, "{mode:03o}");
        };
        check(0o600, true);
        check(0o640, false);
        check(0o604, false);
        check(0o400, true);
    }

    #[test]
    fn an_identity_that_cannot_be_looked_at_is_not_absent() {
        let dir = tempfile::tempdir().unwrap();
        // A file where the directory should be.
        fs::write(dir.path().join("identity"), "").unwrap();
        let message = Identity::load(dir.path()).unwrap_err().to_string();
        assert!(message.starts_with("cannot look for"), "{message}");
        assert!(NodeKey::load_or_generate(dir.path()).is_err());
    }

    #[test]
    fn damage_is_told_without_quoting_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let (identity, _) = Identity::bootstrap("one").unwrap();
        identity.save(dir.path()).unwrap();
        let path = identity_path(dir.path());
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\"secret\": \"", "\"secret\": \"!hush")).unwrap();
        let message = Identity::load(dir.path()).unwrap_err().to_string();
        assert!(message.contains("is damaged"), "{message}");
        assert!(!message.contains("hush"), "{message}");
    }
}
