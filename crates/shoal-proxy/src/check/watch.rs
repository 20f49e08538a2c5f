//! One endpoint under observation.

use std::sync::Arc;
use std::time::Instant;

use shoal_policy::health::Checker;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Duty;
use super::probe::{Probed, probe};
use crate::health_event::HealthEvent;
use crate::names::Names;
use crate::upstream::{ClientTls, Complaints, ConnectError};

/// Checks the endpoint of `duty` again and again, the first time at once, and tells every new verdict.
pub(super) async fn watch(duty: Duty, names: Arc<Names>, events: mpsc::Sender<HealthEvent>) {
    let Duty { upstream, endpoint, health } = duty;
    let mut checker = Checker::new(health.rise, health.fall);
    let mut entropy = endpoint.id.0;
    // What cannot be used is told where requests go; here it is a check that fails.
    let tls = ClientTls::build(&health.transport).ok();
    let (complaints, began) = (Complaints::default(), Instant::now());
    let complain = |why: &ConnectError| {
        if complaints.are_due(why.reason, began.elapsed().as_millis() as u64) {
            let (endpoint, reason, error) = (&endpoint.text, why.reason.name(), why.told());
            tracing::warn!(%upstream, %endpoint, reason, error, "no TLS with an endpoint, to check it");
        }
    };
    loop {
        let observation = probe(Probed {
            endpoint: &endpoint,
            health: &health,
            tls: tls.as_ref(),
            names: &names,
            complain: &complain,
        });
        let observation = observation.await;
        if let Some(verdict) = checker.observe(observation) {
            tracing::info!(endpoint = %endpoint.text, ?verdict, "health verdict");
            if events.send(HealthEvent::Verdict { endpoint: endpoint.id, verdict }).await.is_err() {
                return;
            }
        }
        // Any sequence will do that differs from one endpoint to the next (Knuth's MMIX constants).
        entropy = entropy.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        sleep(checker.next_check_in(health.interval, entropy >> 32)).await;
    }
}
