//! A site file, checked here before any node is bothered with it.

use std::path::Path;

use shoal_model::Site;
use shoal_model::site::Problems;
use shoal_proto::admin::ShowRequest;

use crate::client::Client;
use crate::failure::Failure;
use crate::site_files::SiteFiles;

/// Reads the site for `verb` and checks it. A file that is wrong by itself may still fit what the cluster has:
/// only then the active site is asked for.
pub(super) async fn read_checked(
    verb: &str,
    path: &Path,
    prune: bool,
    client: &Client,
) -> Result<Site, Failure> {
    let complain = |problems: Problems| Failure::site(format!("{verb} {}", path.display()), &problems);
    let files = SiteFiles::read(path).map_err(complain)?;
    checked(verb, &files, complain, prune, client).await
}

/// The site of `files`, checked, with every certificate inline.
pub(super) async fn checked(
    verb: &str,
    files: &SiteFiles,
    complain: impl Fn(Problems) -> Failure,
    prune: bool,
    client: &Client,
) -> Result<Site, Failure> {
    if let Err(problems) = files.check_alone() {
        let active = if prune { None } else { active_site(verb, files, &complain, client).await? };
        let Some(active) = active else { return Err(complain(problems)) };
        files.check_over(&active).map_err(&complain)?;
    }
    files.with_certificates().map_err(complain)
}

/// The active site, if there is one. Where nobody tells, that is what is wrong, unless something is wrong with `files` whatever
/// is active.
async fn active_site(
    verb: &str,
    files: &SiteFiles,
    complain: impl Fn(Problems) -> Failure,
    client: &Client,
) -> Result<Option<Site>, Failure> {
    match client.show(verb, ShowRequest::default()).await {
        Ok(shown) => Ok(Site::from_json(&shown.site_json).ok().filter(|site| !site.is_empty())),
        Err(failure) => Err(files.check_part().err().map_or(failure, complain)),
    }
}
