//! Files of Stable Diffusion 3: single files, and what is refused.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::FloatDType;
use flow::VelocityField;
use models::{
    Choices,
    sd3::{ModelDirectory, Transformer},
    storage::TensorFiles,
};
use training::parameters::Parameters;

use crate::backend::{Device, Plain};

use super::{Model, copy, encode, golden};

#[test]
fn a_single_file_is_the_same_model() {
    let model = Model::read("sd3-plain");
    let choices = Choices {
        single_file: Some(model.path.join("single_file.safetensors")),
        ..Choices::default()
    };
    let single = ModelDirectory::open::<Plain>(&model.path, &choices, &Device::default())
        .expect("a whole model");
    let conditions = model.encode(&model.prompts());
    let time = model.tensor::<1>("timestep") / 1000.0;
    let transformer =
        single.transformer::<Plain>(FloatDType::F32, &Device::default()).expect("a transformer");
    model.assert_near("velocity", transformer.velocity(model.tensor("latents"), time, &conditions));
    let vae = single.vae::<Plain>(FloatDType::F32, &Device::default()).expect("an autoencoder");
    model.assert_near("decoded", vae.decode(model.tensor("final_latents")));
    model.assert_near("encode_mean", vae.encode(model.tensor("encode_input")).mean);
}

#[test]
fn a_single_file_with_a_second_attention_is_the_same_model_rounded() {
    let model = Model::read("sd3-tiny");
    let choices = Choices {
        single_file: Some(golden("sd3-dual-single-file.safetensors")),
        ..Choices::default()
    };
    let single = ModelDirectory::open::<Plain>(&model.path, &choices, &Device::default())
        .expect("a whole model");
    let weights = |directory: &ModelDirectory| {
        let transformer: Transformer<Plain> =
            directory.transformer(FloatDType::F32, &Device::default()).expect("a transformer");
        let names = training::parameters::names(&transformer);
        Parameters::of(&transformer)
            .to_data()
            .into_iter()
            .map(|(id, data)| (names[&id].clone(), data))
            .collect::<BTreeMap<_, _>>()
    };
    let (exact, rounded) = (weights(&model.open()), weights(&single));
    assert_eq!(exact.len(), 117);
    for (name, exact) in exact {
        for (exact, rounded) in exact.iter::<f32>().zip(rounded[&name].iter::<f32>()) {
            assert!(
                (exact - rounded).abs() <= exact.abs() / 256.0,
                "{name}: {exact} became {rounded}"
            );
        }
    }
}

fn refusal(path: &Path, choices: &Choices) -> String {
    ModelDirectory::open::<Plain>(path, choices, &Device::default())
        .expect_err("it is broken")
        .to_string()
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).expect("a text");
    assert!(text.contains(from), "{from} is not in {}", path.display());
    std::fs::write(path, text.replace(from, to)).expect("written");
}

#[test]
fn all_that_is_wrong_with_a_model_is_said_together() {
    let model = copy("sd3-tiny");
    replace(
        &model.path().join("transformer/config.json"),
        "\"num_layers\": 3",
        "\"num_layers\": 4",
    );
    replace(
        &model.path().join("vae/config.json"),
        "\"layers_per_block\": 1",
        "\"layers_per_block\": 2",
    );
    replace(
        &model.path().join("text_encoder/config.json"),
        "\"intermediate_size\": 64",
        "\"intermediate_size\": 60",
    );
    let text = refusal(model.path(), &Choices::default());
    for expected in [
        "transformer: transformer_blocks.3.attn.to_q.weight is missing",
        "transformer: transformer_blocks.2.norm1_context.linear.weight has shape [64, 32], the network needs [192, 32]",
        "vae: encoder.down_blocks.0.resnets.1.conv1.weight is missing",
        "text_encoder: text_model.encoder.layers.0.mlp.fc1.weight has shape [64, 32], the network needs [60, 32]",
    ] {
        assert!(text.contains(expected), "no `{expected}` in {text}");
    }
    let model = copy("sd3-tiny");
    replace(
        &model.path().join("transformer/config.json"),
        "\"num_layers\": 3",
        "\"num_layers\": 2",
    );
    let text = refusal(model.path(), &Choices::default());
    assert!(
        text.contains(
            "transformer: transformer_blocks.2.ff.net.2.bias is not a weight of this network"
        ),
        "{text}"
    );
}

#[test]
fn what_is_no_such_model_is_named() {
    let model = copy("sd3-tiny");
    let index = model.path().join("model_index.json");
    replace(&index, "StableDiffusion3Pipeline", "StableDiffusionXLPipeline");
    assert!(
        refusal(model.path(), &Choices::default())
            .contains("is a StableDiffusionXLPipeline; only StableDiffusion3Pipeline")
    );
    assert!(
        refusal(&golden("adapter/peft"), &Choices::default())
            .contains("is a LoRA adapter; pass it with --adapter")
    );
    assert!(refusal(&golden("adapter"), &Choices::default()).contains("is a LoRA adapter"));
    assert!(refusal(&index, &Choices::default()).contains("is a file"));
    assert!(refusal(&golden(""), &Choices::default()).contains("has no model_index.json"));
    let no_transformer = Choices {
        single_file: Some(golden("flow_sde_reference.safetensors")),
        ..Choices::default()
    };
    assert!(refusal(&golden("sd3-tiny"), &no_transformer).contains("holds no transformer of SD3"));
}

