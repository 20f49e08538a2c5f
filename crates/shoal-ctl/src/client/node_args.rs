//! The flags that say which node is asked, as whom, and how its answer is printed.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use shoal_model::units::Period;

use super::{Client, IdentityFiles, Target};
use crate::contexts::Contexts;
use crate::failure::Failure;
use crate::output::Format;

/// The socket that is asked when nothing says where the cluster is.
const DEFAULT_SOCKET: &str = "/var/lib/shoal/admin.sock";
const DEFAULT_TIMEOUT: Period = Period::seconds(30);

/// Which node is asked, as whom, and how its answer is printed. They may stand before or after the verb; a flag goes
/// before the environment, and one after the verb before one in front of it.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub struct NodeArgs {
    /// Admin addresses of nodes, tried in turn [env: SHOAL_ADDR]
    #[arg(short = 'a', long, value_name = "HOST:PORT,…", value_delimiter = ',', conflicts_with = "socket")]
    pub addr: Vec<String>,
    /// A cluster that was given a name by `shoal login` [env: SHOAL_CONTEXT] [default: the one that is used]
    #[arg(short = 'c', long, value_name = "NAME", conflicts_with_all = ["addr", "socket"])]
    pub context: Option<String>,
    /// Local socket of a node [env: SHOAL_SOCKET] [default: /var/lib/shoal/admin.sock]
    #[arg(long, value_name = "DIR/admin.sock")]
    pub socket: Option<PathBuf>,
    /// Operator's key and certificates in one file, as DIR/operator.json of the first node [env: SHOAL_IDENTITY]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cacert", "cert", "key"])]
    pub identity: Option<PathBuf>,
    /// The cluster's CA, PEM [env: SHOAL_CACERT]
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// Operator's certificate, PEM [env: SHOAL_CERT]
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Key of --cert, PEM [env: SHOAL_KEY]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Name in the node's certificate [env: SHOAL_SERVER_NAME] [default: any node of the cluster]
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
    /// Longest wait for the answer [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = some_time)]
    pub timeout: Option<Period>,
    /// How the answer is printed: table, json or yaml [default: table, and yaml for get]
    #[arg(short = 'o', long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    pub output: Option<Format>,
}

impl NodeArgs {
    /// These flags over `root`'s, and for the rest what the environment says, or a cluster that has a name.
    pub fn settled(self, root: Self) -> Result<Self, Failure> {
        let variable = |name: &str| std::env::var(name).ok();
        let node = self.over(root).or_environment(variable);
        let kept = Contexts::path(variable).filter(|path| path.exists());
        let contexts = kept.map(|path| Contexts::load(&path)).transpose()?;
        node.or_context(&contexts.unwrap_or_default())
    }

    /// These flags where they were given, `root`'s elsewhere.
    pub fn over(mut self, root: Self) -> Self {
        if self.names_no_node() {
            (self.addr, self.socket, self.context) = (root.addr, root.socket, root.context);
        }
        if !self.names_identity() {
            self.identity = root.identity;
            (self.cacert, self.cert, self.key) = (root.cacert, root.cert, root.key);
        }
        self.server_name = self.server_name.or(root.server_name);
        self.timeout = self.timeout.or(root.timeout);
        self.output = self.output.or(root.output);
        self
    }

    /// Fills in from the environment what no flag says.
    pub fn or_environment(mut self, variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        // Who names a cluster means all of it, and nothing of another one.
        if self.context.is_some() {
            return self;
        }
        if self.names_no_node() {
            self.socket = variable("SHOAL_SOCKET").map(PathBuf::from);
            if let (None, Some(addresses)) = (&self.socket, variable("SHOAL_ADDR")) {
                self.addr = addresses.split(',').map(|address| address.trim().to_owned()).collect();
            }
        }
        if !self.names_identity() {
            self.identity = variable("SHOAL_IDENTITY").map(PathBuf::from);
        }
        if self.identity.is_none() {
            self.cacert = self.cacert.or_else(|| variable("SHOAL_CACERT").map(PathBuf::from));
            self.cert = self.cert.or_else(|| variable("SHOAL_CERT").map(PathBuf::from));
            self.key = self.key.or_else(|| variable("SHOAL_KEY").map(PathBuf::from));
        }
        self.server_name = self.server_name.or_else(|| variable("SHOAL_SERVER_NAME"));
        if self.names_no_node() {
            self.context = variable("SHOAL_CONTEXT");
        }
        self
    }

