//! 100,000 session IDs that are none, as attackers send them: the store is not even asked.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use cloakroom::DirectoryStore;
use cloakroom::session::{Id, Store};

use super::demo::Pool;
use super::session::{Numbers, record};
use super::support::process::children;
use super::support::strace::Strace;
use super::support::visit::{Door, Visitor};
use super::support::{PATIENCE, TestDir, eventually};

const IDS: usize = 100_000;
/// So many are in one request's Cookie field.
const TOGETHER: usize = 10;

/// What is no ID but might be taken for one, or for a path; `id` is that of a session that exists.
fn hostile(numbers: &mut Numbers, id: &str) -> Vec<u8> {
    let up = "../".repeat(1 + numbers.below(12) as usize);
    let any = format!("{:08x}", numbers.below(1 << 31)).repeat(4);
    let cut = numbers.below(32) as usize;
    let files = ["etc/passwd", "sessions", "target", "proc/self/environ", "dev/zero", "tmp/x", "sweep-position"];
    let file = files[numbers.below(files.len() as u64) as usize];
    let good = id;
    let id = if numbers.below(4) == 0 { good } else { any.as_str() };
    let odd = [
        "/", "\\", "%", "%00", "%2f", "%5c", "..", ".", "\u{a0}", "~", "$", "`", "|", "*", "?", ":", "\u{2215}",
        "\u{ff0e}", "\u{200b}", "\u{feff}", "\u{0130}", "\u{ff10}", "e\u{301}", "-", "_", "+", "=", "\"", "'", "<",
        "x", "g",
    ];
    let odd = odd[numbers.below(odd.len() as u64) as usize];
    match numbers.below(24) {
        0 => format!("{up}{file}{}", &any[..cut]).into(),
        1 => format!("/{file}/{any}").into(),
        2 => format!("{up}{id}").into(),
        3 => format!("./{id}").into(),
        4 => format!("{id}/").into(),
        5 => format!("{id}/../{id}").into(),
        6 => format!("{id}{odd}").into(),
        7 => format!("{odd}{id}").into(),
        8 => format!("{}{odd}{}", &id[..cut], &id[cut..]).into(),
        9 => format!("{}{odd}{}", &any[..cut], &any[cut + 1..]).into(),
        // The file system may ignore case; names never do.
        10 => good.to_uppercase().into(),
        11 => good
            .chars()
            .map(|c| if numbers.below(2) == 0 { c.to_ascii_uppercase() } else { c })
            .chain("A".chars())
            .collect::<String>()
            .into(),
        12 => id[..cut].into(),
        13 => format!("{id}{any}").into(),
        14 => any.repeat(2 + cut).into(),
        15 => format!("{}{id}", up.replace('/', "%2f")).into(),
        16 => format!("{}{id}", up.replace('/', "\\")).into(),
        17 => format!("damaged-{id}-1").into(),
        18 => format!("file:///{file}/{any}").into(),
        19 => (0..32)
            .map(|_| char::from_u32(0xff10 + numbers.below(10) as u32).expect("a digit"))
            .collect::<String>()
            .into(),
        // No text at all.
        20 => (0..32).map(|_| 0x80 + numbers.below(128) as u8).collect(),
        21 => [&id.as_bytes()[..cut], &[0x80 | numbers.below(128) as u8], &id.as_bytes()[cut + 1..]].concat(),
        22 => format!("\"{id}\"").into(),
        _ => format!("{:x}", numbers.below(1 << 31)).into(),
    }
}

