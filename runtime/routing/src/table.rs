//! All routes of a hub, and the decision for a message.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use crate::endpoints::{EndpointSet, Endpoints};
use crate::enrichment::{Enrichment, EnrichmentValue};
use crate::evaluate::{Verdict, evaluate};
use crate::matcher::Matcher;
use crate::message::MessageView;
use crate::names::{EndpointName, EnrichmentKey, RouteName};
use crate::placed::{PlacedRoute, Routes, name_hash};
use crate::program::Program;
use crate::source::Source;

/// The most routes of a hub. The cloud service has 100; ours bounds the memory of a hub. A table with more is refused.
pub const MAX_ROUTES: usize = 100_000;

/// The most endpoints that the routes of a hub go to; the set of them is one machine word. A table with more is refused.
pub const MAX_ENDPOINTS: usize = 64;

/// The most enrichments of a hub (protocol notes: routing §4). A table with more is refused.
pub const MAX_ENRICHMENTS: usize = 10;

/// The most bytes of body and properties that an enriched message may have. A larger one is dropped for that endpoint
/// (protocol notes: routing §4).
pub const MAX_ENRICHED_MESSAGE_BYTES: usize = 256 * 1024;

/// A route as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its name, unique in the hub.
    pub name: RouteName,
    /// The messages that it looks at.
    pub source: Source,
    /// The condition as its author wrote it.
    pub condition: String,
    /// Where matching messages go.
    pub endpoint: EndpointName,
    /// A route that is not enabled matches nothing, but counts as defined.
    pub enabled: bool,
}

/// What a table is made of.
#[derive(Clone, Debug)]
pub struct TableParts {
    /// The short name of the hub, for `$iothubname`.
    pub hub_name: String,
    /// The routes with their compiled conditions.
    pub routes: Vec<(Route, Program)>,
    /// Where device messages go that no route matched; `None` when the fallback route is disabled.
    pub fallback: Option<EndpointName>,
    /// The enrichments.
    pub enrichments: Vec<Enrichment>,
}

impl TableParts {
    /// The routing of a new hub: no routes, no enrichments, the fallback route to `events`.
    #[must_use]
    pub fn new(hub_name: &str) -> Self {
        Self {
            hub_name: hub_name.to_owned(),
            routes: Vec::new(),
            fallback: Some(EndpointName::events()),
            enrichments: Vec::new(),
        }
    }
}

/// Why a table is refused. The hub's configuration is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// There are more than [`MAX_ROUTES`] routes.
    #[error("a hub has at most {MAX_ROUTES} routes")]
    TooManyRoutes,
    /// Two routes have one name, which ignores case.
    #[error("there is more than one route with the name `{0}`")]
    DuplicateRoute(RouteName),
    /// Routes and enrichments name more than [`MAX_ENDPOINTS`] endpoints.
    #[error("a hub has at most {MAX_ENDPOINTS} endpoints")]
    TooManyEndpoints,
    /// There are more than [`MAX_ENRICHMENTS`] enrichments.
    #[error("a hub has at most {MAX_ENRICHMENTS} message enrichments")]
    TooManyEnrichments,
    /// Two enrichments set one property, ignoring case, for one endpoint.
    #[error("there is more than one enrichment of `{key}` for the endpoint `{endpoint}`")]
    DuplicateEnrichment {
        /// The property.
        key: EnrichmentKey,
        /// The endpoint.
        endpoint: EndpointName,
    },
}

/// How a decision came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// At least one route matched.
    Matched,
    /// No route matched, or none is defined, and the fallback route took the message.
    Fallback,
    /// Nobody wants the message.
    Orphaned,
}

/// Where a message goes and what is added to it. It is stored with the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// How it came about.
    pub outcome: Outcome,
    /// The endpoints that get the message, each once.
    pub endpoints: Arc<[EndpointName]>,
    /// The properties to add, in the order of the hub's enrichments.
    pub enrichments: Vec<AppliedEnrichment>,
    /// Endpoints that a route chose, but that do not get the message, because the enriched message would be larger than
    /// [`MAX_ENRICHED_MESSAGE_BYTES`].
    pub dropped: Vec<EndpointName>,
}

/// A property that is added to a message for some of its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedEnrichment {
    /// The name of the property.
    pub key: EnrichmentKey,
    /// Its value.
    pub value: Arc<str>,
    /// The places in [`Decision::endpoints`] of the endpoints that get it, rising; at least one.
    pub endpoints: Vec<u8>,
}

