//! The files that a site names: read where it is applied, and inline from then on.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Site, step};

/// A file that was named, and the place its content belongs to.
#[derive(Debug)]
pub struct NamedFile<'a> {
    /// Key path of the object that names it.
    pub object: String,
    /// Its setting, below the object.
    pub field: &'static str,
    /// As written.
    pub file: PathBuf,
    form: Form,
    inline: &'a mut Option<String>,
}

/// How the content of a file is written into a site.
#[derive(Clone, Copy, Debug)]
enum Form {
    Text,
    Base64,
}

impl NamedFile<'_> {
    /// Key path of the setting.
    pub fn path(&self) -> String {
        format!("{}.{}", self.object, self.field)
    }

    /// Puts the content of the file into its place. Errs with what is wrong with it.
    pub fn fill(self, content: Vec<u8>) -> Result<(), String> {
        let content = match self.form {
            Form::Base64 => STANDARD.encode(content),
            Form::Text => String::from_utf8(content).map_err(|error| {
                let offset = error.utf8_error().valid_up_to();
                format!("is not UTF-8 text: byte {:#04x} at offset {offset}", error.as_bytes()[offset])
            })?,
        };
        *self.inline = Some(content);
        Ok(())
    }
}

impl Site {
    /// Takes every file off that the site names, to be read and filled in.
    pub fn take_files(&mut self) -> Vec<NamedFile<'_>> {
        let mut files = Vec::new();
        let mut take = |object: &str, field, form, file: &mut Option<PathBuf>, inline| {
            if let Some(file) = file.take() {
                files.push(NamedFile { object: object.to_owned(), field, file, form, inline });
            }
        };
        for (name, listener) in &mut self.listeners {
            let object = format!("listeners.{}", step(name));
            let Some(auth) = &mut listener.client_auth else { continue };
            take(&object, "client_auth.ca_file", Form::Text, &mut auth.ca_file, &mut auth.ca_pem);
            take(&object, "client_auth.crl_file", Form::Text, &mut auth.crl_file, &mut auth.crl_pem);
        }
        for (name, certificate) in &mut self.certificates {
            let object = format!("certificates.{}", step(name));
            take(&object, "chain_file", Form::Text, &mut certificate.chain_file, &mut certificate.chain_pem);
            take(&object, "key_file", Form::Text, &mut certificate.key_file, &mut certificate.key_pem);
            take(
                &object,
                "ocsp_file",
                Form::Base64,
                &mut certificate.ocsp_file,
                &mut certificate.ocsp_base64,
            );
        }
        for (name, upstream) in &mut self.upstreams {
            let object = format!("upstreams.{}", step(name));
            let Some(tls) = &mut upstream.tls else { continue };
            take(&object, "tls.ca_file", Form::Text, &mut tls.ca_file, &mut tls.ca_pem);
        }
        files
    }
}
