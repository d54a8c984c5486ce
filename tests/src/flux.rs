//! FLUX.1's transformer against diffusers, on a small random model.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::tensor::{FloatDType, Tensor, TensorData, backend::Backend};
use flow::{GridKind, Query, Sampler, VelocityField};
use grpo::{
    EncodedPrompt, GrpoConfig, Policy, Task, Trainer,
    images::Decoder,
    update::{Checkpointing, Differentiate, WholeGraph},
};
use kernels::Kernels;
use models::{
    Adaptable, Adapter, Choices, LoraConfig,
    directory::TransformerSizes,
    flux::{FluxConfig, FluxDirectory, FluxTransformer},
    lora::{self, LoraInit},
    text::{Embedding, Features, PromptEmbedding},
};
use tasks::{prompts::Prompt, reward::Darkness};
use training::{
    optimizer::{AdamWConfig, MuonConfig},
    parameters::Trained,
    workers::Workers,
};

use crate::{
    backend::{Device, Plain, Training, distance, numbers},
    golden::Golden,
    sd3::copy_into,
    training::config,
};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/flux-tiny")
}

fn open() -> FluxDirectory {
    FluxDirectory::open::<Plain>(&directory(), &Choices::default(), &Device::default())
        .expect("a whole model")
}

pub fn transformer<B: Kernels>(device: &B::Device) -> FluxTransformer<B> {
    open().transformer(FloatDType::F32, device).expect("a transformer")
}

/// A condition from rows of the golden's arrays.
fn condition(text: &[f32], [length, width]: [usize; 2], pooled: &[f32]) -> Embedding {
    let text = Features::Held(TensorData::new(text.to_vec(), [length, width]));
    Arc::new(PromptEmbedding {
        clip: None,
        pooled: Features::Held(TensorData::new(pooled.to_vec(), [pooled.len()])),
        t5: Some(text),
        text_shape: [length, width],
    })
}

/// The conditions of all rows.
fn conditions(golden: &Golden, text: &str, pooled: &str) -> Vec<Embedding> {
    let (shape, text) = golden.values(text);
    let (pooled_shape, pooled) = golden.values(pooled);
    let rows = text.chunks(shape[1] * shape[2]).zip(pooled.chunks(pooled_shape[1]));
    rows.map(|(text, pooled)| condition(text, [shape[1], shape[2]], pooled)).collect()
}

/// Tokens `[B, H/2·W/2, 4C]` as latents `[B, C, H, W]`: in a token the channel is outermost.
fn unpacked<B: Backend>(tokens: Tensor<B, 3>, [height, width]: [usize; 2]) -> Tensor<B, 4> {
    let [rows, _, features] = tokens.dims();
    let split = tokens.reshape([rows, height, width, features / 4, 2, 2]);
    split.permute([0, 3, 1, 4, 2, 5]).reshape([rows, features / 4, 2 * height, 2 * width])
}

/// The two cases of the transformer: their name, and height and width in patches.
const CASES: [(&str, [usize; 2]); 2] = [("wide", [6, 10]), ("tall", [10, 4])];

#[test]
fn the_velocity_is_that_of_diffusers() {
    let golden = Golden::named("flux-tiny/golden");
    for (name, size) in CASES {
        let key = |array: &str| format!("transformer.{name}.{array}");
        let latents = unpacked(golden.tensor::<3>(&key("hidden_states")), size);
        let wanted = unpacked(golden.tensor::<3>(&key("output")), size);
        let times = golden.tensor::<1>(&key("timestep"));
        let conditions =
            conditions(&golden, &key("encoder_hidden_states"), &key("pooled_projections"));
        // A guidance scale of its own for every row, so row by row.
        for (row, guidance) in golden.wide(&key("guidance")).into_iter().enumerate() {
            let of_row = |all: &Tensor<Plain, 4>| all.clone().narrow(0, row, 1);
            let network = transformer::<Plain>(&Device::default()).with_guidance(guidance);
            let velocity = network.velocity(
                of_row(&latents),
                times.clone().narrow(0, row, 1),
                &conditions[row..=row],
            );
            let far = distance(&numbers(velocity), &numbers(of_row(&wanted)));
            println!("{name}, row {row}: {far:e}");
            assert!(far < 1e-4, "{name}, row {row}: {far:e}");
        }
    }
}

