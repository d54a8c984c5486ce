//! Requests and answers against goldens of the reference's Python.

use base64::{Engine, engine::general_purpose::STANDARD};
use image::{ImageFormat, RgbImage};
use judges::{
    Client, Protocol, Rubric, Sample, Service, Settings,
    pickle::{self, Value},
};
use serde_json::{Value as Json, json};

use crate::{
    fake::{Fake, Reply},
    golden, images, prompts, samples, settings,
};

fn facts() -> Json {
    serde_json::from_slice(&golden("golden.json")).expect("JSON")
}

/// What a client of a service sends for the two samples of the goldens, and the scores it reads.
fn exchange(service: Service, answer: Vec<u8>) -> (Vec<u8>, Vec<f32>) {
    let fake = Fake::new(move |_, _| Reply::ok(answer.clone()));
    let client =
        Client::new(settings(&fake.url, Protocol::FlowGrpo { service })).expect("in range");
    let (images, facts) = (images(2), facts());
    let metadata = facts["metadata"].as_array().expect("a list");
    let samples: Vec<Sample> = images
        .iter()
        .zip(metadata)
        .map(|(image, metadata)| Sample {
            image,
            prompt: metadata["prompt"].as_str().expect("a prompt"),
            metadata,
        })
        .collect();
    let scores = client.score(&samples).expect("scores");
    (fake.requests()[0].body.clone(), scores)
}

/// A request with the images taken out, in an order of keys that does not matter.
fn without_images(body: &[u8]) -> (Vec<RgbImage>, Json) {
    let value = pickle::read(body).expect("plain data");
    let Some(Value::List(files)) = value.get("images") else { panic!("no images") };
    let decoded = files.iter().map(|file| {
        let Value::Bytes(bytes) = file else { panic!("an image is bytes") };
        let format = ImageFormat::Jpeg;
        image::load_from_memory_with_format(bytes, format).expect("a JPEG").into_rgb8()
    });
    let mut json = json(&value);
    json.as_object_mut().expect("a dict").remove("images");
    (decoded.collect(), json)
}

fn json(value: &Value) -> Json {
    match value {
        Value::None | Value::Bytes(_) => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Int(number) => json!(number),
        Value::Float(number) => json!(number),
        Value::Text(text) => json!(&**text),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Dict(entries) => Json::Object(
            entries.iter().map(|(key, value)| (key.to_string(), json(value))).collect(),
        ),
    }
}

#[test]
fn requests_hold_what_the_references_clients_send() {
    for (service, name, answer) in [
        (Service::Geneval, "geneval_request.pickle", "geneval_answer_4.pickle"),
        (Service::Deqa, "deqa_request.pickle", "deqa_answer.pickle"),
    ] {
        let (theirs, ours) = (golden(name), exchange(service, golden(answer)).0);
        let ((their_images, theirs), (our_images, ours)) =
            (without_images(&theirs), without_images(&ours));
        assert_eq!(ours, theirs, "{name}");
        let sizes =
            |images: &[RgbImage]| images.iter().map(RgbImage::dimensions).collect::<Vec<_>>();
        assert_eq!(sizes(&our_images), sizes(&their_images), "{name}");
        // The second golden image and the images of these tests are blue, of value 200.
        let blue = |images: &[RgbImage]| i32::from(images[1].get_pixel(3, 3).0[2]);
        assert!((blue(&our_images) - blue(&their_images)).abs() <= 3, "{name}");
    }
}

#[test]
fn the_settings_of_the_book_are_in_range() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../book/src/reward-servers.md");
    let book = std::fs::read_to_string(path).expect("the chapter");
    let examples: Vec<&str> = book
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().expect("an end"))
        .collect();
    assert_eq!(examples.len(), 3);
    for example in examples {
        let settings: Settings = toml::from_str(example).expect(example);
        assert_eq!(settings.problems(), Vec::<String>::new(), "{example}");
    }
}

#[test]
fn answers_of_every_pickle_protocol_are_read() {
    let geneval = &facts()["geneval"];
    for protocol in 2..=5 {
        let answer = golden(&format!("geneval_answer_{protocol}.pickle"));
        assert_eq!(&json(&pickle::read(&answer).expect("plain data")), geneval, "{protocol}");
        for (service, key) in [
            (Service::Geneval, "scores"),
            (Service::GenevalStrict, "strict_rewards"),
            (Service::GenevalOfficial, "rewards"),
        ] {
            let scores = exchange(service, answer.clone()).1;
            let expected = geneval[key].as_array().expect("a list").iter();
            let expected: Vec<f32> =
                expected.map(|score| score.as_f64().expect("a number") as f32).collect();
            assert_eq!(scores, expected, "{key} of protocol {protocol}");
        }
    }
    assert_eq!(
        exchange(Service::Deqa, golden("deqa_answer.pickle")).1,
        [0.507_812_5, 0.917_968_75]
    );
}

#[test]
fn only_the_benchmarks_rule_asks_for_more_than_the_strict_one() {
    let answer = || golden("geneval_answer_4.pickle");
    for (service, only_strict) in [
        (Service::Geneval, true),
        (Service::GenevalStrict, true),
        (Service::GenevalOfficial, false),
    ] {
        let request = pickle::read(&exchange(service, answer()).0).expect("plain data");
        assert_eq!(request.get("only_strict"), Some(&Value::Bool(only_strict)), "{service:?}");
    }
}

