//! Whether the deployment answers at all.

use super::mend::{self, program};
use super::{Case, Finding};
use crate::doctor::answer::{TOKEN_FIELD, Way};
use crate::doctor::probes::Outcome;
use crate::doctor::report::{Mend, Severity};

const CHECK: &str = "answer";

pub(super) fn answer(case: &Case<'_>) -> Option<Finding> {
    let way = match case.way() {
        Way::Cgi => "a CGI script",
        Way::Scgi => "an SCGI pool",
        Way::Http => "an HTTP pool",
    };
    let version = &case.first.cloakroom;
    Some(match &case.first.refused {
        // That is told by the check of the mount.
        Some(refused) if refused.status == 404 => Finding::ok(CHECK, format!("from {way}, version {version}")),
        Some(refused) => {
            let text = format!("{way} refuses every request with {}: {}", refused.status, refused.reason);
            let method = refused.reason.ends_with("REQUEST_METHOD");
            let params = ["REQUEST_METHOD $request_method"];
            let mend = method.then(|| mend::nginx_params(case.way(), &params, &[])).flatten();
            Finding::fail(CHECK, text).mend(mend)
        }
        None => Finding::ok(CHECK, format!("from {way}, version {version}")),
    })
}

/// What the doctor itself gives away.
pub(super) fn token(case: &Case<'_>) -> Option<Finding> {
    let is_plain = !case.target.is_https && !case.seen.peer.is_loopback();
    is_plain.then(|| Finding::note("token", "it has travelled unencrypted: take another one for the next time"))
}

/// Why something else came than the deployment's answer.
pub(super) fn no_answer(outcome: &Outcome) -> Finding {
    let reply = match outcome {
        Outcome::Reply(reply) => reply,
        Outcome::Failed(reason) => return Finding::fail(CHECK, format!("a connection, and no response: {reason}")),
    };
    let status = reply.status;
    let location = reply.all("Location").next().unwrap_or_default();
    match status {
        300..=399 => {
            Finding::fail(CHECK, format!("a redirect ({status}) to {location}: examine that URL in its place"))
        }
        401 => Finding::fail(CHECK, "the front server asks for a password (401) before it asks the program"),
        400 => Finding::fail(
            CHECK,
            "400: if the program has said so, its log says why (a scgi_param that is given twice, for example)",
        ),
        500 | 502..=504 => Finding::fail(
            CHECK,
            format!("status {status}: the front server does not get through to the program; its error log says why"),
        ),
        _ => Finding::fail(
            CHECK,
            format!(
                "status {status} from something that does not know this token: set CLOAKROOM_DOCTOR_TOKEN for the \
                 deployment and for the doctor, to the same 16 characters or more (openssl rand -hex 16), and let the front server pass \
                 {TOKEN_FIELD}"
            ),
        )
        .mend(token_lines()),
    }
}

/// How a deployment is told a token, however it is served: nobody has said how it is.
fn token_lines() -> Vec<Mend> {
    let mut mends = vec![mend::environment(["CLOAKROOM_DOCTOR_TOKEN=TOKEN"])];
    mends.extend(program(Way::Cgi, "--doctor-token", "CLOAKROOM_DOCTOR_TOKEN", "TOKEN"));
    mends
}

/// A check whose request did not come back with the deployment's answer.
pub(super) fn lost(check: &'static str, severity: Severity, what: &str, outcome: &Outcome) -> Finding {
    Finding::new(check, severity, format!("{what}: {}", outcome.text()))
}
