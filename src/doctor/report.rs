//! What the doctor found.

use std::fmt::Write as _;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// As it should be.
    Ok,
    /// A way of this server that is good to know; nothing is to be mended.
    Note,
    /// To be mended: something is lost, or refused that need not be.
    Warn,
    /// To be mended: the application does not work as it should, or not safely.
    Fail,
}

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Server {
    /// nginx.
    Nginx,
    /// Apache's httpd.
    Apache,
    /// lighttpd.
    Lighttpd,
    /// The program that is built on this library.
    Program,
}

impl Server {
    pub(super) fn named_in(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let known = [("nginx", Self::Nginx), ("apache", Self::Apache), ("lighttpd", Self::Lighttpd)];
        known.into_iter().find(|(name, _)| text.contains(name)).map(|(_, server)| server)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Apache => "Apache",
            Self::Lighttpd => "lighttpd",
            Self::Program => "the program",
        }
    }
}

/// Lines that mend something, in place of those of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Mend {
    /// Whose configuration they belong to.
    pub server: Server,
    /// Where in it.
    pub place: &'static str,
    /// The lines.
    pub lines: Vec<String>,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// The check's name.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is so, in one line.
    pub text: String,
    /// What mends it: for the front server where that was recognised, else for each; empty where nothing is to be
    /// mended, or no line would.
    pub mend: Vec<Mend>,
}

/// What the doctor found.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The URL that was examined.
    pub url: String,
    /// What the front server calls itself, where it does.
    pub software: Option<String>,
    /// The front server, where it was recognised.
    pub server: Option<Server>,
    /// The checks that could be made, in their order.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether there is nothing to mend.
    pub fn is_healthy(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity <= Severity::Note)
    }

    /// One line for each check, and below it what mends it.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = writeln!(out, "{} ({})", self.url, printable(self.software.as_deref().unwrap_or("unknown server")));
        for finding in &self.findings {
            let severity = match finding.severity {
                Severity::Ok => "ok",
                Severity::Note => "note",
                Severity::Warn => "warn",
                Severity::Fail => "fail",
            };
            let _ = writeln!(out, "{severity:<5}{}: {}", finding.check, printable(&finding.text));
            for mend in &finding.mend {
                let _ = writeln!(out, "       {}, {}:", mend.server.name(), mend.place);
                for line in &mend.lines {
                    let _ = writeln!(out, "           {}", printable(line));
                }
            }
        }
        let count = self.findings.iter().filter(|finding| finding.severity > Severity::Note).count();
        let _ = match count {
            0 => writeln!(out, "nothing to mend"),
            count => writeln!(out, "to mend: {count}; the lines take the place of those of the same name"),
        };
        out
    }

    /// The same as JSON, one object.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What others sent must not drive a terminal.
fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(severity: Severity) -> Report {
        let mend = vec![Mend { server: Server::Nginx, place: "in the location", lines: vec!["a b;".to_owned()] }];
        let finding = Finding { check: "scheme", severity, text: "it is\u{1b}[2J".to_owned(), mend };
        Report { url: "http://a/".to_owned(), software: None, server: None, findings: vec![finding] }
    }

    #[test]
    fn is_read_by_people_and_by_programs() {
        let text = report(Severity::Fail).to_text();
        assert_eq!(
            text,
            "http://a/ (unknown server)\nfail scheme: it is\\u{1b}[2J\n       nginx, in the location:\n           a b;\n\
             to mend: 1; the lines take the place of those of the same name\n"
        );
        let json: serde_json::Value = serde_json::from_str(&report(Severity::Warn).to_json()).unwrap();
        assert_eq!(json["findings"][0]["severity"], "warn");
        assert_eq!(json["findings"][0]["mend"][0]["server"], "nginx");
    }

    #[test]
    fn notes_are_nothing_to_mend() {
        assert!(report(Severity::Ok).is_healthy() && report(Severity::Note).is_healthy());
        assert!(!report(Severity::Warn).is_healthy() && !report(Severity::Fail).is_healthy());
    }
}
