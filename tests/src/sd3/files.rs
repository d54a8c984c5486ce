//! Files of Stable Diffusion 3: single files, and what is refused.

use std::{collections::BTreeMap, path::Path};

use burn::{
    module::{Param, ParamId},
    tensor::{FloatDType, Tensor},
};
use flow::VelocityField;
use models::{
    Adaptable, Adapter, Choices, LoraConfig, LowRank,
    lora::LoraInit,
    sd3::{ModelDirectory, Transformer},
    storage::{Source, TensorFiles},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use training::parameters::Parameters;

use crate::{
    backend::{Device, Plain, distance, numbers, of_products},
    closed_forms::noise,
};

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
    // Query, key and value of a stream have one weight and one bias together, and so do the
    // modulations of a block.
    assert_eq!(exact.len(), 83);
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

/// A tensor in a file: name, type, shape and bytes.
type Entry = (String, Dtype, Vec<usize>, Vec<u8>);

/// A copy of a model with what `change` makes of every tensor of its transformer.
fn with_tensors(change: impl Fn(Entry) -> Vec<Entry>) -> tempfile::TempDir {
    let directory = copy("sd3-tiny");
    let path = directory.path().join("transformer/diffusion_pytorch_model.safetensors");
    let bytes = std::fs::read(&path).expect("the golden is committed");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let entries = file.tensors().into_iter().flat_map(|(name, view)| {
        change((name, view.dtype(), view.shape().to_vec(), view.data().to_vec()))
    });
    let entries: Vec<Entry> = entries.collect();
    let views = entries.iter().map(|(name, dtype, shape, data)| {
        (name, TensorView::new(*dtype, shape.clone(), data).expect("whole"))
    });
    safetensors::serialize_to_file(views, None, &path).expect("written");
    directory
}

/// A copy of a model in which the weight of every block's keys has another type and other values.
fn with_keys(dtype: Dtype, change: impl Fn(&[u8]) -> Vec<u8>) -> tempfile::TempDir {
    with_tensors(|entry| {
        let (name, _, shape, data) = &entry;
        if name.ends_with("to_k.weight") {
            vec![(name.clone(), dtype, shape.clone(), change(data))]
        } else {
            vec![entry]
        }
    })
}

#[test]
fn layers_whose_weights_are_stored_in_several_types_are_one_product() {
    let model = Model::read("sd3-tiny");
    // The upper half of an f32, little-endian, is a bf16.
    let halves = |data: &[u8]| data.chunks_exact(4).flat_map(|x| [x[2], x[3]]).collect();
    let mixed = with_keys(Dtype::BF16, halves);
    let mixed =
        ModelDirectory::open::<Plain>(mixed.path(), &Choices::default(), &Device::default())
            .expect("a whole model")
            .transformer::<Plain>(FloatDType::F32, &Device::default())
            .expect("a transformer");
    let conditions = model.encode(&model.prompts());
    let velocity = |transformer: &Transformer<Plain>| {
        let time = model.tensor::<1>("timestep") / 1000.0;
        numbers(transformer.velocity(model.tensor("latents"), time, &conditions))
    };
    let far = distance(&velocity(&mixed), &velocity(&model.transformer()));
    assert!(far > 1e-6 && far < 1e-2, "{far:e}");
}

#[test]
fn joined_layers_of_any_numbers_of_outputs_are_the_layers_of_the_file_with_their_adapters() {
    let device = Device::default();
    let open = || {
        let path = golden("sd3-tiny/transformer");
        TensorFiles::open(&path, "diffusion_pytorch_model").expect("a file")
    };
    let source = || Source::<Plain>::files(open(), FloatDType::F32, &device);
    let matrix = |m: usize, n: usize, seed: usize| noise(m, [n, 1, 1], seed).reshape([m, n]);
    let adapter = |outputs: usize| {
        let param = |x: Tensor<Plain, 2>| Param::initialized(ParamId::new(), x);
        LowRank::new(param(matrix(32, 2, outputs)), param(matrix(2, outputs, 1)), 0.5)
    };
    // 9 + 6, 6 + 6 and 6 + 2 modulations of the first, a middle and the last block.
    for block in 0..3 {
        let layers = ["norm1", "norm1_context"].map(|layer| {
            let name = format!("transformer_blocks.{block}.{layer}.linear");
            let outputs = open().shape(&format!("{name}.weight")).expect("a weight")[0];
            (name, outputs)
        });
        let x: Tensor<Plain, 2> = matrix(5, 32, block);
        let alone = layers.clone().map(|(name, outputs)| {
            let mut layer = source().linear(&name, 32, outputs);
            layer.adapter = Some(adapter(outputs));
            layer.forward(x.clone())
        });
        let outputs = [layers[0].1, layers[1].1];
        let (joined, mut parts) = source().joined(layers, 32);
        for (part, outputs) in parts.iter_mut().zip(outputs) {
            part.adapter = Some(adapter(outputs));
        }
        let got = numbers(joined.forward(x, &parts.each_ref()));
        let far = distance(&got, &numbers(Tensor::cat(alone.into(), 1)));
        assert!(far < of_products(1e-6), "block {block}: {far:e}");
    }
}

#[test]
fn a_second_attention_whose_gate_is_zero_changes_nothing_in_any_block() {
    let of_attention = ["to_q", "to_k", "to_v", "to_out", "norm_q", "norm_k"];
    let model = Model::read("sd3-tiny");
    let more = with_tensors(|(name, dtype, mut shape, mut data)| {
        // The first block has one.
        let without = !name.starts_with("transformer_blocks.0.");
        if without && name.contains(".norm1.linear.") {
            shape[0] = shape[0] / 6 * 9;
            data.resize(data.len() / 6 * 9, 0);
        }
        let of_attention =
            of_attention.iter().any(|layer| name.contains(&format!(".attn.{layer}.")));
        let second = (name.replace(".attn.", ".attn2."), dtype, shape.clone(), data.clone());
        let second = (without && of_attention).then_some(second);
        [(name, dtype, shape, data)].into_iter().chain(second).collect()
    });
    let config = more.path().join("transformer/config.json");
    replace(&config, "\"dual_attention_layers\": [\n    0", "\"dual_attention_layers\": [0, 1, 2");
    let more = ModelDirectory::open::<Plain>(more.path(), &Choices::default(), &Device::default())
        .expect("a whole model")
        .transformer::<Plain>(FloatDType::F32, &Device::default())
        .expect("a transformer");
    let time = model.tensor::<1>("timestep") / 1000.0;
    let conditions = model.encode(&model.prompts());
    model.assert_near("velocity", more.velocity(model.tensor("latents"), time, &conditions));
}

#[test]
fn a_weight_that_cannot_be_joined_is_named() {
    let nan = |data: &[u8]| [&f32::NAN.to_le_bytes(), &data[4..]].concat();
    let model = with_keys(Dtype::F32, nan);
    let error =
        ModelDirectory::open::<Plain>(model.path(), &Choices::default(), &Device::default())
            .expect("the headers are whole")
            .transformer::<Plain>(FloatDType::F32, &Device::default())
            .expect_err("a number is not finite")
            .to_string();
    let name = "transformer_blocks.1.attn.to_k.weight";
    assert!(error.contains(name) && !error.contains("to_q"), "{error}");
}

#[test]
fn adapters_of_joined_layers_have_the_names_and_identities_of_adapters_of_layers_alone() {
    let model = Model::read("sd3-tiny");
    let mut transformer = model.transformer();
    let layers = transformer.linears().into_iter();
    let ids: BTreeMap<String, u64> = layers.map(|(path, layer)| (path, layer.id.val())).collect();
    let id = |name: &str| ids[&format!("transformer_blocks.0.{name}")];
    // A weight and a bias each.
    let first = ["norm1.linear", "norm1_context.linear", "attn.to_q", "attn.to_k", "attn.to_v"];
    assert_eq!(first.map(id), [0, 2, 4, 6, 8].map(|more| id("norm1.linear") + more));
    assert_eq!(id("attn.to_out.0"), id("attn.to_v") + 2);
    assert_eq!(ids["proj_out"] + 2, model.open().transformer_tensors() as u64);

    // The names under which checkpoints keep the state of the optimiser.
    let targets = vec!["all-linear".to_owned()];
    let config = LoraConfig { rank: 1, alpha: 1.0, init: LoraInit::Gaussian, targets };
    let adapter = Adapter::new(&config, &mut transformer, 1).expect("an adapter");
    let adapted = adapter.attach(transformer, &Device::default()).expect("it fits");
    let names = training::parameters::names(&adapted);
    for (layer, field) in [
        ("norm1.linear", "norm1"),
        ("norm1_context.linear", "norm1_context"),
        ("attn.to_q", "image.query"),
        ("attn.add_v_proj", "text.value"),
    ] {
        let a = (1 << 40) + 2 * id(layer);
        assert_eq!(names[&a], format!("blocks.0.{field}.adapter.a"));
        assert_eq!(names[&(a + 1)], format!("blocks.0.{field}.adapter.b"));
    }
}