#[test]
fn the_gradients_are_those_of_diffusers() {
    let golden = Golden::named("flux-tiny/golden");
    let (name, size) = CASES[0];
    let key = |array: &str| format!("transformer.{name}.{array}");
    let guidance = golden.wide(&key("guidance"));
    assert!(guidance.iter().all(|scale| *scale == guidance[0]), "one scale for the batch");
    let plain = transformer::<Plain>(&Device::default()).with_guidance(guidance[0]);
    let mut network: FluxTransformer<Training> = Trained::all(&plain).with_graph(plain);
    let tokens =
        Tensor::<Training, 3>::from_inner(golden.tensor(&key("hidden_states"))).require_grad();
    let times = Tensor::from_inner(golden.tensor::<1>(&key("timestep")));
    let conditions = conditions(&golden, &key("encoder_hidden_states"), &key("pooled_projections"));
    let velocity = network.velocity(unpacked(tokens.clone(), size), times, &conditions);
    let cotangent =
        unpacked(Tensor::<Training, 3>::from_inner(golden.tensor(&key("cotangent"))), size);
    let gradients = (velocity * cotangent).sum().backward();

    // 4e-4 on ndarray, through the norms; products alone agree to 2e-6.
    let near = |what: &str, got: &[f64], want: &[f64]| {
        let largest = want.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
        let worst =
            got.iter().zip(want).fold(0.0_f64, |worst, (got, want)| worst.max((got - want).abs()));
        println!("{what}: off by {worst:.1e} of {largest:.1e}");
        assert!(
            got.len() == want.len() && worst <= 1e-3 * largest,
            "{what}: off by {worst:e} of {largest:e}"
        );
    };
    near(
        "latents",
        &numbers(tokens.grad(&gradients).expect("a gradient")),
        &golden.wide(&key("grad.hidden_states")),
    );
    let layers = network.linears();
    let of_layers = layers.iter().map(|(path, layer)| (format!("{path}.weight"), layer));
    let mut compared = 0;
    for (path, layer) in of_layers.filter(|(path, _)| golden.has(&key(&format!("grad.{path}")))) {
        let gradient = layer.weight.val().grad(&gradients).expect("a gradient");
        let gradient = gradient.narrow(1, layer.columns.start, layer.columns.len()).transpose();
        near(&path, &numbers(gradient), &golden.wide(&key(&format!("grad.{path}"))));
        compared += 1;
    }
    assert_eq!(compared, 16, "weights of linear layers in the golden");
}

#[test]
fn four_steps_of_the_ode_end_where_the_pipeline_of_diffusers_ends() {
    let golden = Golden::named("flux-tiny/golden");
    let conditions = conditions(&golden, "prompt_embeds", "pooled_prompt_embeds");
    let network = transformer::<Plain>(&Device::default()).with_guidance(3.5);
    for (name, [height, width]) in [("wide", [12, 20]), ("tall", [24, 16])] {
        let key = |array: &str| format!("pipeline.{name}.{array}");
        let shift = open().grid_shift([4, height, width]).expect("a shift");
        let grid = GridKind::Shifted { shift }.grid(4).expect("a grid");
        assert!(distance(grid.times(), &golden.wide(&key("sigmas"))) < 1e-6, "{name}");
        let end = Sampler::ode(grid).sample(
            &network,
            &conditions,
            golden.tensor(&key("latents")),
            |_| unreachable!("the ODE"),
        );
        let far = distance(&numbers(end), &golden.wide(&key("final_latents")));
        println!("{name}: {far:e}");
        assert!(far < 1e-4, "{name}: {far:e}");
    }
}

