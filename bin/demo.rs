//! The demo: a small application to play with, and the one that the tests and outside checks drive. It is the successor
//! of Session3's interactive test application.
//!
//! `cargo run` serves it at <http://localhost:8080/>; the same program is a CGI script and an SCGI pool. Anybody who can
//! reach it may delete sessions and crash workers: keep it on your own machine.

#![cfg_attr(all(not(test), target_env = "gnu"), no_main)]

#[path = "demo/desk.rs"]
mod desk;
#[path = "demo/page.rs"]
mod page;
#[path = "demo/probe.rs"]
mod probe;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cloakroom::{Access, DirectoryStore, Host, Options, Request, Response, Result, Session};
use http::header::ALLOW;
use http::{Method, StatusCode};

cloakroom::entry!(serve);

fn serve() -> ExitCode {
    let options = Options::from_args();
    let directory = options.sessions.clone().unwrap_or_else(default_directory);
    announce(&options, &directory);
    host(DirectoryStore::at(directory)).run_with(options)
}

/// The application with its sessions.
fn host(store: DirectoryStore) -> Host {
    let demo = Demo { store: store.clone() };
    Host::new(move |request, session| demo.respond(request, session))
        .sessions(store)
        .access(access)
        .on_soft_timeout(|late| eprintln!("demo: {} {} takes long", late.method, late.path))
        // Session3's rule: before somebody logs in or asks to be kept, nothing is stored.
        .has_info(|record| record.user().is_some() || matches!(record.get("keep"), Ok(Some(true))))
}

/// What the pages need besides their request.
struct Demo {
    store: DirectoryStore,
}

/// A path, what it allows, and what answers it.
struct Route {
    path: &'static str,
    allow: &'static str,
    /// Where the usual choice by method is not the right one.
    access: Option<Access>,
    handle: fn(&Demo, &mut Request, &mut Session) -> Result<Response>,
}

const READ: &str = "GET, HEAD";
const BOTH: &str = "GET, HEAD, POST";

const ROUTES: &[Route] = &[
    Route { path: "/", allow: READ, access: None, handle: desk::index },
    Route { path: "/login", allow: BOTH, access: None, handle: desk::login },
    Route { path: "/logout", allow: BOTH, access: None, handle: desk::logout },
    Route { path: "/logoutfail", allow: BOTH, access: None, handle: desk::logout_and_fail },
    Route { path: "/keep", allow: BOTH, access: None, handle: desk::keep },
    Route { path: "/increment", allow: BOTH, access: None, handle: desk::increment },
    Route { path: "/incrementfail", allow: BOTH, access: None, handle: desk::increment_and_fail },
    Route { path: "/counter", allow: BOTH, access: None, handle: desk::counter },
    Route { path: "/check", allow: BOTH, access: None, handle: desk::check },
    Route { path: "/create_token", allow: BOTH, access: None, handle: desk::create_token },
    Route { path: "/check_token", allow: BOTH, access: None, handle: desk::check },
    Route { path: "/delete_old", allow: BOTH, access: Some(Access::None), handle: desk::delete_old },
    Route { path: "/hello", allow: BOTH, access: Some(Access::None), handle: probe::hello },
    Route { path: "/read", allow: BOTH, access: Some(Access::ReadOnly), handle: probe::read },
    Route { path: "/slow", allow: BOTH, access: None, handle: probe::slow },
    Route { path: "/fill", allow: BOTH, access: None, handle: probe::fill },
    Route { path: "/large", allow: READ, access: Some(Access::None), handle: probe::large },
    Route { path: "/env", allow: BOTH, access: Some(Access::None), handle: probe::env },
    Route { path: "/upload", allow: BOTH, access: Some(Access::None), handle: probe::upload },
    Route { path: "/boom", allow: BOTH, access: None, handle: probe::boom },
    Route { path: "/exit", allow: BOTH, access: Some(Access::None), handle: probe::exit },
];

impl Route {
    fn of(request: &Request) -> Option<&'static Self> {
        ROUTES.iter().find(|route| route.path == request.path())
    }

    fn allows(&self, method: &Method) -> bool {
        self.allow.split(", ").any(|allowed| allowed == method.as_str())
    }
}

impl Demo {
    fn respond(&self, mut request: Request, session: &mut Session) -> Result<Response> {
        let Some(route) = Route::of(&request) else {
            return page::message(&request, StatusCode::NOT_FOUND, "Not found", "There is no page of that name here.");
        };
        if request.method() == Method::OPTIONS {
            return Ok(Response::new(StatusCode::NO_CONTENT).with_header(ALLOW, route.allow)?);
        }
        if !route.allows(request.method()) {
            let text = "This page does not answer to that method.";
            let response = page::message(&request, StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", text)?;
            return Ok(response.with_header(ALLOW, route.allow)?);
        }
        (route.handle)(self, &mut request, session)
    }
}

/// How each request uses its session; what has no page needs none.
fn access(request: &Request) -> Access {
    let usual = if request.method().is_safe() { Access::Optimistic } else { Access::Exclusive };
    match Route::of(request) {
        Some(route) if route.allows(request.method()) => route.access.unwrap_or(usual),
        _ => Access::None,
    }
}

/// Says where the sessions are, and, unless told where to listen, where the demo is found.
fn announce(options: &Options, directory: &Path) {
    if std::env::var_os("GATEWAY_INTERFACE").is_some() || options.doctor.is_some() {
        // A script's stderr is the web server's error log, and this would be in it with every request; the doctor
        // serves nothing.
        return;
    }
    // At a reload all that has been said.
    if options.check || std::env::var_os("CLOAKROOM_HANDOFF").is_some() {
        return;
    }
    let chosen = !options.http.is_empty() || !options.scgi.is_empty() || std::env::var_os("LISTEN_FDS").is_some();
    if !chosen {
        eprintln!("demo: open http://localhost:8080{}/", options.script_name.as_deref().unwrap_or_default());
    }
    eprintln!("demo: sessions are kept in {}", directory.display());
}

/// A directory of this user: in the state directory of the XDG specification, or among temporary files for users
/// without a home, as web servers have them.
fn default_directory() -> PathBuf {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    let directory = state.map(|state| state.join("cloakroom-demo/sessions"));
    match directory {
        Some(directory) if create(&directory).is_ok() => directory,
        // Its name is easy to guess, and others may write here; the store takes no directory that is not ours.
        _ => std::env::temp_dir().join(format!("cloakroom-demo-{}", rustix::process::getuid().as_raw())),
    }
}

/// Makes a directory with its parents, closed to others.
fn create(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}
