//! CLIP and the preference models that stand on it, against transformers, OpenCLIP and the code of
//! the models.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Tensor, backend::AutodiffBackend},
};
use models::{
    clip::{Clip, ClipFiles, ClipModelConfig, Fit, Preprocess, VisionConfig, cosine},
    preference::{Aesthetic, ClipScore, Hpsv2, PickScore},
    rgb8::Rgb8,
    text::clip::{Activation, ClipConfig},
};
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    backend::{Device, Plain, Training, distance, numbers},
    golden::Golden,
};

fn golden(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/clip-tiny").join(part)
}

fn parsed(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("the golden is committed")).expect("JSON")
}

/// The picture of `make.py` of this index and size: smooth waves and noise in a chessboard.
pub fn picture(index: usize, [height, width]: [usize; 2]) -> Rgb8 {
    let value = |y: usize, x: usize, c: usize| {
        let smooth = (x * x * 3 + y * y * 5 + x * y * 7) / 64 + c * 85;
        let noise = x * 7919 + y * 104_729 + c * 15_485_863 + index * 32_452_843;
        let noise = (noise as u64).wrapping_mul(2_654_435_761) as u32 >> 24;
        if (x / 8 + y / 8 + index).is_multiple_of(2) { smooth as u8 } else { noise as u8 }
    };
    let pixels = (0..height)
        .flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |c| value(y, x, c))))
        .collect();
    Rgb8::new([height, width], pixels).expect("an image")
}

/// The sizes of the golden's pictures, height and width.
fn sizes() -> Vec<[usize; 2]> {
    let file = parsed(&golden("preprocess.json"));
    let side = |case: &Value, name: &str| case[name].as_u64().expect("a side") as usize;
    let cases = file["cases"].as_array().expect("cases");
    cases.iter().map(|case| [side(case, "height"), side(case, "width")]).collect()
}

/// The scored pictures, or those of them that the code of HPSv2 can read.
fn pictures(rows: Option<&Value>) -> Vec<Rgb8> {
    let about = parsed(&golden("golden.json"));
    let scored = indices(&about["scored"]);
    let rows = rows.map_or((0..scored.len()).collect(), indices);
    let sizes = sizes();
    rows.into_iter().map(|row| picture(scored[row], sizes[scored[row]])).collect()
}

fn indices(value: &Value) -> Vec<usize> {
    let index = |value: &Value| value.as_u64().expect("an index") as usize;
    value.as_array().expect("a list").iter().map(index).collect()
}

fn prompts() -> Vec<String> {
    Golden::named("clip-tiny/golden").texts("prompts")
}

/// FNV-1a of 64 bits.
fn digest(bytes: impl Iterator<Item = u8>) -> String {
    let hash = bytes.fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    format!("{hash:016x}")
}

