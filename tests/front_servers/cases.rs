//! What must hold behind every front server.

pub(crate) use crate::doctor::{only_the_doctor_is_told_anything, the_doctor_finds_nothing_to_mend};
use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::wait_for;
use crate::site::{Front, Plan, Site};

const MIB: usize = 1 << 20;
/// The demo's own limit of a message-body.
const LIMIT: usize = 8 * MIB;

/// The demo itself says that it has no such page, and not the server before it.
const NO_PAGE: &str = "There is no page of that name here";

pub(crate) fn hello(front: Front) {
    let site = Site::plain(front);
    let reply = site.get("/hello");
    assert_eq!((reply.status, reply.text().as_str()), (200, "Hello, world!\n"));
    assert!(reply.header("Content-Type").unwrap().starts_with("text/plain"));
    // What is between the program and the server stays there.
    assert_eq!(reply.header("Status"), None);
    assert_eq!(reply.header("Set-Cookie"), None);
}

pub(crate) fn env_at_the_root(front: Front) {
    let site = Site::plain(front);
    let reply = site.get("/env?a=b%20c&d");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let names = ["SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_METHOD", "SERVER_PROTOCOL", "REMOTE_ADDR"]
        .map(|name| reply.variable_text(name).unwrap_or_default());
    assert_eq!(names, ["", "/env", "a=b%20c&d", "GET", "HTTP/1.1", "127.0.0.1"]);
    assert_eq!(reply.variable_text("HTTP_HOST"), Some(site.address.to_string()));
    assert_eq!(reply.variable("HTTPS"), None);
}

pub(crate) fn env_at_a_mount(front: Front) {
    let site = Site::start(front, Plan { mount: "/app", ..Plan::default() });
    let reply = site.get("/env?a=b%20c&d");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let names = ["SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"].map(|name| reply.variable_text(name).unwrap_or_default());
    assert_eq!(names, ["/app", "/env", "a=b%20c&d"]);
    // What only begins alike is somebody else's.
    assert_eq!(site.get("le/env").status, 404);
    let reply = site.get("");
    assert_eq!(reply.status, 303);
    assert_eq!(reply.header("Location"), Some(format!("http://{}/app/", site.address)));
}

pub(crate) fn login_at_a_mount_sets_a_cookie_for_the_mount(front: Front) {
    let site = Site::start(front, Plan { mount: "/app", ..Plan::default() });
    let reply = site.request("POST", "/login").form("name=alice").send();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let cookie = reply.header("Set-Cookie").unwrap();
    let attributes: Vec<&str> = cookie.split("; ").skip(1).collect();
    assert!(["Path=/app/", "HttpOnly", "SameSite=Lax"].iter().all(|wanted| attributes.contains(wanted)), "{cookie}");
    assert!(!attributes.contains(&"Secure"), "{cookie}");
    let session = reply.session().unwrap();
    assert_eq!(site.check(&session, "session_id"), session);
    assert_eq!(site.check(&session, "user"), "alice");
}

pub(crate) fn login_at_the_root_sets_a_cookie_for_the_root(front: Front) {
    let site = Site::plain(front);
    let reply = site.request("POST", "/login").form("name=alice").send();
    assert!(reply.header("Set-Cookie").unwrap().split("; ").any(|part| part == "Path=/"));
    let session = reply.session().unwrap();
    assert_eq!(site.check(&session, "user"), "alice");
    let reply = site.request("GET", "/logout").session(&session).send();
    assert!(reply.header("Set-Cookie").unwrap().contains("Max-Age=0"), "{:?}", reply.all("Set-Cookie"));
    assert_eq!(site.check(&session, "user"), "None");
}

/// Apache and the CGI specification run a `Location` without a host themselves, and forget the rest of the response.
pub(crate) fn redirect_does_not_eat_the_cookie(front: Front) {
    for mount in ["", "/app"] {
        let site = Site::start(front, Plan { mount, ..Plan::default() });
        let reply = site.get("/keep");
        assert_eq!(reply.status, 303, "{}", reply.text());
        assert_eq!(reply.header("Location"), Some(format!("http://{}{mount}/", site.address)));
        let session = reply.session().expect("the cookie of the redirect");
        assert_eq!(site.check(&session, "session_id"), session);
    }
}

