use super::*;
use crate::{
    Arithmetic, ArithmeticOperator, Call, Comparison, ComparisonOperator, Function, MAX_CONDITION_CHARACTERS,
    MAX_DEPTH, MAX_NESTING, Membership, Span, Step, SystemProperty, TwinPath, TwinSection,
};

fn property(name: &str) -> Node {
    Node::ApplicationProperty(vec![name.into()])
}
fn text(value: &str) -> Node {
    Node::Text(value.into())
}
fn member(name: &str) -> Step {
    Step::Member(name.into())
}
fn comparison(operator: ComparisonOperator, left: u32, right: u32) -> Node {
    Node::Comparison(Comparison { operator, left, right })
}
fn arithmetic(operator: ArithmeticOperator, left: u32, right: u32) -> Node {
    Node::Arithmetic(Arithmetic { operator, left, right })
}
fn is_defined(argument: u32) -> Node {
    Node::Call(Call { function: Function::IsDefined, arguments: vec![argument] })
}

#[test]
fn documented_examples() {
    use ComparisonOperator::Equal;
    assert_eq!(nodes("true"), [Node::Boolean(true)]);
    assert_eq!(nodes("level = 'storage'"), [property("level"), text("storage"), comparison(Equal, 0, 1)]);
    assert_eq!(
        nodes("$contentType = 'application/json' AND $body.Weather.HistoricalData[0].Month = 'Feb'"),
        [
            Node::SystemProperty(SystemProperty::ContentType),
            text("application/json"),
            comparison(Equal, 0, 1),
            Node::Body(vec![member("weather"), member("historicaldata"), Step::Element(0), member("month")]),
            text("Feb"),
            comparison(Equal, 3, 4),
            Node::All(vec![2, 5]),
        ]
    );
    assert_eq!(
        nodes("NOT is_defined($twin.tags.location)"),
        [
            Node::Twin(TwinPath { section: TwinSection::Tags, steps: vec![member("location")] }),
            is_defined(0),
            Node::Not(1)
        ]
    );
    assert_eq!(
        nodes("$connectionDeviceId = 'd1' OR STARTS_WITH($connectionDeviceId,'line7-')"),
        [
            Node::SystemProperty(SystemProperty::ConnectionDeviceId),
            text("d1"),
            comparison(Equal, 0, 1),
            Node::SystemProperty(SystemProperty::ConnectionDeviceId),
            text("line7-"),
            Node::Call(Call { function: Function::StartsWith, arguments: vec![3, 4] }),
            Node::Any(vec![2, 5]),
        ]
    );
    assert_eq!(nodes("$body.Weather.IsEnabled"), [Node::Body(vec![member("weather"), member("isenabled")])]);
    let as_number = Node::Call(Call { function: Function::AsNumber, arguments: vec![0] });
    assert_eq!(
        nodes("as_number(temperature) > 30"),
        [property("temperature"), as_number, Node::Number(30.0), comparison(ComparisonOperator::Greater, 1, 2)]
    );
    assert_eq!(nodes("is_defined($body.properties.desired.x)").len(), 2);
}

#[test]
fn precedence_is_not_then_and_then_or() {
    assert_eq!(
        nodes("NOT a = 'x' AND b = 'y' OR c = 'z'")[3..],
        [
            Node::Not(2),
            property("b"),
            text("y"),
            comparison(ComparisonOperator::Equal, 4, 5),
            Node::All(vec![3, 6]),
            property("c"),
            text("z"),
            comparison(ComparisonOperator::Equal, 8, 9),
            Node::Any(vec![7, 10]),
        ]
    );
    use ArithmeticOperator::*;
    assert_eq!(
        nodes("1 + 2 * 3 - 4 / 5 % 6 = -7")[1..],
        [
            Node::Number(2.0),
            Node::Number(3.0),
            arithmetic(Multiply, 1, 2),
            arithmetic(Add, 0, 3),
            Node::Number(4.0),
            Node::Number(5.0),
            arithmetic(Divide, 5, 6),
            Node::Number(6.0),
            arithmetic(Remainder, 7, 8),
            arithmetic(Subtract, 4, 9),
            Node::Number(-7.0),
            comparison(ComparisonOperator::Equal, 10, 11),
        ]
    );
    assert_eq!(nodes("(1 + 2) * 3 = 9")[4], arithmetic(Multiply, 2, 3));
    assert_eq!(nodes("$body.a AND ($body.b AND $body.c)").last(), Some(&Node::All(vec![0, 3])));
}

