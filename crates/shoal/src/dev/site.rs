//! The site of a demo cluster, with a certificate of its own making.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;

use super::home::Home;
use super::layout::{Layout, node_ip};

/// Certificate chain beside the site file.
pub const CHAIN_FILE: &str = "demo.pem";
/// Its key.
const KEY_FILE: &str = "demo.key";

/// Writes site, certificate and key, unless an earlier run did: then they may have been edited.
pub fn write(home: &Home, layout: &Layout) -> anyhow::Result<()> {
    let file = home.site_file();
    if file.exists() {
        return Ok(());
    }
    write_certificate(home.dir(), layout).context("cannot make a certificate")?;
    fs::write(&file, text(layout)).with_context(|| format!("cannot write {}", file.display()))
}

fn text(layout: &Layout) -> String {
    let Layout { http, https, origins: [first, second], .. } = layout;
    format!(
        "\
# The site of this demo cluster. Change it, then `shoal plan -f` and `shoal apply -f` it on any node.
listeners:
  web:    {{ address: \":{http}\", protocol: http }}
  secure: {{ address: \":{https}\", protocol: https, certificates: [demo] }}
certificates:
  demo: {{ chain_file: {CHAIN_FILE}, key_file: {KEY_FILE} }}
routes:
  pages:                      # every host, every path; cached as the origins allow
    path_prefix: /
    upstream: demo
    cache: {{}}
  time:                       # the longer prefix wins; not cached
    path_prefix: /time
    upstream: demo
upstreams:
  demo:
    endpoints: [\"127.0.0.1:{first}\", \"127.0.0.1:{second}\"]
    balance: round_robin
    health: {{ http: {{ path: /healthz }}, interval: 1s, timeout: 500ms, fall: 2, rise: 2 }}
"
    )
}

/// A self-signed certificate for the names and addresses under which the nodes can be reached.
fn write_certificate(dir: &Path, layout: &Layout) -> anyhow::Result<()> {
    let mut names = vec!["localhost".to_owned(), "*.localhost".to_owned()];
    names.extend(layout.nodes().map(|node| node_ip(node).to_string()));
    let made = rcgen::generate_simple_self_signed(names)?;
    fs::write(dir.join(CHAIN_FILE), made.cert.pem())?;
    let mut key =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(dir.join(KEY_FILE))?;
    key.write_all(made.signing_key.serialize_pem().as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_site_is_valid() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(Some(dir.path())).unwrap();
        let layout =
            Layout { count: 2, http: 8080, https: 8443, cluster: 0, admin: 0, ops: 0, origins: [9001, 9002] };
        write(&home, &layout).unwrap();
        let site = shoal_ctl::load_site(&home.site_file()).unwrap();
        assert_eq!(site.upstreams["demo"].endpoints.len(), 2);
        assert!(site.certificates["demo"].key_pem.is_some());

        fs::write(home.site_file(), "edited").unwrap();
        write(&home, &layout).unwrap();
        assert_eq!(fs::read_to_string(home.site_file()).unwrap(), "edited");
    }
}
