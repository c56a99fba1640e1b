//! Holds what verbs print as JSON to `docs/json.md`.

use serde_json::Value;

/// Carried in the test: it runs on machines that have no documents, too.
const PAGE: &str = include_str!("../../docs/json.md");

/// A field of the page.
struct Field {
    path: Vec<String>,
    may_be_absent: bool,
    /// What is inside stands elsewhere.
    closed: bool,
}

/// Fails the test unless the page has every field of what `verb` has printed, and the other way round.
#[track_caller]
pub(crate) fn documented(verb: &str, printed: &Value) {
    let (schema, fields) = section(PAGE, verb).unwrap_or_else(|| panic!("no section on {verb}"));
    let first = printed.get(0).unwrap_or(printed);
    if !first.is_null() && !printed.as_array().is_some_and(Vec::is_empty) {
        assert_eq!(first["schema"], schema, "schema of {verb}");
    }
    let mut faults = Vec::new();
    undocumented(printed, &mut Vec::new(), &fields, &mut faults);
    for field in fields.iter().filter(|field| !field.may_be_absent) {
        missing(printed, &field.path, &field.path, &mut faults);
    }
    assert!(faults.is_empty(), "{verb}: {faults:#?}\n{printed:#}");
}

/// Schema and fields of a verb.
fn section(page: &str, verb: &str) -> Option<(u64, Vec<Field>)> {
    let (_, rest) = page.split_once(&format!("\n## treeline {verb}\n"))?;
    let text = rest.split("\n## ").next()?;
    let (_, schema) = text.split_once("Schema ")?;
    let digits = schema.find(|c: char| !c.is_ascii_digit())?;
    let fields = text.lines().filter_map(|line| {
        let (name, after) = line.strip_prefix("| `")?.split_once('`')?;
        let closed = name.ends_with(" …");
        let name = name.trim_end_matches(" …");
        Some(Field {
            path: steps(name),
            may_be_absent: after.starts_with('?'),
            closed,
        })
    });
    Some((schema[..digits].parse().ok()?, fields.collect()))
}

/// `a[].b` as `a`, `[]`, `b`.
fn steps(path: &str) -> Vec<String> {
    let apart = path.replace("[]", ".[]");
    let steps = apart.split('.').filter(|step| !step.is_empty());
    steps.map(str::to_owned).collect()
}

fn undocumented(value: &Value, at: &mut Vec<String>, fields: &[Field], faults: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(k, v)| (k.clone(), v)).collect(),
        Value::Array(members) => members.iter().map(|v| ("[]".to_owned(), v)).collect(),
        _ => return,
    };
    for (step, child) in children {
        at.push(step);
        let fits = |field: &&Field| {
            let same = |(known, step): (&String, &String)| known == step || known == "*";
            field.path.len() == at.len() && field.path.iter().zip(at.iter()).all(same)
        };
        let known = fields.iter().find(fits);
        match known {
            Some(field) if field.closed => {}
            // An element of an array has no line of its own.
            None if at.last().is_some_and(|step| step != "[]") => faults.push(format!(
                "{} is printed and does not stand in docs/json.md",
                at.join(".")
            )),
            _ => undocumented(child, at, fields, faults),
        }
        at.pop();
    }
}

fn missing(value: &Value, rest: &[String], whole: &[String], faults: &mut Vec<String>) {
    let Some((step, rest)) = rest.split_first() else {
        return;
    };
    match (step.as_str(), value) {
        ("[]", Value::Array(members)) => {
            for member in members {
                missing(member, rest, whole, faults);
            }
        }
        ("*", Value::Object(_)) => {}
        (_, Value::Object(members)) => match members.get(step) {
            Some(child) => missing(child, rest, whole, faults),
            None => faults.push(format!(
                "{} stands in docs/json.md and is not printed",
                whole.join(".")
            )),
        },
        // Where what holds it is null, there is nothing.
        _ => {}
    }
}

#[test]
fn what_differs_from_the_page_is_found_either_way() {
    let page = "\n## treeline x\n\nSchema 3.\n\n| `schema` | |\n| `a` | |\n| `a[].b` | |\n| `a[].c`? | |\n| `m.*` | |\n| `d …` | |\n";
    let (schema, fields) = section(page, "x").unwrap();
    assert_eq!((schema, fields.len()), (3, 6));
    let faults = |value: Value| {
        let mut faults = Vec::new();
        undocumented(&value, &mut Vec::new(), &fields, &mut faults);
        for field in fields.iter().filter(|field| !field.may_be_absent) {
            missing(&value, &field.path, &field.path, &mut faults);
        }
        faults
    };
    let whole = serde_json::json!({"schema": 3, "a": [{"b": 1}], "m": {"k": 1}, "d": {"e": 2}});
    // `m` itself has no line.
    assert_eq!(faults(whole).len(), 1);
    let lacks = serde_json::json!({"schema": 3, "a": [{"f": 1}], "d": null});
    let told = faults(lacks).join("\n");
    assert!(
        told.contains("a.[].f is printed") && told.contains("a.[].b stands"),
        "{told}"
    );
}
