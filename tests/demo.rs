//! The demo application keeps its contract, the same by CGI, SCGI and HTTP: every path, every text that programs look
//! for, and Session3's scripts.

#![allow(missing_docs)]

#[path = "demo/session3.rs"]
mod session3;
mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use session3::*;
use support::process::{Proc, demo};
use support::visitor::{Answer, Front, Message, Site, Visitor, stdout};
use support::{TestDir, eventually};

/// Runs each test by each way to reach the application.
macro_rules! everywhere {
    ($($name:ident)*) => {
        everywhere!(@cgi Cgi $($name)*);
        everywhere!(@scgi Scgi $($name)*);
        everywhere!(@http Http $($name)*);
    };
    (@$module:ident $front:ident $($name:ident)*) => {
        mod $module {
            $(#[test] fn $name() { super::$name(&super::Site::new(super::Front::$front)); })*
        }
    };
}

everywhere! {
    a_stranger_sees_the_front_page_and_leaves_no_trace
    the_first_page_has_links_to_the_rest
    keep_gives_a_ticket
    a_session_is_kept_for_as_long_as_was_asked
    session3_increment
    session3_increment_and_fail
    session3_logout
    session3_logout_and_fail
    session3_logout_without_keep
    session3_session_id
    the_counter_counts_every_request_once
    requests_at_once_are_all_counted
    login_shows_the_name_and_renews_the_id
    a_form_token_works_once
    a_name_is_checked_and_escaped
    check_tells_all_in_lines
    tokens_are_created_and_counted
    old_sessions_are_deleted
    hello_and_read_change_nothing
    slow_reads_waits_and_adds
    slow_checks_what_it_is_told
    a_session_can_be_filled_and_emptied
    the_environment_is_shown_without_proxy
    uploads_are_measured
    a_panic_is_a_500_and_saves_nothing
    an_exit_takes_one_process_only
    methods_and_unknown_paths
    pages_are_closed_to_everything_else
}

/// A visitor with a session.
fn kept(site: &Site) -> Visitor<'_> {
    let mut visitor = site.visitor();
    assert_eq!(visitor.get("/keep").status, 303);
    visitor
}

/// A visitor who is logged in.
fn logged_in<'s>(site: &'s Site, name: &str) -> Visitor<'s> {
    let mut visitor = site.visitor();
    visitor.post("/login", &[("name", name)]).shows(200, &format!("Hello, {name}"));
    visitor
}

fn a_stranger_sees_the_front_page_and_leaves_no_trace(site: &Site) {
    let mut stranger = site.visitor();
    for _ in 0..2 {
        let page = stranger.get("/");
        page.shows(200, "Not logged in");
        page.shows(200, "Your session ID is None");
        page.shows(200, "Counter is at 0");
        assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
        assert_eq!(page.header("Set-Cookie"), None);
        // Without keep or login, none of this is worth a session.
        for path in ["/increment", "/counter", "/create_token", "/login", "/slow?write=x"] {
            assert_eq!(stranger.get(path).header("Set-Cookie"), None, "{path}");
        }
    }
    assert_eq!(site.stored(), 0);
}

fn the_first_page_has_links_to_the_rest(site: &Site) {
    let page = site.visitor().get("/").text();
    for path in [
        "/login",
        "/logout",
        "/logoutfail",
        "/keep",
        "/increment",
        "/incrementfail",
        "/counter",
        "/check",
        "/create_token",
        "/check_token",
        "/delete_old?minutes=60",
        "/hello",
        "/read",
        "/slow",
        "/fill",
        "/env",
        "/upload",
        "/boom",
    ] {
        assert!(page.contains(&format!("href=\"{path}")), "{path}");
    }
    assert!(page.contains("action=\"/exit\""));
}

