//! What is known of one message: every term at most once, and only when somebody asks.

use std::borrow::Cow;

use super::extract::{Marks, extract};
use super::slot::{Origin, Slot, TextPlace};
use super::vocabulary::{Term, TermId, Vocabulary};
use crate::evaluate::{Verdict, evaluate, value_of_part};
use crate::message::MessageView;
use crate::program::{SystemProperty, TwinSection};
use crate::value::Value;

/// Memory that is kept between messages.
#[derive(Debug, Default)]
pub(super) struct Memory {
    slots: Vec<Slot>,
    /// Texts that stand nowhere in the message as they are.
    texts: String,
    marks: Marks,
    /// The text terms that were searched for their patterns, and the patterns that were found.
    searched: Vec<TermId>,
    found: Vec<(TermId, TermId)>,
}

/// A message under a vocabulary.
pub(super) struct State<'m, 'v> {
    vocabulary: &'m Vocabulary,
    message: &'m MessageView<'v>,
    memory: &'m mut Memory,
    /// The body in UTF-8, once it has been asked for.
    body: Option<Cow<'v, [u8]>>,
}

impl<'m, 'v> State<'m, 'v> {
    pub(super) fn new(vocabulary: &'m Vocabulary, message: &'m MessageView<'v>, memory: &'m mut Memory) -> Self {
        memory.slots.clear();
        memory.slots.resize(vocabulary.len(), Slot::Unknown);
        memory.texts.clear();
        memory.searched.clear();
        memory.found.clear();
        Self { vocabulary, message, memory, body: None }
    }

    /// The value of a term.
    #[inline]
    pub(super) fn slot(&mut self, term: TermId) -> Slot {
        match self.known(term) {
            Slot::Unknown => self.resolve(term),
            known => known,
        }
    }

    fn known(&self, term: TermId) -> Slot {
        self.memory.slots.get(term as usize).copied().unwrap_or(Slot::Undefined)
    }

    fn set(&mut self, term: TermId, slot: Slot) {
        if let Some(place) = self.memory.slots.get_mut(term as usize) {
            *place = slot;
        }
    }

    /// The bytes of a text.
    #[inline]
    pub(super) fn bytes(&self, place: TextPlace) -> &[u8] {
        let whole = match place.origin {
            Origin::Body => self.body.as_deref().unwrap_or(&[]),
            Origin::Scratch => self.memory.texts.as_bytes(),
            Origin::Application => {
                return self.message.property(place.start as usize).map_or(&[], |(_, value)| value.as_bytes());
            }
            Origin::System => {
                let property = SystemProperty::ALL.get(place.start as usize);
                return property.and_then(|property| self.message.system().get(*property)).map_or(&[], str::as_bytes);
            }
            Origin::Twin(section) => {
                let section = SECTIONS.get(usize::from(section));
                section.and_then(|section| self.message.twin_text(*section)).map_or::<&[u8], _>(&[], str::as_bytes)
            }
        };
        whole.get(place.start as usize..place.end as usize).unwrap_or(&[])
    }

    /// Searches a text term for its patterns, and calls `found` with each that it fits.
    pub(super) fn found_patterns(&mut self, text: TermId) -> Vec<TermId> {
        self.search(text);
        self.memory.found.iter().filter(|(of, _)| *of == text).map(|(_, pattern)| *pattern).collect()
    }

    #[cold]
    fn resolve(&mut self, term: TermId) -> Slot {
        match self.vocabulary.term(term) {
            None => return Slot::Undefined,
            Some(Term::Application) => self.read_application(),
            Some(Term::System(property)) => {
                let index = SystemProperty::ALL.iter().position(|known| known == property).unwrap_or(usize::MAX);
                let slot = match self.message.system().get(*property) {
                    Some(_) => whole_text(Origin::System, index),
                    None => Slot::Undefined,
                };
                self.set(term, slot);
            }
            Some(Term::Body(_)) => self.read_body(),
            Some(Term::Twin(path)) => self.read_twin(path.section),
            Some(&Term::First(first, second)) => {
                let slot = match self.slot(first) {
                    Slot::Undefined => self.slot(second),
                    defined => defined,
                };
                self.set(term, slot);
            }
            Some(&Term::Pattern(text)) => {
                let is_text = matches!(self.slot(text), Slot::Text(_));
                self.search(text);
                if self.known(term) == Slot::Unknown {
                    self.set(term, if is_text { Slot::Boolean(false) } else { Slot::Undefined });
                }
            }
            Some(Term::Computed(..)) => self.compute(term),
            Some(Term::Interpreted(program)) => {
                let slot = match evaluate(program, self.message) {
                    Verdict::True => Slot::Boolean(true),
                    Verdict::False => Slot::Boolean(false),
                    Verdict::Undefined => Slot::Undefined,
                };
                self.set(term, slot);
            }
        }
        self.known(term)
    }