pub(crate) fn encoded_paths_arrive_decoded_once(front: Front) {
    let site = Site::plain(front);
    let reply = site.get("/%65nv?x=%2F%25");
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.variable_text("PATH_INFO").unwrap(), "/env");
    // Debian's lighttpd decodes the slash in a query, too.
    let query = reply.variable_text("QUERY_STRING").unwrap();
    assert!(query == "x=%2F%25" || (query == "x=/%25" && front.is_lighttpd()), "{query}");
    for path in ["/a%20b", "/a%2Fb", "/a%3Fb", "/%2565nv", "/a+b", "/a%22b", "/a;b=c"] {
        let reply = site.get(path);
        assert_eq!(reply.status, 404, "{path}: {}", reply.text());
        assert!(reply.text().contains(NO_PAGE), "{path} did not arrive: {}", reply.text());
    }
}

pub(crate) fn paths_that_are_not_utf_8_are_no_failure(front: Front) {
    let site = Site::plain(front);
    let reply = site.get("/caf%E9");
    assert_eq!(reply.status, 404, "{}", reply.text());
    assert!(reply.text().contains(NO_PAGE), "{}", reply.text());
    // As no browser sends it: the server may refuse it, but nobody may fail.
    let reply = site.get(b"/caf\xe9");
    assert!(matches!(reply.status, 400 | 404), "{}", reply.status);
    let reply = site.get(b"/env?x=\xe9&y=%E9");
    assert!(matches!(reply.status, 200 | 400), "{}", reply.status);
    if reply.status == 200 {
        let query = reply.variable("QUERY_STRING").unwrap();
        // lighttpd encodes what should have been encoded.
        assert!(query == b"x=\xe9&y=%E9" || query == b"x=%E9&y=%E9", "{}", query.escape_ascii());
    }
}

/// Paths that lead out of the mount, however they are written.
pub(crate) fn dot_segments_do_not_lead_out_of_the_mount(front: Front) {
    let site = Site::start(front, Plan { mount: "/app", ..Plan::default() });
    for path in ["/../env", "/%2e%2e/env", "/..%2fenv", "/x/../../env"] {
        let reply = site.get(path);
        assert!(matches!(reply.status, 400 | 404), "{path}: {}", reply.status);
    }
}

pub(crate) fn body_up_to_the_limit(front: Front) {
    let site = Site::plain(front);
    let reply = site.request("POST", "/hello").body("application/octet-stream", vec![b'x'; LIMIT]).send();
    assert_eq!((reply.status, reply.text().as_str()), (200, "Hello, world!\n"));
}

pub(crate) fn body_above_the_limit_is_a_413_that_arrives(front: Front) {
    let site = Site::plain(front);
    for _ in 0..5 {
        for length in [LIMIT + 1, LIMIT + 3 * MIB] {
            let reply = site.request("POST", "/hello").body("application/octet-stream", vec![b'x'; length]).send();
            assert_eq!(reply.status, 413, "{}", reply.text());
        }
    }
    assert_eq!(site.get("/hello").status, 200);
}

/// The program stops reading long before the client stops sending; a server that then finds the connection closed says
/// 502, or nothing at all.
pub(crate) fn a_413_of_the_program_arrives(front: Front) {
    let site = Site::start(front, Plan { body_limit: Some(1000), ..Plan::default() });
    for length in [1001, 100_000, MIB, LIMIT] {
        for _ in 0..5 {
            let reply = site.request("POST", "/hello").body("application/octet-stream", vec![b'x'; length]).send();
            assert_eq!((reply.status, reply.text().as_str()), (413, "413 Payload Too Large\n"), "{length}");
        }
    }
    assert_eq!(site.get("/hello").status, 200);
}

/// `CLOAKROOM_BODIES=1000` makes it as many as that; 50 otherwise.
pub(crate) fn a_body_that_the_handler_ignores_costs_no_reply(front: Front) {
    let site = Site::plain(front);
    let request = site.request("POST", "/hello").body("application/octet-stream", vec![b'x'; MIB]);
    let count = std::env::var("CLOAKROOM_BODIES").map_or(50, |count| count.parse().expect("a number"));
    for _ in 0..count {
        let reply = request.send();
        assert_eq!((reply.status, reply.text().as_str()), (200, "Hello, world!\n"));
    }
}

