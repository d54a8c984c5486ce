//! The laws of chapter 14, Stable Diffusion 3.5.

use crate::{Noise, Verdict, attention::Stream, numbers, require};

type Matrix = Vec<Vec<f64>>;
type Unpatch = fn(&[Vec<f64>], [usize; 3], usize) -> Vec<Matrix>;

/// 14.1: cutting a latent into tokens and putting it together again gives the latent.
pub fn latent_of_tokens(answer: Unpatch) -> Verdict {
    let mut noise = Noise::new(141);
    for (sizes, patch) in [([2, 4, 6], 2), ([3, 6, 4], 2), ([1, 4, 4], 1), ([2, 6, 3], 3)] {
        let [channels, height, width] = sizes;
        let latent: Vec<Matrix> =
            (0..channels).map(|_| (0..height).map(|_| noise.normals(width)).collect()).collect();
        let got = answer(&tokens(&latent, patch, Order::ChannelsLast), sizes, patch);
        let fits = got.len() == channels
            && got
                .iter()
                .all(|rows| rows.len() == height && rows.iter().all(|row| row.len() == width));
        require(
            fits,
            format!("The latent is not one of {channels} channels with {height} rows of {width}."),
            "Channels outside, then rows, then columns.",
        )?;
        let wrong = |order| {
            // What the answer would need as tokens to be right, if it read them in this order.
            answer(&tokens(&latent, patch, order), sizes, patch) == latent
        };
        let hint = if wrong(Order::ChannelsFirst) {
            "You read all places of a channel first, as the first layer does; the last layer writes all channels of a place first."
        } else if wrong(Order::PlacesTurned) {
            "Rows and columns of the places inside a patch are exchanged."
        } else if wrong(Order::PatchesTurned) {
            "The patches come row by row: the next token is the patch to the right."
        } else {
            "Which token has row r and column c, which of its places, and which channel?"
        };
        require(
            got == latent,
            format!(
                "A latent of {sizes:?} that was cut into patches of {patch} × {patch} does not come back."
            ),
            hint,
        )?;
    }
    Ok(())
}

/// The order of the numbers of tokens.
#[derive(Clone, Copy)]
enum Order {
    ChannelsLast,
    ChannelsFirst,
    PlacesTurned,
    PatchesTurned,
}

/// Cuts a latent into tokens.
fn tokens(latent: &[Matrix], patch: usize, order: Order) -> Vec<Vec<f64>> {
    let (rows, columns) = (latent[0].len() / patch, latent[0][0].len() / patch);
    let token = |index: usize| {
        let (row, column) = match order {
            Order::PatchesTurned => (index % rows, index / rows),
            _ => (index / columns, index % columns),
        };
        let number = |at: usize| {
            let area = patch * patch;
            let (place, channel) = match order {
                Order::ChannelsFirst => (at % area, at / area),
                _ => (at / latent.len(), at % latent.len()),
            };
            let (down, right) = match order {
                Order::PlacesTurned => (place % patch, place / patch),
                _ => (place / patch, place % patch),
            };
            latent[channel][row * patch + down][column * patch + right]
        };
        (0..patch * patch * latent.len()).map(number).collect()
    };
    (0..rows * columns).map(token).collect()
}

fn shifted(t: f64, k: f64) -> f64 {
    k * t / (1.0 + (k - 1.0) * t)
}

/// The grid from 1 to `least` whose times are changed by `last`, and 0.
fn grid(steps: usize, least: f64, last: impl Fn(f64) -> f64) -> Vec<f64> {
    let time = |i: usize| last(1.0 - (1.0 - least) * i as f64 / (steps - 1) as f64);
    (0..steps).map(time).chain([0.0]).collect()
}

