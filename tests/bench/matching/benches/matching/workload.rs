//! Telemetry and rules of a plausible hub: messages of 17 attributes in about 275 bytes from 10,000 devices at 200 sites,
//! and rules of one to four predicates, most of them about one site, of which 0.8 % match a message. Fixed seeds.

use std::fmt::Write as _;

use nave_routing::{ComparisonOperator, Node, NodeIndex, PROGRAM_VERSION, Program, ProgramParts, Span, Step};

/// The kind of an attribute's values.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Text,
    /// With this number of decimals.
    Decimal(u32),
    Integer,
    Flag,
}

/// Name for engines with flat names, path in the message, kind.
pub(crate) struct Attribute {
    pub(crate) name: &'static str,
    pub(crate) path: &'static [&'static str],
    pub(crate) kind: Kind,
}

macro_rules! attributes {
    ($($id:ident: $name:literal $path:expr => $kind:expr;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[allow(dead_code, reason = "some attributes are in messages only")]
        pub(crate) enum Id { $($id),* }
        pub(crate) const ATTRIBUTES: &[Attribute] = &[$(Attribute { name: $name, path: &$path, kind: $kind }),*];
    };
}

attributes! {
    Device: "device_id" ["deviceId"] => Kind::Text;
    Sequence: "seq" ["seq"] => Kind::Integer;
    Site: "site" ["site"] => Kind::Text;
    Region: "region" ["region"] => Kind::Text;
    Model: "model" ["model"] => Kind::Text;
    Firmware: "fw" ["fw"] => Kind::Text;
    Temperature: "temperature" ["temperature"] => Kind::Decimal(2);
    Humidity: "humidity" ["humidity"] => Kind::Decimal(2);
    Pressure: "pressure" ["pressure"] => Kind::Decimal(2);
    Battery: "battery" ["battery"] => Kind::Integer;
    Speed: "rpm" ["rpm"] => Kind::Integer;
    Status: "status" ["status"] => Kind::Text;
    Alarm: "alarm" ["alarm"] => Kind::Flag;
    Latitude: "lat" ["loc", "lat"] => Kind::Decimal(4);
    Longitude: "lon" ["loc", "lon"] => Kind::Decimal(4);
    Signal: "rssi" ["net", "rssi"] => Kind::Integer;
    Network: "nettype" ["net", "type"] => Kind::Text;
}

impl Id {
    pub(crate) fn attribute(self) -> &'static Attribute {
        &ATTRIBUTES[self as usize]
    }
}

/// A constant of a rule.
#[derive(Clone, Debug)]
pub(crate) enum Constant {
    Text(String),
    Decimal(f64),
    Integer(i64),
}

/// A rule.
#[derive(Clone, Debug)]
pub(crate) enum Rule {
    Compare(Id, ComparisonOperator, Constant),
    OneOf(Id, Vec<String>),
    Flag(Id),
    Not(Box<Rule>),
    All(Vec<Rule>),
    Any(Vec<Rule>),
}

/// What the workload is drawn from.
struct Numbers(nave_tests::numbers::Numbers);

impl Numbers {
    const fn new(seed: u64) -> Self {
        Self(nave_tests::numbers::Numbers::new(seed))
    }

