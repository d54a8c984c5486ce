//! Solutions pass, wrong answers are caught, blanks are blank.

mod mutants;

use std::collections::BTreeSet;

use exercises::{Exercise, Level, Noise, State, catalog, charts, find, state};

use crate::mutants::Mutant;

#[test]
fn every_solution_passes_its_law() {
    let failed: Vec<String> = catalog().iter().filter_map(failed).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// What is wrong with a solution.
fn failed(exercise: &Exercise) -> Option<String> {
    let state = state(exercise.solution);
    (state != State::Done).then(|| format!("{}: {state:?}", exercise.number))
}

#[test]
fn every_wrong_answer_is_caught_and_explained() {
    let mutants = mutants::all();
    let missed: Vec<String> = mutants.iter().filter_map(missed).collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    let tried: BTreeSet<&str> = mutants.iter().map(|mutant| mutant.number).collect();
    for exercise in catalog() {
        assert!(tried.contains(exercise.number), "{} has no wrong answer", exercise.number);
    }
    println!("{} wrong answers", mutants.len());
}

/// What a law did not notice or did not explain.
fn missed(Mutant { number, mistake, verdict, says }: &Mutant) -> Option<String> {
    let told = match verdict {
        Ok(()) => return Some(format!("{number}: the law does not notice {mistake}")),
        Err(fault) => fault.to_string(),
    };
    (!told.contains(says)).then(|| format!("{number}, {mistake}: {told}"))
}

/// For maintainers: `cargo xtask check` runs it.
#[test]
#[ignore = "fails in a clone in which somebody has begun"]
fn the_exercises_are_handed_out_blank() {
    for exercise in catalog() {
        let (number, state) = (exercise.number, state(exercise.law));
        if exercise.curves.is_some() {
            assert!(matches!(state, State::NotYet(_)), "{number} has its bug no more: {state:?}");
        } else {
            assert_eq!(state, State::ToDo, "{number} is no longer blank");
        }
    }
}

#[test]
fn a_panic_that_is_no_blank_is_reported_with_its_message() {
    assert_eq!(state(|| todo!("later")), State::ToDo);
    assert_eq!(state(|| panic!("index {}", 3)), State::Panicked("index 3".into()));
}

#[test]
fn there_are_exercises_of_four_levels_and_debugging_ones() {
    assert!(catalog().len() >= 24);
    for level in [Level::WarmUp, Level::Derive, Level::Build, Level::Investigate] {
        assert!(
            catalog().iter().filter(|exercise| exercise.level == level).count() >= 5,
            "{level:?}"
        );
    }
    assert!(catalog().iter().filter(|exercise| exercise.curves.is_some()).count() >= 3);
}

#[test]
fn numbers_name_exercises_and_are_in_order() {
    let key =
        |number: &str| -> Vec<u32> { number.split('.').map(|n| n.parse().unwrap()).collect() };
    assert!(catalog().is_sorted_by(|a, b| key(a.number) < key(b.number)));
    assert_eq!(find("3.2").unwrap().name, "flow_sde_step");
    assert!(find("3.22").is_none());
    let shown = find("3.1").unwrap().solution_text();
    assert!(shown.contains("pub fn score_from_velocity"), "{shown}");
    assert!(catalog().iter().all(|exercise| !exercise.solution_text().is_empty()));
}

#[test]
fn the_book_lists_every_exercise_with_its_statement_and_solution() {
    let book = concat!(env!("CARGO_MANIFEST_DIR"), "/../book/src");
    let pages = std::fs::read_dir(book).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        path.extension().is_some_and(|extension| extension == "md").then(|| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path.file_name().unwrap().to_owned(), text)
        })
    });
    let pages: Vec<_> = pages.collect();
    let (_, list) = pages.iter().find(|(name, _)| name == "exercises.md").expect("the list");
    for Exercise { number, title, name, level, file, .. } in catalog() {
        let row = format!("| {number} | {title} | {} ", *level as u8);
        assert!(list.contains(&row), "exercises.md has no row `{row}`");
        let include = |file: &str| format!("{{{{#include ../../{file}:{name}}}}}");
        let parts = [
            format!("<summary>{number} {title} ("),
            include(file),
            include(&file.replace("/src/", "/solutions/")),
        ];
        let on_page = |text: &str| parts.iter().all(|part| text.contains(part));
        assert!(pages.iter().any(|(_, text)| on_page(text)), "no page has all of {parts:?}");
        let written = std::fs::read_to_string(format!("{book}/../../{file}")).unwrap();
        let statement = format!("// ANCHOR: {name}\n/// **{number}** ");
        assert!(written.contains(&statement), "{file} has no `{statement}`");
    }
}

/// `cargo xtask exercise NUMBER --curves > exercises/curves/NUMBER.txt` makes them again.
#[test]
fn the_curves_in_the_book_are_those_of_the_program() {
    for exercise in catalog().iter().filter(|exercise| state(exercise.law) != State::Done) {
        if let Some([handed_out, healthy]) = exercise.curves {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/curves");
            let shown = std::fs::read_to_string(format!("{folder}/{}.txt", exercise.number));
            assert_eq!(shown.unwrap(), charts(&handed_out(), &healthy()), "{}", exercise.number);
        }
    }
}

#[test]
fn equal_seeds_give_equal_noise() {
    assert_eq!(Noise::new(7).normals(3), Noise::new(7).normals(3));
    assert_ne!(Noise::new(7).normals(3), Noise::new(8).normals(3));
}
