//! The environment file: variables that are set before anything else is read.
//!
//! What is accepted means the same as in a file of systemd's `EnvironmentFile=`; of what that accepts besides (lines that
//! are continued, text behind a quotation) nothing is taken in silence.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::sys::environment;

/// Why an environment file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvFileError {
    #[error("read environment file {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}:{line}: {what}", path.display())]
    Line { path: PathBuf, line: usize, what: String },
    #[error("cannot set the variables of {}: the process has more than one thread", path.display())]
    Threads { path: PathBuf },
}

/// What these say is for one process only, or decides about the reading of this file: they must not come from it.
const NOT_HERE: &[&str] =
    &["CLOAKROOM_ENV_FILE", "CLOAKROOM_HANDOFF", "GATEWAY_INTERFACE", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"];

/// Sets the variables of the file that are not set yet; returns the names of those that it has set.
pub(super) fn load(path: &Path) -> Result<Vec<OsString>, EnvFileError> {
    environment::add(&read(path)?).ok_or_else(|| EnvFileError::Threads { path: path.to_owned() })
}

/// The variables of the file.
pub(crate) fn read(path: &Path) -> Result<Vec<(String, String)>, EnvFileError> {
    let bytes = fs::read(path).map_err(|source| EnvFileError::Read { path: path.to_owned(), source })?;
    let wrong = |(line, what)| EnvFileError::Line { path: path.to_owned(), line, what };
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].split(|&byte| byte == b'\n').count();
        wrong((line, "not UTF-8".to_owned()))
    })?;
    parse(text).map_err(wrong)
}

/// Reads lines `NAME=VALUE`; of two with the same name the later counts. A mistake comes with the number of its line.
fn parse(text: &str) -> Result<Vec<(String, String)>, (usize, String)> {
    let mut variables: Vec<(String, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = |what: String| (number + 1, what);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| wrong("expected NAME=VALUE".to_owned()))?;
        // A value may be a secret, and so may what stands where a name should: neither is repeated.
        let name = name.trim_end();
        let is_name = |name: &str| {
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                && !name.starts_with(|c: char| c.is_ascii_digit())
        };
        if name.is_empty() || !is_name(name) {
            let what = if name.starts_with("export ") {
                "this is no shell script: NAME=VALUE without export"
            } else {
                "a name has letters, digits and underscores"
            };
            return Err(wrong(what.to_owned()));
        }
        if NOT_HERE.contains(&name) {
            return Err(wrong(format!("{name} cannot be set here")));
        }
        let value = unquote(value.trim()).map_err(|what| wrong(format!("{name}: {what}")))?;
        variables.retain(|(other, _)| other != name);
        variables.push((name.to_owned(), value));
    }
    Ok(variables)
}

/// What a value stands for: as it is in single quotes, with `\` before `"`, `\`, `` ` `` and `$` in double ones, and with
/// `\` before anything without.
fn unquote(text: &str) -> Result<String, &'static str> {
    let mut value = String::new();
    let mut chars = text.chars();
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    if quote.is_some() {
        chars.next();
    }
    loop {
        match chars.next() {
            Some('\0') => return Err("a value has no NUL"),
            None if quote.is_some() => return Err("the quotation does not end in this line"),
            None => return Ok(value),
            Some(c) if Some(c) == quote => {
                let is_end = chars.as_str().trim_start().is_empty();
                return if is_end { Ok(value) } else { Err("text behind the quotation") };
            }
            Some('\\') if quote != Some('\'') => match chars.next() {
                None => return Err("a line cannot be continued"),
                Some(c) if quote.is_some() && !matches!(c, '"' | '\\' | '`' | '$') => value.extend(['\\', c]),
                Some(c) => value.push(c),
            },
            Some(c) => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_systemd_reads() {
        let text = "# comment\n; another\n\n  A=1  \nB = two words # and this\nC=\"a # \\\"b\\\" \\n $\"\nD='x \\y'\n\
                    E=\nF=a\\ b\\\\\nG=\"\"\nA=2\nlower_9=it's\r\n";
        let expected = [
            ("B", "two words # and this"),
            ("C", "a # \"b\" \\n $"),
            ("D", "x \\y"),
            ("E", ""),
            ("F", "a b\\"),
            ("G", ""),
            ("A", "2"),
            ("lower_9", "it's"),
        ];
        let read = parse(text).unwrap();
        let read: Vec<_> = read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn mistakes_are_named_with_their_line_and_without_their_value() {
        for (text, line, what) in [
            ("A=1\nsecret", 2, "NAME=VALUE"),
            ("=secret", 1, "a name has"),
            ("\n\nexport A=secret", 3, "without export"),
            ("9A=secret", 1, "a name has"),
            ("A-B=secret", 1, "a name has"),
            ("A=\"secret", 1, "A: the quotation does not end"),
            ("A='secret' b", 1, "A: text behind"),
            ("A=secret\\", 1, "A: a line cannot be continued"),
            ("A=\"secret\\", 1, "A: a line cannot be continued"),
            ("A=secret\0", 1, "A: a value has no NUL"),
            ("GATEWAY_INTERFACE=secret", 1, "GATEWAY_INTERFACE cannot"),
            ("CLOAKROOM_ENV_FILE=secret", 1, "CLOAKROOM_ENV_FILE cannot"),
        ] {
            let (at, said) = parse(text).unwrap_err();
            assert_eq!(at, line, "{text}: {said}");
            assert!(said.contains(what) && !said.contains("secret"), "{text}: {said}");
        }
    }

    #[test]
    fn errors_name_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("env");
        let error = read(&path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("read environment file {}: ", path.display())), "{error}");
        fs::write(&path, b"A=1\nB=\xff\n").unwrap();
        assert_eq!(read(&path).unwrap_err().to_string(), format!("{}:2: not UTF-8", path.display()));
    }
}
