//! Cookies that pass for others, and cookies that take long to read.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use cloakroom::{CookiePolicy, DirectoryStore, Host, Request, Response, Session};

use super::app::FRONTS;
use super::support::TestDir;
use super::support::client::{read, send};
use super::support::visitor::{Front, Message, Site};

/// A cookie that a neighbour may set (any subdomain, or a page by HTTP) becomes ours by none of these.
#[test]
fn cve_2023_23934_cve_2021_41819_no_other_name_passes_for_ours() {
    for front in FRONTS {
        let site = Site::new(front);
        let mut owner = site.visitor();
        owner.get("/keep");
        let id = owner.cookie.clone().expect("a cookie");
        let check = |cookie: Vec<u8>| {
            let headers = vec![("Cookie", cookie)];
            let answer = site.visitor().send(Message { method: "GET", target: "/check", headers, body: Vec::new() });
            answer.expect("an answer")
        };
        check(format!("session={id}").into()).shows(200, &format!("session_id: {id}"));
        for before in ["=session", "==session", " =session", "\"session\"", "session%20", "sess%69on", "%73ession"] {
            check(format!("{before}={id}").into()).shows(200, "session_id: None");
        }
        for before in
            ["Session", "SESSION", "session\u{a0}", "\u{2000}session", "session\u{200b}", "session[]", "$session"]
        {
            check(format!("{before}={id}").into()).shows(200, "session_id: None");
        }
        for cookie in [
            format!("session:{id}"),
            format!("session%3d{id}"),
            format!("session==={id}"),
            format!("session=\"{id}\""),
            format!("session={id}%3b"),
            format!("x=\"\\; session={id}\"; y=1"),
            format!("session,={id}"),
            format!("a=1, session={id}"),
        ] {
            check(cookie.into()).shows(200, "session_id: None");
        }
        // One that browsers would not send takes no other with it.
        check([b"x=\xff\xfe; session=", id.as_bytes()].concat()).shows(200, &format!("session_id: {id}"));
    }
}

/// The name with the prefix, which browsers keep from all neighbours, is what such cookies passed for.
#[test]
fn cve_2023_23934_cve_2021_41819_nothing_passes_for_the_host_prefix() {
    let directory = TestDir::new();
    let policy = CookiePolicy::default().name("__Host-session").always_secure();
    let count = |_: Request, session: &mut Session| {
        let n = session.get::<u64>("n")?.unwrap_or(0) + 1;
        session.insert("n", n)?;
        Ok(Response::text(format!("n={n}")))
    };
    let host = Host::new(count).sessions(DirectoryStore::at(directory.join("sessions"))).cookie(policy);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    // It serves until the process ends.
    std::thread::spawn(move || host.serve_http(listener));
    let ask = |cookie: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: {cookie}\r\n\r\n");
        read(send(&address, request.as_bytes()).expect("send")).expect("an answer")
    };
    let first = ask("x=y");
    let field = first.lines().find_map(|line| line.strip_prefix("Set-Cookie: ")).expect("a cookie");
    let (pair, attributes) = field.split_once("; ").expect("attributes");
    assert!(pair.starts_with("__Host-session="), "{field}");
    assert_eq!(attributes, "HttpOnly; SameSite=Lax; Secure; Path=/");
    assert!(ask(pair).ends_with("n=2"));
    let id = pair.split_once('=').expect("a pair").1;
    for name in
        ["=__Host-session", "==__Host-session", "%5F_Host-session", "__%48ost-session", "__host-session", "session"]
    {
        assert!(ask(&format!("{name}={id}")).ends_with("n=1"), "{name}");
    }
    assert!(ask(&format!("{pair}; =__Host-session=0123456789abcdef0123456789abcdef")).ends_with("n=3"));
}

/// An ID in an address ends up in logs, bookmarks and other sites' logs; here it is taken from a cookie only, and put
/// nowhere else.
#[test]
fn php_trans_sid_an_id_counts_in_a_cookie_only() {
    for front in FRONTS {
        let site = Site::new(front);
        let mut owner = site.visitor();
        let kept = owner.get("/keep");
        let id = owner.cookie.clone().expect("a cookie");
        for (name, value) in &kept.headers {
            assert!(name.eq_ignore_ascii_case("Set-Cookie") || !value.contains(&id), "{front:?}: {name}: {value}");
        }
        assert!(!kept.text().contains(&id));
        let page = owner.get("/").text();
        assert!(
            !page.contains(&format!("={id}")) && !page.contains(&format!("/{id}")),
            "{front:?}: a link with the ID"
        );
        let queries = ["/check?session=ID", "/check?PHPSESSID=ID", "/check;session=ID", "/check/ID", "/check?ID"];
        for target in queries.map(|target| target.replace("ID", &id)) {
            assert!(!site.visitor().get(&target).text().contains(&id), "{front:?}: {target}");
        }
        assert!(!site.visitor().post("/check", &[("session", id.as_str())]).text().contains(&id), "{front:?}: a form");
        for name in ["X-Session", "Session", "Authorization", "Cookie2", "X-Cookie"] {
            let headers = vec![(name, format!("session={id}").into_bytes())];
            let message = Message { method: "GET", target: "/check", headers, body: Vec::new() };
            site.visitor().send(message).expect("an answer").shows(200, "session_id: None");
        }
    }
}

/// The status, and the shortest time of some tries; of many, where that is longer than `enough`.
fn time(site: &Site, cookie: &[u8], enough: Duration) -> (u16, Duration) {
    let headers = vec![("Cookie", cookie.to_vec())];
    let message = Message { method: "GET", target: "/check", headers, body: Vec::new() };
    let (mut status, mut shortest) = (0, Duration::MAX);
    for tries in 0..40 {
        let began = Instant::now();
        status = site.visitor().send(message.clone()).expect("an answer").status;
        shortest = shortest.min(began.elapsed());
        if shortest > Duration::from_secs(1) || (tries >= 2 && shortest < enough) {
            break;
        }
    }
    (status, shortest)
}

/// A quoted value of nothing but backslashes took time by the square of its length. Here it is read, or too long, within
/// 10 ms more than any other of that length takes.
#[test]
fn cve_2024_7592_a_hostile_cookie_takes_no_longer_than_others() {
    for front in FRONTS {
        let site = Site::new(front);
        // What one variable of the environment can hold, what a head can, and more than that.
        let lengths = if front == Front::Cgi { vec![100_000] } else { vec![60_000, 1 << 20] };
        for length in lengths {
            let (status, usual) = time(&site, &[b"session=", &b"a".repeat(length)[..]].concat(), Duration::ZERO);
            assert_eq!(status, if length > 100_000 { 431 } else { 200 }, "{front:?}");
            if status == 431 {
                continue;
            }
            let most = Duration::from_millis(10) + usual;
            for hostile in [&b"\\"[..], b"\\\"", b"; ", b"=", b"session=;", b"\"", b"\\3"] {
                let body = hostile.repeat(length / hostile.len());
                for cookie in [[b"session=\"", &body[..], b"\""].concat(), body.clone()] {
                    let (code, took) = time(&site, &cookie, most);
                    let what = hostile.escape_ascii();
                    assert_eq!(code, status, "{front:?}: {length} bytes of {what}");
                    assert!(took < most, "{front:?}: {length} bytes of {what} took {took:?}, others {usual:?}");
                }
            }
        }
    }
}
