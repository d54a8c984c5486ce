//! Our server and our client together.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use judges::{
    Client, Options, Protocol, Sample, Scorer, ScorerError, ServeError, Server, Settings, Token,
    serve,
};
use serde_json::{Value, json};
use ureq::Agent;

use crate::{client, images, prompts, samples, score, settings};

/// Scores by a function, under the name `r`; also has a reward `none` that gives no scores.
struct By<F>(F);

impl<F: Fn(&Sample) -> Result<f32, String> + Send + Sync> Scorer for By<F> {
    fn names(&self) -> Vec<String> {
        vec!["r".to_owned(), "none".to_owned()]
    }

    fn score(&self, samples: &[Sample]) -> Result<BTreeMap<String, Vec<f32>>, ScorerError> {
        let score = |(index, sample)| {
            (self.0)(sample).map_err(|reason| ScorerError { sample: Some(index), reason })
        };
        let scores: Result<_, _> = samples.iter().enumerate().map(score).collect();
        Ok([("r".to_owned(), scores?), ("none".to_owned(), Vec::new())].into())
    }
}

fn start(
    options: Options,
    score: impl Fn(&Sample) -> Result<f32, String> + Send + Sync + 'static,
) -> (Server, String) {
    let address = "127.0.0.1:0".parse().expect("an address");
    let server = serve(Arc::new(By(score)), Options { address, ..options }).expect("a free port");
    let url = format!("http://{}", server.address());
    (server, url)
}

/// The red value of the first pixel.
#[expect(clippy::unnecessary_wraps, reason = "the type of a score")]
fn red(sample: &Sample) -> Result<f32, String> {
    Ok(sample.image.get_pixel(0, 0).0[0].into())
}

/// Posts a body as it is; gives the status and the answer.
fn post(url: &str, path: &str, body: &str) -> (u16, Value) {
    let agent: Agent = Agent::config_builder().http_status_as_error(false).build().into();
    let mut response = agent.post(format!("{url}{path}")).send(body).expect("an answer");
    let text = response.body_mut().read_to_string().expect("a text");
    (response.status().as_u16(), serde_json::from_str(&text).expect("every answer is JSON"))
}

#[test]
fn images_prompts_and_metadata_arrive_unchanged() {
    let (server, url) = start(Options::default(), |sample| {
        assert_eq!(sample.prompt, "ein \"Würfel\"\n");
        assert_eq!(sample.metadata, &json!({ "tag": "colors", "weights": [0.5, 3] }));
        assert_eq!(sample.image, &images(8)[7]);
        Ok(-0.1)
    });
    let metadata = json!({ "tag": "colors", "weights": [0.5, 3] });
    let image = &images(8)[7];
    let sample = Sample { image, prompt: "ein \"Würfel\"\n", metadata: &metadata };
    assert_eq!(client(&url).score(&[sample, sample]), Ok(vec![-0.1, -0.1]));
    server.stop().expect("a good end");
}

#[test]
fn a_check_finds_a_wrong_reward_before_a_run() {
    let (_server, url) = start(Options::default(), red);
    client(&url).check().expect("the reward is there");
    let other = Client::new(settings(&url, Protocol::json("pickscore"))).expect("in range");
    let error = other.check().expect_err("no such reward").to_string();
    assert!(error.contains("no reward \"pickscore\"; it has: none, r"), "{error}");
    let error = score(&other, 1).expect_err("no such reward");
    assert!(error.contains("no reward \"pickscore\"; there are: r, none"), "{error}");
}

#[test]
fn only_the_token_opens_the_door() {
    let token = Token::new("sesame").expect("visible");
    let (_server, url) = start(Options { token: Some(token.clone()), ..Options::default() }, red);
    let error = client(&url).check().expect_err("no token").to_string();
    assert!(error.contains("status 401") && error.contains("token_variable"), "{error}");
    let open = |value| {
        let token = Some(Token::new(value).expect("visible"));
        Client::with_token(settings(&url, Protocol::json("r")), token).expect("in range")
    };
    assert!(score(&open("sesamy"), 1).is_err());
    open("sesame").check().expect("the right token");
    assert_eq!(score(&open("sesame"), 2), Ok(vec![0.0, 1.0]));
    let unset = Settings {
        token_variable: Some("FLOW_GRPO_TEST_NEVER_SET".to_owned()),
        ..settings(&url, Protocol::json("r"))
    };
    let error = Client::new(unset).err().expect("no variable").to_string();
    assert!(error.contains("FLOW_GRPO_TEST_NEVER_SET is not set"), "{error}");
}

