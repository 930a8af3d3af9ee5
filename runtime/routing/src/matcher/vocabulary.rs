//! What the conditions of a hub read: each property, path and computed value once, whatever the number of routes.

use std::collections::HashMap;
use std::sync::Arc;

use super::paths::PathTree;
use super::patterns::{Pattern, PatternSet};
use super::tables::NameTable;
use crate::program::{Node, NodeIndex, Program, Step, SystemProperty, TwinPath};

/// The place of a term in the vocabulary.
pub(super) type TermId = u32;

/// Something that has a value for each message.
#[derive(Clone, Debug)]
pub(super) enum Term {
    /// An application property.
    Application,
    /// A system property.
    System(SystemProperty),
    /// A path into the body.
    Body(Arc<[Step]>),
    /// A path into the twin.
    Twin(Arc<TwinPath>),
    /// The first of two terms that is defined.
    First(TermId, TermId),
    /// Whether a text starts with, ends with or contains a constant. Undefined where it is no text.
    Pattern(TermId),
    /// The value of a part of a condition, computed by the interpreter. The terms it reads are in
    /// [`Vocabulary::operands`].
    Computed(Arc<Program>, NodeIndex),
    /// The verdict of a whole condition, by the interpreter: what makes so much text that its work has to be counted.
    Interpreted(Arc<Program>),
}

/// How costly it is to know a term, cheapest first. Whatever is already decided by cheap terms leaves the costly ones
/// unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cost {
    /// The properties are at hand.
    Property,
    /// The body has to be read.
    Body,
    /// The interpreter has to run.
    Computed,
    /// The twin has to be fetched.
    Twin,
}

/// Every term of some conditions. It only grows, so numbers of terms stay valid in a copy that knows more.
#[derive(Clone, Debug, Default)]
pub(super) struct Vocabulary {
    terms: Vec<Term>,
    costs: Vec<Cost>,
    keys: HashMap<Key, TermId>,
    /// The application properties by name.
    pub(super) application: NameTable,
    application_terms: Vec<TermId>,
    /// The paths into the body.
    pub(super) body: PathTree,
    /// The paths into each section of the twin.
    pub(super) twin: [PathTree; 3],
    /// The leaves of computed terms: the node and the term that it is.
    operands: HashMap<TermId, Arc<[(NodeIndex, TermId)]>>,
    /// The patterns of each text term, in sets; later additions make further sets.
    patterns: HashMap<TermId, Vec<Arc<PatternSet>>>,
    /// Patterns that are not in a set yet.
    pending: Vec<(TermId, Pattern, TermId)>,
}

/// What makes two terms the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Application(String),
    System(SystemProperty),
    Body(Vec<Step>),
    Twin(TwinPath),
    First(TermId, TermId),
    Pattern(TermId, Pattern),
    /// The part of the condition, written in a way that is the same for equal parts.
    Computed(String),
}

impl Vocabulary {
    /// How many terms there are.
    pub(super) fn len(&self) -> usize {
        self.terms.len()
    }

    pub(super) fn term(&self, id: TermId) -> Option<&Term> {
        self.terms.get(usize::try_from(id).ok()?)
    }

    pub(super) fn cost(&self, id: TermId) -> Cost {
        usize::try_from(id).ok().and_then(|id| self.costs.get(id)).copied().unwrap_or(Cost::Twin)
    }

    /// The leaves of a computed term.
    pub(super) fn operands(&self, id: TermId) -> &[(NodeIndex, TermId)] {
        self.operands.get(&id).map_or(&[], |operands| operands)
    }

    /// The sets of patterns that a text term is searched for.
    pub(super) fn patterns(&self, text: TermId) -> &[Arc<PatternSet>] {
        self.patterns.get(&text).map_or(&[], Vec::as_slice)
    }

    /// The terms that are application properties.
    pub(super) fn application_terms(&self) -> &[TermId] {
        &self.application_terms
    }

    fn intern(&mut self, key: Key, term: impl FnOnce(&mut Self) -> (Term, Cost)) -> TermId {
        if let Some(&known) = self.keys.get(&key) {
            return known;
        }
        let (term, cost) = term(self);
        // Conditions of 100,000 routes have far fewer than 2^32 parts.
        let id = TermId::try_from(self.terms.len()).unwrap_or(TermId::MAX);
        match (&key, &term) {
            (Key::Body(steps), _) => self.body.insert(steps, id),
            (Key::Twin(path), _) => self.twin[path.section as usize].insert(&path.steps, id),
            (Key::Application(name), _) => {
                self.application.get_or_insert(name, id);
                self.application_terms.push(id);
            }
            (Key::Pattern(text, pattern), _) => self.pending.push((*text, pattern.clone(), id)),
            _ => {}
        }
        self.terms.push(term);
        self.costs.push(cost);
        self.keys.insert(key, id);
        id
    }

