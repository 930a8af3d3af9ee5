//! What a hub and the provisioning service count.

use std::time::Duration;

use nave_metrics::{Collect, Counter, Family, Histogram, Page};

use crate::c2d::DeviceBoundMetrics;
use crate::error::HubError;
use crate::hub::Hub;
use crate::platform::Platform;
use crate::provisioning::{OWNER, Operation, Provisioning};

static CONNECTED: Family = Family::gauge("nave_devices_connected", "Devices and modules that are connected.");
static CONNECTS: Family = Family::counter("nave_device_connects_total", "Connects of devices by outcome.");
static MESSAGES: Family = Family::counter("nave_messages_total", "Device-to-cloud messages by outcome.");
static MESSAGE_BYTES: Family =
    Family::counter("nave_message_bytes_total", "Bytes of the bodies of messages that were taken.");
static ACKNOWLEDGEMENTS: Family =
    Family::counter("nave_acknowledgements_total", "Messages that were acknowledged to their device (QoS 1).");
static TWINS: Family = Family::counter("nave_twin_operations_total", "Twin operations by kind and outcome.");
static METHODS: Family = Family::counter("nave_methods_total", "Direct methods by outcome.");
static METHOD_SECONDS: Family = Family::histogram(
    "nave_method_seconds",
    "Time of direct methods from the call to the answer, that of the device included.",
);
static REGISTRATIONS: Family =
    Family::counter("nave_registrations_total", "Registrations with the provisioning service by outcome.");
static POLICY_DECISIONS: Family = Family::counter(
    "nave_policy_decisions_total",
    "Decisions of custom allocation policies by policy, version and outcome.",
);
static POLICY_FAILURES: Family = Family::counter(
    "nave_policy_failures_total",
    "Failed decisions of custom allocation policies by policy, version and reason.",
);
static AUTHENTICATION_FAILURES: Family = Family::counter(
    "nave_authentication_failures_total",
    "Connects and requests that were refused because of who sent them.",
);

static DAMAGED: Family = Family::counter(
    "nave_damaged_records_total",
    "Records of the store that could not be read when the hub started, and were skipped.",
);

/// How often something ended how.
#[derive(Debug, Default)]
pub struct Outcomes {
    ok: Counter,
    refused: Counter,
    failed: Counter,
}

impl Outcomes {
    /// Counts an outcome: errors of the caller are refusals, those of the hub failures.
    pub fn count<T>(&self, outcome: &Result<T, HubError>) {
        self.count_many(outcome, 1);
    }

    pub(crate) fn count_many<T>(&self, outcome: &Result<T, HubError>, count: u64) {
        let counter = match outcome {
            Ok(_) => &self.ok,
            Err(error) if error.is_internal() => &self.failed,
            Err(_) => &self.refused,
        };
        counter.add(count);
    }

    fn collect(&self, family: &'static Family, labels: &[(&str, &str)], page: &mut Page) {
        for (outcome, counter) in [("ok", &self.ok), ("refused", &self.refused), ("failed", &self.failed)] {
            let labels: Vec<_> = labels.iter().copied().chain([("outcome", outcome)]).collect();
            page.value(family, &labels, counter.get());
        }
    }
}

/// What one hub counts.
#[derive(Debug)]
pub struct HubMetrics {
    /// Connects of devices, with their credentials.
    pub connects: Outcomes,
    /// Messages that were acknowledged.
    pub acknowledgements: Counter,
    pub(crate) messages: Outcomes,
    pub(crate) message_bytes: Counter,
    pub(crate) twin_reads: Outcomes,
    pub(crate) twin_updates: Outcomes,
    pub(crate) device_twin_reads: Outcomes,
    pub(crate) twin_reports: Outcomes,
    pub(crate) device_bound: DeviceBoundMetrics,
    pub(crate) damaged_records: Counter,
    methods: Outcomes,
    method_seconds: Histogram,
}

impl Default for HubMetrics {
    fn default() -> Self {
        Self {
            connects: Outcomes::default(),
            acknowledgements: Counter::new(),
            messages: Outcomes::default(),
            message_bytes: Counter::new(),
            twin_reads: Outcomes::default(),
            twin_updates: Outcomes::default(),
            device_twin_reads: Outcomes::default(),
            twin_reports: Outcomes::default(),
            device_bound: DeviceBoundMetrics::default(),
            damaged_records: Counter::new(),
            methods: Outcomes::default(),
            method_seconds: Histogram::of_seconds(),
        }
    }
}

