//! Explanations of keys, for people.

use std::fmt::{self, Display, Formatter};

use serde_json::Value;

use crate::{KIND, dotted, options, property, range::Range};

/// The meaning of a key and the values that it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The doc comment of the field and of its type.
    pub meaning: String,
    /// The values, in words.
    pub values: String,
    /// The kinds of a choice, or the fields of a table, one paragraph each.
    pub parts: Vec<String>,
}

/// Explains a dotted key; `None` if there is no such key.
pub fn explain(schema: &Value, key: &str) -> Option<Explanation> {
    let found = key.split('.').try_fold(schema, field)?;
    Some(Explanation { meaning: meaning(found), values: values(found), parts: parts(found) })
}

/// All dotted keys that hold a value, in alphabetical order; a choice between kinds, a list and a table of
/// names count as one value.
pub fn keys(schema: &Value) -> Vec<String> {
    let mut keys = Vec::new();
    collect(schema, "", &mut keys);
    keys
}

fn collect(schema: &Value, path: &str, keys: &mut Vec<String>) {
    for (name, field) in fields(schema) {
        let key = dotted(path, name);
        if fields(field).next().is_some() { collect(field, &key, keys) } else { keys.push(key) }
    }
}

fn fields(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.into_iter().flatten().filter(|(name, _)| *name != KIND)
}

/// The schema of a field of a table, of one of its kinds, or of a name in a table of names.
pub fn field<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    property(schema, name).or_else(|| options(schema).find_map(|option| field(option, name)))
}

fn meaning(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or("(no description)");
    text.trim().to_owned()
}

/// The first sentence of a description, on one line.
fn first_sentence(schema: &Value) -> String {
    sentence(&meaning(schema))
}

fn sentence(text: &str) -> String {
    let text = text.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    text.split_once(". ").map_or(text.clone(), |(first, _)| format!("{first}."))
}

/// Whether a setting may be absent.
pub fn is_optional(schema: &Value) -> bool {
    is(schema, "null") || options(schema).any(|option| is(option, "null"))
}

fn values(schema: &Value) -> String {
    let absent = is_optional(schema);
    let present = match Range::of(schema) {
        Some(range) => range.to_string(),
        None if is(schema, "boolean") => "true or false".to_owned(),
        None if is(schema, "string") && schema.get("enum").is_none() => "a text".to_owned(),
        None if is(schema, "array") => "a list".to_owned(),
        None if options(schema).any(|option| kind(option).is_some()) => "a choice".to_owned(),
        None if constants(schema).next().is_some() => {
            constants(schema).map(Value::to_string).collect::<Vec<_>>().join(", ")
        }
        None => options(schema)
            .find(|option| !is(option, "null"))
            .map_or_else(|| "a table".to_owned(), values),
    };
    if absent { format!("{present}, or none") } else { present }
}

fn is(schema: &Value, name: &str) -> bool {
    match &schema["type"] {
        Value::Array(names) => names.iter().any(|one| one == name),
        one => one == name,
    }
}

fn kind(option: &Value) -> Option<&Value> {
    option.pointer("/properties/kind/const")
}

/// The words of a choice between words.
fn constants(schema: &Value) -> impl Iterator<Item = &Value> {
    let words = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    let described = options(schema).filter_map(|option| option.get("const"));
    words
        .chain(described)
        .chain(options(schema).filter_map(|option| option.get("enum")?.as_array()).flatten())
}

fn parts(schema: &Value) -> Vec<String> {
    let of_field = |(name, field): (&String, &Value)| {
        format!("{name}: {} ({})", first_sentence(field), values(field))
    };
    let of_kind = |option: &Value| {
        let fields = fields(option).map(of_field).map(|field| format!("\n    {field}"));
        Some(format!(
            "{KIND} = {}: {}{}",
            kind(option)?,
            first_sentence(option),
            fields.collect::<String>()
        ))
    };
    let of_word =
        |option: &Value| Some(format!("{}: {}", option.get("const")?, first_sentence(option)));
    let kinds = options(schema).filter_map(|option| of_kind(option).or_else(|| of_word(option)));
    let inner = options(schema).filter(|option| kind(option).is_none()).flat_map(parts);
    kinds.chain(inner).chain(fields(schema).map(of_field)).collect()
}

impl Explanation {
    /// The first sentence and the values.
    pub fn in_a_line(&self) -> String {
        format!("{} ({})", sentence(&self.meaning), self.values)
    }
}

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\nvalues: {}", self.meaning, self.values)?;
        self.parts.iter().try_for_each(|part| writeln!(f, "  {part}"))
    }
}
