//! `shoal config …`: what a site file may say.

use clap::{Args, Subcommand};
use shoal_model::Site;

use crate::failure::{Exit, Failure};
use crate::output::{to_json, write_stdout};

/// What `shoal config` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  shoal config schema > shoal.schema.json")]
pub struct ConfigVerb {
    #[command(subcommand)]
    verb: Configs,
}

#[derive(Subcommand, Clone, Debug)]
enum Configs {
    Schema(SchemaArgs),
}

/// Print the JSON Schema of the site file, for editors
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal config schema > shoal.schema.json

Then begin the site file with: # yaml-language-server: $schema=shoal.schema.json")]
struct SchemaArgs {}

impl ConfigVerb {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let Configs::Schema(SchemaArgs {}) = self.verb;
        write_stdout(&to_json(&Site::json_schema())?)?;
        Ok(Exit::Done)
    }
}