/// 14.2 against the grid of SD3, and usual mistakes.
pub fn shifted_twice(answer: fn(usize, f64) -> Vec<f64>) -> Verdict {
    for (steps, k) in [(10, 3.0), (40, 3.0), (4, 1.0), (7, 2.5)] {
        let least = shifted(0.001, k);
        numbers(
            format!("The times of {steps} steps with shift {k}"),
            &answer(steps, k),
            &grid(steps, least, |t| shifted(t, k)),
            &[
                (
                    grid(steps, 0.001, |t| shifted(t, k)),
                    "That is the grid whose shift is applied once: the even grid ends at the shifted 1/1000.",
                ),
                (
                    grid(steps, 0.001, |t| shifted(shifted(t, k), k)),
                    "That shifts every time twice, which is a shift of χ²: between the two shifts the times are spread evenly again.",
                ),
                (grid(steps, least, |t| t), "The even grid is right; it is shifted once more."),
                (
                    (0..=steps).map(|i| shifted(1.0 - i as f64 / steps as f64, k)).collect(),
                    "The last trained time is 1/1000, and not 1/steps: 0 comes after `steps` times.",
                ),
                (
                    grid(steps, least, |t| shifted(t, k))[..steps].to_vec(),
                    "The last time, 0, is missing.",
                ),
            ],
        )?;
    }
    Ok(())
}

/// What queries get from keys and values, with the scores divided by `scale`.
fn attention(queries: &Matrix, keys: &[&Vec<f64>], values: &[&Vec<f64>], scale: f64) -> Vec<f64> {
    let mut got = Vec::new();
    for query in queries {
        let dot = |key: &&Vec<f64>| query.iter().zip(*key).map(|(q, k)| q * k).sum::<f64>();
        let scores: Vec<f64> = keys.iter().map(|key| dot(key) / scale).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for i in 0..values[0].len() {
            got.push(weights.iter().zip(values).map(|(w, v)| w / sum * v[i]).sum());
        }
    }
    got
}

type Joint = fn(&Stream, &Stream) -> [Matrix; 2];

/// 14.3 against the formula; large scores stay finite.
pub fn joint_attention(answer: Joint) -> Verdict {
    let mut noise = Noise::new(143);
    for (patches, words, size) in [(4, 3, 1.0), (2, 5, 1.0), (3, 3, 80.0)] {
        let mut stream = |tokens: usize| {
            let mut matrix = |scale: f64| -> Matrix {
                (0..tokens).map(|_| noise.normals(4).iter().map(|x| scale * x).collect()).collect()
            };
            Stream { queries: matrix(size), keys: matrix(size), values: matrix(1.0) }
        };
        let (image, text) = (stream(patches), stream(words));
        let both =
            |of: fn(&Stream) -> &Matrix| of(&image).iter().chain(of(&text)).collect::<Vec<_>>();
        let (keys, values) = (both(|stream| &stream.keys), both(|stream| &stream.values));
        let got = answer(&image, &text);
        for (index, (name, own, other)) in
            [("image", &image, &text), ("text", &text, &image)].into_iter().enumerate()
        {
            let of = |stream: &Stream, scale| {
                let (keys, values) = (stream.keys.iter(), stream.values.iter());
                attention(
                    &own.queries,
                    &keys.collect::<Vec<_>>(),
                    &values.collect::<Vec<_>>(),
                    scale,
                )
            };
            let (alone, across) = (of(own, 2.0), of(other, 2.0));
            let flat: Vec<f64> = got[index].iter().flatten().copied().collect();
            require(
                flat.iter().all(|number| number.is_finite()),
                format!(
                    "With large scores the tokens of the {name} get a number that is not finite."
                ),
                "Subtract the largest score of a row before the exponential: the sum takes it out again.",
            )?;
            numbers(
                format!("The features of the {name}'s tokens"),
                &flat,
                &attention(&own.queries, &keys, &values, 2.0),
                &wrong_attentions(own, [alone, across], &keys, &values),
            )?;
        }
    }
    Ok(())
}

