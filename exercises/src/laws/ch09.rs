//! The laws of chapter 9, shapes and judges.

use crate::{
    Noise, Verdict,
    picture::{Picture, disc, evenness, picture, smoothness},
    require,
};

/// A picture with speckle of a strength.
fn speckled(of: &Picture, strength: f64, seed: u64) -> Picture {
    let mut noise = Noise::new(seed);
    let specks: Vec<f64> = noise.normals(256).iter().map(|e| strength * e).collect();
    picture(|row, column| of[row][column] + specks[16 * row + column])
}

/// 9.1: clean pictures pass, speckle does not, and more speckle gets less.
pub fn cleanliness(answer: fn(&Picture) -> f64) -> Verdict {
    for brightness in [0.0, 0.3, 0.5, 0.8, 1.0] {
        let got = answer(&picture(|_, _| brightness));
        let finding = format!(
            "A flat picture of brightness {brightness} gets {got:.2}; at least 0.80 is right."
        );
        require(
            (0.8..=1.0).contains(&got),
            finding,
            "Any flat background is clean, whatever its brightness; a reward lies in [0, 1].",
        )?;
    }
    for background in [0.1, 0.3, 0.5] {
        let got = answer(&disc(background));
        require(
            (0.8..=1.0).contains(&got),
            format!(
                "A disc on a flat ground of {background} gets {got:.2}; at least 0.80 is right."
            ),
            "The disc is not dirt. Compare pixels with their neighbours, not with the whole picture, and let the few at the edge not decide.",
        )?;
    }
    for seed in 0..10 {
        for clean in [picture(|_, _| 0.5), disc(0.3)] {
            let by_strength: Vec<f64> = [0.0, 0.02, 0.05, 0.1, 0.15]
                .map(|s| answer(&speckled(&clean, s, 90 + seed)))
                .to_vec();
            let finding = format!(
                "With speckle of 0, 0.02, 0.05, 0.1 and 0.15 a picture gets {by_strength:.2?}."
            );
            require(
                by_strength[3] <= 0.3,
                &*finding,
                "Speckle of 0.1 is visible and may get at most 0.30.",
            )?;
            require(
                by_strength.windows(2).all(|pair| pair[1] <= pair[0] + 0.02),
                finding,
                "More speckle must not get more.",
            )?;
        }
    }
    Ok(())
}

/// 9.2: full reward and no gold.
pub fn cheating_picture(answer: fn() -> Picture) -> Verdict {
    let cheat = answer();
    let inside = cheat.iter().flatten().all(|p| (0.0..=1.0).contains(p));
    require(
        inside,
        "A brightness lies outside of [0, 1].",
        "A reward sees images, so the cheat must be one.",
    )?;
    let (proxy, gold) = (smoothness(&cheat), evenness(&cheat));
    let finding = format!(
        "The picture has the smoothness {proxy:.3} (0.950 is asked for) and the evenness {gold:.3} (below 0.200)."
    );
    require(
        proxy >= 0.95,
        &*finding,
        "The reward sees this. It compares a pixel with its four neighbours: what is uneven and has no difference there?",
    )?;
    require(gold < 0.2, finding, "This is too honest: most of the picture has one brightness.")
}
