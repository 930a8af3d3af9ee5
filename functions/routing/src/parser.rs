//! Tokens to nodes, by recursive descent. Nodes are numbered as they are completed, so operands come before operators.
//!
//! The grammar is that of the protocol notes, query language §1 (`condition`), with names as in routing §3.1:
//!
//! ```text
//! any        = all { OR all }
//! all        = not { AND not }
//! not        = NOT not | comparison
//! comparison = sum [ operator sum | ( IN | NIN ) "[" constant { "," constant } "]" ]
//! sum        = product { ( "+" | "-" ) product }
//! product    = factor { ( "*" | "/" | "%" ) factor }
//! factor     = "-" factor | "(" any ")" | constant | path | function "(" [ any { "," any } ] ")"
//! ```

mod paths;

use crate::diagnose::{Problem, count};
use crate::lexer::{Lexer, Symbol, Token};
use crate::names::{FUNCTIONS, Keyword, Signature, function, nearest};
use crate::{Arithmetic, ArithmeticOperator, Call, Comparison, ComparisonOperator, Membership, Node, NodeIndex};

/// How deep parentheses, calls, arrays, `NOT` and `-` may be nested in each other. Deeper conditions are refused, so that
/// the parser needs a small part of the megabyte of stack that a component has.
pub const MAX_NESTING: usize = 64;

/// The greatest height of the tree of nodes: the host refuses higher ones. A chain of additions or multiplications counts
/// one level for each operator; AND and OR take any number of operands in one level.
pub const MAX_DEPTH: usize = 128;

/// What the parser makes of a condition.
pub(crate) struct Parsed {
    pub(crate) nodes: Vec<Node>,
    /// The bytes that each node was written as, parentheses around it excluded.
    pub(crate) spans: Vec<(usize, usize)>,
    /// What looks wrong already while reading.
    pub(crate) warnings: Vec<Problem>,
}

type Parse<T> = Result<T, Box<Problem>>;

/// Parses a condition. The last node is the root.
pub(crate) fn parse(text: &str) -> Parse<Parsed> {
    let mut parser = Parser {
        text,
        lexer: Lexer::new(text),
        token: Token::End,
        start: 0,
        end: 0,
        heights: Vec::new(),
        nesting: 0,
        parsed: Parsed { nodes: Vec::new(), spans: Vec::new(), warnings: Vec::new() },
    };
    parser.advance()?;
    if parser.token == Token::End {
        let problem =
            Problem::new(0, text.len(), "the condition is empty").expected("a condition, or `true` for all messages");
        return Err(problem.suggestion("true").into());
    }
    parser.any()?;
    match parser.token {
        Token::End => Ok(parser.parsed),
        _ => Err(parser.after_condition().into()),
    }
}

struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    /// The token that is looked at, and where it starts.
    token: Token<'a>,
    start: usize,
    /// Where the last token that was taken ends.
    end: usize,
    /// The height of the tree below each node.
    heights: Vec<usize>,
    nesting: usize,
    parsed: Parsed,
}

impl<'a> Parser<'a> {
    /// Takes the token that is looked at.
    fn advance(&mut self) -> Parse<()> {
        self.end = self.lexer.at();
        (self.token, self.start) = self.lexer.token()?;
        Ok(())
    }

