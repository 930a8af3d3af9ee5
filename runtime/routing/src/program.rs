//! Compiled conditions, and the checks that a program must pass before it runs.
//!
//! The compiler is a component that an operator may replace, so nothing that it says is believed: a [`Program`] exists
//! only after [`ProgramParts::validate`] has shown that running it ends, needs little stack and reads nothing absent.

/// The version of the program format that this host runs.
pub const PROGRAM_VERSION: u32 = 1;

/// The most nodes of a program: as many as the longest condition (8,192 characters) has characters. A program with more
/// is refused.
pub const MAX_NODES: usize = 8192;

/// The greatest height of a program's tree. A higher one is refused, so that the recursive interpreter needs a known,
/// small amount of stack.
pub const MAX_DEPTH: usize = 128;

/// The most bytes of names and strings in a program: a condition of 8,192 characters has at most 32 KiB, names can
/// appear twice and folding their case can lengthen them. A program with more is refused.
pub const MAX_PROGRAM_TEXT_BYTES: usize = 128 * 1024;

/// The place of a node in [`ProgramParts::nodes`].
pub type NodeIndex = u32;

/// The properties that the hub or the transport sets on a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SystemProperty {
    /// `$contentType`: the media type of the body.
    ContentType,
    /// `$contentEncoding`: the character encoding of the body.
    ContentEncoding,
    /// `$connectionDeviceId`: the device that sent the message or that the event is about.
    ConnectionDeviceId,
    /// `$connectionModuleId`: the module that sent the message or that the event is about.
    ConnectionModuleId,
    /// `$connectionAuthMethod`: JSON text that says how the sender authenticated.
    ConnectionAuthMethod,
    /// `$connectionDeviceGenerationId`: tells devices with the same id, deleted and created again, apart.
    ConnectionDeviceGenerationId,
    /// `$enqueuedTime`: when the hub accepted the message, ISO 8601 text.
    EnqueuedTime,
    /// `$messageId`: chosen by the sender.
    MessageId,
    /// `$correlationId`: chosen by the sender.
    CorrelationId,
    /// `$userId`: chosen by the sender.
    UserId,
    /// `$dt-dataschema`: the model that describes the body.
    DtDataschema,
    /// `$dt-subject`: the component of the model that the body belongs to.
    DtSubject,
}

impl SystemProperty {
    /// Every system property.
    pub const ALL: [Self; 12] = [
        Self::ContentType,
        Self::ContentEncoding,
        Self::ConnectionDeviceId,
        Self::ConnectionModuleId,
        Self::ConnectionAuthMethod,
        Self::ConnectionDeviceGenerationId,
        Self::EnqueuedTime,
        Self::MessageId,
        Self::CorrelationId,
        Self::UserId,
        Self::DtDataschema,
        Self::DtSubject,
    ];
}

/// One step into a JSON document.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Into the member of an object, found without regard to case.
    Member(String),
    /// To the element of an array, from 0.
    Element(u32),
}

/// The sections of a twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TwinSection {
    /// Tags.
    Tags,
    /// Desired properties.
    Desired,
    /// Reported properties.
    Reported,
}

/// A path into a twin. Without steps it is the whole section.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TwinPath {
    /// The section that the path starts in.
    pub section: TwinSection,
    /// The steps from the top of the section.
    pub steps: Vec<Step>,
}

