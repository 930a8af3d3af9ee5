//! Routes, fallback and enrichments together: protocol notes, routing §1 and §4.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which the relaxation for test functions misses"
)]

mod common;

use common::{Message, program_for};
use nave_routing::{
    Decision, EndpointName, Enrichment, MAX_ENDPOINTS, MAX_ENRICHED_MESSAGE_BYTES, MAX_ENRICHMENTS, Outcome, Program,
    Route, RouteName, RouteTable, Source, TableError, TableParts, TwinText, Verdict,
};

fn route(name: &str, condition: &str, endpoint: &str) -> (Route, Program) {
    route_of(Source::DeviceMessages, name, condition, endpoint)
}

fn route_of(source: Source, name: &str, condition: &str, endpoint: &str) -> (Route, Program) {
    let route = Route {
        name: RouteName::parse(name).unwrap(),
        source,
        condition: condition.into(),
        endpoint: EndpointName::parse(endpoint).unwrap(),
        enabled: true,
    };
    (route, program_for(condition, source))
}

fn disabled((route, program): (Route, Program)) -> (Route, Program) {
    (Route { enabled: false, ..route }, program)
}

fn parts(routes: Vec<(Route, Program)>) -> TableParts {
    TableParts { routes, ..TableParts::new("hub1") }
}

fn table(routes: Vec<(Route, Program)>) -> RouteTable {
    RouteTable::new(parts(routes)).unwrap()
}

fn names(decision: &Decision) -> Vec<&str> {
    decision.endpoints.iter().map(EndpointName::as_str).collect()
}

fn decide(table: &RouteTable, message: &Message) -> (Outcome, Vec<String>) {
    let decision = table.decide(&message.view());
    let observed = table.decide_observed(&message.view(), |_, _| {});
    assert_eq!(decision, observed);
    (decision.outcome, names(&decision).into_iter().map(str::to_owned).collect())
}

fn to(outcome: Outcome, endpoints: &[&str]) -> (Outcome, Vec<String>) {
    (outcome, endpoints.iter().map(|&name| name.to_owned()).collect())
}

#[test]
fn without_routes_everything_goes_to_events() {
    let closed = TableParts { fallback: None, ..TableParts::new("hub1") };
    for table in [RouteTable::default_for("hub1"), table(vec![]), RouteTable::new(closed).unwrap()] {
        assert_eq!(decide(&table, &Message::json("")), to(Outcome::Fallback, &["events"]));
        for source in Source::ALL {
            assert_eq!(table.listens(source), source == Source::DeviceMessages);
            assert!(!table.needs_twin(source) && !table.needs_body(source));
        }
        let event = table.decide(&Message::json("").view_from(Source::TwinChangeEvents));
        assert_eq!((event.outcome, names(&event)), (Outcome::Orphaned, vec![]));
    }
}

#[test]
fn the_default_decision_is_shared() {
    let table = RouteTable::default_for("hub1");
    let message = Message::json("");
    let (first, second) = (table.decide(&message.view()), table.decide(&message.view()));
    assert!(std::sync::Arc::ptr_eq(&first.endpoints, &second.endpoints));
    assert_eq!((first.enrichments.capacity(), first.dropped.capacity()), (0, 0));
}

#[test]
fn routes_are_independent_and_each_endpoint_gets_a_message_once() {
    let table = table(vec![
        route("a", "level = 'x'", "hot"),
        route("b", "level = 'x' OR level = 'y'", "hot"),
        route("c", "other = 'z'", "cold"),
        disabled(route("d", "true", "off")),
    ]);
    let message = Message::json("").with("level", "x").with("other", "z");
    assert_eq!(decide(&table, &message), to(Outcome::Matched, &["hot", "cold"]));
    assert_eq!(decide(&table, &Message::json("").with("level", "y")), to(Outcome::Matched, &["hot"]));
    assert_eq!(decide(&table, &Message::json("").with("level", "w")), to(Outcome::Fallback, &["events"]));
    assert_eq!(decide(&table, &Message::json("")), to(Outcome::Fallback, &["events"]));
}

#[test]
fn events_gets_matched_messages_only_from_a_route() {
    let only_hot = table(vec![route("a", "true", "hot")]);
    assert_eq!(decide(&only_hot, &Message::json("")), to(Outcome::Matched, &["hot"]));
    let both = table(vec![route("a", "true", "hot"), route("b", "true", "Events")]);
    let (outcome, mut endpoints) = decide(&both, &Message::json(""));
    endpoints.sort();
    assert_eq!((outcome, endpoints), to(Outcome::Matched, &["events", "hot"]));
}

