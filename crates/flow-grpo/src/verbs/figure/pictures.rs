//! The figures that are images: what models draw before and after a run.

use std::{io::Cursor, path::Path};

use anyhow::{Context, Result, ensure};
use clap::{Args, FromArgMatches};
use files::write_atomically;
use image::{
    ImageFormat, Rgb, RgbImage,
    imageops::{self, FilterType},
};

use super::verdict;
use crate::{terminal::output::print, verbs::sample};

/// A figure with images.
pub struct Picture {
    /// The name of its file, without `.png`.
    pub name: &'static str,
    of: Of,
}

/// Where the images come from.
enum Of {
    /// A file of a run's samples.
    Samples(&'static Run, &'static str),
    /// Files of a run's samples, side by side.
    Film(&'static Run, &'static [&'static str]),
    /// Small images side by side, which need no run.
    Computed(fn() -> Vec<RgbImage>),
    /// A model draws a group of images for each prompt.
    Drawn(Model, &'static Prompts),
}

/// What draws.
enum Model {
    /// A built-in checkpoint.
    Base(&'static str),
    /// A checkpoint of a run: `policy` or `best`.
    Trained(&'static Run, &'static str),
}

/// A run, in a directory of this name.
struct Run {
    name: &'static str,
    /// The options of `cargo xtask train` that make it.
    options: &'static [&'static str],
}

const TOY: Run = Run { name: "toy-2d", options: &["--preset toy-2d"] };
const FILM: Run = Run { name: "toy-film", options: &["--preset toy-2d", "--set evaluate_every=5"] };
const SHAPES: Run = Run { name: "shapes", options: &["--preset shapes"] };
const TEXT: Run = Run { name: "text", options: &["--preset text"] };
const EMOJI: Run = Run { name: "emoji", options: &["--preset emoji"] };
const EMOJI_FREE: Run = Run {
    name: "emoji-free",
    options: &[
        "--preset emoji",
        "--set grpo.objective.kl_weight=0",
        "--set grpo.objective.kl_ode_steps=0",
    ],
};
const EMOJI_HELD: Run =
    Run { name: "emoji-held", options: &["--preset emoji", "--set grpo.objective.kl_weight=0.02"] };
/// The options of a run that learns what the proxy likes.
const OF_PROXY: &str = "--preset shapes --set rewards={shapes_proxy=1.0} --set gold={shapes_strict=1.0} \
    --set 'best_by=\"gold.shapes_strict\"' --set grpo.objective.kl_ode_steps=0 --set evaluate_every=20 --set epochs=100 --set grpo.cool_down=0";
const HACKED: Run =
    Run { name: "hacked", options: &[OF_PROXY, "--set grpo.objective.kl_weight=0"] };
const HELD: Run = Run { name: "held", options: &[OF_PROXY, "--set grpo.objective.kl_weight=0.4"] };

/// What is drawn.
struct Prompts {
    texts: &'static [&'static str],
    /// Images for each prompt.
    count: u32,
    /// Seed of the noise, the same before and after training.
    seed: u64,
}

const SIGNS: Prompts = Prompts {
    texts: &[
        "a red sign that says \"BUS\"",
        "a blue sign that says \"SUN\"",
        "a green sign that says \"PIG\"",
    ],
    count: 8,
    seed: 7,
};
const EMOJIS: Prompts =
    Prompts { texts: &["grapes", "dress", "water buffalo", "angry face"], count: 8, seed: 11 };
/// Two of them, for pictures beside each other.
const TWO_EMOJIS: Prompts = Prompts { texts: &["dress", "angry face"], count: 4, seed: 11 };
const SCENES: Prompts = Prompts {
    texts: &[
        "a photo of a magenta circle and a cyan cross",
        "a photo of a red square and a blue circle",
        "a photo of a yellow circle",
        "a photo of three red squares",
        "a photo of two green triangles",
        "a photo of a triangle above a cross",
        "a photo of a square",
        "a photo of a circle and a cross",
    ],
    count: 4,
    seed: 1,
};

/// All of them.
pub const PICTURES: [Picture; 15] = [
    samples("toy-before", &TOY, "validation-000000"),
    samples("toy-after", &TOY, "validation-000030"),
    Picture {
        name: "toy-film",
        of: Of::Film(
            &FILM,
            &["validation-000005", "validation-000010", "validation-000015", "validation-000020"],
        ),
    },
    samples("shapes-before", &SHAPES, "validation-000000"),
    samples("shapes-after", &SHAPES, "validation-000150"),
    Picture { name: "verdict", of: Of::Computed(verdict::frames) },
    samples("groups", &TEXT, "training-000020"),
    drawn("text-before", Model::Base("text-base"), &SIGNS),
    drawn("text-after", Model::Trained(&TEXT, "policy"), &SIGNS),
    drawn("emoji-before", Model::Base("emoji-base"), &EMOJIS),
    drawn("emoji-after", Model::Trained(&EMOJI, "best"), &EMOJIS),
    drawn("emoji-free", Model::Trained(&EMOJI_FREE, "policy"), &TWO_EMOJIS),
    drawn("emoji-held", Model::Trained(&EMOJI_HELD, "policy"), &TWO_EMOJIS),
    drawn("hacked", Model::Trained(&HACKED, "policy"), &SCENES),
    drawn("held", Model::Trained(&HELD, "policy"), &SCENES),
];

const fn samples(name: &'static str, run: &'static Run, file: &'static str) -> Picture {
    Picture { name, of: Of::Samples(run, file) }
}

const fn drawn(name: &'static str, model: Model, prompts: &'static Prompts) -> Picture {
    Picture { name, of: Of::Drawn(model, prompts) }
}

impl Picture {
    /// Makes the picture in a directory, from runs in another.
    ///
    /// # Errors
    /// If its run is not there; the error says how to make it.
    pub fn draw(&self, output: &Path, runs: &Path) -> Result<()> {
        let path = output.join(format!("{}.png", self.name));
        match &self.of {
            Of::Samples(run, file) => {
                let from = run.file(runs, &format!("samples/{file}.png"))?;
                let image = std::fs::read(&from).with_context(|| format!("cannot read {from}"))?;
                write_atomically(&path, &image)?;
                print(format!("{}\n", path.display()))
            }
            Of::Film(run, files) => {
                let frame = |file: &&str| {
                    let file = run.file(runs, &format!("samples/{file}.png"))?;
                    let frame =
                        image::open(&file).with_context(|| format!("cannot read {file}"))?;
                    Ok(frame.to_rgb8())
                };
                let frames = files.iter().map(frame).collect::<Result<Vec<_>>>()?;
                film(&frames, FilterType::CatmullRom, &path)
            }
            Of::Computed(frames) => film(&frames(), FilterType::Nearest, &path),
            Of::Drawn(model, Prompts { texts, count, seed }) => {
                let checkpoint = match model {
                    Model::Base(name) => (*name).to_owned(),
                    Model::Trained(run, which) => {
                        run.file(runs, &format!("{which}.safetensors"))?
                    }
                };
                let [count, seed] = [count.to_string(), seed.to_string()];
                let path = path.to_string_lossy();
                let mut options = vec!["sample", "--checkpoint", &checkpoint, "--output", &path];
                options.extend(["--count", &count, "--seed", &seed]);
                options.extend(texts.iter().flat_map(|text| ["--prompt", text]));
                let command = sample::SampleArgs::augment_args(clap::Command::new("sample"));
                let found = command.try_get_matches_from(options)?;
                sample::run(&sample::SampleArgs::from_arg_matches(&found)?)
            }
        }
    }
}

/// Side of a frame of a film, in pixels, and the space between two.
const FRAME: u32 = 264;
const GAP: u32 = 8;

/// Writes square images side by side.
fn film(frames: &[RgbImage], filter: FilterType, path: &Path) -> Result<()> {
    let width = frames.len() as u32 * (FRAME + GAP) - GAP;
    let mut strip = RgbImage::from_pixel(width, FRAME, Rgb([255; 3]));
    for (left, frame) in (0..).step_by((FRAME + GAP) as usize).zip(frames) {
        let frame = imageops::resize(frame, FRAME, FRAME, filter);
        imageops::overlay(&mut strip, &frame, left, 0);
    }
    let mut png = Cursor::new(Vec::new());
    strip.write_to(&mut png, ImageFormat::Png)?;
    write_atomically(path, png.get_ref())?;
    print(format!("{}\n", path.display()))
}

impl Run {
    /// The path of one of its files.
    fn file(&self, runs: &Path, file: &str) -> Result<String> {
        let directory = runs.join(self.name);
        let path = directory.join(file);
        ensure!(
            path.is_file(),
            "{} is missing: cargo xtask train {} --out {}",
            path.display(),
            self.options.join(" "),
            directory.display()
        );
        Ok(path.to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_of_the_book_is_made_by_a_command() {
        let figures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../book/src/figures");
        for entry in std::fs::read_dir(figures).expect("the figures of the book") {
            let path = entry.expect("readable").path();
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            if path.extension().is_some_and(|kind| kind == "png") {
                assert!(PICTURES.iter().any(|picture| picture.name == name), "{name}");
            }
        }
    }

    #[test]
    fn a_missing_run_is_named_with_its_command() {
        let empty = tempfile::tempdir().expect("a directory");
        let picture = PICTURES.iter().find(|picture| picture.name == "held").expect("there");
        let error = picture.draw(empty.path(), empty.path()).expect_err("no run").to_string();
        assert!(error.contains("held/policy.safetensors is missing: cargo xtask train --preset"));
        assert!(error.contains("kl_weight=0.4 --out"), "{error}");
    }
}
