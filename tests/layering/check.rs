//! The rules of the house, applied to source text.

use crate::lexer::{Token, tokens};

/// Which room may name which others (beside itself).
const ARROWS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("sys", &["error"]),
    ("message", &["error"]),
    ("gateway", &["error", "message"]),
    ("session", &["error", "sys", "message"]),
    ("store", &["error", "sys", "session"]),
    // What examines a deployment from outside, and how it is answered: it knows none of what it examines.
    ("doctor", &[]),
    ("host", &["error", "sys", "message", "gateway", "session", "doctor"]),
    ("server", &["error", "sys", "message", "gateway", "session", "host", "doctor"]),
    ("admin", &["error", "sys", "session", "store"]),
    // What the parsers are tested with; in no build but the tests'.
    ("fuzzing", &["message", "gateway", "session", "store"]),
    // Guides, without any code.
    ("docs", &[]),
];

/// What a macro that is exported calls in somebody else's crate, where only the names at the top can be seen.
const MACRO_ARROWS: [(&str, &str); 1] = [("sys", "start")];

/// What only the tests of a room may name besides: they are no part of what is built. A host is tested with sessions,
/// and those need a store.
const TEST_ARROWS: &[(&str, &str)] = &[("host", "store"), ("server", "store")];

const MOST_LINES: usize = 650;

/// What is wrong with a file; `path` is relative to the package, with slashes.
pub(crate) fn problems(path: &str, source: &str) -> Vec<String> {
    let mut file = File { path, tokens: tokens(source), problems: Vec::new() };
    let lines = source.lines().count();
    if lines > MOST_LINES {
        file.report(lines, &format!("longer than {MOST_LINES} lines"));
    }
    if let Some(inner) = path.strip_prefix("src/") {
        if inner == "lib.rs" {
            file.only_declarations();
        } else {
            file.room(inner);
        }
    }
    if !path.starts_with("src/sys/") && (path.starts_with("src/") || path.starts_with("bin/")) {
        file.no_unsafe();
    }
    file.problems
}

struct InlineModule {
    /// How many braces were open before its own.
    braces: usize,
    is_test: bool,
}

struct File<'a> {
    path: &'a str,
    tokens: Vec<Token>,
    problems: Vec<String>,
}

