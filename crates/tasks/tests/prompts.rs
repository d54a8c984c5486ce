//! The prompts of the shapes task, and prompt files.

use std::collections::HashSet;

use tasks::{
    prompts::{Prompt, PromptSet},
    shapes::{self, Metadata, Split, Tag, UNSEEN},
};

const HELD_OUT: [Split; 3] = [Split::Validation, Split::Test, Split::Unseen];

fn metadata(split: Split) -> Vec<Metadata> {
    shapes::prompts(split)
        .prompts
        .into_iter()
        .map(|prompt| Metadata::of(&prompt).expect("metadata"))
        .collect()
}

fn texts(split: Split) -> HashSet<String> {
    shapes::prompts(split).prompts.into_iter().map(|prompt| prompt.text).collect()
}

/// The scenes of a split, without the kinds that have too few scenes to hold any out.
fn scenes(split: Split) -> HashSet<String> {
    let spared = |metadata: &Metadata| !matches!(metadata.tag, Tag::SingleObject | Tag::TwoObject);
    metadata(split).iter().filter(|metadata| spared(metadata)).map(Metadata::scene).collect()
}

#[test]
fn no_scene_of_one_split_is_asked_for_by_another() {
    let splits = [Split::Train, Split::Validation, Split::Test, Split::Unseen].map(scenes);
    for (index, one) in splits.iter().enumerate() {
        for other in &splits[..index] {
            assert!(one.is_disjoint(other), "{:?}", one.intersection(other).collect::<Vec<_>>());
        }
    }
    let sizes = splits.map(|scenes| scenes.len());
    println!("scenes: {sizes:?}");
    assert!(sizes[0] > 3 * sizes[1] && sizes[1] == sizes[2] && sizes[1] > 40, "{sizes:?}");
}

#[test]
fn a_kind_is_held_out_or_said_to_be_trained_on() {
    for split in HELD_OUT {
        for metadata in metadata(split) {
            let too_few = matches!(metadata.tag, Tag::SingleObject | Tag::TwoObject);
            assert_eq!(metadata.is_trained_on(), too_few, "{}", metadata.prompt);
        }
    }
    for split in [Split::Train, Split::Validation, Split::Test] {
        let tags: HashSet<Tag> = metadata(split).iter().map(|metadata| metadata.tag).collect();
        assert_eq!(tags.len(), Tag::ALL.len(), "{split:?}");
    }
}

#[test]
fn a_scene_does_not_depend_on_words_and_order() {
    let all: Vec<Metadata> =
        [Split::Train, Split::Validation, Split::Test].into_iter().flat_map(metadata).collect();
    let scene = |text: &str| {
        let prompt = all.iter().find(|metadata| metadata.prompt == format!("a photo of {text}"));
        prompt.unwrap_or_else(|| panic!("no prompt asks for {text}")).scene()
    };
    for [one, other] in [
        ["a circle", "a single circle"],
        ["a circle and a cross", "a cross and a circle"],
        ["a cross above a square", "a square below a cross"],
        ["a circle left of a square", "a square right of a circle"],
        ["a red circle and a blue square", "a blue square and a red circle"],
    ] {
        assert_eq!(scene(one), scene(other), "{one}");
    }
    for [one, other] in [
        ["a cross above a square", "a square above a cross"],
        ["a circle left of a square", "a circle above a square"],
        ["a red circle and a blue square", "a blue circle and a red square"],
        ["two circles", "three circles"],
        ["two circles", "two red circles"],
    ] {
        assert_ne!(scene(one), scene(other), "{one}");
    }
}

#[test]
fn neither_training_nor_a_caption_mentions_an_unseen_pair() {
    let mentions = |metadata: &Metadata| {
        metadata.include.iter().any(|entry| {
            UNSEEN.iter().any(|(shape, color)| entry.class == *shape && entry.color == Some(*color))
        })
    };
    let captions = [shapes::captions(), shapes::detailed()].into_iter().flat_map(|set| set.prompts);
    let captions = captions.filter_map(|prompt| Metadata::of(&prompt));
    assert!(
        metadata(Split::Train).into_iter().chain(captions).all(|metadata| !mentions(&metadata))
    );
    assert!(metadata(Split::Unseen).iter().all(mentions));
}

#[test]
fn the_vocabulary_is_every_word_and_no_other() {
    let words: HashSet<String> = shapes::vocabulary().into_iter().collect();
    let all =
        [Split::Train, Split::Validation, Split::Test, Split::Unseen].into_iter().flat_map(texts);
    let used: HashSet<String> =
        all.flat_map(|text| text.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
    assert_eq!(words, used);
}

#[test]
fn a_line_of_geneval_is_read_and_written_as_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("prompts.jsonl");
    let lines = concat!(
        r#"{"tag":"counting","include":[{"class":"circle","count":3,"color":"red"}],"exclude":[{"class":"circle","count":4}],"prompt":"a photo of three red circles"}"#,
        "\n",
        r#"{"tag":"position","include":[{"class":"square","count":1},{"class":"circle","count":1,"position":["left of",0]}],"prompt":"a photo of a circle left of a square"}"#,
        "\n",
    );
    std::fs::write(&path, lines).expect("written");
    let set = PromptSet::read(&path).expect("two prompts");
    assert_eq!(set.prompts[1].tag, "position");
    let values = |text: &str| {
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect::<Vec<serde_json::Value>>()
    };
    assert_eq!(values(&set.to_jsonl()), values(lines));
    let scene = Metadata::of(&set.prompts[0]).expect("a scene");
    assert_eq!(serde_json::to_string(&scene).expect("JSON"), lines.lines().next().expect("a line"));
    // Metadata is free: other keys are there for a reward, and make no scene of this task.
    std::fs::write(&path, r#"{"prompt":"a dog","answer":42}"#).expect("written");
    let set = PromptSet::read(&path).expect("a prompt");
    assert_eq!(
        (&set.prompts[0].metadata["answer"], set.prompts[0].tag.as_str()),
        (&42.into(), "prompt")
    );
    assert_eq!(Metadata::of(&set.prompts[0]), None);
}

#[test]
fn every_bad_line_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("prompts.jsonl");
    let good = r#"{"tag":"colors","include":[{"class":"circle","count":1,"color":"red"}],"prompt":"a red circle"}"#;
    std::fs::write(
        &path,
        format!(
            "{good}\n{}\n\n{}\n",
            good.replace("circle", "dog"),
            good.replace("count", "number")
        ),
    )
    .expect("written");
    let of_the_task = |prompt: &Prompt| Metadata::required(prompt).map(drop);
    let text = PromptSet::read_checked(&path, of_the_task).expect_err("two bad lines").to_string();
    assert!(
        text.contains("line 2")
            && text.contains("`dog`")
            && text.contains("line 4")
            && text.contains("`number`"),
        "{text}"
    );
    assert!(!text.contains("line 1:") && !text.contains("line 3"), "{text}");
    std::fs::write(&path, "\n\n").expect("written");
    assert!(PromptSet::read(&path).expect_err("empty").to_string().contains("holds no prompt"));
}

#[test]
fn a_text_file_is_one_prompt_a_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("prompts.txt");
    std::fs::write(&path, "a cat\n\n  a dog  \n").expect("written");
    let set = PromptSet::read(&path).expect("two prompts");
    assert_eq!(
        set.prompts.iter().map(|prompt| prompt.text.as_str()).collect::<Vec<_>>(),
        ["a cat", "a dog"]
    );
}
