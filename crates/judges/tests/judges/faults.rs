//! Faults of judges: cured by a retry where that can be, otherwise an error that says why.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use judges::{Client, Protocol, Service, Settings};

use crate::{
    client,
    fake::{Fake, Received, Reply, numbers},
    golden, score, settings,
};

/// A client with some retries, of a judge that misbehaves in its first `times` replies.
fn after(
    times: usize,
    fault: impl Fn() -> Reply + Send + Sync + 'static,
) -> (Fake, Result<Vec<f32>, String>) {
    let fake = Fake::new(
        move |number, received| {
            if number < times { fault() } else { Reply::ok(numbers(received)) }
        },
    );
    let settings =
        Settings { timeout_seconds: 0.2, retries: 2, ..settings(&fake.url, Protocol::json("r")) };
    let result = score(&Client::new(settings).expect("settings in range"), 2);
    (fake, result)
}

type Fault = (&'static str, fn() -> Reply, &'static str);

#[test]
fn curable_faults_are_cured_by_retries_and_otherwise_named() {
    let faults: [Fault; 7] = [
        ("silence", || Reply::Silence, "no answer within 0.2 s"),
        ("hang-up", || Reply::HangUp, "the connection broke"),
        ("truncated", || Reply::Truncated(b"{\"results\": [".to_vec()), "the connection broke"),
        ("500", || Reply::Answer(500, "", b"KeyError: 'tag'".to_vec()), "KeyError: 'tag'"),
        ("503", || Reply::Answer(503, "", b"loading".to_vec()), "busy (status 503): loading"),
        (
            "429",
            || Reply::Answer(429, "Retry-After: 0\r\n", b"{\"error\": \"full\"}".to_vec()),
            "busy (status 429): full",
        ),
        ("502", || Reply::Answer(502, "", Vec::new()), "status 502"),
    ];
    for (name, fault, text) in faults {
        let (fake, result) = after(2, fault);
        assert_eq!(result, Ok(vec![0.0, 1.0]), "{name}");
        assert_eq!(fake.requests().len(), 3, "{name}");
        let (fake, result) = after(3, fault);
        let error = result.expect_err(name);
        assert_eq!(fake.requests().len(), 3, "{name}");
        let place = format!("{} did not score images 0 to 1 (prompt \"prompt 0\")", fake.url);
        for part in [&place, "in 3 attempts", text] {
            assert!(error.contains(part), "{name}: {part:?} in {error}");
        }
    }
}