impl Decision {
    /// The properties to add for the endpoint at a place in [`Self::endpoints`].
    pub fn enrichments_for(&self, endpoint: usize) -> impl Iterator<Item = (&str, &str)> {
        self.enrichments
            .iter()
            .filter(move |applied| applied.endpoints.iter().any(|&place| usize::from(place) == endpoint))
            .map(|applied| (applied.key.as_str(), &*applied.value))
    }
}

/// All routes, the fallback route and the enrichments of one hub, ready to decide. It does not change: the hub replaces
/// it as a whole, so a message meets either the old routes or the new ones.
pub struct RouteTable {
    routes: Routes,
    sources: [SourceRoutes; Source::ALL.len()],
    /// The fallback route of a hub with routes.
    configured_fallback: Option<EndpointName>,
    endpoints: Vec<EndpointName>,
    /// For each endpoint, the list that holds it alone: shared by all decisions for one endpoint.
    single: Vec<Arc<[EndpointName]>>,
    nobody: Arc<[EndpointName]>,
    enrichments: Arc<[CompiledEnrichment]>,
    hub_name: Arc<str>,
}

#[derive(Clone, Default)]
struct SourceRoutes {
    /// The enabled routes.
    matcher: Matcher,
    count: usize,
    fallback: Option<u8>,
    needs_body: bool,
    needs_twin: bool,
}

struct CompiledEnrichment {
    key: EnrichmentKey,
    value: EnrichmentValue,
    static_value: Arc<str>,
    endpoints: EndpointSet,
}

impl RouteTable {
    /// Checks the parts and makes a table of them.
    ///
    /// # Errors
    /// The parts break a rule of [`TableError`].
    pub fn new(parts: TableParts) -> Result<Self, TableError> {
        if parts.routes.len() > MAX_ROUTES {
            return Err(TableError::TooManyRoutes);
        }
        if parts.enrichments.len() > MAX_ENRICHMENTS {
            return Err(TableError::TooManyEnrichments);
        }
        let mut names = HashSet::with_capacity(parts.routes.len());
        if let Some((route, _)) =
            parts.routes.iter().find(|(route, _)| !names.insert(route.name.as_str().to_ascii_lowercase()))
        {
            return Err(TableError::DuplicateRoute(route.name.clone()));
        }

        let mut endpoints = Endpoints::default();
        if let Some(fallback) = fallback_of(parts.fallback.as_ref(), parts.routes.is_empty()) {
            endpoints.place(&fallback)?;
        }
        let routes = parts
            .routes
            .into_iter()
            .map(|(route, program)| PlacedRoute::new(route, program, &mut endpoints))
            .collect::<Result<Routes, _>>()?;
        let hub_name: Arc<str> = parts.hub_name.into();
        let enrichments = compile_enrichments(parts.enrichments, &mut endpoints, &hub_name)?.into();
        let mut table = Self {
            routes,
            sources: Default::default(),
            configured_fallback: parts.fallback,
            endpoints: Vec::new(),
            single: Vec::new(),
            nobody: Arc::from([]),
            enrichments,
            hub_name,
        };
        table.name_endpoints(endpoints);
        table.summarise();
        for (source, routes) in Source::ALL.into_iter().zip(&mut table.sources) {
            let enabled = table.routes.iter().filter(|(_, route)| route.enabled && route.source == source);
            let indexed = enabled.filter_map(|(number, route)| Some(route.indexed(u32::try_from(number).ok()?)));
            routes.matcher = Matcher::new(indexed.collect());
        }
        Ok(table)
    }

    /// This table with another route, in place of the one with the same name if there is one. It shares the index of the
    /// other routes, so at 100,000 routes it takes milliseconds; this table goes on deciding meanwhile.
    ///
    /// # Errors
    /// There would be too many routes or endpoints. Endpoints that no route goes to any more count until a table is made
    /// with [`Self::new`].
    pub fn with_route(&self, route: Route, program: Program) -> Result<Self, TableError> {
        let mut endpoints = Endpoints(self.endpoints.clone());
        let known = self.number(&route.name);
        if known.is_none() && self.routes.iter().count() >= MAX_ROUTES {
            return Err(TableError::TooManyRoutes);
        }
        let number = known.unwrap_or(self.routes.len());
        let placed = PlacedRoute::new(route, program, &mut endpoints)?;
        self.changed(number, Some(&placed), endpoints)
    }

