//! Who this node is: resumed from disk, newly bootstrapped, or admitted by a cluster.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_cluster::identity::{ClusterSecret, Identity, NodeKey, sha256_hex, write_private};
use shoal_cluster::join::{Applicant, Joined, Token, find_back, join};
use shoal_configlog::{known_level, oldest_level, suited_timing};
use shoal_model::NodeId;
use shoal_model::state::{ClusterSetup, Command, MemberRecord, SetupOrder, check_member_name};

use crate::data_dir::{BOOTSTRAP, OPERATOR, PEERS, SETUP};
use crate::removed;
use crate::settings::RunSettings;
use crate::{admin, data_dir, twins};

/// Hex digits of an authority's hash that are shown: enough to tell two apart.
const SHOWN_DIGITS: usize = 12;

/// A data directory that belongs to this process alone, and the identity in it.
pub struct Boot {
    /// Held for as long as the process lives.
    pub lock: File,
    /// Who this node is.
    pub identity: Identity,
    /// The first entry of a new cluster, until it is committed.
    pub bootstrap: Option<Command>,
    /// Nodes to talk to first, until this node has the log of the cluster it joined.
    pub peers: Vec<(NodeId, SocketAddr)>,
    /// What holds for the cluster as a whole, as this node knew it last.
    pub setup: ClusterSetup,
}

