//! Stable Diffusion 3 compared with diffusers, number by number, on small random models.

use std::{
    collections::BTreeMap,
    ops::Deref,
    path::{Path, PathBuf},
};

use burn::tensor::{DType, FloatDType, Tensor, TensorData, backend::Backend};
use flow::{
    FlowSde, GridKind, Guidance, GuidanceGradient, KlForm, NoiseLevel, Query, Reduction, Sampler,
    Trajectory, VelocityField,
};
use grpo::{
    TrainedSteps,
    algorithm::{Clipped, Example},
    objective::{KlController, ObjectiveConfig, StepWeight},
    trajectories::{KeptOn, Trajectories},
    update::{Batches, Checkpointing, Differentiate, Others, Replay, ReplayOutcome, WholeGraph},
};
use models::{
    Adaptable, Adapter, Choices, LoraConfig,
    lora::{self, LoraInit},
    sd3::{ModelDirectory, Transformer},
    storage::TensorFiles,
    text::{Embedding, Features, tokenizer::PromptTokenizer},
};
use safetensors::SafeTensors;
use training::{
    noise::{Key, Purpose},
    parameters::{Parameters, Trained},
    workers::Workers,
};

use crate::backend::{Device, Plain, Training, distance, numbers};

/// A small random model in the layout of diffusers, with the values that diffusers computes from
/// it.
#[derive(Clone)]
struct Model {
    path: PathBuf,
    arrays: Arrays,
}

impl Deref for Model {
    type Target = Arrays;

    fn deref(&self) -> &Arrays {
        &self.arrays
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// Named arrays, with facts about them from a JSON file.
#[derive(Clone)]
struct Arrays {
    bytes: Vec<u8>,
    facts: serde_json::Value,
}

impl Arrays {
    /// Reads `NAME.safetensors` with `NAME.json`.
    fn read(name: &Path) -> Self {
        let facts =
            std::fs::read_to_string(name.with_extension("json")).expect("the golden is committed");
        let bytes =
            std::fs::read(name.with_extension("safetensors")).expect("the golden is committed");
        Self { bytes, facts: serde_json::from_str(&facts).expect("JSON") }
    }

    fn values(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let file = SafeTensors::deserialize(&self.bytes).expect("safetensors");
        let view = file.tensor(name).unwrap_or_else(|_| panic!("no {name}"));
        let values = match view.dtype() {
            safetensors::Dtype::F32 => view
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into())
                .collect(),
            safetensors::Dtype::I64 => view
                .data()
                .chunks_exact(8)
                .map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes")) as f64)
                .collect(),
            other => panic!("{name} is stored as {other:?}"),
        };
        (view.shape().to_vec(), values)
    }

    fn tensor<const D: usize>(&self, name: &str) -> Tensor<Plain, D> {
        let (shape, values) = self.values(name);
        let values: Vec<f32> = values.into_iter().map(|x| x as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::default())
    }

    fn number(&self, name: &str) -> usize {
        self.facts[name].as_u64().unwrap_or_else(|| panic!("no {name}")) as usize
    }

    /// Asserts that `got` is close to the array of this name.
    fn assert_near<const D: usize>(&self, name: &str, got: Tensor<Plain, D>) {
        let (shape, want) = self.values(name);
        assert_eq!(got.dims().to_vec(), shape, "{name}");
        let distance = distance(&numbers(got), &want);
        assert!(distance <= TOLERANCE, "{name}: off by {distance:e}");
    }
}

impl Model {
    fn read(name: &str) -> Self {
        let path = golden(name);
        Self { arrays: Arrays::read(&path.join("golden")), path }
    }

    fn prompts(&self) -> Vec<&str> {
        self.facts["prompts"]
            .as_array()
            .expect("prompts")
            .iter()
            .map(|prompt| prompt.as_str().expect("text"))
            .collect()
    }

    fn open(&self) -> ModelDirectory {
        ModelDirectory::open::<Plain>(&self.path, &Choices::default(), &Device::default())
            .expect("a whole model")
    }

    fn encode(&self, prompts: &[&str]) -> Vec<Embedding> {
        encode(&self.open(), prompts, self.number("max_sequence_length"))
    }

