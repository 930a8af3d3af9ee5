//! Random trees, printed and parsed again; and random text.

use proptest::prelude::*;

use crate::names::{FUNCTIONS, Keyword, SYSTEM_PROPERTIES, folded};
use crate::{
    Arithmetic, ArithmeticOperator, Call, Comparison, ComparisonOperator, Membership, Node, Source, Step, TwinPath,
    TwinSection, compile, parser,
};

/// A condition as a tree. `Leaf` is a node without children with its text.
#[derive(Clone, Debug)]
enum Tree {
    Leaf(Node, String),
    List(Vec<Tree>),
    Negate(Box<Tree>),
    Arithmetic(ArithmeticOperator, Box<Tree>, Box<Tree>),
    Comparison(ComparisonOperator, Box<Tree>, Box<Tree>),
    Membership(Box<Tree>, Vec<Tree>, bool),
    Call(usize, Vec<Tree>),
    Not(Box<Tree>),
    All(Vec<Tree>),
    Any(Vec<Tree>),
}

/// How keywords and gaps are written; neither changes the meaning.
#[derive(Clone, Copy, Debug)]
struct Style {
    upper: bool,
    gap: &'static str,
}

impl Style {
    fn word(self, word: &str) -> String {
        let word = if self.upper { word.to_uppercase() } else { word.to_lowercase() };
        format!("{}{word}{}", self.gap, self.gap)
    }
}

impl Tree {
    fn print(&self, style: Style) -> String {
        let gap = style.gap;
        let operand = |tree: &Tree| match tree {
            Tree::Leaf(_, text) => text.clone(),
            other => format!("({})", other.print(style)),
        };
        let joined = |trees: &[Tree], word: &str| trees.iter().map(operand).collect::<Vec<_>>().join(&style.word(word));
        let listed = |trees: &[Tree]| trees.iter().map(|tree| tree.print(style)).collect::<Vec<_>>().join(",");
        match self {
            Self::Leaf(_, text) => text.clone(),
            Self::List(elements) => format!("[ {}]", listed(elements)),
            Self::Negate(inner) => format!("-{gap}({})", inner.print(style)),
            Self::Arithmetic(operator, left, right) => {
                let operator = ["+", "-", "*", "/", "%"][*operator as usize];
                format!("{}{gap}{operator}{gap}{}", operand(left), operand(right))
            }
            Self::Comparison(operator, left, right) => {
                let operator = ["=", "!=", "<", "<=", ">", ">="][*operator as usize];
                format!("{}{gap}{operator}{gap}{}", operand(left), operand(right))
            }
            Self::Membership(value, candidates, negated) => {
                let word = style.word(if *negated { "NIN" } else { "IN" });
                format!("{}{word}[{}]", operand(value), listed(candidates))
            }
            Self::Call(function, arguments) => {
                let name = FUNCTIONS[*function].names[0];
                let name = if style.upper { name.to_owned() } else { name.to_lowercase() };
                format!("{name}{gap}({})", listed(arguments))
            }
            Self::Not(inner) => format!("{}{}", style.word("NOT"), operand(inner)),
            Self::All(operands) => joined(operands, "AND"),
            Self::Any(operands) => joined(operands, "OR"),
        }
    }

    /// The nodes in the order of completion, and the index of this one.
    fn emit(&self, nodes: &mut Vec<Node>) -> u32 {
        let mut child = |tree: &Tree| tree.emit(nodes);
        let node = match self {
            Self::Leaf(node, _) => node.clone(),
            Self::List(elements) => Node::List(elements.iter().map(child).collect()),
            Self::Negate(inner) => Node::Negate(child(inner)),
            Self::Arithmetic(operator, left, right) => {
                Node::Arithmetic(Arithmetic { operator: *operator, left: child(left), right: child(right) })
            }
            Self::Comparison(operator, left, right) => {
                Node::Comparison(Comparison { operator: *operator, left: child(left), right: child(right) })
            }
            Self::Membership(value, candidates, negated) => {
                let value = child(value);
                let candidates = candidates.iter().map(child).collect();
                Node::Membership(Membership { value, candidates, negated: *negated })
            }
            Self::Call(function, arguments) => Node::Call(Call {
                function: FUNCTIONS[*function].function,
                arguments: arguments.iter().map(child).collect(),
            }),
            Self::Not(inner) => Node::Not(child(inner)),
            Self::All(operands) => Node::All(operands.iter().map(child).collect()),
            Self::Any(operands) => Node::Any(operands.iter().map(child).collect()),
        };
        nodes.push(node);
        u32::try_from(nodes.len() - 1).unwrap()
    }
}

