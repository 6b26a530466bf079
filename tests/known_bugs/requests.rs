//! What of a request reaches the environment, the command line and the memory of processes.

use std::time::{Duration, Instant};

use super::app::{self, FRONTS, get};
use super::responses::Wire;
use super::support::visitor::{Front, Message, Site, stdout};

/// The variables of a program that the application starts.
fn of_child(site: &Site, headers: &[(&str, &[u8])]) -> Vec<String> {
    let wire = Wire::of(&get(site, "/child", headers));
    assert_eq!(wire.status(), 200);
    let variables: Vec<String> =
        wire.body.split(|byte| *byte == 0).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    assert!(!variables.iter().all(String::is_empty), "a program without an environment");
    variables
}

/// A client's `Proxy` became `HTTP_PROXY`, by which HTTP libraries are configured.
#[test]
fn httpoxy_cve_2016_5385_a_proxy_field_configures_nobody() {
    for front in FRONTS {
        for name in ["Proxy", "proxy", "PROXY"] {
            let demo = Site::new(front);
            let headers = vec![(name, b"http://evil.example".to_vec())];
            let message = Message { method: "GET", target: "/env", headers, body: Vec::new() };
            let answer = demo.visitor().send(message).expect("an answer").text();
            assert!(answer.contains("REQUEST_METHOD=GET") && !answer.contains("evil.example"), "{front:?}: {answer}");
        }
        let variables = of_child(&app::site(front), &[("Proxy", b"http://evil.example")]);
        assert!(!variables.iter().any(|variable| variable.contains("evil.example")), "{front:?}: {variables:?}");
    }
}

/// A shell ran what a header field said, since it was in its environment. A pool puts nothing there; under CGI the web
/// server has done so, and it stays, as CGI asks for it.
#[test]
fn cve_2014_6271_header_fields_are_not_in_the_environment_of_a_pool() {
    let shock = "() { :;}; echo shocked";
    let headers: Vec<(&str, &[u8])> =
        ["User-Agent", "Cookie", "Referer", "X-Any"].iter().map(|name| (*name, shock.as_bytes())).collect();
    for front in [Front::Scgi, Front::Http] {
        let site = app::site(front);
        let variables = of_child(&site, &headers);
        for variable in &variables {
            let is_of_request = ["HTTP_", "REQUEST_", "REMOTE_", "PATH_INFO", "QUERY_STRING", "CONTENT_"]
                .iter()
                .any(|start| variable.starts_with(start));
            assert!(!is_of_request && !variable.contains("shocked"), "{front:?}: {variable}");
        }
        // Nor where it can be seen from outside.
        let (_, master) = site.pool().expect("a pool");
        for pid in super::support::process::children(master) {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).expect("look");
            assert!(!String::from_utf8_lossy(&environment).contains("shocked"), "{front:?}");
        }
    }
}

/// `?-s` was an option of php-cgi: servers put words of a query on the command line (RFC 3875 section 4.4).
#[test]
fn cve_2012_1823_words_of_a_query_are_no_options() {
    let site = Site::new(Front::Cgi);
    let elsewhere = site.dir().join("elsewhere").display().to_string();
    for words in [
        &["-s"][..],
        &["-d", "allow_url_include=1", "-d", "auto_prepend_file=php://input"],
        &["--sessions", &elsewhere],
        &["--http", "0.0.0.0:0"],
        &["--status", "0.0.0.0:0"],
        &["--access-log", &elsewhere],
        &["--env-file", "/etc/passwd"],
        &["--doctor", "http://localhost/"],
        &["--check"],
        &["--help"],
    ] {
        let mut command = site.cgi(&Message { method: "GET", target: "/keep", ..Message::default() });
        command.args(words);
        let answer = String::from_utf8(stdout(command)).expect("text");
        assert!(answer.starts_with("Status: 303") && answer.contains("Set-Cookie: session="), "{words:?}: {answer}");
    }
    assert!(!std::path::Path::new(&elsewhere).exists());
    assert_eq!(site.stored(), 10);
}

/// KiB that a process has had at most.
fn peak(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("look");
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).expect("its memory");
    line.split_whitespace().nth(1).expect("KiB").parse().expect("a number")
}

/// Werkzeug took any number of parts, and looked for the boundary in a way that took the square of what was sent.
#[test]
fn cve_2023_25577_cve_2023_46136_a_form_takes_bounded_memory_and_time() {
    const SIZE: usize = 8 << 20;
    for front in [Front::Scgi, Front::Http] {
        let site = Site::new(front);
        let (_, master) = site.pool().expect("a pool");
        let send = |body: Vec<u8>| {
            let headers = vec![("Content-Type", b"multipart/form-data; boundary=boundary".to_vec())];
            let began = Instant::now();
            let answer = site.visitor().send(Message { method: "POST", target: "/upload", headers, body });
            (answer.expect("an answer").status, began.elapsed())
        };
        let file = |content: Vec<u8>| {
            let head = b"--boundary\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\n";
            [head, &content[..SIZE - 200], b"\r\n--boundary--\r\n"].concat()
        };
        let (status, usual) = send(file(vec![b'x'; SIZE]));
        assert_eq!(status, 200);
        let before: u64 = super::support::process::children(master).into_iter().map(peak).sum();
        for hostile in [&b"\r\n"[..], b"\r", b"\n", b"\r\n-", b"\r\n--boundar", b"--boundary", b"\r\n--"] {
            let (status, took) = send(file(hostile.repeat(SIZE / hostile.len() + 1)));
            let what = format!("{front:?}: {}", hostile.escape_ascii());
            assert!(matches!(status, 200 | 400), "{what}: {status}");
            assert!(took < usual * 20 + Duration::from_secs(2), "{what}: {took:?}, others {usual:?}");
        }
        let parts = |head: &str, count: usize| {
            let part = format!("--boundary\r\nContent-Disposition: form-data; name=\"f\"{head}\r\n\r\n\r\n");
            [part.repeat(count).as_bytes(), b"--boundary--\r\n"].concat()
        };
        for head in ["", "; filename=\"f\"", "; filename=\"\""] {
            assert_eq!(send(parts(head, 100_000)).0, 413, "{front:?}: {head}");
        }
        assert_eq!(send([b"--boundary\r\nX: ", &vec![b'x'; SIZE - 100][..]].concat()).0, 400, "{front:?}: a head");
        let after: u64 = super::support::process::children(master).into_iter().map(peak).sum();
        // The bodies are not in memory, let alone several times.
        assert!(after < before + 4096, "{front:?}: {before} KiB before, {after} KiB after");
    }
}
