//! The part of the pickle format that describes tensors.
//!
//! A pickle is a program for a machine with a stack. Here it makes nodes that point to each other
//! and never a copy, so it takes memory in proportion to its length. Nothing is imported or called:
//! a function that is not known makes an opaque node.

use std::collections::HashMap;

use safetensors::Dtype;

/// A value that a pickle made: its place among all of them.
pub(super) type Node = usize;

/// The kinds of values.
#[derive(Debug)]
pub(super) enum Kind {
    /// A value that describes no tensor.
    Opaque,
    Integer(i64),
    Text(String),
    /// A class or function.
    Global(Known),
    Tuple(Vec<Node>),
    Dict(Vec<(Node, Node)>),
    /// Numbers in the file; `key` is the name of their entry.
    Storage {
        dtype: Dtype,
        key: Node,
    },
    /// A tensor; offset and strides count numbers.
    Tensor {
        storage: Node,
        offset: u64,
        shape: Vec<usize>,
        strides: Vec<u64>,
    },
}

/// A class or function that describes tensors, or another one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Known {
    /// `collections.OrderedDict`
    Dict,
    /// `torch._utils._rebuild_tensor_v2`
    Tensor,
    /// `torch._utils._rebuild_parameter`
    Parameter,
    /// Numbers of a type, `torch.FloatStorage`.
    Storage(Dtype),
    /// Anything else.
    Other,
}

/// A pickle that was read.
#[derive(Debug)]
pub(super) struct Pickle {
    nodes: Vec<Kind>,
    root: Node,
}

