//! Tests of the book's pages in a browser: every demo starts, every control changes its drawing, and
//! nothing complains. Also writes screenshots.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    BOOK,
    chromium::{self, Browser},
    server::Server,
};

/// Where screenshots go.
const SHOTS: &str = "target/book-shots";
/// Window sizes: a laptop and a phone.
const SIZES: [[u32; 2]; 2] = [[1280, 900], [390, 844]];
const THEMES: [&str; 2] = ["light", "navy"];
/// What runs in the page.
const PROBE: &str = include_str!("probe.js");
/// The folder with the report of a run and a comparison; `cargo xtask ci` makes them before the book
/// is tested.
const RUNS: &str = "target/smoke";
const REPORTS: [&str; 2] = ["toy/report.html", "compared.html"];
/// What uses a report.
const REPORT: &str = include_str!("report.js");
/// What looks at a page as a whole.
const PAGE: &str = include_str!("page.js");
/// Whether every demo shows its picture, and nothing else.
const STILLS: &str = "[...document.querySelectorAll('.demo')].every((demo) => \
    demo.querySelector('img')?.offsetHeight > 100 && !demo.querySelector('canvas'))";
/// What finds a reader's ways into a demo.
const INPUTS: &str = include_str!("inputs.js");
/// Numbers that the native build computes, which the test `native_numbers_are_those_of_the_file` of
/// the crate `demos` checks as well.
const NUMBERS: &str = "crates/demos/tests/numbers.json";

/// Tests all pages that have a demo. Without a browser it says that it does not; on GitHub, whose
/// machines have one, that is an error.
pub fn test() -> Result<()> {
    let Some(program) = chromium::find() else {
        let on_github = std::env::var_os("GITHUB_ACTIONS").is_some();
        ensure!(!on_github, "the demos of the book cannot be tested: there is no Chromium");
        println!("SKIPPED: the demos of the book are not tested, because there is no Chromium");
        println!("         (install it, or name it in the variable CHROMIUM)");
        return Ok(());
    };
    let all = pages(Path::new(BOOK))?;
    let pages: Vec<&String> = all.iter().filter(|(_, demo)| *demo).map(|(page, _)| page).collect();
    ensure!(!pages.is_empty(), "no page has a demo");
    let server = Server::start(Path::new(BOOK), 0)?;
    let site = format!("http://127.0.0.1:{}", server.port());
    let mut browser = Browser::start(&program, Path::new("target/chromium"))?;
    fs::create_dir_all(SHOTS)?;
    let mut problems = Vec::new();
    for (page, has_demo) in &all {
        for size in SIZES {
            browser.open(&format!("{site}/{page}"), size, THEMES[0])?;
            let found = browser.evaluate(&format!("({PAGE})()"))?;
            let found: Vec<String> = strings(&found).collect();
            let found = found.into_iter().chain(browser.complaints());
            problems.extend(found.map(|what| format!("{page}, {} px: {what}", size[0])));
        }
        if *has_demo {
            browser.open_without_scripts(&format!("{site}/{page}"))?;
            if browser.evaluate(STILLS)? != true {
                problems.push(format!("{page}: without scripts a demo shows no picture"));
            }
        }
    }
    for page in pages.iter().copied() {
        for (number, size) in SIZES.into_iter().enumerate() {
            for (other, theme) in THEMES.into_iter().enumerate() {
                browser.open(&format!("{site}/{page}"), size, theme)?;
                let place = format!("{page}, {} px, {theme}", size[0]);
                // Controls work alike in every theme, and layouts are those of the size.
                let moves = number == other;
                let found = look(&mut browser, page, size[0], theme, moves)?;
                let complaints = browser.complaints();
                problems.extend(
                    found.into_iter().chain(complaints).map(|what| format!("{place}: {what}")),
                );
            }
        }
    }
    problems.extend(wrong_numbers(&mut browser)?);
    problems.extend(reports(&mut browser)?);
    ensure!(problems.is_empty(), "the book in Chromium:\n  - {}", problems.join("\n  - "));
    println!(
        "book: {} pages tested in Chromium, {} of them with demos; screenshots in {SHOTS}",
        all.len(),
        pages.len()
    );
    Ok(())
}

/// Uses the reports of runs, if there are any; returns what is wrong with them.
fn reports(browser: &mut Browser) -> Result<Vec<String>> {
    let (pages, missing): (Vec<_>, Vec<_>) =
        REPORTS.into_iter().partition(|page| Path::new(RUNS).join(page).is_file());
    for page in missing {
        println!("{RUNS}/{page} is not tested: `cargo xtask ci` makes it");
    }
    let mut problems = Vec::new();
    if pages.is_empty() {
        return Ok(problems);
    }
    let server = Server::start(Path::new(RUNS), 0)?;
    for page in pages {
        for size in SIZES {
            let url = format!("http://127.0.0.1:{}/{page}", server.port());
            browser.open(&url, size, THEMES[0])?;
            let mut found = Vec::new();
            for script in [PAGE, REPORT] {
                found.extend(strings(&browser.evaluate(&format!("({script})()"))?));
            }
            // A browser asks every site for an icon; a report is opened as a file.
            let complaints = browser.complaints().into_iter();
            found.extend(complaints.filter(|what| !what.contains("favicon.ico")));
            problems.extend(found.iter().map(|what| format!("{page}, {} px: {what}", size[0])));
        }
    }
    Ok(problems)
}