    fn transformer(&self) -> Transformer<Plain> {
        self.open().transformer(FloatDType::F32, &Device::default()).expect("a transformer")
    }
}

/// Encodes prompts.
fn encode(directory: &ModelDirectory, prompts: &[&str], length: usize) -> Vec<Embedding> {
    let device = Device::default();
    let clip = directory
        .clip_reader::<Plain>(FloatDType::F32, &device)
        .expect("encoders")
        .encode(prompts)
        .expect("prompts");
    let t5 = directory.t5_reader::<Plain>(length, FloatDType::F32, &device).expect("an encoder");
    let t5 = t5.map(|reader| reader.encode(prompts).expect("prompts"));
    let of_row = |(row, clip): (usize, [TensorData; 2])| {
        let t5 = t5.as_ref().map(|t5| Features::Held(t5[row][0].clone()));
        let [hidden, pooled] = clip.map(Features::Held);
        directory.embedding(Some(hidden), pooled, t5, length)
    };
    clip.into_iter().enumerate().map(of_row).collect()
}

/// Tolerance relative to the largest number.
const TOLERANCE: f64 = 1e-4;
/// Tolerance for gradients under guidance, in which two large gradients nearly cancel: matrix
/// products of ndarray round differently from one CPU to the next, and 1.6e-4 was seen.
const GRADIENT_TOLERANCE: f64 = 5e-4;

const MODELS: [&str; 2] = ["sd3-tiny", "sd3-plain"];

#[test]
fn prompts_are_cut_into_the_same_tokens() {
    for name in MODELS {
        let model = Model::read(name);
        let has_t5 = model.open().has_t5();
        assert_eq!(has_t5, name == "sd3-tiny");
        let mut sets = vec![("tokenizer", "clip_ids", 77), ("tokenizer_2", "clip2_ids", 77)];
        if has_t5 {
            sets.push(("tokenizer_3", "t5_ids", model.number("max_sequence_length")));
        }
        for (directory, ids, length) in sets {
            assert_ids(&model, directory, ids, &model.prompts(), length);
        }
    }
    let model = Model::read("sd3-plain");
    let texts: Vec<&str> = model.facts["texts"]
        .as_array()
        .expect("texts")
        .iter()
        .filter_map(serde_json::Value::as_str)
        .collect();
    assert_eq!(texts.len(), 13);
    assert_ids(&model, "tokenizer", "text_clip_ids", &texts, 77);
    assert_ids(&model, "tokenizer_2", "text_clip2_ids", &texts, 77);
}

fn assert_ids(model: &Model, directory: &str, ids: &str, texts: &[&str], length: usize) {
    let tokenizer = PromptTokenizer::open(&model.path.join(directory), length, usize::MAX)
        .expect("a tokenizer");
    let want = model.values(ids).1;
    for (text, want) in texts.iter().zip(want.chunks_exact(length)) {
        let got: Vec<f64> =
            tokenizer.encode(text).expect("a prompt").into_iter().map(f64::from).collect();
        assert_eq!(got, want, "{directory}: {text:?}");
    }
}

#[test]
fn a_tokenizer_of_another_encoder_is_refused() {
    let tokenizer =
        PromptTokenizer::open(&golden("sd3-tiny").join("tokenizer"), 77, 100).expect("a tokenizer");
    let refused =
        tokenizer.encode("a cat").expect_err("the end of the text is a later token").to_string();
    assert!(refused.contains("`a cat`") && refused.contains("knows only 100 tokens"), "{refused}");
}

#[test]
fn added_tokens_have_the_ids_of_their_files_or_are_refused() {
    let directory = |name: &str| {
        let model = copy("sd3-tiny");
        let path = model.path().join(name);
        (model, path)
    };
    let open = |path: &Path| PromptTokenizer::open(path, 77, usize::MAX);
    let read = |path: &Path| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(path).expect("a text")).expect("JSON")
    };
    let write = |path: &Path, value: &serde_json::Value| {
        std::fs::write(path, value.to_string()).expect("written");
    };
    let prompt = "two <new> cats <other>";

    // Tokens after the vocabulary, listed in another order than that of their ids.
    let (_model, t5) = directory("tokenizer_3");
    let file = t5.join("tokenizer.json");
    let mut json = read(&file);
    let words = json["model"]["vocab"].as_array().expect("a list of words").len() as u64;
    let added = json["added_tokens"].as_array_mut().expect("a list");
    let first = added[0].clone();
    for (content, id) in [("<other>", words + 1), ("<new>", words)] {
        let mut token = first.clone();
        token["content"] = content.into();
        token["id"] = id.into();
        added.push(token);
    }
    write(&file, &json);
    let ids = open(&t5).expect("sorted").encode(prompt).expect("a prompt");
    assert!(ids.contains(&(words as u32)) && ids.contains(&(words as u32 + 1)), "{ids:?}");
    // A hole between the vocabulary and an added token.
    let added = json["added_tokens"].as_array_mut().expect("a list");
    added.last_mut().expect("pushed")["id"] = (words + 7).into();
    write(&file, &json);
    let refused = open(&t5).expect_err("a hole").to_string();
    assert!(
        refused.contains("the vocabulary has holes")
            && (refused.contains("`<other>`") || refused.contains("`<new>`")),
        "{refused}"
    );

    // CLIP's vocabulary with one id for two words.
    let copied = copy("clip-tiny/transformers");
    let clip = copied.path();
    let file = clip.join("vocab.json");
    let mut json = read(&file);
    let words: Vec<String> = json.as_object().expect("words").keys().take(2).cloned().collect();
    json[words[0].as_str()] = json[words[1].as_str()].clone();
    write(&file, &json);
    let refused = open(clip).expect_err("one id for two").to_string();
    assert!(refused.contains("share the id"), "{refused}");
}

