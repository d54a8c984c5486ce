//! Rewards of judges behind HTTP.

use anyhow::{Context, Result};
use image::RgbImage;
use judges::{Client, JudgeError, Protocol, Sample, Service, Settings};
use tasks::{
    geneval::Channels,
    image::Image,
    prompts::Prompt,
    reward::{Reward, Unjudged},
};
use toml::{Table, Value};

use super::parsed;

/// A judge behind HTTP.
pub struct Judge {
    client: Client,
    /// The order of the colours of the images that it gets.
    channels: Channels,
}

/// The address of GenEval's server in the reference code.
const GENEVAL_URL: &str = "http://127.0.0.1:18085";

impl Judge {
    /// Opens a judge of any protocol, and asks it whether it is there.
    ///
    /// # Errors
    /// If the settings are wrong, or the judge does not answer.
    pub fn open(settings: Table) -> Result<Self> {
        Self::of(parsed(settings)?, Channels::Official)
    }

    /// Opens GenEval's reward on the reference code's server; every setting of a judge may be
    /// given, `service`, and `channels`: the public servers exchange red and blue for their
    /// detector, so a server that does not gives their rewards for `red_blue_swapped` images, as
    /// far as colours do not decide.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn geneval(mut settings: Table) -> Result<Self> {
        let service: Service = match settings.remove("service") {
            Some(service) => service.try_into().context("service")?,
            None => Service::Geneval,
        };
        let channels: Channels = match settings.remove("channels") {
            Some(channels) => channels.try_into().context("channels")?,
            None => Channels::Official,
        };
        settings.entry("url").or_insert_with(|| Value::String(GENEVAL_URL.to_owned()));
        let protocol = Value::try_from(Protocol::FlowGrpo { service })?;
        settings.entry("protocol").or_insert(protocol);
        Self::of(parsed(settings)?, channels)
    }

    fn of(settings: Settings, channels: Channels) -> Result<Self> {
        let client = Client::new(settings)?;
        client.check()?;
        Ok(Self { client, channels })
    }
}

impl Reward for Judge {
    fn check(&self, prompt: &Prompt) -> Result<(), String> {
        self.client.accepts(&prompt.metadata)
    }

    fn is_slow(&self) -> bool {
        true
    }

    fn score(&self, images: &[Image], prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
        let rgb = |(index, image)| rgb(index, &self.channels.for_detector(image));
        let images = images.iter().enumerate().map(rgb);
        let images: Vec<RgbImage> = images.collect::<Result<_, _>>()?;
        let samples: Vec<Sample> = images
            .iter()
            .zip(prompts)
            .map(|(image, prompt)| Sample {
                image,
                prompt: &prompt.text,
                metadata: &prompt.metadata,
            })
            .collect();
        let failed = |error: JudgeError| {
            let one = (error.images.len() == 1).then_some(error.images.start);
            Unjudged { image: one, reason: error.to_string() }
        };
        self.client.score(&samples).map_err(failed)
    }
}

/// The image as 8-bit RGB.
fn rgb(index: usize, image: &Image) -> Result<RgbImage, Unjudged> {
    if image.channels != 3 {
        let reason = format!("a judge needs RGB images, this one has {} channels", image.channels);
        return Err(Unjudged::image(index, reason));
    }
    let (width, height) = (image.width as u32, image.height as u32);
    Ok(RgbImage::from_raw(width, height, image.rgb8()).expect("three bytes per pixel"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_judges_are_checked_before_anything_is_sent() {
        let open = |text: &str| Judge::open(text.parse().expect("TOML")).err().expect("refused");
        assert!(
            format!("{:#}", open("protocol = { kind = \"json\", reward = \"a\" }")).contains("url")
        );
        let away = "url = \"http://127.0.0.1:9\"\nprotocol = { kind = \"json\", reward = \"a\" }";
        assert!(format!("{:#}", open(away)).contains("http://127.0.0.1:9 is not ready"));
        let geneval = Judge::geneval("url = \"http://127.0.0.1:9\"".parse().expect("TOML"));
        assert!(format!("{:#}", geneval.err().expect("nobody there")).contains("not ready"));
    }
}
