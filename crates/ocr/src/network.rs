//! An ONNX network on the CPU: one array in, one array out.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use rten::{Model, ModelOptions, RunOptions, ThreadPool, Value, ValueView};

use crate::OcrError;

/// A network with one input `[1, 3, H, W]` and one output of `N` axes.
pub(crate) struct Network {
    name: &'static str,
    model: Model,
}

/// Thread pools for simultaneous runs. A run takes one and gives it back, so callers on several
/// threads never wait for each other.
pub(crate) struct Pools {
    threads: usize,
    free: Mutex<Vec<Arc<ThreadPool>>>,
}

/// An array with its shape.
pub(crate) struct Array<const N: usize> {
    pub shape: [usize; N],
    pub numbers: Vec<f32>,
}

impl Network {
    /// Reads a network from the bytes of an ONNX file; `path` names the file in errors.
    pub fn open(name: &'static str, bytes: Vec<u8>, path: &Path) -> Result<Self, OcrError> {
        let model =
            ModelOptions::with_all_ops().prepack_weights(true).load(bytes).map_err(|error| {
                broken(path, format!("{error}; the file is damaged or no ONNX file"))
            })?;
        if model.input_ids().len() != 1 || model.output_ids().len() != 1 {
            return Err(broken(path, format!("a {name} has one input and one output")));
        }
        Ok(Self { name, model })
    }

    /// The alphabet that the file of a recogniser carries, if any: one character per line.
    pub fn characters(&self) -> Option<&str> {
        self.model
            .metadata()
            .fields()
            .find_map(|(name, value)| (name == "character").then_some(value))
    }

    /// Runs the network on an array of shape `[1, 3, height, width]`.
    pub fn run<const N: usize>(
        &self,
        input: &Array<4>,
        pool: &Arc<ThreadPool>,
    ) -> Result<Array<N>, OcrError>
    where
        Value: Unpack<N>,
    {
        let failed = |reason: String| OcrError::Network { network: self.name, reason };
        let view = ValueView::from_shape(input.shape, &input.numbers)
            .map_err(|error| failed(error.to_string()))?;
        let mut options = RunOptions::default();
        options.thread_pool = Some(pool.clone());
        let output = self
            .model
            .run_one(view.into(), Some(options))
            .map_err(|error| failed(error.to_string()))?;
        output.unpack().ok_or_else(|| failed(format!("the output has not {N} axes of f32")))
    }
}

/// An output of a network as an array of `N` axes.
pub(crate) trait Unpack<const N: usize> {
    /// The array, if the output has that many axes and is f32.
    fn unpack(self) -> Option<Array<N>>;
}

impl Unpack<3> for Value {
    fn unpack(self) -> Option<Array<3>> {
        let (shape, numbers) = self.into_shape_vec().ok()?;
        Some(Array { shape, numbers })
    }
}

impl Unpack<4> for Value {
    fn unpack(self) -> Option<Array<4>> {
        let (shape, numbers) = self.into_shape_vec().ok()?;
        Some(Array { shape, numbers })
    }
}

impl Pools {
    /// Creates pools of `threads` threads, one pool per simultaneous run, when they are needed.
    pub fn new(threads: usize) -> Self {
        Self { threads, free: Mutex::new(Vec::new()) }
    }

    /// Runs `work` with a pool of its own.
    pub fn with<T>(&self, work: impl FnOnce(&Arc<ThreadPool>) -> T) -> T {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let pool = free.unwrap_or_else(|| Arc::new(ThreadPool::with_num_threads(self.threads)));
        let result = work(&pool);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(pool);
        result
    }
}

/// The error of a model file.
pub(crate) fn broken(path: &Path, reason: String) -> OcrError {
    OcrError::Model { path: path.to_owned(), reason }
}