    /// Fills in from `contexts` what nothing else says: the one that was named, else, where no node was, the one that is used.
    pub fn or_context(mut self, contexts: &Contexts) -> Result<Self, Failure> {
        let context = match (&self.context, &contexts.current) {
            (Some(name), _) => contexts.named(name)?,
            (None, Some(current)) if self.names_no_node() => contexts.named(current)?,
            (None, _) => return Ok(self),
        };
        (self.addr, self.socket) = (context.addr.clone(), context.socket.clone());
        if !self.names_identity() {
            self.identity = context.identity.clone();
            (self.cacert, self.cert, self.key) =
                (context.cacert.clone(), context.cert.clone(), context.key.clone());
        }
        self.server_name = self.server_name.or_else(|| context.server_name.clone());
        Ok(self)
    }

    fn names_no_node(&self) -> bool {
        self.addr.is_empty() && self.socket.is_none() && self.context.is_none()
    }

    /// The client that these flags describe.
    pub fn client(&self) -> Result<Client, Failure> {
        let targets = if self.addr.is_empty() {
            vec![Target::Socket(self.socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into()))]
        } else {
            self.addr.iter().filter(|address| !address.is_empty()).cloned().map(Target::Address).collect()
        };
        if targets.is_empty() {
            return Err(Failure::local("connect", "--addr names no address")
                .try_command("shoal --addr HOST:7401 --identity FILE status"));
        }
        if let Some(wrong) = self.addr.iter().find(|address| !address.is_empty() && !is_address(address)) {
            let why = format!("{wrong:?} is not HOST:PORT, as 10.0.0.1:7401");
            return Err(
                Failure::local("--addr", why).try_command("shoal --addr HOST:7401 --identity FILE status")
            );
        }
        let deadline = self.timeout.unwrap_or(DEFAULT_TIMEOUT).0.max(Duration::from_millis(1));
        Ok(Client::new(targets, self.identity_files()?, self.server_name.clone(), deadline))
    }

    fn names_identity(&self) -> bool {
        [&self.identity, &self.cacert, &self.cert, &self.key].into_iter().any(Option::is_some)
    }

    fn identity_files(&self) -> Result<Option<IdentityFiles>, Failure> {
        match (&self.identity, &self.cacert, &self.cert, &self.key) {
            (Some(bundle), ..) => Ok(Some(IdentityFiles::Bundle(bundle.clone()))),
            (None, Some(ca), Some(cert), Some(key)) => {
                Ok(Some(IdentityFiles::Pem { ca: ca.clone(), cert: cert.clone(), key: key.clone() }))
            }
            (None, None, None, None) => Ok(None),
            (None, ..) => {
                let why = "--cacert, --cert and --key belong together, and one is missing";
                Err(Failure::local("connect", why)
                    .try_command("shoal --addr HOST:PORT --identity FILE status"))
            }
        }
    }
}

/// A host and a port, whatever the host turns out to be.
fn is_address(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse().is_ok_and(|port: u16| port > 0))
}

