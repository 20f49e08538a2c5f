//! A server: the names that lead to it, and its locations as routes.

use std::collections::HashSet;

use shoal_model::site::Route;

use super::hosts::hosts_of;
use super::known;
use super::listener::max_body;
use super::location::{Location, Locations};
use super::passing;
use super::scope::Scope;
use super::upstream::{Pass, Upstreams};
use crate::convert::directive::{Directive, Mistake};
use crate::convert::draft::Draft;
use crate::convert::pattern::Paths;

/// A server, and which requests come to it.
pub(super) struct Server<'a> {
    pub(super) at: &'a Directive,
    scope: Scope<'a>,
    hosts: Vec<String>,
    /// Listeners on which its names lead to it, and those on which any name does that no other server has.
    by_name: Vec<String>,
    for_any: Vec<String>,
}

impl<'a> Server<'a> {
    pub(super) fn read(
        at: &'a Directive,
        scope: Scope<'a>,
        listeners: &[(String, Option<bool>)],
        draft: &mut Draft,
    ) -> Self {
        let hosts = hosts_of(&scope, Some(draft));
        let (mut by_name, mut for_any) = (Vec::new(), Vec::new());
        for (name, fallback) in listeners {
            match fallback {
                Some(true) => for_any.push(name.clone()),
                Some(false) if hosts.is_empty() => for_any.push(name.clone()),
                Some(false) => {
                    let how = format!(
                        "as the first one on {name:?} it answers names that no server has, too; here they get a 404: leave out `hosts` to keep that"
                    );
                    draft.changed(scope.find("server_name").unwrap_or(at), how);
                    by_name.push(name.clone());
                }
                None => by_name.push(name.clone()),
            }
        }
        if hosts.is_empty() && !by_name.is_empty() {
            draft.left_out(at, format!("no name leads to it on {}", by_name.join(", ")));
            by_name.clear();
        }
        Self { at, scope, hosts, by_name, for_any }
    }

    /// Listeners on which any name leads to it.
    pub(super) fn listeners_for_any(&self) -> &[String] {
        &self.for_any
    }

    /// Its locations as routes; on the listeners of `elsewhere` routes of another server are for any host.
    pub(super) fn convert(
        &self,
        elsewhere: &HashSet<String>,
        upstreams: &mut Upstreams<'a>,
        draft: &mut Draft,
    ) -> Result<(), Mistake> {
        let locations = Locations::of(self.at.body(), &self.scope, draft);
        let mut has_root = false;
        for location in &locations.all {
            if let Some(route) = self.route(location, &locations, upstreams, draft) {
                has_root |= location.paths == Paths::all();
                self.add(location, route, draft)?;
            }
        }
        let is_told = |one: &Directive| matches!(one.name.as_str(), "return" | "rewrite" | "root" | "if");
        if locations.all.is_empty() && !self.at.body().iter().any(is_told) {
            let why = "it has no location that leads to an endpoint";
            draft.left_out(self.at, why);
        } else if !locations.all.is_empty()
            && !has_root
            && self.by_name.iter().any(|name| elsewhere.contains(name))
        {
            let how = "paths that none of its routes has go to those for any host here";
            draft.changed(self.at, how);
        }
        Ok(())
    }

    /// What a location says, without hosts and listeners; None where it leads to no endpoint.
    fn route(
        &self,
        location: &Location<'a>,
        locations: &Locations<'a>,
        upstreams: &mut Upstreams<'a>,
        draft: &mut Draft,
    ) -> Option<Route> {
        let Some((at, scope)) = locations.pass_of(location) else {
            let why = known::why_no_endpoint(location.at.body());
            draft.left_out(
                location.at,
                format!("{why}; its requests go where other routes lead, or get a 404"),
            );
            return None;
        };
        let target = match scope.expand(at.first()) {
            Ok(target) => target,
            Err(variable) => {
                draft.left_out(at, format!("an upstream is known before the request: {variable} is not"));
                return None;
            }
        };
        let pass = match Pass::read(&at.name, &target) {
            Ok(pass) => pass,
            Err(why) => {
                draft.left_out(at, why);
                return None;
            }
        };
        known::sift(location.at.body(), draft);
        location.explain(locations, draft);
        passing::explain_path(location, &pass, at, draft);
        let fields = passing::fields(&scope, &pass, at, draft);
        let mut route = Route {
            upstream: upstreams.name(&pass, &scope, at, draft),
            timeouts: passing::timeouts(&scope, pass.module(), draft),
            retry: passing::retry(&scope, pass.module(), draft),
            cache: super::cache::rule(&scope, draft),
            ..Route::default()
        };
        location.paths.put(&mut route);
        let listeners: Vec<&str> = self.by_name.iter().chain(&self.for_any).map(String::as_str).collect();
        max_body(location.scope.own("client_max_body_size"), &listeners, draft);
        if fields.has_upgrade {
            passing::let_tunnels_rest(&scope, pass.module(), &listeners, draft);
        }
        Some(route)
    }

    fn add(&self, location: &Location<'a>, route: Route, draft: &mut Draft) -> Result<(), Mistake> {
        let base = match self.hosts.first() {
            Some(host) => host.trim_start_matches("*.").to_owned(),
            None => route.upstream.clone(),
        };
        let wish = match location.paths.slug() {
            slug if slug.is_empty() => base,
            slug => format!("{base}-{slug}"),
        };
        if !self.by_name.is_empty() {
            let route = Route { hosts: self.hosts.clone(), listeners: self.by_name.clone(), ..route.clone() };
            draft.route(&wish, route, location.at)?;
        }
        if !self.for_any.is_empty() {
            draft.route(&wish, Route { listeners: self.for_any.clone(), ..route }, location.at)?;
        }
        Ok(())
    }
}