fn a_session_is_kept_for_as_long_as_was_asked(site: &Site) {
    for query in ["idle=0", "idle=x", "idle=86401", "idle="] {
        let mut visitor = site.visitor();
        assert_eq!(visitor.get(&format!("/keep?{query}")).status, 400, "{query}");
        assert_eq!(visitor.cookie, None);
    }
    let (mut short, mut long) = (site.visitor(), site.visitor());
    assert_eq!(long.get("/keep?idle=86400").status, 303);
    assert_eq!(short.get("/keep?idle=1").status, 303);
    // It is over at the second, and not before the next sweep.
    std::thread::sleep(std::time::Duration::from_millis(1300));
    short.get("/check").shows(200, "session_id: None");
    let id = long.cookie.clone().unwrap();
    long.get("/check").shows(200, &id);
}

fn keep_gives_a_ticket(site: &Site) {
    let mut visitor = site.visitor();
    let answer = visitor.get("/keep");
    assert_eq!(answer.status, 303);
    assert_eq!(answer.header("Location"), Some("http://localhost/"));
    let cookie = answer.header("Set-Cookie").unwrap();
    let id = visitor.cookie.clone().unwrap();
    assert_eq!(cookie, format!("session={id}; HttpOnly; SameSite=Lax; Path=/"));
    assert!(id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{id}");
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    let page = visitor.get("/");
    page.shows(200, &format!("Your session ID is {id}"));
    page.shows(200, "Not logged in");
    page.shows(200, "<th scope=\"row\">keep</th><td>true</td>");
    assert_eq!(page.header("Set-Cookie"), None);
    assert_eq!(site.stored(), 1);
}

fn the_counter_counts_every_request_once(site: &Site) {
    let mut visitor = kept(site);
    for n in [1, 3, 5] {
        visitor.get("/counter").shows(200, &format!("Counter: {n}<"));
        visitor.post("/counter", &[]).shows(200, &format!("Counter: {}<", n + 1));
    }
    let mut stranger = site.visitor();
    for _ in 0..2 {
        stranger.get("/counter").shows(200, "Counter: 1<");
    }
}

fn requests_at_once_are_all_counted(site: &Site) {
    let visitor = kept(site);
    thread::scope(|scope| {
        for method in ["GET", "POST", "GET", "POST"] {
            let mut visitor = visitor.clone();
            scope.spawn(move || {
                for _ in 0..5 {
                    let answer = visitor.send(Message { method, target: "/counter", ..Message::default() }).unwrap();
                    assert_eq!(answer.status, 200);
                }
            });
        }
    });
    visitor.clone().get("/read").shows(200, "Counter: 20\n");
}

fn login_shows_the_name_and_renews_the_id(site: &Site) {
    let mut visitor = kept(site);
    visitor.get("/increment");
    let before = visitor.clone();
    let token = token_of(&visitor.get("/login"));
    let answer = visitor.post("/login", &[("name", "  Ada Lovelace "), ("form_token", &token)]);
    answer.shows(200, "Hello, Ada Lovelace<");
    assert!(answer.header("Set-Cookie").is_some());
    assert_ne!(visitor.cookie, before.cookie);
    let page = visitor.get("/");
    page.shows(200, "Hello, Ada Lovelace");
    page.shows(200, "Counter is at 1");
    page.shows(200, &format!("Your session ID is {}", visitor.cookie.unwrap()));
    assert!(!page.text().contains("Not logged in"));
    before.clone().get("/").shows(200, "Your session ID is None");
    assert_eq!(site.stored(), 1);
}

fn token_of(page: &Answer) -> String {
    page.between("name=\"form_token\" value=\"", "\"")
}

fn a_form_token_works_once(site: &Site) {
    // Without a session there is nothing to protect, and a token could not have been stored.
    let mut visitor = logged_in(site, "ada");
    visitor.post("/login", &[("name", "eve")]).shows(403, "Form refused");
    visitor.post("/login", &[("name", "eve"), ("form_token", "")]).shows(403, "Form refused");
    visitor
        .post("/login", &[("name", "eve"), ("form_token", "0123456789abcdef0123456789abcdef")])
        .shows(403, "refused");
    visitor.get("/").shows(200, "Hello, ada");

    let token = token_of(&visitor.get("/login"));
    let other = token_of(&visitor.get("/login"));
    assert_eq!(visitor.get("/check").line("form_tokens_count"), "2");
    // A token of one session is nothing to another one.
    logged_in(site, "bob").post("/login", &[("name", "eve"), ("form_token", &token)]).shows(403, "Form refused");
    visitor.post("/login", &[("name", "grace"), ("form_token", &token)]).shows(200, "Hello, grace");
    visitor.post("/login", &[("name", "eve"), ("form_token", &token)]).shows(403, "Form refused");
    assert_eq!(visitor.get("/check").line("form_tokens_count"), "1");
    visitor.post("/login", &[("name", "joan"), ("form_token", &other)]).shows(200, "Hello, joan");
    assert_eq!(visitor.get("/check").line("has_form_tokens"), "False");

    let mut stranger = site.visitor();
    let token = token_of(&stranger.get("/login"));
    stranger.post("/login", &[("name", "eve"), ("form_token", &token)]).shows(200, "Hello, eve");
}

fn a_name_is_checked_and_escaped(site: &Site) {
    let mut visitor = site.visitor();
    let page = visitor.post("/login", &[("name", "<script>alert('1')</script>&\"")]);
    page.shows(200, "Hello, &lt;script&gt;alert('1')&lt;/script&gt;&amp;\"<");
    let page = visitor.get("/");
    page.shows(200, "Hello, &lt;script&gt;alert('1')&lt;/script&gt;&amp;\"<");
    let goodbye = visitor.get("/logout");
    for page in [page, goodbye] {
        assert!(!page.text().contains("<script"));
    }
    let long = "x".repeat(65);
    for name in ["", "  ", "a\nhas_info: b", "a\0", &long] {
        let answer = visitor.post("/login", &[("name", name)]);
        answer.shows(400, "A name has 1 to 64 characters");
        assert_eq!(answer.header("Set-Cookie"), None);
    }
    visitor.post("/login", &[]).shows(400, "role=\"alert\"");
    visitor.post("/login", &[("name", &long[1..])]).shows(200, "Hello, x");
    logged_in(site, "Zoë 太郎");
    let headers = vec![("Content-Type", b"text/plain".to_vec())];
    let message = Message { method: "POST", target: "/login", headers, body: b"name=x".to_vec() };
    assert_eq!(site.visitor().send(message).unwrap().status, 415);
}

fn check_tells_all_in_lines(site: &Site) {
    let mut visitor = site.visitor();
    for path in ["/check", "/check_token"] {
        let answer = visitor.get(path);
        assert_eq!(answer.header("Content-Type"), Some("text/plain; charset=utf-8"));
        let expected = "session_id: None\nuser: None\ncounter: 0\nhas_info: None\nform_tokens_count: 0\n\
                        has_form_tokens: False\nAccess time: ";
        assert!(answer.text().starts_with(expected), "{}", answer.text());
    }
    visitor.post("/login", &[("name", "ada")]);
    visitor.get("/counter");
    visitor.get("/create_token");
    let id = visitor.cookie.clone().unwrap();
    let text = visitor.get("/check").text();
    let expected = format!(
        "session_id: {id}\nuser: ada\ncounter: 1\nhas_info: ada\nform_tokens_count: 1\nhas_form_tokens: True\n\
         Access time: "
    );
    let rest = text.strip_prefix(&expected).unwrap_or_else(|| panic!("{text}"));
    let (seconds, date) = rest.trim_end().split_once(' ').unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - 60.0..=now + 1.0).contains(&seconds.parse().unwrap()), "{seconds}");
    assert!(date.ends_with(" GMT)"), "{date}");
}

