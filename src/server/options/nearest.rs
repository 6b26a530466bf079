//! What somebody may have meant who has mistyped a name.

/// The candidate that is most like `word`, if one is like it at all.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // It is longer than any name.
    if word.len() > 64 {
        return None;
    }
    // A third of it may be wrong.
    let most = (word.len() / 3).max(1);
    let (distance, name) =
        candidates.map(|name| (distance(word.as_bytes(), name.as_bytes()), name)).min_by_key(|(d, _)| *d)?;
    (distance <= most).then_some(name)
}

/// How many letters to insert, remove, change or swap with their neighbour, to make one word of the other.
fn distance(one: &[u8], other: &[u8]) -> usize {
    let mut before = vec![0; other.len() + 1];
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, &a) in one.iter().enumerate() {
        let mut next = vec![i + 1; other.len() + 1];
        for (j, &b) in other.iter().enumerate() {
            next[j + 1] = (row[j] + usize::from(a != b)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && a == other[j - 1] && one[i - 1] == b {
                next[j + 1] = next[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut row, next);
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let names = ["workers", "http", "socket-mode", "socket-owner", "user"];
        for (word, meant) in [
            ("worker", Some("workers")),
            ("wrokers", Some("workers")),
            ("htpt", Some("http")),
            ("socket-onwer", Some("socket-owner")),
            ("sockets-mode", Some("socket-mode")),
            ("uesr", Some("user")),
            ("frobnicate", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, names.into_iter()), meant, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(1000), names.into_iter()), None);
        assert_eq!(nearest("word", std::iter::empty()), None);
    }

    #[test]
    fn distances_are_exact() {
        for (one, other, expected) in [("", "", 0), ("ab", "ba", 1), ("kitten", "sitting", 3), ("", "abc", 3)] {
            assert_eq!(distance(one.as_bytes(), other.as_bytes()), expected, "{one} {other}");
            assert_eq!(distance(other.as_bytes(), one.as_bytes()), expected, "{other} {one}");
        }
    }
}