#[test]
fn a_server_for_other_machines_needs_a_token() {
    let address = "0.0.0.0:0".parse().expect("an address");
    let open = serve(Arc::new(By(red)), Options { address, ..Options::default() });
    assert!(matches!(open, Err(ServeError::NoToken(_))), "{open:?}");
    let (server, _) = start(Options::default(), red);
    let taken = Options { address: server.address(), ..Options::default() };
    let error = serve(Arc::new(By(red)), taken).expect_err("a taken port").to_string();
    assert!(error.contains("is the port free?"), "{error}");
}

#[test]
fn requests_beyond_a_limit_are_refused_with_the_limit() {
    let limits = Options { images: 3, side: 15, ..Options::default() };
    let (_server, url) = start(limits, red);
    let error = score(&Client::new(settings(&url, Protocol::json("r"))).expect("in range"), 4);
    assert!(error.is_err_and(|text| text.contains("4 images in a request, at most 3")));
    let error = score(&client(&url), 1).expect_err("16 pixels wide");
    assert!(error.contains("requests[0]: image_b64: a side is longer than 15 pixels"), "{error}");

    let (_server, url) = start(Options { pixels: 300, ..Options::default() }, red);
    let all = Client::new(settings(&url, Protocol::json("r"))).expect("in range");
    assert_eq!(score(&all, 2).map(|scores| scores.len()), Ok(2));
    assert!(score(&all, 3).is_err_and(|text| text.contains("more than 300 pixels")));

    let (_server, url) = start(Options { body_bytes: 1000, ..Options::default() }, red);
    let (status, answer) = post(&url, "/score", &"x".repeat(20_000_000));
    assert_eq!(status, 413);
    assert!(answer["error"].as_str().is_some_and(|text| text.contains("at most 1000")), "{answer}");
}

