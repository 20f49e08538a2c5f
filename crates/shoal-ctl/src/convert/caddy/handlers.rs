//! The directives of a site: those that lead to endpoints become routes.

use shoal_model::site::{AccessLog, Route};
use shoal_model::units::ByteSize;

use super::matcher::{Matched, Named, matcher_of};
use super::options::each;
use super::proxy::Proxy;
use super::values::networks;
use crate::convert::directive::{Directive, Mistake};
use crate::convert::draft::Draft;
use crate::convert::pattern::{Paths, unlike_letters};
use crate::convert::units::caddy_size;

/// What has no counterpart, and what to do.
const WITHOUT: [(&str, &str); 27] = [
    ("abort", "Shoal refuses nothing by path: what it kept out gets in here"),
    ("basic_auth", "Shoal asks for no passwords: what it kept out gets in here"),
    ("basicauth", "Shoal asks for no passwords: what it kept out gets in here"),
    ("encode", "Shoal compresses nothing: let the endpoints do so; encodings are cached apart by `Vary`"),
    ("error", "Shoal answers nothing itself: let an endpoint do so"),
    ("file_server", "Shoal serves no files: name a server that does as an endpoint"),
    ("forward_auth", "Shoal asks nobody else who may: what it kept out gets in here"),
    ("handle_errors", "errors go on as the endpoints send them"),
    ("header", "Shoal changes no fields of answers: let the endpoints send what is needed"),
    ("import", "no file matches it here: what it imports elsewhere is missing"),
    ("intercept", "answers go on as the endpoints send them"),
    ("log_append", "`access_log.format` of the listener is a template of known fields"),
    ("map", "Shoal has no variables"),
    ("method", "the method goes on as it came"),
    ("php_fastcgi", "Shoal speaks HTTP to endpoints, not FastCGI: name an HTTP server in front of it"),
    ("push", "Shoal pushes nothing; 103 Early Hints of endpoints go on"),
    ("rate_limit", "Shoal counts connections: `limits.max_connection_rate_per_address` of the listener"),
    ("redir", "Shoal redirects nothing itself: let an endpoint do so"),
    ("request_header", "Shoal sets no fields of requests beside those that say who called"),
    ("respond", "Shoal answers nothing itself: let an endpoint do so"),
    ("rewrite", "paths go on as they came: let the endpoint rewrite them"),
    ("root", "Shoal serves no files: name a server that does as an endpoint"),
    ("templates", "bodies go on as they came"),
    ("tracing", "use `tracing` of the listener"),
    ("try_files", "Shoal serves no files: name a server that does as an endpoint"),
    ("uri", "paths go on as they came: let the endpoint rewrite them"),
    ("vars", "Shoal has no variables"),
];
/// Read elsewhere, or about how Caddy works inside.
const READ: [&str; 7] = ["bind", "tls", "metrics", "skip_log", "log_skip", "fs", "invoke"];

/// Routes of a site on some of its addresses.
pub(super) struct Handlers<'a> {
    pub(super) hosts: &'a [String],
    pub(super) listeners: &'a [String],
}