#[test]
fn prompts_are_encoded_as_diffusers_encodes_them() {
    for name in MODELS {
        let model = Model::read(name);
        for (prompts, text, pooled) in [
            (model.prompts(), "prompt_embeds", "pooled"),
            (vec![""; 2], "negative_prompt_embeds", "negative_pooled"),
        ] {
            let embeddings = model.encode(&prompts);
            let [tokens, width] = embeddings[0].text_shape;
            let of_text: Vec<f32> =
                embeddings.iter().flat_map(|embedding| embedding.text()).collect();
            let of_text = TensorData::new(of_text, [prompts.len(), tokens, width]);
            model.assert_near(text, Tensor::<Plain, 3>::from_data(of_text, &Device::default()));
            let of_pooled: Vec<f32> =
                embeddings.iter().flat_map(|embedding| embedding.pooled.numbers()).collect();
            let of_pooled =
                TensorData::new(of_pooled, [prompts.len(), embeddings[0].pooled.shape()[0]]);
            model.assert_near(pooled, Tensor::<Plain, 2>::from_data(of_pooled, &Device::default()));
        }
    }
}

#[test]
fn the_transformer_has_the_velocity_of_diffusers() {
    for name in MODELS {
        let model = Model::read(name);
        let conditions = model.encode(&model.prompts());
        let time = model.tensor::<1>("timestep") / 1000.0;
        model.assert_near(
            "velocity",
            model.transformer().velocity(model.tensor("latents"), time, &conditions),
        );
    }
}

#[test]
fn an_adapter_changes_the_velocity_as_peft_does() {
    let model = Model::read("sd3-tiny");
    let conditions = model.encode(&model.prompts());
    let time = model.tensor::<1>("timestep") / 1000.0;
    for path in ["adapter/peft", "adapter/pytorch_lora_weights.safetensors"] {
        let mut adapter = Adapter::read(&golden(path)).expect("an adapter");
        if !path.ends_with("peft") {
            // Written without metadata, the file does not contain α.
            adapter.alpha = 8.0;
        }
        let transformer = adapter.attach(model.transformer(), &Device::default()).expect("it fits");
        model.assert_near(
            "velocity_lora",
            transformer.velocity(model.tensor("latents"), time.clone(), &conditions),
        );
        let merged = lora::merged(transformer);
        model.assert_near(
            "velocity_lora",
            merged.velocity(model.tensor("latents"), time.clone(), &conditions),
        );
    }
}

