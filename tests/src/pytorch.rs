//! Files of PyTorch, against the same tensors as safetensors.

use std::{fs, path::PathBuf};

use models::{
    preference::{Aesthetic, Hpsv2},
    storage::TensorFiles,
};

use crate::backend::{Device, Plain};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

#[test]
fn a_state_dict_has_the_tensors_that_were_saved() {
    for (file, same) in [
        ("plain.pt", "plain"),
        ("nested.pt", "plain"),
        ("protocol4.pt", "plain"),
        ("typed.bin", "typed"),
        ("views.pth", "views"),
    ] {
        let got = TensorFiles::open_pytorch(&golden("pytorch").join(file)).expect(file);
        let same = golden("pytorch").join(format!("{same}.safetensors"));
        let wanted = TensorFiles::open_file(&same).expect("safetensors");
        assert_eq!(got.names().collect::<Vec<_>>(), wanted.names().collect::<Vec<_>>(), "{file}");
        for name in wanted.names() {
            assert_eq!(got.shape(name), wanted.shape(name), "{file}: {name}");
            let read = |files: &TensorFiles| files.stored(name).expect("named").read(name);
            match (read(&got), read(&wanted)) {
                (Ok(got), Ok(wanted)) => assert!(got == wanted, "{file}: {name}"),
                (Err(got), Err(wanted)) => assert_eq!(got, wanted, "integers"),
                (got, wanted) => panic!("{file}: {name}: {got:?} {wanted:?}"),
            }
        }
        assert_eq!(got.digest().expect("read"), wanted.digest().expect("read"), "{file}");
    }
}

#[test]
fn what_is_no_state_dict_is_refused_with_advice() {
    for (file, advice) in [
        (
            "legacy.pt",
            "was written by PyTorch before 1.6; load it with torch.load and save it again",
        ),
        ("script.pt", "is a TorchScript archive; save the model's state_dict() instead"),
        (
            "strided.pt",
            "weight is a view whose numbers are not in a row; save it with .contiguous()",
        ),
        ("list.pt", "holds no dictionary of tensors"),
        ("plain.safetensors", "is no file of torch.save: it does not begin like one"),
    ] {
        let error = TensorFiles::open_pytorch(&golden("pytorch").join(file)).expect_err(file);
        let error = error.to_string();
        assert!(error.contains(file) && error.contains(advice), "{error}");
    }
}

#[test]
fn a_damaged_file_is_an_error_and_no_panic() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("damaged.pt");
    let mut refused = 0;
    let mut open = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("written");
        match TensorFiles::open_pytorch(&path) {
            Ok(files) => {
                for name in files.names() {
                    drop(files.stored(name).expect("named").read(name));
                }
            }
            Err(error) => {
                refused += 1;
                assert!(error.to_string().len() < 10_000);
            }
        }
    };
    for file in ["nested.pt", "protocol4.pt", "typed.bin"] {
        let whole = fs::read(golden("pytorch").join(file)).expect("the golden is committed");
        for length in (0..whole.len()).step_by(7) {
            open(&whole[..length]);
        }
        for bit in (0..8 * whole.len()).step_by(5) {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            open(&damaged);
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn the_published_preference_models_are_read_as_they_are() {
    let device = Device::default();
    let directory = tempfile::tempdir().expect("a directory");
    let copied = |from: PathBuf, without: &str| {
        let to = directory.path().join(without);
        fs::create_dir(&to).expect("made");
        for entry in fs::read_dir(from).expect("a directory").flatten() {
            let name = entry.file_name();
            if !name.to_string_lossy().starts_with(without) {
                fs::copy(entry.path(), to.join(name)).expect("copied");
            }
        }
        to
    };
    let black = models::rgb8::Rgb8::new([8, 8], vec![70; 192]).expect("an image");
    let published = golden("clip-tiny/open_clip");
    let pickled = copied(published.clone(), "HPS_v2.1_compressed");
    let name = "HPS_v2.1_compressed.pt";
    fs::copy(golden("pytorch").join(name), pickled.join(name)).expect("copied");
    let score = |path: PathBuf| {
        let model = Hpsv2::<Plain>::open(&path, &device).expect("a model");
        model.score(std::slice::from_ref(&black), &["a cat"]).expect("a score")
    };
    let wanted = score(published);
    assert_eq!(score(pickled.clone()), wanted);
    assert_eq!(score(pickled.join(name)), wanted, "by the file");

    let published = golden("clip-tiny/transformers");
    let pickled = copied(published.clone(), "sac+logos");
    let name = "sac+logos+ava1-l14-linearMSE.pth";
    fs::copy(golden("pytorch").join(name), pickled.join(name)).expect("copied");
    let score = |path: PathBuf| {
        let model = Aesthetic::<Plain>::open(&path, &device).expect("a model");
        model.score(std::slice::from_ref(&black), &[""]).expect("a score")
    };
    assert_eq!(score(pickled), score(published));
}