#[test]
fn the_fallback_route_can_be_moved_and_disabled() {
    let routes = || vec![route("a", "level = 'x'", "hot")];
    let moved = TableParts { fallback: Some(EndpointName::parse("rest").unwrap()), ..parts(routes()) };
    assert_eq!(decide(&RouteTable::new(moved).unwrap(), &Message::json("")), to(Outcome::Fallback, &["rest"]));
    let closed = RouteTable::new(TableParts { fallback: None, ..parts(routes()) }).unwrap();
    assert_eq!(decide(&closed, &Message::json("")), to(Outcome::Orphaned, &[]));
    assert!(closed.listens(Source::DeviceMessages));
    let deaf =
        RouteTable::new(TableParts { fallback: None, ..parts(vec![disabled(route("a", "true", "hot"))]) }).unwrap();
    assert!(!deaf.listens(Source::DeviceMessages));
}

#[test]
fn events_are_delivered_only_by_a_route_of_their_source() {
    let condition = "$body.properties.desired.x > 10 AND opType = 'updateTwin'";
    let table = table(vec![route_of(Source::TwinChangeEvents, "t", condition, "events")]);
    let event =
        |x| Message::json(&format!(r#"{{"properties":{{"desired":{{"x":{x}}}}}}}"#)).with("opType", "updateTwin");
    let decision = table.decide(&event(11).view_from(Source::TwinChangeEvents));
    assert_eq!((decision.outcome, names(&decision)), (Outcome::Matched, vec!["events"]));
    let decision = table.decide(&event(10).view_from(Source::TwinChangeEvents));
    assert_eq!((decision.outcome, names(&decision)), (Outcome::Orphaned, vec![]));
    assert!(table.listens(Source::TwinChangeEvents) && table.needs_body(Source::TwinChangeEvents));
    assert!(!table.listens(Source::DeviceLifecycleEvents) && !table.needs_body(Source::DeviceMessages));
    // The route of another source does not count as a match for telemetry.
    assert_eq!(decide(&table, &event(11)), to(Outcome::Fallback, &["events"]));
}

#[test]
fn observers_hear_every_enabled_route() {
    let table = table(vec![
        route("yes", "true", "hot"),
        route("again", "true", "hot"),
        route("no", "false", "hot"),
        route("unknown", "missing = 'x'", "hot"),
        disabled(route("off", "true", "hot")),
    ]);
    let mut heard = Vec::new();
    let message = Message::json("");
    table.decide_observed(&message.view(), |route, verdict| heard.push((route.name.to_string(), verdict)));
    let expected =
        [("yes", Verdict::True), ("again", Verdict::True), ("no", Verdict::False), ("unknown", Verdict::Undefined)];
    assert_eq!(heard, expected.map(|(name, verdict)| (name.to_owned(), verdict)));
}

fn enrichment(key: &str, value: &str, endpoints: &[&str]) -> Enrichment {
    Enrichment::parse(key, value, endpoints).unwrap()
}

fn added(decision: &Decision, endpoint: &str) -> Vec<(String, String)> {
    let place = names(decision).iter().position(|&name| name == endpoint).unwrap();
    decision.enrichments_for(place).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn enrichments_are_added_for_their_endpoints() {
    let enrichments = vec![
        enrichment("static", "some text", &["hot"]),
        enrichment("hub", "$iothubname", &["hot", "cold"]),
        enrichment("loc", "$twin.tags.location", &["cold"]),
        enrichment("object", "$twin.properties.desired.o", &["cold"]),
        enrichment("number", "$twin.properties.reported.n", &["cold"]),
        enrichment("gone", "$twin.tags.gone", &["cold"]),
        enrichment("unused", "x", &["elsewhere"]),
        enrichment("Mine", "hub", &["hot", "cold"]),
    ];
    let routes = vec![route("a", "true", "hot"), route("b", "level = 'x'", "cold")];
    let table = RouteTable::new(TableParts { enrichments, ..parts(routes) }).unwrap();
    assert!(table.needs_twin(Source::DeviceMessages));
    assert!(!table.needs_twin(Source::TwinChangeEvents));
    let twin = TwinText {
        tags: Some(r#"{"location":"Köln"}"#),
        desired: Some(r#"{"o":{"b":[1,"x"],"a":null}}"#),
        reported: Some(r#"{"n":1.50}"#),
    };
    let message = Message { twin, ..Message::json("") }.with("level", "x").with("mine", "device");
    let decision = table.decide(&message.view());
    assert_eq!(added(&decision, "hot"), pairs(&[("static", "some text"), ("hub", "hub1")]));
    assert_eq!(
        added(&decision, "cold"),
        pairs(&[
            ("hub", "hub1"),
            ("loc", "Köln"),
            ("object", r#"{"b":[1,"x"],"a":null}"#),
            ("number", "1.5"),
            ("gone", "$twin.tags.gone"),
        ])
    );
    let without_twin =
        table.decide(&nave_routing::MessageView::new(Source::DeviceMessages, b"").with_application(&[("level", "x")]));
    assert!(added(&without_twin, "cold").contains(&("loc".into(), "$twin.tags.location".into())));
    let only_hot = table.decide(&nave_routing::MessageView::new(Source::DeviceMessages, b""));
    assert_eq!(added(&only_hot, "hot"), pairs(&[("static", "some text"), ("hub", "hub1"), ("Mine", "hub")]));
}

#[test]
fn the_fallback_route_is_enriched_and_digital_twin_changes_are_not() {
    let routes = vec![route_of(Source::DigitalTwinChangeEvents, "d", "true", "events")];
    let enrichments = vec![enrichment("loc", "$twin.tags.location", &["events"])];
    let table = RouteTable::new(TableParts { enrichments, ..parts(routes) }).unwrap();
    let decision = table.decide(&Message::json("").view());
    assert_eq!(added(&decision, "events"), pairs(&[("loc", "$twin.tags.location")]));
    let decision = table.decide(&Message::json("").view_from(Source::DigitalTwinChangeEvents));
    assert_eq!(added(&decision, "events"), []);
    assert!(table.needs_twin(Source::DeviceMessages) && !table.needs_twin(Source::DigitalTwinChangeEvents));
}

#[test]
fn an_enriched_message_that_is_too_large_is_dropped_for_that_endpoint() {
    let enrichments = vec![enrichment("k", "12345", &["hot"])];
    let routes = vec![route("a", "true", "hot"), route("b", "true", "cold")];
    let table = RouteTable::new(TableParts { enrichments, ..parts(routes) }).unwrap();
    let decide = |bytes| {
        let body = vec![0; bytes];
        table.decide(&nave_routing::MessageView::new(Source::DeviceMessages, &body))
    };
    let fits = decide(MAX_ENRICHED_MESSAGE_BYTES - 6);
    assert_eq!((names(&fits), fits.dropped.len()), (vec!["hot", "cold"], 0));
    let large = decide(MAX_ENRICHED_MESSAGE_BYTES - 5);
    assert_eq!((names(&large), &large.dropped[..]), (vec!["cold"], &[EndpointName::parse("hot").unwrap()][..]));
    assert!(large.enrichments.is_empty());
}

#[test]
fn tables_that_break_a_rule_are_refused() {
    let refused = |parts| RouteTable::new(parts).unwrap_err();
    let twice = parts(vec![route("a", "true", "x"), route("A", "true", "y")]);
    assert_eq!(refused(twice), TableError::DuplicateRoute(RouteName::parse("A").unwrap()));
    let many = |count: usize| parts((0..count).map(|n| route(&format!("r{n}"), "true", &format!("e{n}"))).collect());
    // The fallback route's endpoint is one of them.
    assert!(RouteTable::new(many(MAX_ENDPOINTS - 1)).is_ok());
    assert_eq!(refused(many(MAX_ENDPOINTS)), TableError::TooManyEndpoints);
    let enriched = |enrichments| TableParts { enrichments, ..TableParts::new("hub1") };
    let many = (0..=MAX_ENRICHMENTS).map(|n| enrichment(&format!("k{n}"), "x", &["events"])).collect();
    assert_eq!(refused(enriched(many)), TableError::TooManyEnrichments);
    let twice = vec![enrichment("k", "x", &["hot", "events"]), enrichment("K", "y", &["events"])];
    assert!(
        matches!(refused(enriched(twice)), TableError::DuplicateEnrichment { endpoint, .. } if endpoint.is_events())
    );
    let apart = vec![enrichment("k", "x", &["hot", "hot"]), enrichment("k", "y", &["events"])];
    assert!(RouteTable::new(enriched(apart)).is_ok());
}
