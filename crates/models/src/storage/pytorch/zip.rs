//! The directory of a zip archive whose entries are not compressed.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    ops::Range,
};

/// Longest accepted directory, in bytes.
const LONGEST_DIRECTORY: u64 = 64 << 20;
/// Length of the record at the end of an archive, without its comment.
const END: u64 = 22;
/// Longest comment.
const LONGEST_COMMENT: u64 = 1 << 16;
/// In the place of a number that a 64-bit field holds.
const ELSEWHERE: u64 = u32::MAX as u64;

/// The first bytes of a pickle of PyTorch before 1.6: protocol 2, and the number that it begins
/// with.
const LEGACY: [u8; 5] = [0x80, 0x02, 0x8a, 0x0a, 0x6c];

/// The entries of an archive of `size` bytes: names, and the places of their bytes.
///
/// # Errors
/// A sentence that follows the file's name, if it is no such archive, or is truncated or damaged.
pub(super) fn entries(file: &mut File, size: u64) -> Result<BTreeMap<String, Range<u64>>, String> {
    let mut first = [0; 5];
    let begun = at(file, 0, &mut first).is_ok();
    if begun && first == LEGACY {
        return Err("was written by PyTorch before 1.6; load it with torch.load and save it \
                    again with torch.save"
            .to_owned());
    }
    if !begun || !first.starts_with(b"PK\x03\x04") {
        return Err("is no file of torch.save: it does not begin like one".to_owned());
    }
    let damaged = || "is truncated or damaged: its directory cannot be read".to_owned();
    let Range { start, end } = directory(file, size).ok_or_else(damaged)?;
    if end - start > LONGEST_DIRECTORY {
        return Err(damaged());
    }
    let mut bytes = vec![0; (end - start) as usize];
    at(file, start, &mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    let mut found = BTreeMap::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (entry, after) = Entry::parse(rest).ok_or_else(damaged)?;
        rest = after;
        if entry.name.contains("/code/") {
            return Err(
                "is a TorchScript archive; save the model's state_dict() instead".to_owned()
            );
        }
        if entry.method != 0 {
            return Err(format!("has a compressed entry {}; PyTorch writes none", entry.name));
        }
        let bytes = entry.bytes(file, start).ok_or_else(damaged)?;
        found.insert(entry.name, bytes);
    }
    Ok(found)
}

/// The place of the directory; `None` if there is none in the file.
fn directory(file: &mut File, size: u64) -> Option<Range<u64>> {
    let from = size.saturating_sub(END + LONGEST_COMMENT);
    let mut tail = vec![0; (size - from) as usize];
    at(file, from, &mut tail).ok()?;
    let is_end = |place: &usize| tail[*place..].starts_with(b"PK\x05\x06");
    let last = tail.len().checked_sub(END as usize)?;
    let place = (0..=last).rev().find(is_end)?;
    let record = &tail[place..];
    let (mut length, mut start) = (number(record, 12, 4)?, number(record, 16, 4)?);
    let mut end = from + place as u64;
    // A record of 64-bit numbers, which a locator in front of the end points to.
    let locator = end.checked_sub(20);
    let mut bytes = [0; 20];
    if let Some(locator) = locator
        && at(file, locator, &mut bytes).is_ok()
        && bytes.starts_with(b"PK\x06\x07")
    {
        let place = number(&bytes, 8, 8)?;
        let mut record = [0; 56];
        at(file, place, &mut record).ok()?;
        if !record.starts_with(b"PK\x06\x06") {
            return None;
        }
        (length, start, end) = (number(&record, 40, 8)?, number(&record, 48, 8)?, place);
    }
    let range = start..start.checked_add(length)?;
    (range.end <= end && end <= size).then_some(range)
}

/// An entry of the directory.
struct Entry {
    name: String,
    method: u64,
    length: u64,
    /// Place of the entry's own header.
    header: u64,
}

impl Entry {
    /// Parses the first entry of a directory; returns the rest of the directory, too.
    fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        if !bytes.starts_with(b"PK\x01\x02") {
            return None;
        }
        let [name, extra, comment] =
            [28, 30, 32].map(|place| number(bytes, place, 2).unwrap_or(0) as usize);
        let text = bytes.get(46..46 + name)?;
        let fields = bytes.get(46 + name..46 + name + extra)?;
        let rest = bytes.get(46 + name + extra + comment..)?;
        // The 64-bit field has the numbers that have no room, in this order.
        let mut wide = wide_field(fields);
        let [length, compressed, header] = [24, 20, 42].map(|place| {
            let short = number(bytes, place, 4)?;
            if short != ELSEWHERE {
                return Some(short);
            }
            let (first, after) = wide.split_at_checked(8)?;
            wide = after;
            number(first, 0, 8)
        });
        let (length, compressed, header) = (length?, compressed?, header?);
        let method = number(bytes, 10, 2)?;
        let name = String::from_utf8(text.to_vec()).ok()?;
        (method != 0 || length == compressed)
            .then_some((Self { name, method, length, header }, rest))
    }

    /// The place of the entry's bytes, which must end before the directory.
    fn bytes(&self, file: &mut File, directory: u64) -> Option<Range<u64>> {
        let mut header = [0; 30];
        at(file, self.header, &mut header).ok()?;
        if !header.starts_with(b"PK\x03\x04") {
            return None;
        }
        let before = 30 + number(&header, 26, 2)? + number(&header, 28, 2)?;
        let from = self.header.checked_add(before)?;
        let to = from.checked_add(self.length)?;
        (to <= directory).then_some(from..to)
    }
}

/// The content of the field of 64-bit numbers among the extra fields of an entry; empty if there
/// is none.
fn wide_field(mut fields: &[u8]) -> &[u8] {
    while let (Some(id), Some(length)) = (number(fields, 0, 2), number(fields, 2, 2)) {
        let Some(content) = fields.get(4..4 + length as usize) else { break };
        if id == 1 {
            return content;
        }
        fields = &fields[4 + length as usize..];
    }
    &[]
}

/// A little-endian number of `width` bytes at a place.
fn number(bytes: &[u8], place: usize, width: usize) -> Option<u64> {
    let bytes = bytes.get(place..place + width)?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

/// Fills `bytes` from a place in a file.
fn at(file: &mut File, place: u64, bytes: &mut [u8]) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(place))?;
    file.read_exact(bytes)
}
