//! Log lines on stderr: one line, one write.

use std::fmt;
use std::io::Write as _;

/// Writes one line to stderr, `cloakroom: ` before it, with a single write so that the lines of several processes do
/// not mix. Control characters are escaped: what a client sent cannot start a line of its own.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let mut line = String::from("cloakroom: ");
    for c in text.to_string().chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line.push('\n');
    // Nobody is left to be told where the log cannot be written.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Writes one line to the log; the arguments are those of `format!`.
macro_rules! log {
    ($($argument:tt)*) => { $crate::sys::log::line(format_args!($($argument)*)) };
}
pub(crate) use log;