/// Arithmetic on IEEE 754 double precision numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ArithmeticOperator {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`: the remainder, with the sign of the dividend.
    Remainder,
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ComparisonOperator {
    /// `=`
    Equal,
    /// `!=` and `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// The functions of the language (protocol notes: query language §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of the language, which documents them")]
pub enum Function {
    IsDefined,
    IsNull,
    IsBool,
    IsNumber,
    IsString,
    IsArray,
    IsObject,
    IsPrimitive,
    Contains,
    StartsWith,
    EndsWith,
    Length,
    Lower,
    Upper,
    Substring,
    IndexOf,
    Concat,
    Abs,
    Exp,
    Power,
    Square,
    Sqrt,
    Ceiling,
    Floor,
    Sign,
    AsNumber,
    ArrayContains,
}

impl Function {
    /// Every function.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) const ALL: [Self; 27] = [
        Self::IsDefined,
        Self::IsNull,
        Self::IsBool,
        Self::IsNumber,
        Self::IsString,
        Self::IsArray,
        Self::IsObject,
        Self::IsPrimitive,
        Self::Contains,
        Self::StartsWith,
        Self::EndsWith,
        Self::Length,
        Self::Lower,
        Self::Upper,
        Self::Substring,
        Self::IndexOf,
        Self::Concat,
        Self::Abs,
        Self::Exp,
        Self::Power,
        Self::Square,
        Self::Sqrt,
        Self::Ceiling,
        Self::Floor,
        Self::Sign,
        Self::AsNumber,
        Self::ArrayContains,
    ];

    /// The fewest arguments.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn fewest_arguments(self) -> usize {
        self.arity().0
    }

    /// The fewest and the most arguments.
    fn arity(self) -> (usize, usize) {
        match self {
            Self::IsDefined
            | Self::IsNull
            | Self::IsBool
            | Self::IsNumber
            | Self::IsString
            | Self::IsArray
            | Self::IsObject
            | Self::IsPrimitive
            | Self::Length
            | Self::Lower
            | Self::Upper
            | Self::Abs
            | Self::Exp
            | Self::Square
            | Self::Sqrt
            | Self::Ceiling
            | Self::Floor
            | Self::Sign
            | Self::AsNumber => (1, 1),
            Self::Contains | Self::StartsWith | Self::EndsWith | Self::IndexOf | Self::Power | Self::ArrayContains => {
                (2, 2)
            }
            Self::Substring => (2, 3),
            Self::Concat => (2, MAX_NODES),
        }
    }
}

/// A part of a condition. `nave:routing` documents the meaning of each variant.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// The constant `undefined`.
    Undefined,
    /// The constant `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A number.
    Number(f64),
    /// A string.
    Text(String),
    /// A constant array.
    List(Vec<NodeIndex>),
    /// An application property: the names to try, in order.
    ApplicationProperty(Vec<String>),
    /// A system property.
    SystemProperty(SystemProperty),
    /// A path into the JSON body.
    Body(Vec<Step>),
    /// A path into the twin.
    Twin(TwinPath),
    /// `-x`
    Negate(NodeIndex),
    /// Arithmetic with two operands.
    Arithmetic {
        /// What to compute.
        operator: ArithmeticOperator,
        /// The left operand.
        left: NodeIndex,
        /// The right operand.
        right: NodeIndex,
    },
    /// A comparison.
    Comparison {
        /// How to compare.
        operator: ComparisonOperator,
        /// The left operand.
        left: NodeIndex,
        /// The right operand.
        right: NodeIndex,
    },
    /// `IN` or `NIN`.
    Membership {
        /// The value that is looked for.
        value: NodeIndex,
        /// The constants to look among.
        candidates: Vec<NodeIndex>,
        /// True for `NIN`.
        negated: bool,
    },
    /// A function call.
    Call {
        /// What to compute.
        function: Function,
        /// Its arguments.
        arguments: Vec<NodeIndex>,
    },
    /// `NOT x`
    Not(NodeIndex),
    /// `x AND y AND …`
    All(Vec<NodeIndex>),
    /// `x OR y OR …`
    Any(Vec<NodeIndex>),
}

impl Node {
    /// Calls `visit` with each child.
    pub(crate) fn children(&self, mut visit: impl FnMut(NodeIndex)) {
        match self {
            Self::Undefined
            | Self::Null
            | Self::Boolean(_)
            | Self::Number(_)
            | Self::Text(_)
            | Self::ApplicationProperty(_)
            | Self::SystemProperty(_)
            | Self::Body(_)
            | Self::Twin(_) => {}
            Self::Negate(child) | Self::Not(child) => visit(*child),
            Self::Arithmetic { left, right, .. } | Self::Comparison { left, right, .. } => {
                visit(*left);
                visit(*right);
            }
            Self::Membership { value, candidates, .. } => {
                visit(*value);
                candidates.iter().copied().for_each(visit);
            }
            Self::List(children)
            | Self::Call { arguments: children, .. }
            | Self::All(children)
            | Self::Any(children) => children.iter().copied().for_each(visit),
        }
    }

