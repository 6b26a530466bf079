//! Message-bodies on their way to the program.

use super::first::lost;
use super::mend::{apache, lighttpd, nginx, nginx_params, nginx_upstream};
use super::{Case, Finding};
use crate::doctor::answer::{Answer, Way};
use crate::doctor::client::PAUSE;
use crate::doctor::probes::{BODY_SIZE, MOST_BODY, Outcome};
use crate::doctor::report::{Server, Severity};

/// Whether all of it arrived, or else what is to be said.
fn missing(outcome: &Outcome, length: u64) -> Option<String> {
    let Some(answer) = outcome.answer() else { return Some(outcome.text()) };
    if let Some(refused) = answer.refused {
        return Some(format!("refused with {}: {}", refused.status, refused.reason));
    }
    match answer.body {
        Some(body) if body.length == length && body.error.is_none() => None,
        Some(body) => {
            Some(format!("{} bytes arrive{}", body.length, body.error.map(|e| format!(", {e}")).unwrap_or_default()))
        }
        None => Some("none arrives".to_owned()),
    }
}

pub(super) fn body(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "body";
    let outcome = &case.rest.body;
    case.derived()?;
    if let Some(what) = missing(outcome, BODY_SIZE as u64) {
        return Some(Finding::fail(CHECK, format!("a message-body of {BODY_SIZE} bytes: {what}")));
    }
    let answer = outcome.answer()?;
    let [own, sent] = ["CONTENT_LENGTH", "HTTP_CONTENT_LENGTH"].map(|name| answer.value(name));
    Some(match sent {
        Some(sent) if own != Some(sent) => {
            let text = format!("CONTENT_LENGTH is {} and HTTP_CONTENT_LENGTH is {sent}", own.unwrap_or("missing"));
            Finding::fail(CHECK, text)
        }
        _ => Finding::ok(CHECK, "arrives whole, with its length"),
    })
}

/// Forms are told by it.
pub(super) fn content_type(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "content-type";
    let answer = case.rest.body.answer()?;
    Some(match answer.value("CONTENT_TYPE") {
        Some("application/x-cloakroom-doctor") => Finding::ok(CHECK, "reaches the program"),
        value => {
            let text = format!("CONTENT_TYPE is {}: no form is understood", value.unwrap_or("missing"));
            Finding::fail(CHECK, text).mend(nginx_params(case.way(), &["CONTENT_TYPE $content_type"], &[]))
        }
    })
}

fn whole_request(case: &Case<'_>) -> impl IntoIterator<Item = crate::doctor::report::Mend> {
    nginx_upstream(case.way(), &["request_buffering on"])
        .into_iter()
        .chain([lighttpd(["server.stream-request-body = 0"])])
}

/// An upload whose length was not announced.
pub(super) fn chunked(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "chunked";
    let outcome = &case.rest.chunked;
    case.derived()?;
    Some(match missing(outcome, BODY_SIZE as u64) {
        None => Finding::ok(CHECK, "a message-body without a length arrives whole"),
        Some(_) if outcome.status() == 411 && case.way() == Way::Scgi && case.server == Some(Server::Apache) => {
            Finding::note(CHECK, "Apache passes no message-body without a length over SCGI (411)")
        }
        Some(what) => {
            Finding::warn(CHECK, format!("a message-body without a length: {what}")).mend(whole_request(case))
        }
    })
}

/// nginx before 2026 may announce less than it was sent, where it does not wait for the whole (nginx/nginx#1118).
fn contradiction(answer: &Answer) -> Option<String> {
    let refused = answer.refused.as_ref().filter(|refused| refused.reason.contains("HTTP_CONTENT_LENGTH"))?;
    let [own, sent] = ["CONTENT_LENGTH", "HTTP_CONTENT_LENGTH"].map(|name| answer.value(name).unwrap_or("missing"));
    Some(format!(
        "a request is passed on before it is complete, with CONTENT_LENGTH {own} where the client said {sent}; it is \
         refused with {}",
        refused.status
    ))
}

/// Whether the program, and not its web server, waits for slow clients.
pub(super) fn buffering(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "buffering";
    let answer = case.rest.halves.as_ref()?.answer()?;
    if let Some(what) = contradiction(&answer) {
        return Some(Finding::fail(CHECK, what).mend(whole_request(case)));
    }
    let waited = u128::from(answer.body?.milliseconds);
    if waited < PAUSE.as_millis() / 2 {
        return Some(Finding::ok(CHECK, "requests are passed on when they are complete"));
    }
    let text =
        "requests are passed on while they arrive, so that a CGI script, or the pool's porter, waits for slow clients";
    Some(match case.server {
        Some(Server::Nginx | Server::Lighttpd) => Finding::warn(CHECK, text).mend(whole_request(case)),
        _ => Finding::note(CHECK, text),
    })
}

/// Whether the server takes as much as the program does, and a client is told where that ends.
pub(super) fn limit(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "body-limit";
    let limit = case.first.configured.body_limit;
    case.derived()?;
    let Some(full) = &case.rest.full else {
        return Some(Finding::note(CHECK, format!("{limit} bytes, which is more than the doctor sends ({MOST_BODY})")));
    };
    if let Some(what) = full.answer().as_ref().and_then(contradiction) {
        return Some(Finding::fail(CHECK, what).mend(whole_request(case)));
    }
    if let Some(what) = missing(full, limit) {
        let size =
            if limit > 0 && limit.is_multiple_of(1 << 20) { format!("{}m", limit >> 20) } else { limit.to_string() };
        return Some(
            Finding::warn(CHECK, format!("the program takes {limit} bytes; a message-body of that length: {what}"))
                .mend([
                    nginx([format!("client_max_body_size {size};")]),
                    apache([format!("LimitRequestBody {limit}")]),
                    lighttpd([format!("server.max-request-size = {}", limit.div_ceil(1024))]),
                ]),
        );
    }
    match &case.rest.over {
        Some(over) if over.status() != 413 => Some(lost(
            CHECK,
            Severity::Warn,
            &format!("a message-body of more than {limit} bytes is not answered with 413"),
            over,
        )),
        _ => Some(Finding::ok(CHECK, format!("{limit} bytes arrive, and more is answered with 413"))),
    }
}
