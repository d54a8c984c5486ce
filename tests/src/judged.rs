//! Rewards of other programs, through the real program: a stub of the reference code's GenEval
//! server, and `serve`.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::Value;

use crate::{
    cli::{metrics, program, refused, run},
    score::{grey, lines},
    sd3_program::{SETTINGS, golden, ok},
};

/// A server that speaks the pickle protocol of GenEval's server: its score is a number in `[0, 1)`
/// made of the bytes of the JPEG.
struct Stub {
    url: String,
    /// The images of every request.
    requests: Arc<Mutex<Vec<Vec<Vec<u8>>>>>,
}

impl Stub {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let requests: Arc<Mutex<Vec<Vec<Vec<u8>>>>> = Arc::default();
        let kept = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                thread::spawn(move || answer(&stream, &kept));
            }
        });
        Self { url, requests }
    }

    fn requests(&self) -> Vec<Vec<Vec<u8>>> {
        self.requests.lock().expect("no panic").clone()
    }
}

/// Answers one request and closes the connection.
fn answer(mut stream: &TcpStream, kept: &Mutex<Vec<Vec<Vec<u8>>>>) {
    let Some((head, body)) = request(stream) else { return };
    let (status, answer) = if head.starts_with("POST") {
        let images = jpegs(&body);
        let scores: Vec<f64> = images.iter().map(|image| score(image)).collect();
        kept.lock().expect("no panic").push(images);
        ("200 OK", pickled(&scores))
    } else {
        ("405 Method Not Allowed", Vec::new())
    };
    let length = answer.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n");
    // The client may have hung up.
    let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes());
    let _ = stream.write_all(&answer);
}

/// The head and the body of a request.
fn request(stream: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let lower = head.to_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().expect("a number"))];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// The JPEG files in a pickle: from the start of an image to its end.
fn jpegs(mut body: &[u8]) -> Vec<Vec<u8>> {
    let position = |bytes: &[u8], mark: &[u8]| bytes.windows(mark.len()).position(|at| at == mark);
    let mut found = Vec::new();
    while let Some(start) = position(body, b"\xff\xd8\xff") {
        let length = position(&body[start..], b"\xff\xd9").expect("a whole image") + 2;
        found.push(body[start..start + length].to_vec());
        body = &body[start + length..];
    }
    found
}

fn score(image: &[u8]) -> f64 {
    let sum: u32 = image.iter().map(|&byte| u32::from(byte)).sum();
    f64::from(sum % 97) / 97.0
}

/// `{"scores": […]}` in pickle's protocol 2.
fn pickled(scores: &[f64]) -> Vec<u8> {
    let mut bytes = b"\x80\x02}X\x06\x00\x00\x00scores](".to_vec();
    for score in scores {
        bytes.push(b'G');
        bytes.extend(score.to_be_bytes());
    }
    bytes.extend(b"es.");
    bytes
}

/// One prompt of each kind that the preset draws.
const TRAIN: &str = r#"{"tag": "position", "include": [{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["right of", 0]}], "prompt": "a photo of a cat right of a dog"}
{"tag": "counting", "include": [{"class": "clock", "count": 2}], "exclude": [{"class": "clock", "count": 3}], "prompt": "a photo of two clocks"}
{"tag": "color_attr", "include": [{"class": "bus", "count": 1, "color": "red"}, {"class": "cup", "count": 1, "color": "blue"}], "prompt": "a photo of a red bus and a blue cup"}
{"tag": "colors", "include": [{"class": "bench", "count": 1, "color": "green"}], "prompt": "a photo of a green bench"}
{"tag": "two_object", "include": [{"class": "bench", "count": 1}, {"class": "vase", "count": 1}], "prompt": "a photo of a bench and a vase"}
"#;