fn quoted(text: &str, quote: char) -> String {
    let mut written = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => written.push_str("\\\\"),
            '\u{7F}'.. => written.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}"))),
            c if c == quote => written.extend([c, c]),
            c => written.push(c),
        }
    }
    written.push(quote);
    written
}

fn constant() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(Tree::Leaf(Node::Undefined, "undefined".into())),
        Just(Tree::Leaf(Node::Null, "Null".into())),
        any::<bool>().prop_map(|value| Tree::Leaf(Node::Boolean(value), value.to_string())),
        (-1e6..1e6).prop_map(|value: f64| Tree::Leaf(Node::Number(value), format!("{value:?}"))),
        any::<f64>()
            .prop_filter("finite", |value| value.is_finite())
            .prop_map(|value| Tree::Leaf(Node::Number(value), format!("{value:e}"))),
        any::<u32>().prop_map(|value| Tree::Leaf(Node::Number(f64::from(value)), format!("0x{value:X}"))),
        (any::<String>(), prop_oneof![Just('\''), Just('"')])
            .prop_map(|(text, quote)| Tree::Leaf(Node::Text(text.clone()), quoted(&text, quote))),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| prop::collection::vec(inner, 1..3).prop_map(Tree::List))
}

fn steps() -> impl Strategy<Value = (Vec<Step>, String)> {
    let step = prop_oneof![
        "[A-Za-z_$][A-Za-z0-9_$]{0,5}".prop_map(|name| (Step::Member(folded(&name)), format!(".{name}"))),
        "[A-Za-z0-9 ._#|-]{1,6}"
            .prop_map(|name| name.replace(' ', "ö"))
            .prop_map(|name| (Step::Member(folded(&name)), format!(".[[{name}]]"))),
        any::<u32>().prop_map(|index| (Step::Element(index), format!("[{index}]"))),
    ];
    prop::collection::vec(step, 0..4).prop_map(|steps| {
        let (steps, texts): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
        (steps, texts.concat())
    })
}