fn tokens_are_created_and_counted(site: &Site) {
    let mut visitor = kept(site);
    let mut tokens = Vec::new();
    for n in 1..=34_usize {
        tokens.push(visitor.get("/create_token").line("Token created"));
        if n % 8 == 0 || n > 31 {
            assert_eq!(visitor.get("/check_token").line("form_tokens_count"), n.min(32).to_string());
        }
    }
    // The oldest have given way.
    visitor.post("/login", &[("name", "eve"), ("form_token", &tokens[1])]).shows(403, "Form refused");
    visitor.post("/login", &[("name", "ada"), ("form_token", &tokens[2])]).shows(200, "Hello, ada");
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 34);
    assert!(tokens.iter().all(|token| token.len() == 32));
}

fn old_sessions_are_deleted(site: &Site) {
    let mut visitors = [kept(site), kept(site), kept(site)];
    let mut stranger = site.visitor();
    assert_eq!(stranger.get("/delete_old?minutes=10").text(), "Deleted: 0, Remaining: 3\n");
    assert_eq!(stranger.get("/delete_old").text(), "Deleted: 0, Remaining: 3\n");
    for minutes in ["-1", "x", "", "NaN", "inf"] {
        stranger.get(&format!("/delete_old?minutes={minutes}")).shows(400, "minutes: expected a number");
    }
    visitors[0].get("/logout");
    assert_eq!(stranger.get("/delete_old?minutes=10").text(), "Deleted: 0, Remaining: 2\n");
    assert_eq!(stranger.post("/delete_old?minutes=0", &[]).text(), "Deleted: 2, Remaining: 0\n");
    visitors[1].get("/").shows(200, "Your session ID is None");
}

