//! The site files under `deploy/examples` are accepted as they stand.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use cluster_tests::{SelfSigned, shoal_binary, text_of};

#[tokio::test]
async fn each_example_validates() -> Result<()> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
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
