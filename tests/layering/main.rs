//! Which room may know which: the table of the design, held against the source of this package.

mod check;
mod lexer;

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn the_source_keeps_the_rules_of_the_house() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for directory in ["src", "bin", "tests"] {
        collect(&root.join(directory), &mut files);
    }
    // A checker that looks into an empty place finds nothing wrong there.
    assert!(files.len() > 40, "only {} files found under {}", files.len(), root.display());
    assert!(files.contains(&root.join("src/lib.rs")));
    let problems: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let path = file.strip_prefix(root).unwrap().to_str().unwrap();
            check::problems(path, &fs::read_to_string(file).unwrap())
        })
        .collect();
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