fn hello_and_read_change_nothing(site: &Site) {
    let mut visitor = kept(site);
    visitor.get("/counter");
    for _ in 0..2 {
        let answer = visitor.get("/hello");
        assert_eq!((answer.status, answer.text().as_str()), (200, "Hello, world!\n"));
        // Whoever asks gets the same.
        assert_eq!((answer.header("Vary"), answer.header("Set-Cookie")), (None, None));
        let answer = visitor.get("/read");
        assert_eq!((answer.status, answer.text().as_str()), (200, "Counter: 1\n"));
        assert_eq!((answer.header("Vary"), answer.header("Set-Cookie")), (Some("Cookie"), None));
    }
}

fn slow_reads_waits_and_adds(site: &Site) {
    let mut visitor = kept(site);
    visitor.get("/counter");
    let start = Instant::now();
    assert_eq!(visitor.get("/slow?ms=150").text(), "Counter: 1\n");
    assert!(start.elapsed() >= Duration::from_millis(150));
    assert_eq!(visitor.get("/slow").text(), "Counter: 1\n");
    assert_eq!(visitor.get("/slow?ms=1&write=k1").text(), "k1: 1\n");
    assert_eq!(visitor.post("/slow?ms=1&write=k1", &[]).text(), "k1: 2\n");
    assert_eq!(visitor.post("/slow", &[("ms", "1"), ("write", "k.2_-")]).text(), "k.2_-: 1\n");
    assert_eq!(visitor.get("/slow?write=counter").text(), "counter: 2\n");
    let message =
        Message { method: "POST", target: "/slow?write=k1", body: b"not a form".to_vec(), ..Message::default() };
    assert_eq!(visitor.send(message).unwrap().text(), "k1: 3\n");
    visitor.get("/").shows(200, "<th scope=\"row\">k1</th><td>3</td>");

    // Different keys at once: side by side, and nothing is lost.
    thread::scope(|scope| {
        for key in ["a", "b"] {
            let mut visitor = visitor.clone();
            scope.spawn(move || visitor.get(&format!("/slow?ms=100&write={key}")).shows(200, &format!("{key}: 1\n")));
        }
    });
    let page = visitor.get("/");
    for key in ["a", "b"] {
        page.shows(200, &format!("<th scope=\"row\">{key}</th><td>1</td>"));
    }
}