#[test]
fn every_comparison_operator() {
    use ComparisonOperator::*;
    let spellings = [
        ("=", Equal),
        ("!=", NotEqual),
        ("<>", NotEqual),
        ("<", Less),
        ("<=", LessOrEqual),
        (">", Greater),
        (">=", GreaterOrEqual),
    ];
    for (spelling, operator) in spellings {
        for condition in [format!("$body.a {spelling} 1"), format!("$body.a{spelling}1")] {
            assert_eq!(nodes(&condition).last(), Some(&comparison(operator, 0, 1)), "{condition}");
        }
    }
}

#[test]
fn membership_takes_constants() {
    let membership = |candidates, negated| Node::Membership(Membership { value: 0, candidates, negated });
    assert_eq!(nodes("$body.a in ['x', -1, null]").last(), Some(&membership(vec![1, 2, 3], false)));
    assert_eq!(nodes("level NIN ['x']").last(), Some(&membership(vec![1], true)));
    assert_eq!(
        nodes("$body.a IN [[1, 2], [true]]")[1..],
        [
            Node::Number(1.0),
            Node::Number(2.0),
            Node::List(vec![1, 2]),
            Node::Boolean(true),
            Node::List(vec![4]),
            membership(vec![3, 5], false),
        ]
    );
    for condition in ["a IN []", "a IN [b]", "a IN [1", "a IN 1", "a IN [1,]", "a IN [-'x']", "a IN [1 2]", "a IN"] {
        error(condition);
    }
}

#[test]
fn names_words_and_functions_ignore_case() {
    let lower = nodes("not is_defined($body.a.b) and $contenttype in ['x'] or level = 'y' and true");
    assert_eq!(nodes("NOT IS_DEFINED($BODY.A.B) AND $CONTENTTYPE IN ['x'] OR LEVEL = 'y' AND TRUE"), lower);
    assert_eq!(nodes("Not Is_Defined($Body.A.B) And $ContentType In ['x'] Or Level = 'y' And True"), lower);
}

#[test]
fn names_are_resolved() {
    for (condition, node) in [
        ("$foo = 'x'", Node::ApplicationProperty(vec!["$foo".into(), "foo".into()])),
        ("$[[a-b]] = 'x'", Node::ApplicationProperty(vec!["$a-b".into(), "a-b".into()])),
        ("[[$foo]] = 'x'", property("$foo")),
        ("[[My-Prop.v2]] = 'x'", property("my-prop.v2")),
        ("[[in]] = 'x'", property("in")),
        ("length = 'x'", property("length")),
        ("höhe = 'x'", property("höhe")),
        ("$dt-dataschema = 'x'", Node::SystemProperty(SystemProperty::DtDataschema)),
        ("$DT-Subject = 'x'", Node::SystemProperty(SystemProperty::DtSubject)),
        ("$[[dt-subject]] = 'x'", Node::SystemProperty(SystemProperty::DtSubject)),
        ("$body.[[my-id.1]].and = 'x'", Node::Body(vec![member("my-id.1"), member("and")])),
        ("$body . a [ 2 ] [3] = 'x'", Node::Body(vec![member("a"), Step::Element(2), Step::Element(3)])),
        (
            "$twin.properties.Reported.$metadata.x.$lastUpdated = 'x'",
            Node::Twin(TwinPath {
                section: TwinSection::Reported,
                steps: vec![member("$metadata"), member("x"), member("$lastupdated")],
            }),
        ),
        (
            "$twin.properties.desired.$version = 'x'",
            Node::Twin(TwinPath { section: TwinSection::Desired, steps: vec![member("$version")] }),
        ),
    ] {
        assert_eq!(nodes(condition)[0], node, "{condition}");
    }
    assert_eq!(nodes("array_contains([ [1], [2]], $body.x)")[3], Node::List(vec![2]));
}