pub(crate) fn upload(front: Front) {
    let site = Site::plain(front);
    let content = vec![b'x'; MIB];
    let mut body = b"--cut\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a b.bin\"\r\n\r\n".to_vec();
    body.extend_from_slice(&content);
    body.extend_from_slice(b"\r\n--cut--\r\n");
    let reply = site.request("POST", "/upload").body("multipart/form-data; boundary=cut", body).send();
    assert_eq!(reply.status, 200, "{}", reply.text());
    // printf 'x%.0s' $(seq 1048576) | sha256sum
    let hash = "8f990ba0b577b51cf009ea049368c16bbda1b21e1b93be07a824758bb253c39b";
    assert!(reply.text().contains("1048576 bytes") && reply.text().contains(hash), "{}", reply.text());
}

pub(crate) fn head(front: Front) {
    let site = Site::plain(front);
    let reply = site.request("HEAD", "/hello").send();
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    assert!(reply.header("Content-Type").unwrap().starts_with("text/plain"));
    if let Some(length) = reply.header("Content-Length") {
        assert_eq!(length, "14");
    }
}

pub(crate) fn not_modified(front: Front) {
    let site = Site::plain(front);
    let reply = site.request("GET", "/hello").header("If-None-Match", "*").send();
    assert_eq!((reply.status, reply.body.len()), (304, 0));
    // The server does not decide that in the program's place.
    let reply = site.request("GET", "/hello").header("If-None-Match", "\"other\"").send();
    assert_eq!(reply.status, 200);
    let reply = site.request("GET", "/hello").header("If-Modified-Since", "Fri, 01 Jan 2038 00:00:00 GMT").send();
    assert_eq!(reply.status, 200);
}

pub(crate) fn chunked_upload(front: Front) {
    let site = Site::plain(front);
    let reply = site.request("POST", "/login").chunked_form("name=alice").send();
    if front == Front::ApacheScgi {
        // mod_proxy_scgi wants to know the length.
        assert_eq!(reply.status, 411);
    } else {
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(site.check(&reply.session().unwrap(), "user"), "alice");
    }
    assert_eq!(site.get("/hello").status, 200);
}

pub(crate) fn parallel_requests_of_one_session_are_all_counted(front: Front) {
    let site = Site::plain(front);
    let session = site.log_in();
    thread::scope(|scope| {
        for number in 0..8 {
            let (site, session) = (&site, &session);
            scope.spawn(move || {
                for round in 0..4 {
                    let method = if (number + round) % 2 == 0 { "GET" } else { "POST" };
                    let reply = site.request(method, "/counter").session(session).send();
                    assert_eq!(reply.status, 200, "{}", reply.text());
                }
            });
        }
    });
    assert_eq!(site.check(&session, "counter"), "32");
}

pub(crate) fn a_client_that_leaves_keeps_nobody(front: Front) {
    let site = Site::plain(front);
    let session = site.log_in();
    // More than there are workers: if one stayed with a client that is gone, the last line would wait.
    for _ in 0..6 {
        site.request("GET", "/slow?ms=100&write=k").session(&session).abort(0);
        site.request("POST", "/login").form("name=bob&more=1").abort(5);
        site.request("POST", "/slow?ms=100&write=k").session(&session).form("x=1").abort(0);
    }
    let start = Instant::now();
    let reply = wait_for("somebody is there for the session", || {
        let reply = site.request("POST", "/counter").session(&session).send();
        // Some of those that are gone may still have it, and a pool has no more than half of its workers for one.
        (reply.status != 503).then_some(reply)
    });
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(site.check(&session, "counter"), "1");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    if !front.is_cgi() {
        assert!(!site.pool_log().contains("killed"), "{}", site.pool_log());
    }
}

pub(crate) fn authorization_reaches_the_program(front: Front) {
    let site = Site::plain(front);
    let reply = site.request("GET", "/env").header("Authorization", "Basic YTpi").send();
    assert_eq!(reply.variable_text("HTTP_AUTHORIZATION").as_deref(), Some("Basic YTpi"), "{}", reply.text());
    // Nobody has checked it, so nobody may claim to.
    assert_eq!(reply.variable_text("REMOTE_USER").unwrap_or_default(), "");
}

/// httpoxy, CVE-2016-5385.
pub(crate) fn a_proxy_header_does_not_become_a_proxy(front: Front) {
    let site = Site::plain(front);
    let reply = site.request("GET", "/env").header("Proxy", "http://192.0.2.1").send();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.variable("HTTP_PROXY"), None);
}

