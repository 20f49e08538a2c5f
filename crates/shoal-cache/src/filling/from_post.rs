//! What answered a POST and shows what a GET would: kept on its way as the object of its URL (RFC 9110 §9.3.3).

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, Response};
use http_body::Body;
use shoal_policy::cache::directives::Wishes;
use shoal_policy::cache::key::url_of;
use shoal_policy::cache::sources::Hop;
use shoal_policy::cache::status::{CacheStatus, Forwarded};
use shoal_policy::cache::storage::{Exchange, Storage, Stored, judge_storage};

use super::content_length;
use super::origin_answer::add_date;
use crate::body::{CacheBody, OriginBody};
use crate::change::Sent;
use crate::clock::now_ms;
use crate::fill::{FillHead, FillReader, Joined};
use crate::lookup::{Choice, Probe, Signs, Sought, wishes};
use crate::object::UNCOPIED;
use crate::respond::{Asked, from_fill};
use crate::seam::{CacheRequest, UntilClose};
use crate::task::{Asker, FillTask, TaskSeed};
use crate::worker::WorkerCache;

impl WorkerCache {
    /// On what terms the answer to an unsafe request may be kept for GETs; `None` = not at all, which is so of nearly all.
    /// Ask once what the request changed is forgotten.
    pub fn judge_shown(
        &self,
        request: &CacheRequest<'_>,
        sent: Sent,
        answer: &Response<()>,
    ) -> Option<Shown> {
        // Somebody else changed it at the same time.
        let changed_ms = sent.changed_ms?;
        if answer.extensions().get::<UntilClose>().is_some() {
            return None;
        }
        let signs = Signs::read(&request.head.headers);
        let wishes = wishes(request.rule, signs, &request.head.headers);
        let (key, text) = self.key_and_text(request)?;
        let exchange = Exchange {
            method: &request.head.method,
            request: &request.head.headers,
            url: url_of(&text),
            wishes: Wishes { no_store: wishes.no_store, ..Wishes::default() },
            status: answer.status(),
            response: answer.headers(),
            request_ms: sent.request_ms,
            // Later than it came, and later than the change, of which every node knows by now: none takes it for older.
            response_ms: now_ms() + 1,
            rule: request.rule,
        };
        let Storage::Store(stored) = judge_storage(&exchange) else { return None };
        let most_bytes = self.cache.most_bytes(request.rule);
        if content_length(answer.headers()).is_some_and(|length| length > most_bytes) {
            return None;
        }
        let (method, fields) = (&request.head.method, &request.head.headers);
        let now_ms = now_ms();
        let trust = self.cache.trust(request.rule, now_ms);
        let sought = Sought {
            text: text.as_bytes(),
            alias: None,
            method,
            fields,
            signs,
            wishes: &wishes,
            trust,
            now_ms,
        };
        let probe = Probe::new(key, &sought, Choice::Nothing);
        Some(Shown { stored, sent, changed_ms, probe })
    }

    /// Keeps the answer while it goes downstream, whole, whatever the request says of conditions and ranges.
    pub fn keep_shown(
        self: &Rc<Self>,
        request: &CacheRequest<'_>,
        shown: Shown,
        mut response: Response<OriginBody>,
    ) -> Response<CacheBody> {
        let Shown { stored, sent, changed_ms, probe } = shown;
        let fill = self.cache.new_fill(probe.key, &probe.text, Hop::Ingress);
        fill.ask(sent.fill_seq, sent.request_ms);
        let Joined::New(reader) = self.cache.flights.begin_alone(fill) else {
            return response.map(CacheBody::origin);
        };
        let seed = TaskSeed {
            head: request.head,
            route: request.route,
            rule: request.rule,
            probe: &probe,
            asker: Asker::Downstream,
        };
        let task = seed.task(self.cache.flights.landing(reader.fill()), None);
        // From here on, whoever changes it spoils this fill; before, somebody may have.
        if self.cache.last_change_ms(probe.key) != changed_ms {
            task.fill().spoil();
        }
        add_date(response.headers_mut(), now_ms());
        let length = response.body().size_hint().exact().or_else(|| content_length(response.headers()));
        let owners = self.cache.placement.owners(probe.key);
        let head = self.origin_head(&task, stored, &response, length, None, owners);
        let most_bytes = self.cache.most_bytes(request.rule);
        let head = task.fill().begin(head, most_bytes, most_bytes);
        self.carry(task, head.clone(), response.into_body());
        self.answer_post(&head, reader)
    }

    fn carry(self: &Rc<Self>, mut task: FillTask, head: Arc<FillHead>, body: OriginBody) {
        let worker = self.clone();
        self.running.set(self.running.get() + 1);
        tokio::task::spawn_local(async move {
            if worker.stream_from_origin(&task, &head, body, 0).await {
                worker.finish(&mut task, &head, UNCOPIED);
            }
            worker.running.set(worker.running.get() - 1);
        });
    }

    /// Whole, whatever the request says of conditions and ranges: those are about GET.
    fn answer_post(&self, head: &FillHead, reader: FillReader) -> Response<CacheBody> {
        let status = CacheStatus {
            forwarded_status: Some(head.status.as_u16()),
            stored: true,
            ..CacheStatus::forwarded(&self.cache.settings.name, Forwarded::Method)
        };
        let asked = Asked { method: &http::Method::POST, fields: &HeaderMap::new() };
        from_fill(head, reader, true, asked, &status, now_ms())
    }
}

/// What may be kept of the answer to a POST, and on what terms.
pub struct Shown {
    stored: Stored,
    sent: Sent,
    changed_ms: u64,
    probe: Probe,
}
