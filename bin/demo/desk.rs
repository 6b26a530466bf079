//! The desk: the pages where people get a ticket, look at what is kept for them, and leave. Most are Session3's.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use cloakroom::{Error, Expiry, Request, Response, Result, Session, Store as _};
use http::{Method, StatusCode};
use serde_json::Value;

use super::Demo;
use super::page::{self, attribute, button, text};
use super::probe::refuse;

pub(super) const COUNTER: &str = "counter";
const KEEP: &str = "keep";
const TOKEN_FIELD: &str = "form_token";
/// Seconds for which a session can be kept unused.
const LONGEST_IDLE: u64 = 86_400;
/// Characters that a name may have.
const LONGEST_NAME: usize = 64;

pub(super) fn count(session: &mut Session) -> Result<u64> {
    Ok(session.get(COUNTER)?.unwrap_or(0))
}

fn id(session: &mut Session) -> Result<Option<String>> {
    Ok(session.id()?.map(|id| id.to_text().to_string()))
}

fn user(session: &mut Session) -> Result<Option<String>> {
    Ok(session.user()?.map(str::to_owned))
}

/// As Python prints it.
fn or_none(value: Option<&str>) -> &str {
    value.unwrap_or("None")
}

/// The front page.
pub(super) fn index(_: &Demo, request: &mut Request, session: &mut Session) -> Result<Response> {
    let (id, user, count) = (id(session)?, user(session)?, count(session)?);
    let greeting = user.as_ref().map_or("Not logged in".to_owned(), |user| format!("Hello, {}", text(user)));
    let number = id.as_deref().map_or("&mdash;", |id| &id[..4]);
    let blank = if id.is_none() { " blank" } else { "" };
    let mut main = format!(
        "<section class=\"ticket{blank}\" aria-label=\"Your ticket\">
<div class=\"stub\" aria-hidden=\"true\">{hanger}<span>No.</span><b>{number}</b></div>
<div class=\"body\">
<h1>{greeting}</h1>
<p class=\"count\">Counter is at {count}</p>
<p class=\"id\">Your session ID is {id}</p>
</div>
</section>\n",
        hanger = page::HANGER,
        id = or_none(id.as_deref()),
    );
    // What helps most comes first.
    let actions: &[_] = match (&id, &user) {
        (None, _) => &[("/keep", "Keep this session"), ("/login", "Log in"), ("/increment", "Add one")],
        (_, None) => &[("/increment", "Add one"), ("/login", "Log in"), ("/logout", "Hand in the ticket")],
        _ => &[("/increment", "Add one"), ("/logout", "Log out")],
    };
    let actions: String = actions.iter().map(|(path, label)| button(request, path, label)).collect();
    let _ = writeln!(main, "<p class=\"actions\">{actions}</p>");
    if id.is_none() {
        main.push_str(
            "<p class=\"note\">Nothing is kept for you yet, so whatever you count is forgotten at once. \
             Keep the session or log in, and you get a ticket.</p>\n",
        );
    }
    main.push_str(&contents(session)?);
    main.push_str(&page::links(request));
    page::page(request, "Cloakroom demo", &main)
}

/// What the session holds, as a table.
fn contents(session: &mut Session) -> Result<String> {
    let mut rows = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(rows, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", text(name), text(value));
    };
    if session.id()?.is_some() {
        row("user", or_none(session.user()?));
        row("created", &httpdate::fmt_http_date(session.creation_time()?));
        row("last used", &httpdate::fmt_http_date(session.access_time()?));
        if let Some(address) = session.remote_address()? {
            row("created from", &address.to_string());
        }
        row("form tokens", &session.form_token_count()?.to_string());
    }
    for key in session.keys()? {
        // Any serde type may be there; those that are not like JSON have no text here.
        let value = session.get::<Value>(&key).ok().flatten().map_or("…".to_owned(), |value| value.to_string());
        row(&key, &value);
    }
    Ok(if rows.is_empty() {
        "<h2>What the session holds</h2>\n<p>Nothing at all.</p>\n".to_owned()
    } else {
        format!("<h2>What the session holds</h2>\n<div class=\"card\"><table>\n{rows}</table></div>\n")
    })
}

/// The form, and what is done with it.
pub(super) fn login(_: &Demo, request: &mut Request, session: &mut Session) -> Result<Response> {
    if request.method() != Method::POST {
        return login_form(request, session, None);
    }
    // Before the session is opened: a slow client must not hold its lock.
    let form = request.form()?;
    let name = form.value("name").unwrap_or_default().trim();
    if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
        let response = login_form(request, session, Some("A name has 1 to 64 characters, all of them printable."))?;
        return Ok(response.with_status(StatusCode::BAD_REQUEST));
    }
    // A form that was shown before anything was stored has a token that was not stored either.
    let token = form.value(TOKEN_FIELD).unwrap_or_default();
    if session.id()?.is_some() && !session.remove_form_token(token)? {
        let text = "That form was sent before, is too old, or is not from here. Please fill in a new one.";
        return page::message(request, StatusCode::FORBIDDEN, "Form refused", text);
    }
    session.set_user(name)?;
    let main = format!(
        "<h1>Hello, {}</h1>\n<p>You are logged in, and your ticket has a new number: whoever knew the old one has \
         nothing.</p>\n<p class=\"actions\">{}{}</p>",
        text(name),
        button(request, "/", "To the desk"),
        button(request, "/logout", "Log out"),
    );
    page::page(request, "Logged in", &main)
}

