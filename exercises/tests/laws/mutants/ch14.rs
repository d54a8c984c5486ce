//! Chapter 14.

use exercises::{attention::Stream, laws::ch14, solutions};

use super::{Mutant, mutant};

pub fn all() -> Vec<Mutant> {
    [tokens(), grids(), attention(), guidance(), segments()].into_iter().flatten().collect()
}

/// Reads the number that `at` finds for channel, row and column.
fn latent(
    [channels, height, width]: [usize; 3],
    at: impl Fn(usize, usize, usize) -> f64,
) -> Vec<Vec<Vec<f64>>> {
    let line = |c, row| (0..width).map(|column| at(c, row, column)).collect();
    (0..channels).map(|c| (0..height).map(|row| line(c, row)).collect()).collect()
}

fn tokens() -> Vec<Mutant> {
    vec![
        mutant(
            "14.1",
            "channels first",
            "all channels of a place first",
            ch14::latent_of_tokens(|tokens, sizes, p| {
                latent(sizes, |c, row, column| {
                    let token = row / p * (sizes[2] / p) + column / p;
                    tokens[token][c * p * p + row % p * p + column % p]
                })
            }),
        ),
        mutant(
            "14.1",
            "places turned",
            "inside a patch are exchanged",
            ch14::latent_of_tokens(|tokens, sizes, p| {
                latent(sizes, |c, row, column| {
                    let token = row / p * (sizes[2] / p) + column / p;
                    tokens[token][(column % p * p + row % p) * sizes[0] + c]
                })
            }),
        ),
        mutant(
            "14.1",
            "patches turned",
            "the patch to the right",
            ch14::latent_of_tokens(|tokens, sizes, p| {
                latent(sizes, |c, row, column| {
                    let token = column / p * (sizes[1] / p) + row / p;
                    tokens[token][(row % p * p + column % p) * sizes[0] + c]
                })
            }),
        ),
        mutant("14.1", "nothing", "not one of", ch14::latent_of_tokens(|_, _, _| Vec::new())),
    ]
}

fn shifted(t: f64, k: f64) -> f64 {
    k * t / (1.0 + (k - 1.0) * t)
}

fn even(steps: usize, least: f64) -> impl Iterator<Item = f64> {
    (0..steps).map(move |i| 1.0 - (1.0 - least) * i as f64 / (steps - 1) as f64)
}

fn grids() -> Vec<Mutant> {
    vec![
        mutant(
            "14.2",
            "once",
            "applied once",
            ch14::shifted_twice(|n, k| {
                even(n, 0.001).map(|t| shifted(t, k)).chain([0.0]).collect()
            }),
        ),
        mutant(
            "14.2",
            "a shift of χ²",
            "a shift of χ²",
            ch14::shifted_twice(|n, k| {
                even(n, 0.001).map(|t| shifted(t, k * k)).chain([0.0]).collect()
            }),
        ),
        mutant(
            "14.2",
            "a linear grid",
            "not 1/steps",
            ch14::shifted_twice(|n, k| {
                (0..=n).map(|i| shifted(1.0 - i as f64 / n as f64, k)).collect()
            }),
        ),
        mutant(
            "14.2",
            "no end",
            "0, is missing",
            ch14::shifted_twice(|n, k| even(n, shifted(0.001, k)).map(|t| shifted(t, k)).collect()),
        ),
    ]
}

/// A stream with other keys and values.
fn reading(own: &Stream, other: &Stream) -> Stream {
    Stream { queries: own.queries.clone(), keys: other.keys.clone(), values: other.values.clone() }
}

fn nothing() -> Stream {
    Stream { queries: Vec::new(), keys: Vec::new(), values: Vec::new() }
}

/// What the queries of a stream get from another one alone.
fn from(own: &Stream, other: &Stream) -> Vec<Vec<f64>> {
    let [got, _] = solutions::ch14::joint_attention(&reading(own, other), &nothing());
    got
}

fn scaled(stream: &Stream, by: f64) -> Stream {
    let queries = stream.queries.iter().map(|row| row.iter().map(|x| by * x).collect()).collect();
    Stream { queries, ..stream.clone() }
}

fn attention() -> Vec<Mutant> {
    vec![
        mutant(
            "14.3",
            "each alone",
            "reads itself alone",
            ch14::joint_attention(|image, text| [from(image, image), from(text, text)]),
        ),
        mutant(
            "14.3",
            "across",
            "reads the other alone",
            ch14::joint_attention(|image, text| [from(image, text), from(text, image)]),
        ),
        mutant(
            "14.3",
            "two softmaxes",
            "averaged",
            ch14::joint_attention(|image, text| {
                [[image, text], [text, image]].map(|[own, other]| {
                    let rows = from(own, own).into_iter().zip(from(own, other));
                    rows.map(|(a, b)| a.iter().zip(&b).map(|(a, b)| 0.5 * (a + b)).collect())
                        .collect()
                })
            }),
        ),
        mutant(
            "14.3",
            "no root",
            "not divided by the root",
            ch14::joint_attention(|image, text| {
                solutions::ch14::joint_attention(&scaled(image, 2.0), &scaled(text, 2.0))
            }),
        ),
        mutant(
            "14.3",
            "overflow",
            "Subtract the largest",
            ch14::joint_attention(|image, text| {
                let largest = |stream: &Stream| {
                    stream.queries.iter().flatten().fold(0.0_f64, |most, x| most.max(x.abs()))
                };
                let got = solutions::ch14::joint_attention(image, text);
                if largest(image) > 50.0 {
                    return got
                        .map(|rows| rows.iter().map(|row| vec![f64::NAN; row.len()]).collect());
                }
                got
            }),
        ),
    ]
}

/// These shares of a gradient.
fn of(gradient: &[f64], shares: [f64; 2]) -> [Vec<f64>; 2] {
    shares.map(|share| gradient.iter().map(|g| share * g).collect())
}

fn guidance() -> Vec<Mutant> {
    vec![
        mutant("14.4", "the sign", "The sign", ch14::gradients_of_rows(|d, g| of(d, [g, g - 1.0]))),
        mutant("14.4", "both", "occurs twice", ch14::gradients_of_rows(|d, g| of(d, [g, g]))),
        mutant("14.4", "minus g", "stands alone", ch14::gradients_of_rows(|d, g| of(d, [g, -g]))),
        mutant(
            "14.4",
            "no scale",
            "is g times",
            ch14::gradients_of_rows(|d, g| of(d, [1.0, 1.0 - g])),
        ),
        mutant("14.4", "one row", "conditional", ch14::gradients_of_rows(|d, g| of(d, [g, 0.0]))),
    ]
}

fn segments() -> Vec<Mutant> {
    vec![
        mutant(
            "14.5",
            "√n",
            "as much as its input",
            ch14::best_segment(|n, _, _| (n as f64).sqrt().round() as usize),
        ),
        mutant(
            "14.5",
            "upside down",
            "short segments",
            ch14::best_segment(|n, a, b| ((n as f64 * b / a).sqrt().round() as usize).clamp(1, n)),
        ),
        mutant(
            "14.5",
            "the root alone",
            "Try its neighbours",
            ch14::best_segment(|n, a, b| ((n as f64 * a / b).sqrt().round() as usize).clamp(1, n)),
        ),
        mutant("14.5", "one block", "Where is the sum least", ch14::best_segment(|_, _, _| 1)),
    ]
}