#[test]
fn a_lora_adapter_of_the_reference_codes_layers_is_trained() {
    let golden = Golden::named("flux-tiny/golden");
    let mut base = transformer::<Plain>(&Device::default());
    let targets =
        ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "ff.net.2"].map(str::to_owned).to_vec();
    let lora = LoraConfig { rank: 2, alpha: 4.0, init: LoraInit::Gaussian, targets };
    let network = Adapter::new(&lora, &mut base, 1)
        .expect("the targets exist")
        .attach(base.clone(), &Device::default());
    let network = network.expect("it fits");
    let conditions = conditions(&golden, "prompt_embeds", "pooled_prompt_embeds");
    let prompt = |condition: &Embedding| EncodedPrompt {
        prompt: Prompt::plain("a"),
        condition: condition.clone(),
    };
    let task = Task::new(
        conditions.iter().map(prompt).collect(),
        conditions[0].clone(),
        Darkness,
        [4, 4, 6],
        Decoder::Pixels,
    );
    let policy =
        Policy { trained: Trained::named(&network, lora::is_of_adapter), network, reference: base };
    let workers = Workers::new(2).expect("threads");
    // AdamW moves nothing: what moves is what Muon takes.
    let optimizer = AdamWConfig { learning_rate: 1e-12, ..AdamWConfig::default() };
    let muon = MuonConfig { learning_rate: 0.01, ..MuonConfig::default() };
    let config = GrpoConfig { groups: 2, group_size: 4, optimizer, muon: Some(muon), ..config() };
    let mut trainer =
        Trainer::<Training, FluxTransformer<Training>>::new(config, 2, 1, task, policy, workers);
    let before = trainer.weights().clone();
    let metrics = trainer.iterate().expect("an epoch").metrics;
    assert!(
        metrics.number("on_policy.max").expect("a comparison") < 1e-4
            && metrics.gradient_norm > 0.0,
        "{metrics:?}"
    );
    let moved = before.zip(trainer.weights(), |before, after| after - before);
    assert!(moved.norm() > 1e-3, "{}", moved.norm());
}

#[test]
fn the_published_sizes_are_those_of_flux_1_dev_and_others_are_refused_by_name() {
    let config = FluxConfig::flux1_dev();
    assert_eq!((config.width(), config.problems()), (3072, Vec::<String>::new()));
    for (changed, says) in [
        (
            FluxConfig { class_name: "SD3Transformer2DModel".to_owned(), ..config.clone() },
            "not FluxTransformer2DModel",
        ),
        (FluxConfig { axes_dims_rope: [16, 56, 54], ..config.clone() }, "axes_dims_rope is 126"),
        (FluxConfig { axes_dims_rope: [15, 57, 56], ..config.clone() }, "must be even"),
        (FluxConfig { in_channels: 66, ..config.clone() }, "multiple of 4"),
        (FluxConfig { num_layers: 0, ..config }, "num_layers (0)"),
    ] {
        let problems = changed.problems().join("; ");
        assert!(problems.contains(says), "{problems}");
    }
    let missing = FluxDirectory::open::<Plain>(
        Path::new("/nowhere"),
        &Choices::default(),
        &Device::default(),
    );
    assert!(missing.expect_err("no directory").to_string().contains("/nowhere has no model_index"));
}

#[test]
fn prompts_are_encoded_as_the_pipeline_of_diffusers_encodes_them() {
    let golden = Golden::named("flux-tiny/golden");
    let (device, directory) = (Device::default(), open());
    let prompts = golden.texts("prompts");
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let clip = directory.clip_reader::<Plain>(FloatDType::F32, &device).expect("CLIP");
    let clip = clip.encode(&prompts).expect("prompts");
    let pooled: Vec<f64> = clip.iter().flat_map(|[_, pooled]| pooled.iter::<f64>()).collect();
    assert!(distance(&pooled, &golden.wide("pooled_prompt_embeds")) < 1e-5);
    let t5 = directory.t5_reader::<Plain>(24, FloatDType::F32, &device).expect("T5");
    let t5 = t5.expect("FLUX has T5").encode(&prompts).expect("prompts");
    let hidden: Vec<f64> = t5.iter().flat_map(|[hidden]| hidden.iter::<f64>()).collect();
    assert!(distance(&hidden, &golden.wide("prompt_embeds")) < 1e-5);
}