#[test]
fn twenty_pictures_are_cropped_to_the_byte_as_by_pillow() {
    let file = parsed(&golden("preprocess.json"));
    let cases = file["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 20);
    for (index, (case, size)) in cases.iter().zip(sizes()).enumerate() {
        let image = picture(index, size);
        for side in [32, 224] {
            for (name, fit) in [("crop", Fit::Crop), ("even", Fit::CropToEven)] {
                let (mean, std) = ([0.0; 3], [1.0 / 255.0; 3]);
                let planes = Preprocess { size: side, fit, mean, std }.apply(&image);
                let plane = side * side;
                let byte = |at: usize| planes[at % 3 * plane + at / 3].round() as u8;
                let got = digest((0..3 * plane).map(byte));
                let wanted = &case[format!("{name}_{side}")];
                assert_eq!(wanted, &json!(got), "{size:?} {name} {side}");
            }
        }
    }
}

#[test]
fn pictures_are_padded_as_by_hpsv2() {
    let wanted = Golden::named("clip-tiny/preprocess");
    let mut compared = 0;
    for (index, size) in sizes().into_iter().enumerate() {
        let image = picture(index, size);
        for (side, step) in [(32, 1), (224, 17)] {
            let name = format!("pad_{side}.{index}");
            let planes = Preprocess::openai(side, Fit::Pad).apply(&image);
            assert!(
                planes.len() == 3 * side * side && planes.iter().all(|value| value.is_finite())
            );
            if !wanted.has(&name) {
                continue;
            }
            let kept = |at: &usize| {
                let (row, column) = (at / side % side, at % side);
                row.is_multiple_of(step) && column.is_multiple_of(step)
            };
            let got = (0..planes.len()).filter(kept).map(|at| f64::from(planes[at]));
            let far = distance(&got.collect::<Vec<_>>(), &wanted.wide(&name));
            // PyTorch computes the centres of the filter in f32.
            assert!(far < 1e-4, "{size:?} {side}: {far:e}");
            compared += 1;
        }
    }
    assert!(compared >= 34, "{compared}");
}

/// A copy of a golden's directory in which the JSON files are changed.
fn copied(directory: &str, change: impl Fn(&str, &mut Value)) -> TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    for entry in fs::read_dir(golden(directory)).expect("a directory") {
        let (from, name) = entry.map(|entry| (entry.path(), entry.file_name())).expect("an entry");
        let to = copy.path().join(&name);
        let name = name.to_string_lossy();
        if name.ends_with("config.json") {
            let mut file = parsed(&from);
            change(&name, &mut file);
            fs::write(to, file.to_string()).expect("a file");
        } else {
            fs::copy(from, to).expect("a file");
        }
    }
    copy
}

/// The transformers directory with this activation and end-of-text token.
fn transformers(activation: &str, eos: &Value) -> TempDir {
    copied("transformers", |name, file| {
        if name == "config.json" {
            file["text_config"]["hidden_act"] = json!(activation);
            file["vision_config"]["hidden_act"] = json!(activation);
            file["text_config"]["eos_token_id"] = eos.clone();
        }
    })
}

/// Both activations, and both rules for the token that is read.
fn variants() -> Vec<(String, TempDir)> {
    let first = parsed(&golden("golden.json"))["first_eos"].clone();
    let ends = [("legacy", json!(2)), ("first", first)];
    let of = |activation: &'static str| {
        ends.clone()
            .map(|(name, eos)| (format!("{activation}.{name}"), transformers(activation, &eos)))
    };
    ["quick_gelu", "gelu"].into_iter().flat_map(of).collect()
}

fn assert_near<const D: usize>(what: &str, got: Tensor<Plain, D>, wanted: Tensor<Plain, D>) {
    assert_eq!(got.dims(), wanted.dims(), "{what}");
    let far = distance(&numbers(got), &numbers(wanted));
    println!("{what}: {far:e}");
    assert!(far < 1e-4, "{what}: {far:e}");
}

fn assert_scores(what: &str, got: &[f32], wanted: &[f64]) {
    let far = distance(&got.iter().copied().map(f64::from).collect::<Vec<_>>(), wanted);
    println!("{what}: {far:e}");
    assert!(far < 1e-4, "{what}: {far:e}");
}

#[test]
fn embeddings_are_those_of_transformers() {
    let wanted = Golden::named("clip-tiny/golden");
    let device = Device::default();
    for (name, directory) in variants() {
        let files = ClipFiles::open(directory.path()).expect("a model");
        let tokenizer = files.tokenizer().expect("a tokenizer");
        let ids: Vec<Vec<u32>> =
            prompts().iter().map(|text| tokenizer.encode(text).expect("ids")).collect();
        let flat: Vec<f64> = ids.iter().flatten().map(|id| f64::from(*id)).collect();
        assert_eq!(flat, wanted.wide("ids"));
        let clip: Clip<Plain> = files.model(&device).expect("a model");
        let activation = name.split('.').next().expect("an activation");
        let pixels = wanted.tensor::<4>("pixels");
        assert_near(
            &format!("images, {name}"),
            clip.embed_images(pixels.clone()),
            wanted.tensor(&format!("image.{activation}")),
        );
        assert_near(
            &format!("texts, {name}"),
            clip.embed_texts(&ids),
            wanted.tensor(&format!("text.{name}")),
        );
        let vision = files.vision::<Plain>(&device).expect("a tower");
        assert_near("vision alone", vision.embed(pixels.clone()), clip.embed_images(pixels));
    }
}

