//! From the bytes of a message to the routes that it matches, with 100 to 100,000 routes, beside three rivals in the same
//! run: JSON parsers alone (the floor), this project's interpreter for each route, and the crate `a-tree`, which matches
//! many boolean expressions, fed by `serde_json`.
//!
//! `cargo bench --manifest-path tests/bench/matching/Cargo.toml` (a part: `-- '1000 routes'`). `NAVE_BENCH_ROUTES=100,1000` chooses the
//! numbers of routes; `NAVE_BENCH_RIVALS=10000` is the largest for which the rivals run (a-tree takes a quarter of a minute
//! to take in 100,000 rules, and seconds for each hundred messages). Before it measures, it checks that all agree.

#![allow(clippy::disallowed_methods, reason = "benchmarks measure real time")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a benchmark that fails stops"
)]

#[path = "matching/workload.rs"]
mod workload;

use std::hint::black_box;
use std::time::Instant;

use a_tree::{ATree, AttributeDefinition, Event};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use nave_routing::{
    EndpointName, MessageView, Route, RouteName, RouteTable, Source, SystemProperties, TableParts, Verdict,
};
use serde_json::Value;
use workload::{ATTRIBUTES, Attribute, Kind, Rule};

/// Different messages, so that branches and caches are not learnt by heart.
const MESSAGES: usize = 10_000;

/// Messages for which the matchers are compared before they are measured.
const CHECKED: usize = 50;

/// Endpoints that the routes go to in turn.
const ENDPOINTS: usize = 8;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn all(criterion: &mut Criterion) {
    let messages = workload::messages(MESSAGES);
    floor(criterion, &messages);
    let counts = std::env::var("NAVE_BENCH_ROUTES").unwrap_or_else(|_| "100,1000,10000,100000".into());
    let rivals = number("NAVE_BENCH_RIVALS", 10_000);
    for count in counts.split(',').filter_map(|text| text.parse().ok()) {
        routes(criterion, &messages, count, count <= rivals);
    }
}

/// What it costs to parse a message at all.
fn floor(criterion: &mut Criterion, messages: &[String]) {
    let mut group = criterion.benchmark_group("parse only");
    let mut next = turns(messages);
    group.bench_function("sonic-rs", |bencher| {
        bencher.iter(|| sonic_rs::from_str::<sonic_rs::Value>(next()).unwrap());
    });
    let (mut text, mut buffers) = (Vec::new(), simd_json::Buffers::new(4096));
    let mut next = turns(messages);
    group.bench_function("simd-json tape", |bencher| {
        bencher.iter(|| {
            text.clear();
            text.extend_from_slice(next().as_bytes());
            black_box(simd_json::to_tape_with_buffers(&mut text, &mut buffers).unwrap());
        });
    });
    let mut next = turns(messages);
    group.bench_function("serde_json value", |bencher| {
        bencher.iter(|| serde_json::from_str::<Value>(next()).unwrap());
    });
}

fn turns<'m>(messages: &'m [String]) -> impl FnMut() -> &'m String {
    let mut all = messages.iter().cycle();
    move || all.next().unwrap()
}

fn view(message: &str) -> MessageView<'_> {
    MessageView::new(Source::DeviceMessages, message.as_bytes()).with_system(SystemProperties {
        content_type: Some("application/json"),
        content_encoding: Some("utf-8"),
        ..SystemProperties::default()
    })
}