    /// This table without a route. A name that no route has changes nothing. See [`Self::with_route`].
    ///
    /// # Errors
    /// The hub has no routes then, and all places for endpoints are taken, so that none is left for `events`.
    pub fn without_route(&self, name: &RouteName) -> Result<Self, TableError> {
        let number = self.number(name).unwrap_or(self.routes.len());
        let mut endpoints = Endpoints(self.endpoints.clone());
        if self.routes.iter().all(|(place, _)| place == number) {
            endpoints.place(&EndpointName::events())?;
        }
        self.changed(number, None, endpoints)
    }

    /// The number of the route with a name.
    fn number(&self, name: &RouteName) -> Option<usize> {
        let hash = name_hash(name);
        let is_named = |placed: &PlacedRoute| {
            placed.name_hash == hash && placed.compiled.route.name.as_str().eq_ignore_ascii_case(name.as_str())
        };
        self.routes.iter().find(|(_, placed)| is_named(placed)).map(|(number, _)| number)
    }

    fn changed(&self, number: usize, route: Option<&PlacedRoute>, endpoints: Endpoints) -> Result<Self, TableError> {
        let small = u32::try_from(number).map_err(|_| TableError::TooManyRoutes)?;
        let mut routes = self.routes.clone();
        let before = routes.set(number, route.cloned());
        let mut sources = self.sources.clone();
        for (source, routes) in Source::ALL.into_iter().zip(&mut sources) {
            let concerns = |route: &&PlacedRoute| route.enabled && route.source == source;
            let gone = before.as_ref().filter(concerns).map(|_| small);
            let new = route.filter(concerns).map(|route| route.indexed(small));
            if gone.is_some() || new.is_some() {
                routes.matcher = routes.matcher.with(gone.as_slice(), Vec::from_iter(new));
            }
        }
        let mut table = Self {
            routes,
            sources,
            configured_fallback: self.configured_fallback.clone(),
            endpoints: Vec::new(),
            single: self.single.clone(),
            nobody: Arc::clone(&self.nobody),
            enrichments: Arc::clone(&self.enrichments),
            hub_name: Arc::clone(&self.hub_name),
        };
        table.name_endpoints(endpoints);
        table.summarise();
        Ok(table)
    }

    /// The table of a new hub: everything that devices send goes to `events`.
    #[must_use]
    pub fn default_for(hub_name: &str) -> Self {
        let mut table = Self {
            routes: Routes::default(),
            sources: Default::default(),
            configured_fallback: Some(EndpointName::events()),
            endpoints: Vec::new(),
            single: Vec::new(),
            nobody: Arc::from([]),
            enrichments: Arc::from([]),
            hub_name: hub_name.into(),
        };
        table.name_endpoints(Endpoints(vec![EndpointName::events()]));
        table.summarise();
        table
    }

    /// Whether a message of this source can go anywhere. Where it cannot, the hub need not write the event at all.
    #[must_use]
    pub fn listens(&self, source: Source) -> bool {
        let source = self.of(source);
        source.count > 0 || source.fallback.is_some()
    }

    /// Whether a decision for this source may read the sender's twin.
    #[must_use]
    pub fn needs_twin(&self, source: Source) -> bool {
        self.of(source).needs_twin
    }

    /// Whether a decision for this source may read the body as JSON.
    #[must_use]
    pub fn needs_body(&self, source: Source) -> bool {
        self.of(source).needs_body
    }

    /// The routes, disabled ones included, in the order configured.
    pub fn routes(&self) -> impl Iterator<Item = (&Route, &Program)> {
        self.routes.iter().map(|(_, placed)| (&placed.compiled.route, &*placed.compiled.program))
    }

    /// Every endpoint that a route, the fallback route or an enrichment names or has named.
    #[must_use]
    pub fn endpoints(&self) -> &[EndpointName] {
        &self.endpoints
    }

    /// Decides where a message goes. Without routes for its source this is a look-up that allocates nothing; otherwise the
    /// matcher finds the endpoints without touching every route.
    #[must_use]
    pub fn decide(&self, message: &MessageView<'_>) -> Decision {
        let chosen = self.of(message.source()).matcher.endpoints(message);
        self.conclude(EndpointSet(chosen), message)
    }