    /// The term for a leaf that reads the message; `None` for other nodes.
    pub(super) fn leaf(&mut self, node: &Node) -> Option<TermId> {
        Some(match node {
            Node::ApplicationProperty(names) => {
                let mut ids = names.iter().map(|name| crate::names::folded(name)).map(Key::Application);
                let first = self.intern(ids.next()?, |_| (Term::Application, Cost::Property));
                match ids.next() {
                    None => first,
                    Some(second) => {
                        let second = self.intern(second, |_| (Term::Application, Cost::Property));
                        self.intern(Key::First(first, second), |_| (Term::First(first, second), Cost::Property))
                    }
                }
            }
            Node::SystemProperty(property) => {
                self.intern(Key::System(*property), |_| (Term::System(*property), Cost::Property))
            }
            Node::Body(steps) => {
                let steps = folded_steps(steps);
                let shared = Arc::from(steps.as_slice());
                self.intern(Key::Body(steps), |_| (Term::Body(shared), Cost::Body))
            }
            Node::Twin(path) => {
                let path = TwinPath { section: path.section, steps: folded_steps(&path.steps) };
                let shared = Arc::new(path.clone());
                self.intern(Key::Twin(path), |_| (Term::Twin(shared), Cost::Twin))
            }
            _ => return None,
        })
    }

    /// The term that says whether `text` fits a pattern.
    pub(super) fn pattern(&mut self, text: TermId, pattern: Pattern) -> TermId {
        let cost = self.cost(text);
        self.intern(Key::Pattern(text, pattern), |_| (Term::Pattern(text), cost))
    }

    /// The term for a part of a condition that is not a leaf.
    pub(super) fn computed(&mut self, program: &Arc<Program>, root: NodeIndex) -> TermId {
        let (mut key, mut operands) = (String::new(), Vec::new());
        self.describe(program, root, &mut key, &mut operands);
        let reads = operands.iter().map(|(_, term)| self.cost(*term)).max();
        let cost = reads.map_or(Cost::Computed, |cost| cost.max(Cost::Computed));
        self.intern(Key::Computed(key), |vocabulary| {
            let id = TermId::try_from(vocabulary.terms.len()).unwrap_or(TermId::MAX);
            vocabulary.operands.insert(id, operands.into());
            (Term::Computed(Arc::clone(program), root), cost)
        })
    }

    /// The term for a whole condition that the interpreter has to run.
    pub(super) fn interpreted(&mut self, program: &Arc<Program>) -> TermId {
        let mut key = "condition ".to_owned();
        self.describe(program, program.root(), &mut key, &mut Vec::new());
        let cost = if program.needs_twin() { Cost::Twin } else { Cost::Computed };
        self.intern(Key::Computed(key), |_| (Term::Interpreted(Arc::clone(program)), cost))
    }

    /// Writes a part of a condition so that equal parts, and only those, are written alike.
    fn describe(
        &mut self,
        program: &Program,
        index: NodeIndex,
        key: &mut String,
        operands: &mut Vec<(NodeIndex, TermId)>,
    ) {
        use std::fmt::Write as _;
        let Some(node) = program.node(index) else { return };
        // Writing into a string cannot fail.
        let _ = if let Some(term) = self.leaf(node) {
            operands.push((index, term));
            write!(key, "t{term}")
        } else {
            match node {
                Node::Number(number) => write!(key, "n{}", number.to_bits()),
                Node::Text(text) => write!(key, "s{}:{text}", text.len()),
                Node::Boolean(value) => write!(key, "{value}"),
                Node::Arithmetic { operator, .. } => write!(key, "{operator:?}"),
                Node::Comparison { operator, .. } => write!(key, "{operator:?}"),
                Node::Membership { negated, .. } => write!(key, "In{negated}"),
                Node::Call { function, .. } => write!(key, "{function:?}"),
                Node::Undefined => write!(key, "undefined"),
                Node::Null => write!(key, "null"),
                Node::List(_) => write!(key, "List"),
                Node::Negate(_) => write!(key, "-"),
                Node::Not(_) => write!(key, "Not"),
                Node::All(_) => write!(key, "All"),
                Node::Any(_) => write!(key, "Any"),
                // Leaves, which have a term.
                Node::ApplicationProperty(_) | Node::SystemProperty(_) | Node::Body(_) | Node::Twin(_) => Ok(()),
            }
        };
        key.push('(');
        node.children(|child| {
            self.describe(program, child, key, operands);
            key.push(',');
        });
        key.push(')');
    }

    /// Makes sets of the patterns that came since the last call.
    pub(super) fn prepare_patterns(&mut self) {
        let mut sets: HashMap<TermId, Vec<(Pattern, TermId)>> = HashMap::new();
        for (text, pattern, term) in self.pending.drain(..) {
            sets.entry(text).or_default().push((pattern, term));
        }
        for (text, patterns) in sets {
            self.patterns.entry(text).or_default().push(Arc::new(PatternSet::new(patterns)));
        }
    }
}

fn folded_steps(steps: &[Step]) -> Vec<Step> {
    let fold = |step: &Step| match step {
        Step::Member(name) => Step::Member(crate::names::folded(name)),
        Step::Element(index) => Step::Element(*index),
    };
    steps.iter().map(fold).collect()
}
