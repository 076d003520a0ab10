//! JSON values as the values of a template.

use recua_template::Input;
use serde_json::Value;

use super::error::ChatError;

/// How deep JSON may be nested.
const DEPTH_MAX: usize = 128;

/// Checks that a value is not nested too deep to be walked.
pub(super) fn check_depth(value: &Value) -> Result<(), ChatError> {
    // Level by level, so that no depth overflows the stack here.
    let mut level = vec![value];
    for _ in 0..DEPTH_MAX {
        if level.is_empty() {
            return Ok(());
        }
        level = level
            .into_iter()
            .flat_map(|value| match value {
                Value::Array(items) => items.iter().collect::<Vec<_>>(),
                Value::Object(fields) => fields.values().collect(),
                _ => Vec::new(),
            })
            .collect();
    }
    Err(ChatError::Request(format!("a value is nested deeper than the {DEPTH_MAX} levels that are accepted")))
}

/// Visits every string within a value; the names of fields too.
pub(super) fn each_string<'v>(value: &'v Value, visit: &mut impl FnMut(&'v str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter().for_each(|item| each_string(item, visit)),
        Value::Object(fields) => {
            for (name, value) in fields {
                visit(name);
                each_string(value, visit);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The value with other strings; `text` changes those that are values, `name` those of fields.
pub(super) fn with_strings(
    value: &Value,
    text: &impl Fn(&str) -> String,
    name: &impl Fn(&str) -> String,
) -> Value {
    match value {
        Value::String(old) => Value::String(text(old)),
        Value::Array(items) => items.iter().map(|item| with_strings(item, text, name)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(field, value)| (name(field), with_strings(value, text, name))).collect()
        }
        other => other.clone(),
    }
}

/// The value as a template sees it.
pub(super) fn input(value: &Value) -> Input<'_> {
    match value {
        Value::Null => Input::None,
        Value::Bool(value) => Input::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Input::Int(value.into()),
            (None, Some(value)) => Input::Int(value.into()),
            (None, None) => Input::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Input::Str(text),
        Value::Array(items) => Input::List(items.iter().map(input).collect()),
        Value::Object(fields) => {
            Input::Map(fields.iter().map(|(name, value)| (name.as_str(), input(value))).collect())
        }
    }
}