fn a_session_can_be_filled_and_emptied(site: &Site) {
    let mut visitor = kept(site);
    for bytes in [10, 100_000, 3000, 0, 1 << 20] {
        assert_eq!(visitor.get(&format!("/fill?bytes={bytes}")).text(), format!("fill: {bytes}\n"));
        assert_eq!(visitor.post("/fill", &[]).text(), "fill: 0\n");
        assert_eq!(visitor.post(&format!("/fill?bytes={bytes}"), &[]).status, 200);
    }
    for query in ["bytes=-1", "bytes=x", "bytes=", "bytes=1048577"] {
        assert_eq!(visitor.get(&format!("/fill?{query}")).status, 400, "{query}");
    }
    visitor.get("/check").shows(200, "counter: 0");
}

fn slow_checks_what_it_is_told(site: &Site) {
    let mut visitor = kept(site);
    let long = format!("write={}", "k".repeat(65));
    for query in ["ms=x", "ms=-1", "ms=60001", "ms=1.5", "write=", "write=keep", "write=a%20b", "write=%3Cb%3E", &long]
    {
        assert_eq!(visitor.get(&format!("/slow?{query}")).status, 400, "{query}");
    }
    visitor.get(&format!("/slow?{}", &long[..70])).shows(200, "k: 1\n");
    assert!(visitor.cookie.is_some());
}

fn the_environment_is_shown_without_proxy(site: &Site) {
    let headers = vec![("Proxy", b"http://evil.example".to_vec()), ("X-Odd", b"caf\xe9 =1".to_vec())];
    let message = Message { method: "GET", target: "/env?a=b", headers, ..Message::default() };
    let answer = site.visitor().send(message).unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("Content-Type"), Some("text/plain; charset=utf-8"));
    let lines: Vec<_> = answer.body.split(|b| *b == b'\n').collect();
    for line in ["REQUEST_METHOD=GET", "QUERY_STRING=a=b", "REQUEST_URI=/env?a=b", "HTTP_HOST=localhost"] {
        assert!(lines.contains(&line.as_bytes()), "no {line} in {}", answer.text());
    }
    assert!(lines.contains(&&b"HTTP_X_ODD=caf\xe9 =1"[..]), "{}", answer.text());
    assert!(!answer.text().contains("evil"), "{}", answer.text());
    assert!(!answer.text().contains("HTTP_PROXY"), "{}", answer.text());
}

fn uploads_are_measured(site: &Site) {
    let mut visitor = site.visitor();
    visitor.get("/upload").shows(200, "enctype=\"multipart/form-data\"");
    let part = |file: &str, contents: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{file}\"\r\n\r\n{contents}\r\n")
    };
    let large = "x".repeat(1 << 20);
    let body = part("a.txt", "abc") + &part("<b>.bin", "") + &part("large", &large) + "--b--\r\n";
    let headers = vec![("Content-Type", b"multipart/form-data; boundary=b".to_vec())];
    let message = Message { method: "POST", target: "/upload", headers: headers.clone(), body: body.into_bytes() };
    let answer = visitor.send(message.clone()).unwrap();
    answer.shows(200, "3 files came");
    for text in [
        "a.txt",
        "3 bytes",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "&lt;b&gt;.bin",
        "0 bytes",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "1048576 bytes",
    ] {
        answer.shows(200, text);
    }
    assert_eq!(answer.header("Set-Cookie"), None);
    let empty = Message { body: b"--b--\r\n".to_vec(), ..message.clone() };
    visitor.send(empty).unwrap().shows(200, "Nothing came");
    let broken = Message { body: b"--b\r\n".to_vec(), ..message };
    assert_eq!(visitor.send(broken).unwrap().status, 400);
}