#[test]
fn incurable_faults_are_named_at_once() {
    let long = || Reply::ok(vec![b' '; (4 << 20) + 1]);
    let faults: [Fault; 13] = [
        ("400", || Reply::Answer(400, "", b"{\"error\": \"bad\"}".to_vec()), "(status 400): bad"),
        ("401", || Reply::Answer(401, "", Vec::new()), "is `token_variable` right?"),
        ("404", || Reply::Answer(404, "", Vec::new()), "refuses the request (status 404)"),
        (
            "302",
            || Reply::Answer(302, "Location: http://127.0.0.1:1/\r\n", Vec::new()),
            "redirects",
        ),
        ("no JSON", || Reply::ok("<html>"), "the answer is malformed: no JSON"),
        ("other JSON", || Reply::ok("[1, 2]"), "the answer is malformed"),
        ("long", long, "longer than 4194304 bytes"),
        (
            "count",
            || Reply::ok(r#"{"results": [{"r": {"r": 1}}]}"#),
            "the answer has 1 scores for 2 images",
        ),
        (
            "NaN",
            || Reply::ok(r#"{"results": [{"r": {"r": NaN}}, {"r": {"r": 1}}]}"#),
            "JSON has neither NaN nor Infinity",
        ),
        (
            "null",
            || Reply::ok(r#"{"results": [{"r": {"r": 1}}, {"r": {"r": null}}]}"#),
            "did not score image 1 (prompt \"prompt 1\"): the score is null",
        ),
        (
            "beyond f32",
            || Reply::ok(r#"{"results": [{"r": {"r": 1e39}}, {"r": {"r": 1}}]}"#),
            "did not score image 0 (prompt \"prompt 0\"): the score is inf",
        ),
        (
            "unjudged",
            || Reply::ok(r#"{"results": [{}, {}], "errors": [{}, {"r": "no face"}]}"#),
            "did not score image 1 (prompt \"prompt 1\"): the server says: no face",
        ),
        ("no HTTP", || Reply::Raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "the exchange failed"),
    ];
    for (name, fault, text) in faults {
        let (fake, result) = after(1, fault);
        let error = result.expect_err(name);
        assert!(error.contains(text), "{name}: {error}");
        assert_eq!(fake.requests().len(), 1, "{name} was retried");
    }
}

#[test]
fn pickles_that_are_no_lists_of_finite_numbers_are_refused() {
    let pickles: [(&str, Vec<u8>, &str); 6] = [
        ("evil", golden("evil_answer.pickle"), "would import or call Python code"),
        ("numpy", golden("numpy_answer.pickle"), "the server should answer `float(x)`"),
        ("text", b"Internal error".to_vec(), "is not of plain data"),
        ("cut", golden("geneval_answer_4.pickle")[..40].to_vec(), "before the pickle does"),
        ("other list", golden("deqa_answer.pickle"), "no list `scores`"),
        (
            "NaN",
            b"\x80\x03}X\x06\x00\x00\x00scores]G\x7f\xf8\x00\x00\x00\x00\x00\x00as.".to_vec(),
            "the score is NaN, not a finite number",
        ),
    ];
    for (name, pickle, text) in pickles {
        let fake = Fake::new(move |_, _| Reply::ok(pickle.clone()));
        let protocol = Protocol::FlowGrpo { service: Service::Geneval };
        let client = Client::new(settings(&fake.url, protocol)).expect("settings in range");
        let error = score(&client, 1).expect_err(name);
        assert!(error.contains(text), "{name}: {error}");
        assert_eq!(fake.requests().len(), 1, "{name} was retried");
    }
}

#[test]
fn a_judge_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let settings = Settings { retries: 2, ..settings(&url, Protocol::json("r")) };
    let client = Client::new(settings).expect("settings in range");
    let error = score(&client, 1).expect_err("nobody there");
    for part in [&*url, "image 0 (prompt \"prompt 0\")", "in 3 attempts", "is the server running"] {
        assert!(error.contains(part), "{part:?} in {error}");
    }
    let error = client.check().expect_err("nobody there").to_string();
    assert!(error.contains("is not ready: no connection"), "{error}");
    assert_eq!(client.counts().retries, 2);
}

#[test]
fn a_server_can_ask_for_a_wait() {
    let fake = Fake::new(|number, received| match number {
        0 => Reply::Answer(429, "Retry-After: 1\r\n", Vec::new()),
        _ => Reply::ok(numbers(received)),
    });
    let started = Instant::now();
    assert_eq!(score(&client(&fake.url), 1), Ok(vec![0.0]));
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
}

#[test]
fn scores_come_in_the_order_of_the_images() {
    // The first images are answered last.
    let late = |number: usize, received: &Received| {
        Reply::Late(
            Duration::from_millis(20_u64.saturating_sub(number as u64)),
            numbers(received).into(),
        )
    };
    let fake = Fake::new(late);
    for (batch_size, concurrency) in [(1, 8), (3, 4), (64, 4), (1, 1)] {
        let settings =
            Settings { batch_size, concurrency, ..settings(&fake.url, Protocol::json("r")) };
        let client = Client::new(settings).expect("settings in range");
        let expected: Vec<f32> = (0..20).map(|number| number as f32).collect();
        assert_eq!(score(&client, 20), Ok(expected), "{concurrency} x {batch_size}");
    }
    assert_eq!(score(&client(&fake.url), 0), Ok(Vec::new()));
}

#[test]
fn a_failure_ends_the_other_requests() {
    let fake = Fake::new(|number, received| match number {
        9 => Reply::Answer(400, "", b"stop".to_vec()),
        _ => Reply::Late(Duration::from_millis(2), numbers(received).into()),
    });
    let error = score(&client(&fake.url), 200).expect_err("one of them fails");
    assert!(error.contains("(status 400): stop"), "{error}");
    assert!(fake.requests().len() < 20, "{} requests", fake.requests().len());
}

#[cfg(feature = "tls")]
#[test]
fn https_to_a_server_without_tls_is_an_error_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            use std::io::Write;
            let _ = (&stream).write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let client = match Client::new(settings(&url, Protocol::json("r"))) {
        Ok(client) => client,
        Err(error) => return println!("not tested: {error}"),
    };
    let error = score(&client, 1).expect_err("no TLS there");
    assert!(error.contains("the exchange failed"), "{error}");
    assert_eq!(client.counts().retries, 0);
}
