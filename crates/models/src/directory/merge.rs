//! Merges an adapter into the transformer of a model directory, tensor by tensor.

use std::{collections::BTreeSet, path::Path};

use burn::{
    prelude::*,
    tensor::{DType, bf16, f16},
};

use super::{Family, ModelDirectory};
use crate::{
    lora::Adapter,
    storage::{
        DIFFUSERS, ModelError, Problems, Stored,
        streamed::{Place, write_streamed},
    },
    weights::WeightsError,
};

impl<F: Family> ModelDirectory<F> {
    /// Number of tensors of the transformer.
    pub fn transformer_tensors(&self) -> usize {
        self.transformer.files().names().count()
    }

    /// Writes the transformer with an adapter merged into its weights, `W + (α/r)·A·B`: a directory
    /// `transformer` in the layout of diffusers, in the types of the model's own files. `done` is
    /// called after every tensor.
    ///
    /// # Errors
    /// If the adapter does not fit, or a file cannot be read or written.
    pub fn write_merged<B: Backend>(
        &self,
        adapter: &Adapter,
        path: &Path,
        device: &B::Device,
        mut done: impl FnMut(),
    ) -> Result<(), ModelError> {
        let layout = self.merged_layout(adapter)?;
        let io = |source| WeightsError::Io { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(io)?;
        let config = self.path.join(self.transformer.name).join("config.json");
        std::fs::copy(&config, path.join("config.json"))
            .map_err(|source| WeightsError::Io { path: config, source })?;
        let file = path.join(format!("{DIFFUSERS}.safetensors"));
        write_streamed(&layout, &file, |place| {
            let stored = self.transformer.files().stored(&place.name).expect("it is in the layout");
            let bytes = merged::<B>(&stored, place, adapter, device)
                .map_err(|reason| ModelError::unreadable(&self.path, reason))?;
            done();
            Ok(bytes)
        })
    }

    /// The tensors of the merged file.
    fn merged_layout(&self, adapter: &Adapter) -> Result<Vec<Place>, ModelError> {
        let files = self.transformer.files();
        let mut problems = Problems::default();
        let mut layout = Vec::new();
        let mut rest: BTreeSet<&str> = adapter.layers().collect();
        for name in files.names() {
            let stored = files.stored(name).expect("it was just named");
            let layer = name.strip_suffix(".weight").filter(|layer| rest.remove(layer));
            if let Some([inputs, outputs]) = layer.and_then(|layer| adapter.size_of(layer))
                && stored.shape != [outputs, inputs]
            {
                problems.0.push(format!(
                    "{name} has shape {:?}, its adapter goes from {inputs} to {outputs} features",
                    stored.shape
                ));
            }
            match stored.dtype() {
                Some(dtype) => {
                    layout.push(Place { name: name.to_owned(), shape: stored.shape, dtype });
                }
                None => problems.0.push(format!("{name} is not F32, F16 or BF16")),
            }
        }
        let unknown = rest.iter().map(|layer| format!("{layer} is not a layer of the transformer"));
        problems.0.extend(unknown);
        problems.none(&self.path, layout)
    }
}

/// The values of a tensor, with the adapter's change added if it is the weight of an adapted layer.
fn merged<B: Backend>(
    stored: &Stored,
    place: &Place,
    adapter: &Adapter,
    device: &B::Device,
) -> Result<Vec<u8>, String> {
    let data = stored.read(&place.name)?;
    let change =
        place.name.strip_suffix(".weight").and_then(|layer| adapter.change::<B>(layer, device));
    let Some(change) = change else { return Ok(data.as_bytes().to_vec()) };
    let change = change.transpose().into_data(); // [outputs, inputs], as files have it.
    let values = data.iter::<f32>().zip(change.iter::<f32>()).map(|(w, change)| w + change);
    Ok(match place.dtype {
        DType::F16 => values.flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
        DType::BF16 => values.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
        _ => values.flat_map(f32::to_le_bytes).collect(),
    })
}
