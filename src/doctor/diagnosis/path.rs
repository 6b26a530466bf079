//! Paths: the mount, and what becomes of a path on its way.

use super::first::lost;
use super::mend::{self, apache, lighttpd, lighttpd_entry, nginx_params, program};
use super::{Case, Finding, same_decoded};
use crate::doctor::answer::Way;
use crate::doctor::probes::{DECODED_PATH, ESCAPED_PATH, Outcome, QUERY, SLASH_PATH};
use crate::doctor::report::{Mend, Server, Severity};

fn named(mount: &str) -> String {
    if mount.is_empty() { "the root".to_owned() } else { mount.to_owned() }
}

/// The mount that the URL says, and the one that the program goes by.
pub(super) fn mount(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "mount";
    let wanted = case.target.decoded_mount();
    let configured = case.first.configured.script_name.as_deref();
    let taken = match (&case.first.refused, case.derived()) {
        (Some(refused), _) if refused.status == 404 => configured.unwrap_or_default(),
        (None, Some(derived)) if derived.script_name == wanted => {
            return Some(Finding::ok(CHECK, named(&wanted)));
        }
        (None, Some(derived)) => &derived.script_name,
        // Refused for something else.
        _ => return None,
    };
    let text = format!("the program is mounted at {}, and this URL says {}", named(taken), named(&wanted));
    let value = if wanted.is_empty() { "/" } else { &wanted };
    Some(Finding::fail(CHECK, text).mend(program(case.way(), "--script-name", "CLOAKROOM_SCRIPT_NAME", value)))
}

/// The lines that say which paths are the program's.
fn mount_lines(case: &Case<'_>) -> Vec<Mend> {
    let mount = case.target.mount();
    let slash = if mount.is_empty() { "/" } else { "" };
    match case.way() {
        Way::Cgi => vec![apache([format!("ScriptAlias \"{mount}{slash}\" \"/usr/local/lib/cloakroom/demo{slash}\"")])],
        way => {
            let location = mend::apache_first_line(format!("<Location \"{mount}{slash}\">"));
            let entry = lighttpd([format!("scgi.server = ( \"{mount}{slash}\" => (( ... )))")]);
            let mends = [Some(mend::nginx_location(mount)), Some(location), (way == Way::Scgi).then_some(entry)];
            mends.into_iter().flatten().collect()
        }
    }
}

/// The page that visitors come to first, which servers like to answer by themselves.
pub(super) fn page(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "front-page";
    let url = case.target.url("/");
    Some(match case.rest.page.answer() {
        Some(_) => Finding::ok(CHECK, format!("{url} reaches the program")),
        None => lost(CHECK, Severity::Fail, &format!("{url} does not reach the program"), &case.rest.page)
            .mend(mount_lines(case)),
    })
}

pub(super) fn bare(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "bare-mount";
    let bare = case.rest.bare.as_ref()?;
    let url = case.target.url("");
    let is_sent_there = match bare {
        Outcome::Reply(reply) => reply.status / 100 == 3 && reply.all("Location").any(|it| it == format!("{url}/")),
        Outcome::Failed(_) => false,
    };
    Some(match bare.answer() {
        None if is_sent_there => Finding::ok(CHECK, format!("the server sends visitors to {url}/")),
        Some(_) => Finding::ok(CHECK, format!("{url} reaches the program, which sends visitors to {url}/")),
        None => {
            lost(CHECK, Severity::Warn, &format!("{url}, without a slash at its end, does not reach the program"), bare)
                .mend(mount_lines(case))
        }
    })
}

/// Paths that only begin like the mount are not the program's.
pub(super) fn neighbour(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "neighbours";
    let outcome = case.rest.neighbour.as_ref()?;
    // A pool that nothing stands before has all paths of its address.
    if case.way() == Way::Http && case.server.is_none() {
        return None;
    }
    let mount = case.target.mount();
    // It was asked without the token, so that nobody else is told; the program refuses it in words of its own.
    let is_programs =
        matches!(outcome, Outcome::Reply(reply) if reply.status == 404 && reply.body == b"404 Not Found\n");
    if !is_programs {
        return Some(Finding::ok(CHECK, format!("{mount}-other is not passed to the program")));
    }
    let text = format!("{mount}-other is passed to the program, too, which answers 404");
    Some(match case.server {
        // scgi.server goes by how a path begins.
        Some(Server::Lighttpd) => Finding::note(CHECK, text),
        _ => Finding::warn(CHECK, text).mend(mount_lines(case)),
    })
}

fn request_uri_lines(case: &Case<'_>) -> Option<Mend> {
    nginx_params(case.way(), &["REQUEST_URI $request_uri"], &[])
}

/// Encoded once, decoded once.
pub(super) fn path(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "path";
    if !case.is_mounted_right() {
        return None;
    }
    let Some(answer) = case.rest.path.answer() else {
        return Some(lost(CHECK, Severity::Fail, "a path with escapes does not reach the program", &case.rest.path));
    };
    Some(match answer.request {
        Some(request) if request.path_info == DECODED_PATH => Finding::ok(CHECK, "escapes are decoded once"),
        Some(request) => {
            let text = format!("{ESCAPED_PATH} arrives as {}", request.path_info);
            Finding::fail(CHECK, text).mend(request_uri_lines(case))
        }
        None => Finding::fail(CHECK, refusal("a path with escapes", answer.refused)).mend(request_uri_lines(case)),
    })
}

