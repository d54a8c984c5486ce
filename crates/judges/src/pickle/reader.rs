//! Reads plain values from a pickle of protocol 2 to 5.

use std::{collections::HashMap, mem, sync::Arc};

use super::{
    PickleError, Value,
    opcodes::{
        APPEND, APPENDS, BIN_FLOAT, BIN_GET, BIN_INT, BIN_INT_1, BIN_INT_2, BIN_PUT, BYTES,
        BYTES_8, EMPTY_DICT, EMPTY_LIST, EMPTY_TUPLE, FRAME, LONG_1, LONG_BIN_GET, LONG_BIN_PUT,
        MARK, MEMOIZE, NEW_FALSE, NEW_TRUE, NONE, PROTO, SET_ITEM, SET_ITEMS, SHORT_BYTES,
        SHORT_UNICODE, STOP, TUPLE, TUPLE_1, TUPLE_2, TUPLE_3, UNICODE, UNICODE_8,
        reaches_for_code,
    },
};

/// How deep lists and dicts may be nested; answers of reward servers need three.
const DEEPEST: usize = 32;

/// Reads a value; what follows its end is ignored, as Python does.
///
/// # Errors
/// If the bytes are no pickle, or one of more than plain data.
pub fn read(bytes: &[u8]) -> Result<Value, PickleError> {
    let mut reader = Reader { bytes, ..Reader::default() };
    while !reader.step()? {}
    let value = reader.pop()?.value;
    if reader.stack.is_empty() && reader.outer.is_empty() {
        return Ok(value);
    }
    Err(reader.misfit("values are left over"))
}

/// A value on the stack; the depth of a number is 0, of a list of numbers 1.
struct Item {
    value: Value,
    depth: usize,
}

/// The state of pickle's stack machine.
#[derive(Default)]
struct Reader<'a> {
    bytes: &'a [u8],
    /// Position of the next byte.
    next: usize,
    /// Position of the current opcode.
    at: usize,
    /// Values since the last mark.
    stack: Vec<Item>,
    /// Values before each mark.
    outer: Vec<Vec<Item>>,
    /// Remembered texts; other values are remembered as `None`, because a second reference to a
    /// list could make a large value from few bytes.
    memo: HashMap<u32, Option<Arc<str>>>,
}

