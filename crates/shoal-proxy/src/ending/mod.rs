//! What becomes of an exchange: counted, logged and traced when it ends, however it ends.

mod line;
mod span;

use std::time::Duration;

use shoal_policy::failure::{Ending, Failure};

use crate::access_log::LogLine;
use crate::exchange::Exchange;
use crate::metrics::{CacheUse, Sample};

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
            let (ending, answered) = self.judged();
            connection.worker.routes.record(route, &sample, ending.tells(), answered);
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

    /// Whose doing this was, and how long the answer took where that says something of what is served.
    fn judged(&self) -> (Ending, Option<Duration>) {
        let body = self.request_body.as_ref();
        let ending = Ending {
            status: match self.failure {
                // The head of a gRPC call that is refused says 200, and that of what breaks off may have.
                Some(failure) if self.response_bytes == 0 => failure.status(),
                _ => self.status,
            },
            failure: self.failure,
            asked_switch: self.asked_switch,
            was_asked: self.trace.tries > 0 || self.cached == CacheUse::Miss,
            awaits_downstream: body.is_some_and(|body| body.awaited.get()),
            is_timed_by_downstream: self.trace.is_hurried || body.is_some_and(|body| body.has_waited.get()),
        };
        (ending, self.answered.filter(|_| !ending.is_timed_by_downstream))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.end();
    }
}