    /// Like [`Self::decide`], and reports each route that matches.
    pub fn decide_with_matches<'t>(
        &'t self,
        message: &MessageView<'_>,
        mut matched: impl FnMut(&'t Route),
    ) -> Decision {
        let mut chosen = EndpointSet::default();
        let mut numbers = Vec::new();
        self.matching(message, &mut numbers);
        for placed in numbers.into_iter().filter_map(|number| self.routes.get(number as usize)) {
            chosen = chosen.with(placed.endpoint);
            matched(&placed.compiled.route);
        }
        self.conclude(chosen, message)
    }

    /// The numbers of all routes that a message matches, in no particular order: places among the routes as they were when
    /// the table was made, which never change.
    pub fn matching(&self, message: &MessageView<'_>, numbers: &mut Vec<u32>) {
        self.of(message.source()).matcher.routes(message, numbers);
    }

    /// Like [`Self::decide`], and reports the verdict of every enabled route of the message's source, for logs of undefined
    /// evaluations and tests of routes. It runs the interpreter for each of them, which takes as much time as there are
    /// routes.
    pub fn decide_observed(&self, message: &MessageView<'_>, mut observe: impl FnMut(&Route, Verdict)) -> Decision {
        let mut chosen = EndpointSet::default();
        let enabled = self.routes.iter().filter(|(_, placed)| placed.enabled && placed.source == message.source());
        for (_, PlacedRoute { compiled, endpoint, .. }) in enabled {
            let verdict = evaluate(&compiled.program, message);
            observe(&compiled.route, verdict);
            if verdict == Verdict::True {
                chosen = chosen.with(*endpoint);
            }
        }
        self.conclude(chosen, message)
    }

    /// Whether so many routes were changed one by one that a table made with [`Self::new`] would decide noticeably faster. At
    /// 100,000 routes, making it takes up to a second: let another thread do it.
    #[must_use]
    pub fn is_fragmented(&self) -> bool {
        self.sources.iter().any(|source| source.matcher.is_fragmented())
    }

    /// Bytes of memory that the indexes of the routes take.
    #[must_use]
    pub fn index_bytes(&self) -> usize {
        self.sources.iter().map(|source| source.matcher.size()).sum()
    }

    fn of(&self, source: Source) -> &SourceRoutes {
        &self.sources[source.index()]
    }

    fn name_endpoints(&mut self, endpoints: Endpoints) {
        self.endpoints = endpoints.0;
        let named = self.endpoints.iter().skip(self.single.len());
        self.single.extend(named.map(|name| Arc::from([name.clone()])));
    }

    /// Collects what the hub asks about all routes of a source.
    fn summarise(&mut self) {
        let mut reachable = [EndpointSet::default(); Source::ALL.len()];
        for source in &mut self.sources {
            (source.count, source.fallback, source.needs_body, source.needs_twin) = (0, None, false, false);
        }
        let mut defined = false;
        for (_, placed) in self.routes.iter() {
            defined = true;
            let index = placed.source.index();
            if let (true, Some(source), Some(reachable)) =
                (placed.enabled, self.sources.get_mut(index), reachable.get_mut(index))
            {
                source.count += 1;
                source.needs_body |= placed.needs_body;
                source.needs_twin |= placed.needs_twin;
                *reachable = reachable.with(placed.endpoint);
            }
        }
        let fallback = fallback_of(self.configured_fallback.as_ref(), !defined);
        let place = fallback.and_then(|name| self.endpoints.iter().position(|known| *known == name));
        self.sources[Source::DeviceMessages.index()].fallback = place.and_then(|place| u8::try_from(place).ok());
        for ((source, routes), reachable) in Source::ALL.into_iter().zip(&mut self.sources).zip(reachable) {
            let reachable = routes.fallback.into_iter().fold(reachable, EndpointSet::with);
            let reads_twin = |enrichment: &CompiledEnrichment| {
                matches!(enrichment.value, EnrichmentValue::Twin { .. })
                    && !enrichment.endpoints.and(reachable).is_empty()
            };
            routes.needs_twin |= is_enriched(source) && self.enrichments.iter().any(reads_twin);
        }
    }

    fn conclude(&self, chosen: EndpointSet, message: &MessageView<'_>) -> Decision {
        let (outcome, chosen) = match self.of(message.source()).fallback {
            _ if !chosen.is_empty() => (Outcome::Matched, chosen),
            Some(fallback) => (Outcome::Fallback, chosen.with(fallback)),
            None => (Outcome::Orphaned, chosen),
        };
        if is_enriched(message.source()) && self.enrichments.iter().any(|e| !e.endpoints.and(chosen).is_empty()) {
            return self.enrich(outcome, chosen, message);
        }
        Decision { outcome, endpoints: self.names(chosen), enrichments: Vec::new(), dropped: Vec::new() }
    }

