//! References to what a message has: application properties, system properties, the body, the twin.

use super::{Parse, Parser};
use crate::diagnose::Problem;
use crate::lexer::{Symbol, Token, UNQUERYABLE_MESSAGE, starts_name};
use crate::names::{SYSTEM_PROPERTIES, folded, nearest, system_property};
use crate::{Node, NodeIndex, Step, TwinPath, TwinSection};

impl<'a> Parser<'a> {
    /// A name without `$`, and further names after dots: the name of one application property, for these are flat. The
    /// lexer stands behind the first name.
    pub(super) fn application_property(&mut self, first: &str, start: usize, escaped: bool) -> Parse<NodeIndex> {
        let mut name = first.to_owned();
        loop {
            let before = self.lexer.clone();
            self.lexer.skip_blank()?;
            let at = self.lexer.at();
            if self.lexer.eat(".") {
                self.lexer.skip_blank()?;
                name.push('.');
                name.push_str(self.lexer.segment()?);
            } else if self.lexer.eat("[") {
                let message = "application properties are strings and have no elements";
                return Err(Problem::new(start, at + 1, message)
                    .expected("a path into the body: $body.name[0]")
                    .into());
            } else {
                self.lexer = before;
                break;
            }
        }
        self.advance_to_end_of_path(start)?;
        if !escaped && name.contains('.') {
            let head = first.to_ascii_lowercase();
            let written = self.text.get(start..self.end).unwrap_or("");
            let suggestion = match head.as_str() {
                "body" | "twin" => format!("${written}"),
                "tags" | "properties" => format!("$twin.{written}"),
                _ => format!("$body.{written}"),
            };
            let message = format!(
                "application properties are flat: this reads the property whose whole name is `{name}`. Paths start with \
                 $body or $twin; [[{name}]] says that the property is meant"
            );
            self.parsed.warnings.push(Problem::new(start, self.end, message).suggestion(suggestion));
        }
        self.push(Node::ApplicationProperty(vec![folded(&name)]), start, &[])
    }

    /// `$` and a name: the body, the twin, a system property, or an application property. The lexer stands behind it.
    pub(super) fn dollar(&mut self, name: &'a str, start: usize) -> Parse<NodeIndex> {
        if name.eq_ignore_ascii_case("body") {
            return self.body(start);
        }
        if name.eq_ignore_ascii_case("twin") {
            return self.twin(start);
        }
        let name = if name.is_empty() {
            let at = self.lexer.at();
            if !self.lexer.eat("[[") {
                let problem = Problem::new(start, at, "`$` is followed by a name");
                return Err(problem.expected("$body, $twin or the name of a system property").into());
            }
            self.lexer.escaped(at)?
        } else {
            name
        };
        let mut ahead = self.lexer.clone();
        ahead.skip_blank()?;
        if ahead.eat(".") || ahead.eat("[") {
            let message = "system properties are strings and have no members or elements";
            return Err(Problem::new(start, ahead.at(), message).expected("$body or $twin before a path").into());
        }
        self.advance_to_end_of_path(start)?;
        if let Some(property) = system_property(name) {
            return self.push(Node::SystemProperty(property), start, &[]);
        }
        if let Some(known) = nearest(name, SYSTEM_PROPERTIES.into_iter().map(|(known, _)| known)) {
            let message =
                format!("`${name}` is not a system property; this reads an application property of that name");
            self.parsed.warnings.push(Problem::new(start, self.end, message).suggestion(format!("${known}")));
        }
        let name = folded(name);
        self.push(Node::ApplicationProperty(vec![format!("${name}"), name]), start, &[])
    }

    fn body(&mut self, start: usize) -> Parse<NodeIndex> {
        let steps = self.steps()?;
        self.advance_to_end_of_path(start)?;
        match steps.first() {
            Some(Step::Member(_)) => self.push(Node::Body(steps), start, &[]),
            Some(Step::Element(_)) => {
                let message =
                    "an element of the body itself is always undefined; only arrays within an object can be queried";
                self.parsed.warnings.push(Problem::new(start, self.end, message).expected("$body.name[0]"));
                self.push(Node::Undefined, start, &[])
            }
            None => {
                let problem = Problem::new(start, self.end, "the whole body cannot be queried");
                Err(problem.expected("a path into the body, such as $body.temperature").into())
            }
        }
    }

    fn twin(&mut self, start: usize) -> Parse<NodeIndex> {
        let mut steps = self.steps()?.into_iter();
        self.advance_to_end_of_path(start)?;
        let mut member = || if let Some(Step::Member(name)) = steps.next() { Some(name) } else { None };
        let section = match member().as_deref() {
            Some("tags") => Some(TwinSection::Tags),
            Some("properties") => match member().as_deref() {
                Some("desired") => Some(TwinSection::Desired),
                Some("reported") => Some(TwinSection::Reported),
                _ => None,
            },
            _ => None,
        };
        match section {
            Some(section) => self.push(Node::Twin(TwinPath { section, steps: steps.collect() }), start, &[]),
            None => {
                let problem = Problem::new(
                    start,
                    self.end,
                    "only tags, desired and reported properties of a twin can be queried",
                );
                Err(problem.expected("$twin.tags, $twin.properties.desired or $twin.properties.reported").into())
            }
        }
    }

    /// The steps of a path. The lexer stands behind the root and is left behind the last step.
    fn steps(&mut self) -> Parse<Vec<Step>> {
        let mut steps = Vec::new();
        loop {
            let before = self.lexer.clone();
            self.lexer.skip_blank()?;
            if self.lexer.eat(".") {
                self.lexer.skip_blank()?;
                steps.push(Step::Member(folded(self.lexer.segment()?)));
            } else if self.lexer.eat("[") {
                steps.push(Step::Element(self.element()?));
            } else {
                self.lexer = before;
                return Ok(steps);
            }
        }
    }

    /// An index after its opening bracket, and the closing one.
    fn element(&mut self) -> Parse<u32> {
        let (token, start) = self.lexer.token()?;
        let end = self.lexer.at();
        let written = self.text.get(start..end).unwrap_or("");
        let index = match token {
            Token::Number(_) => written.parse().ok(),
            _ => None,
        };
        let Some(index) = index else {
            let problem = Problem::new(start, end, "the index of an element is a whole number from 0");
            return Err(match token {
                Token::Text(name) if name.starts_with(starts_name) => problem.expected("`.` and a name for a member"),
                Token::Symbol(Symbol::OpenBracket) => problem.expected("`.` before an escaped name: .[[name]]"),
                _ => problem.expected("a number"),
            }
            .into());
        };
        match self.lexer.token()? {
            (Token::Symbol(Symbol::CloseBracket), _) => Ok(index),
            (_, start) => {
                Err(Problem::new(start, self.lexer.at(), "the index of an element has no end").expected("`]`").into())
            }
        }
    }

    /// Takes the tokens that the lexer has passed since `start` as one.
    fn advance_to_end_of_path(&mut self, start: usize) -> Parse<()> {
        self.end = self.lexer.at();
        (self.token, self.start) = self.lexer.token()?;
        // `a(` is a call, so a name directly before a parenthesis is a call of something that cannot be called.
        if self.token == Token::Symbol(Symbol::Open) && self.start == self.end {
            let message = format!("only functions can be called; {UNQUERYABLE_MESSAGE}");
            return Err(Problem::new(start, self.lexer.at(), message).into());
        }
        Ok(())
    }
}
