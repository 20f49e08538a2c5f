//! `shoal get`: the site of a revision, or a part of it.

use clap::Args;
use serde_json::{Map, Value};
use shoal_model::site::{Kind, ObjectName};
use shoal_proto::admin::{ShowRequest, ShowResponse};

use super::Session;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::output::{Format, to_json, to_yaml, warn, write_stdout};
use crate::render::possibly_old;

/// What `shoal get` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal get > site.yaml
  shoal get route/shop
  shoal get upstreams -r 7 -o json
  shoal get --consistent

Without --consistent the node that is asked prints what it has applied, which may be a moment old, and older where it is cut
off: where it knows of no quorum it says so, and for how long. KIND is listeners, certificates, routes, upstreams or
dns_zones, also in the singular. Private keys are never shown. The first line of YAML names the revision: `shoal set` and
`apply` take it as --check-revision.")]
pub struct GetArgs {
    /// All objects of a kind, or one of them [default: the whole site]
    #[arg(value_name = "KIND[/NAME]")]
    object: Option<String>,
    /// Revision [default: the active one]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    revision: Option<u64>,
    /// Ask a majority first, so that nothing is missing that was acknowledged before; without one: exit 6
    #[arg(long, conflicts_with = "revision")]
    consistent: bool,
    #[command(flatten)]
    node: NodeArgs,
}

impl GetArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        let part = self.object.as_deref().map(|part| Part::parse("get", part)).transpose()?;
        if session.format == Some(Format::Table) {
            let why = "a site is printed as yaml or json; there is no table of it";
            return Err(Failure::local("get", why).try_command("shoal get -o yaml, or shoal status"));
        }
        let request = ShowRequest { revision: self.revision.unwrap_or(0), consistent: self.consistent };
        let shown = session.client.show("get", request).await?;
        if self.consistent && !shown.consistent {
            let why = "the node that answered is too old to ask a majority first";
            return Err(Failure::new(Exit::Remote, "get", why).try_command("shoal get --consistent -a NODE"));
        }
        let unreadable = |error| Failure::new(Exit::Remote, "get", format!("the node sent no site: {error}"));
        let mut site: Map<String, Value> = serde_json::from_str(&shown.site_json).map_err(unreadable)?;
        if let Some(part) = part {
            site = part.of(site, shown.revision)?;
        }
        let text = match session.format {
            Some(Format::Json) => to_json(&site)?,
            _ => heading(&shown) + &to_yaml(&site)?,
        };
        write_stdout(&text)?;
        if let Some(text) = possibly_old(&shown) {
            warn(&text);
        }
        if shown.on_trial {
            let revision = shown.revision;
            warn(&format!(
                "revision {revision} may be taken back, and not all nodes may serve it: see shoal status"
            ));
        }
        Ok(Exit::Done)
    }
}

/// What is said in YAML of the revision before its site.
fn heading(shown: &ShowResponse) -> String {
    let old = possibly_old(shown).map_or_else(String::new, |text| format!("# {text}\n"));
    format!("# revision {}\n{old}", shown.revision)
}

/// Some objects of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    kind: Kind,
    name: Option<&'a str>,
}

impl<'a> Part<'a> {
    /// `KIND[/NAME]` as it was written behind `verb`.
    pub(super) fn parse(verb: &str, text: &'a str) -> Result<Self, Failure> {
        let (kind, name) = text.split_once('/').map_or((text, None), |(kind, name)| (kind, Some(name)));
        let kind = kind
            .parse()
            .map_err(|why: String| Failure::local(verb, why).try_command(format!("shoal {verb} routes")))?;
        Ok(Self { kind, name: name.filter(|name| !name.is_empty()) })
    }

    /// Whether `object` is one of them.
    pub(super) fn has(self, object: &ObjectName) -> bool {
        object.kind == self.kind && self.name.is_none_or(|name| object.name == name)
    }

    /// What to say when the one object that is wanted is not there.
    pub(super) fn absent(self, verb: &str, revision: u64) -> Failure {
        let (kind, name) = (self.kind, self.name.unwrap_or_default());
        let why = format!("revision {revision} has no {} {name:?}", kind.singular());
        Failure::local(verb, why).try_command(format!("shoal get {}", kind.plural()))
    }

    fn of(self, mut site: Map<String, Value>, revision: u64) -> Result<Map<String, Value>, Failure> {
        let kind = self.kind.plural();
        let mut objects = site.remove(kind).unwrap_or_else(|| Value::Object(Map::new()));
        if let Some(name) = self.name {
            let one = objects.as_object_mut().and_then(|objects| objects.remove_entry(name));
            objects = Value::Object(Map::from_iter([one.ok_or_else(|| self.absent("get", revision))?]));
        }
        Ok(Map::from_iter([(kind.to_owned(), objects)]))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(part: &str, expected: Result<Value, &str>) {
        let Value::Object(site) = json!({ "routes": { "a": 1, "b": 2 }, "upstreams": { "u": 3 } }) else {
            panic!("it is a map");
        };
        let found = Part::parse("get", part).and_then(|part| part.of(site, 7)).map(Value::Object);
        assert_eq!(found.map_err(|failure| failure.why), expected.map_err(str::to_owned), "{part}");
    }

    #[test]
    fn what_is_printed_can_be_applied() {
        let text = r##"{
            "listeners": {"web": {"address": ":8443", "protocol": "https", "min_tls": "1.2", "certificates": ["c"]}},
            "certificates": {"c": {"chain_pem": "-----BEGIN CERTIFICATE-----\nMIIB+/==\n-----END CERTIFICATE-----\n",
                                   "key_sha256": "00e1"}},
            "routes": {"a.b": {"hosts": ["*.example.com", "1.2.3.4"], "path_regex": "/[a-z]: #\\d+", "upstream": "no",
                               "cache": {"max_object_size": "1GiB"}, "timeouts": {"total": "1500ms"}}},
            "upstreams": {"no": {"endpoints": ["[::1]:80", {"address": "h:1", "weight": 0}],
                                 "hash_key": {"header": "x-user"}}}
        }"##;
        let site: Value = serde_json::from_str(text).unwrap();
        let alone = ShowResponse { revision: 7, staleness_ms: 12_000, ..ShowResponse::default() };
        let printed = heading(&alone) + &to_yaml(&site).unwrap();
        assert!(printed.starts_with("# revision 7\n# no quorum for 12s: "), "{printed}");
        let read = shoal_model::site::parse_site("printed", &printed)
            .unwrap_or_else(|why| panic!("{why}\n{printed}"));
        assert_eq!(read, shoal_model::Site::from_json(text).unwrap(), "{printed}");
    }

    #[test]
    fn a_part_is_a_site_too() {
        check("routes", Ok(json!({ "routes": { "a": 1, "b": 2 } })));
        check("route/b", Ok(json!({ "routes": { "b": 2 } })));
        check("listeners", Ok(json!({ "listeners": {} })));
        check("route/c", Err("revision 7 has no route \"c\""));
        check(
            "backends",
            Err(
                "\"backends\" is no kind of object; kinds are listeners, certificates, routes, upstreams, dns_zones",
            ),
        );
    }
}
