//! The paths that conditions follow into one JSON document, as one tree, so that one pass finds them all.

use super::tables::NameTable;
use super::vocabulary::TermId;
use crate::program::Step;

/// The place of a node in the tree; [`NOWHERE`] is no node.
pub(super) type PathId = u32;

/// No path leads here.
pub(super) const NOWHERE: PathId = PathId::MAX;

/// The top of the document.
pub(super) const TOP: PathId = 0;

/// Paths that share their beginnings.
#[derive(Clone, Debug)]
pub(super) struct PathTree {
    nodes: Vec<PathNode>,
    /// What is asked of every value, for each node.
    goals: Vec<Goal>,
    terms: Vec<TermId>,
}

/// What a node is for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Goal {
    /// The term whose path ends here.
    pub(super) term: Option<TermId>,
    /// Paths lead further.
    pub(super) is_inner: bool,
}

/// A place that a path leads to or through.
#[derive(Clone, Debug, Default)]
struct PathNode {
    members: NameTable,
    /// Rising.
    elements: Vec<(u32, PathId)>,
}

impl Default for PathTree {
    fn default() -> Self {
        Self { nodes: vec![PathNode::default()], goals: vec![Goal::default()], terms: Vec::new() }
    }
}

impl PathTree {
    /// Adds a path, which ends at `term`.
    pub(super) fn insert(&mut self, steps: &[Step], term: TermId) {
        let end = steps.iter().fold(TOP, |node, step| self.child(node, step));
        if let Some(goal) = self.goals.get_mut(end as usize) {
            goal.term = Some(term);
        }
        self.terms.push(term);
    }

    fn child(&mut self, parent: PathId, step: &Step) -> PathId {
        let new = u32::try_from(self.nodes.len()).unwrap_or(NOWHERE);
        let Some(node) = self.node_mut(parent) else { return NOWHERE };
        let child = match step {
            Step::Member(name) => node.members.get_or_insert(name, new),
            Step::Element(index) => match node.elements.binary_search_by_key(index, |(known, _)| *known) {
                Ok(place) => node.elements.get(place).map_or(NOWHERE, |(_, child)| *child),
                Err(place) => {
                    node.elements.insert(place, (*index, new));
                    new
                }
            },
        };
        if child == new {
            self.nodes.push(PathNode::default());
            self.goals.push(Goal::default());
        }
        if let Some(goal) = self.goals.get_mut(parent as usize) {
            goal.is_inner = true;
        }
        child
    }

    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Every term that some path ends at.
    pub(super) fn terms(&self) -> &[TermId] {
        &self.terms
    }

    /// What a node is for; [`NOWHERE`] is for nothing.
    #[inline]
    pub(super) fn goal(&self, node: PathId) -> Goal {
        self.goals.get(node as usize).copied().unwrap_or_default()
    }

    /// Whether a path leads into the members of an object here.
    pub(super) fn has_members(&self, node: PathId) -> bool {
        self.node(node).is_some_and(|node| !node.members.is_empty())
    }

    /// The node of a member.
    pub(super) fn member(&self, node: PathId, name: &str) -> PathId {
        self.node(node).and_then(|node| node.members.get(name)).unwrap_or(NOWHERE)
    }

    /// The node of a member with a name of ASCII characters.
    #[inline]
    pub(super) fn ascii_member(&self, node: PathId, name: &[u8]) -> PathId {
        self.node(node).and_then(|node| node.members.get_ascii(name)).unwrap_or(NOWHERE)
    }

    /// The elements of an array that paths lead to, with rising indices.
    pub(super) fn elements(&self, node: PathId) -> &[(u32, PathId)] {
        self.node(node).map_or(&[], |node| &node.elements)
    }

    fn node(&self, node: PathId) -> Option<&PathNode> {
        self.nodes.get(node as usize)
    }

    fn node_mut(&mut self, node: PathId) -> Option<&mut PathNode> {
        self.nodes.get_mut(node as usize)
    }
}