#[test]
fn sampling_ends_where_diffusers_ends() {
    for name in MODELS {
        let model = Model::read(name);
        let conditions = model.encode(&model.prompts());
        let unconditional = model.encode(&[""]).remove(0);
        let grid =
            GridKind::Sd3DoubleShift { shift: 3.0 }.grid(model.number("steps")).expect("a grid");
        let distance = distance(grid.times(), &model.values("sigmas").1);
        assert!(distance < 1e-6, "times: off by {distance:e}");
        let scale = model.facts["guidance_scale"].as_f64().expect("guidance");
        let field = Guidance { unconditional, scale }.around(model.transformer());
        let latents =
            Sampler::ode(grid)
                .sample(&field, &conditions, model.tensor("latents"), |_| unreachable!("no noise"));
        model.assert_near("final_latents", latents.clone());
        let vae =
            model.open().vae::<Plain>(FloatDType::F32, &Device::default()).expect("an autoencoder");
        model.assert_near("decoded", vae.decode(latents));
    }
}

#[test]
fn pictures_are_encoded_as_diffusers_encodes_them() {
    for name in MODELS {
        let model = Model::read(name);
        let vae =
            model.open().vae::<Plain>(FloatDType::F32, &Device::default()).expect("an autoencoder");
        let posterior = vae.encode(model.tensor("encode_input"));
        model.assert_near("encode_mean", posterior.mean.clone());
        model.assert_near("encode_logvar", posterior.log_variance);
        let latents = vae.latents(model.tensor("encode_input"));
        let want = (posterior.mean - vae.config().shift_factor.expect("a shift"))
            * vae.config().scaling_factor;
        assert!(distance(&numbers(latents), &numbers(want)) < 1e-6);
    }
}

#[test]
fn computing_in_sixteen_bits_changes_the_velocity_little() {
    let device = Device::default();
    if !<Plain as Backend>::supports_dtype(&device, DType::BF16) {
        return;
    }
    for name in MODELS {
        let model = Model::read(name);
        let conditions = model.encode(&model.prompts());
        let time = model.tensor::<1>("timestep") / 1000.0;
        let transformer =
            model.open().transformer::<Plain>(FloatDType::BF16, &device).expect("a transformer");
        let velocity = transformer.velocity(model.tensor("latents"), time, &conditions);
        assert_eq!(velocity.dtype(), DType::F32);
        let distance = distance(&numbers(velocity), &model.values("velocity").1);
        println!("{name}: {distance:e}");
        assert!((1e-4..3e-2).contains(&distance), "{name}: off by {distance:e}");
    }
}

#[test]
fn an_adapter_beside_sixteen_bits_has_a_gradient_in_all_of_its_bits() {
    let device = Device::default();
    if !<Plain as Backend>::supports_dtype(&device, DType::BF16) {
        return;
    }
    let mut step = ReplayedStep::read();
    let gradients = [FloatDType::F32, FloatDType::BF16].map(|precision| {
        let base =
            step.model.open().transformer::<Plain>(precision, &device).expect("a transformer");
        let adapter = Adapter::read(&golden("adapter/peft")).expect("an adapter");
        step.policy = adapter.attach(base.clone(), &device).expect("it fits");
        step.base = base;
        let [whole, parts] =
            [&WholeGraph as &dyn Differentiate<_, _>, &Checkpointing].map(|differentiate| {
                let outcome = step.gradient(differentiate, 1.0, &[0.0, 0.0]);
                outcome.gradient.to_data().into_values().collect::<Vec<TensorData>>()
            });
        assert!(whole.iter().chain(&parts).all(|data| data.dtype == DType::F32));
        [whole, parts].map(|gradient| {
            gradient.iter().flat_map(|data| data.iter::<f64>()).collect::<Vec<f64>>()
        })
    });
    let [[exact, _], [whole, parts]] = &gradients;
    println!("{:e} {:e}", distance(whole, exact), distance(parts, whole));
    assert!(distance(whole, exact) < 0.1 && distance(parts, whole) < 0.05);
}

/// One replayed step of the reference code, with its gradient.
#[derive(Clone)]
struct ReplayedStep {
    model: Model,
    arrays: Arrays,
    conditions: Vec<Embedding>,
    guidance: Guidance<Embedding>,
    base: Transformer<Plain>,
    policy: Transformer<Plain>,
    old_log_prob: Tensor<Plain, 1>,
}

