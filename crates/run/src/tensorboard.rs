//! TensorBoard event files: the numbers of a run and the images of its evaluations.
//!
//! A file is a sequence of records: length, checksum of the length, a protocol buffer `Event`,
//! checksum of the event. Every session writes its own file. The file of a resumed session names
//! the step it starts after, and TensorBoard drops later steps of interrupted sessions.
//!
//! Source: `event.proto`, `summary.proto` and `record_writer.cc` of TensorFlow.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use files::Action;
use prost::Message;
use serde_json::Value;

use crate::RunError;

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
    #[prost(message, optional, tag = "4")]
    image: Option<EncodedImage>,
}

#[derive(Clone, PartialEq, Message)]
struct EncodedImage {
    #[prost(int32, tag = "1")]
    height: i32,
    #[prost(int32, tag = "2")]
    width: i32,
    #[prost(int32, tag = "3")]
    colorspace: i32,
    #[prost(bytes = "vec", tag = "4")]
    png: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `SessionLog.START`
const START: i32 = 1;
/// The colorspace of RGB images.
const RGB: i32 = 3;

/// An open event file.
#[derive(Debug)]
pub struct EventFile(File);

impl EventFile {
    /// Creates the file after those of earlier sessions in a directory, whose steps after `done`
    /// are invalidated.
    ///
    /// # Errors
    /// If the directory or the file cannot be written.
    pub fn create(directory: &Path, done: usize) -> Result<Self, RunError> {
        let unwritable = |source| RunError::EventDirectory { path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(unwritable)?;
        let number = |name: &str| name.strip_prefix(PREFIX)?.split('.').next()?.parse::<u64>().ok();
        let entries = fs::read_dir(directory).map_err(unwritable)?;
        let newest = entries.filter_map(|entry| number(entry.ok()?.file_name().to_str()?)).max();
        // TensorBoard reads files in the order of their names, which must not depend on a clock
        // that goes backwards.
        let number = newest.map_or(0, |newest| newest + 1).max(now() as u64);
        let path = directory.join(format!("{PREFIX}{number:012}.flow-grpo"));
        let mut file = Self(File::create_new(&path).map_err(Action::Write.failed_on(&path))?);
        file.write(0, |event| event.file_version = Some("brain.Event:2".to_owned()))?;
        file.write(done + 1, |event| event.session_log = Some(SessionLog { status: START }))?;
        Ok(file)
    }

    /// Writes every number of a line of `metrics.jsonl`, under its path behind `prefix`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn scalars(&mut self, prefix: &str, step: usize, line: &Value) -> Result<(), RunError> {
        let mut value = Vec::new();
        collect(prefix, line, &mut value);
        self.write(step, |event| event.summary = Some(Summary { value }))
    }

    /// Writes the image of a PNG file.
    ///
    /// # Errors
    /// If the image cannot be read, or the event file cannot be written.
    pub fn image(&mut self, tag: &str, step: usize, png: &Path) -> Result<(), RunError> {
        let unreadable = |source| RunError::BadImage { path: png.to_owned(), source };
        let (width, height) = image::image_dimensions(png).map_err(unreadable)?;
        let png = fs::read(png).map_err(Action::Read.failed_on(png))?;
        let image =
            EncodedImage { height: height as i32, width: width as i32, colorspace: RGB, png };
        let value =
            vec![SummaryValue { tag: tag.to_owned(), simple_value: None, image: Some(image) }];
        self.write(step, |event| event.summary = Some(Summary { value }))
    }

    /// Syncs the file to the disk.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn sync(&self) -> Result<(), RunError> {
        self.0.sync_data().map_err(RunError::EventFile)
    }

    fn write(&mut self, step: usize, what: impl FnOnce(&mut Event)) -> Result<(), RunError> {
        let mut event = Event { wall_time: now(), step: step as i64, ..Event::default() };
        what(&mut event);
        let data = event.encode_to_vec();
        let length = (data.len() as u64).to_le_bytes();
        let parts = [&length[..], &masked_checksum(&length), &data, &masked_checksum(&data)];
        self.0.write_all(&parts.concat()).map_err(RunError::EventFile)
    }
}

const PREFIX: &str = "events.out.tfevents.";

/// Collects every number in a value, under its path; entries of a list that have a step are named
/// after it.
fn collect(path: &str, value: &Value, into: &mut Vec<SummaryValue>) {
    let join = |name: &str| format!("{path}/{name}");
    match value {
        Value::Number(number) => {
            let simple_value = number.as_f64().map(|number| number as f32);
            into.push(SummaryValue { tag: path.to_owned(), simple_value, image: None });
        }
        Value::Object(fields) => {
            // As curves, the bins of histograms would bury the rest.
            let fields = fields.iter().filter(|(name, _)| *name != "histograms");
            fields.for_each(|(name, value)| collect(&join(name), value, into));
        }
        Value::Array(entries) => {
            for (index, entry) in entries.iter().enumerate() {
                let name = entry["step"].as_u64().unwrap_or(index as u64);
                collect(&join(&name.to_string()), entry, into);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// CRC-32C, rotated and shifted, so that a checksum of data that contains checksums is safe.
fn masked_checksum(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
