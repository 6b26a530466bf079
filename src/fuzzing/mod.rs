//! What hostile bytes are held against: one function per parser, and one for what is written. Each takes any bytes and
//! panics where something that must always hold does not.
//!
//! `tests/fuzz` feeds them with libFuzzer, the tests here with mutations of what real servers have sent. No part of what
//! is built otherwise.

mod http;
mod message;
mod request;
mod response;
mod session_file;
#[cfg(test)]
mod tests;

/// A function that any bytes may be given to.
pub type Target = fn(&[u8]);

/// All of them, by the names of their directories in `tests/fuzz/corpus`.
pub const TARGETS: [(&str, Target); 8] = [
    ("scgi", request::scgi),
    ("http", http::http),
    ("chunked", http::chunked),
    ("cgi", request::cgi),
    ("cookie", message::cookie),
    ("form", message::form),
    ("response", response::response),
    ("session_file", session_file::session_file),
];

/// The function of this name.
///
/// # Panics
/// If there is none.
pub fn target(name: &str) -> Target {
    TARGETS.iter().find(|(known, _)| *known == name).expect("a target").1
}
