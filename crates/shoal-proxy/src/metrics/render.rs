//! The figures of all workers as Prometheus text.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use shoal_policy::gate::{ErrorCode, RULES};

use super::cells::{ALL_FAILURES, BUCKETS_US, Traffic};
use super::series::Series;
use super::{ClientOutcome, ClientRefusal, Limit, PurgeResult, ShedCause, TurnedAway, WorkerMetrics};

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// A counter of one worker that is only summed up.
type Sum = fn(&WorkerMetrics) -> u64;
type Cells = fn(&WorkerMetrics) -> &Series;
/// A counter of a listener, route or upstream: how its name ends, what it is, where it is kept.
type TrafficSum = (&'static str, &'static str, fn(&Traffic) -> u64);

const SUMS: [(&str, &str, &str, Sum); 5] = [
    ("shoal_requests_in_flight", "gauge", "Requests under way.", |worker| worker.in_flight.read()),
    (
        "shoal_tls_handshakes_failed_total",
        "counter",
        "TLS handshakes that failed or took too long.",
        |worker| worker.handshakes_failed.read(),
    ),
    (
        "shoal_connections_handed_over_total",
        "counter",
        "Connections that one worker accepted and another serves.",
        |worker| worker.handed_over.read(),
    ),
    ("shoal_connections_resting", "gauge", "Connections that are idle and hold no buffers.", |worker| {
        worker.resting.read()
    }),
    ("shoal_trace_spans_dropped_total", "counter", "Spans that nobody sent in time.", |worker| {
        worker.spans_dropped.read()
    }),
];

/// Appends the figures of `workers`, summed up, to `out`.
pub(crate) fn render(workers: &[Arc<WorkerMetrics>], out: &mut String) {
    let kinds: [(&str, Cells); 3] = [
        ("listener", |worker| &worker.listeners),
        ("route", |worker| &worker.routes),
        ("upstream", |worker| &worker.upstreams),
    ];
    for (kind, cells) in kinds {
        render_traffic(out, kind, &sum_by_name(workers, cells));
    }
    for (name, form, help, sum) in SUMS {
        head(out, name, form, help);
        line(out, name, "", workers.iter().map(|worker| sum(worker)).sum());
    }
    head(out, "shoal_connections_refused_total", "counter", "Connections closed before they were served.");
    for why in TurnedAway::ALL {
        let count = workers.iter().map(|worker| worker.turned_away[why as usize].read()).sum();
        line(out, "shoal_connections_refused_total", &format!("reason=\"{}\"", why.reason()), count);
    }
    head(
        out,
        "shoal_limits_reached_total",
        "counter",
        "Connections, streams and heads that a limit has ended.",
    );
    for limit in Limit::ALL {
        let count = workers.iter().map(|worker| worker.limits[limit as usize].read()).sum();
        line(out, "shoal_limits_reached_total", &format!("limit=\"{}\"", limit.name()), count);
    }
    head(
        out,
        "shoal_h2_connection_errors_total",
        "counter",
        "HTTP/2 connections ended with GOAWAY for what their downstream sent, by code.",
    );
    for code in ErrorCode::ALL {
        let count = workers.iter().map(|worker| worker.h2_errors[code as usize].read()).sum();
        line(out, "shoal_h2_connection_errors_total", &format!("code=\"{}\"", code.name()), count);
    }
    head(
        out,
        "shoal_tls_client_certificates_total",
        "counter",
        "Downstreams that were asked for a certificate, by what they showed.",
    );
    for outcome in ClientOutcome::ALL {
        let count = workers.iter().map(|worker| worker.clients[outcome as usize].read()).sum();
        let label = format!("result=\"{}\"", outcome.name());
        line(out, "shoal_tls_client_certificates_total", &label, count);
    }
    render_client_refusals(workers, out);
    render_purges(workers, out);
    render_load(workers, out);
    head(out, "shoal_failures_total", "counter", "Requests and connections that failed, by reason.");
    for (place, failure) in ALL_FAILURES.iter().enumerate() {
        let count = workers.iter().map(|worker| worker.failures[place].read()).sum();
        line(out, "shoal_failures_total", &format!("reason=\"{}\"", failure.reason()), count);
    }
    head(out, "shoal_gate_refusals_total", "counter", "Requests that the gate refused, by rule.");
    for (place, rule) in RULES.iter().enumerate() {
        let count = workers.iter().map(|worker| worker.refusals[place].read()).sum();
        line(out, "shoal_gate_refusals_total", &format!("rule=\"{}\"", rule.name()), count);
    }
}