/// Looks at the demos of the open page, moves their controls, and writes a screenshot of each;
/// returns what is wrong.
fn look(
    browser: &mut Browser,
    page: &str,
    width: u32,
    theme: &str,
    moves: bool,
) -> Result<Vec<String>> {
    let count = browser.evaluate("document.querySelectorAll('.demo').length")?;
    let mut problems = Vec::new();
    for demo in 0..count.as_u64().context("a number of demos")? {
        let seen = browser.evaluate(&format!("({PROBE})({demo}, {moves})"))?;
        let name = seen["name"].as_str().unwrap_or("unnamed");
        problems.extend(strings(&seen["problems"]).map(|what| format!("{name}: {what}")));
        if moves {
            println!(
                "{name:<12} {width:>5} px {theme:<6} {:>5.0} frames a second",
                seen["frames"].as_f64().unwrap_or(0.0)
            );
        }
        if moves {
            let idle = inputs(browser, demo, width < 600)?;
            problems.extend(idle.into_iter().map(|what| format!("{name}: {what}")));
        }
        let side = |index: usize| seen["box"][index].as_f64().context("the probe saw a box");
        let picture = browser.picture([side(0)?, side(1)?, side(2)?, side(3)?], "png")?;
        let page = page.trim_end_matches(".html").replace('/', "-");
        fs::write(Path::new(SHOTS).join(format!("{page}-{name}-{width}-{theme}.png")), picture)?;
    }
    Ok(problems)
}

/// How often a reader tries a control: a touch is lost while the page still moves.
const TRIES: usize = 5;

/// Moves every slider of a demo and uses its drawings, by keys or by touch; returns what does not
/// react.
fn inputs(browser: &mut Browser, demo: u64, touch: bool) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for number in 0.. {
        let find = format!("({INPUTS})({demo}, {number})");
        let Some(what) = browser.evaluate(&find)?["what"].as_str().map(str::to_owned) else {
            return Ok(problems);
        };
        let mut reacts = false;
        for _ in 0..TRIES {
            let input = browser.evaluate(&find)?;
            let side = |name: &str| input[name].as_f64().context("an input has a place");
            if touch {
                browser.tap([side("x")?, side("y")?])?;
            } else {
                strings(&input["keys"]).try_for_each(|key| browser.press(&key))?;
            }
            reacts = browser.evaluate("changed()")? == true;
            if reacts {
                break;
            }
        }
        if !reacts {
            let by = if touch { "a touch" } else { "the keyboard" };
            problems.push(format!("{what} does not react to {by}"));
        }
    }
    Ok(problems)
}

/// Compares the numbers that the demos compute in the browser with those of a native build.
fn wrong_numbers(browser: &mut Browser) -> Result<Vec<String>> {
    let text = fs::read_to_string(NUMBERS).with_context(|| format!("cannot read {NUMBERS}"))?;
    let expected: Value = serde_json::from_str(&text)?;
    let mut problems = Vec::new();
    for one in expected.as_array().context("a list of numbers")? {
        let [code, tolerance] = ["code", "tolerance"].map(|key| &one[key]);
        let code = code.as_str().context("code")?;
        let run = format!(
            "import('./demos/wasm.js').then(async (wasm) => {{ await wasm.default(); {code} }})"
        );
        let seen = floats(&browser.evaluate(&run)?);
        let wanted = floats(&one["numbers"]);
        let tolerance = tolerance.as_f64().context("a tolerance")?;
        let far = seen.iter().zip(&wanted).find(|(a, b)| (*a - *b).abs() > tolerance);
        if let Some((seen, wanted)) = far {
            problems.push(format!("`{code}` gives {seen} in the browser and {wanted} natively"));
        }
        if seen.len() != wanted.len() {
            problems.push(format!("`{code}` gives {} numbers", seen.len()));
        }
    }
    Ok(problems)
}

/// The pages of a folder, as paths in the site, with whether they have a demo.
pub fn pages(book: &Path) -> Result<Vec<(String, bool)>> {
    let mut pages = Vec::new();
    let mut folders = vec![PathBuf::from(book)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.strip_prefix(book)?.to_string_lossy().replace('\\', "/");
            let special = ["print.html", "404.html", "toc.html"].contains(&name.as_str());
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "html") && !special {
                pages.push((name, fs::read_to_string(&path)?.contains("class=\"demo\"")));
            }
        }
    }
    pages.sort();
    Ok(pages)
}

fn strings(list: &Value) -> impl Iterator<Item = String> + '_ {
    list.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned))
}

fn floats(list: &Value) -> Vec<f64> {
    list.as_array().into_iter().flatten().map(|one| one.as_f64().unwrap_or(f64::NAN)).collect()
}
