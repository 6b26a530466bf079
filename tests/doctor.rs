//! The doctor and a program that it reaches without a web server between them; `tests/front_servers` has those.

mod support;

use std::process::{Command, Output};

use support::process::{Proc, demo};
use support::{TestDir, client};

const TOKEN: &str = "a-token-of-the-tests";

fn pool(directory: &TestDir, token: Option<&str>, more: &[&str]) -> (Proc, String) {
    let mut command = demo();
    command.args(["--http", "127.0.0.1:0", "--workers", "2", "--sessions"]).arg(directory.join("sessions")).args(more);
    if let Some(token) = token {
        command.env("CLOAKROOM_DOCTOR_TOKEN", token);
    }
    let pool = Proc::start(command);
    let address = pool.address("http");
    pool.ready(2);
    (pool, address)
}

fn cloakroom(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloakroom"));
    command.arg("doctor").args(arguments).env_remove("CLOAKROOM_DOCTOR_TOKEN").output().unwrap()
}

fn texts(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The program's own `--doctor`.
fn demo_doctor(url: &str, token: Option<&str>) -> Output {
    let mut command = demo();
    if let Some(token) = token {
        command.env("CLOAKROOM_DOCTOR_TOKEN", token);
    }
    command.args(["--doctor", url]).output().unwrap()
}

#[test]
fn a_pool_that_nothing_stands_before_is_well() {
    let directory = TestDir::new();
    let (_pool, address) = pool(&directory, Some(TOKEN), &["--script-name", "/app"]);
    let url = format!("http://{address}/app");
    let (status, text, errors) = texts(&cloakroom(&[&url, "--token", TOKEN]));
    assert_eq!((status, errors.as_str()), (Some(0), ""), "{text}");
    assert!(text.ends_with("\nnothing to mend\n"), "{text}");
    for line in ["ok   answer: from an HTTP pool", "ok   mount: /app\n", "ok   body-limit: 8388608 bytes arrive"] {
        assert!(text.contains(&format!("\n{line}")), "{line}: {text}");
    }
    assert_eq!(texts(&demo_doctor(&url, Some(TOKEN))), (Some(0), text, String::new()));
}

#[test]
fn what_is_to_be_mended_is_the_answer_no() {
    let directory = TestDir::new();
    let (_pool, address) = pool(&directory, Some(TOKEN), &["--script-name", "/other"]);
    let url = format!("http://{address}/app");
    for output in [cloakroom(&[&url, "--token", TOKEN]), demo_doctor(&url, Some(TOKEN))] {
        let (status, text, errors) = texts(&output);
        assert_eq!((status, errors.as_str()), (Some(1), ""), "{text}");
        let expected = "\nfail mount: the program is mounted at /other, and this URL says /app\n       \
                        the program, on its command line:\n           --script-name /app\n";
        assert!(text.contains(expected), "{text}");
    }
}

/// Neither where there is no token nor where it is another one.
#[test]
fn nobody_else_is_told_anything() {
    for own in [None, Some("another-token-of-the-tests")] {
        let directory = TestDir::new();
        let (_pool, address) = pool(&directory, own, &[]);
        let (status, text, _) = texts(&cloakroom(&[&format!("http://{address}"), "--token", TOKEN]));
        assert_eq!(status, Some(1), "{text}");
        assert!(text.contains("fail answer: status 404") && text.contains("CLOAKROOM_DOCTOR_TOKEN"), "{text}");
        // The page that the application has for everybody.
        let request = String::from_utf8(client::http_request("GET", "/hello")).unwrap();
        let request = request.replace("\r\n\r\n", &format!("\r\nX-Cloakroom-Doctor: {TOKEN}\r\n\r\n"));
        let reply = client::read(client::send(&address, request.as_bytes()).unwrap()).unwrap();
        assert!(reply.ends_with("Hello, world!\n"), "{reply}");
    }
}

#[test]
fn usage_and_silence_have_statuses_of_their_own() {
    // A port that was free a moment ago, on an address that nobody else uses.
    let address = std::net::TcpListener::bind("127.77.66.55:0").unwrap().local_addr().unwrap();
    let silent = format!("http://{address}/");
    let (status, text, errors) = texts(&cloakroom(&[&silent, "--token", TOKEN]));
    assert_eq!((status, text.as_str()), (Some(111), ""));
    assert!(errors.starts_with(&format!("cloakroom: doctor: connect to 127.77.66.55:{}", address.port())), "{errors}");
    assert_eq!(demo_doctor(&silent, Some(TOKEN)).status.code(), Some(111));

    for (arguments, what) in [
        (&["ftp://localhost", "--token", TOKEN][..], "expected http:// or https://"),
        (&["http://localhost/?a", "--token", TOKEN], "without query"),
        (&["http://localhost/", "--token", "secret"], "16 to 256"),
        (&["http://localhost/"], "--token"),
        (&["--token", TOKEN], "URL"),
    ] {
        let (status, text, errors) = texts(&cloakroom(arguments));
        assert_eq!((status, text.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(errors.contains(what) && errors.lines().count() == 1, "{arguments:?}: {errors}");
        assert!(!errors.contains("secret") && !errors.contains(TOKEN), "{errors}");
    }
    for (url, token) in [("nonsense", Some(TOKEN)), ("http://localhost/", None)] {
        let (status, text, errors) = texts(&demo_doctor(url, token));
        assert_eq!((status, text.as_str(), errors.lines().count()), (Some(2), "", 1), "{errors}");
    }
}

/// A token that could be guessed is refused when the pool starts, and nothing of it is in the log.
#[test]
fn a_pool_with_a_weak_token_does_not_start() {
    let output = demo().args(["--http", "127.0.0.1:0"]).env("CLOAKROOM_DOCTOR_TOKEN", "secret").output().unwrap();
    let (status, _, errors) = texts(&output);
    assert_eq!(status, Some(2));
    assert!(errors.contains("CLOAKROOM_DOCTOR_TOKEN") && !errors.contains("secret"), "{errors}");
}

/// Under CGI whoever asks may write on the command line, and the variable is no reason to ask others.
#[test]
fn a_cgi_script_is_no_doctor() {
    let directory = TestDir::new();
    let mut command = demo();
    command.env("GATEWAY_INTERFACE", "CGI/1.1").env("REQUEST_METHOD", "GET").env("PATH_INFO", "/hello");
    command.env("CLOAKROOM_SESSIONS", directory.join("sessions")).env("CLOAKROOM_DOCTOR", "http://127.0.0.1:1/");
    let (status, text, _) = texts(&command.args(["--doctor", "http://127.0.0.1:1/"]).output().unwrap());
    assert_eq!(status, Some(0), "{text}");
    assert!(text.ends_with("Hello, world!\n"), "{text}");
}
