//! Holds values to docs/json-schema.json: to the keywords of JSON Schema that occur in it. An unknown one is an error, so
//! that nothing passes unchecked. (The packages for it would have added 38 others.)

use std::sync::LazyLock;

use serde_json::{Map, Value};

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../docs/json-schema.json");
    serde_json::from_str(text).expect("the schema is JSON")
});

/// Why a line of `--json` does not conform; `None` if it does.
pub fn violation(line: &Value) -> Option<String> {
    check(&SCHEMA, line).err()
}

fn check(schema: &Value, value: &Value) -> Result<(), String> {
    let schema = schema.as_object().expect("a schema is an object");
    let fail = |what: &str| Err(format!("{value}: not {what} of {}", Value::Object(schema.clone())));
    for (keyword, rule) in schema {
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "format" | "default" => {}
            "$ref" => check(resolve(rule), value)?,
            "type" => {
                if !one_or_many(rule).iter().any(|name| has_type(value, name.as_str().expect("a name"))) {
                    return fail("the type");
                }
            }
            "const" if rule != value => return fail("the constant"),
            "enum" if !list(rule).contains(value) => return fail("one"),
            "const" | "enum" => {}
            "minimum" if value.as_f64() < rule.as_f64() => return fail("at least the minimum"),
            "maximum" if value.as_f64() > rule.as_f64() => return fail("at most the maximum"),
            "minimum" | "maximum" => {}
            "allOf" => list(rule).iter().try_for_each(|schema| check(schema, value))?,
            "anyOf" | "oneOf" => {
                let results: Vec<_> = list(rule).iter().map(|schema| check(schema, value)).collect();
                match results.iter().filter(|result| result.is_ok()).count() {
                    1 => {}
                    0 => return Err(format!("{value}: {keyword}: {results:?}")),
                    _ if keyword == "anyOf" => {}
                    count => return Err(format!("{value}: {count} of {rule}")),
                }
            }
            "properties" => {
                for (name, schema) in object(rule) {
                    value.get(name).map_or(Ok(()), |field| check(schema, field))?;
                }
            }
            "required" => {
                if let Some(name) = list(rule).iter().find(|name| value.get(name.as_str().expect("a name")).is_none()) {
                    return fail(&format!("with {name}, as is required"));
                }
            }
            "items" => value.as_array().into_iter().flatten().try_for_each(|item| check(rule, item))?,
            _ => panic!("the keyword {keyword} is not known here"),
        }
    }
    Ok(())
}

fn resolve(reference: &Value) -> &'static Value {
    let pointer = reference.as_str().and_then(|text| text.strip_prefix('#')).expect("a reference into the schema");
    SCHEMA.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not in the schema"))
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        _ => panic!("the type {name} is not known here"),
    }
}

fn one_or_many(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().expect("an object")
}

#[test]
fn what_is_no_message_is_told() {
    let violation = |line: &str| violation(&serde_json::from_str(line).expect("JSON"));
    assert_eq!(violation(r#"{"type":"end","id":1,"command":"lap","ok":true,"code":0,"elapsed_ms":5}"#), None);
    assert_eq!(violation(r#"{"type":"result","id":"a","command":"lap","ok":true,"peers":["hans"],"more":1}"#), None);
    for line in [
        "1",
        "{}",
        r#"{"type":"other"}"#,
        r#"{"type":"end","id":1,"command":"lap","ok":true,"code":0}"#,
        r#"{"type":"end","id":1,"command":"lap","ok":true,"code":256,"elapsed_ms":5}"#,
        r#"{"type":"end","id":1,"command":"lap","ok":true,"code":0,"elapsed_ms":-5}"#,
        r#"{"type":"end","id":[1],"command":"lap","ok":true,"code":0,"elapsed_ms":5}"#,
        r#"{"type":"result","command":"lap","ok":true,"peers":["hans",1]}"#,
        r#"{"type":"note","text":"why","level":"loud"}"#,
    ] {
        assert!(violation(line).is_some(), "{line}");
    }
}
