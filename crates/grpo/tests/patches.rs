//! The patches that the book shows belong to the example that it explains.

use std::{fs, path::Path};

/// The old and the new lines of every hunk of a patch.
fn hunks(patch: &str) -> Vec<[String; 2]> {
    let body = |hunk: &str| {
        let lines = || hunk.lines().skip(1);
        let without = |sign: char| {
            let kept = lines().filter(|line| !line.starts_with(sign));
            kept.map(|line| line.get(1..).unwrap_or("").to_owned() + "\n").collect::<String>()
        };
        [without('+'), without('-')]
    };
    patch.split("\n@@").skip(1).map(body).collect()
}

#[test]
fn every_patch_of_the_book_applies_to_the_whole_loop() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let source =
        fs::read_to_string(root.join("crates/grpo/examples/whole_loop.rs")).expect("the example");
    let patches = fs::read_dir(root.join("book/src/patches")).expect("the patches");
    let mut count = 0;
    for path in patches.map(|entry| entry.expect("an entry").path()) {
        let patch = fs::read_to_string(&path).expect("a patch");
        let hunks = hunks(&patch);
        assert!(!hunks.is_empty(), "{} has no hunk", path.display());
        for [old, new] in hunks {
            assert_eq!(source.matches(&old).count(), 1, "{}:\n{old}", path.display());
            assert_ne!(old, new, "{}", path.display());
        }
        count += 1;
    }
    assert!(count > 5, "{count} patches");
}