/// Features that mistakes would give the tokens of a stream: from those that it reads alone and from
/// those that it reads across.
fn wrong_attentions(
    own: &Stream,
    [alone, across]: [Vec<f64>; 2],
    keys: &[&Vec<f64>],
    values: &[&Vec<f64>],
) -> [(Vec<f64>, &'static str); 6] {
    let halves = alone.iter().zip(&across).map(|(a, b)| 0.5 * (a + b)).collect();
    let sums = alone.iter().zip(&across).map(|(a, b)| a + b).collect();
    [
        (alone, "Each stream reads itself alone: that is the second attention of MMDiT-X."),
        (across, "Each stream reads the other alone. Joint attention reads both."),
        (halves, "Two softmaxes are averaged: one softmax runs over the keys of both streams."),
        (sums, "Two softmaxes are added: one softmax runs over the keys of both streams."),
        (
            attention(&own.queries, keys, values, 1.0),
            "The scores are not divided by the root of the features.",
        ),
        (
            attention(&own.queries, keys, values, 4.0),
            "The scores are divided by the features, and not by their root.",
        ),
    ]
}

type Rows = fn(&[f64], f64) -> [Vec<f64>; 2];

/// 14.4 against finite differences of a loss of the guided velocity.
pub fn gradients_of_rows(answer: Rows) -> Verdict {
    let mut noise = Noise::new(144);
    for scale in [4.5, 1.0, 7.0, 0.0] {
        let [with, without, goal] = [(); 3].map(|()| noise.normals(3));
        let guided = |with: &[f64], without: &[f64]| -> Vec<f64> {
            with.iter().zip(without).map(|(w, o)| o + scale * (w - o)).collect()
        };
        let loss = |velocity: &[f64]| -> f64 {
            velocity.iter().zip(&goal).map(|(v, goal)| (v - goal).powi(2)).sum()
        };
        let gradient: Vec<f64> =
            guided(&with, &without).iter().zip(&goal).map(|(v, goal)| 2.0 * (v - goal)).collect();
        let got = answer(&gradient, scale);
        for (row, name) in ["with", "without"].into_iter().enumerate() {
            let moved = |i: usize, by: f64| {
                let mut rows = [with.clone(), without.clone()];
                rows[row][i] += by;
                loss(&guided(&rows[0], &rows[1]))
            };
            // The loss is a square, so the difference is exact.
            let measured: Vec<f64> = (0..3).map(|i| moved(i, 0.5) - moved(i, -0.5)).collect();
            let times = |factor: f64| gradient.iter().map(|g| factor * g).collect::<Vec<_>>();
            numbers(
                format!("At scale {scale}, the gradients of the row {name} the prompt"),
                &got[row],
                &measured,
                &[
                    (
                        times(scale - 1.0),
                        "The sign: more of the velocity without the prompt makes the guided one smaller.",
                    ),
                    (
                        times(scale),
                        "The velocity without the prompt occurs twice: alone, and with −g.",
                    ),
                    (times(-scale), "The velocity without the prompt also stands alone: 1 − g."),
                    (times(1.0), "The guided velocity is g times the one with the prompt."),
                    (
                        times(0.0),
                        "Without the prompt's own share the gradient is that of another loss: `guidance_gradient = \"conditional\"`.",
                    ),
                ],
            )?;
        }
    }
    Ok(())
}

/// 14.5 against all segments.
pub fn best_segment(answer: fn(usize, f64, f64) -> usize) -> Verdict {
    let mut noise = Noise::new(145);
    let mut cases = vec![(24, 1.9, 249.0), (24, 1.0, 1.0), (100, 1.0, 4.0), (24, 100.0, 1.0)];
    for _ in 0..40 {
        cases.push((
            7 + (noise.between(0.0, 90.0) as usize),
            noise.between(1.0, 9.0),
            noise.between(0.3, 9.0),
        ));
    }
    for (blocks, input, inside) in cases {
        let memory = |k: usize| blocks.div_ceil(k) as f64 * input + k as f64 * inside;
        let got = answer(blocks, input, inside);
        let best = (1..=blocks).min_by(|a, b| memory(*a).total_cmp(&memory(*b))).unwrap_or(1);
        let near = |wrong: f64| (got as f64 - wrong.clamp(1.0, blocks as f64)).abs() < 1.0;
        let root = (blocks as f64 * input / inside).sqrt();
        let hint = if near((blocks as f64).sqrt()) && !near(root) {
            "√blocks is right if a block holds as much as its input. Here the two differ."
        } else if near((blocks as f64 * inside / input).sqrt()) && !near(root) {
            "Upside down: large blocks call for short segments."
        } else if near(root) {
            "√(blocks·input/inside) is near, but the number of segments is whole: the last one may be short. Try its neighbours."
        } else {
            "There are blocks/k inputs, rounded up, and k blocks with their insides. Where is the sum least?"
        };
        require(
            (1..=blocks).contains(&got) && memory(got) <= memory(best) * (1.0 + 1e-9),
            format!(
                "For {blocks} blocks with inputs of {input:.1} and insides of {inside:.1}, k = {got} needs {:.1} where k = {best} needs {:.1}.",
                if got == 0 { f64::INFINITY } else { memory(got) },
                memory(best)
            ),
            hint,
        )?;
    }
    Ok(())
}