/// Trains the tiny model by the preset for GenEval and a server; returns the epochs.
fn train_for_geneval(directory: &Path, name: &str, url: &str, more: &[&str]) -> Vec<Value> {
    let file = directory.join("train.jsonl");
    std::fs::write(&file, TRAIN).expect("written");
    let sets = ["train", "validation"].map(|set| format!("prompts.{set}={}", file.display()));
    let rewards = format!("rewards={{ geneval = {{ url = \"{url}\" }} }}");
    let out = directory.join(name);
    let (model, text) = (golden("sd3-tiny"), out.to_string_lossy().into_owned());
    let settings = SETTINGS.into_iter().chain(sets.iter().map(String::as_str)).chain([
        &rewards[..],
        "best_by=rewards.geneval",
        "grpo.rollout_batch=2",
    ]);
    let settings = settings.chain(more.iter().copied()).flat_map(|setting| ["--set", setting]);
    let verb = ["train", "--preset", "sd35m-geneval", "--model", &model, "--out", &text];
    ok(&verb.into_iter().chain(settings).collect::<Vec<_>>());
    metrics(&out).into_iter().filter(|line| line["event"] == "epoch").collect()
}

#[test]
fn the_preset_for_geneval_trains_by_the_reference_codes_server() {
    let directory = tempfile::tempdir().expect("a directory");
    let stub = Stub::start();
    let epochs = train_for_geneval(directory.path(), "run", &stub.url, &[]);
    assert_eq!(epochs.len(), 2);
    for epoch in &epochs {
        let score = epoch["rewards"]["geneval"].as_f64().expect("a score");
        assert!((0.0..1.0).contains(&score) && epoch["reward_std"].as_f64() > Some(0.0), "{epoch}");
        assert_eq!(epoch["advantage_shares"]["geneval"], 1.0, "{epoch}");
    }
    let sizes: Vec<usize> = stub.requests().iter().map(Vec::len).collect();
    // Two evaluations of five prompts, and two epochs of six images in rollout batches of two.
    assert_eq!(sizes.iter().sum::<usize>(), 2 * 10 + 2 * 6, "{sizes:?}");
    assert_eq!(sizes.iter().filter(|&&size| size == 2).count(), 6, "{sizes:?}");
    // A server that others use as well gives the same numbers, byte for byte.
    assert_eq!(train_for_geneval(directory.path(), "again", &stub.url, &[]), epochs);
    let image = &stub.requests()[0][0];
    assert!(image::guess_format(image).is_ok_and(|format| format == image::ImageFormat::Jpeg));
}

/// Writes an image of one colour.
fn paint(path: &Path, color: [u8; 3]) {
    let image = image::RgbImage::from_pixel(8, 8, image::Rgb(color));
    image.save(path).expect("written");
}

#[test]
fn red_and_blue_are_exchanged_for_the_server_if_the_reward_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let [red, blue] =
        [("red.png", [200, 30, 10]), ("blue.png", [10, 30, 200])].map(|(name, color)| {
            let path = directory.path().join(name);
            paint(&path, color);
            path.to_string_lossy().into_owned()
        });
    let prompts = directory.path().join("prompts.jsonl");
    std::fs::write(&prompts, TRAIN.lines().next().expect("a line")).expect("written");
    let prompts = prompts.to_string_lossy().into_owned();
    let stub = Stub::start();
    let sent = |image: &str, more: &[&str]| {
        let url = format!("url={}", stub.url);
        let score = ["score", "--reward", "geneval", "--set", &url, "--prompt-file", &prompts];
        lines(&[&score[..], &["--json", image], more].concat());
        stub.requests().pop().expect("a request")
    };
    let swapped = ["--set", "channels=red_blue_swapped"];
    assert_eq!(sent(&red, &swapped), sent(&blue, &[]));
    assert_eq!(sent(&red, &["--set", "channels=official"]), sent(&red, &[]));
    assert_ne!(sent(&red, &[]), sent(&blue, &[]));
    let url = format!("url={}", stub.url);
    let wrong = ["score", "--reward", "geneval", "--set", &url, "--set", "channels=bgr", &red];
    assert!(refused(&wrong).contains("red_blue_swapped"));
}

