//! What becomes of an exchange: counted, logged and traced when it ends, however it ends.

mod line;
mod span;

use shoal_policy::failure::{Failure, is_fault};

use crate::access_log::LogLine;
use crate::exchange::Exchange;
use crate::metrics::Sample;

impl Exchange {
    /// Ends it, once.
    pub(crate) fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if let Some(tunnel) = self.tunnel.take() {
            return tunnel.take_over(self);
        }
        let connection = self.connection.clone();
        if !self.complete {
            self.fail(Failure::DownstreamReset);
        }
        let sample = Sample {
            status: self.status,
            is_fault: is_fault(self.status, self.failure),
            https: connection.settings.gate.https,
            duration: self.started.elapsed(),
            request_bytes: self.request_bytes(),
            response_bytes: self.response_bytes,
            cache: self.cached,
        };
        if let Some(upstream) = &self.trace.upstream {
            upstream.record(&sample);
        }
        if let Some(route) = &self.route {
            connection.worker.routes.record(route, &sample);
        }
        connection.worker.metrics.end_request(&connection.listener.traffic, &sample, self.failure);
        let record = self.record.take();
        if let Some(record) = record.as_ref().filter(|record| record.logged) {
            let text = line::line(&connection, self, record, sample.duration);
            let path = connection.settings.view.access_log.as_ref().and_then(|log| log.path.clone());
            connection.worker.write_log(LogLine { text, path });
        }
        if let Some(span) =
            record.and_then(|record| span::finish(&connection, self, &record, sample.duration))
        {
            connection.worker.send_span(span);
        }
        connection.state.request_ended();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.end();
    }
}
