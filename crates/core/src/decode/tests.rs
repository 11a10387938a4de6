//! Shape errors all at once, meaning errors at their place, places carried into settings.

use std::fmt::Write;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::*;
use crate::units::{DurationOrOff, Size};

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    name: Spanned<String>,
    #[serde(default)]
    timeout: Option<DurationOrOff>,
    #[serde(default)]
    body_max: Option<Size>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    strict: bool,
    #[serde(default)]
    mode: Option<Mode>,
    #[serde(default)]
    source: Option<Source>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    weights: Entries<u8>,
    #[serde(default)]
    raw: Option<Node>,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Window,
    /// A documented variant takes another form in the schema.
    Bucket,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Source {
    File(String),
    Http { url: String, every: DurationOrOff },
}

/// A tree whose places are counted, so that each test can see which one an error has.
fn node(json: &Json) -> Node {
    fn build(json: &Json, next: &mut usize) -> Node {
        *next += 1;
        let number = *next;
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(value) => value
                .as_i64()
                .map_or_else(|| Value::Float(value.as_f64().unwrap_or(0.0)), Value::Int),
            Json::String(text) => Value::Str(text.clone()),
            Json::Array(items) => Value::Seq(items.iter().map(|i| build(i, next)).collect()),
            Json::Object(map) => Value::Map(
                map.iter()
                    .map(|(name, value)| {
                        *next += 1;
                        let key = Key::new(name, SourceSpan::new(0, *next * 100..*next * 100));
                        (key, build(value, next))
                    })
                    .collect(),
            ),
        };
        let length = json.as_str().map_or(0, str::len);
        Node::new(SourceSpan::new(0, number * 100..number * 100 + length), value)
    }
    build(json, &mut 0)
}

fn errors(json: &Json) -> String {
    let mut findings = Findings::new();
    let settings: Option<Settings> = node(json).decode("x", &mut findings);
    assert_eq!(settings.is_none(), findings.has_errors());
    findings.sorted().into_iter().fold(String::new(), |mut text, f| {
        let place = f.span.map(SourceSpan::range).unwrap_or_default();
        let help = f.help.map(|help| format!(" ({help})")).unwrap_or_default();
        writeln!(text, "{place:?} {} {}: {}{help}", f.code, f.resource, f.message).expect("text");
        text
    })
}

#[test]
fn what_fits_is_read_with_its_places() {
    let json = json!({
        "name": "n", "timeout": "off", "body_max": "10MiB", "port": 80, "mode": "bucket",
        "source": {"http": {"url": "u", "every": "5m"}}, "tags": ["a"],
        "weights": {"b": 90, "a": 10}, "raw": [1, {"k": null}],
    });
    let tree = node(&json);
    let mut findings = Findings::new();
    let settings: Settings = tree.decode("x", &mut findings).expect("fits");
    assert_eq!(settings.name, Spanned::new("n".to_owned(), SourceSpan::default()));
    assert_eq!(settings.name.span, tree.get("name").expect("there").span);
    assert_eq!(settings.timeout, Some(DurationOrOff::OFF));
    assert_eq!(settings.body_max, Some(Size::mib(10)));
    assert_eq!(settings.mode, Some(Mode::Bucket));
    let weights: Vec<_> = settings.weights.iter().map(|(k, v)| (k.name.as_str(), *v)).collect();
    assert_eq!(weights, [("b", 90), ("a", 10)]);
    assert_ne!(settings.weights[0].0.span, SourceSpan::default());
    let raw = settings.raw.expect("there");
    assert_eq!(&raw, tree.get("raw").expect("there"));
    assert_eq!(raw.items()[1].span, tree.get("raw").expect("there").items()[1].span);
}

#[test]
fn all_errors_at_once_each_at_its_place() {
    let json = json!({
        "nam": "n", "timeout": "15", "body_max": -1, "port": 70_000, "strict": "yes",
        "mode": "bukket", "tags": "a", "weights": {"a": "1", "b": 2.5},
    });
    let expected = "\
200..200 unknown-key x: unknown key `nam` (did you mean `name`?)
500..502 invalid-value x.timeout: `15` has no unit (write for example `250ms`, `15s`, `5m`, `12h` or `1h30m`)
700..700 out-of-range x.body_max: must be at least 0
900..900 out-of-range x.port: must be from 0 to 65535
1100..1103 wrong-type x.strict: expected `true` or `false`, found the string `yes`
1300..1306 unknown-value x.mode: unknown value `bukket`, expected one of `window`, `bucket` (did you mean `bucket`?)
1500..1501 wrong-type x.tags: expected a list, found the string `a` (make it a list: `[a]`)
1900..1901 wrong-type x.weights.a: expected an integer, found the string `1` (remove the quotes: `1`)
2100..2100 wrong-type x.weights.b: expected an integer, found the number `2.5`
";
    assert_eq!(errors(&json), expected);
}

#[test]
fn an_empty_value_is_said_to_be_empty() {
    let expected = "\
200..200 wrong-type x.name: `name` has no value, expected a string (give it a value, or remove the key)
400..400 wrong-type x.timeout: `timeout` has no value, expected a duration such as `15s`, or `off` (give it a value, or remove the key)
";
    assert_eq!(errors(&json!({"name": null, "timeout": null})), expected);
}

#[test]
fn one_key_maps_name_their_kind() {
    let case = |source: Json| errors(&json!({"name": "n", "source": source}));
    assert_eq!(
        case(json!({"htpp": {}})),
        "600..600 unknown-key x.source: unknown key `htpp`, expected one of `file`, `http` \
         (did you mean `http`?)\n"
    );
    assert_eq!(
        case(json!({"file": "a", "http": {}})),
        "400..400 wrong-type x.source: exactly one of `file`, `http` is needed, found 2\n"
    );
    assert_eq!(
        case(json!({"http": {"url": 5}})),
        "600..600 missing-key x.source.http: the key `every` is missing\n\
         900..900 wrong-type x.source.http.url: expected a string, found the integer `5` \
         (put it in quotes: `\"5\"`)\n"
    );
    assert_eq!(case(json!([])), "500..500 wrong-type x.source: expected a map, found a list\n");
}

#[test]
fn errors_of_meaning_have_the_innermost_place() {
    #[derive(Debug)]
    struct Even;

    impl JsonSchema for Even {
        fn schema_name() -> Cow<'static, str> {
            "Even".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            schemars::json_schema!({"type": "integer"})
        }
    }

    impl<'de> Deserialize<'de> for Even {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            match i64::deserialize(from)? % 2 {
                0 => Ok(Self),
                _ => Err(serde::de::Error::custom("must be even")),
            }
        }
    }

    let tree = node(&json!({"a": [2, 4], "b": [6, 7]}));
    let mut findings = Findings::new();
    assert!(tree.decode::<Entries<Vec<Even>>>("x", &mut findings).is_none());
    let finding = findings.into_iter().next().expect("one");
    assert_eq!(finding.resource, "x.b[1]");
    assert_eq!(finding.message, "must be even");
    assert_eq!(finding.span, Some(tree.get("b").expect("there").items()[1].span));
}

#[test]
fn a_schema_is_never_nullable() {
    let schema = schema_of::<Settings>().to_string();
    assert!(!schema.contains("null"), "{schema}");
}