impl HubMetrics {
    /// Records of the store that were skipped when the hub started, because they could not be read.
    pub fn damaged_records(&self) -> u64 {
        self.damaged_records.get()
    }

    pub(crate) fn method<T>(&self, outcome: &Result<T, HubError>, time: Duration) {
        self.methods.count(outcome);
        self.method_seconds.observe(time);
    }
}

impl Collect for Hub {
    fn collect(&self, page: &mut Page) {
        let (metrics, hub) = (self.metrics(), self.id().as_str());
        let label = [("hub", hub)];
        page.value(&CONNECTED, &label, self.connected());
        metrics.connects.collect(&CONNECTS, &label, page);
        metrics.messages.collect(&MESSAGES, &label, page);
        page.value(&MESSAGE_BYTES, &label, metrics.message_bytes.get());
        page.value(&ACKNOWLEDGEMENTS, &label, metrics.acknowledgements.get());
        for (operation, outcomes) in [
            ("read", &metrics.twin_reads),
            ("update", &metrics.twin_updates),
            ("device_read", &metrics.device_twin_reads),
            ("report", &metrics.twin_reports),
        ] {
            outcomes.collect(&TWINS, &[("hub", hub), ("operation", operation)], page);
        }
        metrics.methods.collect(&METHODS, &label, page);
        page.histogram(&METHOD_SECONDS, &label, &metrics.method_seconds);
        self.collect_device_bound(page);
        page.value(&DAMAGED, &label, metrics.damaged_records.get());
        self.throttle.collect(hub, page);
    }
}

/// Registrations by what became of them.
#[derive(Debug, Default)]
pub(crate) struct ProvisioningMetrics {
    assigned: Counter,
    assigning: Counter,
    failed: Counter,
    disabled: Counter,
    refused: Counter,
    throttled: Counter,
    error: Counter,
}

impl ProvisioningMetrics {
    pub(crate) fn count(&self, outcome: &Result<Operation, HubError>) {
        use nave_model::RegistrationStatus as Status;
        let counter = match outcome {
            Ok(operation) => match operation.state.status {
                Status::Assigned => &self.assigned,
                Status::Assigning => &self.assigning,
                Status::Failed => &self.failed,
                Status::Disabled => &self.disabled,
            },
            Err(error) if error.is_internal() => &self.error,
            Err(error) if error.code.status() == 429 => &self.throttled,
            Err(_) => &self.refused,
        };
        counter.increment();
    }
}

impl Collect for Provisioning {
    fn collect(&self, page: &mut Page) {
        let metrics = self.metrics();
        for (outcome, counter) in [
            ("assigned", &metrics.assigned),
            ("assigning", &metrics.assigning),
            ("failed", &metrics.failed),
            ("disabled", &metrics.disabled),
            ("refused", &metrics.refused),
            ("throttled", &metrics.throttled),
            ("error", &metrics.error),
        ] {
            page.value(&REGISTRATIONS, &[("outcome", outcome)], counter.get());
        }
        self.throttle.collect(OWNER, page);
        page.declare(&POLICY_DECISIONS);
        page.declare(&POLICY_FAILURES);
        let Some(policies) = self.allocation_policies() else { return };
        for (name, version, counters) in policies.all_counters() {
            let label = [("policy", name.as_str()), ("version", version.as_str())];
            for (outcome, count) in [
                ("assigned", counters.assigned),
                ("delegated", counters.delegated),
                ("refused", counters.refused),
                ("postponed", counters.postponed),
                ("overflowed", counters.overflowed),
                ("failed", counters.failed()),
            ] {
                let labels = [label[0], label[1], ("outcome", outcome)];
                page.value(&POLICY_DECISIONS, &labels, count);
            }
            for (reason, count) in &counters.errors {
                page.value(&POLICY_FAILURES, &[label[0], label[1], ("reason", reason)], count);
            }
        }
    }
}

/// What concerns no hub in particular: whoever is refused may have named none.
#[derive(Debug, Default)]
pub struct PlatformMetrics {
    /// Refused CONNECTs.
    pub mqtt_authentication_failures: Counter,
    /// Requests that were answered with 401.
    pub https_authentication_failures: Counter,
}

impl Collect for Platform {
    fn collect(&self, page: &mut Page) {
        for hub in self.hubs() {
            hub.collect(page);
        }
        self.provisioning().collect(page);
        let metrics = self.metrics();
        for (protocol, counter) in
            [("mqtt", &metrics.mqtt_authentication_failures), ("https", &metrics.https_authentication_failures)]
        {
            page.value(&AUTHENTICATION_FAILURES, &[("protocol", protocol)], counter.get());
        }
    }
}