#[test]
fn scores_are_those_of_the_models_formulas() {
    let wanted = Golden::named("clip-tiny/golden");
    let (device, images, texts) = (Device::default(), pictures(None), prompts());
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for (name, directory) in variants() {
        let clip = ClipScore::<Plain>::open(directory.path(), &device).expect("a model");
        let scores = clip.score(&images, &texts).expect("scores");
        assert_scores("clipscore", &scores, &wanted.wide(&format!("clipscore.{name}")));
        let pick = PickScore::<Plain>::open(directory.path(), &device).expect("a model");
        let scores = pick.score(&images, &texts).expect("scores");
        assert_scores("pickscore", &scores, &wanted.wide(&format!("pickscore.{name}")));
    }
    for path in ["transformers", "transformers/sac+logos+ava1-l14-linearMSE.safetensors"] {
        let aesthetic = Aesthetic::<Plain>::open(&golden(path), &device).expect("a model");
        let scores = aesthetic.score(&images, &texts).expect("scores");
        assert_scores("aesthetic", &scores, &wanted.wide("aesthetic"));
    }
}

#[test]
fn open_clips_layout_and_hpsv2_are_those_of_their_code() {
    let wanted = Golden::named("clip-tiny/golden");
    let rows = &parsed(&golden("golden.json"))["scored_open_clip"];
    let (device, images, texts) = (Device::default(), pictures(Some(rows)), prompts());
    let texts: Vec<&str> = indices(rows).into_iter().map(|row| texts[row].as_str()).collect();
    for (activation, quick) in [("gelu", false), ("quick_gelu", true)] {
        let directory = copied("open_clip", |name, file| {
            if name == "open_clip_config.json" {
                file["model_cfg"]["quick_gelu"] = json!(quick);
            }
        });
        let file = directory.path().join("HPS_v2.1_compressed.safetensors");
        for path in [directory.path(), &file] {
            let hps = Hpsv2::<Plain>::open(path, &device).expect("a model");
            let scores = hps.score(&images, &texts).expect("scores");
            assert_scores("hpsv2", &scores, &wanted.wide(&format!("hpsv2.{activation}.pad")));
        }
        // The same weights as a plain model of OpenCLIP.
        fs::rename(&file, directory.path().join("open_clip_model.safetensors")).expect("renamed");
        let clip = ClipScore::<Plain>::open(directory.path(), &device).expect("a model");
        let scores = clip.score(&images, &texts).expect("scores");
        assert_scores("clipscore", &scores, &wanted.wide(&format!("hpsv2.{activation}.even")));
        let clip: Clip<Plain> = ClipFiles::open(directory.path())
            .and_then(|files| files.model(&device))
            .expect("a model");
        for fit in ["pad", "even"] {
            let pixels = wanted.tensor(&format!("open_clip.pixels.{fit}"));
            assert_near(
                "images",
                clip.embed_images(pixels),
                wanted.tensor(&format!("open_clip.image.{activation}.{fit}")),
            );
        }
    }
}