fn refusal(what: &str, refused: Option<crate::doctor::answer::Refused>) -> String {
    match refused {
        Some(refused) => format!("{what} is refused with {}: {}", refused.status, refused.reason),
        None => format!("{what} is refused"),
    }
}

pub(super) fn slash(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "encoded-slash";
    let wanted = SLASH_PATH.replace("%2F", "/");
    let outcome = &case.rest.slash;
    let value = if case.way() == Way::Cgi { "On" } else { "NoDecode" };
    let lines = || vec![apache([format!("AllowEncodedSlashes {value}")])];
    Some(match outcome.answer() {
        None => lost(CHECK, Severity::Warn, "a path with %2F does not reach the program", outcome).mend(lines()),
        Some(answer) => match answer.request {
            Some(request) if request.path_info == wanted || !case.is_mounted_right() => {
                Finding::ok(CHECK, "a path with %2F reaches the program")
            }
            Some(request) => {
                let text = format!("{SLASH_PATH} arrives as {}", request.path_info);
                let nocanon = mend::apache_location(case.way(), ["ProxyPass \"http://ADDRESS/\" nocanon"]);
                Finding::warn(CHECK, text).mend((case.way() == Way::Http).then_some(nocanon))
            }
            None => return None,
        },
    })
}

/// `REQUEST_URI`, which the path is taken from where the server's own names are not to be relied on.
pub(super) fn request_uri(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "request-uri";
    let answer = case.rest.path.answer()?;
    let wanted = format!("{}{ESCAPED_PATH}?{QUERY}", case.target.mount());
    let severity = if case.way() == Way::Cgi { Severity::Note } else { Severity::Fail };
    Some(match answer.value("REQUEST_URI") {
        Some(uri) if uri == wanted => Finding::ok(CHECK, "as the client wrote it"),
        Some(uri) if same_decoded(uri, &wanted) => {
            Finding::note(CHECK, format!("the server has rewritten escapes: {uri}"))
        }
        Some(uri) => {
            let text = format!("{wanted} arrives as {uri}: it must be what the client wrote, still encoded");
            Finding::new(CHECK, severity, text).mend(request_uri_lines(case))
        }
        None => {
            let text = "it is missing, and the path is taken from what the server has decoded and rewritten";
            Finding::new(CHECK, severity, text).mend(request_uri_lines(case))
        }
    })
}

/// `SCRIPT_NAME` and `PATH_INFO` against what the client asked for.
pub(super) fn script_name(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "script-name";
    if case.way() == Way::Http {
        return None;
    }
    let answer = case.rest.path.answer()?;
    let mount = case.target.decoded_mount();
    let whole = format!("{mount}{DECODED_PATH}");
    let names = (answer.value("SCRIPT_NAME"), answer.value("PATH_INFO"));
    let by_uri = "the program goes by REQUEST_URI and --script-name";
    Some(match names {
        (None | Some(""), None | Some("")) => Finding::ok(CHECK, format!("neither is sent: {by_uri}")),
        (Some(name), None | Some("")) if name == whole && case.way() == Way::Scgi => {
            Finding::ok(CHECK, format!("SCRIPT_NAME is the whole path: {by_uri}"))
        }
        (name, Some(info)) if name.unwrap_or_default().trim_end_matches('/') == mount && info == DECODED_PATH => {
            Finding::ok(CHECK, "SCRIPT_NAME and PATH_INFO agree with the URL")
        }
        (name, info) => {
            let [name, info] = [name, info].map(Option::unwrap_or_default);
            let text = format!(
                "SCRIPT_NAME is {name} and PATH_INFO is {info}; this URL says {} and {DECODED_PATH}",
                named(&mount)
            );
            let severity = if case.way() == Way::Cgi { Severity::Fail } else { Severity::Warn };
            let entry = (case.way() == Way::Scgi).then(|| lighttpd_entry(["\"fix-root-scriptname\" => \"enable\""]));
            Finding::new(CHECK, severity, text).mend(entry)
        }
    })
}

pub(super) fn query(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "query";
    let answer = case.rest.path.answer()?;
    let lines = || nginx_params(case.way(), &["QUERY_STRING $query_string"], &[]);
    Some(match answer.value("QUERY_STRING") {
        Some(query) if query == QUERY => Finding::ok(CHECK, "as the client wrote it"),
        Some(query) if same_decoded(query, QUERY) => {
            Finding::note(CHECK, format!("the server has rewritten escapes: {QUERY} arrives as {query}"))
        }
        Some(query) => Finding::fail(CHECK, format!("{QUERY} arrives as {query}")).mend(lines()),
        None => Finding::warn(CHECK, "QUERY_STRING is missing; it is taken from REQUEST_URI").mend(lines()),
    })
}