impl ReplayedStep {
    fn read() -> Self {
        let (model, arrays) = (Model::read("sd3-tiny"), Arrays::read(&golden("sd3-gradients")));
        let conditions = model.encode(&model.prompts());
        let unconditional = model.encode(&[""]).remove(0);
        let scale = arrays.facts["guidance_scale"].as_f64().expect("a scale");
        let base = model.transformer();
        let adapter = Adapter::read(&golden("adapter/peft")).expect("an adapter");
        let policy = adapter.attach(base.clone(), &Device::default()).expect("it fits");
        let old_log_prob = arrays.tensor("old_log_prob");
        Self {
            model,
            arrays,
            conditions,
            guidance: Guidance { unconditional, scale },
            base,
            policy,
            old_log_prob,
        }
    }

    fn sampler(&self) -> Sampler {
        let grid = GridKind::Sd3DoubleShift { shift: 3.0 }
            .grid(self.arrays.number("steps"))
            .expect("a grid");
        Sampler::new(
            grid,
            FlowSde { noise_level: NoiseLevel::new(self.fact("noise_level")).expect("valid") },
        )
    }

    /// The log-probabilities of the golden's draw, with velocities from `answer`.
    fn log_prob(
        &self,
        answer: &dyn Fn(Query<Plain, Embedding>) -> Tensor<Plain, 4>,
    ) -> Tensor<Plain, 1> {
        let (step, transition) = self.sampler().step(self.arrays.number("step"));
        let latent = self.model.tensor("latents");
        let query = self.guidance.doubled(Query::at(step.from, latent.clone(), &self.conditions));
        let velocity = self.guidance.combined(answer(query), GuidanceGradient::Both);
        transition
            .gaussian(latent, velocity, step)
            .log_prob(self.arrays.tensor("x_next"), Reduction::Mean)
    }

    fn fact(&self, name: &str) -> f64 {
        self.arrays.facts[name].as_f64().unwrap_or_else(|| panic!("no {name}"))
    }

    /// The gradient of the loss with respect to the adapter.
    fn gradient(
        &self,
        differentiate: &dyn Differentiate<Training, Transformer<Training>>,
        kl_weight: f64,
        advantages: &[f32],
    ) -> ReplayOutcome<Plain> {
        self.gradient_through(GuidanceGradient::Both, differentiate, kl_weight, advantages)
    }

    /// The gradient of the loss through one or both halves of the guided velocity.
    fn gradient_through(
        &self,
        guidance_gradient: GuidanceGradient,
        differentiate: &dyn Differentiate<Training, Transformer<Training>>,
        kl_weight: f64,
        advantages: &[f32],
    ) -> ReplayOutcome<Plain> {
        let step = self.arrays.number("step");
        let sampler = self.sampler();
        assert!((sampler.grid().times()[step] - self.arrays.values("times").1[0]).abs() < 1e-6);
        let next = self.arrays.tensor::<4>("x_next");
        let mut trajectory = Trajectory { latents: vec![None; 11], log_probs: vec![None; 10] };
        trajectory.latents[step] = Some(self.model.tensor("latents"));
        trajectory.latents[step + 1] = Some(next.clone());
        trajectory.latents[10] = Some(next);
        trajectory.log_probs[step] = Some(self.old_log_prob.clone());
        let objective = ObjectiveConfig {
            clip_range_low: self.fact("clip_range"),
            clip_range_high: self.fact("clip_range"),
            step_weight: StepWeight::Equal,
            kl_weight,
            kl_controller: KlController::Fixed {},
            kl_form: KlForm::Reference,
            kl_ode_steps: 0,
            guidance_gradient,
        };
        let replay = Replay {
            sampler: &sampler,
            guidance: Some(&self.guidance),
            trajectories: &Trajectories::keep(trajectory, KeptOn::Host),
            conditions: &self.conditions,
            advantages,
            kl_weight,
            noise: Key::new(1, Purpose::Forward),
            trained: &Trained::named(&self.policy, lora::is_of_adapter),
            batches: Batches::Of(2),
            loss_scale: 1.0,
            workers: &Workers::new(1).expect("a thread"),
        };
        let examples = vec![Example { step, row: 0 }, Example { step, row: 1 }];
        let algorithm =
            Clipped::new(objective, Reduction::Mean, TrainedSteps::AllButLast {}, &sampler);
        let others = Others { reference: Some(self.base.clone()), old: None };
        replay
            .gradient(&algorithm, differentiate, &self.policy, &others, &[examples])
            .expect("not stopped")
    }