    const fn below(&mut self, limit: u64) -> u64 {
        self.0.below(limit)
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        (self.0.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Near a normal distribution: the sum of twelve uniform numbers.
    fn normal(&mut self, mean: f64, deviation: f64) -> f64 {
        mean + deviation * ((0..12).map(|_| self.share()).sum::<f64>() - 6.0)
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

const REGIONS: [&str; 6] = ["eu-west", "eu-north", "us-east", "us-west", "ap-south", "ap-east"];
const NETWORKS: [&str; 4] = ["lte", "wifi", "lora", "eth"];

/// Telemetry as JSON.
pub(crate) fn messages(count: usize) -> Vec<String> {
    let mut numbers = Numbers::new(20_260_101);
    (0..count).map(|sequence| message(&mut numbers, sequence)).collect()
}

fn message(n: &mut Numbers, sequence: usize) -> String {
    let device = n.below(10_000);
    let site = device % 200;
    let state = n.below(1000);
    let mut text = String::with_capacity(300);
    let region = REGIONS[usize::try_from(site % 6).unwrap()];
    write!(text, r#"{{"deviceId":"dev-{device:06}","seq":{sequence},"site":"site-{site}","region":"{region}""#)
        .unwrap();
    write!(text, r#","model":"m-{}","fw":"2.{}.{}""#, device % 12, device % 4, device % 5).unwrap();
    write!(text, r#","temperature":{:.2},"humidity":{:.2}"#, n.normal(22.0, 6.0), n.normal(50.0, 12.0)).unwrap();
    write!(text, r#","pressure":{:.2},"battery":{},"rpm":{}"#, n.normal(1013.0, 8.0), n.below(101), n.below(6000))
        .unwrap();
    let status = if state < 940 {
        "ok"
    } else if state < 990 {
        "warn"
    } else {
        "fault"
    };
    write!(text, r#","status":"{status}","alarm":{}"#, n.below(100) < 2).unwrap();
    write!(text, r#","loc":{{"lat":{:.4},"lon":{:.4}}}"#, n.normal(52.0, 3.0), n.normal(5.0, 3.0)).unwrap();
    let signal = -40 - i64::try_from(n.below(70)).unwrap();
    write!(text, r#","net":{{"rssi":{signal},"type":"{}"}}}}"#, n.one_of(&NETWORKS)).unwrap();
    text
}

/// Rules.
pub(crate) fn rules(count: usize) -> Vec<Rule> {
    let mut numbers = Numbers::new(20_260_101 ^ 0xab_cdef);
    (0..count).map(|_| rule(&mut numbers)).collect()
}

fn rule(n: &mut Numbers) -> Rule {
    let scope = scope(n);
    let with = |scope, mut more: Vec<Rule>| {
        more.insert(0, scope);
        Rule::All(more)
    };
    match n.below(100) {
        0..20 => single(n),
        20..55 => with(scope, conditions(n, 1)),
        55..70 => with(scope, conditions(n, 2)),
        70..85 => with(scope, vec![Rule::Any(conditions(n, 2))]),
        85..95 => with(scope, conditions(n, 3)),
        _ => {
            let mut all = conditions(n, 3);
            let either = all.split_off(1);
            all.push(Rule::Any(either));
            with(scope, all)
        }
    }
}

fn is(id: Id, text: String) -> Rule {
    Rule::Compare(id, ComparisonOperator::Equal, Constant::Text(text))
}

fn device(n: &mut Numbers) -> Rule {
    is(Id::Device, format!("dev-{:06}", n.below(10_000)))
}

/// Which devices a rule is about.
fn scope(n: &mut Numbers) -> Rule {
    match n.below(10) {
        0 => device(n),
        1..=5 => is(Id::Site, format!("site-{}", n.below(200))),
        6 => is(Id::Model, format!("m-{}", n.below(12))),
        7 => is(Id::Firmware, format!("2.{}.{}", n.below(4), n.below(5))),
        _ => {
            let count = 1 + n.below(2);
            let mut regions: Vec<String> = (0..count).map(|_| n.one_of(&REGIONS).to_owned()).collect();
            regions.sort();
            regions.dedup();
            Rule::OneOf(Id::Region, regions)
        }
    }
}

/// A condition on a measured value, true for about 2 to 40 % of the messages.
fn condition(n: &mut Numbers) -> Rule {
    use ComparisonOperator::{Greater, Less, NotEqual};
    let share = n.share();
    let half = |number: f64| Constant::Decimal((number * 2.0).round() / 2.0);
    let whole = |number: f64| Constant::Integer(number as i64);
    match n.below(10) {
        0 | 1 => Rule::Compare(Id::Temperature, Greater, half(24.0 + share * 12.0)),
        2 => Rule::Compare(Id::Temperature, Less, half(8.0 + share * 12.0)),
        3 => Rule::Compare(Id::Humidity, Greater, half(54.0 + share * 24.0)),
        4 => Rule::Compare(Id::Pressure, Less, half(996.0 + share * 16.0)),
        5 => Rule::Compare(Id::Battery, Less, whole(2.0 + (share * 38.0).floor())),
        6 => Rule::Compare(Id::Speed, Greater, whole(3600.0 + (share * 23.0).floor() * 100.0)),
        7 => Rule::Compare(Id::Signal, Less, whole(-108.0 + (share * 28.0).floor())),
        8 => Rule::Compare(Id::Status, NotEqual, Constant::Text("ok".into())),
        _ => match n.below(4) {
            0 => Rule::Flag(Id::Alarm),
            1 => is(Id::Network, n.one_of(&NETWORKS).into()),
            2 => Rule::Compare(Id::Latitude, Greater, half(52.0 + share * 6.0)),
            _ => Rule::Not(Rule::OneOf(Id::Network, ["eth", "lora", "wifi"].map(str::to_owned).into()).into()),
        },
    }
}

/// A rule of one predicate, which is selective by itself.
fn single(n: &mut Numbers) -> Rule {
    use ComparisonOperator::{Greater, Less};
    let share = n.share();
    let half = |number: f64| Constant::Decimal((number * 2.0).round() / 2.0);
    match n.below(8) {
        0..=2 => device(n),
        3 => Rule::Compare(Id::Temperature, Greater, half(34.0 + share * 6.0)),
        4 => is(Id::Site, format!("site-{}", n.below(200))),
        5 => Rule::Compare(Id::Battery, Less, Constant::Integer(1 + (share * 3.0) as i64)),
        6 => is(Id::Status, "fault".into()),
        _ => Rule::Compare(Id::Humidity, Greater, half(74.0 + share * 10.0)),
    }
}

/// Conditions on different attributes.
fn conditions(n: &mut Numbers, count: usize) -> Vec<Rule> {
    let mut all: Vec<Rule> = Vec::new();
    while all.len() < count {
        let next = condition(n);
        if all.iter().all(|known| known.attribute() != next.attribute()) {
            all.push(next);
        }
    }
    all
}

impl Rule {
    fn attribute(&self) -> Id {
        match self {
            Self::Compare(id, ..) | Self::OneOf(id, _) | Self::Flag(id) => *id,
            Self::Not(rule) => rule.attribute(),
            Self::All(rules) | Self::Any(rules) => rules[0].attribute(),
        }
    }

    /// The rule as the routing function compiles it.
    pub(crate) fn program(&self) -> Program {
        let mut nodes = Vec::new();
        self.push(&mut nodes);
        let parts = ProgramParts {
            version: PROGRAM_VERSION,
            spans: nodes.iter().map(|_| Span { start: 0, end: 1 }).collect(),
            root: NodeIndex::try_from(nodes.len()).unwrap() - 1,
            nodes,
            needs_body: true,
            needs_twin: false,
        };
        parts.validate().unwrap()
    }

    fn push(&self, nodes: &mut Vec<Node>) -> NodeIndex {
        let body =
            |id: Id| Node::Body(id.attribute().path.iter().map(|name| Step::Member(name.to_lowercase())).collect());
        fn add(nodes: &mut Vec<Node>, node: Node) -> NodeIndex {
            nodes.push(node);
            NodeIndex::try_from(nodes.len()).unwrap() - 1
        }
        match self {
            Self::Compare(id, operator, constant) => {
                let left = add(nodes, body(*id));
                let right = add(
                    nodes,
                    match constant {
                        Constant::Text(text) => Node::Text(text.clone()),
                        Constant::Decimal(number) => Node::Number(*number),
                        Constant::Integer(number) => Node::Number(*number as f64),
                    },
                );
                add(nodes, Node::Comparison { operator: *operator, left, right })
            }
            Self::OneOf(id, texts) => {
                let value = add(nodes, body(*id));
                let candidates = texts.iter().map(|text| add(nodes, Node::Text(text.clone()))).collect();
                add(nodes, Node::Membership { value, candidates, negated: false })
            }
            Self::Flag(id) => add(nodes, body(*id)),
            Self::Not(rule) => {
                let operand = rule.push(nodes);
                add(nodes, Node::Not(operand))
            }
            Self::All(rules) | Self::Any(rules) => {
                let operands: Vec<NodeIndex> = rules.iter().map(|rule| rule.push(nodes)).collect();
                let node = match (self, &operands[..]) {
                    (_, [only]) => return *only,
                    (Self::All(_), _) => Node::All(operands),
                    _ => Node::Any(operands),
                };
                add(nodes, node)
            }
        }
    }

    /// The rule in the language of the crate `a-tree`.
    pub(crate) fn text(&self) -> String {
        let joined =
            |rules: &[Self], word: &str| format!("({})", rules.iter().map(Self::text).collect::<Vec<_>>().join(word));
        match self {
            Self::Compare(id, operator, constant) => {
                let operator = match operator {
                    ComparisonOperator::Less => "<",
                    ComparisonOperator::Greater => ">",
                    ComparisonOperator::NotEqual => "<>",
                    _ => "=",
                };
                let constant = match constant {
                    Constant::Text(text) => format!("'{text}'"),
                    Constant::Decimal(number) => format!("{number:.1}"),
                    Constant::Integer(number) => number.to_string(),
                };
                format!("{} {operator} {constant}", id.attribute().name)
            }
            Self::OneOf(id, texts) => {
                let texts: Vec<String> = texts.iter().map(|text| format!("'{text}'")).collect();
                format!("{} in [{}]", id.attribute().name, texts.join(", "))
            }
            Self::Flag(id) => id.attribute().name.to_owned(),
            Self::Not(rule) => format!("not ({})", rule.text()),
            Self::All(rules) => joined(rules, " and "),
            Self::Any(rules) => joined(rules, " or "),
        }
    }
}
