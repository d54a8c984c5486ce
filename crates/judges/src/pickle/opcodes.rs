//! The opcodes of plain data, and the names of those that reach for code.

pub(super) const PROTO: u8 = 0x80;
pub(super) const FRAME: u8 = 0x95;
pub(super) const STOP: u8 = b'.';
pub(super) const MARK: u8 = b'(';

pub(super) const NONE: u8 = b'N';
pub(super) const NEW_TRUE: u8 = 0x88;
pub(super) const NEW_FALSE: u8 = 0x89;
pub(super) const BIN_INT: u8 = b'J';
pub(super) const BIN_INT_1: u8 = b'K';
pub(super) const BIN_INT_2: u8 = b'M';
pub(super) const LONG_1: u8 = 0x8a;
pub(super) const BIN_FLOAT: u8 = b'G';

pub(super) const SHORT_UNICODE: u8 = 0x8c;
pub(super) const UNICODE: u8 = b'X';
pub(super) const UNICODE_8: u8 = 0x8d;
pub(super) const SHORT_BYTES: u8 = b'C';
pub(super) const BYTES: u8 = b'B';
pub(super) const BYTES_8: u8 = 0x8e;

pub(super) const EMPTY_LIST: u8 = b']';
pub(super) const APPEND: u8 = b'a';
pub(super) const APPENDS: u8 = b'e';
pub(super) const EMPTY_TUPLE: u8 = b')';
pub(super) const TUPLE: u8 = b't';
pub(super) const TUPLE_1: u8 = 0x85;
pub(super) const TUPLE_2: u8 = 0x86;
pub(super) const TUPLE_3: u8 = 0x87;
pub(super) const EMPTY_DICT: u8 = b'}';
pub(super) const SET_ITEM: u8 = b's';
pub(super) const SET_ITEMS: u8 = b'u';

pub(super) const MEMOIZE: u8 = 0x94;
pub(super) const BIN_PUT: u8 = b'q';
pub(super) const LONG_BIN_PUT: u8 = b'r';
pub(super) const BIN_GET: u8 = b'h';
pub(super) const LONG_BIN_GET: u8 = b'j';

/// Name of an opcode that imports, creates or calls a Python object.
pub(super) fn reaches_for_code(opcode: u8) -> Option<&'static str> {
    Some(match opcode {
        b'c' => "GLOBAL",
        0x93 => "STACK_GLOBAL",
        b'R' => "REDUCE",
        b'b' => "BUILD",
        b'i' => "INST",
        b'o' => "OBJ",
        0x81 => "NEWOBJ",
        0x92 => "NEWOBJ_EX",
        b'P' => "PERSID",
        b'Q' => "BINPERSID",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        _ => return None,
    })
}
