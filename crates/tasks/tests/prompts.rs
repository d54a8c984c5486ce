//! The task's prompts, and the files that prompts come in.

use std::collections::HashSet;

use tasks::{
    prompts::PromptSet,
    shapes::{self, Metadata, Split, Tag, UNSEEN},
};

fn texts(split: Split) -> HashSet<String> {
    shapes::prompts(split).prompts.into_iter().map(|prompt| prompt.text).collect()
}

#[test]
fn the_splits_are_disjoint_and_hold_every_kind() {
    let [train, test, unseen] = [Split::Train, Split::Test, Split::Unseen].map(texts);
    assert!(train.is_disjoint(&test) && train.is_disjoint(&unseen) && test.is_disjoint(&unseen));
    for split in [Split::Train, Split::Test] {
        let tags: HashSet<String> = shapes::prompts(split).prompts.into_iter().map(|prompt| prompt.tag).collect();
        assert_eq!(tags.len(), Tag::ALL.len(), "{split:?}");
    }
    assert!(test.len() * 3 < train.len() && !unseen.is_empty());
}

#[test]
fn no_training_prompt_mentions_an_unseen_pair() {
    let mentions = |metadata: &Metadata| {
        metadata
            .include
            .iter()
            .any(|entry| UNSEEN.iter().any(|(shape, color)| entry.class == *shape && entry.color == Some(*color)))
    };
    for split in [Split::Train, Split::Test] {
        assert!(shapes::prompts(split).prompts.iter().all(|prompt| !mentions(prompt.metadata.as_ref().expect("metadata"))));
    }
    assert!(shapes::prompts(Split::Unseen).prompts.iter().all(|prompt| mentions(prompt.metadata.as_ref().expect("metadata"))));
}

#[test]
fn the_vocabulary_is_every_word_and_no_other() {
    let words: HashSet<String> = shapes::vocabulary().into_iter().collect();
    let all = [Split::Train, Split::Test, Split::Unseen].into_iter().flat_map(texts);
    let used: HashSet<String> = all.flat_map(|text| text.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
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
    assert_eq!(set.to_jsonl(), lines);
}

#[test]
fn every_bad_line_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("prompts.jsonl");
    let good = r#"{"tag":"colors","include":[{"class":"circle","count":1,"color":"red"}],"prompt":"a red circle"}"#;
    std::fs::write(&path, format!("{good}\n{}\n\n{}\n", good.replace("circle", "dog"), good.replace("count", "number")))
        .expect("written");
    let text = PromptSet::read(&path).expect_err("two bad lines").to_string();
    assert!(text.contains("line 2") && text.contains("`dog`") && text.contains("line 4") && text.contains("`number`"), "{text}");
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
    assert_eq!(set.prompts.iter().map(|prompt| prompt.text.as_str()).collect::<Vec<_>>(), ["a cat", "a dog"]);
}
