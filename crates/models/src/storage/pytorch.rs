//! Files of `torch.save`: the tensors of a state dict, without running anything.
//!
//! Such a file is a zip archive: a pickle that describes the tensors, and their bytes, not
//! compressed. The pickle is read as data: a call of a class or a function is one of the few that
//! describe tensors, or its result is opaque. Files of PyTorch before 1.6 and `TorchScript` are
//! refused.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    ops::Range,
};

mod pickle;
mod zip;

use pickle::{Kind, Node, Pickle};

/// A tensor in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described {
    /// The type of its numbers.
    pub dtype: safetensors::Dtype,
    /// The shape.
    pub shape: Vec<usize>,
    /// The bytes in the file, row-major.
    pub bytes: Range<u64>,
}

/// Longest accepted description of the tensors, in bytes: enough for 40,000 of them.
const LONGEST: u64 = 8 << 20;

/// Reads the names and places of all tensors in the state dict of a file of `size` bytes: the
/// outermost dictionary, or its entry `state_dict` or `model`. Entries that are no tensors are
/// dropped.
///
/// # Errors
/// A sentence that follows the file's name, if it is not such a file, or is truncated or damaged.
pub(super) fn described(file: &mut File, size: u64) -> Result<BTreeMap<String, Described>, String> {
    let entries = zip::entries(file, size)?;
    let (root, program) = root_of(&entries)?;
    let order = entries.get(&format!("{root}/byteorder")).cloned();
    if order.map(|range| read(file, range)).transpose()?.is_some_and(|order| order != b"little") {
        return Err("was written by a machine of another byte order".to_owned());
    }
    let pickle = Pickle::parse(&read(file, program)?).map_err(|reason| {
        format!("is no file of PyTorch that can be read, or is damaged: {reason}")
    })?;
    let mut tensors = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, node) in state_dict(&pickle)? {
        match place(&pickle, node, |key| entries.get(&format!("{root}/data/{key}")).cloned()) {
            None => {}
            Some(Ok(tensor)) => drop(tensors.insert(name.to_owned(), tensor)),
            Some(Err(problem)) => problems.push(format!("{name} {problem}")),
        }
    }
    if !problems.is_empty() {
        return Err(format!("cannot be used:\n  - {}", problems.join("\n  - ")));
    }
    if tensors.is_empty() {
        return Err("holds no state dict: no dictionary from names to tensors".to_owned());
    }
    Ok(tensors)
}

/// The directory of an archive that all its entries lie in, and the place of the pickle.
fn root_of(entries: &BTreeMap<String, Range<u64>>) -> Result<(String, Range<u64>), String> {
    let found = entries.iter().find_map(|(name, range)| {
        let root = name.strip_suffix("/data.pkl")?;
        (!root.contains('/')).then(|| (root.to_owned(), range.clone()))
    });
    found.ok_or_else(|| "is a zip archive, but not one of PyTorch".to_owned())
}

/// Reads a short entry.
fn read(file: &mut File, range: Range<u64>) -> Result<Vec<u8>, String> {
    let length = range.end - range.start;
    if length > LONGEST {
        return Err(format!("has a description of {length} bytes; at most {LONGEST} are read"));
    }
    let mut bytes = vec![0; length as usize];
    let read = file.seek(SeekFrom::Start(range.start)).and_then(|_| file.read_exact(&mut bytes));
    read.map_err(|error| format!("cannot be read: {error}"))?;
    Ok(bytes)
}

/// Names of the entries that hold the state dict in files that hold more.
const WRAPPERS: [&str; 2] = ["state_dict", "model"];

/// The entries of the state dict.
fn state_dict(pickle: &Pickle) -> Result<impl Iterator<Item = (&str, Node)>, String> {
    let entries = |node: Node| match pickle.kind(node) {
        Kind::Dict(entries) => Some(entries),
        _ => None,
    };
    let root = entries(pickle.root()).ok_or("holds no dictionary of tensors")?;
    let inner = WRAPPERS.iter().find_map(|wrapper| {
        let (_, node) = root.iter().find(|(key, _)| pickle.text(*key) == Some(wrapper))?;
        entries(*node)
    });
    let named = |(key, value): &(Node, Node)| Some((pickle.text(*key)?, *value));
    Ok(inner.unwrap_or(root).iter().filter_map(named))
}

/// The place of a tensor; `None` if the node is something else.
fn place(
    pickle: &Pickle,
    node: Node,
    storage: impl Fn(&str) -> Option<Range<u64>>,
) -> Option<Result<Described, String>> {
    let Kind::Tensor { storage: of, offset, shape, strides } = pickle.kind(node) else {
        return None;
    };
    let &Kind::Storage { dtype, key } = pickle.kind(*of) else {
        return Some(Err("has numbers of a type that is not read".to_owned()));
    };
    let key = pickle.text(key).unwrap_or_default();
    let contiguous = is_contiguous(shape, strides);
    let place = || {
        let bytes = storage(key).ok_or("has no bytes in the file")?;
        if !contiguous {
            return Err("is a view whose numbers are not in a row; save it with .contiguous()");
        }
        let width = dtype.bitsize() as u64 / 8;
        let count = shape.iter().try_fold(width, |count, side| count.checked_mul(*side as u64));
        let from = offset.checked_mul(width).and_then(|offset| bytes.start.checked_add(offset));
        let to = from.zip(count).and_then(|(from, count)| from.checked_add(count));
        match from.zip(to) {
            Some((from, to)) if to <= bytes.end => Ok(from..to),
            _ => Err("has fewer bytes in the file than its shape needs"),
        }
    };
    let shape = shape.clone();
    Some(place().map(|bytes| Described { dtype, shape, bytes }).map_err(str::to_owned))
}

/// Whether the numbers of a tensor are in a row, row-major. Strides of sides of length 1 mean
/// nothing.
fn is_contiguous(shape: &[usize], strides: &[u64]) -> bool {
    if shape.contains(&0) {
        return true;
    }
    let mut expected = 1_u64;
    shape.len() == strides.len()
        && shape.iter().zip(strides).rev().all(|(&side, &stride)| {
            let fits = side == 1 || stride == expected;
            expected = expected.saturating_mul(side as u64);
            fits
        })
}