fn login_form(request: &Request, session: &mut Session, problem: Option<&str>) -> Result<Response> {
    let token = session.create_form_token()?;
    let (invalid, problem) = match problem {
        None => ("", String::new()),
        Some(problem) => (
            " aria-invalid=\"true\" aria-describedby=\"problem\"",
            format!("<p id=\"problem\" class=\"problem\" role=\"alert\">{}</p>\n", text(problem)),
        ),
    };
    let main = format!(
        "<h1>Log in</h1>
<p>Any name will do; there are no passwords here.</p>
<form method=\"post\" action=\"{action}\" class=\"card\">
<input type=\"hidden\" name=\"{TOKEN_FIELD}\" value=\"{token}\">
<label for=\"name\">Your name</label>
<input id=\"name\" name=\"name\" maxlength=\"{LONGEST_NAME}\" autocomplete=\"nickname\" required autofocus{invalid}>
{problem}<button>Log in</button>
</form>",
        action = attribute(&request.link("/login")),
        token = attribute(&token),
    );
    page::page(request, "Log in", &main)
}

/// Ends the session.
pub(super) fn logout(_: &Demo, request: &mut Request, session: &mut Session) -> Result<Response> {
    let user = user(session)?;
    session.flush()?;
    let goodbye = user.map_or("Goodbye".to_owned(), |user| format!("Goodbye, {}", text(&user)));
    let main = format!(
        "<h1>{goodbye}</h1>\n<p>Your coat is yours again, and the ticket is void.</p>\n<p class=\"actions\">{}{}</p>",
        button(request, "/", "To the desk"),
        button(request, "/login", "Log in"),
    );
    page::page(request, "Goodbye", &main)
}

/// Ends the session, then fails: nobody is logged out.
pub(super) fn logout_and_fail(_: &Demo, _: &mut Request, session: &mut Session) -> Result<Response> {
    session.flush()?;
    Err(Error::message("oops: somebody asked for /logoutfail"))
}

/// Marks the session as one to keep; with `idle`, for that many seconds after its last use.
pub(super) fn keep(_: &Demo, request: &mut Request, session: &mut Session) -> Result<Response> {
    if let Some(seconds) = request.query_value("idle") {
        let Ok(seconds @ 1..=LONGEST_IDLE) = seconds.parse() else {
            return refuse("idle: expected a number of seconds, at most 86400");
        };
        session.set_expiry(Expiry { idle: Some(Duration::from_secs(seconds)), ..Expiry::default() })?;
    }
    session.insert(KEEP, true)?;
    Ok(Response::redirect(&request.link("/"))?)
}

/// Adds one without looking: it commutes, so it never runs into another request.
pub(super) fn increment(_: &Demo, request: &mut Request, session: &mut Session) -> Result<Response> {
    session.add(COUNTER, 1)?;
    Ok(Response::redirect(&request.link("/"))?)
}

/// Adds one, then fails: it is not added.
pub(super) fn increment_and_fail(_: &Demo, _: &mut Request, session: &mut Session) -> Result<Response> {
    session.add(COUNTER, 1)?;
    Err(Error::message("oops: somebody asked for /incrementfail"))
}

/// Adds one and shows it, so it has to look: two at once do run into each other, and the host sorts it out.
pub(super) fn counter(_: &Demo, request: &mut Request, session: &mut Session) -> Result<Response> {
    let count = count(session)?.saturating_add(1);
    session.insert(COUNTER, count)?;
    let note = if session.id()?.is_some() {
        "Every request counts exactly once, however many run at the same time."
    } else {
        "If this stays at one: nothing is kept for you before you log in or keep the session."
    };
    let main = format!(
        "<h1>Counter: {count}</h1>
<p>{note}</p>
<div class=\"actions\">{}<form method=\"post\" action=\"{}\"><button>Add one by POST</button></form>{}</div>",
        button(request, "/counter", "Add one"),
        attribute(&request.link("/counter")),
        button(request, "/", "To the desk"),
    );
    page::page(request, "Counter", &main)
}

/// The session in lines that a program can read.
pub(super) fn check(_: &Demo, _: &mut Request, session: &mut Session) -> Result<Response> {
    let (id, user, tokens) = (id(session)?, user(session)?, session.form_token_count()?);
    let accessed = session.access_time()?;
    let seconds = accessed.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    Ok(Response::text(format!(
        "session_id: {id}\n\
         user: {user}\n\
         counter: {count}\n\
         has_info: {user}\n\
         form_tokens_count: {tokens}\n\
         has_form_tokens: {any}\n\
         Access time: {seconds:.3} ({date})\n",
        id = or_none(id.as_deref()),
        user = or_none(user.as_deref()),
        count = count(session)?,
        any = if tokens > 0 { "True" } else { "False" },
        date = httpdate::fmt_http_date(accessed),
    )))
}

/// Draws a form token, as a page with a form does.
pub(super) fn create_token(_: &Demo, _: &mut Request, session: &mut Session) -> Result<Response> {
    Ok(Response::text(format!("Token created: {}\n", session.create_form_token()?)))
}

/// Session3's `delete_old_sessions`: without `minutes`, what is over by its own timeouts.
pub(super) fn delete_old(demo: &Demo, request: &mut Request, _: &mut Session) -> Result<Response> {
    let age = match request.query_value("minutes") {
        None => None,
        Some(minutes) => {
            let age = minutes.parse().map(|minutes: f64| Duration::try_from_secs_f64(minutes * 60.0));
            let Ok(Ok(age)) = age else { return refuse("minutes: expected a number") };
            Some(age)
        }
    };
    let swept = demo.store.delete_old_sessions(age)?;
    Ok(Response::text(format!("Deleted: {}, Remaining: {}\n", swept.deleted, swept.remaining)))
}