impl Reader<'_> {
    /// Executes one opcode; true at the end.
    fn step(&mut self) -> Result<bool, PickleError> {
        self.at = self.next;
        let opcode = self.take::<1>()?[0];
        match opcode {
            STOP => return Ok(true),
            PROTO => drop(self.take::<1>()?),
            FRAME => drop(self.take::<8>()?),
            MARK if self.outer.len() == DEEPEST => return Err(self.misfit("too many marks")),
            MARK => self.outer.push(mem::take(&mut self.stack)),
            NONE | NEW_TRUE | NEW_FALSE | BIN_INT | BIN_INT_1 | BIN_INT_2 | LONG_1 | BIN_FLOAT
            | SHORT_UNICODE | UNICODE | UNICODE_8 | SHORT_BYTES | BYTES | BYTES_8 => {
                let value = self.scalar(opcode)?;
                self.stack.push(Item { value, depth: 0 });
            }
            EMPTY_LIST | EMPTY_TUPLE | EMPTY_DICT | TUPLE | TUPLE_1 | TUPLE_2 | TUPLE_3
            | APPEND | APPENDS | SET_ITEM | SET_ITEMS => self.collect(opcode)?,
            MEMOIZE | BIN_PUT | LONG_BIN_PUT | BIN_GET | LONG_BIN_GET => self.remember(opcode)?,
            _ => {
                let at = self.at;
                return Err(match reaches_for_code(opcode) {
                    Some(opcode) => PickleError::Code { opcode, at },
                    None => PickleError::Opcode { opcode, at },
                });
            }
        }
        Ok(false)
    }

    fn scalar(&mut self, opcode: u8) -> Result<Value, PickleError> {
        Ok(match opcode {
            NONE => Value::None,
            NEW_TRUE => Value::Bool(true),
            NEW_FALSE => Value::Bool(false),
            BIN_INT => Value::Int(i32::from_le_bytes(self.take()?).into()),
            BIN_INT_1 => Value::Int(self.take::<1>()?[0].into()),
            BIN_INT_2 => Value::Int(u16::from_le_bytes(self.take()?).into()),
            LONG_1 => Value::Int(self.long()?),
            BIN_FLOAT => Value::Float(f64::from_be_bytes(self.take()?)),
            SHORT_UNICODE | UNICODE | UNICODE_8 => {
                let text = str::from_utf8(self.counted(opcode)?).map(Arc::from);
                Value::Text(text.map_err(|_| self.misfit("a text is not UTF-8"))?)
            }
            _ => Value::Bytes(self.counted(opcode)?.to_vec()),
        })
    }

    /// An integer of up to 8 bytes in two's complement, lowest byte first.
    fn long(&mut self) -> Result<i64, PickleError> {
        let length = usize::from(self.take::<1>()?[0]);
        let bytes = self.slice(length)?;
        let negative = bytes.last().is_some_and(|last| *last >= 0x80);
        let mut whole = [if negative { 0xff } else { 0 }; 8];
        match whole.get_mut(..length) {
            Some(start) => start.copy_from_slice(bytes),
            None => return Err(self.misfit("an integer has more than 64 bits")),
        }
        Ok(i64::from_le_bytes(whole))
    }

    /// Bytes behind their number, which has 1, 4 or 8 bytes.
    fn counted(&mut self, opcode: u8) -> Result<&[u8], PickleError> {
        let length = match opcode {
            SHORT_UNICODE | SHORT_BYTES => u64::from(self.take::<1>()?[0]),
            UNICODE | BYTES => u32::from_le_bytes(self.take()?).into(),
            _ => u64::from_le_bytes(self.take()?),
        };
        // No stream in memory is longer than `usize::MAX`.
        self.slice(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// Makes lists and dicts from the values on the stack.
    fn collect(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            EMPTY_LIST | EMPTY_TUPLE => self.push_list(Vec::new()),
            EMPTY_DICT => {
                self.stack.push(Item { value: Value::Dict(Vec::new()), depth: 1 });
                Ok(())
            }
            TUPLE => {
                let items = self.since_mark()?;
                self.push_list(items)
            }
            TUPLE_1 | TUPLE_2 | TUPLE_3 => {
                let items = self.last(usize::from(opcode - TUPLE_1) + 1)?;
                self.push_list(items)
            }
            APPEND => {
                let items = self.last(1)?;
                self.extend_list(items)
            }
            APPENDS => {
                let items = self.since_mark()?;
                self.extend_list(items)
            }
            SET_ITEM => {
                let items = self.last(2)?;
                self.extend_dict(items)
            }
            _ => {
                let items = self.since_mark()?;
                self.extend_dict(items)
            }
        }
    }

    fn push_list(&mut self, items: Vec<Item>) -> Result<(), PickleError> {
        self.stack.push(Item { value: Value::List(Vec::new()), depth: 1 });
        self.extend_list(items)
    }

    fn extend_list(&mut self, items: Vec<Item>) -> Result<(), PickleError> {
        let deepest = self.inside(&items)?;
        match self.stack.last_mut() {
            Some(Item { value: Value::List(list), depth }) => {
                *depth = deepest.max(*depth);
                list.extend(items.into_iter().map(|item| item.value));
                Ok(())
            }
            _ => Err(self.misfit("items are appended to no list")),
        }
    }

    fn extend_dict(&mut self, items: Vec<Item>) -> Result<(), PickleError> {
        let deepest = self.inside(&items)?;
        let misfit = self.misfit("a dict does not have text keys with values");
        let Some(Item { value: Value::Dict(entries), depth }) = self.stack.last_mut() else {
            return Err(self.misfit("items are set in no dict"));
        };
        *depth = deepest.max(*depth);
        let mut items = items.into_iter();
        while let Some(key) = items.next() {
            match (key.value, items.next()) {
                (Value::Text(key), Some(item)) => entries.push((key, item.value)),
                _ => return Err(misfit),
            }
        }
        Ok(())
    }

    /// Depth of a list that holds these items.
    fn inside(&self, items: &[Item]) -> Result<usize, PickleError> {
        let depth = 1 + items.iter().map(|item| item.depth).max().unwrap_or(0);
        if depth > DEEPEST { Err(self.misfit("lists are nested too deeply")) } else { Ok(depth) }
    }

    /// Remembers the last value, or repeats a remembered text.
    fn remember(&mut self, opcode: u8) -> Result<(), PickleError> {
        let number = match opcode {
            MEMOIZE => u32::try_from(self.memo.len()).unwrap_or(u32::MAX),
            BIN_PUT | BIN_GET => self.take::<1>()?[0].into(),
            _ => u32::from_le_bytes(self.take()?),
        };
        if matches!(opcode, BIN_GET | LONG_BIN_GET) {
            let text = match self.memo.get(&number) {
                Some(Some(text)) => Arc::clone(text),
                Some(None) => return Err(self.misfit("a value other than a text is used twice")),
                None => return Err(self.misfit("a value is used before it is remembered")),
            };
            self.stack.push(Item { value: Value::Text(text), depth: 0 });
            return Ok(());
        }
        let text = match self.stack.last() {
            Some(Item { value: Value::Text(text), .. }) => Some(Arc::clone(text)),
            Some(_) => None,
            None => return Err(self.misfit("nothing is remembered")),
        };
        self.memo.insert(number, text);
        Ok(())
    }

    fn pop(&mut self) -> Result<Item, PickleError> {
        self.stack.pop().ok_or_else(|| self.misfit("a value is missing"))
    }

    /// The last `count` values.
    fn last(&mut self, count: usize) -> Result<Vec<Item>, PickleError> {
        match self.stack.len().checked_sub(count) {
            Some(start) => Ok(self.stack.split_off(start)),
            None => Err(self.misfit("a value is missing")),
        }
    }

    /// The values since the last mark.
    fn since_mark(&mut self) -> Result<Vec<Item>, PickleError> {
        let outer = self.outer.pop().ok_or_else(|| self.misfit("a mark is missing"))?;
        Ok(mem::replace(&mut self.stack, outer))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.slice(N)?);
        Ok(bytes)
    }

    fn slice(&mut self, length: usize) -> Result<&[u8], PickleError> {
        let end = self.next.checked_add(length);
        let slice = end.and_then(|end| self.bytes.get(self.next..end));
        let slice = slice.ok_or(PickleError::Truncated(self.bytes.len()))?;
        self.next += length;
        Ok(slice)
    }

    fn misfit(&self, what: &'static str) -> PickleError {
        PickleError::Structure { what, at: self.at }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::write, *};

    #[test]
    fn what_is_written_is_read() {
        let value = Value::Dict(vec![
            ("images".into(), Value::List(vec![Value::Bytes(vec![255, 0, 216]), Value::None])),
            ("text".into(), Value::from("é\"\n")),
            ("flags".into(), Value::List(vec![Value::Bool(true), Value::Bool(false)])),
            ("numbers".into(), Value::List([0, -1, i64::MAX, i64::MIN].map(Value::Int).to_vec())),
            ("floats".into(), Value::List(vec![Value::Float(-0.25), Value::Float(f64::INFINITY)])),
            ("nothing".into(), Value::Dict(Vec::new())),
        ]);
        assert_eq!(read(&write(&value)), Ok(value));
    }

    #[test]
    fn a_pickle_cut_anywhere_is_truncated() {
        let whole = write(&Value::List(vec![Value::from("score"), Value::Float(0.5)]));
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]), Err(PickleError::Truncated(end)), "{end}");
        }
    }

    #[test]
    fn no_opcode_of_code_is_read() {
        let streams: [(&[u8], &str); 4] = [
            (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "GLOBAL"),
            (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.", "STACK_GLOBAL"),
            (b"(ios\nsystem\n.", "INST"),
            (b"\x80\x02N)\x81.", "NEWOBJ"),
        ];
        for (stream, name) in streams {
            let error = read(stream).expect_err(name);
            assert!(matches!(error, PickleError::Code { opcode, .. } if opcode == name), "{error}");
        }
    }

    #[test]
    fn a_list_of_a_million_lists_is_refused() {
        let mut stream = vec![b']'; 1_000_000];
        stream.extend(vec![b'a'; 999_999]);
        stream.push(b'.');
        assert!(matches!(read(&stream), Err(PickleError::Structure { .. })));
        let mut tuples = vec![b')'];
        tuples.extend(vec![TUPLE_1; 1_000_000]);
        tuples.push(b'.');
        assert!(matches!(read(&tuples), Err(PickleError::Structure { .. })));
    }

    #[test]
    fn a_list_used_twice_is_refused() {
        assert!(read(&[MARK; 100]).is_err_and(|error| error.to_string().contains("marks")));
        let error = read(b"](]q\x00h\x00h\x00e.").expect_err("a list twice");
        assert!(error.to_string().contains("used twice"), "{error}");
    }

    #[test]
    fn no_stream_panics() {
        // A small generator of noise, so that the streams are the same in every run.
        let mut state = 1_u64;
        let opcodes = b"\x80\x95.(NJKMG\x88\x89\x8a\x8cX\x8dCB\x8e]ae)t\x85\x86\x87}su\x94qrhj";
        for _ in 0..200_000 {
            let mut stream = Vec::new();
            for _ in 0..12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let draw = (state >> 33) as usize;
                stream.push(match draw % 4 {
                    0 => (draw >> 8) as u8 % 4,
                    _ => opcodes[(draw >> 8) % opcodes.len()],
                });
            }
            let _ = read(&stream);
        }
    }
}