/// Opens the data directory and finds out who this node is; joins or bootstraps when it is new. `bind` takes the addresses
/// of this node: one that is taken ends the start before anything is written that a corrected one would meet.
pub async fn boot(settings: &RunSettings, bind: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Boot> {
    check(settings)?;
    let dir = &settings.data_dir;
    let is_new = data_dir::look(dir)?.is_none();
    if is_new && settings.join.is_empty() && settings.token.is_some() {
        bail!(
            "{} is of no node yet, and a token (--token or SHOAL_TOKEN) is for joining a cluster: give --join ADDR as well, \
             or leave the token out to begin a new cluster",
            dir.display()
        );
    }
    if is_new
        && settings.join.is_empty()
        && let Some(file) = &settings.apply
    {
        let site = admin::read_first_site(file).await?;
        admin::check_first_site(&ClusterSecret::generate(), site)
            .with_context(|| format!("{}: the site is refused", file.display()))?;
    }
    let lock = data_dir::lock(dir)?;
    removed::refuse_to_start(dir)?;
    if let Some(identity) = data_dir::look(dir)? {
        check_name(settings, &identity)?;
        let identity = in_its_cluster(settings, identity).await?;
        twins::refuse_beside_itself(settings, &identity).await?;
        bind()?;
        twins::remember(settings);
        tracing::info!(node = %identity.node_id, name = identity.name, cluster = %identity.cluster_id, "resuming");
        let (bootstrap, peers) = (read_pending(dir, BOOTSTRAP)?, read_pending(dir, PEERS)?);
        let setup = read_pending::<ClusterSetup>(dir, SETUP)?.unwrap_or_default();
        note_contradiction(setup, settings.setup);
        return Ok(Boot { lock, bootstrap, identity, peers: peers.unwrap_or_default(), setup });
    }
    if settings.join.is_empty() {
        if NodeKey::is_kept_in(dir)? {
            bail!(
                "{} is of a node that was about to join a cluster: give --join and --token again, or another --data-dir",
                dir.display()
            );
        }
        bind()?;
        let name = settings.name.clone().unwrap_or_else(host_name);
        return bootstrap(settings, &name, lock);
    }
    let Some(token) = &settings.token else {
        bail!("joining needs --token; create one on any node of the cluster with `shoal token create`");
    };
    let token: Token = token.parse()?;
    bind()?;
    let key = NodeKey::load_or_generate(dir)?;
    // Several nodes of one machine have one host name.
    let own_name = || format!("{}-{}", host_name(), &key.public_key_sha256()[..4]);
    let applicant = Applicant {
        name: settings.name.clone().unwrap_or_else(own_name),
        region: settings.region.clone(),
        zone: settings.zone.clone(),
        cluster_addr: settings.cluster_addr.to_string(),
        admin_addr: settings.admin_addr.to_string(),
        setup: settings.setup,
        knows_level: known_level(),
        oldest_level: oldest_level(),
    };
    twins::remember(settings);
    let Joined { identity, peers, setup } = join(&settings.join, &token, &applicant, &key).await?;
    note_contradiction(setup, settings.setup);
    write_pending(dir, PEERS, &peers)?;
    remember_setup(dir, setup)?;
    identity.save(dir)?;
    tracing::info!(node = %identity.node_id, name = identity.name, cluster = %identity.cluster_id, "joined");
    Ok(Boot { lock, identity, bootstrap: None, peers, setup })
}

/// A node keeps the name it was admitted with. Another `--name` is a mistake, perhaps the directory of another node: who
/// started it would look for a node that does not exist.
fn check_name(settings: &RunSettings, identity: &Identity) -> anyhow::Result<()> {
    match &settings.name {
        Some(name) if *name != identity.name => bail!(
            "{} is of node {:?}, not of {name:?}: leave --name out, or give another --data-dir",
            settings.data_dir.display(),
            identity.name
        ),
        Some(_) | None => Ok(()),
    }
}

/// A node stays in the cluster that admitted it. A token of another one is a mistake, and the operator would wait for a
/// node that never comes; unless it names an authority that has succeeded while this node was away, or before it had a
/// certificate of it.
async fn in_its_cluster(settings: &RunSettings, identity: Identity) -> anyhow::Result<Identity> {
    let token = settings.token.as_ref().map(|token| token.parse::<Token>()).transpose()?;
    if let Some(token) = token.as_ref().filter(|token| token.is_of_successor(&identity)) {
        match found_back(settings, token, &identity).await {
            Ok(found) => return Ok(found),
            // It need not be shut out: all may be on their way from one authority to the other.
            Err(error) => tracing::warn!(
                %error,
                "this node goes on with the certificate that it has: no node at --join gave it one of the authority of the token"
            ),
        }
    }
    let Some(token) = token.filter(|token| !token.is_of(&identity)) else {
        if settings.token.is_some() || !settings.join.is_empty() {
            let cluster = identity.cluster_id;
            tracing::info!(%cluster, "this node is in its cluster already: --join and --token are not needed any more");
        }
        return Ok(identity);
    };
    let error = match found_back(settings, &token, &identity).await {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    let own = sha256_hex(&identity.ca_der);
    bail!(
        "{} is of node {:?} in cluster {} (authority {}…), and the token is for another cluster or for another authority \
         ({}…), by which no node at --join lets this one in: {error}; leave --join and --token out to resume here, or give \
         another --data-dir to join there",
        settings.data_dir.display(),
        identity.name,
        identity.cluster_id,
        &own[..SHOWN_DIGITS],
        &token.ca_sha256[..SHOWN_DIGITS],
    )
}

/// This node with a certificate of the authority that `token` names, saved.
async fn found_back(settings: &RunSettings, token: &Token, identity: &Identity) -> anyhow::Result<Identity> {
    let found = find_back(&settings.join, token, identity).await?;
    found.save(&settings.data_dir)?;
    let authority = &token.ca_sha256[..SHOWN_DIGITS];
    tracing::info!(authority, "this node has found back: it has a certificate of the authority of the token");
    Ok(found)
}

/// The name of this machine, or `node`.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let name: String = name.split('.').next().unwrap_or_default().chars().filter(fits).take(40).collect();
    if name.is_empty() { "node".to_owned() } else { name }
}

/// What would only be noticed when the identity is made and others have been told of it.
fn check(settings: &RunSettings) -> anyhow::Result<()> {
    let address = settings.cluster_addr;
    if address.ip().is_unspecified() || address.port() == 0 {
        bail!(
            "other nodes cannot reach {address}: give --cluster-addr the address and port of one interface"
        );
    }
    check_cache_memory(settings.cache_memory_bytes, machine_memory())?;
    let names = [
        ("--name", settings.name.as_deref()),
        ("--region", Some(settings.region.as_str())),
        ("--zone", Some(settings.zone.as_str())),
    ];
    for (flag, name) in names {
        if let Some(name) = name {
            check_member_name(name).with_context(|| flag.to_owned())?;
        }
    }
    Ok(())
}

/// Bytes of memory this machine has; more than anybody asks for where that cannot be told.
#[cfg(target_os = "linux")]
fn machine_memory() -> u64 {
    let told = rustix::system::sysinfo();
    u64::from(told.mem_unit).saturating_mul(told.totalram)
}

/// Bytes of memory this machine has; more than anybody asks for where that cannot be told.
#[cfg(not(target_os = "linux"))]
fn machine_memory() -> u64 {
    u64::MAX
}

/// Objects that do not fit into memory would end the process, and that long after its start.
fn check_cache_memory(bytes: u64, total: u64) -> anyhow::Result<()> {
    let mib = |bytes: u64| bytes >> 20;
    if bytes >= total {
        bail!(
            "--cache-memory is {} MiB, and this machine has {} MiB of memory: give it less",
            mib(bytes),
            mib(total)
        );
    }
    if bytes > total / 4 * 3 {
        tracing::warn!(
            cache_mib = mib(bytes),
            machine_mib = mib(total),
            "--cache-memory leaves little memory for anything else"
        );
    }
    Ok(())
}

/// Forgets what the first start had to finish, once it has.
pub fn finished(dir: &Path) {
    for file in [BOOTSTRAP, PEERS] {
        match fs::remove_file(dir.join(file)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, file, "cannot remove what the first start has left");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

fn bootstrap(settings: &RunSettings, name: &str, lock: File) -> anyhow::Result<Boot> {
    let dir = &settings.data_dir;
    // Without a word of the operator: the disk of the first node speaks for all, so that they are equally patient.
    let timing = match settings.setup.timing {
        Some(timing) => timing,
        None => suited_timing(dir).with_context(|| format!("cannot write to {}", dir.display()))?,
    };
    let wanted = SetupOrder { timing: Some(timing), ..settings.setup };
    let setup = ClusterSetup::default().with(wanted);
    let (identity, authority) = Identity::bootstrap(name)?;
    let command = Command::Bootstrap {
        cluster_id: identity.cluster_id,
        ca_certificate: identity.ca_der.to_vec(),
        ca_key_sealed: authority.seal_key(&identity.secret),
        node: member_record(settings, &identity)?,
        setup,
        level: known_level(),
    };
    write_pending(dir, BOOTSTRAP, &command)?;
    remember_setup(dir, setup)?;
    authority.issue_operator("admin")?.save(&dir.join(OPERATOR))?;
    twins::remember(settings);
    identity.save(dir)?;
    tracing::info!(cluster = %identity.cluster_id, name, %setup, "bootstrapped a new cluster");
    Ok(Boot { lock, identity, bootstrap: Some(command), peers: Vec::new(), setup })
}

/// How the log describes this node.
pub fn member_record(settings: &RunSettings, identity: &Identity) -> anyhow::Result<MemberRecord> {
    Ok(MemberRecord {
        name: identity.name.clone(),
        region: settings.region.clone(),
        zone: settings.zone.clone(),
        cluster_addr: settings.cluster_addr.to_string(),
        admin_addr: settings.admin_addr.to_string(),
        public_key_sha256: identity.public_key_sha256()?,
        purge_lease_ms: settings.purge_lease.as_millis() as u64,
    })
}

/// A unit file still says what the cluster was founded with: that is no reason not to start.
fn note_contradiction(setup: ClusterSetup, told: SetupOrder) {
    let why = setup.contradicts(told);
    if !why.is_empty() {
        tracing::warn!(
            why,
            "--timing and --max-voters are for new clusters: this one goes by what it has agreed on"
        );
    }
}

/// Whole and on disk, for the next start.
pub fn remember_setup(dir: &Path, setup: ClusterSetup) -> anyhow::Result<()> {
    write_pending(dir, SETUP, &setup)
}

/// Whole and on disk, or not there at all: the identity that is saved next makes it binding.
fn write_pending<T: Serialize>(dir: &Path, file: &str, content: &T) -> anyhow::Result<()> {
    Ok(write_private(&dir.join(file), &serde_json::to_vec(content)?)?)
}

fn read_pending<T: DeserializeOwned>(dir: &Path, file: &str) -> anyhow::Result<Option<T>> {
    let path = dir.join(file);
    match fs::read(&path) {
        Ok(bytes) => {
            let content = serde_json::from_slice(&bytes);
            Ok(Some(content.with_context(|| format!("{} is damaged", path.display()))?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shoal_policy::cache::lease::DEFAULT_LEASE;

    use super::*;
    use crate::dns::DnsLimits;
    use crate::ready_scopes::ReadyRules;
    use crate::settings::CacheDisk;

    async fn boot(settings: &RunSettings) -> anyhow::Result<Boot> {
        super::boot(settings, || Ok(())).await
    }

    fn settings(dir: &Path) -> RunSettings {
        RunSettings {
            data_dir: dir.to_owned(),
            name: Some("one".to_owned()),
            region: "default".to_owned(),
            zone: "default".to_owned(),
            cluster_addr: ([127, 0, 0, 1], 7400).into(),
            admin_addr: ([127, 0, 0, 1], 7401).into(),
            ops_addr: ([127, 0, 0, 1], 7402).into(),
            dns_listen: Vec::new(),
            dns_limits: DnsLimits { rate: 0, max_connections: 1 },
            public_addresses: Vec::new(),
            ready_rules: ReadyRules::default(),
            setup: SetupOrder::default(),
            join: Vec::new(),
            token: None,
            workers: None,
            apply: None,
            listen_ip: [127, 0, 0, 1].into(),
            access_log: false,
            cache_memory_bytes: 0,
            cache_intake_bytes: 0,
            purge_rate: 100,
            purge_lease: DEFAULT_LEASE,
            purge_retention: Duration::from_secs(86_400),
            cache_disk: CacheDisk::Off,
            cache_dir: None,
            crash_guard: Duration::from_secs(60),
            watchdog: Duration::ZERO,
            drain_delay: Duration::ZERO,
            drain_hook: None,
            drain_hook_timeout: Duration::ZERO,
            handover_bytes_per_second: 0,
            drain_timeout: Duration::ZERO,
            program: None,
            trim_memory: || {},
        }
    }

    #[tokio::test]
    async fn a_first_start_that_was_cut_short_is_taken_up_again() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let first = boot(&settings).await.unwrap();
        let message = boot(&settings).await.err().unwrap().to_string();
        assert!(message.contains("another shoal process"), "{message}");
        let Boot { lock, identity, bootstrap, setup, .. } = first;
        assert!(bootstrap.is_some());
        assert!(setup.timing.is_some(), "the disk speaks where nobody says anything");
        drop(lock);

        let second = boot(&settings).await.unwrap();
        assert_eq!(second.identity.cluster_id, identity.cluster_id);
        assert_eq!(second.bootstrap, bootstrap, "not in the log yet");
        assert_eq!(second.setup, setup);
        drop(second);
        finished(dir.path());
        assert_eq!(boot(&settings).await.unwrap().bootstrap, None);

        // A node that joined and was stopped before it had the log still knows whom to ask.
        let peers = vec![(NodeId(1), SocketAddr::from(([10, 0, 0, 1], 7400)))];
        write_pending(dir.path(), PEERS, &peers).unwrap();
        assert_eq!(boot(&settings).await.unwrap().peers, peers);
    }

    #[test]
    fn a_cache_larger_than_the_machine_is_refused() {
        let check = |bytes: u64, total: u64, expected: bool| {
            assert_eq!(check_cache_memory(bytes, total).is_ok(), expected, "{bytes} of {total}");
        };
        check(256 << 20, 1 << 30, true);
        check((1 << 30) - 1, 1 << 30, true);
        check(1 << 30, 1 << 30, false);
        check(u64::MAX, 1 << 30, false);
    }

    #[tokio::test]
    async fn a_node_keeps_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let named =
            |name: Option<&str>| RunSettings { name: name.map(str::to_owned), ..settings(dir.path()) };
        drop(boot(&named(Some("n1"))).await.unwrap());
        for same in [None, Some("n1")] {
            assert_eq!(boot(&named(same)).await.unwrap().identity.name, "n1");
        }
        let message = boot(&named(Some("n2"))).await.err().unwrap().to_string();
        assert!(message.contains("is of node \"n1\", not of \"n2\""), "{message}");
    }

    #[tokio::test]
    async fn a_node_stays_in_its_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let joining = |token: Option<String>| RunSettings {
            join: vec!["127.0.0.1:1".to_owned()],
            token,
            ..settings(dir.path())
        };
        let own = boot(&settings(dir.path())).await.unwrap().identity;
        let (other, _) = Identity::bootstrap("other").unwrap();
        let token = |identity: &Identity| Some(Token::create(&identity.ca_der, "node").reveal());
        for same in [None, token(&own)] {
            assert_eq!(boot(&joining(same)).await.unwrap().identity.cluster_id, own.cluster_id);
        }
        let message = boot(&joining(token(&other))).await.err().unwrap().to_string();
        let [own_hash, other_hash] = [&own, &other].map(|identity| sha256_hex(&identity.ca_der));
        for named in [&own.cluster_id.to_string(), &own_hash[..SHOWN_DIGITS], &other_hash[..SHOWN_DIGITS]] {
            assert!(message.contains(named), "{message}");
        }
        assert!(boot(&joining(Some("nonsense".to_owned()))).await.is_err());
    }

    #[tokio::test]
    async fn a_directory_that_somebody_could_miss_is_left_as_it_is() {
        let check = async |files: &[&str], expected: &str| {
            let dir = tempfile::tempdir().unwrap();
            for file in files {
                fs::write(dir.path().join(file), "precious").unwrap();
            }
            let message = boot(&settings(dir.path())).await.err().unwrap().to_string();
            assert!(message.contains(expected), "{message}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), files.len(), "something was written");
            for file in files {
                assert_eq!(fs::read_to_string(dir.path().join(file)).unwrap(), "precious");
            }
        };
        check(&["raft.redb", "operator.json"], "whose identity (identity/node.json) is gone").await;
        check(&["thesis.tex"], "is not empty and not of a node").await;
    }

    #[tokio::test]
    async fn a_first_site_that_cannot_be_used_founds_no_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let check = async |content: Option<&str>, expected: &str| {
            let (file, data_dir) = (dir.path().join("site.yaml"), dir.path().join("data"));
            content.map_or(Ok(()), |content| fs::write(&file, content)).unwrap();
            let settings = RunSettings { apply: Some(file), ..settings(&data_dir) };
            let error = format!("{:#}", boot(&settings).await.err().unwrap());
            assert!(error.contains(expected), "{error}");
            assert!(!data_dir.exists());
        };
        check(None, "site.yaml: No such file").await;
        check(Some("routes: ["), "site.yaml:").await;
        check(Some("routes: { a: { path_prefix: /, upstream: none } }"), "there is no upstream").await;
    }

    #[tokio::test]
    async fn a_node_that_was_to_join_founds_no_cluster() {
        let dir = tempfile::tempdir().unwrap();
        NodeKey::load_or_generate(dir.path()).unwrap();
        let message = boot(&settings(dir.path())).await.err().unwrap().to_string();
        assert!(message.contains("give --join and --token again"), "{message}");
        assert!(Identity::load(dir.path()).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_token_alone_founds_no_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        let (other, _) = Identity::bootstrap("other").unwrap();
        let token = Token::create(&other.ca_der, "node").reveal();
        for token in [token, "nonsense".to_owned()] {
            let settings = RunSettings { token: Some(token), ..settings(&data_dir) };
            let message = boot(&settings).await.err().unwrap().to_string();
            assert!(message.contains("give --join ADDR as well"), "{message}");
            assert!(!data_dir.exists());
        }
        // Once it is in its cluster, neither is needed.
        let own = boot(&settings(&data_dir)).await.unwrap().identity;
        let token = Some(Token::create(&own.ca_der, "node").reveal());
        let again = boot(&RunSettings { token, ..settings(&data_dir) }).await.unwrap().identity;
        assert_eq!(again.cluster_id, own.cluster_id);
    }

    #[tokio::test]
    async fn a_taken_address_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let (other, _) = Identity::bootstrap("other").unwrap();
        let joining = RunSettings {
            join: vec!["127.0.0.1:1".to_owned()],
            token: Some(Token::create(&other.ca_der, "node").reveal()),
            ..settings(dir.path())
        };
        for settings in [&settings(dir.path()), &joining] {
            let refused = super::boot(settings, || bail!("cannot listen")).await;
            assert_eq!(refused.err().unwrap().to_string(), "cannot listen");
            let entries = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
            assert_eq!(entries.collect::<Vec<_>>(), ["lock"]);
        }
        assert!(boot(&settings(dir.path())).await.is_ok());
    }

    #[tokio::test]
    async fn what_others_could_not_use_is_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        let check = async |change: fn(&mut RunSettings), expected: &str| {
            let mut settings = settings(&data_dir);
            change(&mut settings);
            let error = format!("{:#}", boot(&settings).await.err().unwrap());
            assert!(error.contains(expected), "{error}");
            assert!(!data_dir.exists());
        };
        check(|settings| settings.cluster_addr.set_ip([0, 0, 0, 0].into()), "--cluster-addr").await;
        check(|settings| settings.cluster_addr.set_port(0), "--cluster-addr").await;
        check(|settings| settings.name = Some(String::new()), "--name: names have 1 to 63").await;
        check(|settings| settings.zone = "a\nb".to_owned(), "--zone: names have 1 to 63").await;
    }
}
