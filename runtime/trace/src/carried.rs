//! A span that travels with a value.

use tracing::Span;

/// The spans of a message, or nothing. One word, because messages are many; equal to any other, because a message is the
/// same whether it is watched or not.
#[derive(Clone, Debug, Default)]
pub struct Carried(Option<Box<Spans>>);

#[derive(Clone, Debug)]
struct Spans {
    outer: Span,
    inner: Span,
}

impl Carried {
    /// `inner` within `outer`, if they are recorded. Both last until this is dropped.
    pub fn new(outer: Span, inner: Span) -> Self {
        Self((!inner.is_disabled()).then(|| Box::new(Spans { outer, inner })))
    }

    /// A span within the carried ones, if there are any.
    pub fn within(&self, span: impl FnOnce() -> Span) -> Option<Span> {
        self.0.as_ref().map(|carried| carried.inner.in_scope(span))
    }
}

/// A span ends when it was left last.
impl Drop for Spans {
    fn drop(&mut self) {
        self.inner.in_scope(|| ());
        self.outer.in_scope(|| ());
    }
}

impl PartialEq for Carried {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Carried {}