fn a_panic_is_a_500_and_saves_nothing(site: &Site) {
    let mut visitor = kept(site);
    visitor.get("/counter");
    let answer = visitor.get("/boom");
    assert_eq!((answer.status, answer.text().as_str()), (500, "Internal Server Error\n"));
    assert_eq!(answer.header("Set-Cookie"), None);
    visitor.get("/read").shows(200, "Counter: 1\n");
    visitor.post("/boom", &[]);
    visitor.get("/counter").shows(200, "Counter: 2<");
}

fn an_exit_takes_one_process_only(site: &Site) {
    let mut visitor = kept(site);
    visitor.get("/counter");
    for _ in 0..3 {
        let answer = visitor.send(Message { method: "GET", target: "/exit", ..Message::default() });
        assert!(answer.is_none(), "{answer:?}");
    }
    // The session is whole, and so is the pool.
    visitor.get("/counter").shows(200, "Counter: 2<");
}

fn methods_and_unknown_paths(site: &Site) {
    let mut visitor = kept(site);
    for path in ["/nothing", "/counter/", "//", "/LOGIN", "/login.php"] {
        let answer = visitor.get(path);
        answer.shows(404, "Not found");
        assert_eq!(answer.header("Vary"), None, "a page for everybody");
    }
    assert_eq!(visitor.get("/%2e%2e/etc/passwd").status, 404);
    let mut ask = |method, target| visitor.send(Message { method, target, ..Message::default() }).unwrap();
    for (method, target, allow) in
        [("POST", "/", "GET, HEAD"), ("DELETE", "/counter", "GET, HEAD, POST"), ("PUT", "/login", "GET, HEAD, POST")]
    {
        let answer = ask(method, target);
        answer.shows(405, "Method not allowed");
        assert_eq!(answer.header("Allow"), Some(allow));
    }
    let answer = ask("OPTIONS", "/login");
    assert_eq!((answer.status, answer.header("Allow")), (204, Some("GET, HEAD, POST")));
    let answer = ask("HEAD", "/check");
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}

fn pages_are_closed_to_everything_else(site: &Site) {
    let mut visitor = site.visitor();
    for path in ["/", "/login", "/counter", "/upload", "/logout", "/nothing"] {
        let page = visitor.get(path);
        let policy = page.header("Content-Security-Policy").unwrap();
        let style = Sha256::digest(page.between("<style>", "</style>"));
        let expected = format!("style-src 'sha256-{}'", base64(&style));
        assert!(policy.contains("default-src 'none'"));
        assert!(policy.contains(&expected), "the style sheet has changed, so page.rs must say: {expected}");
        assert_eq!(page.header("X-Content-Type-Options"), Some("nosniff"));
        let html = page.text();
        for text in ["<html lang=\"en\">", "name=\"viewport\"", "<meta charset=\"utf-8\">", "<main>", "<h1>"] {
            assert!(html.contains(text), "{path}: {text}");
        }
        for fetched in ["<script", "src=", " style=", "@import", "url(", "href=\"http"] {
            assert!(!html.contains(fetched), "{path}: {fetched}");
        }
    }
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= chunk.len() { digit.into() } else { '=' });
        }
    }
    text
}

/// Links, redirects, forms and the cookie's path follow the mount.
fn mounted(front: Front) {
    let site = Site::mounted(front, "/app");
    let mut visitor = site.visitor();
    let answer = visitor.get("/keep");
    assert_eq!((answer.status, answer.header("Location")), (303, Some("http://localhost/app/")));
    assert!(answer.header("Set-Cookie").unwrap().ends_with("; Path=/app/"), "{answer:?}");
    let page = visitor.get("/");
    page.shows(200, &format!("Your session ID is {}", visitor.cookie.clone().unwrap()));
    for page in [page, visitor.get("/login"), visitor.get("/counter"), visitor.get("/upload")] {
        let html = page.text();
        for attribute in ["href=\"", "action=\""] {
            for link in html.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap()) {
                assert!(link.starts_with("/app/") || link.starts_with("data:"), "{link}");
            }
        }
    }
    // Without the slash the browser would not send the cookie.
    let answer = visitor.get("");
    assert_eq!((answer.status, answer.header("Location")), (303, Some("http://localhost/app/")));
    let answer = visitor.get("/logout");
    assert_eq!(answer.header("Set-Cookie"), Some("session=; HttpOnly; SameSite=Lax; Path=/app/; Max-Age=0"));
}

