//! `shoal validate`: a site file is checked here, without any node.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format};
use crate::site_files::SiteFiles;

/// What `shoal validate` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal validate -f site.yaml

Certificate and key files are read and compared too. Exit codes: 0 valid, 1 not.")]
pub struct ValidateArgs {
    /// Site file (YAML or JSON), directory of site files, or - for stdin
    #[arg(short, long, value_name = "FILE|DIR|-")]
    file: PathBuf,
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
}

impl ValidateArgs {
    pub(super) fn run(self, root: &NodeArgs) -> Result<Exit, Failure> {
        let name = self.file.display();
        let complain = |problems| Failure::site(format!("validate {name}"), &problems);
        let files = SiteFiles::read(&self.file).map_err(complain)?;
        files.check_alone().map_err(complain)?;
        let site = files.with_certificates().map_err(complain)?;
        let valid = Valid {
            file: name.to_string(),
            listeners: site.listeners.len(),
            certificates: site.certificates.len(),
            routes: site.routes.len(),
            upstreams: site.upstreams.len(),
        };
        output::print(self.output.or(root.output).unwrap_or(Format::Table), &valid, Valid::text)?;
        Ok(Exit::Done)
    }
}

impl Valid {
    fn text(&self) -> String {
        let Self { file, listeners, certificates, routes, upstreams } = self;
        format!(
            "{file} is valid: listeners {listeners}, certificates {certificates}, routes {routes}, upstreams {upstreams}\n"
        )
    }
}
