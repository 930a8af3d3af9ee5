//! Routes of a hub: compiled by the routing function, checked, and put in place as a whole.

use std::sync::Arc;

use nave_engine::routing as wit;
use nave_routing::{
    ArithmeticOperator, ComparisonOperator, EndpointName, Enrichment, Function, Node, Program, ProgramParts, Route,
    RouteTable, Source, Span, Step, SystemProperty, TableError, TableParts, TwinPath, TwinSection,
};

use crate::error::HubError;
use crate::hub::Hub;

/// What a hub's routing is configured to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutingConfig {
    /// The routes.
    pub routes: Vec<Route>,
    /// Whether device messages that no route matched go to `events`.
    pub fallback: bool,
    /// What is added to messages.
    pub enrichments: Vec<Enrichment>,
}

/// Why a routing configuration is refused. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum RoutingError {
    /// A condition does not compile.
    #[error("route `{route}`: line {line}, column {column}: {message}{}", expected.as_ref().map_or_else(String::new, |text| format!(" (expected {text})")))]
    Condition {
        /// The route.
        route: String,
        /// Line, from 1.
        line: u32,
        /// Character in the line, from 1.
        column: u32,
        /// What is wrong.
        message: String,
        /// What would be right.
        expected: Option<String>,
    },
    /// The routes do not fit together.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The routing function failed.
    #[error(transparent)]
    Hub(#[from] HubError),
}

/// A routing configuration that is right and not used yet: the first half of a reload that changes everything or nothing.
#[derive(Debug)]
pub struct PreparedRouting(RouteTable);

impl Hub {
    /// Puts a routing configuration in place. A message meets either the old routes or the new ones, never a mixture.
    ///
    /// # Errors
    ///
    /// [`RoutingError`], naming the route and the place.
    pub fn set_routing(&self, config: RoutingConfig) -> Result<(), RoutingError> {
        self.prepare_routing(config).map(|prepared| self.install_routing(prepared))
    }

    /// Compiles and checks a routing configuration without using it yet.
    ///
    /// # Errors
    ///
    /// [`RoutingError`], naming the route and the place.
    pub fn prepare_routing(&self, config: RoutingConfig) -> Result<PreparedRouting, RoutingError> {
        let mut routes = Vec::with_capacity(config.routes.len());
        for route in config.routes {
            let program = self.compile(&route)?;
            routes.push((route, program));
        }
        let table = RouteTable::new(TableParts {
            hub_name: self.host_name().short().to_owned(),
            routes,
            fallback: config.fallback.then(EndpointName::events),
            enrichments: config.enrichments,
        })?;
        Ok(PreparedRouting(table))
    }

    /// Puts a prepared configuration, of this hub, in place.
    pub fn install_routing(&self, prepared: PreparedRouting) {
        *self.routes.write() = Arc::new(prepared.0);
    }

    fn compile(&self, route: &Route) -> Result<Program, RoutingError> {
        let compiled = self
            .functions
            .compile_route(&route.condition, source(route.source))
            .map_err(HubError::from)?
            .map_err(|diagnostics| first_error(route, diagnostics))?;
        for warning in &compiled.warnings {
            tracing::warn!(hub = %self.id(), route = %route.name.as_str(), line = warning.start.line, column = warning.start.column + 1, message = %warning.message, "route condition");
        }
        parts(compiled.program).validate().map_err(|error| {
            HubError::internal(format_args!(
                "route `{}`: the compiled program is invalid: {error}",
                route.name.as_str()
            ))
            .into()
        })
    }
}

fn first_error(route: &Route, diagnostics: Vec<wit::Diagnostic>) -> RoutingError {
    let error = diagnostics.into_iter().find(|diagnostic| diagnostic.severity == wit::Severity::Error);
    match error {
        Some(error) => RoutingError::Condition {
            route: route.name.as_str().to_owned(),
            line: error.start.line,
            column: error.start.column + 1,
            message: error.message,
            expected: error.expected,
        },
        None => HubError::internal("the routing function refused a condition without saying why").into(),
    }
}