impl Handlers<'_> {
    pub(super) fn convert(&self, block: &[Directive], draft: &mut Draft) -> Result<(), Mistake> {
        let named = Named::new();
        self.walk(block, &Matched::all(), &named, draft)
    }

    fn walk(
        &self,
        block: &[Directive],
        outer: &Matched,
        named: &Named<'_>,
        draft: &mut Draft,
    ) -> Result<(), Mistake> {
        let mut own = block.iter().filter(|one| one.name.starts_with('@')).peekable();
        let with_own;
        let named = match own.peek() {
            None => named,
            Some(_) => {
                with_own = named
                    .iter()
                    .map(|(name, one)| (*name, *one))
                    .chain(own.map(|one| (one.name.as_str(), one)))
                    .collect();
                &with_own
            }
        };
        for at in block.iter().filter(|one| !one.name.starts_with('@')) {
            self.handle(at, outer, named, draft)?;
        }
        Ok(())
    }

    fn handle(
        &self,
        at: &Directive,
        outer: &Matched,
        named: &Named<'_>,
        draft: &mut Draft,
    ) -> Result<(), Mistake> {
        let narrowed = || outer.narrowed(matcher_of(at).unwrap_or_default(), named);
        match at.name.as_str() {
            "reverse_proxy" => match narrowed() {
                Ok(matched) => self.proxy(at, &matched, draft)?,
                Err(why) => draft.left_out(at, format!("{why}; its requests go where other routes lead")),
            },
            "handle" | "route" | "handle_path" => match narrowed() {
                Ok(matched) => {
                    if at.name == "handle_path" {
                        draft.left_out(
                            at,
                            "paths go on as they came: let the endpoint take the beginning off",
                        );
                    }
                    self.walk(at.body(), &matched, named, draft)?;
                }
                Err(why) => draft.left_out(at, format!("{why}; its requests go where other routes lead")),
            },
            "request_body" => self.request_body(at, draft),
            "log" => self.log(at, draft),
            name if READ.contains(&name) => {}
            name => {
                let known = WITHOUT.binary_search_by_key(&name, |(known, _)| known);
                draft.left_out(at, known.map_or("Shoal has nothing like it", |found| WITHOUT[found].1));
            }
        }
        Ok(())
    }

    fn proxy(&self, at: &Directive, matched: &Matched, draft: &mut Draft) -> Result<(), Mistake> {
        let Some(proxy) = Proxy::read(at, draft) else { return Ok(()) };
        let hosts = matched.hosts.as_deref().unwrap_or(self.hosts);
        let host = hosts.first().map(|host| host.trim_start_matches("*.").to_owned());
        let upstream = match (&proxy.upstream.endpoints[..], &host) {
            ([only], _) => name_of_endpoint(&only.address),
            (_, Some(host)) => host.clone(),
            ([first, ..], None) => name_of_endpoint(&first.address),
            ([], None) => return Ok(()),
        };
        let believed = networks(&proxy.trusted);
        if !believed.is_empty() {
            each(self.listeners, draft, |listener| listener.trusted_proxies.clone_from(&believed));
        }
        let (timeouts, retry) = (proxy.timeouts(), proxy.retry());
        let upstream = draft.upstream(&upstream, proxy.upstream, at);
        let base = host.unwrap_or_else(|| upstream.clone());
        for paths in &matched.paths {
            if let Paths::Prefix(prefix) = paths
                && let Some(how) = unlike_letters(prefix)
            {
                draft.changed(at, how);
            }
            let mut route = Route {
                hosts: hosts.to_vec(),
                listeners: self.listeners.to_vec(),
                upstream: upstream.clone(),
                timeouts: timeouts.clone(),
                retry: retry.clone(),
                ..Route::default()
            };
            paths.put(&mut route);
            let wish = match paths.slug() {
                slug if slug.is_empty() => base.clone(),
                slug => format!("{base}-{slug}"),
            };
            draft.route(&wish, route, at)?;
        }
        Ok(())
    }

    /// `max_size`: of several the largest, lest one is refused that was taken.
    fn request_body(&self, at: &Directive, draft: &mut Draft) {
        let Some(size) = at.find("max_size").and_then(|one| caddy_size(one.first())) else {
            return draft.left_out(at, "it says no size that is known");
        };
        each(self.listeners, draft, |listener| {
            let slot = &mut listener.limits.get_or_insert_default().max_body_bytes;
            *slot = Some(slot.unwrap_or(ByteSize(0)).max(size));
        });
        draft.changed(at, "it holds for all sites on the listener here, the largest if there are several");
    }

    fn log(&self, at: &Directive, draft: &mut Draft) {
        let output = at.find("output");
        let path = output.filter(|one| one.first() == "file").and_then(|one| one.args.get(1));
        let path = match (path, output.map_or("stderr", Directive::first)) {
            (Some(path), _) if path.starts_with('/') && !path.ends_with('/') => Some(path.clone()),
            (None, "stderr" | "stdout") => None,
            (None, "discard") => return,
            _ => {
                let why = "`access_log.path` is the absolute path of a file; without one it goes to stderr";
                return draft.left_out(at, why);
            }
        };
        if at.find("format").is_some_and(|format| format.first() != "json") {
            draft.changed(at, "a line is a JSON object here, unless `access_log.format` has a template");
        }
        let log = AccessLog { path, ..AccessLog::default() };
        let mut has_another = false;
        each(self.listeners, draft, |listener| {
            has_another |= listener.access_log.get_or_insert_with(|| log.clone()) != &log;
        });
        match has_another {
            true => draft.left_out(at, "the listener has one log for all its sites, which another one names"),
            false => draft.changed(at, "it is the log of all sites on the listener here"),
        }
    }
}

/// What to call an upstream of one address.
fn name_of_endpoint(address: &str) -> String {
    let name = address.strip_suffix(":80").or_else(|| address.strip_suffix(":443")).unwrap_or(address);
    let name = name.strip_prefix("srv:").unwrap_or(name);
    match name.strip_prefix("unix:") {
        Some(path) => path.rsplit('/').next().unwrap_or(path).trim_end_matches(".sock").to_owned(),
        None => name.replace(':', "-"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directive_is_in_one_list() {
        assert!(WITHOUT.is_sorted_by_key(|(name, _)| name), "it is searched");
        assert!(READ.iter().all(|name| WITHOUT.iter().all(|(other, _)| name != other)));
    }
}