    fn is_constant(&self) -> bool {
        matches!(
            self,
            Self::Undefined | Self::Null | Self::Boolean(_) | Self::Number(_) | Self::Text(_) | Self::List(_)
        )
    }

    /// Bytes of names and strings.
    fn text_bytes(&self) -> usize {
        let steps = |steps: &[Step]| -> usize {
            steps.iter().map(|step| if let Step::Member(name) = step { name.len() } else { 0 }).sum()
        };
        match self {
            Self::Text(text) => text.len(),
            Self::ApplicationProperty(names) => names.iter().map(String::len).sum(),
            Self::Body(path) => steps(path),
            Self::Twin(path) => steps(&path.steps),
            _ => 0,
        }
    }
}

/// The part of the condition's text that a node was written as, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first byte, from 0.
    pub start: u32,
    /// The byte after the last.
    pub end: u32,
}

/// A program as the compiler delivered it, unchecked. The fields are those of `nave:routing`'s `program`.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgramParts {
    /// The version of the format.
    pub version: u32,
    /// The nodes, children before parents.
    pub nodes: Vec<Node>,
    /// Where each node was written.
    pub spans: Vec<Span>,
    /// The node whose value decides.
    pub root: NodeIndex,
    /// Some node reads the body.
    pub needs_body: bool,
    /// Some node reads the twin.
    pub needs_twin: bool,
}

/// Why a program is refused. The compiler is at fault, not the author of the condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// The format is not the one that this host runs.
    #[error("the program has format version {0}; this host runs version {PROGRAM_VERSION}")]
    Version(u32),
    /// There are more than [`MAX_NODES`] nodes.
    #[error("the program has {0} nodes; at most {MAX_NODES} are allowed")]
    TooManyNodes(usize),
    /// Names and strings take more than [`MAX_PROGRAM_TEXT_BYTES`] bytes.
    #[error("the program holds more than {MAX_PROGRAM_TEXT_BYTES} bytes of text")]
    TooMuchText,
    /// The tree is higher than [`MAX_DEPTH`].
    #[error("node {0} is nested more than {MAX_DEPTH} levels deep")]
    TooDeep(NodeIndex),
    /// The number of spans is not the number of nodes, or a span ends before it starts.
    #[error("the program's spans do not fit its nodes")]
    Spans,
    /// The root is not the last node, or there is no node.
    #[error("the root of the program is not its last node")]
    Root,
    /// A child does not come before its parent.
    #[error("node {0} refers to a node that does not come before it")]
    Child(NodeIndex),
    /// A node is used twice, or not at all.
    #[error("node {0} is not used exactly once")]
    NotATree(NodeIndex),
    /// A node has a form that the format does not allow: too few operands, a list element that is no constant,
    /// an empty path, a number that is not finite, or the wrong number of arguments.
    #[error("node {0} is malformed")]
    Malformed(NodeIndex),
    /// `needs_body` or `needs_twin` does not say what the nodes do.
    #[error("the program misstates what it reads")]
    Facts,
}

impl ProgramParts {
    /// Checks everything that the interpreter relies on. Takes time proportional to the size of the program.
    ///
    /// # Errors
    /// The first rule that the program breaks.
    pub fn validate(self) -> Result<Program, ProgramError> {
        if self.version != PROGRAM_VERSION {
            return Err(ProgramError::Version(self.version));
        }
        if self.nodes.len() > MAX_NODES {
            return Err(ProgramError::TooManyNodes(self.nodes.len()));
        }
        if self.nodes.iter().map(Node::text_bytes).sum::<usize>() > MAX_PROGRAM_TEXT_BYTES {
            return Err(ProgramError::TooMuchText);
        }
        if self.spans.len() != self.nodes.len() || self.spans.iter().any(|span| span.start > span.end) {
            return Err(ProgramError::Spans);
        }
        // Children come before parents and the nodes form one tree, so the root can only be the last.
        if usize::try_from(self.root).ok().and_then(|root| root.checked_add(1)) != Some(self.nodes.len()) {
            return Err(ProgramError::Root);
        }
        self.check_tree()?;
        let needs_body = self.nodes.iter().any(|node| matches!(node, Node::Body(_)));
        let needs_twin = self.nodes.iter().any(|node| matches!(node, Node::Twin(_)));
        if (needs_body, needs_twin) != (self.needs_body, self.needs_twin) {
            return Err(ProgramError::Facts);
        }
        Ok(Program { parts: self })
    }