const fn source(source: Source) -> wit::Source {
    match source {
        Source::DeviceMessages => wit::Source::DeviceMessages,
        Source::TwinChangeEvents => wit::Source::TwinChangeEvents,
        Source::DeviceLifecycleEvents => wit::Source::DeviceLifecycleEvents,
        Source::DeviceConnectionStateEvents => wit::Source::DeviceConnectionStateEvents,
        Source::DeviceJobLifecycleEvents => wit::Source::DeviceJobLifecycleEvents,
        Source::DigitalTwinChangeEvents => wit::Source::DigitalTwinChangeEvents,
    }
}

/// The function's program as the matcher takes it. It is believed only after `validate`.
fn parts(program: wit::Program) -> ProgramParts {
    ProgramParts {
        version: program.version,
        nodes: program.nodes.into_iter().map(node).collect(),
        spans: program.spans.into_iter().map(|span| Span { start: span.start, end: span.end }).collect(),
        root: program.root,
        needs_body: program.needs_body,
        needs_twin: program.needs_twin,
    }
}

fn node(node: wit::Node) -> Node {
    match node {
        wit::Node::Undefined => Node::Undefined,
        wit::Node::Null => Node::Null,
        wit::Node::Boolean(value) => Node::Boolean(value),
        wit::Node::Number(value) => Node::Number(value),
        wit::Node::Text(value) => Node::Text(value),
        wit::Node::List(items) => Node::List(items),
        wit::Node::ApplicationProperty(names) => Node::ApplicationProperty(names),
        wit::Node::SystemProperty(property) => Node::SystemProperty(system_property(property)),
        wit::Node::Body(path) => Node::Body(steps(path)),
        wit::Node::Twin(path) => {
            let section = match path.section {
                wit::TwinSection::Tags => TwinSection::Tags,
                wit::TwinSection::Desired => TwinSection::Desired,
                wit::TwinSection::Reported => TwinSection::Reported,
            };
            Node::Twin(TwinPath { section, steps: steps(path.steps) })
        }
        wit::Node::Negate(child) => Node::Negate(child),
        wit::Node::Arithmetic(node) => {
            Node::Arithmetic { operator: arithmetic(node.operator), left: node.left, right: node.right }
        }
        wit::Node::Comparison(node) => {
            Node::Comparison { operator: comparison(node.operator), left: node.left, right: node.right }
        }
        wit::Node::Membership(node) => {
            Node::Membership { value: node.value, candidates: node.candidates, negated: node.negated }
        }
        wit::Node::Call(node) => Node::Call { function: function(node.function), arguments: node.arguments },
        wit::Node::Not(child) => Node::Not(child),
        wit::Node::All(children) => Node::All(children),
        wit::Node::Any(children) => Node::Any(children),
    }
}

fn steps(path: Vec<wit::Step>) -> Vec<Step> {
    path.into_iter()
        .map(|step| match step {
            wit::Step::Member(name) => Step::Member(name),
            wit::Step::Element(index) => Step::Element(index),
        })
        .collect()
}

macro_rules! same_variants {
    ($name:ident: $enum:ident { $($variant:ident),* $(,)? }) => {
        const fn $name(value: wit::$enum) -> $enum {
            match value { $(wit::$enum::$variant => $enum::$variant,)* }
        }
    };
}

same_variants!(system_property: SystemProperty {
    ContentType, ContentEncoding, ConnectionDeviceId, ConnectionModuleId, ConnectionAuthMethod,
    ConnectionDeviceGenerationId, EnqueuedTime, MessageId, CorrelationId, UserId, DtDataschema, DtSubject,
});
same_variants!(arithmetic: ArithmeticOperator { Add, Subtract, Multiply, Divide, Remainder });
same_variants!(comparison: ComparisonOperator { Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual });
same_variants!(function: Function {
    IsDefined, IsNull, IsBool, IsNumber, IsString, IsArray, IsObject, IsPrimitive, Contains, StartsWith, EndsWith,
    Length, Lower, Upper, Substring, IndexOf, Concat, Abs, Exp, Power, Square, Sqrt, Ceiling, Floor, Sign, AsNumber,
    ArrayContains,
});
