//! `cargo xtask exercise`: lists the exercises, or runs the law of one.

use std::{env, process::ExitCode};

use exercises::{Exercise, Level, State, catalog, charts, find, state};

const USAGE: &str = "usage: cargo xtask exercise [NUMBER] [--solution | --curves]";

fn main() -> ExitCode {
    // A blank panics; what it says is reported below.
    std::panic::set_hook(Box::new(|_| {}));
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => list(),
        [number] => with(number, run),
        [number, "--solution"] | ["--solution", number] => with(number, show),
        [number, "--curves"] | ["--curves", number] => with(number, draw),
        _ => refused(USAGE),
    }
}

fn refused(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(2)
}

fn with(number: &str, run: fn(&Exercise) -> ExitCode) -> ExitCode {
    find(number).map_or_else(
        || {
            let numbers: Vec<&str> = catalog().iter().map(|exercise| exercise.number).collect();
            refused(&format!("there is no exercise {number}; choose one of {}", numbers.join(", ")))
        },
        run,
    )
}

fn list() -> ExitCode {
    let (mut done, mut next) = (0, None);
    println!("{:<6}{:<14}{:<52}state", "", "level", "exercise");
    for exercise in catalog() {
        let state = state(exercise.law);
        done += usize::from(state == State::Done);
        if state != State::Done && next.is_none() {
            next = Some(exercise);
        }
        let level = level(exercise.level);
        println!(
            "{:<6}{level:<14}{:<52}{}",
            exercise.number,
            exercise.title,
            short(exercise, &state)
        );
    }
    println!("\n{done} of {} done.", catalog().len());
    if let Some(exercise) = next {
        println!(
            "Next: {} in {}, then `cargo xtask exercise {}`.",
            exercise.name, exercise.file, exercise.number
        );
    }
    ExitCode::SUCCESS
}

fn level(level: Level) -> &'static str {
    match level {
        Level::WarmUp => "1 warm-up",
        Level::Derive => "2 derive",
        Level::Build => "3 build",
        Level::Investigate => "4 investigate",
    }
}

/// A state in a line. The symptom of a debugging exercise is for those who do it.
fn short(exercise: &Exercise, state: &State) -> String {
    match state {
        State::ToDo => "to do".into(),
        State::Done => "done".into(),
        State::NotYet(_) if exercise.curves.is_some() => "not yet".into(),
        State::Panicked(message) => format!("panics: {}", first_line(message)),
        State::NotYet(why) => format!("not yet: {}", first_line(why)),
    }
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= 70 {
        return line.to_owned();
    }
    line.chars().take(69).chain(['…']).collect()
}

fn run(exercise: &Exercise) -> ExitCode {
    let Exercise { number, title, name, file, .. } = exercise;
    println!("{number} {title}");
    match state(exercise.law) {
        State::Done => {
            println!("done: the law holds. Compare: cargo xtask exercise {number} --solution");
            ExitCode::SUCCESS
        }
        State::ToDo => {
            println!("to do: write the function `{name}` in {file}");
            ExitCode::FAILURE
        }
        State::NotYet(why) => {
            println!("not yet:\n{why}");
            if exercise.curves.is_some() {
                println!("Look at it: cargo xtask exercise {number} --curves");
            }
            println!("`{name}` is in {file}");
            ExitCode::FAILURE
        }
        State::Panicked(message) => {
            println!("`{name}` in {file} panics: {message}");
            ExitCode::FAILURE
        }
    }
}

fn show(exercise: &Exercise) -> ExitCode {
    print!("{}", exercise.solution_text());
    ExitCode::SUCCESS
}

fn draw(exercise: &Exercise) -> ExitCode {
    let Some([yours, healthy]) = exercise.curves else {
        return refused(&format!("{} is no debugging exercise and has no curves", exercise.number));
    };
    let Ok(yours) = std::panic::catch_unwind(yours) else {
        return refused(&format!("`{}` in {} panics", exercise.name, exercise.file));
    };
    print!("{}", charts(&yours, &healthy()));
    ExitCode::SUCCESS
}