    fn advantages(&self) -> Vec<f32> {
        self.arrays.values("advantages").1.into_iter().map(|advantage| advantage as f32).collect()
    }

    /// A gradient under the names of PEFT.
    fn named(&self, gradient: &Parameters<Plain>) -> BTreeMap<String, Vec<f64>> {
        let directory = tempfile::tempdir().expect("a directory");
        Adapter::of(&mut gradient.put_into(self.policy.clone()))
            .write_peft(directory.path(), "")
            .expect("written");
        let file = models::WeightsFile::read(&directory.path().join("adapter_model.safetensors"))
            .expect("written");
        let tensors = file.tensors().expect("numbers").into_iter();
        tensors.map(|(name, data)| (name, data.iter::<f64>().collect())).collect()
    }

    fn assert_gradient(&self, gradient: &Parameters<Plain>, prefix: &str, scale: f64) {
        let gradient = self.named(gradient);
        assert_eq!(gradient.len(), 46);
        let largest =
            gradient.values().flatten().fold(0.0_f64, |largest, value| largest.max(value.abs()));
        for (name, got) in gradient {
            let want: Vec<f64> = self
                .arrays
                .values(&format!("{prefix}.{name}"))
                .1
                .into_iter()
                .map(|value| value * scale)
                .collect();
            let worst =
                got.iter().zip(&want).map(|(got, want)| (got - want).abs()).fold(0.0, f64::max);
            assert!(
                worst <= GRADIENT_TOLERANCE * largest,
                "{prefix}.{name}: off by {worst:e} of {largest:e}"
            );
        }
    }
}

#[test]
fn a_replayed_step_has_the_gradient_of_the_reference_code_before_and_after_it_detached() {
    let step = ReplayedStep::read();
    for differentiate in [&WholeGraph as &dyn Differentiate<_, _>, &Checkpointing] {
        let outcome = step.gradient(differentiate, step.fact("beta"), &step.advantages());
        assert!((outcome.loss - step.fact("loss")).abs() < 1e-5, "{}", outcome.loss);
        let [ratio, _, kl, _] = &outcome.terms[0].columns[..] else { panic!("four columns") };
        assert!(distance(ratio, &step.arrays.values("ratio").1) < 1e-5);
        assert!(distance(kl, &step.arrays.values("kl").1) < 1e-3);
        step.assert_gradient(&outcome.gradient, "grad", 1.0);
        // The KL penalty alone, of which the loss has a thousandth.
        let outcome = step.gradient(differentiate, 1.0, &[0.0, 0.0]);
        step.assert_gradient(&outcome.gradient, "grad_kl", 1.0);
    }
}

/// Gradients through the conditional velocity alone: the network is asked twice, and only the
/// second answer has a graph.
struct ConditionalAlone;

impl Differentiate<Training, Transformer<Training>> for ConditionalAlone {
    fn gradient(
        &self,
        network: Transformer<Plain>,
        trained: &Trained,
        query: Query<Plain, Embedding>,
        loss: &mut dyn FnMut(Tensor<Training, 4>) -> Tensor<Training, 1>,
    ) -> Parameters<Plain> {
        let rows = query.conditions.len() / 2;
        let half = |from: usize| Query {
            latent: query.latent.clone().narrow(0, from, rows),
            time: query.time.clone().narrow(0, from, rows),
            conditions: query.conditions[from..from + rows].to_vec(),
        };
        let without = Tensor::from_inner(half(0).ask(&network));
        let network: Transformer<Training> = trained.with_graph(network);
        let Query { latent, time, conditions } = half(rows);
        let with =
            network.velocity(Tensor::from_inner(latent), Tensor::from_inner(time), &conditions);
        let gradients = loss(Tensor::cat(vec![without, with], 0)).backward();
        trained.gradients(&network, gradients)
    }

    fn velocity(
        &self,
        network: &Transformer<Plain>,
        query: Query<Plain, Embedding>,
    ) -> Tensor<Plain, 4> {
        query.ask(network)
    }
}

