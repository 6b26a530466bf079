//! The application that is measured: a counter in a session, written as any user of the library would write it.
//!
//! `/hello` has no session, `/read` looks at it, `/optimistic` counts without holding the lock, anything else with it.
//! `SESSDIR` (else `--sessions` or `CLOAKROOM_SESSIONS`) is the session directory; `PAD` is how many bytes of padding
//! each new session gets.

#![cfg_attr(all(not(test), target_env = "gnu"), no_main)]
// The callback takes the request by value whether it needs that or not.
#![allow(clippy::needless_pass_by_value)]

use std::path::PathBuf;
use std::process::ExitCode;

use cloakroom::{Access, DirectoryStore, Host, Options, Request, Response, Result, Session};

fn app(request: Request, session: &mut Session) -> Result<Response> {
    let visits = match request.path() {
        "/hello" => 0,
        "/read" => session.get::<u64>("visits")?.unwrap_or(0),
        _ => count(session)?,
    };
    Ok(Response::text(format!(
        "visits: {visits:<10} -------------------------------------------------------------------------------\n"
    )))
}

fn count(session: &mut Session) -> Result<u64> {
    let visits = session.get::<u64>("visits")?.unwrap_or(0) + 1;
    session.insert("visits", visits)?;
    if visits == 1
        && let Some(pad) = std::env::var("PAD").ok().and_then(|pad| pad.parse::<usize>().ok())
    {
        session.insert("pad", "x".repeat(pad))?;
    }
    Ok(visits)
}

fn access(request: &Request) -> Access {
    match request.path() {
        "/hello" => Access::None,
        "/read" => Access::ReadOnly,
        "/optimistic" => Access::Optimistic,
        _ => Access::Exclusive,
    }
}

cloakroom::entry!(serve);

fn serve() -> ExitCode {
    let options = Options::from_args();
    // One of its own in there, as whoever measures may have left SESSDIR open to all, and the store takes no such one.
    let own = std::env::var_os("SESSDIR").map(|directory| PathBuf::from(directory).join("sessions"));
    let directory = own.or_else(|| options.sessions.clone());
    let Some(directory) = directory else {
        eprintln!("app: SESSDIR names no directory");
        return ExitCode::from(2);
    };
    Host::new(app).sessions(DirectoryStore::at(directory)).access(access).run_with(options)
}