impl File<'_> {
    fn report(&mut self, line: usize, what: &str) {
        self.problems.push(format!("{}:{line}: {what}", self.path));
    }

    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text.as_str())
    }

    fn line(&self, at: usize) -> usize {
        self.tokens.get(at).map_or(0, |token| token.line)
    }

    /// Whether `::` stands there.
    fn is_path_separator(&self, at: usize) -> bool {
        self.text(at) == ":" && self.text(at + 1) == ":"
    }

    fn no_unsafe(&mut self) {
        for at in 0..self.tokens.len() {
            if self.text(at) == "unsafe" {
                self.report(self.line(at), "unsafe outside of src/sys");
            }
        }
    }

    fn room(&mut self, inner: &str) {
        let (room, rest) = match inner.split_once('/') {
            Some((room, rest)) => (room, rest),
            None => (inner.trim_end_matches(".rs"), "mod.rs"),
        };
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            return self.report(1, &format!("room {room} is not in the table"));
        };
        // How many modules up the room itself is.
        let depth =
            rest.trim_end_matches("mod.rs").trim_end_matches(".rs").split('/').filter(|s| !s.is_empty()).count();
        let mut braces = 0;
        let mut inline_modules: Vec<InlineModule> = Vec::new();
        let is_test_file = inner.ends_with("/tests.rs") || inner.contains("/tests/");
        for at in 0..self.tokens.len() {
            let is_test = is_test_file || inline_modules.iter().any(|module| module.is_test);
            match self.text(at) {
                "{" => {
                    if at >= 2 && self.text(at - 2) == "mod" {
                        inline_modules.push(InlineModule { braces, is_test: self.is_for_tests(at - 2) });
                    }
                    braces += 1;
                }
                "}" => {
                    braces -= 1;
                    inline_modules.pop_if(|module| module.braces == braces);
                }
                "crate" if self.is_path_separator(at + 1) => {
                    for (line, name) in self.first_names(at + 3) {
                        self.arrow(line, room, allowed, &name, is_test);
                    }
                }
                "super" if self.is_path_separator(at + 1) && !self.follows_super(at) => {
                    let mut count = 1;
                    while self.text(at + 3 * count) == "super" {
                        count += 1;
                    }
                    if count > depth + inline_modules.len() {
                        self.report(self.line(at), &format!("super:: leaves the room {room}"));
                    }
                }
                name if room == "server" && !is_test && name.len() > 5 && name.ends_with("Store") => {
                    let what = format!("the concrete store {name} is named in src/server");
                    self.report(self.line(at), &what);
                }
                _ => {}
            }
        }
    }

    fn follows_super(&self, at: usize) -> bool {
        at >= 3 && self.text(at - 3) == "super" && self.is_path_separator(at - 2)
    }

    /// Whether the module declared at `at` is there for tests only.
    fn is_for_tests(&self, at: usize) -> bool {
        at >= 7 && (at - 7..at).map(|before| self.text(before)).eq(["#", "[", "cfg", "(", "test", ")", "]"])
    }

    fn arrow(&mut self, line: usize, room: &str, allowed: &[&str], name: &str, is_test: bool) {
        if name == room || allowed.contains(&name) || (is_test && TEST_ARROWS.contains(&(room, name))) {
            return;
        }
        if MACRO_ARROWS.contains(&(room, name)) {
            return;
        }
        if ARROWS.iter().any(|(other, _)| *other == name) {
            self.report(line, &format!("{room} may not know {name}"));
        } else if !is_test {
            self.report(line, &format!("crate::{name} is no room: name the room that it comes from"));
        }
    }

    /// The names that come first in what stands behind `crate::`: one, or several in braces.
    fn first_names(&self, at: usize) -> Vec<(usize, String)> {
        if self.text(at) != "{" {
            return vec![(self.line(at), self.text(at).to_owned())];
        }
        let mut names = Vec::new();
        let mut depth = 0;
        let mut is_first = false;
        for token in &self.tokens[at..] {
            match token.text.as_str() {
                "{" => {
                    depth += 1;
                    is_first = depth == 1;
                }
                "}" => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                "," => is_first = depth == 1,
                name if is_first => {
                    names.push((token.line, name.to_owned()));
                    is_first = false;
                }
                _ => {}
            }
        }
        names
    }

    /// lib.rs declares modules and re-exports names; the guides may be inline modules without any code, and a page that
    /// is tested hangs on a type that only doctests see.
    fn only_declarations(&mut self) {
        let mut at = 0;
        let mut is_doctest = false;
        while at < self.tokens.len() {
            let start = at;
            match self.text(at) {
                "}" => at += 1,
                "#" => {
                    at += 1 + usize::from(self.text(at + 1) == "!");
                    is_doctest |= (1..5).map(|ahead| self.text(at + ahead)).eq(["cfg", "(", "doctest", ")"]);
                    at = self.behind(at, "[", "]");
                }
                "struct" if is_doctest && self.text(at + 2) == ";" => {
                    at += 3;
                    is_doctest = false;
                }
                _ => {
                    let is_public = self.text(at) == "pub";
                    at += usize::from(is_public);
                    if self.text(at) == "(" {
                        at = self.behind(at, "(", ")");
                    }
                    match self.text(at) {
                        "mod" if self.text(at + 2) == ";" || self.text(at + 2) == "{" => at += 3,
                        "use" if is_public => {
                            while at < self.tokens.len() && self.text(at) != ";" {
                                at += 1;
                            }
                            at += 1;
                        }
                        _ => {
                            let what = format!("lib.rs declares and re-exports, nothing else: {}", self.text(at));
                            return self.report(self.line(start), &what);
                        }
                    }
                }
            }
        }
    }

    /// Where what is opened at `at` has been closed.
    fn behind(&self, mut at: usize, open: &str, close: &str) -> usize {
        let mut depth = 0;
        while at < self.tokens.len() {
            depth += i32::from(self.text(at) == open);
            depth -= i32::from(self.text(at) == close);
            at += 1;
            if depth == 0 {
                break;
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(path: &str, source: &str, what: &str) {
        let found = problems(path, source);
        assert_eq!(found.len(), 1, "{path}: {source}: {found:?}");
        assert!(found[0].contains(what), "{path}: {source}: {found:?}");
    }

    fn none(path: &str, source: &str) {
        assert_eq!(problems(path, source), [""; 0], "{path}: {source}");
    }

    #[test]
    fn an_arrow_that_points_up_is_seen() {
        one(
            "src/gateway/scgi.rs",
            "use crate::session::Session;",
            "src/gateway/scgi.rs:1: gateway may not know session",
        );
        one("src/sys/lock.rs", "\n\nuse crate::store::Place;", ":3: sys may not know store");
        one("src/error.rs", "use crate::sys::log;", "error may not know sys");
        one("src/host/mod.rs", "fn f() { let x: crate::server::Options; }", "host may not know server");
        one("src/server/pool/master.rs", "use crate::{error::Error, store::{a, b}};", "server may not know store");
        one(
            "src/session/mod.rs",
            "pub use crate::{\n    sys::lock,\n    gateway,\n};",
            ":3: session may not know gateway",
        );
        one("src/message/mod.rs", "macro_rules! m { () => { $crate::sys::log::line() } }", "message may not know sys");
    }

    #[test]
    fn a_name_without_its_room_is_seen() {
        one("src/server/run.rs", "use crate::Host;", "crate::Host is no room");
        one("src/server/run.rs", "use crate::*;", "crate::* is no room");
        one("src/server/run.rs", "use crate::{Host, host::Site};", "crate::Host is no room");
    }

    #[test]
    fn arrows_of_the_table_pass() {
        none("src/gateway/scgi.rs", "use crate::message::{Body, Request};\nuse crate::{error, gateway::Limits};");
        none("src/admin/mod.rs", "use crate::store::DirectoryStore;");
        none("src/server/run.rs", "pub(crate) fn f() {} pub(in crate::server) struct S;");
    }

    #[test]
    fn tests_may_know_a_little_more() {
        none("src/host/tests.rs", "use crate::store::MemoryStore;");
        one("src/host/mod.rs", "use crate::store::MemoryStore;", "host may not know store");
        one("src/host/tests.rs", "use crate::server::Options;", "host may not know server");
        one("src/gateway/tests.rs", "use crate::store::MemoryStore;", "gateway may not know store");
        none("src/server/run.rs", "#[cfg(test)] mod tests { use crate::store::MemoryStore; use crate::Request; }");
        one("src/server/run.rs", "#[cfg(test)] mod tests { } use crate::Request;", "crate::Request is no room");
        one("src/server/run.rs", "#[cfg(unix)] mod tests { use crate::store; }", "server may not know store");
        one("src/server/run.rs", "#[cfg(test)] mod tests { use crate::admin; }", "server may not know admin");
    }

    #[test]
    fn comments_and_strings_are_no_arrows() {
        none(
            "src/gateway/scgi.rs",
            "//! [`crate::session`]\n/* use crate::store; /* unsafe */ super::super::x */\n\
             const A: &str = \"use crate::host; \\\" unsafe\";\nconst B: &str = r#\"crate::host \" unsafe\"#;\n\
             const C: (char, u8) = ('\"', b'\\'');\nfn f<'a>(x: &'a str) {}",
        );
        // What follows them is seen again.
        one("src/gateway/scgi.rs", "const C: char = '\"'; use crate::host::Host; // \"", "gateway may not know host");
        one("src/gateway/scgi.rs", "fn f<'a>(x: &'a str) {} use crate::host;", "gateway may not know host");
        one("src/gateway/scgi.rs", "const B: &[u8] = br##\"\"#\"##; use crate::host;", "gateway may not know host");
    }

    #[test]
    fn a_room_that_the_table_does_not_have_is_seen() {
        one("src/attic/mod.rs", "", "room attic is not in the table");
        one("src/attic.rs", "", "room attic is not in the table");
    }

    #[test]
    fn super_that_leaves_its_room_is_seen() {
        one("src/store/mod.rs", "use super::session::Id;", "super:: leaves the room store");
        one("src/error.rs", "use super::session::Id;", "super:: leaves the room error");
        one("src/store/memory.rs", "use super::super::session::Id;", "super:: leaves the room store");
        one("src/store/directory/mod.rs", "use super::super::session;", "super:: leaves the room store");
        one("src/store/memory.rs", "mod tests { use super::super::super::session; }", "leaves the room store");
        one("src/store/memory.rs", "mod tests { fn f() {} } use super::super::session;", "leaves the room store");
        none("src/store/memory.rs", "use super::Durability; mod tests { use super::*; use super::super::x; }");
        none("src/store/directory/file.rs", "use super::super::memory::X; pub(super) fn f() {}");
        none("src/error.rs", "mod tests { use super::*; }");
    }

    #[test]
    fn unsafe_out_of_its_room_is_seen() {
        one("src/server/run.rs", "fn f() { unsafe { g() } }", "unsafe outside of src/sys");
        one("src/syst/run.rs", "", "room syst");
        one("bin/demo.rs", "unsafe fn f() {}", "unsafe outside of src/sys");
        one("src/lib.rs", "#![allow(unsafe)]", "unsafe outside of src/sys");
        none("src/sys/process.rs", "fn f() { unsafe { g() } }");
        none("src/server/run.rs", "#![deny(unsafe_code)]");
    }

    #[test]
    fn code_in_lib_is_seen() {
        for code in [
            "fn f() {}",
            "pub fn f() {}",
            "const X: u8 = 1;",
            "use std::io;",
            "pub mod guide { pub fn f() {} }",
            "mod a;\nstruct S;",
            "#[cfg(test)] struct S;",
            "#[cfg(doctest)] struct S { x: u8 }",
            "#[cfg(doctest)] struct S; struct T;",
            "macro_rules! m { () => {} }",
        ] {
            one("src/lib.rs", code, "lib.rs declares and re-exports");
        }
        none(
            "src/lib.rs",
            "//! Text\n#![warn(missing_docs)]\nmod error;\npub(crate) mod sys;\npub mod store;\n\
             #[cfg(feature = \"x\")]\npub use error::{Error, Result};\n\
             pub mod guides {\n    #[doc = include_str!(\"docs/deploy.md\")]\n    pub mod deploy {}\n}\n\
             #[cfg(doctest)]\n#[doc = include_str!(\"../README.md\")]\nstruct Readme;",
        );
    }

    #[test]
    fn a_long_file_is_seen() {
        one("tests/long.rs", &"//\n".repeat(MOST_LINES + 1), "longer than 650 lines");
        none("tests/long.rs", &"//\n".repeat(MOST_LINES));
    }

    #[test]
    fn a_concrete_store_in_the_server_is_seen() {
        one("src/server/run.rs", "fn f(store: DirectoryStore) {}", "concrete store DirectoryStore");
        one("src/server/pool/mod.rs", "type X = SqliteStore;", "concrete store SqliteStore");
        none("src/server/run.rs", "fn f(store: &dyn Store) {} // DirectoryStore");
    }
}
