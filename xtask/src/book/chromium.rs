//! A headless Chromium, driven over its `DevTools` protocol through pipes.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

/// Names of the program; the variable `CHROMIUM` goes first.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// An answer that takes longer never comes.
const PATIENCE: Duration = Duration::from_mins(3);

/// The path of Chromium, if it is installed.
pub fn find() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("CHROMIUM") {
        return Some(path.into());
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .flat_map(|folder| NAMES.map(|name| folder.join(name)))
        .find(|path| path.is_file())
}

/// A running browser with one page.
pub struct Browser {
    process: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    last: u64,
    /// What the page complained about since [`Self::complaints`] was last called.
    complaints: Vec<String>,
}

impl Browser {
    /// Starts the browser with an empty page; its profile goes into `folder`.
    pub fn start(program: &Path, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        // Chromium reads commands from descriptor 3 and answers on 4.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null"]);
        command.arg(program).args(["--headless=new", "--remote-debugging-pipe", "--no-first-run"]);
        // It opens only pages that this program serves, and has no sandbox in a container.
        command.args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
        command.arg("--hide-scrollbars");
        command.arg(format!("--user-data-dir={}", folder.canonicalize()?.display()));
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the browser")?;
        let input = process.stdin.take().context("the browser has an input")?;
        let output = BufReader::new(process.stdout.take().context("the browser has an output")?);
        let (send, messages) = mpsc::channel();
        std::thread::spawn(move || {
            for message in output.split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message);
                if message.is_ok_and(|message| send.send(message).is_err()) {
                    break;
                }
            }
        });
        let mut browser =
            Self { process, input, messages, session: None, last: 0, complaints: Vec::new() };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}))?;
        let target = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", &target)?;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, &json!({}))?;
        }
        Ok(browser)
    }

    /// Opens a page in a window of `width` x `height` pixels, in a theme of the book.
    pub fn open(&mut self, url: &str, [width, height]: [u32; 2], theme: &str) -> Result<()> {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.call("Emulation.setDeviceMetricsOverride", &size)?;
        // The page of the site must be there before its storage is.
        self.navigate(url)?;
        self.evaluate(&format!("localStorage.setItem('mdbook-theme', '{theme}')"))?;
        self.navigate(url)
    }

    /// Opens a page that runs no scripts, at the size of the page before.
    pub fn open_without_scripts(&mut self, url: &str) -> Result<()> {
        let off = |value: bool| json!({ "value": value });
        self.call("Emulation.setScriptExecutionDisabled", &off(true))?;
        self.navigate(url)?;
        self.call("Emulation.setScriptExecutionDisabled", &off(false)).map(drop)
    }

    /// Tells pages opened from now on that their reader wants less motion.
    pub fn move_less(&mut self) -> Result<()> {
        let features = json!([{"name": "prefers-reduced-motion", "value": "reduce"}]);
        self.call("Emulation.setEmulatedMedia", &json!({"features": features})).map(drop)
    }

    fn navigate(&mut self, url: &str) -> Result<()> {
        let answer = self.call("Page.navigate", &json!({"url": url}))?;
        if let Some(error) = answer["errorText"].as_str() {
            bail!("{url}: {error}");
        }
        loop {
            let message = self.next()?;
            if message["method"] == "Page.loadEventFired" {
                return Ok(());
            }
        }
    }

    /// The value of an expression in the page; a promise is awaited.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let asked = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", &asked)?;
        if answer.get("exceptionDetails").is_some() {
            bail!("the page threw: {}", exception(&answer["exceptionDetails"]));
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Presses a key on what has the focus.
    pub fn press(&mut self, key: &str) -> Result<()> {
        let code = match key {
            "ArrowLeft" => 37,
            "ArrowRight" => 39,
            _ => u32::from(key.bytes().next().unwrap_or_default()),
        };
        for kind in ["rawKeyDown", "keyUp"] {
            let event = json!({"type": kind, "key": key, "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", &event)?;
        }
        Ok(())
    }

    /// Touches a point of the window with a finger.
    pub fn tap(&mut self, [x, y]: [f64; 2]) -> Result<()> {
        let at = json!({"x": x, "y": y, "gestureSourceType": "touch"});
        self.call("Input.synthesizeTapGesture", &at).map(drop)
    }

    /// A picture of the page's rectangle `[x, y, width, height]`, in a format of the web.
    pub fn picture(&mut self, [x, y, width, height]: [f64; 4], format: &str) -> Result<Vec<u8>> {
        let clip = json!({"x": x, "y": y, "width": width, "height": height, "scale": 1});
        let asked = json!({
            "format": format, "quality": 90, "captureBeyondViewport": true, "clip": clip,
        });
        let answer = self.call("Page.captureScreenshot", &asked)?;
        let picture = answer["data"].as_str().context("the browser sent no picture")?;
        Ok(BASE64_STANDARD.decode(picture)?)
    }

    /// What the page complained about since the last call: errors, warnings and failed requests.
    pub fn complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }

    /// Calls a method and waits for its answer.
    fn call(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.input.write_all(format!("{message}\0").as_bytes()).context("the browser is gone")?;
        loop {
            let answer = self.next()?;
            if answer["id"] == self.last {
                if let Some(error) = answer.get("error") {
                    bail!("{method}: {error}");
                }
                return Ok(answer["result"].clone());
            }
        }
    }

    /// The next message, after a note of what it complains about.
    fn next(&mut self) -> Result<Value> {
        let message =
            self.messages.recv_timeout(PATIENCE).context("the browser does not answer")?;
        let of = &message["params"];
        match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                self.complaints.push(exception(&of["exceptionDetails"]));
            }
            Some("Runtime.consoleAPICalled")
                if of["type"] == "error" || of["type"] == "warning" =>
            {
                self.complaints.push(of["args"].to_string());
            }
            Some("Log.entryAdded") if of["entry"]["level"] == "error" => {
                self.complaints.push(format!("{} {}", of["entry"]["text"], of["entry"]["url"]));
            }
            _ => {}
        }
        Ok(message)
    }
}

impl Drop for Browser {
    /// Asks the browser to close, with its child processes, and kills it if it does not.
    fn drop(&mut self) {
        let _ = self.input.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        for _ in 0..50 {
            if self.process.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The text of an exception.
fn exception(details: &Value) -> String {
    let text = details["exception"]["description"].as_str().or(details["text"].as_str());
    text.unwrap_or("an exception").to_owned()
}
