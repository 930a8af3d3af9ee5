//! All routes of a hub, and the decision for a message.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use crate::enrichment::{Enrichment, EnrichmentValue};
use crate::evaluate::{Verdict, evaluate};
use crate::message::MessageView;
use crate::names::{EndpointName, EnrichmentKey, RouteName};
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
    routes: Vec<CompiledRoute>,
    sources: [SourceRoutes; Source::ALL.len()],
    endpoints: Vec<EndpointName>,
    /// For each endpoint, the list that holds it alone: shared by all decisions for one endpoint.
    single: Vec<Arc<[EndpointName]>>,
    nobody: Arc<[EndpointName]>,
    enrichments: Vec<CompiledEnrichment>,
    hub_name: Arc<str>,
}

struct CompiledRoute {
    route: Route,
    program: Program,
    endpoint: u8,
}

#[derive(Clone, Default)]
struct SourceRoutes {
    /// Places in `RouteTable::routes` of the enabled routes.
    routes: Vec<usize>,
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
        // A hub without any route keeps its messages readable, whatever the fallback route says.
        let fallback = if parts.routes.is_empty() { Some(EndpointName::events()) } else { parts.fallback };
        let mut sources: [SourceRoutes; Source::ALL.len()] = Default::default();
        sources[Source::DeviceMessages.index()].fallback =
            fallback.as_ref().map(|name| endpoints.place(name)).transpose()?;
        let mut routes = Vec::with_capacity(parts.routes.len());
        for (place, (route, program)) in parts.routes.into_iter().enumerate() {
            let endpoint = endpoints.place(&route.endpoint)?;
            if let (true, Some(source)) = (route.enabled, sources.get_mut(route.source.index())) {
                source.routes.push(place);
                source.needs_body |= program.needs_body();
                source.needs_twin |= program.needs_twin();
            }
            routes.push(CompiledRoute { route, program, endpoint });
        }
        let hub_name: Arc<str> = parts.hub_name.into();
        let enrichments = compile_enrichments(parts.enrichments, &mut endpoints, &hub_name)?;
        for (source, table) in Source::ALL.into_iter().zip(&mut sources) {
            let reachable = table
                .routes
                .iter()
                .filter_map(|&place| routes.get(place))
                .map(|route| route.endpoint)
                .chain(table.fallback)
                .fold(EndpointSet::default(), EndpointSet::with);
            let reads_twin = |enrichment: &CompiledEnrichment| {
                matches!(enrichment.value, EnrichmentValue::Twin { .. })
                    && !enrichment.endpoints.and(reachable).is_empty()
            };
            table.needs_twin |= is_enriched(source) && enrichments.iter().any(reads_twin);
        }
        let single = endpoints.0.iter().map(|name| Arc::from([name.clone()])).collect();
        Ok(Self { routes, sources, endpoints: endpoints.0, single, nobody: Arc::from([]), enrichments, hub_name })
    }

    /// The table of a new hub: everything that devices send goes to `events`.
    #[must_use]
    pub fn default_for(hub_name: &str) -> Self {
        let events = EndpointName::events();
        let mut sources: [SourceRoutes; Source::ALL.len()] = Default::default();
        sources[Source::DeviceMessages.index()].fallback = Some(0);
        Self {
            routes: Vec::new(),
            sources,
            single: vec![Arc::from([events.clone()])],
            endpoints: vec![events],
            nobody: Arc::from([]),
            enrichments: Vec::new(),
            hub_name: hub_name.into(),
        }
    }

    /// Whether a message of this source can go anywhere. Where it cannot, the hub need not write the event at all.
    #[must_use]
    pub fn listens(&self, source: Source) -> bool {
        let source = self.of(source);
        !source.routes.is_empty() || source.fallback.is_some()
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
        self.routes.iter().map(|compiled| (&compiled.route, &compiled.program))
    }

    /// Every endpoint that a route, the fallback route or an enrichment names.
    #[must_use]
    pub fn endpoints(&self) -> &[EndpointName] {
        &self.endpoints
    }

    /// Decides where a message goes. Without routes for its source this is a look-up that allocates nothing.
    #[must_use]
    pub fn decide(&self, message: &MessageView<'_>) -> Decision {
        let mut chosen = EndpointSet::default();
        for route in self.enabled(message.source()) {
            // A second route to an endpoint cannot change the decision.
            if !chosen.contains(route.endpoint) && evaluate(&route.program, message) == Verdict::True {
                chosen = chosen.with(route.endpoint);
            }
        }
        self.conclude(chosen, message)
    }

    /// Like [`Self::decide`], and reports the verdict of every enabled route of the message's source, for metrics, logs
    /// of undefined evaluations, and tests of routes.
    pub fn decide_observed(&self, message: &MessageView<'_>, mut observe: impl FnMut(&Route, Verdict)) -> Decision {
        let mut chosen = EndpointSet::default();
        for route in self.enabled(message.source()) {
            let verdict = evaluate(&route.program, message);
            observe(&route.route, verdict);
            if verdict == Verdict::True {
                chosen = chosen.with(route.endpoint);
            }
        }
        self.conclude(chosen, message)
    }

    fn of(&self, source: Source) -> &SourceRoutes {
        &self.sources[source.index()]
    }

    fn enabled(&self, source: Source) -> impl Iterator<Item = &CompiledRoute> {
        self.of(source).routes.iter().filter_map(|&place| self.routes.get(place))
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
            .field("routes", &self.routes.iter().map(|compiled| &compiled.route).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
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

/// The endpoints of a table, each named once, in the order of first mention.
#[derive(Default)]
struct Endpoints(Vec<EndpointName>);

impl Endpoints {
    fn place(&mut self, name: &EndpointName) -> Result<u8, TableError> {
        let place = self.0.iter().position(|known| known == name).unwrap_or(self.0.len());
        let small = u8::try_from(place).ok().filter(|_| place < MAX_ENDPOINTS).ok_or(TableError::TooManyEndpoints)?;
        if place == self.0.len() {
            self.0.push(name.clone());
        }
        Ok(small)
    }
}

/// A set of places in `RouteTable::endpoints`, all below [`MAX_ENDPOINTS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct EndpointSet(u64);

impl EndpointSet {
    fn with(self, place: u8) -> Self {
        Self(self.0 | 1_u64.checked_shl(u32::from(place)).unwrap_or(0))
    }
    fn contains(self, place: u8) -> bool {
        self.0.checked_shr(u32::from(place)).unwrap_or(0) & 1 == 1
    }
    fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
    fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// The places, rising.
    fn iter(self) -> impl Iterator<Item = u8> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let place = u8::try_from(rest.trailing_zeros()).ok().filter(|_| rest != 0)?;
            rest &= rest - 1;
            Some(place)
        })
    }
}
