//! Writes safetensors files tensor by tensor, so that only one tensor is in memory at a time.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use burn::tensor::DType;
use files::replace_atomically;
use serde_json::json;

use super::ModelError;
use crate::weights::WeightsError;

/// A tensor's place in a file.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The name.
    pub name: String,
    /// The shape.
    pub shape: Vec<usize>,
    /// The stored type: F32, F16 or BF16.
    pub dtype: DType,
}

/// Atomically writes tensors in the order of `layout`; `bytes` gives the little-endian values of
/// each, as many as its place has.
///
/// # Errors
/// If `bytes` fails, or the file cannot be written.
pub(crate) fn write_streamed(
    layout: &[Place],
    path: &Path,
    mut bytes: impl FnMut(&Place) -> Result<Vec<u8>, ModelError>,
) -> Result<(), ModelError> {
    let header = header(layout);
    let mut failed = None;
    let written = replace_atomically(path, |unfinished| {
        let mut file = BufWriter::new(File::create(unfinished)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for place in layout {
            match bytes(place) {
                Ok(bytes) => file.write_all(&bytes)?,
                Err(error) => {
                    failed = Some(error);
                    return Err(std::io::Error::other("a tensor cannot be made"));
                }
            }
        }
        file.flush()
    });
    match (failed, written) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(WeightsError::from(error).into()),
        (None, Ok(())) => Ok(()),
    }
}

fn header(layout: &[Place]) -> Vec<u8> {
    let mut header = BTreeMap::new();
    let mut end = 0;
    for Place { name, shape, dtype } in layout {
        let begin = end;
        end += dtype.size() * shape.iter().product::<usize>();
        let kind = match dtype {
            DType::F16 => "F16",
            DType::BF16 => "BF16",
            _ => "F32",
        };
        header.insert(
            name.as_str(),
            json!({ "dtype": kind, "shape": shape, "data_offsets": [begin, end] }),
        );
    }
    header.insert("__metadata__", json!({ "format": "pt" }));
    let mut header = serde_json::to_vec(&header).expect("plain data");
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}