impl Pickle {
    /// Reads a pickle.
    ///
    /// # Errors
    /// A description of the first thing that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut machine = Machine { bytes, ..Machine::default() };
        let root = machine.run()?;
        Ok(Self { nodes: machine.nodes, root })
    }

    /// The result of the pickle.
    pub fn root(&self) -> Node {
        self.root
    }

    /// The kind of a node.
    pub fn kind(&self, node: Node) -> &Kind {
        &self.nodes[node]
    }

    /// The text of a node, if it is one.
    pub fn text(&self, node: Node) -> Option<&str> {
        match self.kind(node) {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// The machine that a pickle is a program for.
#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    nodes: Vec<Kind>,
    stack: Vec<Node>,
    /// Heights of the stack at the marks.
    marks: Vec<usize>,
    memo: HashMap<u64, Node>,
}

const ENDS: &str = "the pickle ends early";
const EMPTY: &str = "the pickle takes more from its stack than is there";

impl<'a> Machine<'a> {
    /// Runs the program until it stops.
    fn run(&mut self) -> Result<Node, String> {
        loop {
            let code = self.take(1)?[0];
            match code {
                b'.' => return self.pop(),
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.above_mark()?),
                b'2' => {
                    let top = *self.stack.last().ok_or(EMPTY)?;
                    self.stack.push(top);
                }
                b'q' | b'r' | 0x94 => self.remember(code)?,
                b'h' | b'j' => {
                    let key = self.number(if code == b'h' { 1 } else { 4 })?;
                    let node =
                        self.memo.get(&key).ok_or("the pickle recalls what it never made")?;
                    self.stack.push(*node);
                }
                b'}' | b'd' | b's' | b'u' => self.dictionary(code)?,
                b')' | b't' | 0x85..=0x87 => self.tuple(code)?,
                b'c' | 0x93 | b'R' | 0x81 | 0x92 | b'b' | b'Q' => self.object(code)?,
                b']' | b'l' | b'a' | b'e' | 0x8f..=0x91 => self.list(code)?,
                _ => self.constant(code)?,
            }
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(ENDS)?;
        self.bytes = rest;
        Ok(taken)
    }

    /// A little-endian number of `width` bytes.
    fn number(&mut self, width: usize) -> Result<u64, String> {
        Ok(self.take(width)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// The bytes after their length, a number of `width` bytes.
    fn counted(&mut self, width: usize) -> Result<&'a [u8], String> {
        let length = self.number(width)?;
        self.take(usize::try_from(length).map_err(|_| ENDS)?)
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let length = self.bytes.iter().position(|byte| *byte == b'\n').ok_or(ENDS)?;
        let line = self.take(length + 1)?;
        std::str::from_utf8(&line[..length]).map_err(|_| "a name is not UTF-8".to_owned())
    }

    fn push(&mut self, kind: Kind) {
        self.stack.push(self.nodes.len());
        self.nodes.push(kind);
    }

    fn pop(&mut self) -> Result<Node, String> {
        let bottom = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= bottom {
            return Err(EMPTY.to_owned());
        }
        Ok(self.stack.pop().ok_or(EMPTY)?)
    }

    /// Takes everything above the last mark.
    fn above_mark(&mut self) -> Result<Vec<Node>, String> {
        let mark = self.marks.pop().ok_or("the pickle goes back to a mark that it never set")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    /// Notes the top of the stack under a number.
    fn remember(&mut self, code: u8) -> Result<(), String> {
        let key = match code {
            b'q' => self.number(1)?,
            b'r' => self.number(4)?,
            _ => self.memo.len() as u64,
        };
        self.memo.insert(key, *self.stack.last().ok_or(EMPTY)?);
        Ok(())
    }

    /// Numbers, texts and other constants.
    fn constant(&mut self, code: u8) -> Result<(), String> {
        let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
            Ok(text) => Kind::Text(text.to_owned()),
            Err(_) => Kind::Opaque,
        };
        let kind = match code {
            b'N' | 0x88 | 0x89 => Kind::Opaque,
            b'K' => Kind::Integer(self.number(1)? as i64),
            b'M' => Kind::Integer(self.number(2)? as i64),
            b'J' => Kind::Integer(i64::from(self.number(4)? as u32 as i32)),
            0x8a => long(self.counted(1)?),
            0x8b => long(self.counted(4)?),
            b'G' => {
                self.take(8)?;
                Kind::Opaque
            }
            b'X' | b'T' => text(self.counted(4)?),
            0x8c | b'U' => text(self.counted(1)?),
            0x8d => text(self.counted(8)?),
            b'B' | b'C' | 0x8e => {
                self.counted(if code == b'B' {
                    4
                } else if code == b'C' {
                    1
                } else {
                    8
                })?;
                Kind::Opaque
            }
            _ => return Err(format!("the pickle has an operation {code:#04x} that is not known")),
        };
        self.push(kind);
        Ok(())
    }

    fn tuple(&mut self, code: u8) -> Result<(), String> {
        let items = match code {
            b')' => Vec::new(),
            b't' => self.above_mark()?,
            _ => {
                let mut items = Vec::new();
                for _ in 0..code - 0x84 {
                    items.push(self.pop()?);
                }
                items.reverse();
                items
            }
        };
        self.push(Kind::Tuple(items));
        Ok(())
    }

    /// Lists and sets, whose items describe no tensor.
    fn list(&mut self, code: u8) -> Result<(), String> {
        match code {
            b']' | 0x8f => self.push(Kind::Opaque),
            b'a' => drop(self.pop()?),
            b'e' | 0x90 => drop(self.above_mark()?),
            _ => {
                self.above_mark()?;
                self.push(Kind::Opaque);
            }
        }
        Ok(())
    }

    fn dictionary(&mut self, code: u8) -> Result<(), String> {
        let items = match code {
            b'}' => Vec::new(),
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.above_mark()?,
        };
        if matches!(code, b'}' | b'd') {
            self.push(Kind::Dict(Vec::new()));
        }
        let target = *self.stack.last().ok_or(EMPTY)?;
        if items.len() % 2 == 1 {
            return Err("a dictionary has a key without a value".to_owned());
        }
        // Entries of an unknown object describe no tensor.
        if let Kind::Dict(entries) = &mut self.nodes[target] {
            entries.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        }
        Ok(())
    }

    /// Classes, functions and what they make.
    fn object(&mut self, code: u8) -> Result<(), String> {
        match code {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Kind::Global(known(module, name)));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let kind = match (&self.nodes[module], &self.nodes[name]) {
                    (Kind::Text(module), Kind::Text(name)) => Kind::Global(known(module, name)),
                    _ => return Err("a class has no name".to_owned()),
                };
                self.push(kind);
            }
            // The state of an object that is there.
            b'b' => drop(self.pop()?),
            b'Q' => {
                let id = self.pop()?;
                let kind = self.storage(id)?;
                self.push(kind);
            }
            _ => {
                if code == 0x92 {
                    self.pop()?; // Arguments by name.
                }
                let (arguments, function) = (self.pop()?, self.pop()?);
                let made = self.call(function, arguments)?;
                self.push(made);
            }
        }
        Ok(())
    }

    /// The storage of a persistent id, `("storage", CLASS, KEY, DEVICE, COUNT)`.
    fn storage(&self, id: Node) -> Result<Kind, String> {
        let Kind::Tuple(items) = &self.nodes[id] else {
            return Err("a storage has no description".to_owned());
        };
        let [_, class, key, ..] = items[..] else {
            return Err("the description of a storage is too short".to_owned());
        };
        match (&self.nodes[class], &self.nodes[key]) {
            (Kind::Global(Known::Storage(dtype)), Kind::Text(_)) => {
                Ok(Kind::Storage { dtype: *dtype, key })
            }
            _ => Ok(Kind::Opaque),
        }
    }

    /// The result of a function that describes a tensor or a dictionary; of any other, an opaque
    /// node.
    fn call(&self, function: Node, arguments: Node) -> Result<Kind, String> {
        let (Kind::Global(function), Kind::Tuple(items)) =
            (&self.nodes[function], &self.nodes[arguments])
        else {
            return Ok(Kind::Opaque);
        };
        Ok(match (function, &items[..]) {
            (Known::Dict, []) => Kind::Dict(Vec::new()),
            (Known::Tensor, &[storage, offset, shape, strides, ..]) => {
                let offset = self.integers(offset)?.first().copied().ok_or("no offset")?;
                let shape = self.integers(shape)?.into_iter().map(|side| side as usize).collect();
                Kind::Tensor { storage, offset, shape, strides: self.integers(strides)? }
            }
            (Known::Parameter, &[tensor, ..]) => match &self.nodes[tensor] {
                Kind::Tensor { storage, offset, shape, strides } => Kind::Tensor {
                    storage: *storage,
                    offset: *offset,
                    shape: shape.clone(),
                    strides: strides.clone(),
                },
                _ => Kind::Opaque,
            },
            _ => Kind::Opaque,
        })
    }

    /// The numbers of a tuple, or one number; none may be negative.
    fn integers(&self, node: Node) -> Result<Vec<u64>, String> {
        let one = |node: Node| match self.nodes[node] {
            Kind::Integer(number) => u64::try_from(number).ok(),
            _ => None,
        };
        let numbers = match &self.nodes[node] {
            Kind::Tuple(items) if items.len() <= MOST_SIDES => {
                items.iter().map(|item| one(*item)).collect()
            }
            Kind::Tuple(_) => None,
            _ => one(node).map(|number| vec![number]),
        };
        numbers.ok_or_else(|| "a tensor has no shape of numbers".to_owned())
    }
}

