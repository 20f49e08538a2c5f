//! The files that a site names: read where it is applied, and inline from then on.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::pem::{Blocks, check_no_key};
use super::{Certificate, Listener, Site, Upstream, step};

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
    /// Text that everybody may read.
    Open(Blocks),
    /// Text that is sealed.
    Key,
    Base64,
}

impl NamedFile<'_> {
    /// Key path of the setting.
    pub fn path(&self) -> String {
        format!("{}.{}", self.object, self.field)
    }

    /// Puts the content of the file into its place. Errs with what is wrong with it.
    pub fn fill(self, content: Vec<u8>) -> Result<(), String> {
        let text = |content: Vec<u8>| {
            String::from_utf8(content).map_err(|error| {
                let offset = error.utf8_error().valid_up_to();
                format!("is not UTF-8 text: byte {:#04x} at offset {offset}", error.as_bytes()[offset])
            })
        };
        let content = match self.form {
            Form::Base64 => STANDARD.encode(content),
            Form::Key => text(content)?,
            Form::Open(blocks) => {
                let text = text(content)?;
                check_no_key(&text)?;
                blocks.of(&text)
            }
        };
        *self.inline = Some(content);
        Ok(())
    }
}

/// A setting that may be written as a file or inline.
struct Place<'a> {
    field: &'static str,
    form: Form,
    file: &'a mut Option<PathBuf>,
    inline: &'a mut Option<String>,
}

fn of_listener(listener: &mut Listener) -> Vec<Place<'_>> {
    let Some(auth) = &mut listener.client_auth else { return Vec::new() };
    let (authorities, lists) = (Form::Open(Blocks::Certificates), Form::Open(Blocks::RevocationLists));
    vec![
        Place {
            field: "client_auth.ca_file",
            form: authorities,
            file: &mut auth.ca_file,
            inline: &mut auth.ca_pem,
        },
        Place {
            field: "client_auth.crl_file",
            form: lists,
            file: &mut auth.crl_file,
            inline: &mut auth.crl_pem,
        },
    ]
}

fn of_certificate(certificate: &mut Certificate) -> Vec<Place<'_>> {
    let Certificate { chain_file, chain_pem, key_file, key_pem, ocsp_file, ocsp_base64, .. } = certificate;
    vec![
        Place {
            field: "chain_file",
            form: Form::Open(Blocks::Certificates),
            file: chain_file,
            inline: chain_pem,
        },
        Place { field: "key_file", form: Form::Key, file: key_file, inline: key_pem },
        Place { field: "ocsp_file", form: Form::Base64, file: ocsp_file, inline: ocsp_base64 },
    ]
}

fn of_upstream(upstream: &mut Upstream) -> Vec<Place<'_>> {
    let Some(tls) = &mut upstream.tls else { return Vec::new() };
    let form = Form::Open(Blocks::Certificates);
    vec![Place { field: "tls.ca_file", form, file: &mut tls.ca_file, inline: &mut tls.ca_pem }]
}

impl Site {
    /// Takes every file off that the site names, to be read and filled in.
    pub fn take_files(&mut self) -> Vec<NamedFile<'_>> {
        let mut files = Vec::new();
        self.each_place(|kind, name, Place { field, form, file, inline }| {
            if let Some(file) = file.take() {
                files.push(NamedFile { object: format!("{kind}.{}", step(name)), field, file, form, inline });
            }
        });
        files
    }

    /// The same site with nothing but certificates where certificates belong, and lists where lists do.
    #[must_use]
    pub fn with_own_blocks(mut self) -> Self {
        self.each_place(|_, _, place| {
            if let (Form::Open(blocks), Some(text)) = (place.form, place.inline) {
                *text = blocks.of(text);
            }
        });
        self
    }

    /// Every setting that may be a file, with the kind of object and the name of the one that it belongs to.
    fn each_place<'a>(&'a mut self, mut visit: impl FnMut(&'static str, &'a str, Place<'a>)) {
        for (name, listener) in &mut self.listeners {
            of_listener(listener).into_iter().for_each(|place| visit("listeners", name, place));
        }
        for (name, certificate) in &mut self.certificates {
            of_certificate(certificate).into_iter().for_each(|place| visit("certificates", name, place));
        }
        for (name, upstream) in &mut self.upstreams {
            of_upstream(upstream).into_iter().for_each(|place| visit("upstreams", name, place));
        }
    }
}
