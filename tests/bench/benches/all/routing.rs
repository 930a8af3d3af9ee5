//! The decision for one message, with the default table, 10 routes and 100.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use nave_routing::{
    ComparisonOperator, EndpointName, MessageView, Node, Outcome, PROGRAM_VERSION, Program, ProgramParts, Route,
    RouteName, RouteTable, Source, Span, Step, SystemProperties, TableParts,
};

/// 256 bytes, as the load tool sends.
fn body() -> Vec<u8> {
    let mut body =
        br#"{"temperature":31.5,"humidity":40,"state":"running","alarms":[],"position":{"x":1.5,"y":-2.25},"text":""#
            .to_vec();
    body.resize(254, b'x');
    body.extend_from_slice(b"\"}");
    body
}

pub(crate) fn all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("routed message, 256 B");
    group.throughput(Throughput::Elements(1));
    for count in [0, 10, 100] {
        let table = table(count);
        let body = body();
        let application = vec![("level".to_owned(), "storage".to_owned()), ("line".to_owned(), "7".to_owned())];
        group.bench_function(BenchmarkId::new("routes", count), |bencher| {
            bencher.iter(|| {
                let view = MessageView::new(Source::DeviceMessages, black_box(&body))
                    .with_system(SystemProperties {
                        content_type: Some("application/json"),
                        content_encoding: Some("utf-8"),
                        connection_device_id: Some("line-7-sensor-000123"),
                        ..SystemProperties::default()
                    })
                    .with_application(&application);
                let decision = table.decide(&view);
                assert_ne!(decision.outcome, Outcome::Orphaned);
                decision
            });
        });
    }
}

/// Routes of which one in ten matches; the others fail at the property or at the body.
fn table(count: u32) -> RouteTable {
    let mut parts = TableParts::new("hub1");
    parts.routes = (0..count)
        .map(|number| {
            let line = if number % 2 == 0 { "7" } else { "8" };
            let threshold = if number % 10 == 0 { 30.0 } else { 32.0 };
            let route = Route {
                name: RouteName::parse(&format!("route-{number}")).unwrap(),
                source: Source::DeviceMessages,
                condition: format!("line = '{line}' AND $body.temperature > {threshold}"),
                endpoint: EndpointName::events(),
                enabled: true,
            };
            (route, program(line, threshold))
        })
        .collect();
    RouteTable::new(parts).unwrap()
}

fn program(line: &str, threshold: f64) -> Program {
    let nodes = vec![
        Node::ApplicationProperty(vec!["line".to_owned()]),
        Node::Text(line.to_owned()),
        Node::Comparison { operator: ComparisonOperator::Equal, left: 0, right: 1 },
        Node::Body(vec![Step::Member("temperature".to_owned())]),
        Node::Number(threshold),
        Node::Comparison { operator: ComparisonOperator::Greater, left: 3, right: 4 },
        Node::All(vec![2, 5]),
    ];
    let parts = ProgramParts {
        version: PROGRAM_VERSION,
        spans: nodes.iter().map(|_| Span { start: 0, end: 1 }).collect(),
        root: 6,
        nodes,
        needs_body: true,
        needs_twin: false,
    };
    parts.validate().unwrap()
}