/// Most sides of a tensor.
const MOST_SIDES: usize = 8;

/// A number of any length, little-endian, in two's complement; opaque beyond 64 bits.
fn long(bytes: &[u8]) -> Kind {
    if bytes.len() > 8 {
        return Kind::Opaque;
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let filler = if negative { 0xff } else { 0 };
    let mut whole = [filler; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    Kind::Integer(i64::from_le_bytes(whole))
}

/// The class or function of a name.
fn known(module: &str, name: &str) -> Known {
    match (module, name) {
        ("collections", "OrderedDict") => Known::Dict,
        ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Known::Tensor,
        ("torch._utils", "_rebuild_parameter") => Known::Parameter,
        ("torch", "FloatStorage") => Known::Storage(Dtype::F32),
        ("torch", "HalfStorage") => Known::Storage(Dtype::F16),
        ("torch", "BFloat16Storage") => Known::Storage(Dtype::BF16),
        ("torch", "DoubleStorage") => Known::Storage(Dtype::F64),
        ("torch", "LongStorage") => Known::Storage(Dtype::I64),
        ("torch", "IntStorage") => Known::Storage(Dtype::I32),
        ("torch", "ShortStorage") => Known::Storage(Dtype::I16),
        ("torch", "CharStorage") => Known::Storage(Dtype::I8),
        ("torch", "ByteStorage") => Known::Storage(Dtype::U8),
        ("torch", "BoolStorage") => Known::Storage(Dtype::BOOL),
        _ => Known::Other,
    }
}
