//! From the body of a request to the body of its answer; no network, no threads.

use std::collections::BTreeMap;

use image::RgbImage;
use serde_json::Value;

use super::{Options, Scorer, ScorerError, routes::Refusal};
use crate::{
    Sample, codec,
    json::{Item, ScoreAnswer, ScoreRequest},
};

/// Scores a request.
pub(super) fn answer(
    scorer: &dyn Scorer,
    options: &Options,
    body: &[u8],
) -> Result<ScoreAnswer, Refusal> {
    let ScoreRequest { requests } = serde_json::from_slice(body)
        .map_err(|error| Refusal::of_request(format!("the request is malformed: {error}")))?;
    if requests.len() > options.images {
        return Err(Refusal::of_request(format!(
            "{} images in a request, at most {} are allowed",
            requests.len(),
            options.images
        )));
    }
    let names = scorer.names();
    let images = images(&requests, &names, options)?;
    let samples: Vec<Sample> = requests
        .iter()
        .zip(&images)
        .map(|(item, image)| Sample {
            image,
            prompt: &item.history[0].text,
            metadata: &item.metadata,
        })
        .collect();
    match scorer.score(&samples) {
        Ok(scores) => report(&requests, &names, &scores),
        Err(ScorerError { sample: Some(index), reason }) if index < requests.len() => {
            Ok(failure(&requests, &names, index, &reason))
        }
        Err(ScorerError { reason, .. }) => Err(Refusal::of_server(reason)),
    }
}

/// The images of all items.
fn images(
    requests: &[Item],
    names: &[String],
    options: &Options,
) -> Result<Vec<RgbImage>, Refusal> {
    let mut images = Vec::with_capacity(requests.len());
    let mut pixels = 0;
    for (index, item) in requests.iter().enumerate() {
        let image = image(index, item, names, options.side)?;
        pixels += u64::from(image.width()) * u64::from(image.height());
        if pixels > options.pixels {
            return Err(Refusal::of_request(format!(
                "the images have more than {} pixels together; send fewer",
                options.pixels
            )));
        }
        images.push(image);
    }
    Ok(images)
}

/// The image of one item, whose other parts are checked along.
fn image(index: usize, item: &Item, names: &[String], side: u32) -> Result<RgbImage, Refusal> {
    let refused = |reason: String| Refusal::of_request(format!("requests[{index}]: {reason}"));
    let [turn] = &item.history[..] else {
        return Err(refused(format!("history has {} turns, not one", item.history.len())));
    };
    if let Some(name) = item.required_rewards.iter().find(|name| !names.contains(*name)) {
        return Err(refused(format!("no reward {name:?}; there are: {}", names.join(", "))));
    }
    let Some(text) = &turn.image_b64 else { return Err(refused("no image_b64".to_owned())) };
    codec::from_base64(text, side).map_err(|reason| refused(format!("image_b64: {reason}")))
}

/// The rewards that an item asks for: those it names, or all.
fn asked<'a>(item: &'a Item, names: &'a [String]) -> &'a [String] {
    if item.required_rewards.is_empty() { names } else { &item.required_rewards }
}

/// The scores that were asked for; a score that is not finite becomes an error of its image.
fn report(
    requests: &[Item],
    names: &[String],
    scores: &BTreeMap<String, Vec<f32>>,
) -> Result<ScoreAnswer, Refusal> {
    let mut answer = ScoreAnswer::default();
    let mut errors = Vec::with_capacity(requests.len());
    for (index, item) in requests.iter().enumerate() {
        let (mut found, mut failed) = (BTreeMap::new(), BTreeMap::new());
        for name in asked(item, names) {
            let list = scores.get(name).filter(|list| list.len() == requests.len());
            let Some(list) = list else {
                return Err(Refusal::of_server(format!(
                    "the reward {name:?} gave {} scores for {} images",
                    scores.get(name).map_or(0, Vec::len),
                    requests.len()
                )));
            };
            let score = list[index];
            if score.is_finite() {
                found.insert(name.clone(), [(name.clone(), Value::from(score))].into());
            } else {
                failed.insert(name.clone(), format!("the score is {score}"));
            }
        }
        answer.results.push(found);
        errors.push(failed);
    }
    answer.errors = Some(errors);
    Ok(answer)
}

/// No scores, and the reason at the image that failed.
fn failure(requests: &[Item], names: &[String], index: usize, reason: &str) -> ScoreAnswer {
    let mut errors = vec![BTreeMap::new(); requests.len()];
    errors[index] = asked(&requests[index], names)
        .iter()
        .map(|name| (name.clone(), reason.to_owned()))
        .collect();
    ScoreAnswer { results: vec![BTreeMap::new(); requests.len()], errors: Some(errors) }
}
