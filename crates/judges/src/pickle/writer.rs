//! Writes plain values as a pickle of protocol 3.

use super::{
    Value,
    opcodes::{
        APPENDS, BIN_FLOAT, BIN_INT, BYTES, BYTES_8, EMPTY_DICT, EMPTY_LIST, LONG_1, MARK,
        NEW_FALSE, NEW_TRUE, NONE, PROTO, SET_ITEMS, STOP, UNICODE, UNICODE_8,
    },
};

/// Writes a value.
pub fn write(value: &Value) -> Vec<u8> {
    let mut file = vec![PROTO, 3];
    write_value(&mut file, value);
    file.push(STOP);
    file
}

fn write_value(file: &mut Vec<u8>, value: &Value) {
    match value {
        Value::None => file.push(NONE),
        Value::Bool(true) => file.push(NEW_TRUE),
        Value::Bool(false) => file.push(NEW_FALSE),
        Value::Int(number) => write_int(file, *number),
        Value::Float(number) => {
            file.push(BIN_FLOAT);
            file.extend(number.to_be_bytes());
        }
        Value::Text(text) => write_text(file, text),
        Value::Bytes(bytes) => write_bytes(file, [BYTES, BYTES_8], bytes),
        Value::List(items) => {
            file.extend([EMPTY_LIST, MARK]);
            for item in items {
                write_value(file, item);
            }
            file.push(APPENDS);
        }
        Value::Dict(entries) => {
            file.extend([EMPTY_DICT, MARK]);
            for (key, value) in entries {
                write_text(file, key);
                write_value(file, value);
            }
            file.push(SET_ITEMS);
        }
    }
}

fn write_int(file: &mut Vec<u8>, number: i64) {
    if let Ok(short) = i32::try_from(number) {
        file.push(BIN_INT);
        file.extend(short.to_le_bytes());
    } else {
        file.extend([LONG_1, 8]);
        file.extend(number.to_le_bytes());
    }
}

fn write_text(file: &mut Vec<u8>, text: &str) {
    write_bytes(file, [UNICODE, UNICODE_8], text.as_bytes());
}

/// Writes bytes behind their length, with the first opcode if 32 bits hold it.
fn write_bytes(file: &mut Vec<u8>, [short, long]: [u8; 2], bytes: &[u8]) {
    if let Ok(length) = u32::try_from(bytes.len()) {
        file.push(short);
        file.extend(length.to_le_bytes());
    } else {
        file.push(long);
        file.extend((bytes.len() as u64).to_le_bytes());
    }
    file.extend(bytes);
}
