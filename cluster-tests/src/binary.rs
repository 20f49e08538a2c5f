//! Where the `shoal` binary under test is.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The binary under test: `SHOAL_BIN` if set, else `target/<profile>/shoal` of the profile this test was built with,
/// brought up to date by cargo once per process. Stale binaries make stories lie.
pub fn shoal_binary() -> Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(find).clone()
}

fn find() -> Result<PathBuf, String> {
    if let Some(named) = env::var_os("SHOAL_BIN") {
        let named = PathBuf::from(named);
        return if named.is_file() { Ok(named) } else { Err(format!("SHOAL_BIN: there is no {named:?}")) };
    }
    // The test is target/<profile>/deps/<story>-<hash>.
    let test = env::current_exe().map_err(|error| format!("the test's own path: {error}"))?;
    let profile =
        test.ancestors().nth(2).ok_or_else(|| format!("{test:?} is not below target/<profile>/deps"))?;
    if let Some(cargo) = env::var_os("CARGO") {
        build(cargo.into(), profile.ends_with("release"))?;
    }
    let binary = profile.join("shoal");
    if binary.is_file() {
        Ok(binary)
    } else {
        Err(format!("there is no {binary:?}; run `cargo build --workspace`"))
    }
}

/// Features are unified over the packages that are built: naming the workspace, as `cargo test --workspace` does, keeps
/// cargo from building every dependency a second time.
fn build(cargo: PathBuf, release: bool) -> Result<(), String> {
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--workspace", "--bin", "shoal"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if release {
        command.arg("--release");
    }
    let output = command.output().map_err(|error| format!("cargo build: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("cargo build --bin shoal failed:\n{}", String::from_utf8_lossy(&output.stderr)))
}
