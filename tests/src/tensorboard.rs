//! The event files of a run, read by an independent reader: frames, checksums and protocol buffers.

use std::{collections::BTreeMap, path::Path};

use crate::cli::{metrics, program, run};

/// CRC-32C, bit by bit (polynomial 0x1EDC6F41, reflected).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 }
        })
    })
}

fn masked(bytes: &[u8]) -> u32 {
    let crc = crc32c(bytes);
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The records of a file, with every checksum checked.
fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    while !bytes.is_empty() {
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
        assert_eq!(number(&bytes[8..12]), masked(&bytes[..8]), "the checksum of a length");
        let data = &bytes[12..12 + length];
        assert_eq!(
            number(&bytes[12 + length..16 + length]),
            masked(data),
            "the checksum of a record"
        );
        records.push(data.to_vec());
        bytes = &bytes[16 + length..];
    }
    records
}

/// A field of a protocol buffer.
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Field)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let field = match key & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => Field::Number(u64::from_le_bytes(
                take(&mut bytes, 8).try_into().expect("eight bytes"),
            )),
            2 => {
                let length = varint(&mut bytes) as usize;
                Field::Bytes(take(&mut bytes, length).to_vec())
            }
            5 => Field::Number(
                u32::from_le_bytes(take(&mut bytes, 4).try_into().expect("four bytes")).into(),
            ),
            other => panic!("wire type {other}"),
        };
        found.push((key >> 3, field));
    }
    found
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = take(bytes, 1)[0];
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            break;
        }
    }
    value
}

/// Scalars and images of a run by tag and step, as TensorBoard merges them: a session drops the
/// steps of earlier sessions from its own first step on.
#[derive(Default)]
struct Events {
    scalars: BTreeMap<(String, u64), f32>,
    images: BTreeMap<(String, u64), Vec<u8>>,
}

fn events(directory: &Path) -> Events {
    let mut paths: Vec<_> = std::fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    let mut events = Events::default();
    for path in paths {
        for record in records(&std::fs::read(path).expect("an event file")) {
            take_in(&mut events, &record);
        }
    }
    events
}

fn take_in(events: &mut Events, record: &[u8]) {
    let event = fields(record);
    let step = event.iter().find_map(|(tag, field)| match (tag, field) {
        (2, Field::Number(step)) => Some(*step),
        _ => None,
    });
    let step = step.unwrap_or(0);
    for (tag, field) in event {
        match (tag, field) {
            (7, Field::Bytes(_)) => {
                events.scalars.retain(|(_, other), _| *other < step);
                events.images.retain(|(_, other), _| *other < step);
            }
            (5, Field::Bytes(summary)) => {
                for (_, value) in fields(&summary) {
                    let Field::Bytes(value) = value else { panic!("a value is a message") };
                    take_value(events, step, &value);
                }
            }
            _ => {}
        }
    }
}

fn take_value(events: &mut Events, step: u64, value: &[u8]) {
    let mut name = String::new();
    for (tag, field) in fields(value) {
        match (tag, field) {
            (1, Field::Bytes(bytes)) => name = String::from_utf8(bytes).expect("a name"),
            (2, Field::Number(bits)) => {
                let before =
                    events.scalars.insert((name.clone(), step), f32::from_bits(bits as u32));
                assert!(before.is_none(), "{name} has two values at step {step}");
            }
            (4, Field::Bytes(image)) => {
                let png = fields(&image).into_iter().find_map(|field| match field {
                    (4, Field::Bytes(png)) => Some(png),
                    _ => None,
                });
                events.images.insert((name.clone(), step), png.expect("an image has bytes"));
            }
            _ => {}
        }
    }
}

#[test]
fn tensorboard_shows_the_numbers_of_metrics_jsonl_and_the_images_of_evaluations() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of CRC-32C");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("run");
    let out = path.to_string_lossy().into_owned();
    let settings = ["epochs=8", "evaluate_every=4", "checkpoint_every=4", "evaluation_samples=100"];
    let mut command = std::process::Command::new(program());
    command
        .args(["train", "--preset", "toy-2d", "--out", &out])
        .args(settings.iter().flat_map(|setting| ["--set", setting]));
    assert!(command.output().expect("the program runs").status.success());
    // The first session reached epoch 8 and lost its last checkpoint: the resumed one writes epochs
    // 5 to 8 again.
    std::fs::remove_file(path.join("checkpoints/000008.safetensors")).expect("removed");
    assert!(run(&["train", "--resume", &out]).status.success());
    assert_eq!(std::fs::read_dir(path.join("tensorboard")).expect("a directory").count(), 2);
    let events = events(&path.join("tensorboard"));
    let mut checked = 0;
    for line in metrics(&path) {
        let (event, step) =
            (line["event"].as_str().expect("an event"), line["epoch"].as_u64().expect("an epoch"));
        for (tag, pointer) in [
            ("reward", "/reward"),
            ("ratio/max", "/ratio/max"),
            ("rewards/toy_mode", "/rewards/toy_mode"),
            ("monitors/diversity", "/monitors/diversity"),
            ("steps/3/ratio/std", "/steps/3/ratio/std"),
        ] {
            let Some(value) = line.pointer(pointer).and_then(serde_json::Value::as_f64) else {
                continue;
            };
            assert_eq!(
                events.scalars[&(format!("{event}/{tag}"), step)],
                value as f32,
                "{event}/{tag} at {step}"
            );
            checked += 1;
        }
    }
    assert_eq!(checked, 8 * 5 + 3 * 2);
    for step in [0, 4, 8] {
        let file = std::fs::read(path.join(format!("samples/validation-{step:06}.png")))
            .expect("an image");
        assert!(events.images[&("samples/validation".to_owned(), step)] == file);
    }
}