#[test]
fn wrappers_of_other_savers_are_taken_off() {
    let wanted = Golden::named("clip-tiny/golden");
    let (device, images, texts) = (Device::default(), pictures(None), prompts());
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    // As `RE-N-Y/laion-aesthetic`: one file with an image tower and the head.
    let directory = copied("transformers", |_, _| {});
    let head = directory.path().join("sac+logos+ava1-l14-linearMSE.safetensors");
    let both: Vec<(String, Stored)> = read(&directory.path().join("model.safetensors"))
        .into_iter()
        .filter(|(name, _)| name.starts_with("vis"))
        .map(|(name, tensor)| (format!("clip.{name}"), tensor))
        .chain(read(&head).into_iter().map(|(name, tensor)| (format!("mlp.{name}"), tensor)))
        .collect();
    fs::remove_file(&head).expect("it was there");
    write(&directory.path().join("model.safetensors"), both);
    let aesthetic = Aesthetic::<Plain>::open(directory.path(), &device).expect("a model");
    let scores = aesthetic.score(&images, &texts).expect("scores");
    assert_scores("aesthetic", &scores, &wanted.wide("aesthetic"));

    // As `RE-N-Y/hpsv21`.
    let directory = copied("open_clip", |_, _| {});
    let file = directory.path().join("HPS_v2.1_compressed.safetensors");
    let wrapped = read(&file).into_iter().map(|(name, tensor)| (format!("model.{name}"), tensor));
    write(&directory.path().join("model.safetensors"), wrapped.collect());
    fs::remove_file(file).expect("it was there");
    let hps = Hpsv2::<Plain>::open(directory.path(), &device).expect("a model");
    assert!(hps.score(&images, &texts).is_ok());
}

/// Type, shape and bytes of a tensor.
type Stored = (safetensors::Dtype, Vec<usize>, Vec<u8>);

fn read(path: &Path) -> Vec<(String, Stored)> {
    let bytes = fs::read(path).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let stored = |view: TensorView<'_>| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    file.tensors().into_iter().map(|(name, view)| (name, stored(view))).collect()
}

fn write(path: &Path, tensors: Vec<(String, Stored)>) {
    let views: HashMap<String, TensorView<'_>> = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| {
            (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).expect("a tensor"))
        })
        .collect();
    let bytes = safetensors::serialize(views, None).expect("safetensors");
    fs::write(path, bytes).expect("a file");
}

/// Damages a copy of a golden's directory.
type Damage = fn(&Path);

/// Changes an entry of a JSON file.
fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut file = parsed(path);
    change(&mut file);
    fs::write(path, file.to_string()).expect("a file");
}

/// Changes the tensors of a file.
fn retensor(path: &Path, change: impl Fn(&str, Stored) -> Option<Stored>) {
    let kept = |(name, tensor): (String, Stored)| Some((name.clone(), change(&name, tensor)?));
    write(path, read(path).into_iter().filter_map(kept).collect());
}

const DAMAGES: [(Damage, &str); 17] = [
    (|path| fs::remove_dir_all(path).expect("removed"), "there is no such file or directory"),
    (|path| fs::remove_file(path.join("config.json")).expect("removed"), "not a CLIP model"),
    (
        |path| edit(&path.join("config.json"), |file| file["model_type"] = json!("bert")),
        "not a CLIP model: its model_type is `bert`",
    ),
    (
        |path| fs::write(path.join("config.json"), "{").expect("a file"),
        "config.json: EOF while parsing",
    ),
    (
        |path| {
            edit(&path.join("config.json"), |file| {
                file["text_config"]["hidden_act"] = json!("relu");
            });
        },
        "text_config: unknown variant `relu`",
    ),
    (
        |path| {
            edit(&path.join("config.json"), |file| file["vision_config"]["patch_size"] = json!(7));
        },
        "vision: image_size (32) must be a multiple of patch_size (7)",
    ),
    (
        |path| {
            edit(&path.join("config.json"), |file| file["vision_config"]["image_size"] = json!(64));
        },
        "makes images of 32 pixels, the image tower reads 64",
    ),
    (
        |path| {
            edit(&path.join("config.json"), |file| {
                file["vision_config"]["num_attention_heads"] = json!(0);
            });
        },
        "num_attention_heads (0)",
    ),
    (
        |path| fs::remove_file(path.join("preprocessor_config.json")).expect("removed"),
        "preprocessor_config.json: cannot be read",
    ),
    (
        |path| edit(&path.join("preprocessor_config.json"), |file| file["resample"] = json!(2)),
        "resample is 2; only 3 (bicubic) is supported",
    ),
    (
        |path| {
            edit(&path.join("preprocessor_config.json"), |file| {
                file["do_center_crop"] = json!(false);
            });
        },
        "do_center_crop is false",
    ),
    (
        |path| fs::remove_file(path.join("model.safetensors")).expect("removed"),
        "has no weights: none of model.safetensors",
    ),
    (
        |path| {
            let file = path.join("model.safetensors");
            fs::rename(&file, path.join("pytorch_model.bin")).expect("renamed");
        },
        "pytorch_model.bin is no file of torch.save: it does not begin like one",
    ),
    (
        |path| {
            retensor(&path.join("model.safetensors"), |name, tensor| {
                (name != "visual_projection.weight").then_some(tensor)
            });
        },
        "visual_projection.weight is missing",
    ),
    (
        |path| {
            retensor(&path.join("model.safetensors"), |name, (dtype, shape, bytes)| {
                let swapped = name == "vision_model.encoder.layers.1.mlp.fc1.weight";
                let shape = if swapped { vec![shape[1], shape[0]] } else { shape };
                Some((dtype, shape, bytes))
            });
        },
        "fc1.weight has shape [24, 36], the network needs [36, 24]",
    ),
    (
        |path| {
            retensor(&path.join("model.safetensors"), |name, tensor| {
                name.starts_with("text").then_some(tensor)
            });
        },
        "holds no CLIP model",
    ),
    (
        |path| fs::remove_file(path.join("merges.txt")).expect("removed"),
        "neither tokenizer.json nor vocab.json and merges.txt are there",
    ),
];