fn render_client_refusals(workers: &[Arc<WorkerMetrics>], out: &mut String) {
    let name = "shoal_tls_client_certificates_refused_total";
    head(out, name, "counter", "Certificates of downstreams that were refused, by reason.");
    for refusal in ClientRefusal::ALL {
        let count = workers.iter().map(|worker| worker.client_refusals[refusal as usize].read()).sum();
        line(out, name, &format!("reason=\"{}\"", refusal.name()), count);
    }
}

fn render_purges(workers: &[Arc<WorkerMetrics>], out: &mut String) {
    let name = "shoal_purge_requests_total";
    head(out, name, "counter", "Requests with the method PURGE on routes that take them, by result.");
    for result in PurgeResult::ALL {
        let count = workers.iter().map(|worker| worker.purges[result as usize].read()).sum();
        line(out, name, &format!("result=\"{}\"", result.name()), count);
    }
}

/// What the workers have to do, and what they refused because of that.
fn render_load(workers: &[Arc<WorkerMetrics>], out: &mut String) {
    head(out, "shoal_requests_shed_total", "counter", "Requests refused because of overload.");
    for cause in ShedCause::ALL {
        let count = workers.iter().map(|worker| worker.shed[cause as usize].read()).sum();
        line(out, "shoal_requests_shed_total", &format!("cause=\"{}\"", cause.name()), count);
    }
    head(
        out,
        "shoal_worker_queue_delay_seconds",
        "gauge",
        "How long the queue of a worker let things wait when it was looked at last.",
    );
    for (number, worker) in workers.iter().enumerate() {
        let seconds = worker.queue_delay_us.read() as f64 / 1e6;
        let _ = writeln!(out, "shoal_worker_queue_delay_seconds{{worker=\"{number}\"}} {seconds}");
    }
}

/// How long ago each worker that runs ticked last, at `now_ms`.
pub(crate) fn render_ticks(workers: &[Arc<WorkerMetrics>], now_ms: u64, out: &mut String) {
    let name = "shoal_worker_tick_age_seconds";
    head(
        out,
        name,
        "gauge",
        "How long ago a worker looked after itself last, as it does ten times a second.",
    );
    let runs = |(_, worker): &(usize, &Arc<WorkerMetrics>)| !worker.pulse.threads().is_empty();
    for (number, worker) in workers.iter().enumerate().filter(runs) {
        let seconds = now_ms.saturating_sub(worker.pulse.ticked_ms()) as f64 / 1e3;
        let _ = writeln!(out, "{name}{{worker=\"{number}\"}} {seconds}");
    }
}

fn sum_by_name(workers: &[Arc<WorkerMetrics>], cells: Cells) -> BTreeMap<Arc<str>, Vec<Arc<Traffic>>> {
    let mut by_name: BTreeMap<Arc<str>, Vec<Arc<Traffic>>> = BTreeMap::new();
    for worker in workers {
        for (name, traffic) in cells(worker).lock().iter() {
            by_name.entry(name.clone()).or_default().push(traffic.clone());
        }
    }
    by_name
}

fn render_traffic(out: &mut String, kind: &str, by_name: &BTreeMap<Arc<str>, Vec<Arc<Traffic>>>) {
    let requests = format!("shoal_{kind}_requests_total");
    head(out, &requests, "counter", &format!("Requests that have ended, by {kind} and class of status."));
    for (name, cells) in by_name {
        for (place, class) in CLASSES.iter().enumerate() {
            let labels = format!("{kind}=\"{}\",code_class=\"{class}\"", escape(name));
            line(out, &requests, &labels, sum(cells, |traffic| traffic.classes[place].read()));
        }
    }
    let duration = format!("shoal_{kind}_request_duration_seconds");
    head(
        out,
        &duration,
        "histogram",
        &format!("From the head of a request to the end of its response, by {kind}."),
    );
    for (name, cells) in by_name {
        render_histogram(out, &duration, &format!("{kind}=\"{}\"", escape(name)), cells);
    }
    for (suffix, help, read) in sums_of(kind) {
        let metric = format!("shoal_{kind}_{suffix}");
        head(out, &metric, "counter", &format!("{help}, by {kind}."));
        for (name, cells) in by_name {
            line(out, &metric, &format!("{kind}=\"{}\"", escape(name)), sum(cells, read));
        }
    }
}

