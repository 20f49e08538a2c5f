//! `nginx.conf`: its servers and locations as routes, its upstreams as upstreams.

mod cache;
mod hosts;
mod known;
mod lexer;
mod listen;
mod listener;
mod location;
mod passing;
mod scope;
mod server;
mod stream;
mod tree;
mod upstream;

use std::collections::HashSet;
use std::path::Path;

use self::listen::{Listen, Sockets};
use self::scope::Scope;
use self::server::Server;
use self::upstream::Upstreams;
use super::directive::{Directive, Mistake};
use super::draft::Draft;
use super::{Conversion, Surroundings};

pub(super) fn convert(
    file: &str,
    text: &str,
    surroundings: &dyn Surroundings,
) -> Result<Conversion, Mistake> {
    let tree = tree::read(file, text, surroundings)?;
    let home = Path::new(file).parent().unwrap_or(Path::new(""));
    let mut draft = Draft::default();
    // A file of `sites-available` has no `http` of its own.
    if !tree.iter().any(|directive| matches!(directive.name.as_str(), "http" | "stream")) {
        http(&tree, home, &mut draft)?;
        return Ok(draft.finish());
    }
    known::sift(&tree, &mut draft);
    for block in &tree {
        match block.name.as_str() {
            "http" => http(block.body(), home, &mut draft)?,
            "stream" => stream::convert(block.body(), &mut draft),
            _ => {}
        }
    }
    Ok(draft.finish())
}

fn http(block: &[Directive], home: &Path, draft: &mut Draft) -> Result<(), Mistake> {
    known::sift(block, draft);
    let scope = Scope::new(block);
    let mut upstreams = Upstreams::of(block, home);
    let blocks: Vec<&Directive> = block.iter().filter(|directive| directive.name == "server").collect();
    let listens: Vec<Vec<Listen<'_>>> =
        blocks.iter().map(|server| listens(server, &scope.within(server.body()), draft)).collect();
    let sockets = Sockets::open(&listens, draft);
    let mut servers = Vec::with_capacity(blocks.len());
    for (n, at) in blocks.into_iter().enumerate() {
        let listeners = sockets.of(n, &listens[n]);
        let scope = scope.within(at.body());
        listener::set_up(at, &scope, &listens[n], &listeners, home, draft);
        servers.push(Server::read(at, scope, &listeners, draft));
    }
    let for_any: HashSet<String> = servers.iter().flat_map(Server::listeners_for_any).cloned().collect();
    for server in &servers {
        known::sift(server.at.body(), draft);
        server.convert(&for_any, &mut upstreams, draft)?;
    }
    upstreams.report_unused(draft);
    Ok(())
}

/// What a server listens on: port 80, if it does not say.
fn listens<'a>(server: &'a Directive, scope: &Scope<'a>, draft: &mut Draft) -> Vec<Listen<'a>> {
    let has_ssl_on = scope.word("ssl") == Some("on");
    let written: Vec<&Directive> = server.body().iter().filter(|one| one.name == "listen").collect();
    if written.is_empty() {
        return vec![Listen::implied(server)];
    }
    let mut listens = Vec::with_capacity(written.len());
    for at in written {
        match Listen::read(at, has_ssl_on) {
            Ok(listen) => listens.push(listen),
            Err(why) => draft.left_out(at, why),
        }
    }
    listens
}
