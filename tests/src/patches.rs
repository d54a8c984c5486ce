//! The patches that the book shows, applied to the example that they change and compiled: an error
//! in one of the modules below is an error in a patch of that name.

#![cfg(test)]
#![expect(dead_code, reason = "the patched programs are compiled and not run")]

include!(concat!(env!("OUT_DIR"), "/patched.rs"));

#[test]
fn every_patch_of_the_book_applies_to_the_whole_loop_and_compiles() {
    // The work is done: `build.rs` applies, and the compiler has read the modules.
    assert!(NAMES.len() > 5, "{NAMES:?}");
    let book = concat!(env!("CARGO_MANIFEST_DIR"), "/../book/src");
    let pages = ["after.md", "sick-runs.md"]
        .map(|page| std::fs::read_to_string(format!("{book}/{page}")).expect("a page"));
    for name in NAMES {
        let include = format!("patches/{name}.patch");
        assert!(pages.iter().any(|page| page.contains(&include)), "no page shows {include}");
    }
}

#[test]
fn the_whole_loop_has_the_150_lines_that_the_book_promises() {
    let example = include_str!("../../crates/grpo/examples/whole_loop.rs");
    let program = example.split("#[cfg(test)]").next().expect("the program");
    let lines = program.lines().map(str::trim);
    let code = lines.filter(|line| !line.is_empty() && !line.starts_with("//")).count();
    assert!(code <= 150, "{code} lines of code");
}
