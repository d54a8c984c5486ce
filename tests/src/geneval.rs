//! GenEval's scorer compared with the published scripts, on the scenes of `golden/geneval`.

use std::path::Path;

use serde::Deserialize;
use tasks::geneval::{self, Class, Color, Detection, Metadata, Scores};

#[derive(Deserialize)]
struct Golden {
    classes: Vec<Class>,
    colors: Vec<Color>,
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    metadata: Metadata,
    scenes: Vec<Scene>,
}

/// Detections, and `(official, strict, reward, reward_reference)`.
type Scene = (Vec<Row>, (u8, u8, f64, f64));

/// Class, `x0`, `y0`, `x1`, `y1`, score, colour (−1 for none).
type Row = (usize, f32, f32, f32, f32, f32, i8);

impl Golden {
    fn detection(&self, &(class, x0, y0, x1, y1, score, color): &Row) -> Detection {
        let color = usize::try_from(color).ok().map(|color| self.colors[color]);
        Detection {
            class: self.classes[class],
            corners: [x0, y0, x1, y1],
            score,
            color,
            mask: None,
        }
    }
}

#[test]
fn a_thousand_scenes_have_the_verdicts_of_the_published_scripts() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/geneval/scenes.json");
    let text = std::fs::read_to_string(path).expect("the golden is committed");
    let golden: Golden = serde_json::from_str(&text).expect("JSON");
    assert_eq!(golden.classes, Class::all().collect::<Vec<_>>());
    assert_eq!(golden.colors, Color::ALL);
    let mut scenes = 0;
    for Prompt { metadata, scenes: of_prompt } in &golden.prompts {
        for (rows, (official, strict, reward, reward_reference)) in of_prompt {
            let detections: Vec<Detection> = rows.iter().map(|row| golden.detection(row)).collect();
            let found = geneval::score(metadata, &detections).expect("scores");
            let (official, strict) = (*official == 1, *strict == 1);
            assert_eq!((found.official, found.strict), (official, strict), "{metadata:?} {rows:?}");
            let Scores { reward: ours, reward_reference: reference, .. } = found;
            assert!((ours - reward).abs() < 1e-12, "{ours} {reward}: {metadata:?} {rows:?}");
            assert!((reference - reward_reference).abs() < 1e-12, "{metadata:?} {rows:?}");
            scenes += 1;
        }
    }
    assert_eq!(scenes, 1000);
}