#[test]
fn mounted_by_cgi() {
    mounted(Front::Cgi);
}

#[test]
fn mounted_by_scgi() {
    mounted(Front::Scgi);
}

#[test]
fn mounted_by_http() {
    mounted(Front::Http);
}

/// A client can put words onto a CGI script's command line: `/demo?--sessions+/tmp` (RFC 3875 section 4.4).
#[test]
fn cve_2012_1823_a_cgi_script_does_not_look_at_its_command_line() {
    let site = Site::new(Front::Cgi);
    let id = kept(&site).cookie.unwrap();
    let elsewhere = site.dir().join("elsewhere");
    let elsewhere = elsewhere.to_str().unwrap();
    for arguments in [
        &["--sessions", elsewhere][..],
        &["--http", "127.0.0.1:0"],
        &["--script-name", "/evil"],
        &["--help"],
        &["--nonsense"],
        &["-s"],
        &["word"],
    ] {
        let headers = vec![("Cookie", format!("session={id}").into_bytes())];
        let mut command = site.cgi(&Message { method: "GET", target: "/", headers, body: Vec::new() });
        command.args(arguments);
        let response = String::from_utf8(stdout(command)).unwrap();
        assert!(response.starts_with("Status: 200"), "{arguments:?}: {response}");
        assert!(response.contains(&format!("Your session ID is {id}")), "{arguments:?}: {response}");
        assert!(response.contains("href=\"/login\""), "{arguments:?}: {response}");
    }
    assert!(!std::path::Path::new(elsewhere).exists());
}

#[test]
fn a_cgi_request_by_https_gets_a_secure_cookie() {
    let site = Site::new(Front::Cgi);
    let mut command = site.cgi(&Message { method: "GET", target: "/keep", ..Message::default() });
    command.env("HTTPS", "on");
    let response = String::from_utf8(stdout(command)).unwrap();
    assert!(response.contains("Location: https://localhost"), "{response}");
    assert!(response.contains("; Secure"), "{response}");
}

#[test]
fn it_says_where_it_is_found_and_where_it_keeps_sessions() {
    let dir = TestDir::new();
    let home = dir.join("home/state");
    let mut command = demo();
    command.env("XDG_STATE_HOME", &home).env_remove("LISTEN_FDS");
    // Whether the port is free does not matter.
    let process = Proc::start(command);
    process.line("demo: open http://localhost:8080/");
    let sessions = home.join("cloakroom-demo/sessions");
    process.line(&format!("demo: sessions are kept in {}", sessions.display()));
    let mode = std::fs::metadata(&sessions).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
}

#[test]
fn without_a_home_sessions_are_among_temporary_files() {
    let dir = TestDir::new();
    let mut command = demo();
    command.env("TMPDIR", dir.path()).env("HOME", "/proc/nobody").env_remove("XDG_STATE_HOME");
    command.args(["--http", "127.0.0.1:0", "--workers", "1"]);
    let process = Proc::start(command);
    let line = process.line("demo: sessions are kept in ");
    let sessions = line.rsplit(' ').next().unwrap().to_owned();
    assert!(sessions.starts_with(dir.path().to_str().unwrap()), "{line}");
    assert!(!process.log().contains("localhost:8080"));
    let address = process.address("http");
    let response = support::client::http(&address, "/keep").unwrap();
    assert!(response.starts_with("HTTP/1.1 303"), "{response}");
    eventually("a session is stored", || std::fs::read_dir(&sessions).is_ok_and(|files| files.count() == 1));
    let mode = std::fs::metadata(&sessions).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
}