fn routes(criterion: &mut Criterion, messages: &[String], count: usize, with_rivals: bool) {
    let rules = workload::rules(count);
    let start = Instant::now();
    let table = table(&rules);
    let built = start.elapsed();
    let changed = rules.first().map(|rule| {
        let start = Instant::now();
        let changed = table.with_route(route(count / 2), rule.program()).unwrap();
        (start.elapsed(), changed)
    });
    let matches = check(&table, messages);
    println!(
        "{count} routes: index built in {built:.1?}, {} bytes a route, {matches:.1} matches a message ({:.2} %), one route replaced in {:.2?}",
        table.index_bytes() / count.max(1),
        matches * 100.0 / count as f64,
        changed.as_ref().map(|(time, _)| *time).unwrap_or_default(),
    );

    let mut group = criterion.benchmark_group(format!("{count} routes"));
    let (mut next, mut found) = (turns(messages), Vec::new());
    group.bench_function(BenchmarkId::new("matcher", "every route"), |bencher| {
        bencher.iter(|| {
            table.matching(&view(next()), &mut found);
            black_box(found.len())
        });
    });
    let mut next = turns(messages);
    group.bench_function(BenchmarkId::new("matcher", "decision"), |bencher| {
        bencher.iter(|| table.decide(&view(next())));
    });
    if !with_rivals {
        return;
    }
    let mut next = turns(messages);
    group.bench_function("interpreter for each route", |bencher| {
        bencher.iter(|| {
            table.decide_observed(&view(next()), |_, verdict| {
                black_box(verdict);
            })
        });
    });
    let start = Instant::now();
    let tree = tree(&rules);
    println!("{count} rules: a-tree built in {:.1?}", start.elapsed());
    check_tree(&tree, &table, messages);
    let mut next = turns(messages);
    group.bench_function("a-tree and serde_json", |bencher| {
        bencher.iter(|| {
            let event = event(&tree, next());
            black_box(tree.search(&event).unwrap().matches().len())
        });
    });
}

fn route(number: usize) -> Route {
    Route {
        name: RouteName::parse(&format!("route-{number}")).unwrap(),
        source: Source::DeviceMessages,
        condition: String::new(),
        endpoint: EndpointName::parse(&format!("endpoint-{}", number % ENDPOINTS)).unwrap(),
        enabled: true,
    }
}

fn table(rules: &[Rule]) -> RouteTable {
    let routes = rules.iter().enumerate().map(|(number, rule)| (route(number), rule.program())).collect();
    RouteTable::new(TableParts { routes, ..TableParts::new("hub1") }).unwrap()
}

/// The matcher finds what the interpreter finds; how many routes a message matches.
fn check(table: &RouteTable, messages: &[String]) -> f64 {
    let mut matches = 0;
    for message in messages.iter().take(CHECKED) {
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        table.decide_observed(&view(message), |route, verdict| {
            if verdict == Verdict::True {
                expected.push(route.name.clone());
            }
        });
        table.decide_with_matches(&view(message), |route| found.push(route.name.clone()));
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
        matches += found.len();
    }
    matches as f64 / CHECKED as f64
}

fn tree(rules: &[Rule]) -> ATree<u32> {
    let definitions: Vec<AttributeDefinition> = ATTRIBUTES
        .iter()
        .map(|attribute| match attribute.kind {
            Kind::Text => AttributeDefinition::string(attribute.name),
            Kind::Decimal(_) => AttributeDefinition::float(attribute.name),
            Kind::Integer => AttributeDefinition::integer(attribute.name),
            Kind::Flag => AttributeDefinition::boolean(attribute.name),
        })
        .collect();
    let mut tree = ATree::new(&definitions).unwrap();
    for (number, rule) in (0..).zip(rules) {
        tree.insert(&number, &rule.text()).unwrap();
    }
    tree
}

fn event(tree: &ATree<u32>, message: &str) -> Event {
    let message: Value = serde_json::from_str(message).unwrap();
    let at = |attribute: &Attribute| attribute.path.iter().try_fold(&message, |value, name| value.get(name)).unwrap();
    let mut event = tree.make_event();
    for attribute in ATTRIBUTES {
        let value = at(attribute);
        match attribute.kind {
            Kind::Text => event.with_string(attribute.name, value.as_str().unwrap()),
            Kind::Decimal(decimals) => {
                let scaled = value.as_f64().unwrap() * 10_f64.powi(i32::try_from(decimals).unwrap());
                event.with_float(attribute.name, scaled.round() as i64, decimals)
            }
            Kind::Integer => event.with_integer(attribute.name, value.as_i64().unwrap()),
            Kind::Flag => event.with_boolean(attribute.name, value.as_bool().unwrap()),
        }
        .unwrap();
    }
    event.build().unwrap()
}

fn check_tree(tree: &ATree<u32>, table: &RouteTable, messages: &[String]) {
    for message in messages.iter().take(CHECKED) {
        let event = event(tree, message);
        let mut theirs: Vec<u32> = tree.search(&event).unwrap().matches().iter().map(|rule| **rule).collect();
        let mut ours = Vec::new();
        table.matching(&view(message), &mut ours);
        theirs.sort_unstable();
        ours.sort_unstable();
        assert_eq!(ours, theirs);
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