/// The counters of a listener, route or upstream besides its requests by class of status.
fn sums_of(kind: &str) -> Vec<TrafficSum> {
    let mut sums: Vec<TrafficSum> = vec![
        ("request_bytes_total", "Bytes of request bodies and carried connections", |traffic| {
            traffic.request_bytes.read()
        }),
        ("response_bytes_total", "Bytes of response bodies and carried connections", |traffic| {
            traffic.response_bytes.read()
        }),
    ];
    if kind == "route" {
        sums.push(("cache_hits_total", "Requests that the cache answered without an origin", |traffic| {
            traffic.cache_hits.read()
        }));
        sums.push((
            "cache_hit_bytes_total",
            "Bytes of bodies that the cache sent in the place of an origin",
            |traffic| traffic.cache_hit_bytes.read(),
        ));
        sums.push(("cache_misses_total", "Requests for which the cache had to ask an origin", |traffic| {
            traffic.cache_misses.read()
        }));
    } else {
        sums.push((
            "carried_connections_total",
            "Connections that were carried without looking inside",
            |traffic| traffic.carried.read(),
        ));
    }
    if kind == "listener" {
        sums.push(("requests_tls_total", "Requests over TLS", |traffic| traffic.tls.read()));
    }
    if kind == "upstream" {
        sums.push(("retries_total", "Tries after the first", |traffic| traffic.retries.read()));
        sums.push(("overflow_total", "Requests refused at a limit of the upstream", |traffic| {
            traffic.overflows.read()
        }));
        sums.push(("panic_total", "Requests sent while health was ignored", |traffic| traffic.panics.read()));
    }
    sums
}

fn render_histogram(out: &mut String, metric: &str, labels: &str, cells: &[Arc<Traffic>]) {
    let mut total = 0;
    for place in 0..=BUCKETS_US.len() {
        total += sum(cells, |traffic| traffic.buckets[place].read());
        let bound =
            BUCKETS_US.get(place).map_or("+Inf".to_owned(), |bound| (*bound as f64 / 1e6).to_string());
        line(out, &format!("{metric}_bucket"), &format!("{labels},le=\"{bound}\""), total);
    }
    let seconds = sum(cells, |traffic| traffic.duration_us.read()) as f64 / 1e6;
    let _ = writeln!(out, "{metric}_sum{{{labels}}} {seconds}");
    line(out, &format!("{metric}_count"), labels, total);
}

fn sum(cells: &[Arc<Traffic>], read: impl Fn(&Traffic) -> u64) -> u64 {
    cells.iter().map(|traffic| read(traffic)).sum()
}

/// What comes before the series of a family.
pub(crate) fn head(out: &mut String, metric: &str, form: &str, help: &str) {
    let _ = writeln!(out, "# HELP {metric} {help}\n# TYPE {metric} {form}");
}

pub(crate) fn line(out: &mut String, metric: &str, labels: &str, value: u64) {
    let _ = if labels.is_empty() {
        writeln!(out, "{metric} {value}")
    } else {
        writeln!(out, "{metric}{{{labels}}} {value}")
    };
}

/// A label value as the text format wants it.
pub(crate) fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::{CacheUse, Sample};

    #[test]
    fn sums_up_the_workers() {
        let workers: Vec<_> = (0..2).map(|_| Arc::new(WorkerMetrics::default())).collect();
        for worker in &workers {
            let sample = Sample {
                status: 200,
                https: false,
                duration: Duration::from_millis(2),
                request_bytes: 0,
                response_bytes: 50,
                cache: CacheUse::Hit,
            };
            worker.route(&"r".into()).record(&sample);
            worker.upstream(&"a\"b".into()).record(&sample);
            worker.upstream(&"a\"b".into()).retries.add(1);
        }
        let mut out = String::new();
        render(&workers, &mut out);
        for expected in [
            "shoal_upstream_requests_total{upstream=\"a\\\"b\",code_class=\"2xx\"} 2\n",
            "shoal_upstream_request_duration_seconds_bucket{upstream=\"a\\\"b\",le=\"0.001\"} 0\n",
            "shoal_upstream_request_duration_seconds_bucket{upstream=\"a\\\"b\",le=\"0.0025\"} 2\n",
            "shoal_upstream_request_duration_seconds_bucket{upstream=\"a\\\"b\",le=\"+Inf\"} 2\n",
            "shoal_upstream_request_duration_seconds_sum{upstream=\"a\\\"b\"} 0.004\n",
            "shoal_upstream_response_bytes_total{upstream=\"a\\\"b\"} 100\n",
            "shoal_upstream_retries_total{upstream=\"a\\\"b\"} 2\n",
            "shoal_route_cache_hits_total{route=\"r\"} 2\n",
            "shoal_route_cache_hit_bytes_total{route=\"r\"} 100\n",
            "shoal_route_cache_misses_total{route=\"r\"} 0\n",
            "shoal_requests_in_flight 0\n",
            "shoal_failures_total{reason=\"upstream_reset\"} 0\n",
            "shoal_gate_refusals_total{rule=\"host_missing\"} 0\n",
        ] {
            assert!(out.contains(expected), "{expected}");
        }
    }
}
