//! Conditions as text to programs of this crate, by the compiler component's own code, without WebAssembly.

#![allow(dead_code, reason = "each test binary uses a part")]

use nave_function_routing as compiler;
use nave_routing::{
    ArithmeticOperator, ComparisonOperator, Function, MessageView, Node, Program, ProgramParts, Source, Span, Step,
    SystemProperties, SystemProperty, TwinPath, TwinSection, TwinText, Verdict, evaluate,
};

/// Compiles a condition and checks the program.
pub(crate) fn try_program(condition: &str, source: Source) -> Option<Program> {
    let compiled = compiler::compile(condition, source_of(source)).ok()?;
    Some(parts(compiled.program).validate().unwrap_or_else(|error| panic!("{condition}: {error}")))
}

pub(crate) fn program(condition: &str) -> Program {
    program_for(condition, Source::DeviceMessages)
}

pub(crate) fn program_for(condition: &str, source: Source) -> Program {
    let refused = |errors| -> compiler::Compiled { panic!("{condition}: {errors:?}") };
    let compiled = compiler::compile(condition, source_of(source)).unwrap_or_else(refused);
    parts(compiled.program).validate().unwrap_or_else(|error| panic!("{condition}: {error}"))
}

/// A message with everything that conditions can read.
pub(crate) struct Message {
    pub(crate) system: SystemProperties<'static>,
    pub(crate) application: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) twin: TwinText<'static>,
}

impl Message {
    /// A JSON message in UTF-8.
    pub(crate) fn json(body: &str) -> Self {
        let system = SystemProperties {
            content_type: Some("application/json"),
            content_encoding: Some("utf-8"),
            ..SystemProperties::default()
        };
        Self { system, application: Vec::new(), body: body.into(), twin: TwinText::default() }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.application.push((name.into(), value.into()));
        self
    }

    pub(crate) fn view(&self) -> MessageView<'_> {
        self.view_from(Source::DeviceMessages)
    }

    pub(crate) fn view_from(&self, source: Source) -> MessageView<'_> {
        MessageView::new(source, &self.body)
            .with_system(self.system)
            .with_application(&self.application)
            .with_twin(&self.twin)
    }

    pub(crate) fn verdict(&self, condition: &str) -> Verdict {
        evaluate(&program(condition), &self.view())
    }
}

fn source_of(source: Source) -> compiler::Source {
    match source {
        Source::DeviceMessages => compiler::Source::DeviceMessages,
        Source::TwinChangeEvents => compiler::Source::TwinChangeEvents,
        Source::DeviceLifecycleEvents => compiler::Source::DeviceLifecycleEvents,
        Source::DeviceConnectionStateEvents => compiler::Source::DeviceConnectionStateEvents,
        Source::DeviceJobLifecycleEvents => compiler::Source::DeviceJobLifecycleEvents,
        Source::DigitalTwinChangeEvents => compiler::Source::DigitalTwinChangeEvents,
    }
}

fn parts(program: compiler::Program) -> ProgramParts {
    ProgramParts {
        version: program.version,
        nodes: program.nodes.into_iter().map(node).collect(),
        spans: program.spans.into_iter().map(|span| Span { start: span.start, end: span.end }).collect(),
        root: program.root,
        needs_body: program.needs_body,
        needs_twin: program.needs_twin,
    }
}

fn steps(steps: Vec<compiler::Step>) -> Vec<Step> {
    let step = |step| match step {
        compiler::Step::Member(name) => Step::Member(name),
        compiler::Step::Element(index) => Step::Element(index),
    };
    steps.into_iter().map(step).collect()
}

/// Maps an enumeration whose variants have the same names on both sides.
macro_rules! same {
    ($value:expr, $type:ident: $($variant:ident)*) => {
        match $value { $(compiler::$type::$variant => $type::$variant,)* }
    };
}

fn node(node: compiler::Node) -> Node {
    match node {
        compiler::Node::Undefined => Node::Undefined,
        compiler::Node::Null => Node::Null,
        compiler::Node::Boolean(value) => Node::Boolean(value),
        compiler::Node::Number(value) => Node::Number(value),
        compiler::Node::Text(value) => Node::Text(value),
        compiler::Node::List(elements) => Node::List(elements),
        compiler::Node::ApplicationProperty(names) => Node::ApplicationProperty(names),
        compiler::Node::SystemProperty(property) => Node::SystemProperty(same!(property, SystemProperty:
            ContentType ContentEncoding ConnectionDeviceId ConnectionModuleId ConnectionAuthMethod
            ConnectionDeviceGenerationId EnqueuedTime MessageId CorrelationId UserId DtDataschema DtSubject)),
        compiler::Node::Body(path) => Node::Body(steps(path)),
        compiler::Node::Twin(path) => Node::Twin(TwinPath {
            section: same!(path.section, TwinSection: Tags Desired Reported),
            steps: steps(path.steps),
        }),
        compiler::Node::Negate(operand) => Node::Negate(operand),
        compiler::Node::Arithmetic(it) => Node::Arithmetic {
            operator: same!(it.operator, ArithmeticOperator: Add Subtract Multiply Divide Remainder),
            left: it.left,
            right: it.right,
        },
        compiler::Node::Comparison(it) => Node::Comparison {
            operator: same!(it.operator, ComparisonOperator: Equal NotEqual Less LessOrEqual Greater GreaterOrEqual),
            left: it.left,
            right: it.right,
        },
        compiler::Node::Membership(it) => {
            Node::Membership { value: it.value, candidates: it.candidates, negated: it.negated }
        }
        compiler::Node::Call(it) => Node::Call {
            function: same!(it.function, Function:
                IsDefined IsNull IsBool IsNumber IsString IsArray IsObject IsPrimitive Contains StartsWith EndsWith
                Length Lower Upper Substring IndexOf Concat Abs Exp Power Square Sqrt Ceiling Floor Sign AsNumber
                ArrayContains),
            arguments: it.arguments,
        },
        compiler::Node::Not(operand) => Node::Not(operand),
        compiler::Node::All(operands) => Node::All(operands),
        compiler::Node::Any(operands) => Node::Any(operands),
    }
}