/// One request whose Cookie field holds these bytes.
fn ask_scgi(address: &str, cookie: &[u8]) -> io::Result<String> {
    let mut head = b"CONTENT_LENGTH\x000\0SCGI\x001\0REQUEST_METHOD\0GET\0REQUEST_URI\0/check\0SERVER_NAME\0x\0SERVER_PORT\x0080\0".to_vec();
    head.extend([b"SERVER_PROTOCOL\0HTTP/1.1\0HTTP_HOST\0x\0HTTP_COOKIE\0", cookie, b"\0"].concat());
    let mut stream = UnixStream::connect(address.strip_prefix("unix:").expect("a Unix socket"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[format!("{}:", head.len()).as_bytes(), &head, b","].concat())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// All that the directory holds, and what is beside it.
fn all_names(directory: &Path) -> BTreeSet<String> {
    let names = |path: &Path| -> Vec<String> {
        let entries = fs::read_dir(path).expect("list").map(|entry| entry.expect("an entry"));
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    names(directory).into_iter().chain(names(&directory.join("sessions"))).collect()
}

#[test]
#[ignore = "needs strace: run tests/run"]
fn hostile_ids_reach_no_file() {
    let directory = TestDir::new();
    let sessions = directory.join("sessions");
    let store = DirectoryStore::at(&sessions);
    let good = Id::generate().expect("an ID");
    store.create(&good, &record(&good, 5, 100)).expect("create");
    fs::write(directory.join("target"), "precious").expect("write");
    let mut command = super::support::process::demo();
    let socket = format!("unix:{}", directory.join("socket").display());
    command.args(["--scgi", &socket, "--workers", "1", "--sessions"]).arg(&sessions);
    let scgi = super::support::process::Proc::start(command);
    let address = scgi.address("scgi");
    scgi.line(" ready workers=1");
    let http = Pool::with(&sessions, 1);
    // What is done once is not what is looked for.
    for door in [&http.door, &Door::Scgi(address.clone())] {
        Visitor::with(door, &format!("session={}", &*good.to_text())).get("/check").ok();
    }
    // The trace is not where it would be seen.
    let notes = TestDir::new();
    let traces = [notes.join("http"), notes.join("scgi")];
    let arguments = ["-f", "-y", "-s", "200", "-e", "trace=%file,link,symlink,mkdir,mknod,rename,truncate,execve"];
    let straces = [
        Strace::attach(children(http.proc.pid())[0], &arguments, &traces[0]),
        Strace::attach(children(scgi.pid())[0], &arguments, &traces[1]),
    ];
    let before = all_names(directory.path());

    let mut numbers = Numbers::new(1);
    let (mut sent, mut distinct) = (0, BTreeSet::new());
    let text = good.to_text();
    let mut visitor = Visitor::new(&http.door);
    while sent < IDS {
        let mut cookie = Vec::new();
        // One request has one of them, all others have many.
        let together = if numbers.below(10) == 0 { 1 } else { TOGETHER };
        for _ in 0..together {
            let id = hostile(&mut numbers, &text);
            if cookie.len() + id.len() > 7000 {
                break;
            }
            cookie.extend([if cookie.is_empty() { &b"session="[..] } else { b"; session=" }, &id].concat());
            distinct.insert(id);
            sent += 1;
        }
        let body = match String::from_utf8(cookie) {
            Ok(cookie) if numbers.below(2) == 0 => {
                visitor.cookie = Some(cookie);
                let answer = visitor.get("/check").ok();
                assert_eq!(answer.set_cookie, None);
                answer.body
            }
            cookie => {
                let cookie = cookie.map_or_else(std::string::FromUtf8Error::into_bytes, String::into_bytes);
                let answer = ask_scgi(&address, &cookie).expect("an answer");
                assert!(answer.starts_with("Status: 200") && !answer.contains("Set-Cookie"), "{answer}");
                answer
            }
        };
        assert!(body.contains("session_id: None\n"), "{body}");
    }
    // Bytes that no header may hold, and the end of strings in C.
    let evil = format!("session={}\0/../../etc/passwd", &*text);
    let answer = Visitor::with(&http.door, &evil).get("/check");
    assert_eq!((answer.status, answer.set_cookie), (400, None));

    // That this would have been seen: an ID that is one, of no session.
    let unknown = Id::generate().expect("an ID");
    let cookie = format!("session={}", &*unknown.to_text());
    Visitor::with(&http.door, &cookie).get("/check").ok();
    ask_scgi(&address, cookie.as_bytes()).expect("an answer");
    for trace in &traces {
        let lines = || fs::read_to_string(trace).unwrap_or_default();
        eventually("the last request is in the trace", || lines().contains(&*unknown.to_text()));
        let lines = lines();
        let calls: Vec<&str> = lines.lines().filter(|line| !line.contains("AT_EMPTY_PATH")).collect();
        let is_ours = |line: &&&str| {
            let inside = format!("{}>, \"{}\"", sessions.display(), &*unknown.to_text());
            line.contains("openat(") && line.contains(&inside)
        };
        assert_eq!(calls.iter().filter(is_ours).count(), calls.len(), "{calls:#?}");
    }
    drop(straces);
    assert_eq!(all_names(directory.path()), before, "files were made");
    assert_eq!(fs::read_to_string(directory.join("target")).expect("read"), "precious");
    eprintln!("{sent} hostile IDs, {} of them distinct: 0 system calls on files, 0 files", distinct.len());
}
