//! The part of Python's pickle format that is plain data: numbers, texts, bytes, lists and dicts.
//!
//! Pickle is a language whose programs can import and call anything. This reader has no such
//! operations: a stream that names or calls an object is refused. It also bounds the depth of
//! lists, and shares texts but no lists, so a small stream cannot grow into a large value. The
//! writer makes protocol 3, which every Python 3 reads.
//!
//! Source: the opcodes of CPython's `pickletools`.

mod opcodes;
mod reader;
mod writer;

use std::sync::Arc;

use thiserror::Error;

pub use self::{reader::read, writer::write};

/// A plain Python value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// A `bool`.
    Bool(bool),
    /// An `int` of at most 64 bits.
    Int(i64),
    /// A `float`.
    Float(f64),
    /// A `str`.
    Text(Arc<str>),
    /// A `bytes`.
    Bytes(Vec<u8>),
    /// A `list` or a `tuple`.
    List(Vec<Value>),
    /// A `dict` with text keys, in the order of insertion.
    Dict(Vec<(Arc<str>, Value)>),
}

/// A stream of bytes is no pickle of plain data.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PickleError {
    /// The pickle names a Python object or calls one.
    #[error(
        "{opcode} at byte {at} would import or call Python code; only plain numbers, texts, lists \
         and dicts are read (NumPy and torch numbers are objects: the server should answer \
         `float(x)`)"
    )]
    Code {
        /// Name of the opcode.
        opcode: &'static str,
        /// Position of the opcode.
        at: usize,
    },
    /// An opcode that no plain data of Python 3 has.
    #[error("opcode 0x{opcode:02x} at byte {at} is not of plain data")]
    Opcode {
        /// The opcode.
        opcode: u8,
        /// Position of the opcode.
        at: usize,
    },
    /// The bytes end before the pickle does.
    #[error("it ends at byte {0}, before the pickle does")]
    Truncated(usize),
    /// An operation does not fit the values before it.
    #[error("{what} at byte {at}")]
    Structure {
        /// The misfit.
        what: &'static str,
        /// Position of the opcode.
        at: usize,
    },
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl Value {
    /// The value of a key, if this is a dict that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Dict(entries) = self else { return None };
        entries.iter().rev().find(|(name, _)| **name == *key).map(|(_, value)| value)
    }

    /// Converts a JSON value; `None` if a number has more than 64 bits.
    pub fn from_json(json: &serde_json::Value) -> Option<Self> {
        use serde_json::Value as Json;
        Some(match json {
            Json::Null => Self::None,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) if number.is_f64() => Self::Float(number.as_f64()?),
            Json::Number(number) => Self::Int(number.as_i64()?),
            Json::String(text) => Self::from(text.as_str()),
            Json::Array(items) => {
                Self::List(items.iter().map(Self::from_json).collect::<Option<_>>()?)
            }
            Json::Object(entries) => {
                let entry = |(key, value): (&String, &Json)| {
                    Some((key.as_str().into(), Self::from_json(value)?))
                };
                Self::Dict(entries.iter().map(entry).collect::<Option<_>>()?)
            }
        })
    }
}
