//! The page of figures, as a monitoring system reads it: each family is introduced once, with what it is and what it means.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use cluster_tests::{Cluster, Origin, Ports, SiteFile, fetch};

#[derive(Default)]
struct Family {
    has_help: bool,
    form: String,
    series: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_figure_is_explained() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let origin = Origin::of_patterns(50, "max-age=60").await?;
    cluster.apply(0, &SiteFile::new().cached("shop", &[origin.endpoint()])).await?;
    cluster.serves("shop.example.com", "/").await?;
    let page = fetch(cluster.nodes[0].at(Ports::OPS), "ops", "/metrics").await?;
    let families = read_page(std::str::from_utf8(&page.body)?)?;
    for (name, family) in &families {
        ensure!(family.has_help && !family.form.is_empty(), "{name} is not explained");
    }
    for name in [
        "shoal_build_info",
        "shoal_cache_budget_bytes",
        "shoal_cache_origin_fetch_seconds",
        "shoal_cache_peer_fetch_seconds",
        "shoal_cache_purges_refused_total",
        "shoal_config_apply_errors_total",
        "shoal_gossip_convergence_seconds",
        "shoal_gossip_state_bytes",
        "shoal_purge_requests_total",
        "shoal_raft_last_snapshot_index",
        "shoal_route_cache_hits_total",
        "shoal_route_cache_hit_bytes_total",
        "shoal_upstream_requests_total",
        "shoal_route_request_duration_seconds",
        "shoal_worker_tick_age_seconds",
        "process_cpu_seconds_total",
        "process_max_fds",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    ] {
        ensure!(families.get(name).is_some_and(|family| family.series > 0), "there is no {name}");
    }
    Ok(())
}

/// The families of the page by name; a second introduction, or one that comes after the series, is an error.
fn read_page(page: &str) -> Result<BTreeMap<String, Family>> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in page.lines() {
        if let Some(text) = line.strip_prefix("# HELP ") {
            let (name, help) = text.split_once(' ').with_context(|| format!("no text: {line}"))?;
            ensure!(!help.is_empty(), "no text: {line}");
            let family = families.entry(name.to_owned()).or_default();
            ensure!(!family.has_help && family.series == 0, "a second or late {line}");
            family.has_help = true;
        } else if let Some(text) = line.strip_prefix("# TYPE ") {
            let (name, form) = text.split_once(' ').with_context(|| format!("no form: {line}"))?;
            let family = families.entry(name.to_owned()).or_default();
            ensure!(family.form.is_empty() && family.series == 0, "a second or late {line}");
            form.clone_into(&mut family.form);
        } else {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let parts = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            let whole = parts.filter(|whole| {
                families.get(*whole).is_some_and(|family| matches!(&*family.form, "histogram" | "summary"))
            });
            families.entry(whole.unwrap_or(name).to_owned()).or_default().series += 1;
        }
    }
    Ok(families)
}