#[test]
fn the_autoencoder_decodes_and_encodes_as_diffusers_does() {
    let golden = Golden::named("flux-tiny/golden");
    let vae = open().vae::<Plain>(FloatDType::F32, &Device::default()).expect("an autoencoder");
    for name in ["wide", "tall"] {
        let key = |array: &str| format!("pipeline.{name}.{array}");
        let decoded = vae.decode(golden.tensor(&key("final_latents")));
        assert!(distance(&numbers(decoded), &golden.wide(&key("decoded"))) < 1e-5, "{name}");
    }
    let posterior = vae.encode(golden.tensor("encode_input"));
    assert!(distance(&numbers(posterior.mean), &golden.wide("encode_mean")) < 1e-5);
    assert!(distance(&numbers(posterior.log_variance), &golden.wide("encode_logvar")) < 1e-5);
}

#[test]
fn the_shift_grows_with_the_image_as_in_diffusers() {
    let path = directory().join("shifts.json");
    let text = std::fs::read_to_string(path).expect("the golden is committed");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let table = json["table"].as_array().expect("a table");
    for case in table {
        let count = |key: &str| case[key].as_u64().expect("a count") as usize;
        let times: Vec<f64> = case["sigmas"]
            .as_array()
            .expect("times")
            .iter()
            .filter_map(serde_json::Value::as_f64)
            .collect();
        // A latent of 2 x 2·tokens has one token for each of its patches.
        let shift = open().grid_shift([4, 2, 2 * count("tokens")]).expect("a shift");
        assert!((shift.ln() - case["mu"].as_f64().expect("mu")).abs() < 1e-6, "{case}");
        let grid = GridKind::Shifted { shift }.grid(count("steps")).expect("a grid");
        assert!(distance(grid.times(), &times) < 1e-6, "{case}");
    }
    assert!(table.len() > 10);
}

#[test]
fn single_file_weights_have_the_velocity_and_the_pixels_of_the_directory() {
    let golden = Golden::named("flux-tiny/golden");
    let device = Device::default();
    let choices = Choices {
        single_file: Some(directory().join("single_file.safetensors")),
        ..Choices::default()
    };
    // Only the file's weights are left.
    let model = tempfile::tempdir().expect("a directory");
    copy_into(&directory(), model.path());
    for part in ["transformer", "vae"] {
        let file = format!("{part}/diffusion_pytorch_model.safetensors");
        std::fs::remove_file(model.path().join(file)).expect("removed");
    }
    let single = FluxDirectory::open::<Plain>(model.path(), &choices, &device).expect("a model");
    let network = single.transformer::<Plain>(FloatDType::F32, &device).expect("a transformer");
    let conditions = conditions(&golden, "prompt_embeds", "pooled_prompt_embeds");
    let key = |array: &str| format!("pipeline.wide.{array}");
    let velocity = network.with_guidance(3.5).velocity(
        golden.tensor(&key("latents")),
        Tensor::ones([2], &device),
        &conditions,
    );
    let wanted = unpacked(golden.tensor::<3>(&key("velocity")), [6, 10]);
    assert!(distance(&numbers(velocity), &numbers(wanted)) < 1e-4);
    let vae = single.vae::<Plain>(FloatDType::F32, &device).expect("an autoencoder");
    let decoded = vae.decode(golden.tensor(&key("final_latents")));
    assert!(distance(&numbers(decoded), &golden.wide(&key("decoded"))) < 1e-5);
    let sd3 = Choices {
        single_file: Some(directory().join("../sd3-dual-single-file.safetensors")),
        ..Choices::default()
    };
    let refused = FluxDirectory::open::<Plain>(&directory(), &sd3, &device).expect_err("SD3");
    assert!(refused.to_string().contains("holds no transformer of FLUX.1"), "{refused}");
}