#[test]
fn malformed_requests_are_explained() {
    let (_server, url) = start(Options::default(), red);
    let turn = json!({ "text": "a", "image_b64": "aGVsbG8=" });
    for (body, text) in [
        ("{".to_owned(), "the request is malformed"),
        (json!({ "requests": [{ "history": [] }] }).to_string(), "history has 0 turns"),
        (json!({ "requests": [{ "history": [turn, turn] }] }).to_string(), "history has 2 turns"),
        (json!({ "requests": [{ "history": [{ "text": "a" }] }] }).to_string(), "no image_b64"),
        (json!({ "requests": [{ "history": [turn] }] }).to_string(), "neither a PNG nor a JPEG"),
    ] {
        let (status, answer) = post(&url, "/score", &body);
        assert_eq!(status, 400, "{body}");
        let reason = answer["error"].as_str().expect("a text");
        assert!(reason.contains(text), "{reason}");
    }
    let (status, answer) = post(&url, "/scores", "");
    assert_eq!((status, answer["error"].is_string()), (404, true));
    assert_eq!(post(&url, "/score", r#"{"requests": []}"#).0, 200);
}

#[test]
fn a_request_of_another_client_of_the_protocol_is_understood() {
    let (_server, url) = start(Options::default(), red);
    let (images, prompts) = (images(1), prompts(1));
    // JPEG, no metadata, no rewards named, and fields that this server does not know.
    let fake = crate::fake::Fake::new(|_, _| crate::fake::Reply::HangUp);
    let protocol =
        Protocol::Json { reward: "r".to_owned(), metric: None, image: judges::ImageFormat::Jpeg };
    let recorder =
        Client::new(Settings { retries: 0, ..settings(&fake.url, protocol) }).expect("in range");
    assert!(recorder.score(&samples(&images, &prompts)).is_err());
    let mut request: Value = serde_json::from_slice(&fake.requests()[0].body).expect("JSON");
    request["protocol_version"] = json!("1");
    request["requests"][0]["request_id"] = json!("abc");
    request["requests"][0]["metadata"] = Value::Null;
    let (status, answer) = post(&url, "/score", &request.to_string());
    assert_eq!(status, 200, "{answer}");
    assert!(answer["results"][0]["r"]["r"].as_f64().is_some_and(|score| score < 4.0), "{answer}");
    assert_eq!(answer["errors"][0], json!({}));
}

#[test]
fn an_image_that_cannot_be_scored_is_named_by_its_index() {
    let (_server, url) = start(Options::default(), |sample| match sample.prompt {
        "prompt 5" => Err("no object found".to_owned()),
        _ => Ok(f32::NAN),
    });
    let batches = Settings { batch_size: 4, concurrency: 1, ..settings(&url, Protocol::json("r")) };
    let client = Client::new(batches).expect("in range");
    let error = score(&client, 2).expect_err("NaN");
    assert!(error.contains("image 0 (prompt \"prompt 0\"): the server says: the score is NaN"));
    let (images, prompts) = (images(8), prompts(8));
    let error = client.score(&samples(&images, &prompts)[4..]).expect_err("an error");
    assert_eq!((error.images.clone(), &*error.prompt), (1..2, "prompt 5"), "{error}");
    assert!(error.to_string().ends_with("the server says: no object found"), "{error}");
    assert_eq!(client.counts().retries, 0);
}

#[test]
fn a_scorer_that_breaks_is_the_servers_fault() {
    let calls = Arc::new(AtomicUsize::new(0));
    let (_server, url) = start(Options::default(), {
        let calls = Arc::clone(&calls);
        move |_| match calls.fetch_add(1, Ordering::Relaxed) {
            0 => panic!("a defect of the scorer"),
            _ => Ok(0.5),
        }
    });
    assert_eq!(score(&client(&url), 1), Ok(vec![0.5]), "the retry is scored");
    let none = Settings { retries: 1, ..settings(&url, Protocol::json("none")) };
    let error = score(&Client::new(none).expect("in range"), 1).expect_err("no scores");
    assert!(error.contains("(status 500): the reward \"none\" gave 0 scores for 1 images"));
}

#[test]
fn a_full_server_sends_clients_away_until_it_has_room() {
    let options = Options { concurrency: 2, waiting: 0, ..Options::default() };
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (_server, url) = start(options, {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        move |sample| {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(200));
            running.fetch_sub(1, Ordering::SeqCst);
            red(sample)
        }
    });
    let many = Settings { batch_size: 1, concurrency: 4, ..settings(&url, Protocol::json("r")) };
    let client = Client::new(many).expect("in range");
    assert_eq!(score(&client, 4), Ok(vec![0.0, 1.0, 2.0, 3.0]));
    assert_eq!(most.load(Ordering::SeqCst), 2);
    assert!(client.counts().retries >= 2, "{:?}", client.counts());
}

#[test]
fn a_stopping_server_finishes_the_request_under_way() {
    let started = Arc::new(AtomicUsize::new(0));
    let (server, url) = start(Options::default(), {
        let started = Arc::clone(&started);
        move |sample| {
            started.store(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(150));
            red(sample)
        }
    });
    let request = thread::spawn(move || score(&client(&url), 1));
    wait_for(&started, 1);
    server.stop().expect("a good end");
    assert_eq!(request.join().expect("no panic"), Ok(vec![0.0]));
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let options = Options { grace: Duration::from_millis(50), ..Options::default() };
    let started = Arc::new(AtomicUsize::new(0));
    let (server, url) = start(options, {
        let started = Arc::clone(&started);
        move |sample| {
            started.store(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(400));
            red(sample)
        }
    });
    let once = Settings { retries: 0, ..settings(&url, Protocol::json("r")) };
    let request = thread::spawn(move || score(&Client::new(once).expect("in range"), 1));
    wait_for(&started, 1);
    let stopping = Instant::now();
    assert!(matches!(server.stop(), Err(ServeError::Cut(_))));
    assert!(stopping.elapsed() < Duration::from_millis(300), "{:?}", stopping.elapsed());
    assert!(request.join().expect("no panic").is_err());
}

#[test]
fn a_dropped_server_serves_no_longer() {
    let (server, url) = start(Options::default(), red);
    assert_eq!(score(&client(&url), 1), Ok(vec![0.0]));
    drop(server);
    let once = Settings { retries: 0, ..settings(&url, Protocol::json("r")) };
    let client = Client::new(once).expect("in range");
    let started = Instant::now();
    while score(&client, 1).is_ok() {
        assert!(started.elapsed() < Duration::from_secs(5), "it still serves");
    }
}

#[test]
fn a_judge_that_restarts_in_the_middle_is_waited_for() {
    let scored = Arc::new(AtomicUsize::new(0));
    let scorer = |scored: &Arc<AtomicUsize>| {
        let scored = Arc::clone(scored);
        move |sample: &Sample| {
            scored.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(5));
            red(sample)
        }
    };
    let (server, url) = start(Options::default(), scorer(&scored));
    let address = server.address();
    let run = thread::spawn(move || {
        let client = client(&url);
        (score(&client, 40), client.counts())
    });
    wait_for(&scored, 5);
    server.stop().expect("a good end");
    thread::sleep(Duration::from_millis(50));
    let again = Options { address, ..Options::default() };
    let _server = serve(Arc::new(By(scorer(&scored))), again).expect("the same port");
    let (scores, counts) = run.join().expect("no panic");
    assert_eq!(scores, Ok((0..40_u8).map(f32::from).collect()));
    assert!(counts.retries > 0, "{counts:?}");
}

/// Waits until a counter has reached a number.
fn wait_for(counter: &AtomicUsize, number: usize) {
    let started = Instant::now();
    while counter.load(Ordering::SeqCst) < number {
        assert!(started.elapsed() < Duration::from_secs(5), "nothing happens");
        thread::sleep(Duration::from_millis(1));
    }
}
