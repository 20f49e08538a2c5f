//! Programs of the machine that a story may use when they are there.

use std::env;
use std::io::Write;
use std::path::PathBuf;

/// Where `name` is on the PATH (and in /usr/sbin, where Debian keeps nginx out of users' PATH).
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(["/usr/sbin".into()]).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Says that a story (or a part of it) did not run, past the capture of the test runner: a skip must never look like
/// a pass.
pub fn skip(story: &str, why: &str) {
    // Nothing can be done for a reader whose stderr is closed.
    let _ = writeln!(std::io::stderr(), "SKIPPED {story}: {why}");
}

/// Runs a program and returns its standard output; its complaint when it failed.
pub async fn text_of(program: PathBuf, arguments: Vec<String>) -> anyhow::Result<String> {
    let shown = format!("{} {}", program.display(), arguments.join(" "));
    let run =
        tokio::task::spawn_blocking(move || std::process::Command::new(program).args(arguments).output());
    let output = run.await??;
    anyhow::ensure!(
        output.status.success(),
        "{shown}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