#[test]
fn parts_and_shards_outside_of_a_model_are_refused() {
    let model = copy("sd3-plain");
    let index = model.path().join("model_index.json");
    replace(&index, "\"vae\"", "\"../vae\"");
    let text = refusal(model.path(), &Choices::default());
    assert!(text.contains("names a part `../vae`"), "{text}");
    replace(&index, "\"../vae\"", "\"vae\"");
    let shards = model.path().join("transformer/diffusion_pytorch_model.safetensors.index.json");
    let shard = "diffusion_pytorch_model-00002-of-00004.safetensors";
    replace(&shards, shard, &format!("../transformer/{shard}"));
    let text = refusal(model.path(), &Choices::default());
    assert!(text.contains("is not the name of a file beside the index"), "{text}");
}

#[test]
fn a_model_without_t5_says_how_to_go_on_without_it() {
    let model = copy("sd3-tiny");
    std::fs::remove_dir_all(model.path().join("text_encoder_3")).expect("removed");
    assert!(refusal(model.path(), &Choices::default()).contains("--without-t5"));
    let without = Choices { without_t5: true, ..Choices::default() };
    let directory = ModelDirectory::open::<Plain>(model.path(), &without, &Device::default())
        .expect("whole without T5");
    let embedding = encode(&directory, &["a cat"], 8).remove(0);
    assert_eq!(embedding.text_shape, [77 + 8, 96]);
    assert!(
        embedding.text()[77 * 96..].iter().all(|value| *value == 0.0),
        "T5's features are zeros"
    );
}

#[test]
fn the_scheduler_says_how_the_grid_is_shifted() {
    let model = copy("sd3-tiny");
    let open = || {
        ModelDirectory::open::<Plain>(model.path(), &Choices::default(), &Device::default())
            .expect("a model")
    };
    let file = model.path().join("scheduler/scheduler_config.json");
    assert_eq!(open().grid_shift([4, 8, 8]).expect("a shift"), 3.0);
    replace(&file, "\"shift\": 3.0", "\"shift\": 1.5");
    assert_eq!(open().grid_shift([4, 8, 8]).expect("a shift"), 1.5);
    let whole = std::fs::read_to_string(&file).expect("a text");
    for (from, to) in [
        ("\"use_dynamic_shifting\": false", "\"use_dynamic_shifting\": true"),
        ("\"use_karras_sigmas\": false", "\"use_karras_sigmas\": true"),
        ("\"shift_terminal\": null", "\"shift_terminal\": 0.1"),
        ("\"num_train_timesteps\": 1000", "\"num_train_timesteps\": 500"),
        ("\"shift\": 1.5", "\"shift\": 0.0"),
        ("FlowMatchEuler", "DDIM"),
    ] {
        replace(&file, from, to);
        let refused = open().grid_shift([4, 8, 8]).expect_err(to).to_string();
        assert!(refused.contains("only a static shift is"), "{refused}");
        assert_eq!(refused.matches("scheduler_config.json").count(), 1, "{refused}");
        std::fs::write(&file, &whole).expect("written");
    }
    std::fs::remove_file(&file).expect("removed");
    assert_eq!(open().grid_shift([4, 8, 8]).expect("that of SD3"), 3.0);
}

#[test]
fn damaged_weights_are_refused() {
    let model = copy("sd3-tiny");
    let file = model.path().join("vae/diffusion_pytorch_model.safetensors");
    let bytes = std::fs::read(&file).expect("a file");
    std::fs::write(&file, &bytes[..bytes.len() - 4]).expect("written");
    assert!(refusal(model.path(), &Choices::default()).contains("not a complete safetensors file"));
    std::fs::write(&file, [&bytes[..], &[0; 4]].concat()).expect("written");
    assert!(refusal(model.path(), &Choices::default()).contains("not a complete safetensors file"));
    // A NaN is found when the values are read.
    let mut nan = bytes.clone();
    let end = nan.len();
    nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&file, nan).expect("written");
    let directory =
        ModelDirectory::open::<Plain>(model.path(), &Choices::default(), &Device::default())
            .expect("headers are whole");
    let refused = directory
        .vae::<Plain>(FloatDType::F32, &Device::default())
        .expect_err("not a number")
        .to_string();
    assert!(refused.contains("holds numbers that are not finite"), "{refused}");
    // A shard that the index names is missing.
    let model = copy("sd3-plain");
    std::fs::remove_file(
        model.path().join("transformer/diffusion_pytorch_model-00002-of-00004.safetensors"),
    )
    .expect("removed");
    assert!(refusal(model.path(), &Choices::default()).contains("00002-of-00004"));
}

#[test]
fn headers_are_read_without_the_numbers() {
    let files = TensorFiles::open(&golden("sd3-plain/transformer"), "diffusion_pytorch_model")
        .expect("shards");
    assert_eq!(files.shape("pos_embed.pos_embed"), Some(&[1, 256, 48][..]));
    let same = TensorFiles::open(&golden("sd3-plain/transformer"), "diffusion_pytorch_model")
        .expect("shards");
    assert_eq!(files.digest().expect("a digest"), same.digest().expect("a digest"));
    let vae =
        TensorFiles::open(&golden("sd3-plain/vae"), "diffusion_pytorch_model").expect("a file");
    assert_ne!(files.digest().expect("a digest"), vae.digest().expect("a digest"));
}