    #[cold]
    fn enrich(&self, outcome: Outcome, chosen: EndpointSet, message: &MessageView<'_>) -> Decision {
        let values: Vec<(&CompiledEnrichment, Arc<str>)> = self
            .enrichments
            .iter()
            .filter(|enrichment| !enrichment.endpoints.and(chosen).is_empty())
            // What the device set itself wins.
            .filter(|enrichment| message.application(enrichment.key.as_str()).is_none())
            .map(|enrichment| (enrichment, self.value_of(enrichment, message)))
            .collect();
        let base = message.size();
        let fits = |endpoint: u8| {
            let added: usize = values
                .iter()
                .filter(|(enrichment, _)| enrichment.endpoints.contains(endpoint))
                .map(|(enrichment, value)| enrichment.key.as_str().len() + value.len())
                .sum();
            added == 0 || base + added <= MAX_ENRICHED_MESSAGE_BYTES
        };
        let kept = chosen.iter().filter(|&endpoint| fits(endpoint)).fold(EndpointSet::default(), EndpointSet::with);
        let enrichments = values
            .into_iter()
            .map(|(enrichment, value)| AppliedEnrichment {
                key: enrichment.key.clone(),
                value,
                endpoints: (0..)
                    .zip(kept.iter())
                    .filter(|&(_, endpoint)| enrichment.endpoints.contains(endpoint))
                    .map(|(place, _)| place)
                    .collect(),
            })
            .filter(|applied| !applied.endpoints.is_empty())
            .collect();
        let dropped = self.names(chosen.without(kept)).to_vec();
        Decision { outcome, endpoints: self.names(kept), enrichments, dropped }
    }

    fn value_of(&self, enrichment: &CompiledEnrichment, message: &MessageView<'_>) -> Arc<str> {
        match &enrichment.value {
            EnrichmentValue::Static(_) => Arc::clone(&enrichment.static_value),
            EnrichmentValue::HubName => Arc::clone(&self.hub_name),
            EnrichmentValue::Twin { path, .. } => message
                .twin_json(path)
                .map_or_else(|| Arc::clone(&enrichment.static_value), |value| value.to_property_text().into()),
        }
    }

    fn names(&self, set: EndpointSet) -> Arc<[EndpointName]> {
        let mut members = set.iter();
        match (members.next(), members.next()) {
            (None, _) => Arc::clone(&self.nobody),
            (Some(only), None) => {
                self.single.get(usize::from(only)).map_or_else(|| Arc::clone(&self.nobody), Arc::clone)
            }
            _ => set.iter().filter_map(|place| self.endpoints.get(usize::from(place)).cloned()).collect(),
        }
    }
}

impl fmt::Debug for RouteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteTable")
            .field("hub_name", &self.hub_name)
            .field("routes", &self.routes().map(|(route, _)| route).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// A hub without any route keeps its messages readable, whatever the fallback route says.
fn fallback_of(configured: Option<&EndpointName>, no_routes: bool) -> Option<EndpointName> {
    if no_routes { Some(EndpointName::events()) } else { configured.cloned() }
}

/// Digital twin changes are not enriched (protocol notes: routing §4).
fn is_enriched(source: Source) -> bool {
    source != Source::DigitalTwinChangeEvents
}

fn compile_enrichments(
    enrichments: Vec<Enrichment>,
    endpoints: &mut Endpoints,
    hub_name: &Arc<str>,
) -> Result<Vec<CompiledEnrichment>, TableError> {
    let mut taken = HashSet::new();
    let mut compiled = Vec::with_capacity(enrichments.len());
    for Enrichment { key, value, endpoints: names } in enrichments {
        let mut set = EndpointSet::default();
        for endpoint in names {
            let place = endpoints.place(&endpoint)?;
            if !set.contains(place) && !taken.insert((key.as_str().to_ascii_lowercase(), place)) {
                return Err(TableError::DuplicateEnrichment { key, endpoint });
            }
            set = set.with(place);
        }
        let static_value = match &value {
            EnrichmentValue::Static(text) => text.as_str().into(),
            EnrichmentValue::Twin { literal, .. } => literal.as_str().into(),
            EnrichmentValue::HubName => Arc::clone(hub_name),
        };
        compiled.push(CompiledEnrichment { key, value, static_value, endpoints: set });
    }
    Ok(compiled)
}