/// Reads how long somebody waits.
///
/// # Errors
/// What is wrong, in one line.
pub fn some_time(text: &str) -> Result<Period, String> {
    let period = Period::parse(text)?;
    if period.0.is_zero() { Err("nothing could answer in no time".to_owned()) } else { Ok(period) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contexts::Context;

    fn check(verb: &[&str], root: &[&str], environment: &[(&str, &str)], expected: &[&str]) {
        use clap::{FromArgMatches, Parser};
        #[derive(Parser)]
        #[command(no_binary_name = true)]
        struct Alone {
            #[command(flatten)]
            node: NodeArgs,
        }
        let read = |flags: &[&str]| {
            let matches = <Alone as clap::CommandFactory>::command().get_matches_from(flags);
            Alone::from_arg_matches(&matches).unwrap().node
        };
        let variable = |name: &str| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let client = read(verb).over(read(root)).or_environment(variable).client().unwrap();
        let targets: Vec<String> = client.targets.iter().map(Target::to_string).collect();
        assert_eq!(targets, expected, "verb {verb:?} root {root:?} environment {environment:?}");
    }

    #[test]
    fn the_nearest_flag_names_the_node() {
        check(&[], &[], &[], &[DEFAULT_SOCKET]);
        check(&["--addr", "a:1,b:2"], &[], &[], &["a:1", "b:2"]);
        check(&[], &["--addr", "a:1"], &[("SHOAL_SOCKET", "s")], &["a:1"]);
        check(&["--socket", "s"], &["--addr", "a:1"], &[("SHOAL_ADDR", "b:1")], &["s"]);
        check(&[], &[], &[("SHOAL_ADDR", "a:1, b:2")], &["a:1", "b:2"]);
        check(&[], &[], &[("SHOAL_ADDR", "a:1"), ("SHOAL_SOCKET", "s")], &["s"]);
        check(&[], &[], &[("SHOAL_ADDR", "")], &[DEFAULT_SOCKET]);
    }

    #[test]
    fn a_context_is_all_of_it_or_nothing() {
        let context = |addr: &str, identity: &str| Context {
            addr: vec![addr.to_owned()],
            identity: Some(identity.into()),
            ..Context::default()
        };
        let contexts = Contexts {
            current: Some("prod".to_owned()),
            contexts: [
                ("prod".to_owned(), context("p:1", "p.json")),
                ("stage".to_owned(), context("s:1", "s.json")),
            ]
            .into(),
        };
        let named = |name: &str| NodeArgs { context: Some(name.to_owned()), ..NodeArgs::default() };
        let addressed = NodeArgs { addr: vec!["a:1".to_owned()], ..NodeArgs::default() };
        let check = |node: NodeArgs, environment: &[(&str, &str)], expected: (&str, Option<&str>)| {
            let variable = |name: &str| {
                environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            };
            let node = node.or_environment(variable).or_context(&contexts).unwrap();
            let identity = node.identity.as_deref().and_then(std::path::Path::to_str);
            assert_eq!((node.addr.join(",").as_str(), identity), expected, "{environment:?}");
        };
        check(NodeArgs::default(), &[], ("p:1", Some("p.json")));
        check(named("stage"), &[], ("s:1", Some("s.json")));
        check(
            named("stage"),
            &[("SHOAL_ADDR", "e:1"), ("SHOAL_IDENTITY", "e.json")],
            ("s:1", Some("s.json")),
        );
        check(NodeArgs::default(), &[("SHOAL_CONTEXT", "stage")], ("s:1", Some("s.json")));
        check(NodeArgs::default(), &[("SHOAL_ADDR", "e:1"), ("SHOAL_CONTEXT", "stage")], ("e:1", None));
        check(NodeArgs::default(), &[("SHOAL_IDENTITY", "e.json")], ("p:1", Some("e.json")));
        check(addressed, &[], ("a:1", None));
        assert!(named("dev").or_context(&contexts).unwrap_err().why.contains("contexts are: prod, stage"));
    }

    #[test]
    fn an_empty_address_is_refused() {
        let empty = NodeArgs { addr: vec![String::new()], ..NodeArgs::default() };
        assert!(empty.client().unwrap_err().why.contains("names no address"));
    }

    #[test]
    fn half_an_identity_is_refused() {
        let half = NodeArgs { addr: vec!["a:1".into()], cert: Some("c".into()), ..NodeArgs::default() };
        assert!(half.client().unwrap_err().why.contains("belong together"));
    }
}