    fn read_application(&mut self) {
        for &term in self.vocabulary.application_terms() {
            self.set(term, Slot::Undefined);
        }
        let mut index = 0;
        // Where names collide, the last property counts.
        while let Some((name, _)) = self.message.property(index) {
            if let Some(term) = self.vocabulary.application.get(name) {
                self.set(term, whole_text(Origin::Application, index));
            }
            index += 1;
        }
    }

    fn read_body(&mut self) {
        let vocabulary = self.vocabulary;
        self.body = self.message.body_text();
        let Memory { slots, texts, marks, .. } = &mut *self.memory;
        clear(slots, vocabulary.body.terms());
        let Some(body) = &self.body else { return };
        if extract(body, &vocabulary.body, Origin::Body, slots, texts, marks).is_err() {
            clear(slots, vocabulary.body.terms());
        }
    }

    fn read_twin(&mut self, section: TwinSection) {
        let number = section as u8;
        let Some(tree) = self.vocabulary.twin.get(usize::from(number)) else { return };
        let Memory { slots, texts, marks, .. } = &mut *self.memory;
        clear(slots, tree.terms());
        let Some(text) = self.message.twin_text(section) else { return };
        if extract(text.as_bytes(), tree, Origin::Twin(number), slots, texts, marks).is_err() {
            clear(slots, tree.terms());
        }
    }

    fn search(&mut self, text: TermId) {
        if self.memory.searched.contains(&text) {
            return;
        }
        self.memory.searched.push(text);
        let Slot::Text(place) = self.slot(text) else { return };
        let mut found = std::mem::take(&mut self.memory.found);
        let mut slots = std::mem::take(&mut self.memory.slots);
        let bytes = self.bytes(place);
        for set in self.vocabulary.patterns(text) {
            set.search(bytes, |pattern| {
                // One part can occur many times; it is noted once.
                if let Some(slot @ Slot::Unknown) = slots.get_mut(pattern as usize) {
                    *slot = Slot::Boolean(true);
                    found.push((text, pattern));
                }
            });
        }
        (self.memory.found, self.memory.slots) = (found, slots);
    }

    fn compute(&mut self, term: TermId) {
        let vocabulary = self.vocabulary;
        let Some(Term::Computed(program, root)) = vocabulary.term(term) else { return };
        let operands = vocabulary.operands(term);
        for (_, operand) in operands {
            self.slot(*operand);
        }
        let leaf = |index| {
            let operand = operands.iter().find(|(node, _)| *node == index);
            operand.map_or(Value::Undefined, |(_, operand)| self.value(*operand))
        };
        let value = match value_of_part(program, *root, leaf) {
            Value::Text(text) => Err(text.into_owned()),
            Value::Undefined | Value::Json(_) | Value::List(..) => Ok(Slot::Undefined),
            Value::Null => Ok(Slot::Null),
            Value::Boolean(value) => Ok(Slot::Boolean(value)),
            Value::Number(number) => Ok(Slot::Number(number)),
        };
        let slot = value.unwrap_or_else(|text| {
            let start = self.memory.texts.len();
            self.memory.texts.push_str(&text);
            let (start, end) = (u32::try_from(start), u32::try_from(self.memory.texts.len()));
            start
                .ok()
                .zip(end.ok())
                .map_or(Slot::Undefined, |(start, end)| Slot::Text(TextPlace { origin: Origin::Scratch, start, end }))
        });
        self.set(term, slot);
    }

    /// The value of a leaf that has been read, for the interpreter. Whole arrays and objects are taken from a parsed
    /// document, which is made only then.
    fn value(&self, term: TermId) -> Value<'_> {
        match self.known(term) {
            Slot::Unknown | Slot::Undefined => Value::Undefined,
            Slot::Null => Value::Null,
            Slot::Boolean(value) => Value::Boolean(value),
            Slot::Number(number) => Value::Number(number),
            Slot::Text(place) => match std::str::from_utf8(self.bytes(place)) {
                Ok(text) => Value::Text(Cow::Borrowed(text)),
                Err(_) => Value::Undefined,
            },
            Slot::Array | Slot::Object => Value::of_json(match self.vocabulary.term(term) {
                Some(Term::Body(steps)) => self.message.body_json().and_then(|body| body.at(steps)),
                Some(Term::Twin(path)) => self.message.twin_json(path),
                _ => None,
            }),
        }
    }
}

const SECTIONS: [TwinSection; 3] = [TwinSection::Tags, TwinSection::Desired, TwinSection::Reported];

fn whole_text(origin: Origin, index: usize) -> Slot {
    u32::try_from(index).map_or(Slot::Undefined, |start| Slot::Text(TextPlace { origin, start, end: start }))
}

fn clear(slots: &mut [Slot], terms: &[TermId]) {
    for &term in terms {
        if let Some(slot) = slots.get_mut(term as usize) {
            *slot = Slot::Undefined;
        }
    }
}
