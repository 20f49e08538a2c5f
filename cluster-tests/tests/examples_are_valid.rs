//! What is under `deploy` is accepted as it stands: site files by `shoal`, scripts by the shell, what surrounds them by the
//! programs it is for, where they are installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cluster_tests::{SelfSigned, find_program, shoal_binary, skip, text_of};

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

#[tokio::test]
async fn each_example_validates() -> Result<()> {
    let examples = deploy("examples");
    let copies = tempfile::tempdir()?;
    let certificate = SelfSigned::create(copies.path(), &["shop.example.com"])?;
    fs::rename(certificate.chain_file, copies.path().join("shop.pem"))?;
    fs::rename(certificate.key_file, copies.path().join("shop.key"))?;
    let binary = shoal_binary().map_err(anyhow::Error::msg)?;
    let mut read = 0;
    for entry in fs::read_dir(examples)? {
        let example = entry?.path();
        let copy = copies.path().join(example.file_name().unwrap_or_default());
        fs::copy(&example, &copy)?;
        text_of(binary.clone(), vec!["validate".into(), "-f".into(), copy.display().to_string()]).await?;
        read += 1;
    }
    ensure!(read >= 3, "only {read} examples were found");
    Ok(())
}

/// Where the files of `deploy/anycast` say that its scripts are.
const INSTALLED: &str = "/usr/lib/shoal/";

#[tokio::test]
async fn what_leads_traffic_here_is_understood() -> Result<()> {
    let mut scripts = Vec::new();
    for entry in fs::read_dir(deploy("anycast"))? {
        let file = entry?.path();
        let text = fs::read_to_string(&file)?;
        if text.starts_with("#!/bin/sh\n") {
            scripts.push(file.display().to_string());
        }
        for (at, _) in text.match_indices(INSTALLED) {
            let name = text[at + INSTALLED.len()..].split_whitespace().next().unwrap_or_default();
            ensure!(deploy("anycast").join(name).is_file(), "{}: there is no {name}", file.display());
        }
    }
    ensure!(scripts.len() >= 2, "only {scripts:?}");
    let sh = find_program("sh").context("there is no sh")?;
    for script in &scripts {
        text_of(sh.clone(), vec!["-n".to_owned(), script.clone()]).await?;
        ensure!(text_of(script.into(), Vec::new()).await.is_err(), "{script} says how it is used");
    }
    // As they would be once installed.
    let installed = tempfile::tempdir()?;
    let read = |file: &str| -> Result<String> {
        let (text, copy) = (fs::read_to_string(deploy("anycast").join(file))?, installed.path().join(file));
        fs::write(&copy, text.replace(INSTALLED, &format!("{}/", deploy("anycast").display())))?;
        Ok(copy.display().to_string())
    };
    for (program, arguments) in [
        ("shellcheck", scripts.clone()),
        ("bird", vec!["-p".to_owned(), "-c".to_owned(), read("bird.conf")?]),
        ("exabgp", vec!["--validate".to_owned(), read("exabgp.conf")?]),
    ] {
        match find_program(program) {
            Some(program) => drop(text_of(program, arguments).await?),
            None => skip("what_leads_traffic_here_is_understood", &format!("there is no {program}")),
        }
    }
    Ok(())
}