#[test]
fn a_cache_asks_a_server_once_for_a_picture() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let (images, prompts, cache) = (path("images"), path("prompts.jsonl"), path("scores"));
    std::fs::create_dir(&images).expect("created");
    for (index, color) in [[9, 30, 200], [90, 30, 200], [200, 30, 9]].into_iter().enumerate() {
        paint(&Path::new(&images).join(format!("{index}.png")), color);
    }
    std::fs::write(&prompts, TRAIN.lines().next().expect("a line")).expect("written");
    let stub = Stub::start();
    let url = format!("url={}", stub.url);
    let score = |more: &[&str]| {
        let score = ["score", "--reward", "geneval", "--set", &url, "--prompt-file", &prompts];
        lines(&[&score[..], &["--json", &images], more].concat())
    };
    let plain = score(&[]);
    assert_eq!(stub.requests().len(), 3);
    assert_eq!(score(&["--cache", &cache]), plain);
    assert_eq!(stub.requests().len(), 6, "nothing was known");
    assert_eq!(score(&["--cache", &cache]), plain);
    assert_eq!(stub.requests().len(), 6, "everything was known");
    paint(&Path::new(&images).join("1.png"), [91, 30, 200]);
    let changed = score(&["--cache", &cache]);
    assert_eq!((stub.requests().len(), &changed[0], &changed[2]), (7, &plain[0], &plain[2]));
}

/// A running `serve`, and its address.
struct Served {
    child: Child,
    address: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts `serve` on a free port.
fn serve(more: &[&str], token: Option<(&str, &str)>) -> Served {
    let mut command = Command::new(program());
    command.args(["serve", "--reward", "jpeg_compressibility", "--address", "127.0.0.1:0"]);
    command.args(more).stderr(Stdio::piped()).envs(token);
    let mut child = command.spawn().expect("the program runs");
    let stderr = child.stderr.take().expect("piped");
    let mut line = String::new();
    BufReader::new(stderr).read_line(&mut line).expect("a line");
    let address = line.trim().rsplit_once("http://").expect(&line).1.to_owned();
    Served { child, address }
}

/// The answer to `GET /health`.
fn health(address: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a server");
    let request = format!("GET /health HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn the_program_serves_a_reward_that_the_program_asks_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("grey.png").to_string_lossy().into_owned();
    grey(Path::new(&path), 90);
    let served = serve(&[], None);
    let answer = health(&served.address, "");
    assert!(answer.contains("200 OK") && answer.contains("jpeg_compressibility"), "{answer}");
    let url = format!("url=http://{}", served.address);
    let protocol = "protocol={ kind = \"json\", reward = \"jpeg_compressibility\" }";
    let judged = ["score", "--reward", "judge", "--set", &url, "--set", protocol, "--json", &path];
    let own = lines(&["score", "--reward", "jpeg_compressibility", "--json", &path]).remove(0);
    let judged = lines(&judged).remove(0);
    assert_eq!(judged["scores"]["judge"], own["scores"]["jpeg_compressibility"], "{judged}");
}

#[test]
fn a_server_with_a_token_refuses_those_without_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("grey.png").to_string_lossy().into_owned();
    grey(Path::new(&path), 90);
    let name = "SERVED_TOKEN";
    let served = serve(&["--token-variable", name], Some((name, "right")));
    assert!(health(&served.address, "").contains(" 401 "));
    assert!(health(&served.address, "Authorization: Bearer wrong\r\n").contains(" 401 "));
    assert!(health(&served.address, "Authorization: Bearer right\r\n").contains(" 200 "));
    let score = |token: &str| {
        let url = format!("url=http://{}", served.address);
        let protocol = "protocol={ kind = \"json\", reward = \"jpeg_compressibility\" }";
        let variable = format!("token_variable={name}");
        let mut command = Command::new(program());
        command.args(["score", "--reward", "judge", "--set", &url, "--set", protocol]);
        let command = command.args(["--set", &variable, "--set", "retries=0", &path]);
        command.env(name, token).output().expect("the program runs")
    };
    assert!(score("right").status.success());
    let refused = score("wrong");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && text.contains("401"), "{text}");
    // Without the variable, neither side starts.
    let unset = run(&["serve", "--reward", "darkness", "--token-variable", "UNSET_TOKEN"]);
    assert!(String::from_utf8_lossy(&unset.stderr).contains("UNSET_TOKEN is not set"));
}
