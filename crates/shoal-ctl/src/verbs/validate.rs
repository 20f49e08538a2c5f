//! `shoal validate`: a site file is checked here, without any node.

use std::path::PathBuf;

use clap::Args;

use crate::failure::{Exit, Failure};
use crate::output::write_stdout;
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
}

impl ValidateArgs {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let name = self.file.display();
        let complain = |problems| Failure::site(format!("validate {name}"), &problems);
        let files = SiteFiles::read(&self.file).map_err(complain)?;
        files.check_alone().map_err(complain)?;
        let site = files.with_certificates().map_err(complain)?;
        let (listeners, certificates) = (site.listeners.len(), site.certificates.len());
        let (routes, upstreams) = (site.routes.len(), site.upstreams.len());
        write_stdout(&format!(
            "{name} is valid: listeners {listeners}, certificates {certificates}, routes {routes}, upstreams {upstreams}\n"
        ))?;
        Ok(Exit::Done)
    }
}
