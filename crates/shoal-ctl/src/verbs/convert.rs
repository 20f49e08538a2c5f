//! `shoal convert`: the configuration of another proxy as a site file, without any node.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::client::NodeArgs;
use crate::convert::{Conversion, Dialect, Disk, Kind, MAX_TEXT_BYTES, convert};
use crate::failure::{Exit, Failure, one_line};
use crate::output::{self, Format, to_json, to_yaml, write_stdout};
use crate::site_files::{SiteFiles, read_stdin, read_text};

/// What the site is called while nobody has written it to a file.
const UNNAMED: &str = "the site";

/// What `shoal convert` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal convert --from nginx /etc/nginx/nginx.conf > site.yaml
  shoal convert --from caddy Caddyfile --report lost.json -o json > site.json

The site goes to stdout. What was not carried over, or means something else now, goes to stderr, a line each with its
place. Settings that the file does not write get Shoal's defaults, not those of nginx or Caddy. Included files are read;
of nginx.conf they are relative to it. At most 16 MiB, 1000 included files, 32 blocks in each other, 20000 routes.
Exit codes: 0 there is a site; 1 there is none, or with --strict: something was not carried over.")]
pub struct ConvertArgs {
    /// Whose configuration it is: nginx or caddy (a Caddyfile)
    #[arg(long, value_enum, value_name = "PROXY", hide_possible_values = true)]
    from: Dialect,
    /// The file, or - for stdin
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// Also write what goes to stderr to a file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// End with 1 if anything was not carried over
    #[arg(long)]
    strict: bool,
    /// How the site is printed: yaml or json [default: yaml]
    #[arg(short = 'o', long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    output: Option<Format>,
}

impl ConvertArgs {
    pub(super) fn run(self, root: &NodeArgs) -> Result<Exit, Failure> {
        let what = format!("convert {}", self.file.display());
        let format = self.output.or(root.output).unwrap_or(Format::Yaml);
        if format == Format::Table {
            let why = "a site is printed as yaml or json; there is no table of it";
            return Err(Failure::local(what, why).try_command("shoal convert --help"));
        }
        let converted = self.convert(&what)?;
        for remark in &converted.report {
            output::note(&one_line(&remark.to_string()));
        }
        if let Some(file) = &self.report {
            let text = to_json(&converted.report)?;
            fs::write(file, text)
                .map_err(|why| Failure::local(&what, format!("{}: {why}", file.display())))?;
        }
        if converted.serves_nothing() {
            let why = "nothing in it leads to an endpoint that Shoal could ask";
            return Err(Failure::local(what, why).try_command("shoal config schema"));
        }
        let text = match format {
            Format::Json => to_json(&converted.site)?,
            Format::Table | Format::Yaml => to_yaml(&converted.site)?,
        };
        check(&what, &text)?;
        write_stdout(&text)?;
        let left_out = converted.report.iter().filter(|remark| remark.kind == Kind::LeftOut).count();
        if self.strict && left_out > 0 {
            let why = format!("{left_out} settings were not carried over (--strict)");
            return Err(Failure::local(what, why).try_command("shoal convert --help"));
        }
        Ok(Exit::Done)
    }

    fn convert(&self, what: &str) -> Result<Conversion, Failure> {
        let shown = self.file.display().to_string();
        let (name, text) = match shown.as_str() {
            "-" => ("stdin", read_stdin(MAX_TEXT_BYTES)),
            name => (name, read_text(&self.file, MAX_TEXT_BYTES)),
        };
        let (kind, own_check) = match self.from {
            Dialect::Nginx => ("a configuration of nginx", format!("nginx -t -c {shown}")),
            Dialect::Caddy => ("a Caddyfile", format!("caddy validate --adapter caddyfile --config {shown}")),
        };
        let text = text.map_err(|why| Failure::local(what, why).try_command("shoal convert --help"))?;
        convert(self.from, name, &text, &Disk).map_err(|mistake| {
            let problems = vec![mistake.to_string()];
            let why = format!("it cannot be read as {kind}");
            Failure { problems, ..Failure::local(what, why) }.try_command(own_check)
        })
    }
}

/// What `shoal validate` says of the site: files that are not here are to be brought, anything else is a mistake of ours.
fn check(what: &str, text: &str) -> Result<(), Failure> {
    let invalid = |problems| Failure::site(what, &problems);
    let files = SiteFiles::of_text(UNNAMED, Path::new(""), text.to_owned()).map_err(invalid)?;
    files.check_alone().map_err(invalid)?;
    if let Err(problems) = files.with_certificates() {
        for problem in problems.0 {
            let told = format!("{}: {}", problem.path, problem.message);
            output::warn(&one_line(&format!("before the site can be applied: {told}")));
        }
    }
    Ok(())
}
