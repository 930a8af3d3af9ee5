//! The collector: one request for each batch of spans (OTLP over HTTP with Protocol Buffers).

use std::fmt;
use std::future::{Future, ready};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nave_env::{Gate, Moment};
use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use prost::Message as _;
use ureq::http::{HeaderName, HeaderValue};

use super::outlet::Counts;
use crate::config::TracesConfig;
use crate::failure::Failure;
use crate::https;

/// A batch that was not answered in this time has failed. Spans that end meanwhile wait.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Longest answer that is read; it is a few bytes.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// Longest file of headers, and most headers.
const MAX_HEADERS_BYTES: usize = 16 << 10;
const MAX_HEADERS: usize = 32;

/// Who takes the spans.
pub(super) struct Collector {
    agent: ureq::Agent,
    endpoint: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    resource: ResourceAttributesWithSchema,
    counts: Arc<Counts>,
    complaints: Gate,
    began: Instant,
}

impl Collector {
    pub(super) fn new(endpoint: &str, config: &TracesConfig, counts: Arc<Counts>) -> Result<Self, Failure> {
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", config.service_name.clone()),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("process.pid", i64::from(std::process::id())),
            ])
            .build();
        Ok(Self {
            agent: https::agent("traces.ca", config.ca.as_deref())?,
            endpoint: endpoint.to_owned(),
            headers: config.headers_file.as_deref().map(read_headers).transpose()?.unwrap_or_default(),
            resource: (&resource).into(),
            counts,
            complaints: Gate::default(),
            began: Instant::now(),
        })
    }

    /// Sends spans; the answer is how many of them the collector refused.
    fn send(&self, spans: Vec<SpanData>) -> Result<u64, Trouble> {
        let request =
            ExportTraceServiceRequest { resource_spans: group_spans_by_resource_and_scope(spans, &self.resource) };
        let mut post = self.agent.post(&self.endpoint).config().timeout_global(Some(TIME_LIMIT)).build();
        for (name, value) in &self.headers {
            post = post.header(name, value);
        }
        let mut answer = post
            .content_type("application/x-protobuf")
            .send(&request.encode_to_vec()[..])
            .map_err(|error| Trouble::Unreachable(error.to_string()))?;
        if !answer.status().is_success() {
            return Err(Trouble::Status(answer.status().as_u16()));
        }
        let mut body = Vec::new();
        let read = answer.body_mut().as_reader().take(MAX_ANSWER_BYTES).read_to_end(&mut body);
        read.map_err(|error| Trouble::Unreachable(error.to_string()))?;
        // Who answers in another form than was asked has refused nothing that could be known.
        let partial = ExportTraceServiceResponse::decode(&body[..]).ok().and_then(|answer| answer.partial_success);
        Ok(partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or_default()))
    }

    fn complain(&self, trouble: &Trouble) {
        if let Some(suppressed) = self.complaints.pass(Moment::from_start(self.began.elapsed())) {
            tracing::warn!(error = %trouble, suppressed, "traces are lost: the collector does not take them");
        }
    }
}

impl SpanExporter for Collector {
    /// Called on the thread of the batches, which may wait.
    fn export(&self, batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        let count = batch.len();
        let outcome = self.send(batch);
        self.counts.waiting.fetch_sub(count, Ordering::Relaxed);
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        ready(match outcome {
            Ok(refused) => {
                let refused = refused.min(count);
                self.counts.refused.add(refused);
                self.counts.exported.add(count - refused);
                Ok(())
            }
            Err(trouble) => {
                self.counts.failed.add(count);
                self.complain(&trouble);
                Err(OTelSdkError::InternalFailure(trouble.to_string()))
            }
        })
    }
}

/// Without the headers, which may hold a key.
impl fmt::Debug for Collector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Collector").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Why a batch is lost. The fault is the collector's, or of who configured it.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("it answered with status {0}")]
    Status(u16),
}

/// One `name: value` a line; blank lines and those that begin with `#` do not count. No error repeats a value.
fn read_headers(path: &Path) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
    let wrong = |why: &str| Failure::usage(format_args!("traces.headers_file, {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error.to_string()))?;
    if text.len() > MAX_HEADERS_BYTES {
        return Err(wrong("it is too long"));
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let headers = lines
        .map(|line| {
            let (name, value) = line.split_once(':').ok_or_else(|| wrong("a line is not `name: value`"))?;
            let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong("a name is no header's"))?;
            let mut value = HeaderValue::from_str(value.trim()).map_err(|_| wrong("a value is no header's"))?;
            value.set_sensitive(true);
            Ok((name, value))
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    if headers.len() > MAX_HEADERS {
        return Err(wrong("it has too many headers"));
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &str) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("headers");
        std::fs::write(&path, text).unwrap();
        read_headers(&path).map_err(|failure| failure.to_string())
    }

    #[test]
    fn headers_are_lines_and_errors_do_not_repeat_them() {
        let read = headers("# of the collector\nAuthorization: Bearer a:b\n\n x-tenant:7\n").unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].0.as_str(), read[0].1.to_str().unwrap()), ("authorization", "Bearer a:b"));
        assert!(read[0].1.is_sensitive());
        for wrong in ["Authorization c2VjcmV0", "a b: c2VjcmV0", "a: c2VjcmV0\u{7f}"] {
            let error = headers(wrong).unwrap_err();
            assert!(error.contains("traces.headers_file") && !error.contains("c2VjcmV0"), "{error}");
        }
    }
}