    fn eat(&mut self, symbol: Symbol) -> Parse<bool> {
        let found = self.token == Token::Symbol(symbol);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn expect(&mut self, symbol: Symbol, expected: &str) -> Parse<()> {
        if self.eat(symbol)? { Ok(()) } else { Err(self.unexpected(expected).into()) }
    }

    fn keyword(&self) -> Option<Keyword> {
        if let Token::Word(word) = self.token { Keyword::of(word) } else { None }
    }

    fn eat_keyword(&mut self, keyword: Keyword) -> Parse<bool> {
        let found = self.keyword() == Some(keyword);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    /// The token that is looked at is not what the grammar asks for.
    fn unexpected(&self, expected: &str) -> Problem {
        let end = self.lexer.at();
        let message = match self.token {
            Token::End => "the condition ends too early".to_owned(),
            _ => format!("`{}` is not expected here", self.text.get(self.start..end).unwrap_or("")),
        };
        Problem::new(self.start, end, message).expected(expected)
    }

    /// Something follows a complete condition.
    fn after_condition(&self) -> Problem {
        let problem = self.unexpected("an operator, AND, OR or the end of the condition");
        let refuse = |message: &str| Problem { message: message.to_owned(), ..problem.clone() };
        match &self.token {
            Token::Symbol(Symbol::Close) => refuse("this parenthesis was not opened"),
            Token::Symbol(
                Symbol::Equal
                | Symbol::NotEqual
                | Symbol::Less
                | Symbol::LessOrEqual
                | Symbol::Greater
                | Symbol::GreaterOrEqual,
            ) => refuse("comparisons cannot be chained; combine two of them with AND"),
            Token::Word(word) if word.eq_ignore_ascii_case("not") => {
                let mut ahead = self.lexer.clone();
                match ahead.token() {
                    Ok((Token::Word(next), _)) if next.eq_ignore_ascii_case("in") => {
                        Problem { end: ahead.at(), ..refuse("`NOT IN` is written `NIN`") }.suggestion("NIN")
                    }
                    _ => refuse("conditions are combined with AND or OR").suggestion("AND NOT"),
                }
            }
            Token::Word(word) if word.eq_ignore_ascii_case("is") => {
                refuse("there is no operator `IS`; use is_defined(…), is_null(…) and so on")
            }
            Token::Word(word) if word.eq_ignore_ascii_case("like") => {
                refuse("there is no operator `LIKE`; use starts_with(…), ends_with(…) or contains(…)")
            }
            Token::Word(word) if word.eq_ignore_ascii_case("between") => {
                refuse("there is no operator `BETWEEN`; combine two comparisons with AND")
            }
            _ => problem,
        }
    }

    /// Completes a node.
    fn push(&mut self, node: Node, start: usize, children: &[NodeIndex]) -> Parse<NodeIndex> {
        let below = children.iter().filter_map(|&child| self.heights.get(usize::try_from(child).ok()?)).max();
        let height = below.map_or(1, |below| below + 1);
        if height > MAX_DEPTH {
            let message = format!("the condition is more than {MAX_DEPTH} levels deep; split it into several routes");
            return Err(Problem::new(start, self.end, message).into());
        }
        let index = count(self.parsed.nodes.len());
        self.parsed.nodes.push(node);
        self.parsed.spans.push((start, self.end));
        self.heights.push(height);
        Ok(index)
    }

    /// Runs a rule one level deeper.
    fn nested<T>(&mut self, rule: impl FnOnce(&mut Self) -> Parse<T>) -> Parse<T> {
        if self.nesting == MAX_NESTING {
            let message = format!("the condition is nested more than {MAX_NESTING} levels deep");
            return Err(Problem::new(self.start, self.lexer.at(), message).into());
        }
        self.nesting += 1;
        let result = rule(self);
        self.nesting -= 1;
        result
    }

    fn any(&mut self) -> Parse<NodeIndex> {
        let start = self.start;
        let mut operands = vec![self.all()?];
        while self.eat_keyword(Keyword::Or)? {
            operands.push(self.all()?);
        }
        match operands[..] {
            [only] => Ok(only),
            _ => self.push(Node::Any(operands.clone()), start, &operands),
        }
    }

    fn all(&mut self) -> Parse<NodeIndex> {
        let start = self.start;
        let mut operands = vec![self.not()?];
        while self.eat_keyword(Keyword::And)? {
            operands.push(self.not()?);
        }
        match operands[..] {
            [only] => Ok(only),
            _ => self.push(Node::All(operands.clone()), start, &operands),
        }
    }

    fn not(&mut self) -> Parse<NodeIndex> {
        let start = self.start;
        if !self.eat_keyword(Keyword::Not)? {
            return self.comparison();
        }
        let operand = self.nested(Self::not)?;
        self.push(Node::Not(operand), start, &[operand])
    }

    fn comparison(&mut self) -> Parse<NodeIndex> {
        let start = self.start;
        let left = self.sum()?;
        let operator = match self.token {
            Token::Symbol(Symbol::Equal) => ComparisonOperator::Equal,
            Token::Symbol(Symbol::NotEqual) => ComparisonOperator::NotEqual,
            Token::Symbol(Symbol::Less) => ComparisonOperator::Less,
            Token::Symbol(Symbol::LessOrEqual) => ComparisonOperator::LessOrEqual,
            Token::Symbol(Symbol::Greater) => ComparisonOperator::Greater,
            Token::Symbol(Symbol::GreaterOrEqual) => ComparisonOperator::GreaterOrEqual,
            _ => {
                return match self.keyword() {
                    Some(Keyword::In) => self.membership(left, start, false),
                    Some(Keyword::Nin) => self.membership(left, start, true),
                    _ => Ok(left),
                };
            }
        };
        self.advance()?;
        let right = self.sum()?;
        self.push(Node::Comparison(Comparison { operator, left, right }), start, &[left, right])
    }

    /// What follows the value: `IN [1, 2]`.
    fn membership(&mut self, value: NodeIndex, start: usize, negated: bool) -> Parse<NodeIndex> {
        self.advance()?;
        if self.token == Token::Symbol(Symbol::Open) {
            return Err(Problem { message: "the list of IN is written in brackets".into(), ..self.unexpected("`[`") }
                .suggestion("[")
                .into());
        }
        self.expect(Symbol::OpenBracket, "`[` and a list of constants")?;
        let candidates = self.constants()?;
        let mut children = candidates.clone();
        children.push(value);
        self.push(Node::Membership(Membership { value, candidates, negated }), start, &children)
    }

    /// Constants up to the closing bracket; at least one.
    fn constants(&mut self) -> Parse<Vec<NodeIndex>> {
        let mut constants = Vec::new();
        loop {
            constants.push(self.nested(Self::constant)?);
            if self.eat(Symbol::CloseBracket)? {
                return Ok(constants);
            }
            self.expect(Symbol::Comma, "`,` or `]`")?;
        }
    }

    fn constant(&mut self) -> Parse<NodeIndex> {
        let start = self.start;
        let negative = self.eat(Symbol::Minus)?;
        let node = match &self.token {
            Token::Number(number) => Node::Number(if negative { -number } else { *number }),
            Token::Text(text) if !negative => Node::Text(text.clone()),
            Token::Symbol(Symbol::OpenBracket) if !negative => {
                self.advance()?;
                return self.list(start);
            }
            _ => match self.keyword().and_then(constant_word).filter(|_| !negative) {
                Some(node) => node,
                None => return Err(self.unexpected("a constant: a number, string, boolean, null or array").into()),
            },
        };
        self.advance()?;
        self.push(node, start, &[])
    }

    /// A constant array after its opening bracket.
    fn list(&mut self, start: usize) -> Parse<NodeIndex> {
        let elements = self.constants()?;
        self.push(Node::List(elements.clone()), start, &elements)
    }

    fn sum(&mut self) -> Parse<NodeIndex> {
        let start = self.start;
        let mut left = self.product()?;
        loop {
            let operator = match self.token {
                Token::Symbol(Symbol::Plus) => ArithmeticOperator::Add,
                Token::Symbol(Symbol::Minus) => ArithmeticOperator::Subtract,
                _ => return Ok(left),
            };
            self.advance()?;
            let right = self.product()?;
            left = self.push(Node::Arithmetic(Arithmetic { operator, left, right }), start, &[left, right])?;
        }
    }

    fn product(&mut self) -> Parse<NodeIndex> {
        let start = self.start;
        let mut left = self.factor()?;
        loop {
            let operator = match self.token {
                Token::Symbol(Symbol::Star) => ArithmeticOperator::Multiply,
                Token::Symbol(Symbol::Slash) => ArithmeticOperator::Divide,
                Token::Symbol(Symbol::Percent) => ArithmeticOperator::Remainder,
                _ => return Ok(left),
            };
            self.advance()?;
            let right = self.factor()?;
            left = self.push(Node::Arithmetic(Arithmetic { operator, left, right }), start, &[left, right])?;
        }
    }

    fn factor(&mut self) -> Parse<NodeIndex> {
        let start = self.start;
        match self.token.clone() {
            Token::Symbol(Symbol::Minus) => {
                self.advance()?;
                if let Token::Number(number) = self.token {
                    self.advance()?;
                    return self.push(Node::Number(-number), start, &[]);
                }
                let operand = self.nested(Self::factor)?;
                self.push(Node::Negate(operand), start, &[operand])
            }
            Token::Symbol(Symbol::Open) => {
                self.advance()?;
                let inner = self.nested(Self::any)?;
                self.expect(Symbol::Close, "`)`")?;
                Ok(inner)
            }
            // `[[` opens an escaped name; an array in an array is written with a space between the brackets.
            Token::Symbol(Symbol::OpenBracket) if self.lexer.eat("[") => {
                let name = self.lexer.escaped(start)?;
                self.application_property(name, start, true)
            }
            Token::Symbol(Symbol::OpenBracket) => {
                self.advance()?;
                self.nested(|parser| parser.list(start))
            }
            Token::Number(_) | Token::Text(_) => self.constant(),
            Token::Dollar(name) => self.dollar(name, start),
            Token::Word(word) => match Keyword::of(word) {
                Some(keyword) => match constant_word(keyword) {
                    Some(_) => self.constant(),
                    None => {
                        let problem = self.unexpected("a value");
                        let message = format!("{}; a property with this name is written [[{word}]]", problem.message);
                        Err(Problem { message, ..problem }.into())
                    }
                },
                None => {
                    let mut ahead = self.lexer.clone();
                    ahead.skip_blank()?;
                    if ahead.eat("(") { self.call(word, start) } else { self.application_property(word, start, false) }
                }
            },
            _ => Err(self.unexpected("a property, a path, a constant, a function or `(`").into()),
        }
    }

    /// A function call; the name is the token that is looked at.
    fn call(&mut self, name: &str, start: usize) -> Parse<NodeIndex> {
        let Some(signature) = function(name) else {
            let usual = FUNCTIONS.iter().filter_map(|signature| signature.names.first().copied());
            let problem = Problem::new(start, self.lexer.at(), format!("there is no function `{name}`"));
            return Err(match nearest(name, usual) {
                Some(known) => problem.expected(format!("perhaps {known}")).suggestion(known),
                None => problem.expected("the name of a function"),
            }
            .into());
        };
        self.advance()?;
        self.expect(Symbol::Open, "`(`")?;
        let mut arguments = Vec::new();
        if !self.eat(Symbol::Close)? {
            loop {
                arguments.push(self.nested(Self::any)?);
                if self.eat(Symbol::Close)? {
                    break;
                }
                self.expect(Symbol::Comma, "`,` or `)`")?;
            }
        }
        if !(signature.fewest..=signature.most).contains(&arguments.len()) {
            return Err(wrong_arity(signature, arguments.len(), start, self.end).into());
        }
        let function = signature.function;
        self.push(Node::Call(Call { function, arguments: arguments.clone() }), start, &arguments)
    }
}

fn constant_word(keyword: Keyword) -> Option<Node> {
    match keyword {
        Keyword::True => Some(Node::Boolean(true)),
        Keyword::False => Some(Node::Boolean(false)),
        Keyword::Null => Some(Node::Null),
        Keyword::Undefined => Some(Node::Undefined),
        Keyword::And | Keyword::Or | Keyword::Not | Keyword::In | Keyword::Nin => None,
    }
}

fn wrong_arity(signature: &Signature, given: usize, start: usize, end: usize) -> Problem {
    let name = signature.names.first().copied().unwrap_or_default();
    let arguments = match (signature.fewest, signature.most) {
        (1, 1) => "1 argument".to_owned(),
        (fewest, most) if fewest == most => format!("{fewest} arguments"),
        (fewest, usize::MAX) => format!("{fewest} or more arguments"),
        (fewest, most) => format!("{fewest} to {most} arguments"),
    };
    Problem::new(start, end, format!("{name} takes {arguments}, not {given}")).expected(arguments)
}