/// RFC 3875 section 4.4: words of a query without "=" are on the command line.
pub(crate) fn a_query_is_no_command_line(front: Front) {
    let site = Site::plain(front);
    for query in ["--help", "--workers+0", "--sessions+/nonexistent"] {
        let reply = site.get(format!("/hello?{query}"));
        assert_eq!((reply.status, reply.text().as_str()), (200, "Hello, world!\n"), "{query}");
    }
}

pub(crate) fn https_is_known(front: Front) {
    let site = Site::start(front, Plan { https: true, mount: "/app", ..Plan::default() });
    let reply = site.curl("/env", &[]);
    assert!(reply.lines().any(|line| line == "HTTPS=on"), "{reply}");
    let reply = site.curl("/login", &["-d", "name=alice"]);
    let cookie = reply.lines().find(|line| line.to_ascii_lowercase().starts_with("set-cookie: session=")).unwrap();
    assert!(cookie.contains("; Secure") && cookie.contains("; Path=/app/"), "{cookie}");
    let reply = site.curl("/keep", &[]);
    let location = format!("location: https://{}/app/", site.address);
    assert!(reply.lines().any(|line| line.to_ascii_lowercase() == location), "{reply}");
}

pub(crate) fn a_program_that_dies_is_one_clients_502(front: Front) {
    let site = Site::plain(front);
    let session = site.log_in();
    thread::scope(|scope| {
        let slow: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| site.request("POST", "/slow?ms=300&write=k").session(&session).send()))
            .collect();
        let reply = site.get("/exit");
        match front {
            Front::NginxScgi => assert_eq!(reply.status, 502),
            // They do not tell a program that says nothing from one that says nonsense.
            _ => assert!(matches!(reply.status, 500 | 502), "{}", reply.status),
        }
        for slow in slow {
            assert_eq!(slow.join().unwrap().status, 200);
        }
    });
    let reply = site.request("POST", "/slow?write=k").session(&session).send();
    assert_eq!(reply.text(), "k: 3\n");
    for _ in 0..20 {
        assert_eq!(site.get("/hello").status, 200);
    }
    if !front.is_cgi() {
        wait_for("the pool is complete again", || {
            let log = site.pool_log();
            (log.matches(" respawning").count() == 1 && log.matches(" ready\n").count() == 5).then_some(())
        });
    }
}

pub(crate) fn a_request_with_a_dead_program_is_not_sent_again(front: Front) {
    let site = Site::plain(front);
    let statuses: Vec<u16> = (0..3).map(|_| site.request("POST", "/exit").form("a=b").send().status).collect();
    assert!(statuses.iter().all(|status| matches!(status, 500 | 502)), "{statuses:?}");
    if !front.is_cgi() {
        wait_for("each death is in the log", || (site.pool_log().matches(" respawning").count() >= 3).then_some(()));
        assert_eq!(site.pool_log().matches(" respawning").count(), 3);
    }
}

