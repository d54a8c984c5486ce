//! Python on the other side, where it is installed.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use judges::{
    Client, Protocol,
    pickle::{self, Value},
};

use crate::{images, prompts, samples, settings};

/// The Python of `FLOW_GRPO_PYTHON`, or `python3`, if it can import these modules.
fn python(modules: &str) -> Option<Command> {
    let program = std::env::var("FLOW_GRPO_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let import = format!("import {modules}");
    let found = Command::new(&program).args(["-c", &import]).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Some(Command::new(program));
    }
    println!("not tested: {program} cannot import {modules}");
    None
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_example_of_the_book_serves_a_reward_to_our_client() {
    let Some(mut python) = python("numpy, PIL") else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/examples/reward_server.py");
    python.args([script, "0"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = Process(python.spawn().expect("Python starts"));
    let mut line = String::new();
    let stdout = process.0.stdout.take().expect("a pipe");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let url = line.trim().rsplit(' ').next().expect("an address");
    let client = Client::new(settings(url, Protocol::json("redness"))).expect("in range");
    client.check().expect("the example is well");
    let (images, prompts) = (images(3), prompts(3));
    let scores = client.score(&samples(&images, &prompts)).expect("scores");
    let expected = [0.0, 1.0, 2.0].map(|red: f32| (red - 100.0) / 255.0);
    let near = scores.iter().zip(expected).all(|(score, expected)| (score - expected).abs() < 1e-6);
    assert!(scores.len() == 3 && near, "{scores:?} instead of {expected:?}");
}

#[test]
fn python_reads_our_pickles() {
    let Some(mut python) = python("pickle") else { return };
    let value = Value::Dict(vec![
        ("images".into(), Value::List(vec![Value::Bytes(vec![255, 216, 0])])),
        ("numbers".into(), Value::List([-1, 300, i64::MIN, i64::MAX].map(Value::Int).to_vec())),
        ("others".into(), Value::List(vec![Value::None, Value::Bool(true), Value::Float(-0.1)])),
        ("text".into(), Value::from("Würfel \"\n")),
        ("nothing".into(), Value::Dict(Vec::new())),
    ]);
    let program = "import pickle, sys; value = pickle.load(sys.stdin.buffer)\n\
                   expected = {'images': [b'\\xff\\xd8\\x00'], 'numbers': [-1, 300, -2**63, 2**63 - 1],\
                   'others': [None, True, -0.1], 'text': 'Würfel \"\\n', 'nothing': {}}\n\
                   assert value == expected and list(value) == list(expected), value";
    python.args(["-c", program]).stdin(Stdio::piped());
    let mut child = python.spawn().expect("Python starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(&pickle::write(&value)).expect("written");
    drop(stdin);
    assert!(child.wait().expect("Python ends").success());
}
