//! Header fields, on their way to the program and back.

use super::first::lost;
use super::mend::{apache, apache_location, lighttpd, nginx_params, nginx_server, nginx_upstream};
use super::{Case, Finding, same_decoded};
use crate::doctor::answer::{LANDING, PROBE_VARIABLE, SECOND_COOKIE, Way};
use crate::doctor::probes::{AUTHORIZATION, FIELD_SIZE, HEAD_SIZES, Outcome};
use crate::doctor::report::Severity;

pub(super) fn authorization(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "authorization";
    let outcome = &case.rest.authorization;
    let lines = || {
        let scgi = ["HTTP_AUTHORIZATION $http_authorization if_not_empty"];
        nginx_params(case.way(), &scgi, &["Authorization $http_authorization"])
    };
    Some(match outcome.answer() {
        Some(answer) if answer.length("HTTP_AUTHORIZATION") == Some(AUTHORIZATION.len()) => {
            Finding::ok(CHECK, "reaches the program")
        }
        Some(_) => Finding::warn(CHECK, "the server keeps it to itself: no program can check passwords or tokens")
            .mend([apache_location(case.way(), ["CGIPassAuth On"])])
            .mend(lines()),
        None if outcome.status() == 401 => Finding::note(CHECK, "the server checks passwords itself"),
        None => lost(CHECK, Severity::Warn, "a request with Authorization does not reach the program", outcome),
    })
}

/// httpoxy, CVE-2016-5385.
pub(super) fn proxy(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "proxy";
    let answer = case.rest.proxy.answer()?;
    if case.way() == Way::Http || answer.length("HTTP_PROXY").is_none() {
        return Some(Finding::ok(CHECK, "a client's Proxy header field is no HTTP_PROXY"));
    }
    if case.first.length("HTTP_PROXY").is_some() {
        return Some(Finding::note(
            CHECK,
            "HTTP_PROXY comes with every request: it is the server's own; this program drops it",
        ));
    }
    let text = "a client's Proxy header field is passed as HTTP_PROXY (httpoxy); this program drops it, others do not";
    Some(Finding::warn(CHECK, text).mend(nginx_params(case.way(), &["HTTP_PROXY \"\" if_not_empty"], &[])))
}

pub(super) fn repeated(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "repeated-fields";
    let outcome = &case.rest.repeated;
    let Some(answer) = outcome.answer() else {
        return Some(lost(
            CHECK,
            Severity::Warn,
            "a request with two fields of one name does not reach the program",
            outcome,
        ));
    };
    let values: Option<Vec<&str>> = answer.value(PROBE_VARIABLE).map(|value| value.split(',').map(str::trim).collect());
    let cookies = answer.length("HTTP_COOKIE");
    Some(match (values.as_deref(), cookies) {
        (Some(["a", "b"]), Some(28)) => Finding::ok(CHECK, "joined"),
        (Some(["a", "b"]), _) => Finding::warn(CHECK, "of two Cookie fields, one is lost"),
        (values, _) => Finding::warn(
            CHECK,
            format!("of two fields with values a and b arrives {}", values.unwrap_or_default().join(", ")),
        ),
    })
}

pub(super) fn request_head(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "request-head";
    let outcome = &case.rest.field;
    let arrived = outcome.answer().and_then(|answer| answer.length("HTTP_X_CLOAKROOM_LONG"));
    if arrived == Some(FIELD_SIZE) {
        return Some(Finding::ok(CHECK, format!("a header field of {FIELD_SIZE} bytes reaches the program")));
    }
    let what = format!("a header field of {FIELD_SIZE} bytes does not reach the program");
    Some(
        lost(CHECK, Severity::Warn, &what, outcome)
            .mend([nginx_server(["large_client_header_buffers 4 8k;"])])
            .mend([apache(["LimitRequestFieldSize 8190"]), lighttpd(["server.max-request-field-size = 8192"])]),
    )
}

pub(super) fn response_head(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "response-head";
    let (size, outcome) = case.rest.heads.last()?;
    if outcome.answer().is_some() {
        return Some(Finding::ok(CHECK, format!("{size} bytes reach the client")));
    }
    // Two cookies of the largest size that browsers keep would be enough for it.
    let severity = if *size == HEAD_SIZES[2] { Severity::Warn } else { Severity::Fail };
    Some(
        lost(CHECK, severity, &format!("a response head of {size} bytes does not reach the client"), outcome)
            .mend(nginx_upstream(case.way(), &["buffer_size 16k", "buffers 8 16k"])),
    )
}

/// A redirect with cookies: whether they survive, and whether it is the client who follows it.
pub(super) fn redirect(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "redirect";
    let derived = case.derived()?;
    let Outcome::Reply(reply) = &case.rest.redirect else {
        return Some(lost(CHECK, Severity::Fail, "a redirect does not reach the client", &case.rest.redirect));
    };
    let wanted = format!("{}://{}{}{LANDING}", derived.scheme, derived.authority, derived.script_name);
    let location = reply.all("Location").next();
    // A reverse proxy may put its own address in place of the one that the program was asked by.
    let seen_from_here = case.target.url(LANDING);
    let is_right = |location: &str| same_decoded(location, &wanted) || same_decoded(location, &seen_from_here);
    if reply.status != 303 || !location.is_some_and(is_right) {
        let text = format!(
            "status 303 with Location {wanted} arrives as {} with {}",
            reply.status,
            location.unwrap_or("none")
        );
        let lines = (case.way() == Way::Http).then(|| nginx_upstream(Way::Http, &["redirect off"])).flatten();
        return Some(Finding::fail(CHECK, text).mend(lines));
    }
    let cookies: Vec<&str> = reply.all("Set-Cookie").collect();
    let lost_one = [derived.cookie.as_str(), SECOND_COOKIE].into_iter().find(|cookie| !cookies.contains(cookie));
    Some(match lost_one {
        None => Finding::ok(CHECK, "arrives as it was sent, with two cookies"),
        Some(cookie) => {
            let text =
                format!("Set-Cookie: {cookie} is lost or changed on its way; what arrives: {}", cookies.join(" | "));
            Finding::fail(CHECK, text).mend(nginx_upstream(case.way(), &["pass_header Set-Cookie"]))
        }
    })
}

/// Errors are the program's own pages.
pub(super) fn error(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "errors";
    let outcome = &case.rest.error;
    case.derived()?;
    if outcome.status() == 404 && outcome.answer().is_some() {
        return Some(Finding::ok(CHECK, "the program's own pages reach the client"));
    }
    let finding = lost(CHECK, Severity::Warn, "the program's page with status 404 is replaced", outcome)
        .mend(nginx_upstream(case.way(), &["intercept_errors off"]))
        .mend([lighttpd(["server.error-intercept = \"disable\""])]);
    Some(match case.way() {
        Way::Http => finding.mend([apache_location(Way::Http, ["ProxyErrorOverride Off"])]),
        _ => finding,
    })
}