    fn check_tree(&self) -> Result<(), ProgramError> {
        let mut heights: Vec<usize> = Vec::with_capacity(self.nodes.len());
        let mut used = vec![false; self.nodes.len()];
        for (index, node) in (0..).zip(&self.nodes) {
            let mut height = 0;
            let mut problem = None;
            node.children(|child| {
                let slot = usize::try_from(child).ok().filter(|&slot| slot < heights.len());
                match slot.and_then(|slot| Some((heights.get(slot)?, used.get_mut(slot)?))) {
                    None => problem = problem.or(Some(ProgramError::Child(index))),
                    Some((_, used)) if *used => problem = problem.or(Some(ProgramError::NotATree(child))),
                    Some((child_height, used)) => {
                        *used = true;
                        height = height.max(*child_height);
                    }
                }
            });
            if let Some(problem) = problem {
                return Err(problem);
            }
            if height >= MAX_DEPTH {
                return Err(ProgramError::TooDeep(index));
            }
            if !self.well_formed(node) {
                return Err(ProgramError::Malformed(index));
            }
            heights.push(height + 1);
        }
        match (0..).zip(&used).find(|&(index, &used)| !used && index != self.root) {
            Some((index, _)) => Err(ProgramError::NotATree(index)),
            None => Ok(()),
        }
    }

    /// Whether a node, whose children are known to exist, has the form that its variant asks for.
    fn well_formed(&self, node: &Node) -> bool {
        let constants = |children: &[NodeIndex]| {
            children.iter().all(|&child| {
                usize::try_from(child).ok().and_then(|child| self.nodes.get(child)).is_some_and(Node::is_constant)
            })
        };
        match node {
            Node::Number(number) => number.is_finite(),
            Node::List(elements) => constants(elements),
            Node::ApplicationProperty(names) => (1..=2).contains(&names.len()) && names.iter().all(|n| !n.is_empty()),
            Node::Body(steps) => !steps.is_empty(),
            Node::Membership { candidates, .. } => !candidates.is_empty() && constants(candidates),
            Node::Call { function, arguments } => {
                let (fewest, most) = function.arity();
                (fewest..=most).contains(&arguments.len())
            }
            Node::All(operands) | Node::Any(operands) => operands.len() >= 2,
            _ => true,
        }
    }
}

/// A compiled condition that has passed every check.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    parts: ProgramParts,
}

impl Program {
    /// The program of the condition `true`, which every message matches.
    #[must_use]
    pub fn always() -> Self {
        Self {
            parts: ProgramParts {
                version: PROGRAM_VERSION,
                nodes: vec![Node::Boolean(true)],
                spans: vec![Span { start: 0, end: 4 }],
                root: 0,
                needs_body: false,
                needs_twin: false,
            },
        }
    }

    /// The node whose value decides: the last one.
    #[must_use]
    pub fn root(&self) -> NodeIndex {
        self.parts.root
    }

