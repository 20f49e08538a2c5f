//! `shoal validate`: a site file is checked here, without any node.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use shoal_model::Site;
use shoal_model::site::{ProblemKind, Protocol};

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
    pub(super) output: Option<Format>,
}

/// What a valid site holds.
#[derive(Serialize)]
struct Valid {
    file: String,
    listeners: usize,
    certificates: usize,
    routes: usize,
    upstreams: usize,
    /// Names of objects that must be in the cluster.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    absent: Vec<String>,
    /// What is allowed, and hardly meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<&'static str>,
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
            absent: absent.iter().map(ToString::to_string).collect(),
            warnings: if self.partial { Vec::new() } else { warnings(&site) },
        };
        output::print(self.output.or(root.output).unwrap_or(Format::Table), &valid, Valid::text)?;
        Ok(Exit::Done)
    }
}

/// What is allowed in a whole site, and hardly meant.
pub(super) fn warnings(site: &Site) -> Vec<&'static str> {
    let mut listeners = site.listeners.values();
    let needs_routes =
        listeners.any(|listener| matches!(listener.protocol, Protocol::Http | Protocol::Https));
    match () {
        () if site.is_empty() => vec!["there is nothing in it"],
        () if site.listeners.is_empty() => vec!["it has no listeners: nobody can ask for anything"],
        () if site.routes.is_empty() && needs_routes => {
            vec!["it has no routes: every request is answered with 404"]
        }
        () => Vec::new(),
    }
}

impl Valid {
    fn text(&self) -> String {
        let Self { file, listeners, certificates, routes, upstreams, absent, warnings } = self;
        let mut text = format!(
            "{file} is valid: listeners {listeners}, certificates {certificates}, routes {routes}, upstreams {upstreams}\n"
        );
        for warning in warnings {
            text.push_str(&format!("warning: {warning}\n"));
        }
        for name in absent {
            text.push_str(&format!("only with what the cluster has: {}\n", one_line(name)));
        }
        text
    }
}