#[test]
fn checkpointing_has_the_gradient_of_the_whole_graph() {
    // Everywhere, and inside the blocks alone, where nothing before them needs a gradient.
    for (targets, count) in [(&["all-linear"][..], 60), (&["attn.to_q", "attn.add_k_proj"], 4)] {
        has_the_gradient_of_the_whole_graph(targets, count);
    }
}

/// Compares the gradient of an adapter with more than `count` factors.
fn has_the_gradient_of_the_whole_graph(targets: &[&str], count: usize) {
    let golden = Golden::named("flux-tiny/golden");
    let device = Device::default();
    let conditions = conditions(&golden, "prompt_embeds", "pooled_prompt_embeds");
    let mut base = transformer::<Plain>(&device);
    let config = LoraConfig {
        rank: 2,
        alpha: 4.0,
        init: LoraInit::Gaussian,
        targets: targets.iter().map(|&target| target.to_owned()).collect(),
    };
    let network = Adapter::new(&config, &mut base, 1).expect("an adapter");
    let network = network.attach(base, &device).expect("it fits");
    let trained = Trained::named(&network, lora::is_of_adapter);
    let weights = golden.tensor::<4>("pipeline.wide.latents");
    let mut loss = |velocity: Tensor<Training, 4>| {
        (velocity * Tensor::from_inner(weights.clone())).powi_scalar(2).sum()
    };
    let gradient =
        |how: &dyn Differentiate<Training, FluxTransformer<Training>>,
         loss: &mut dyn FnMut(Tensor<Training, 4>) -> Tensor<Training, 1>| {
            let query = Query::at(0.7, golden.tensor::<4>("pipeline.wide.latents"), &conditions);
            how.gradient(network.clone(), &trained, query, loss).to_data()
        };
    let [whole, parts] = [gradient(&WholeGraph, &mut loss), gradient(&Checkpointing, &mut loss)];
    assert!(whole.len() == parts.len() && whole.len() > count, "{}", whole.len());
    let all = |gradient: &BTreeMap<u64, TensorData>| {
        gradient
            .values()
            .flat_map(|data| data.iter::<f64>().collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    let (whole, parts) = (all(&whole), all(&parts));
    let largest = whole.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    assert!(largest > 0.0 && distance(&whole, &parts) < 1e-4, "{}", distance(&whole, &parts));
}

#[test]
fn adapters_of_modulations_have_the_names_and_identities_of_adapters_of_layers_alone() {
    let mut network = transformer::<Plain>(&Device::default());
    let layers = network.linears().into_iter();
    let ids: BTreeMap<String, u64> = layers.map(|(path, layer)| (path, layer.id.val())).collect();
    let id = |name: &str| ids[&format!("transformer_blocks.1.{name}")];
    // A weight and a bias each; two norms of queries and keys.
    let layers = ["norm1.linear", "attn.to_q", "ff.net.2", "norm1_context.linear"];
    assert_eq!(layers.map(id), [0, 2, 14, 16].map(|more| id("norm1.linear") + more));
    let context = ["norm1_context.linear", "attn.add_q_proj", "ff_context.net.2"];
    assert_eq!(context.map(id), [0, 2, 14].map(|more| id("norm1_context.linear") + more));

    // The names under which checkpoints keep the state of the optimiser.
    let targets = vec!["norm1.linear".to_owned(), "norm1_context.linear".to_owned()];
    let config = LoraConfig { rank: 1, alpha: 1.0, init: LoraInit::Gaussian, targets };
    let adapter = Adapter::new(&config, &mut network, 1).expect("an adapter");
    let adapted = adapter.attach(network, &Device::default()).expect("it fits");
    let names = training::parameters::names(&adapted);
    for (layer, field) in [("norm1.linear", "image"), ("norm1_context.linear", "text")] {
        let a = (1 << 40) + 2 * id(layer);
        assert_eq!(names[&a], format!("double_blocks.1.{field}.modulation.adapter.a"));
        assert_eq!(names[&(a + 1)], format!("double_blocks.1.{field}.modulation.adapter.b"));
    }
}

#[test]
fn an_adapter_that_is_attached_to_a_prepared_transformer_takes_the_place_of_the_other() {
    let golden = Golden::named("flux-tiny/golden");
    let device = Device::default();
    let conditions = conditions(&golden, "prompt_embeds", "pooled_prompt_embeds");
    let mut base = transformer::<Plain>(&device);
    let targets = ["attn.to_q", "attn.to_v", "attn.add_k_proj"].map(str::to_owned).to_vec();
    let lora = LoraConfig { rank: 2, alpha: 4.0, init: LoraInit::Gaussian, targets };
    let mut moved = |seed: u64| {
        let adapter = Adapter::new(&lora, &mut base, seed).expect("an adapter");
        let mut adapted = adapter.attach(base.clone(), &device).expect("it fits");
        for (_, layer) in adapted.linears() {
            if let Some(factors) = layer.adapter {
                factors.b = factors.b.clone().map(|b| b + 0.3);
            }
        }
        adapted
    };
    let (mut first, mut second) = (moved(1), moved(2));
    let latents = golden.tensor::<4>("pipeline.wide.latents");
    let [_, channels, height, width] = latents.dims();
    first.prepare(&conditions, [channels, height, width]);
    let velocity = |network: &FluxTransformer<Plain>| {
        numbers(network.velocity(latents.clone(), Tensor::full([2], 0.5, &device), &conditions))
    };
    let wanted = velocity(&second);
    assert!(distance(&velocity(&first), &wanted) > 1e-3, "the adapters differ");
    let replaced = Adapter::of(&mut second).attach(first, &device).expect("it fits");
    assert!(distance(&velocity(&replaced), &wanted) < 1e-5);
}

#[test]
fn a_merged_transformer_has_the_velocity_of_its_adapter() {
    let golden = Golden::named("flux-tiny/golden");
    let device = Device::default();
    let conditions = conditions(&golden, "prompt_embeds", "pooled_prompt_embeds");
    let mut base = transformer::<Plain>(&device);
    let lora = LoraConfig {
        rank: 2,
        alpha: 4.0,
        init: LoraInit::Gaussian,
        targets: ["attn.to_q", "attn.add_k_proj", "proj_out"].map(str::to_owned).to_vec(),
    };
    let adapter = Adapter::new(&lora, &mut base, 1).expect("an adapter");
    let mut adapted = adapter.attach(base.clone(), &device).expect("it fits");
    for (_, layer) in adapted.linears() {
        if let Some(factors) = layer.adapter {
            factors.b = factors.b.clone().map(|b| b + 0.3); // A fresh adapter changes nothing.
        }
    }
    let adapter = Adapter::of(&mut adapted);
    let model = tempfile::tempdir().expect("a directory");
    copy_into(&directory(), model.path());
    let transformer_of = model.path().join("transformer");
    std::fs::remove_dir_all(&transformer_of).expect("removed");
    let mut tensors = 0;
    open()
        .write_merged::<Plain>(&adapter, &transformer_of, &device, || tensors += 1)
        .expect("written");
    assert_eq!(tensors, open().transformer_tensors());
    let merged = FluxDirectory::open::<Plain>(model.path(), &Choices::default(), &device);
    let merged = merged.expect("a model").transformer::<Plain>(FloatDType::F32, &device);
    let velocity = |network: &FluxTransformer<Plain>| {
        let latents = golden.tensor("pipeline.wide.latents");
        numbers(network.velocity(latents, Tensor::full([2], 0.5, &device), &conditions))
    };
    let wanted = velocity(&adapted);
    assert!(distance(&velocity(&merged.expect("a transformer")), &wanted) < 1e-4);
    assert!(distance(&velocity(&lora::merged(adapted.clone())), &wanted) < 1e-4);
    assert!(distance(&velocity(&base), &wanted) > 1e-2, "the adapter changes the velocity");
}