    /// All nodes, children before parents.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.parts.nodes
    }

    /// One node.
    #[must_use]
    pub fn node(&self, index: NodeIndex) -> Option<&Node> {
        self.parts.nodes.get(usize::try_from(index).ok()?)
    }

    /// Where in the condition's text a node was written. Use [`str::get`] with it: the text is not part of the program.
    #[must_use]
    pub fn span(&self, index: NodeIndex) -> Option<Span> {
        self.parts.spans.get(usize::try_from(index).ok()?).copied()
    }

    /// Whether running it may read the message's body.
    #[must_use]
    pub fn needs_body(&self) -> bool {
        self.parts.needs_body
    }

    /// Whether running it may read the sender's twin.
    #[must_use]
    pub fn needs_twin(&self) -> bool {
        self.parts.needs_twin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(nodes: Vec<Node>) -> ProgramParts {
        ProgramParts {
            version: PROGRAM_VERSION,
            spans: vec![Span::default(); nodes.len()],
            root: u32::try_from(nodes.len()).unwrap().wrapping_sub(1),
            needs_body: nodes.iter().any(|node| matches!(node, Node::Body(_))),
            needs_twin: nodes.iter().any(|node| matches!(node, Node::Twin(_))),
            nodes,
        }
    }

    fn error(nodes: Vec<Node>) -> ProgramError {
        parts(nodes).validate().unwrap_err()
    }

    #[test]
    fn a_well_formed_program_passes() {
        let program = parts(vec![
            Node::Body(vec![Step::Member("a".into())]),
            Node::Number(1.0),
            Node::Comparison { operator: ComparisonOperator::Less, left: 0, right: 1 },
        ])
        .validate()
        .unwrap();
        assert!(program.needs_body());
        assert!(!program.needs_twin());
        assert_eq!(program.root(), 2);
        assert_eq!(parts(vec![Node::Boolean(true)]).validate().unwrap().nodes(), Program::always().nodes());
    }

    #[test]
    fn every_rule_is_checked() {
        let valid = parts(vec![Node::Null]);
        assert_eq!(ProgramParts { version: 2, ..valid.clone() }.validate(), Err(ProgramError::Version(2)));
        assert_eq!(ProgramParts { root: 1, ..valid.clone() }.validate(), Err(ProgramError::Root));
        assert_eq!(ProgramParts { root: u32::MAX, ..valid.clone() }.validate(), Err(ProgramError::Root));
        assert_eq!(ProgramParts { spans: vec![], ..valid.clone() }.validate(), Err(ProgramError::Spans));
        let backwards = vec![Span { start: 2, end: 1 }];
        assert_eq!(ProgramParts { spans: backwards, ..valid.clone() }.validate(), Err(ProgramError::Spans));
        assert_eq!(ProgramParts { needs_body: true, ..valid.clone() }.validate(), Err(ProgramError::Facts));
        assert_eq!(ProgramParts { needs_twin: true, ..valid }.validate(), Err(ProgramError::Facts));
        assert_eq!(error(vec![]), ProgramError::Root);
        assert_eq!(error(vec![Node::Null; MAX_NODES + 1]), ProgramError::TooManyNodes(MAX_NODES + 1));
        assert_eq!(error(vec![Node::Text("x".repeat(MAX_PROGRAM_TEXT_BYTES + 1))]), ProgramError::TooMuchText);
        assert_eq!(error(vec![Node::Not(0)]), ProgramError::Child(0));
        assert_eq!(error(vec![Node::Null, Node::Not(u32::MAX)]), ProgramError::Child(1));
        assert_eq!(error(vec![Node::Null, Node::All(vec![0, 0])]), ProgramError::NotATree(0));
        assert_eq!(error(vec![Node::Null, Node::Null, Node::Not(1)]), ProgramError::NotATree(0));
        let not = |index: usize| if index == 0 { Node::Null } else { Node::Not(u32::try_from(index).unwrap() - 1) };
        assert!(parts((0..MAX_DEPTH).map(not).collect()).validate().is_ok());
        assert_eq!(error((0..=MAX_DEPTH).map(not).collect()), ProgramError::TooDeep(128));
    }

    #[test]
    fn malformed_nodes_are_refused() {
        let call = |function, arguments| Node::Call { function, arguments };
        for nodes in [
            vec![Node::Number(f64::NAN)],
            vec![Node::ApplicationProperty(vec![])],
            vec![Node::ApplicationProperty(vec![String::new()])],
            vec![Node::Body(vec![])],
            vec![Node::Null, Node::All(vec![0])],
            vec![Node::Any(vec![])],
            vec![Node::Null, Node::Membership { value: 0, candidates: vec![], negated: false }],
            vec![Node::Null, call(Function::Power, vec![0])],
            vec![call(Function::IsDefined, vec![])],
        ] {
            let last = u32::try_from(nodes.len()).unwrap() - 1;
            assert_eq!(error(nodes), ProgramError::Malformed(last));
        }
        let property = || Node::ApplicationProperty(vec!["p".into()]);
        assert_eq!(error(vec![property(), Node::List(vec![0])]), ProgramError::Malformed(1));
        let membership = Node::Membership { value: 0, candidates: vec![1], negated: false };
        assert_eq!(error(vec![Node::Null, property(), membership]), ProgramError::Malformed(2));
    }
}
