//! The tables of the guides name tests: all of them are there, and all that is here is named.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const THREATS: &str = include_str!("../../src/docs/threat-model.md");
const RELIABILITY: &str = include_str!("../../src/docs/reliability.md");

/// The tests in the sources: room or target, and name.
fn tests() -> BTreeSet<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for directory in ["src", "tests"] {
        for entry in fs::read_dir(root.join(directory)).expect("list") {
            let path = entry.expect("entry").path();
            let target = path.file_stem().expect("a name").to_str().expect("text").to_owned();
            collect(&path, &target, &mut files);
        }
    }
    assert!(files.len() > 100, "only {} files", files.len());
    let mut tests = BTreeSet::new();
    for (target, source) in files {
        let mut is_test = false;
        for line in source.lines().map(str::trim) {
            // Cases that several servers, ways or stores go through are made tests by a macro.
            let cases = [("front_servers", "(front: Front)"), ("demo", "(site: &Site)"), ("store", "<S: Store")];
            let is_case = cases.iter().any(|(of, case)| *of == target && line.contains(case));
            if line == "#[test]" {
                is_test = true;
            } else if let Some(name) = name_of_function(line)
                && (std::mem::take(&mut is_test) || is_case)
            {
                tests.insert((target.clone(), name.to_owned()));
            }
        }
    }
    tests
}

fn name_of_function(line: &str) -> Option<&str> {
    let line = ["pub(crate) ", "pub(super) ", "pub "].iter().find_map(|word| line.strip_prefix(word)).unwrap_or(line);
    line.strip_prefix("fn ")?.split(['(', '<']).next()
}

fn collect(path: &Path, target: &str, files: &mut Vec<(String, String)>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("list") {
            collect(&entry.expect("entry").path(), target, files);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        files.push((target.to_owned(), fs::read_to_string(path).expect("read")));
    }
}

/// Names of tests in a text: in backquotes, with the room or the target in front, `target::name` or
/// `target::module::name`.
fn named(text: &str) -> BTreeSet<(String, String)> {
    let spans = text.split('`').skip(1).step_by(2);
    let is_path = |span: &&str| {
        let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | ':');
        span.contains("::") && span.chars().all(ok)
    };
    spans
        .filter(is_path)
        .map(|span| {
            let (target, rest) = span.split_once("::").expect("two parts");
            (target.to_owned(), rest.rsplit("::").next().expect("a name").to_owned())
        })
        .collect()
}

fn scoreboard() -> &'static str {
    let text = RELIABILITY.split_once("\n## Scoreboard\n").expect("the scoreboard").1;
    text.split("\n## ").next().expect("its text")
}

fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}

#[test]
fn every_test_that_a_guide_names_is_there() {
    let tests = tests();
    let named: BTreeSet<_> = named(THREATS).union(&named(scoreboard())).cloned().collect();
    assert!(named.len() > 60, "only {} names found", named.len());
    let missing: Vec<_> = named.difference(&tests).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

#[test]
fn every_test_here_is_named_in_a_guide() {
    let named: BTreeSet<_> = named(THREATS).union(&named(scoreboard())).cloned().collect();
    let here = tests().into_iter().filter(|(target, _)| target == "known_bugs");
    let unnamed: Vec<_> = here.filter(|test| !named.contains(test) && !test.1.starts_with("every_")).collect();
    assert!(unnamed.is_empty(), "in no table: {unnamed:#?}");
}

#[test]
fn every_row_has_a_test_or_a_reason() {
    for number in 1..=16 {
        let name = format!("S{number}");
        let row = rows(THREATS).find(|row| row[0] == name).unwrap_or_else(|| panic!("no row {name}"));
        let has_test = !self::named(row[2]).is_empty();
        assert!(has_test || row[2].contains("Does not apply"), "{name}: {row:?}");
    }
    for number in 1..=31 {
        let row =
            rows(scoreboard()).find(|row| row[0] == number.to_string()).unwrap_or_else(|| panic!("no row {number}"));
        let has_test = !self::named(row[2]).is_empty() || row[2].contains("`tests/") || row[2].contains("`cargo ");
        assert!(has_test, "{number}: {row:?}");
    }
}