#[test]
fn a_damaged_model_is_refused_with_the_reason() {
    for (damage, reason) in DAMAGES {
        let directory = copied("transformers", |_, _| {});
        damage(directory.path());
        let error = PickScore::<Plain>::open(directory.path(), &Device::default())
            .map(|_| ())
            .expect_err(reason)
            .to_string();
        assert!(error.contains(reason), "`{error}` does not say `{reason}`");
        let path = directory.path().display().to_string();
        assert!(error.contains(&path), "`{error}` does not name the place");
    }
}

#[test]
fn the_files_of_the_other_layouts_are_checked_too() {
    let device = Device::default();
    let hps = |directory: &TempDir| {
        Hpsv2::<Plain>::open(directory.path(), &device)
            .map(|_| ())
            .expect_err("damaged")
            .to_string()
    };
    let directory = copied("open_clip", |_, file| {
        file["model_cfg"]["vision_cfg"]["timm_model_name"] = json!("vit");
    });
    assert!(hps(&directory).contains("unknown field `timm_model_name`"), "{}", hps(&directory));
    let directory =
        copied("open_clip", |_, file| file["preprocess_cfg"]["resize_mode"] = json!("x"));
    assert!(hps(&directory).contains("resize_mode is `x`"), "{}", hps(&directory));
    // Without a configuration the network is ViT-H/14.
    let directory = copied("open_clip", |_, _| {});
    fs::remove_file(directory.path().join("open_clip_config.json")).expect("removed");
    assert!(hps(&directory).contains("the network needs [1024]"), "{}", hps(&directory));
    let weights = directory.path().join("HPS_v2.1_compressed.safetensors");
    fs::rename(weights, directory.path().join("HPS_v2.1_compressed.pt")).expect("renamed");
    let error = hps(&directory);
    assert!(error.contains("HPS_v2.1_compressed.pt is no file of torch.save"), "{error}");

    let head = |damage: &dyn Fn(&Path)| {
        let directory = copied("transformers", |_, _| {});
        let path = directory.path().join("sac+logos+ava1-l14-linearMSE.safetensors");
        damage(&path);
        Aesthetic::<Plain>::open(directory.path(), &device)
            .map(|_| ())
            .expect_err("damaged")
            .to_string()
    };
    let error = head(&|path| fs::rename(path, path.with_extension("pth")).expect("renamed"));
    assert!(error.contains("linearMSE.pth is no file of torch.save"), "{error}");
    let error = head(&|path| fs::remove_file(path).expect("removed"));
    assert!(error.contains("none of sac+logos+ava1-l14-linearMSE.safetensors"), "{error}");
    let error = head(&|path| {
        retensor(path, |name, tensor| (name != "layers.4.bias").then_some(tensor));
    });
    assert!(error.contains("layers.4.bias is missing"), "{error}");
}