#[test]
fn facts_and_spans() {
    let program = compiled("  $body.a /* c */ = 1 AND\n(level) = 'x'").program;
    assert_eq!((program.version, program.root), (1, 6));
    assert!(program.needs_body && !program.needs_twin);
    let written: Vec<_> = program
        .spans
        .iter()
        .map(|&Span { start, end }| &"  $body.a /* c */ = 1 AND\n(level) = 'x'"[start as usize..end as usize])
        .collect();
    assert_eq!(
        written,
        [
            "$body.a",
            "1",
            "$body.a /* c */ = 1",
            "level",
            "'x'",
            "(level) = 'x'",
            "$body.a /* c */ = 1 AND\n(level) = 'x'"
        ]
    );
    let program = compiled("is_defined($twin.tags)").program;
    assert!(!program.needs_body && program.needs_twin);
}

#[test]
fn length_is_bounded_in_characters() {
    let condition = |characters: usize| format!("a = '{}'", "ö".repeat(characters - 6));
    assert_eq!(nodes(&condition(MAX_CONDITION_CHARACTERS)).len(), 3);
    let long = condition(MAX_CONDITION_CHARACTERS + 1);
    let error = error(&long);
    assert_eq!(place(&long, &error), "'");
    assert!(error.message.contains("8192"), "{error:?}");
}

#[test]
fn nesting_is_bounded() {
    type Wrap = fn(usize) -> String;
    let shapes: [Wrap; 5] = [
        |depth| "(".repeat(depth) + "true" + &")".repeat(depth),
        |depth| "NOT ".repeat(depth) + "true",
        |depth| format!("{}$body.a = 1", "-".repeat(depth)),
        |depth| "is_defined(".repeat(depth) + "a" + &")".repeat(depth),
        |depth| format!("is_defined({}1{})", "[ ".repeat(depth / 2), "]".repeat(depth / 2)),
    ];
    // A component has 1 MiB of stack; without optimisation frames are larger than there.
    let run = move || shapes.into_iter().for_each(check_nesting);
    std::thread::Builder::new().stack_size(1024 * 1024).spawn(run).unwrap().join().unwrap();
    let endless = "(".repeat(MAX_CONDITION_CHARACTERS);
    assert!(error(&endless).message.contains("nested more than 64"));
}

fn check_nesting(shape: fn(usize) -> String) {
    let fits = shape(MAX_NESTING);
    assert!(compile(&fits, Source::DeviceMessages).is_ok(), "{fits}");
    for depth in [2 * MAX_NESTING + 2, 600] {
        let condition = shape(depth);
        assert!(error(&condition).message.contains("levels deep"), "{condition}");
    }
}

#[test]
fn long_chains_of_and_and_or_are_flat_but_arithmetic_is_not() {
    let chain = |operator: &str| vec!["$body.a"; 600].join(operator);
    assert!(matches!(nodes(&chain(" OR ")).last(), Some(Node::Any(operands)) if operands.len() == 600));
    assert!(matches!(nodes(&chain(" AND ")).last(), Some(Node::All(operands)) if operands.len() == 600));
    let sum = |operands: usize| format!("{} > 1", vec!["$body.a"; operands].join("+"));
    assert!(compile(&sum(MAX_DEPTH - 1), Source::DeviceMessages).is_ok());
    assert!(error(&sum(MAX_DEPTH + 1)).message.contains("128 levels"));
}