fn reference() -> impl Strategy<Value = Tree> {
    prop_oneof![
        "[A-Za-z_][A-Za-z0-9_]{0,6}"
            .prop_filter("keywords are no names", |name| Keyword::of(name).is_none())
            .prop_map(|name| Tree::Leaf(Node::ApplicationProperty(vec![folded(&name)]), name)),
        "[a-zA-Z0-9.$#-]{1,8}"
            .prop_map(|name| Tree::Leaf(Node::ApplicationProperty(vec![folded(&name)]), format!("[[{name}]]"))),
        "zz[a-z0-9]{1,6}".prop_map(|name| {
            Tree::Leaf(Node::ApplicationProperty(vec![format!("${name}"), name.clone()]), format!("${name}"))
        }),
        (0..SYSTEM_PROPERTIES.len()).prop_map(|place| {
            let (name, property) = SYSTEM_PROPERTIES[place];
            Tree::Leaf(Node::SystemProperty(property), format!("${name}"))
        }),
        steps().prop_map(|(mut steps, text)| {
            steps.insert(0, Step::Member("x".into()));
            Tree::Leaf(Node::Body(steps), format!("$body.x{text}"))
        }),
        (0..3_usize, steps()).prop_map(|(section, (steps, text))| {
            let prefix = ["$twin.tags", "$Twin.Properties.desired", "$twin.properties.REPORTED"][section];
            let section = [TwinSection::Tags, TwinSection::Desired, TwinSection::Reported][section];
            Tree::Leaf(Node::Twin(TwinPath { section, steps }), format!("{prefix}{text}"))
        }),
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    use ArithmeticOperator::*;
    use ComparisonOperator::*;
    let arithmetic = prop::sample::select(vec![Add, Subtract, Multiply, Divide, Remainder]);
    let comparison = prop::sample::select(vec![Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual]);
    prop_oneof![2 => reference(), 1 => constant()].prop_recursive(6, 40, 4, move |inner| {
        let boxed = inner.clone().prop_map(Box::new);
        let several = prop::collection::vec(inner.clone(), 2..4);
        prop_oneof![
            boxed.clone().prop_map(Tree::Negate),
            boxed.clone().prop_map(Tree::Not),
            (arithmetic.clone(), boxed.clone(), boxed.clone()).prop_map(|(op, l, r)| Tree::Arithmetic(op, l, r)),
            (comparison.clone(), boxed.clone(), boxed.clone()).prop_map(|(op, l, r)| Tree::Comparison(op, l, r)),
            (boxed, prop::collection::vec(constant(), 1..4), any::<bool>())
                .prop_map(|(value, candidates, negated)| Tree::Membership(value, candidates, negated)),
            several.clone().prop_map(Tree::All),
            several.prop_map(Tree::Any),
            (0..FUNCTIONS.len()).prop_flat_map(move |place| {
                let arity = FUNCTIONS[place].fewest..=FUNCTIONS[place].most.min(4);
                prop::collection::vec(inner.clone(), arity).prop_map(move |arguments| Tree::Call(place, arguments))
            }),
        ]
    })
}

/// Pieces of conditions; strung together at random they reach deep into the parser.
const PIECES: &[&str] = &[
    "level",
    "$body",
    "$body.a",
    "[0]",
    "[[",
    "]]",
    "[",
    "]",
    "(",
    ")",
    ",",
    ".",
    "=",
    "!=",
    "<",
    "AND",
    "OR",
    "NOT",
    "IN",
    "NIN",
    "'x'",
    "\"y\"",
    "5",
    ".5",
    "0x1F",
    "-",
    "+",
    "*",
    "/",
    "%",
    "null",
    "true",
    "undefined",
    "$twin.tags.a",
    "$contentType",
    "is_defined(",
    "concat(",
    "abs(",
    "/*",
    "*/",
    "'",
    "\\u00",
    "$",
    "ö",
    "\n",
    " ",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn printed_trees_parse_to_themselves(
        tree in tree(),
        upper: bool,
        gap in prop::sample::select(vec![" ", "\n\t", "/* x = 'y' */"]),
    ) {
        let text = tree.print(Style { upper, gap });
        let mut nodes = Vec::new();
        tree.emit(&mut nodes);
        let parsed = parser::parse(&text).map_err(|problem| TestCaseError::fail(format!("{text}: {problem:?}")))?;
        prop_assert_eq!(&parsed.nodes, &nodes, "{}", text);
        for (start, end) in parsed.spans {
            prop_assert!(start < end && text.get(start..end).is_some());
        }
        // Trees of any types are compiled or refused.
        let _ = compile(&text, Source::DeviceMessages);
    }

    #[test]
    fn any_text_is_compiled_or_refused(text in any::<String>()) {
        refused_well(&text)?;
    }

    #[test]
    fn any_pieces_are_compiled_or_refused(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..24), spaced: bool) {
        refused_well(&pieces.join(if spaced { " " } else { "" }))?;
    }
}

/// Nothing panics, and what is refused is refused with an error in a place that exists.
fn refused_well(text: &str) -> Result<(), TestCaseError> {
    let (refused, diagnostics) = match compile(text, Source::DeviceMessages) {
        Ok(compiled) => (false, compiled.warnings),
        Err(diagnostics) => (true, diagnostics),
    };
    prop_assert_eq!(refused, diagnostics.iter().any(|diagnostic| diagnostic.severity == crate::Severity::Error));
    for diagnostic in diagnostics {
        let (start, end) = (diagnostic.start.offset as usize, diagnostic.end.offset as usize);
        prop_assert!(text.get(start..end).is_some(), "{}: {:?}", text, diagnostic);
        prop_assert!(!diagnostic.message.is_empty());
    }
    Ok(())
}
