//! Certificates as operators make them: with openssl, from authorities.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// openssl at work in the directory of a story: names of files are relative to it.
pub struct OpenSsl {
    program: PathBuf,
    dir: PathBuf,
}

impl OpenSsl {
    /// The `program` at work in `dir`.
    pub fn new(program: PathBuf, dir: &Path) -> Self {
        Self { program, dir: dir.to_owned() }
    }

    /// Runs it to its end, whatever the end is.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.dir).args(arguments).stdin(Stdio::null());
        command.output().context("openssl cannot be started")
    }

    fn must(&self, arguments: &[&str]) -> Result<Output> {
        let output = self.run(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "openssl {arguments:?}: {said}");
        Ok(output)
    }

    /// `<name>.pem` and `<name>.key` of an authority.
    pub fn authority(&self, name: &str) -> Result<()> {
        let (key, chain, subject) =
            (format!("{name}.key"), format!("{name}.pem"), format!("/CN=authority {name}"));
        let front = ["req", "-x509", "-days", "30", "-keyout", &key, "-out", &chain, "-subj", &subject];
        self.must(&[&front[..], &KEY].concat()).map(drop)
    }

    /// `<name>.pem` and `<name>.key`, signed by the authority `by`.
    pub fn certificate(&self, name: &str, by: &str, serial: &str) -> Result<()> {
        let file = |extension: &str| format!("{name}.{extension}");
        let (key, request, chain) = (file("key"), file("csr"), file("pem"));
        let names = format!("subjectAltName=DNS:{name}");
        let subject = format!("/CN={name}");
        let front = ["req", "-keyout", &key, "-out", &request, "-subj", &subject, "-addext", &names];
        self.must(&[&front[..], &KEY].concat())?;
        let (ca, ca_key) = (format!("{by}.pem"), format!("{by}.key"));
        self.must(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-set_serial",
            serial,
            "-days",
            "10",
            "-copy_extensions",
            "copyall",
            "-out",
            &chain,
        ])
        .map(drop)
    }

    /// The same of X.509 version 1, as `openssl x509 -req` makes them when nobody names extensions.
    pub fn old_certificate(&self, name: &str, by: &str) -> Result<()> {
        let file = |extension: &str| format!("{name}.{extension}");
        let (key, request, chain, subject) = (file("key"), file("csr"), file("pem"), format!("/CN={name}"));
        self.must(&[&["req", "-keyout", &key, "-out", &request, "-subj", &subject][..], &KEY].concat())?;
        let (ca, ca_key) = (format!("{by}.pem"), format!("{by}.key"));
        let signed = ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-set_serial", "99"];
        self.must(&[&signed[..], &["-days", "10", "-out", &chain]].concat())?;
        let text = self.must(&["x509", "-in", &chain, "-noout", "-text"])?.stdout;
        ensure!(String::from_utf8_lossy(&text).contains("Version: 1 "), "{chain} is not of version 1");
        Ok(())
    }

    /// `staple.der`: the authority `by` says that the certificate `name` is good.
    pub fn staple(&self, name: &str, by: &str, serial: &str) -> Result<()> {
        std::fs::write(
            self.dir.join("index.txt"),
            format!("V\t20991231235959Z\t\t{serial}\tunknown\t/CN={name}\n"),
        )?;
        let (ca, ca_key, chain) = (format!("{by}.pem"), format!("{by}.key"), format!("{name}.pem"));
        self.must(&["ocsp", "-issuer", &ca, "-cert", &chain, "-reqout", "request.der", "-no_nonce"])?;
        self.must(&[
            "ocsp",
            "-index",
            "index.txt",
            "-CA",
            &ca,
            "-rsigner",
            &ca,
            "-rkey",
            &ca_key,
            "-reqin",
            "request.der",
            "-respout",
            "staple.der",
            "-ndays",
            "5",
        ])
        .map(drop)
    }

    /// The digest of the public key of the certificate `name`, as curl and `tls.pins` write it.
    pub fn pin(&self, name: &str) -> Result<String> {
        let chain = format!("{name}.pem");
        self.must(&["x509", "-in", &chain, "-noout", "-pubkey", "-out", "public.pem"])?;
        self.must(&["pkey", "-pubin", "-in", "public.pem", "-outform", "der", "-out", "public.der"])?;
        self.must(&["dgst", "-sha256", "-binary", "-out", "digest", "public.der"])?;
        let text = self.must(&["base64", "-A", "-in", "digest"])?.stdout;
        Ok(String::from_utf8(text)?.trim().to_owned())
    }
}
