//! The names that a server has.

use std::collections::HashSet;

use super::scope::Scope;
use crate::convert::draft::Draft;
use crate::convert::pattern::host_of_regex;

/// The hosts of `server_name`; what is none is told, if anybody listens.
pub(super) fn hosts_of(scope: &Scope<'_>, mut draft: Option<&mut Draft>) -> Vec<String> {
    let mut hosts: Vec<String> = Vec::new();
    let mut seen = HashSet::new();
    for at in scope.all("server_name") {
        for name in &at.args {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let found = if let Some(pattern) = name.strip_prefix('~') {
                host_of_regex(pattern).map(|host| vec![host])
            } else if let Some(parent) = name.strip_prefix('.') {
                Some(vec![parent.to_owned(), format!("*.{parent}")])
            } else if name.ends_with(".*") || name.contains('$') {
                None
            } else if name.is_empty() || name.bytes().all(|b| b"_-!@#".contains(&b)) {
                // Never asked for: what is written so is meant for all names.
                Some(Vec::new())
            } else {
                Some(vec![name.clone()])
            };
            match (found, &mut draft) {
                (Some(found), _) => hosts.extend(found.into_iter().filter(|host| seen.insert(host.clone()))),
                (None, Some(draft)) => {
                    draft.left_out(
                        at,
                        format!("hosts are names, or `*.` and the end of one: {name} is neither"),
                    );
                }
                (None, None) => {}
            }
        }
    }
    hosts
}