#[test]
fn images_and_texts_are_scored_in_any_number() {
    let device = Device::default();
    let clip = ClipScore::<Plain>::open(&golden("transformers"), &device).expect("a model");
    let (images, texts) = (pictures(None), prompts());
    let at = |row: usize| row * 5 % 6;
    let many: Vec<Rgb8> = (0..70).map(|row| images[at(row)].clone()).collect();
    let of_many: Vec<&str> = (0..70).map(|row| texts[at(row)].as_str()).collect();
    let once = clip.score(&many, &of_many).expect("scores");
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let each = clip.score(&images, &texts).expect("scores");
    for (row, score) in once.iter().enumerate() {
        assert!((score - each[at(row)]).abs() < 1e-5, "row {row}: {score}, {}", each[at(row)]);
    }
    assert_eq!(clip.score(&[], &[]).expect("no scores"), Vec::<f32>::new());
    let error = clip.score(&images, &texts[1..]).expect_err("a text is missing").to_string();
    assert!(error.contains("6 images and 5 texts"), "{error}");
}

/// Counts the parameters, and those with a gradient that is not zero.
struct Counted<'a, B: AutodiffBackend> {
    gradients: &'a B::Gradients,
    all: usize,
    trained: usize,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Counted<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let gradient = param.val().grad(self.gradients);
        let largest =
            gradient.and_then(|values| values.abs().max().into_data().iter::<f64>().next());
        self.all += 1;
        self.trained += usize::from(largest.is_some_and(|value| value > 0.0));
    }
}

#[test]
fn gradients_reach_every_parameter_of_new_towers() {
    let config = ClipModelConfig {
        text: ClipConfig {
            vocab_size: 30,
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            max_position_embeddings: 7,
            projection_dim: 12,
            ..ClipConfig::clip_l()
        },
        vision: VisionConfig {
            hidden_size: 24,
            intermediate_size: 36,
            num_hidden_layers: 2,
            num_attention_heads: 3,
            image_size: 16,
            patch_size: 8,
            projection_dim: 12,
            hidden_act: Activation::Gelu,
            ..VisionConfig::default()
        },
        ..ClipModelConfig::vit_b_32()
    };
    assert_eq!(config.problems(), Vec::<String>::new());
    let device = Device::default();
    let clip = Clip::<Training>::init(&config, 1, &device);
    let pixels = Preprocess::openai(16, Fit::Crop).apply(&picture(3, [17, 33]));
    let pixels = Tensor::<Training, 1>::from_floats(&pixels[..], &device).reshape([1, 3, 16, 16]);
    let ids = vec![vec![28, 3, 4, 5, 6, 7, 29]];
    let similarity = cosine(clip.embed_images(pixels.clone()), clip.embed_texts(&ids));
    let gradients = (similarity * clip.scale()).sum().backward();
    let mut seen = Counted { gradients: &gradients, all: 0, trained: 0 };
    clip.visit(&mut seen);
    // The bias of the keys moves no attention weight: 2 layers in either tower.
    assert!(seen.trained >= seen.all - 4, "{} of {}", seen.trained, seen.all);
    assert!((clip.scale().into_scalar() - 14.285).abs() < 1e-2, "1/0.07 at first");

    let again = Clip::<Training>::init(&config, 1, &device);
    let other = Clip::<Training>::init(&config, 2, &device);
    let embedded = |clip: &Clip<Training>| numbers(clip.embed_images(pixels.clone()).inner());
    assert_eq!(embedded(&clip), embedded(&again));
    assert_ne!(embedded(&clip), embedded(&other));
}

#[test]
fn the_published_sizes_are_in_range_and_models_go_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<(ClipScore<Plain>, PickScore<Plain>, Hpsv2<Plain>, Aesthetic<Plain>)>();
    let configs =
        [ClipModelConfig::vit_b_32(), ClipModelConfig::vit_l_14(), ClipModelConfig::vit_h_14()];
    for config in configs {
        assert_eq!(config.problems(), Vec::<String>::new());
    }
}
