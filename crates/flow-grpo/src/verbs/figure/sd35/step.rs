//! The way of the numbers through a denoising step.

use std::path::Path;

use anyhow::Result;
use files::write_atomically;
use models::directory::TransformerSizes;
use run::diagram::{Card, Diagram, diagram};

use super::Setting;

/// Width and height of the figure.
const SIZE: [f64; 2] = [640.0, 716.0];
/// Left edge and width of a box in one of three columns, or over all of them.
const COLUMNS: [[f64; 2]; 3] = [[30.0, 186.0], [232.0, 186.0], [434.0, 186.0]];
const ALL: [f64; 2] = [30.0, 590.0];
/// The way back from the end of a step to the next one's latent.
const BACK: f64 = 12.0;

/// A box at `[left, width]` and `[top, height]`.
fn card([x, width]: [f64; 2], [y, height]: [f64; 2], color: usize, lines: &[&str]) -> Card {
    let lines = lines.iter().map(|line| (*line).to_owned()).collect();
    Card { place: [x, y, width, height], lines, color }
}

/// Straight down from the middle of the narrower box to the other one.
fn down(from: &Card, to: &Card) -> Vec<[f64; 2]> {
    let x = if from.place[2] < to.place[2] { from.bottom()[0] } else { to.top()[0] };
    vec![[x, from.bottom()[1]], [x, to.top()[1]]]
}

/// Draws the networks and shapes of a denoising step.
pub fn step(path: &Path) -> Result<()> {
    let setting = Setting::new()?;
    let (readers, inputs) = (readers(&setting), inputs(&setting));
    let [latent, pooled, text, patches, conditioning, words] = &inputs;
    let [blocks, output, guidance, step, image] = &network(&setting);
    let ends = [latent, step].map(|card| (card.place[0], card.place[1] + card.place[3] / 2.0));
    let [(left, latent_at), (_, step_at)] = ends;
    let arrows = vec![
        down(&readers, pooled),
        down(&readers, text),
        down(latent, patches),
        down(pooled, conditioning),
        down(text, words),
        down(patches, blocks),
        down(conditioning, blocks),
        down(words, blocks),
        down(blocks, output),
        down(output, guidance),
        down(guidance, step),
        down(step, image),
        vec![[left, step_at], [BACK, step_at], [BACK, latent_at], [left, latent_at]],
    ];
    let below = [blocks, output, guidance, step, image].map(Clone::clone);
    let cards = [vec![readers.clone()], inputs.to_vec(), below.to_vec()].concat();
    let svg = diagram(&Diagram { size: SIZE, cards, arrows, notes: Vec::new() });
    Ok(write_atomically(path, svg.as_bytes())?)
}

/// The text encoders.
fn readers(setting: &Setting) -> Card {
    let [of_t5, _] = setting.tokens;
    let [small, large] = &setting.sizes.clip;
    let words = small.max_position_embeddings;
    let lines = format!(
        "CLIP-L [{words}, {}], CLIP-G [{words}, {}], T5 [{of_t5}, {}]",
        small.hidden_size,
        large.hidden_size,
        setting.sizes.transformer.text_features()
    );
    let of_clip =
        format!("CLIP also gives vectors of {} and {}", small.projection_dim, large.projection_dim);
    card(
        [COLUMNS[1][0], COLUMNS[2][0] + COLUMNS[2][1] - COLUMNS[1][0]],
        [8.0, 72.0],
        4,
        &["three text encoders, once for each prompt", &lines, &of_clip],
    )
}

/// Latent, pooled text and text; below them, what the blocks read.
fn inputs(setting: &Setting) -> [Card; 6] {
    let transformer = &setting.sizes.transformer;
    let (width, patch) = (transformer.width(), transformer.patch_size);
    let (image, numbers) =
        (transformer.image_tokens(setting.latent), patch * patch * setting.latent[0]);
    let [_, words] = setting.tokens;
    let shape = |sizes: &[usize]| format!("{sizes:?}");
    let (first, second) = ([112.0, 54.0], [198.0, 72.0]);
    [
        card(COLUMNS[0], first, 0, &["latent x at time t", &shape(&setting.latent)]),
        card(COLUMNS[1], first, 4, &["pooled text", &shape(&[transformer.pooled_features()])]),
        card(COLUMNS[2], first, 4, &["text", &shape(&[words, transformer.text_features()])]),
        card(
            COLUMNS[0],
            second,
            0,
            &[
                &format!("patches of {patch} x {patch}"),
                &format!("[{image}, {numbers}]"),
                &format!("linear: [{image}, {width}]"),
            ],
        ),
        card(
            COLUMNS[1],
            second,
            2,
            &["conditioning", "sines of t, pooled text", &format!("two MLPs: [{width}]")],
        ),
        card(COLUMNS[2], second, 4, &["words", "linear", &shape(&[words, width])]),
    ]
}

/// The blocks.
fn blocks(setting: &Setting) -> Card {
    let transformer = &setting.sizes.transformer;
    let (image, [_, words]) = (transformer.image_tokens(setting.latent), setting.tokens);
    let second = transformer.dual_attention_layers.len();
    let width = transformer.width();
    card(
        ALL,
        [302.0, 90.0],
        3,
        &[
            &format!("{} blocks: image and text have weights of their own", transformer.num_layers),
            &format!(
                "attention over all {} tokens, {} heads of {}",
                image + words,
                transformer.num_attention_heads,
                transformer.attention_head_dim
            ),
            &format!(
                "in the first {second} a second attention over the {image} tokens of the image"
            ),
            &format!(
                "MLPs {width} → {} → {width}; the conditioning gives shift, scale and gate",
                4 * width
            ),
        ],
    )
}

/// The blocks, and what follows them.
fn network(setting: &Setting) -> [Card; 5] {
    let transformer = &setting.sizes.transformer;
    let image = transformer.image_tokens(setting.latent);
    let numbers = transformer.patch_size.pow(2) * transformer.out_channels;
    let (scale, steps) = (setting.config.grpo.rollout.guidance, setting.config.grpo.rollout.steps);
    [
        blocks(setting),
        card(
            ALL,
            [424.0, 54.0],
            0,
            &[
                "velocity",
                &format!(
                    "norm, linear: [{image}, {numbers}], put together to {:?}",
                    setting.latent
                ),
            ],
        ),
        card(
            ALL,
            [510.0, 54.0],
            2,
            &[
                "guidance: two rows, with the prompt and without",
                &format!("v = v∅ + {scale}·(v_c − v∅)"),
            ],
        ),
        card(ALL, [596.0, 36.0], 0, &[&format!("x′ = mean(x, v, t, t′) + s·ε, {steps} times")]),
        card(
            ALL,
            [664.0, 44.0],
            1,
            &[&format!(
                "at t = 0 the autoencoder decodes {:?} to an image {:?}",
                setting.latent, setting.pixels
            )],
        ),
    ]
}
