//! The shoal binary: run a node, run a demo cluster, or operate one.

mod allocator;
mod cli;
mod core_dump;
mod dev;
mod escape;
mod passphrase;
mod recover;
mod run;
mod snapshot;
mod upgrade;
mod usage;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory;
use shoal_ctl::output::{self, Format, write_stdout};
use shoal_ctl::{Exit, Failure, NodeArgs, Verb};
use tracing_subscriber::EnvFilter;

use cli::{Cli, Command};
use upgrade::UpgradeArgs;

fn main() -> ExitCode {
    // The only failure is that a provider is installed already, and this is the first line of the process.
    _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (cli, format) = match usage::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(exit) => return exit.into(),
    };
    start_logging(&cli.command);
    let format = format_of(&cli.command, format);
    let ended = match cli.command {
        Command::Run(args) => args.run(),
        Command::Dev(args) => args.run(),
        Command::Upgrade(UpgradeArgs { cluster: Some(verb), .. }) => on_runtime(Box::pin(verb.run(cli.node))),
        Command::Upgrade(args) => args.run(cli.node.timeout),
        Command::Snapshot(args) => args.run(cli.node, format),
        Command::Recover(args) => args.run(cli.node, format),
        Command::Version { .. } => print_version(format),
        Command::Completion { shell } => complete(shell),
        Command::Operator(verb) => operate(verb, cli.node),
    };
    ended.unwrap_or_else(|failure| complain(&failure, format)).into()
}

/// `RUST_LOG` says what is logged; without it a node tells its story, and a verb only its errors. The consensus library
/// speaks only of errors: it warns of every call to a node that is down; so does that for HTTP/2, which warns of every
/// downstream that floods.
fn start_logging(command: &Command) {
    let default = if matches!(command, Command::Run(_)) { "info,openraft=error,h2=error" } else { "error" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(escape::stderr).init();
}

/// The form in which answers and errors of this command are written, if this one was `given`: processes that stay print none.
fn format_of(command: &Command, given: Option<Format>) -> Format {
    match command {
        Command::Run(_)
        | Command::Dev(_)
        | Command::Upgrade(UpgradeArgs { cluster: None, .. })
        | Command::Completion { .. } => Format::Table,
        Command::Upgrade(_)
        | Command::Snapshot(_)
        | Command::Recover(_)
        | Command::Version { .. }
        | Command::Operator(_) => given.unwrap_or(Format::Table),
    }
}

fn print_version(format: Format) -> Result<Exit, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let answer = BTreeMap::from([("version", version)]);
    output::print(format, &answer, |_| format!("shoal {version}\n")).map(|()| Exit::Done)
}

fn operate(verb: Verb, node: NodeArgs) -> Result<Exit, Failure> {
    on_runtime(Box::pin(shoal_ctl::run(verb, node)))
}

/// Runs `verb` to its end.
fn on_runtime(verb: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::local("start", error))?;
    runtime.block_on(verb)
}

fn complete(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "shoal", &mut script);
    write_stdout(&String::from_utf8_lossy(&script)).map(|()| Exit::Done)
}

/// One line (and the places in a site file before it) on stderr; if even that is closed, the exit code still tells.
fn complain(failure: &Failure, format: Format) -> Exit {
    let text = match format {
        Format::Json => failure.to_json(),
        Format::Table | Format::Yaml => failure.to_text(),
    };
    _ = io::stderr().lock().write_all(text.as_bytes());
    failure.exit
}
