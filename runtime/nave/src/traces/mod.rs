//! Traces for an OpenTelemetry collector (OTLP over HTTP), off unless configured.
//!
//! The spans are those of [`nave_trace`]; [`sampling`] decides which traces there are, [`outlet`] keeps what waits within a
//! bound, [`collector`] sends it. All of it belongs to the process, as the subscriber of `tracing` does: spans have no other
//! way to get here.

mod collector;
mod outlet;
mod sampling;

use std::sync::{Arc, LazyLock};

use nave_metrics::{Collect, Family, Page};
use nave_trace::Parent;
use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::config::TracesConfig;
use crate::failure::Failure;
use collector::Collector;
use outlet::{Counts, Outlet};
use sampling::Sampling;

static SPANS: Family = Family::counter(
    "nave_trace_spans_total",
    "Spans of traces: exported; refused by the collector; failed because it could not be reached; dropped because too many waited.",
);

/// The way of spans out of this process.
static TRACES: LazyLock<Traces> = LazyLock::new(Traces::default);

#[derive(Default)]
struct Traces {
    sampling: Arc<Sampling>,
    outlet: Arc<Outlet>,
    counts: Arc<Counts>,
}

/// What takes the spans of [`nave_trace`] from the subscriber. It takes none until [`install`].
pub(crate) fn layer<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let traces = &*TRACES;
    // Which traces there are is decided by the filter, before a span is made; what the exporter calls itself is said when it
    // is configured.
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::AlwaysOn)
        .with_resource(Resource::builder_empty().build())
        .with_span_processor(outlet::Processor(Arc::clone(&traces.outlet)))
        .build();
    nave_trace::on_parent(adopt);
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("nave"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false)
        .with_filter(sampling::Filter(Arc::clone(&traces.sampling)))
}

/// A configuration that can be used.
pub(crate) struct Prepared {
    collector: Option<Collector>,
    ratio: f64,
}

/// Reads what `config` names; nothing changes.
pub(crate) fn prepare(config: &TracesConfig) -> Result<Prepared, Failure> {
    let counts = Arc::clone(&TRACES.counts);
    let collector = config.endpoint.as_deref().map(|endpoint| Collector::new(endpoint, config, counts)).transpose()?;
    Ok(Prepared { collector, ratio: config.sample_ratio })
}

/// Sends traces as `prepared` says from now on. What waited for the collector before is sent to that one.
pub(crate) fn install(prepared: Prepared) {
    let traces = &*TRACES;
    let ratio = prepared.collector.as_ref().map(|_| prepared.ratio);
    if ratio.is_none() {
        traces.sampling.set(None);
    }
    traces.outlet.replace(prepared.collector, &traces.counts);
    if ratio.is_some() {
        traces.sampling.set(ratio);
    }
}

/// Sends what waits, and no traces any more.
pub(crate) fn stop() {
    TRACES.sampling.set(None);
    TRACES.outlet.replace(None, &TRACES.counts);
}

/// What is counted.
pub(crate) fn metrics() -> Arc<dyn Collect> {
    Arc::clone(&TRACES.counts) as Arc<dyn Collect>
}

impl Collect for Counts {
    fn collect(&self, page: &mut Page) {
        for (outcome, count) in self.all() {
            page.value(&SPANS, &[("outcome", outcome)], count);
        }
    }
}

/// Makes a span that has just been made the child of a client's.
fn adopt(span: &tracing::Span, parent: &Parent) {
    let remote = SpanContext::new(
        TraceId::from(parent.trace_id),
        SpanId::from(parent.span_id),
        TraceFlags::new(parent.flags),
        true,
        TraceState::NONE,
    );
    // A span without this layer, in a process that exports none.
    let _ = span.set_parent(Context::new().with_remote_span_context(remote));
}
