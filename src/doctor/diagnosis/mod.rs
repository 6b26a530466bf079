//! From what came back to what is wrong: no network here.
#![expect(clippy::unnecessary_wraps, reason = "all checks are of one type")]

mod body;
mod fields;
mod first;
mod mend;
mod origin;
mod path;
#[cfg(test)]
mod tests;

use super::answer::{Answer, Derived, Way};
use super::probes::{Outcome, Rest, Seen};
use super::report::{Finding, Mend, Report, Server, Severity};
use super::target::Target;

/// What the checks look at.
struct Case<'a> {
    target: &'a Target,
    seen: &'a Seen,
    rest: &'a Rest,
    /// What the first request found.
    first: &'a Answer,
    server: Option<Server>,
}

type Check = fn(&Case<'_>) -> Option<Finding>;

/// In the order in which they are told. A check that cannot be made says nothing: what keeps it from being made is
/// another one's finding.
const CHECKS: &[Check] = &[
    first::answer,
    first::token,
    path::mount,
    path::page,
    path::bare,
    path::neighbour,
    path::path,
    path::slash,
    path::request_uri,
    path::script_name,
    path::query,
    origin::scheme,
    origin::cookie,
    origin::authority,
    origin::client,
    origin::forged,
    origin::remote_user,
    origin::variables,
    fields::authorization,
    fields::proxy,
    fields::repeated,
    fields::request_head,
    fields::response_head,
    fields::redirect,
    fields::error,
    body::body,
    body::content_type,
    body::chunked,
    body::buffering,
    body::limit,
];

pub(super) fn report(target: &Target, seen: &Seen) -> Report {
    let first = seen.first.answer();
    let software = software(&seen.first, first.as_ref());
    let server = software.as_deref().and_then(Server::named_in);
    let mut findings: Vec<Finding> = match (&first, &seen.rest) {
        (Some(first), Some(rest)) => {
            let case = Case { target, seen, rest, first, server };
            CHECKS.iter().filter_map(|check| check(&case)).collect()
        }
        _ => vec![first::no_answer(&seen.first)],
    };
    if let Some(server) = server {
        for finding in &mut findings {
            finding.mend.retain(|mend| mend.server == server || mend.server == Server::Program);
        }
    }
    Report { url: target.url("/"), software, server, findings }
}

/// What the front server calls itself: to the program, or else to its clients.
fn software(first: &Outcome, answer: Option<&Answer>) -> Option<String> {
    let to_program = answer.and_then(|answer| answer.value("SERVER_SOFTWARE")).filter(|text| !text.is_empty());
    let to_client = match first {
        Outcome::Reply(reply) => reply.all("Server").next(),
        Outcome::Failed(_) => None,
    };
    to_program.or(to_client).map(str::to_owned)
}

impl Case<'_> {
    fn way(&self) -> Way {
        self.first.way
    }

    /// What the program made of the first request.
    fn derived(&self) -> Option<&Derived> {
        self.first.request.as_ref()
    }

    /// Whether the program takes the URL's path for its mount.
    fn is_mounted_right(&self) -> bool {
        self.derived().is_some_and(|derived| derived.script_name == self.target.decoded_mount())
    }
}

impl Finding {
    fn new(check: &'static str, severity: Severity, text: impl Into<String>) -> Self {
        Self { check, severity, text: text.into(), mend: Vec::new() }
    }

    fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, Severity::Ok, text)
    }

    fn note(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, Severity::Note, text)
    }

    fn warn(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, Severity::Warn, text)
    }

    fn fail(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, Severity::Fail, text)
    }

    fn mend(mut self, mends: impl IntoIterator<Item = Mend>) -> Self {
        self.mend.extend(mends);
        self
    }
}

/// Whether both are the same once they are percent-decoded.
fn same_decoded(a: &str, b: &str) -> bool {
    percent_encoding::percent_decode_str(a).eq(percent_encoding::percent_decode_str(b))
}
