//! Known bugs of other systems, each tried here: one test for each, named after it. What they say, and what shows the rest of
//! it, is in the tables of `src/docs/threat-model.md`.
//!
//! Where it is about a protocol, the demo is asked by CGI, by SCGI and by HTTP; where no page of the demo would do, the
//! application of `app.rs`. Figures that take long are asked for by variables, see there: `CLOAKROOM_IDS`,
//! `CLOAKROOM_DELETIONS`, `CLOAKROOM_LOCK_TIMEOUTS`.
#![allow(missing_docs, unreachable_pub)]

mod app;
mod cookies;
mod disclosure;
mod documents;
mod files;
mod framing;
mod ids;
mod locks;
mod logout;
mod paths;
mod requests;
mod responses;
#[path = "../disk/session.rs"]
#[allow(dead_code)]
mod session;
#[path = "../support/mod.rs"]
mod support;

/// How many of what takes long: what the variable says, or enough to find it.
fn count(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().map_or(usual, |count| count.parse().expect("a number"))
}