#[test]
fn a_server_that_wants_prompts_gets_them() {
    let scores = Value::List(vec![Value::Int(1), Value::Float(0.5)]);
    let answer = pickle::write(&Value::Dict(vec![("outputs".into(), scores)]));
    let (request, scores) = exchange(Service::Prompted, answer);
    assert_eq!(scores, [1.0, 0.5]);
    let (_, request) = without_images(&request);
    assert_eq!(request["prompts"][1], "a photo of three apples");
    assert_eq!(request["metadata"], facts()["metadata"]);
}

#[test]
fn geneval_needs_its_metadata() {
    let protocol = Protocol::FlowGrpo { service: Service::Geneval };
    let client = Client::new(settings("http://127.0.0.1:1", protocol)).expect("in range");
    assert!(client.accepts(&facts()["metadata"][0]).is_ok());
    let error = client.accepts(&json!({ "tag": "colors", "prompt": "a cube" })).expect_err("short");
    assert!(error.contains("`include`"), "{error}");
    assert!(client.accepts(&Json::Null).is_err());
}

#[test]
fn a_pickle_server_is_well_if_it_answers() {
    // Flask says 405 to GET, because these servers know POST alone.
    let fake = Fake::new(|_, _| Reply::Answer(405, "", Vec::new()));
    let protocol = Protocol::FlowGrpo { service: Service::Deqa };
    Client::new(settings(&fake.url, protocol.clone())).expect("in range").check().expect("well");
    let fake = Fake::new(|_, _| Reply::Answer(502, "", Vec::new()));
    assert!(Client::new(settings(&fake.url, protocol)).expect("in range").check().is_err());
}

fn chat(text: &str) -> String {
    json!({ "choices": [{ "message": { "role": "assistant", "content": text } }] }).to_string()
}

fn judge(url: &str, unparsed: Option<f32>) -> Client {
    let protocol = Protocol::Openai {
        model: "UnifiedReward-7b-v1.5".to_owned(),
        rubric: Rubric::UnifiedReward,
        unparsed,
    };
    Client::new(Settings { concurrency: 1, ..settings(&format!("{url}/v1"), protocol) })
        .expect("in range")
}

#[test]
fn a_language_model_gets_one_image_and_one_question_per_request() {
    let fake = Fake::new(|number, _| Reply::ok(chat(&format!("Final Score: {}", number + 1))));
    let (images, prompts) = (images(3), prompts(3));
    let scores = judge(&fake.url, None).score(&samples(&images, &prompts));
    assert_eq!(scores, Ok(vec![0.2, 0.4, 0.6]));
    let request = &fake.requests()[1];
    assert!(request.head.starts_with("POST /v1/chat/completions "), "{}", request.head);
    let body: Json = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!(body["model"], "UnifiedReward-7b-v1.5");
    assert_eq!(body["temperature"], 0);
    let content = &body["messages"][0]["content"];
    let url = content[0]["image_url"]["url"].as_str().expect("a URL");
    let text = url.strip_prefix("data:image/png;base64,").expect("a data URL");
    let file = STANDARD.decode(text).expect("Base64");
    let image = image::load_from_memory(&file).expect("a PNG").into_rgb8();
    assert_eq!((image.dimensions(), image.get_pixel(9, 9).0), ((512, 512), [1, 0, 200]));
    assert!(content[1]["text"].as_str().is_some_and(|text| text.ends_with("[prompt 1]")));
}

#[test]
fn an_answer_without_a_score_is_an_error_unless_it_has_a_score_in_the_settings() {
    let fake = Fake::new(|_, _| Reply::ok(chat("I cannot see the image.")));
    let (images, prompts) = (images(1), prompts(1));
    let samples = samples(&images, &prompts);
    let error = judge(&fake.url, None).score(&samples).expect_err("no score").to_string();
    assert!(error.contains("no score after \"Final Score:\": \"I cannot see"), "{error}");
    let lenient = judge(&fake.url, Some(0.0));
    assert_eq!(lenient.score(&samples), Ok(vec![0.0]));
    assert_eq!(lenient.counts().unparsed, 1);
    let empty = Fake::new(|_, _| Reply::ok(r#"{"choices": []}"#));
    let error = judge(&empty.url, Some(0.0)).score(&samples).expect_err("no choices").to_string();
    assert!(error.contains("choices[0].message.content"), "{error}");
}

#[test]
fn a_model_that_is_not_served_is_found_before_a_run() {
    let fake = Fake::new(|_, _| Reply::ok(r#"{"data": [{"id": "llama"}, {"id": "qwen"}]}"#));
    let error = judge(&fake.url, None).check().expect_err("another model").to_string();
    assert!(error.contains("no model \"UnifiedReward-7b-v1.5\"; it has: llama, qwen"), "{error}");
    assert!(fake.requests()[0].head.starts_with("GET /v1/models "));
    let silent = Fake::new(|_, _| Reply::Answer(404, "", Vec::new()));
    judge(&silent.url, None).check().expect("a server without a list of models");
}
