//! What a downstream got.

use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use shoal_cache::CacheBody;

/// A whole answer.
#[derive(Debug)]
pub struct Got {
    pub status: StatusCode,
    pub fields: HeaderMap,
    /// `None` = it broke off.
    pub body: Option<String>,
    /// The proxy was told to go to the origin itself.
    pub is_direct: bool,
}

impl Got {
    pub fn field(&self, name: &str) -> String {
        let lines: Vec<_> = self.fields.get_all(name).iter().map(|line| line.to_str().unwrap()).collect();
        lines.join(", ")
    }

    pub fn cache_status(&self) -> String {
        self.field("cache-status")
    }

    pub fn is_hit(&self) -> bool {
        self.cache_status().rsplit(", ").next().unwrap().contains("; hit")
    }

    pub fn text(&self) -> &str {
        self.body.as_deref().expect("the body is whole")
    }
}

pub async fn collect(response: Response<CacheBody>) -> Got {
    let (head, body) = response.into_parts();
    let body = body.collect().await.ok().map(|body| String::from_utf8(body.to_bytes().to_vec()).unwrap());
    Got { status: head.status, fields: head.headers, body, is_direct: false }
}