pub(crate) fn a_restart_of_the_pool_is_not_punished(front: Front) {
    let mut site = Site::plain(front);
    assert_eq!(site.get("/hello").status, 200);
    site.stop_pool();
    for _ in 0..20 {
        let status = site.get("/hello").status;
        assert!(matches!(status, 502 | 503), "{status}");
    }
    site.start_pool();
    // At once, and not when the server thinks that it is time to look again. lighttpd looks once a second.
    let start = Instant::now();
    if front.is_lighttpd() {
        wait_for("lighttpd asks again", || (site.get("/hello").status == 200).then_some(()));
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
    assert_eq!(site.get("/hello").status, 200);
}

/// 64 requests of one session, each of which takes a second, and a pool of 4: the answer to those who are too many
/// arrives, and others hardly notice.
pub(crate) fn one_session_does_not_take_the_pool(front: Front) {
    let site = Site::plain(front);
    let (session, other) = (site.log_in(), site.log_in());
    let visit = |count: u64| {
        let began = Instant::now();
        assert_eq!(site.get("/hello").status, 200);
        assert_eq!(site.request("POST", "/counter").session(&other).send().status, 200);
        assert_eq!(site.check(&other, "counter"), count.to_string());
        began.elapsed()
    };
    let mut alone: Vec<Duration> = (1..=100).map(visit).collect();
    alone.sort_unstable();
    let done = AtomicBool::new(false);
    let (mut times, replies) = thread::scope(|scope| {
        let others = scope.spawn(|| {
            let mut times = Vec::new();
            while !done.load(Ordering::Relaxed) {
                times.push(visit(alone.len() as u64 + times.len() as u64 + 1));
            }
            times
        });
        let crowd: Vec<_> = (0..64)
            .map(|_| scope.spawn(|| site.request("POST", "/slow?ms=1000&write=k").session(&session).form("x=1").send()))
            .collect();
        let replies: Vec<_> = crowd.into_iter().map(|one| one.join().expect("a reply")).collect();
        done.store(true, Ordering::Relaxed);
        (others.join().expect("served"), replies)
    });
    let (served, refused): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == 200);
    for reply in &refused {
        assert_eq!((reply.status, reply.header("Retry-After").as_deref()), (503, Some("1")), "{}", reply.text());
    }
    assert!(!served.is_empty() && refused.len() >= 32, "{} served, {} refused", served.len(), refused.len());
    let last = site.request("POST", "/slow?ms=0&write=k").session(&session).form("x=1").send();
    assert_eq!(last.text(), format!("k: {}\n", served.len() + 1));
    times.sort_unstable();
    // Three requests each, one of them with work under the lock.
    let (own, most) = (alone[98], times[times.len() * 99 / 100]);
    println!("{} visits of three requests, p99 {most:?}; alone {own:?}", times.len());
    assert!(times.len() >= 50 && most < Duration::from_millis(100) + own, "p99 {most:?}, alone {own:?}");
}

pub(crate) fn big_headers(front: Front) {
    let site = Site::plain(front);
    let big = "x".repeat(6 * 1024);
    let reply = site.request("GET", "/env").header("X-Big", &big).send();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.variable_text("HTTP_X_BIG").as_deref(), Some(big.as_str()));
    let mut request = site.request("GET", "/env");
    for number in 0..20 {
        request = request.header(&format!("X-Big-{number}"), &big);
    }
    // Apache takes a hundred fields of 8 KiB each; what is too much for the program is then its own to refuse.
    let reply = request.send();
    assert!(matches!(reply.status, 200 | 400 | 413 | 414 | 431), "{}", reply.status);
    assert!(reply.status != 200 || front == Front::ApacheCgi, "{front:?}");
    assert_eq!(site.get("/hello").status, 200);
}

pub(crate) fn errors_of_the_program_arrive_as_they_are(front: Front) {
    let site = Site::plain(front);
    let session = site.log_in();
    for path in ["/boom", "/incrementfail", "/logoutfail"] {
        let reply = site.request("GET", path).session(&session).send();
        assert_eq!(reply.status, 500, "{path}");
        assert_eq!(reply.header("Set-Cookie"), None, "{path}");
    }
    assert_eq!(site.check(&session, "user"), "alice");
    assert_eq!(site.check(&session, "counter"), "0");
    let reply = site.request("DELETE", "/hello").send();
    assert_eq!(reply.status, 405);
    assert_eq!(reply.header("Allow").as_deref(), Some("GET, HEAD, POST"));
}

/// Apache sends a script TERM when it has the response, and waits for its end before it closes the connection or reads
/// the next request from it. The sweep goes on all the same.
pub(crate) fn nobody_waits_for_a_sweep(front: Front) {
    let site = Site::start(front, Plan { sweeps: true, ..Plan::default() });
    site.keep_sessions(15_000, false);
    site.keep_sessions(500, true);
    let is_swept = || File::open(site.sessions()).unwrap().try_lock().is_err();
    let is_over = || wait_for("the sweep is over", || (!is_swept()).then_some(()));
    // It takes 50 ms; where this process has not its turn in time, another try shows it.
    wait_for("the connection is closed before the sweep is over", || {
        is_over();
        assert_eq!(site.get("/hello").status, 200);
        is_swept().then_some(())
    });
    let count = || fs::read_dir(site.sessions()).unwrap().count();
    wait_for("one sweep after another deletes what is over", || {
        assert_eq!(site.get("/hello").status, 200);
        is_over();
        (count() <= 15_001).then_some(())
    });
    wait_for("the last one is at the end", || {
        assert_eq!(site.get("/hello").status, 200);
        is_over();
        (count() == 15_000).then_some(())
    });
}
