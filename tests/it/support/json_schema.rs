//! The part of JSON Schema that `docs/ask.schema.json` uses. Unknown keywords are errors.

use serde_json::Value;

/// Returns where `value` violates `schema`; empty if nowhere.
pub fn errors(schema: &Value, value: &Value) -> Vec<String> {
    check(schema, value, "$")
}

fn check(schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let keywords = schema.as_object().unwrap_or_else(|| panic!("{at}: the schema is no object"));
    let mut errors = Vec::new();
    for (keyword, rule) in keywords {
        let holds = match keyword.as_str() {
            "$schema" | "title" | "description" => true,
            "type" => types(rule).iter().any(|name| is_type(value, name)),
            "enum" => list(rule).contains(value),
            "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
            "anyOf" => list(rule).iter().any(|option| check(option, value, at).is_empty()),
            "required" => list(rule).iter().all(|key| value.get(key.as_str().unwrap()).is_some()),
            "additionalProperties" => {
                assert_eq!(rule, false, "{at}: not known here");
                value
                    .as_object()
                    .is_none_or(|object| object.keys().all(|key| keywords["properties"].get(key).is_some()))
            }
            "properties" => {
                for (key, property) in rule.as_object().unwrap() {
                    let inner = value.get(key).map(|inner| check(property, inner, &format!("{at}.{key}")));
                    errors.extend(inner.into_iter().flatten());
                }
                true
            }
            "items" => {
                let items = value.as_array().into_iter().flatten().enumerate();
                errors.extend(items.flat_map(|(i, item)| check(rule, item, &format!("{at}[{i}]"))));
                true
            }
            unknown => panic!("{at}: the keyword {unknown} is not known here"),
        };
        if !holds {
            errors.push(format!("{at}: {value} does not meet {keyword}: {rule}"));
        }
    }
    errors
}

fn is_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        unknown => panic!("the type {unknown} is not known here"),
    }
}

fn types(rule: &Value) -> Vec<&str> {
    match rule {
        Value::String(name) => vec![name],
        names => list(names).iter().filter_map(Value::as_str).collect(),
    }
}

fn list(rule: &Value) -> &[Value] {
    rule.as_array().unwrap_or_else(|| panic!("{rule} is no array"))
}
