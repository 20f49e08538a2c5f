//! `shoal validate`: a site file is checked here, without any node.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use shoal_model::Site;
use shoal_model::site::{ProblemKind, Protocol, boundless_failover};

use crate::client::NodeArgs;
use crate::failure::{Exit, Failure, one_line};
use crate::output::{self, Format};
use crate::site_files::SiteFiles;

/// What `shoal validate` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal validate -f site.yaml
  shoal validate --partial -f shop.yaml

A file that only makes sense with what the cluster has is checked with --partial, or against the cluster by `shoal plan`.
Certificate and key files are read and compared too. Exit codes: 0 valid, 1 not.")]
pub struct ValidateArgs {
    /// Site file (YAML or JSON), directory of site files, or - for stdin
    #[arg(short, long, value_name = "FILE|DIR|-")]
    file: PathBuf,
    /// The file is a part of a site: objects that it names and does not hold may be in the cluster [default: they must be
    /// in the file]
    #[arg(long)]
    partial: bool,
    /// How the answer is printed: table, json or yaml [default: table]
    #[arg(short = 'o', long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    output: Option<Format>,
}

/// What a valid site holds.
#[derive(Serialize)]
struct Valid {
    file: String,
    listeners: usize,
    certificates: usize,
    routes: usize,
    upstreams: usize,
    dns_zones: usize,
    /// Names of objects that must be in the cluster.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    absent: Vec<String>,
    /// What is allowed, and hardly meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl ValidateArgs {
    pub(super) fn run(self, root: &NodeArgs) -> Result<Exit, Failure> {
        let name = self.file.display();
        let complain = |problems| Failure::site(format!("validate {name}"), &problems);
        let files = SiteFiles::read(&self.file).map_err(complain)?;
        let absent = if self.partial { files.check_part() } else { files.check_alone().map(|()| Vec::new()) };
        let absent = absent.map_err(|problems| {
            let leans = problems.0.iter().all(|problem| problem.kind == ProblemKind::Absent);
            let failure = complain(problems);
            if !leans {
                return failure;
            }
            let hint = format!(
                "shoal plan -f {name}, which looks in the cluster too, or shoal validate --partial -f {name}"
            );
            failure.try_command(hint)
        })?;
        let site = files.with_certificates().map_err(complain)?;
        let valid = Valid {
            file: name.to_string(),
            listeners: site.listeners.len(),
            certificates: site.certificates.len(),
            routes: site.routes.len(),
            upstreams: site.upstreams.len(),
            dns_zones: site.dns_zones.len(),
            absent: absent.iter().map(ToString::to_string).collect(),
            warnings: if self.partial { warnings_of_parts(&site) } else { warnings(&site) },
        };
        output::print(self.output.or(root.output).unwrap_or(Format::Table), &valid, Valid::text)?;
        Ok(Exit::Done)
    }
}

/// What is allowed in a whole site, and hardly meant.
pub(super) fn warnings(site: &Site) -> Vec<String> {
    let mut listeners = site.listeners.values();
    let needs_routes =
        listeners.any(|listener| matches!(listener.protocol, Protocol::Http | Protocol::Https));
    let absent = match () {
        () if site.is_empty() => Some("there is nothing in it"),
        () if site.listeners.is_empty() => Some("it has no listeners: nobody can ask for anything"),
        () if site.routes.is_empty() && needs_routes => {
            Some("it has no routes: every request is answered with 404")
        }
        () => None,
    };
    absent.into_iter().map(str::to_owned).chain(warnings_of_parts(site)).collect()
}

/// What is allowed in a site or a part of one, and hardly meant.
pub(super) fn warnings_of_parts(site: &Site) -> Vec<String> {
    let boundless = |name| {
        format!(
            "upstream {name:?} has `failover`, and endpoints without `capacity`: other regions are sent whatever the own one \
             cannot carry, however little they have to spare"
        )
    };
    boundless_failover(site).map(boundless).collect()
}

impl Valid {
    fn text(&self) -> String {
        let Self { file, listeners, certificates, routes, upstreams, dns_zones, absent, warnings } = self;
        let mut text = format!(
            "{file} is valid: listeners {listeners}, certificates {certificates}, routes {routes}, upstreams {upstreams}"
        );
        if *dns_zones > 0 {
            text.push_str(&format!(", dns_zones {dns_zones}"));
        }
        text.push('\n');
        for warning in warnings {
            text.push_str(&format!("warning: {warning}\n"));
        }
        for name in absent {
            text.push_str(&format!("only with what the cluster has: {}\n", one_line(name)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use shoal_model::site::parse_site;

    use super::*;

    #[test]
    fn what_is_hardly_meant_is_noticed() {
        let check = |site: &str, whole: &[&str], part: &[&str]| {
            let parsed = parse_site("site.yaml", site).unwrap();
            for (seen, expected) in [(warnings(&parsed), whole), (warnings_of_parts(&parsed), part)] {
                assert_eq!(seen.len(), expected.len(), "{site}: {seen:?}");
                assert!(
                    seen.iter().zip(expected).all(|(seen, part)| seen.contains(part)),
                    "{site}: {seen:?}"
                );
            }
        };
        let listener =
            |protocol: &str| format!("listeners: {{ l: {{ address: \":1\", protocol: {protocol} }} }}");
        let upstream =
            |more: &str| format!("upstreams: {{ u: {{ endpoints: [{{ address: \"a:1\"{more} }} }}");
        check("{}", &["nothing in it"], &[]);
        check(&listener("http"), &["no routes"], &[]);
        check(&listener("tcp, upstream: u"), &[], &[]);
        let boundless = upstream(", region: us }], failover: [us]");
        check(
            &boundless,
            &["no listeners", "upstream \"u\" has `failover`"],
            &["upstream \"u\" has `failover`"],
        );
        check(&upstream(", region: us, capacity: 9 }], failover: [us]"), &["no listeners"], &[]);
    }
}