#[test]
fn without_the_unconditional_half_the_gradient_is_that_of_the_conditional_one() {
    let step = ReplayedStep::read();
    let (beta, advantages) = (step.fact("beta"), step.advantages());
    let flat = |outcome: ReplayOutcome<Plain>| {
        step.named(&outcome.gradient).into_values().flatten().collect::<Vec<f64>>()
    };
    let alone = flat(step.gradient(&ConditionalAlone, beta, &advantages));
    for differentiate in [&WholeGraph as &dyn Differentiate<_, _>, &Checkpointing] {
        let detached = flat(step.gradient_through(
            GuidanceGradient::Conditional,
            differentiate,
            beta,
            &advantages,
        ));
        assert!(distance(&detached, &alone) < 1e-5, "{:e}", distance(&detached, &alone));
        // Through both halves the loss is the same, but its gradient is not.
        let both = flat(step.gradient(differentiate, beta, &advantages));
        assert!(distance(&both, &alone) > 0.05, "{:e}", distance(&both, &alone));
    }
}

#[test]
fn what_is_sampled_as_it_is_replayed_has_a_ratio_of_exactly_one() {
    let device = Device::default();
    let precisions = [
        (FloatDType::F32, DType::F32),
        (FloatDType::BF16, DType::BF16),
        (FloatDType::F16, DType::F16),
    ];
    for (precision, _) in precisions
        .into_iter()
        .filter(|(_, dtype)| <Plain as Backend>::supports_dtype(&device, *dtype))
    {
        let mut step = ReplayedStep::read();
        let base =
            step.model.open().transformer::<Plain>(precision, &device).expect("a transformer");
        step.policy = Adapter::read(&golden("adapter/peft"))
            .expect("an adapter")
            .attach(base.clone(), &device)
            .expect("it fits");
        step.base = base;
        for (name, differentiate) in [
            ("in one piece", &WholeGraph as &dyn Differentiate<_, _>),
            ("part by part", &Checkpointing),
        ] {
            let ratios = |sampled: &dyn Fn(Query<Plain, Embedding>) -> Tensor<Plain, 4>| {
                let step = ReplayedStep { old_log_prob: step.log_prob(sampled), ..step.clone() };
                let log_ratios = step
                    .gradient(differentiate, 0.0, &[1.0, -1.0])
                    .terms
                    .remove(0)
                    .columns
                    .remove(1);
                log_ratios.into_iter().map(f64::abs).fold(0.0, f64::max)
            };
            let same = ratios(&|query| differentiate.velocity(&step.policy, query));
            let other = ratios(&|query| query.ask(&step.policy));
            println!("{precision:?}, {name}: {same:e} as it is replayed, {other:e} as it comes");
            assert_eq!(same, 0.0, "{precision:?}, {name}");
        }
    }
}

#[test]
fn a_gradient_found_part_by_part_is_the_same_in_every_layer() {
    let mut step = ReplayedStep::read();
    // A fresh adapter on every linear layer, also before and after the blocks.
    let mut policy = lora::merged(step.policy);
    let targets: Vec<String> = policy.linears().into_iter().map(|(path, _)| path).collect();
    let everywhere = LoraConfig { rank: 2, alpha: 4.0, init: LoraInit::Gaussian, targets };
    let adapter = Adapter::new(&everywhere, &mut policy, 1).expect("an adapter");
    step.policy = adapter.attach(policy, &Device::default()).expect("it fits");
    let [whole, parts] =
        [&WholeGraph as &dyn Differentiate<_, _>, &Checkpointing].map(|differentiate| {
            step.named(
                &step.gradient(differentiate, step.fact("beta"), &step.advantages()).gradient,
            )
        });
    let largest = whole.values().flatten().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    assert_eq!(whole.len(), 2 * everywhere.targets.len());
    for (name, whole) in whole {
        // While B is zero, A has no gradient; the text's queries in the last block are not used.
        let moves = name.contains("lora_B") && !name.contains("blocks.2.attn.add_q_proj");
        assert_eq!(whole.iter().any(|value| *value != 0.0), moves, "{name}");
        let worst = whole.iter().zip(&parts[&name]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst <= 1e-5 * largest, "{name}: off by {worst:e} of {largest:e}");
    }
}

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

/// A copy of a model to break.
fn copy(name: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    copy_into(&golden(name), directory.path());
    directory
}

/// Copies a directory with all that is in it.
pub fn copy_into(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_into(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("copied");
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
