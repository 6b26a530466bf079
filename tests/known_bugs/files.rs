//! Session files that somebody else has made, or had made, and files that the store must not touch.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, SystemTime};

use cloakroom::session::{Id, Record, Store as _};
use cloakroom::{DirectoryStore, StoreError};
use xxhash_rust::xxh3::xxh3_64;

use super::app::FRONTS;
use super::session::{number, over, record};
use super::support::process::{Proc, demo, demo_by_shell};
use super::support::visit::{Door, Visitor};
use super::support::visitor::{Message, Site};
use super::support::{PATIENCE, TestDir, eventually};

const CAPACITY: usize = 2048;

/// A file as the store makes them, with this payload: all is right but what is in it.
fn forged(id: &Id, payload: &[u8]) -> Vec<u8> {
    let mut slot = vec![0; 8];
    slot.extend(b"CLKR\x01\0\0\0");
    slot.extend(id.as_bytes());
    slot.extend(1_u64.to_le_bytes());
    slot.extend([0; 12]);
    slot.extend(u32::try_from(payload.len()).expect("small").to_le_bytes());
    slot.extend([7; 8]);
    slot.extend(payload);
    let checksum = xxh3_64(&slot[8..]).to_le_bytes();
    slot[..8].copy_from_slice(&checksum);
    slot.resize(2 * CAPACITY, 0);
    slot
}

struct Ground {
    directory: TestDir,
    store: DirectoryStore,
    id: Id,
}

impl Ground {
    fn new() -> Self {
        let directory = TestDir::new();
        let store = DirectoryStore::at(directory.join("sessions"));
        store.setup().expect("set up");
        Self { directory, store, id: Id::generate().expect("an ID") }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("sessions").join(&*self.id.to_text())
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.join("sessions")).expect("list");
        entries.map(|entry| entry.expect("entry").file_name().into_string().expect("text")).collect()
    }
}

fn write(path: &Path, content: &[u8], mode: u32) {
    fs::write(path, content).expect("write");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

/// What other systems would take for a session: what Python, PHP, Ruby and Java write, JSON, and records without their
/// envelope. `canary` is made if any of it is run.
fn foreign(canary: &Path, own: &[u8]) -> Vec<Vec<u8>> {
    let canary = canary.display();
    let mut all: Vec<Vec<u8>> = vec![
        format!("cos\nsystem\n(S'touch {canary}'\ntR.").into(),
        format!("\u{80}\u{4}cposix\nsystem\nX\x20\0\0\0touch {canary}\u{85}R.").into(),
        format!("a:1:{{s:4:\"user\";O:8:\"Evil\":1:{{s:3:\"cmd\";s:20:\"touch {canary}\";}}}}").into(),
        b"user|s:5:\"admin\";keep|b:1;".to_vec(),
        b"{\"user\":\"admin\",\"c\":1,\"v\":{}}".to_vec(),
        b"\x04\x08{\x06:\tuserI\"\nadmin\x06:\x06ET".to_vec(),
        b"\xac\xed\0\x05sr\0\x11java.util.HashMap".to_vec(),
        format!("<?php system('touch {canary}'); ?>").into(),
        format!("#!/bin/sh\ntouch {canary}\n").into(),
        // CBOR that is none of ours: a tagged value, an unknown key, a key twice, something behind it, and nothing.
        b"\xc0\xa1acub".to_vec(),
        b"\xa2ac\x01ax\x01".to_vec(),
        b"\xa3ac\x01auedemosaueadmin".to_vec(),
        [own, b"\0"].concat(),
        own[..own.len() - 1].to_vec(),
        b"\xf6".to_vec(),
        // Depth and lengths beyond everything.
        [vec![0x81; 1900], vec![0]].concat(),
        b"\xa1\x61v\xbb\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"\xa1\x61u\x7b\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec(),
    ];
    all.push(own.to_vec());
    all
}

/// rack-session took what it could not decrypt for what an older version had written, and loaded that. Here what is
/// damaged, or of another making, is no session, and nobody tries a second way to read it.
#[test]
fn cve_2026_39324_what_cannot_be_decoded_is_no_session() {
    let ground = Ground::new();
    let own = record(&ground.id, 666, 100).encode();
    // That the forgery is good, but for what is in it.
    write(&ground.path(), &forged(&ground.id, &own), 0o600);
    let loaded = ground.store.load(&ground.id).expect("load").expect("a session");
    assert_eq!(number(&ground.id, &loaded.record), Some(666));

    let canary = ground.directory.join("canary");
    let all = foreign(&canary, &own);
    let mut files: Vec<Vec<u8>> = all[..all.len() - 1].iter().map(|payload| forged(&ground.id, payload)).collect();
    // Without the envelope, and in one that is not quite right.
    files.extend(all);
    for at in [0, 8, 12, 16, 32, 52, 70] {
        let mut file = forged(&ground.id, &own);
        file[at] ^= 1;
        files.push(file);
    }
    files.push(forged(&Id::generate().expect("an ID"), &own));
    let door = Door::Cgi(ground.directory.join("sessions"));
    let cookie = format!("session={}", &*ground.id.to_text());
    for (number, file) in files.iter().enumerate() {
        let what = || format!("{number}: {}", file[..file.len().min(100)].escape_ascii());
        write(&ground.path(), file, 0o600);
        let loaded = ground.store.load(&ground.id);
        assert!(matches!(loaded, Ok(None)), "{}: {loaded:?}", what());
        if number % 6 == 0 {
            write(&ground.path(), file, 0o600);
            let answer = Visitor::with(&door, &cookie).get("/check").ok();
            assert!(answer.body.contains("session_id: None") && answer.body.contains("user: None"), "{}", what());
        }
        let _ = fs::remove_file(ground.path());
    }
    assert!(!canary.exists(), "something was run");
}

/// web2py, and Session3, ran what was in a session. Here it is data, whatever it says.
#[test]
fn cve_2016_3957_nothing_in_a_session_is_run() {
    let ground = Ground::new();
    let canary = ground.directory.join("canary");
    let own = record(&ground.id, 1, 10).encode();
    for payload in foreign(&canary, &own) {
        assert_eq!(Record::decode(&payload).is_ok(), payload == own, "{}", payload.escape_ascii());
        // The same as a value, which is where an application's text goes: it comes back as it went.
        let name = String::from_utf8_lossy(&payload).into_owned();
        let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        let door = Door::Cgi(ground.directory.join("sessions"));
        let mut visitor = Visitor::new(&door);
        visitor.post("/login", &form_urlencoded::Serializer::new(String::new()).append_pair("name", &name).finish());
        let shown = visitor.get("/check").ok().body;
        assert!(shown.contains(&format!("user: {}\n", name.trim())), "{shown}");
        assert!(!canary.exists(), "{} was run", payload.escape_ascii());
    }
}

/// Tomcat loaded what an upload had put where sessions are, and its first mend looked at the name before it opened the
/// file. Here it is the open file that is looked at, however names are turned meanwhile.
#[test]
fn cve_2020_9484_cve_2022_23181_cve_2025_24813_files_of_others_are_not_loaded() {
    let ground = Ground::new();
    let mine = forged(&ground.id, &record(&ground.id, 1, 100).encode());
    let evil = forged(&ground.id, &record(&ground.id, 666, 100).encode());
    let [outside, good, bad] = ["outside", "good", "bad"].map(|name| ground.directory.join(name));
    write(&outside, &evil, 0o600);
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("files of other users: skipped, only root can make them");
    }
    for kind in ["symbolic link", "hard link", "mode", "owner"] {
        let plant = |at: &Path| {
            let _ = fs::remove_file(at);
            match kind {
                "symbolic link" => symlink(&outside, at).expect("link"),
                "hard link" => fs::hard_link(&outside, at).expect("link"),
                "mode" => write(at, &evil, 0o620),
                _ => {
                    write(at, &evil, 0o600);
                    chown(at, Some(65534), Some(65534)).expect("chown");
                }
            }
        };
        if kind == "owner" && !root {
            continue;
        }
        plant(&ground.path());
        let refused = |loaded: Result<bool, StoreError>| {
            assert!(matches!(loaded, Err(StoreError::Untrusted { .. })), "{kind}: {loaded:?}");
        };
        refused(ground.store.load(&ground.id).map(|stored| stored.is_some()));
        refused(ground.store.lock(&ground.id, Duration::ZERO).map(|guard| guard.is_some()));
        if kind == "hard link" {
            // Which names a file has is true for a moment only; but who can turn names there is the directory's owner.
            continue;
        }
        // Turned to and fro while it is loaded: what is loaded is never the other one.
        let (done, turns) = (AtomicBool::new(false), AtomicU32::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    write(&good, &mine, 0o600);
                    fs::rename(&good, ground.path()).expect("rename");
                    plant(&bad);
                    fs::rename(&bad, ground.path()).expect("rename");
                    turns.fetch_add(1, Ordering::Relaxed);
                }
            });
            let (mut wrong, mut loads) = (None, 0);
            while wrong.is_none() && (loads < 3000 || turns.load(Ordering::Relaxed) < 100) {
                loads += 1;
                match ground.store.load(&ground.id) {
                    Ok(Some(stored)) if number(&ground.id, &stored.record) != Some(1) => {
                        wrong = Some("not ours".into());
                    }
                    Ok(_) | Err(StoreError::Untrusted { .. }) => {}
                    Err(error) => wrong = Some(error.to_string()),
                }
            }
            done.store(true, Ordering::Relaxed);
            assert_eq!(wrong, None, "{kind}");
        });
        assert_eq!(fs::read(&outside).expect("read"), evil);
    }
    // What is uploaded is nowhere under a name, least of all among the sessions.
    let before = ground.names();
    let door = Door::Cgi(ground.directory.join("sessions"));
    Visitor::new(&door).post("/counter", "x=1").ok();
    assert_eq!(ground.names(), before);
}

/// `CGI::Session`, and Session3, wrote through a link that somebody had put where the file should be.
#[test]
fn cve_2006_1279_no_link_is_written_through() {
    let ground = Ground::new();
    let [target, nothing] = ["target", "nothing"].map(|name| ground.directory.join(name));
    write(&target, b"precious", 0o600);
    let look = || {
        let data = fs::metadata(&target).expect("look");
        (fs::read(&target).expect("read"), data.mtime_nsec(), data.mode(), data.ino())
    };
    let before = look();
    let door = Door::Cgi(ground.directory.join("sessions"));
    let cookie = format!("session={}", &*ground.id.to_text());
    for to in [&target, &nothing] {
        symlink(to, ground.path()).expect("link");
        let created = ground.store.create(&ground.id, &record(&ground.id, 1, 100));
        assert!(matches!(created, Err(StoreError::Exists)), "{created:?}");
        for outcome in [
            ground.store.save(&ground.id, &record(&ground.id, 1, 100), cloakroom::session::Version(1)).map(|_| ()),
            ground.store.delete(&ground.id).map(|_| ()),
            ground.store.touch(&ground.id).map(|_| ()),
        ] {
            assert!(matches!(outcome, Err(StoreError::Untrusted { .. })), "{outcome:?}");
        }
        for target in ["/counter", "/keep", "/logout"] {
            assert_eq!(Visitor::with(&door, &cookie).post(target, "").status, 500);
        }
        fs::remove_file(ground.path()).expect("the link is still there");
        // A sweep keeps its position in a file; that is made anew, not written through.
        let position = ground.directory.join("sessions").join("sweep-position");
        for n in 0..3 {
            let id = Id::generate().expect("an ID");
            ground.store.create(&id, &record(&id, n, 10)).expect("create");
        }
        symlink(to, &position).expect("link");
        let swept = ground.store.sweep(None, Some(Duration::ZERO)).expect("sweep").expect("alone");
        assert!(!swept.complete);
        assert!(fs::symlink_metadata(&position).expect("look").is_file(), "still a link");
        fs::remove_file(position).expect("remove");
    }
    assert_eq!(look(), before);
    assert!(!nothing.exists(), "a file was made through a link");
}

/// Session3's files could be read by everybody. Ours are closed whatever the umask is, and so is their directory; one that
/// is not is refused.
#[test]
fn session3_files_are_closed_whatever_the_umask_is() {
    let directory = TestDir::new();
    let (scgi, sessions) = (format!("unix:{}", directory.join("s").display()), directory.join("sessions"));
    let mut command = demo_by_shell("umask 000; exec \"$0\" \"$@\"");
    command.args(["--scgi", &scgi, "--http", "127.0.0.1:0", "--umask", "0", "--workers", "1", "--sessions"]);
    let pool = Proc::start({
        command.arg(&sessions);
        command
    });
    let doors = [Door::Http(pool.address("http")), Door::Scgi(pool.address("scgi")), Door::Cgi(sessions.clone())];
    for door in &doors {
        let mut visitor = Visitor::new(door);
        if matches!(door, Door::Cgi(_)) {
            let mut shell = Command::new("sh");
            shell.args(["-c", "umask 000; exec \"$0\""]).arg(demo().get_program());
            let output = visitor.script(shell, "GET", "/keep", "").output().expect("run");
            assert!(output.stdout.starts_with(b"Status: 303"), "{output:?}");
        } else {
            visitor.get("/keep");
        }
    }
    let mode = |path: &Path| fs::metadata(path).expect("look").permissions().mode() & 0o7777;
    assert_eq!(mode(&sessions), 0o700);
    let files: Vec<PathBuf> =
        fs::read_dir(&sessions).expect("list").map(|entry| entry.expect("entry").path()).collect();
    assert_eq!(files.len(), doors.len());
    assert!(files.iter().all(|file| mode(file) == 0o600), "{:o}", mode(&files[0]));
    for loose in [0o755, 0o750, 0o710 | 0o022, 0o704, 0o777, 0o1777] {
        fs::set_permissions(&sessions, Permissions::from_mode(loose)).expect("chmod");
        let set_up = DirectoryStore::at(&sessions).setup();
        assert!(matches!(set_up, Err(StoreError::Unsuitable { .. })), "{loose:o}: {set_up:?}");
        let answer = Visitor::new(&doors[2]).get("/keep");
        assert!(answer.status >= 500 && answer.set_cookie.is_none(), "{loose:o}: {answer:?}");
    }
}

/// Debian's cleaner of PHP sessions, run by root, could be led by names and links; sescle as well. The sweep runs as the
/// owner, goes by the names that IDs have, follows nothing, and stays in the directory that it has opened.
#[test]
fn cve_2011_0441_sescle_a_sweep_is_not_led_astray() {
    let ground = Ground::new();
    let sessions = ground.directory.join("sessions");
    let victim = ground.directory.join("victim");
    let old = SystemTime::now() - Duration::from_secs(100 * 24 * 3600);
    let age = |path: &Path| {
        let file = fs::File::options().write(true).open(path).expect("open");
        file.set_modified(old).expect("age");
    };
    // Sessions of somebody else's that are over, as far as names and content go.
    fs::create_dir(&victim).expect("mkdir");
    fs::set_permissions(&victim, Permissions::from_mode(0o700)).expect("chmod");
    let theirs = DirectoryStore::at(&victim);
    let ids: Vec<Id> = (0..5).map(|_| Id::generate().expect("an ID")).collect();
    for id in &ids {
        theirs.create(id, &over()).expect("create");
        age(&victim.join(&*id.to_text()));
    }
    let count = |path: &Path| fs::read_dir(path).expect("list").count();
    let link = |name: &str, to: &Path| symlink(to, sessions.join(name)).expect("link");
    link(&ids[0].to_text(), &victim.join(&*ids[0].to_text()));
    link(&ids[1].to_text(), &victim);
    link("damaged-0123456789abcdef0123456789abcdef-1", &victim.join(&*ids[2].to_text()));
    link("evil", &victim);
    let odd =
        ["-rf", " ", "a\nb", "*", "sess_0123", "..a", "$(touch x)", ";rm -rf ~", "0123456789ABCDEF0123456789ABCDEF"];
    for name in odd {
        write(&sessions.join(name), &forged(&ids[3], b"\xa1acac"), 0o600);
        age(&sessions.join(name));
    }
    fs::create_dir(sessions.join(&*ids[4].to_text())).expect("mkdir");
    write(&sessions.join(&*ids[4].to_text()).join("file"), b"precious", 0o600);
    let own = Id::generate().expect("an ID");
    ground.store.create(&own, &over()).expect("create");
    // An old damaged file of ours goes as well, or nothing would have been there to be led astray.
    let damaged = sessions.join("damaged-fedcba9876543210fedcba9876543210-1");
    write(&damaged, b"x", 0o600);
    age(&damaged);
    let before = count(&sessions);
    // A process that another test starts just now has the lock as well, until it executes its program.
    eventually("what is ours and over is swept", || {
        let mut sweep = Command::new(env!("CARGO_BIN_EXE_cloakroom"));
        let output = sweep.args(["sweep", "--sessions"]).arg(&sessions).output().expect("run");
        assert!(output.status.success(), "{output:?}");
        !damaged.exists() && !sessions.join(&*own.to_text()).exists()
    });
    assert_eq!(count(&sessions), before - 2, "{:?}", ground.names());
    assert_eq!(count(&victim), ids.len());
    for name in odd {
        assert!(sessions.join(name).exists(), "{name:?} was removed");
    }
    assert!(sessions.join(&*ids[4].to_text()).join("file").exists());
    // The directory's name leads elsewhere now: what was opened is what is swept.
    ground.store.create(&own, &over()).expect("create");
    let name = own.to_text();
    fs::copy(sessions.join(&*name), victim.join(&*name)).expect("copy");
    let moved = ground.directory.join("moved");
    fs::rename(&sessions, &moved).expect("rename");
    symlink(&victim, &sessions).expect("link");
    let mut deleted = 0;
    eventually("what is ours is swept", || {
        deleted += ground.store.delete_old_sessions(None).expect("sweep").deleted;
        deleted > 0
    });
    assert_eq!((deleted, count(&victim)), (1, ids.len() + 1));
    assert!(!moved.join(&*name).exists());
}

/// PHP could be had to write a client's text into a session file of a name that the client knew, which was then included
/// as a program. Here no client has a say in a name, nothing is executable, and uploads have no names.
#[test]
fn php_upload_progress_no_client_names_a_file() {
    for front in FRONTS {
        let site = Site::new(front);
        let marker = "<?php system('id') ?>";
        let chosen = "0123456789abcdef0123456789abcdef";
        let part = |name: &str, more: &str, content: &str| {
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\n{content}\r\n")
        };
        let large = "x".repeat(1 << 20) + marker;
        let body = part("PHP_SESSION_UPLOAD_PROGRESS", "", marker)
            + &part("file", &format!("; filename=\"../sessions/{chosen}\""), &large)
            + "--b--\r\n";
        let mut visitor = site.visitor();
        visitor.cookie = Some(chosen.to_owned());
        let headers = vec![("Content-Type", b"multipart/form-data; boundary=b".to_vec())];
        let message = Message { method: "POST", target: "/upload", headers, body: body.into_bytes() };
        visitor.send(message).expect("an answer").shows(200, "One file came");
        assert_eq!(site.stored(), 0, "{front:?}");
        // A name that the client has chosen is in a session, where it belongs.
        visitor.post("/login", &[("name", marker)]);
        let id = visitor.cookie.clone().expect("a cookie");
        assert_ne!(id, chosen);
        let sessions = site.dir().join("sessions");
        let file = sessions.join(&id);
        let data = fs::metadata(&file).expect("a file of that name");
        assert_eq!((site.stored(), data.mode() & 0o7777), (1, 0o600), "{front:?}");
        let content = fs::read(&file).expect("read");
        let at = content.windows(marker.len()).position(|window| window == marker.as_bytes());
        assert!(at.is_some_and(|at| at >= 64) && &content[8..12] == b"CLKR", "{front:?}");
    }
}

/// Session3 was left with an empty file by a kill, and read it again and again for ever.
#[test]
fn session3_an_empty_file_is_no_session_and_no_endless_loop() {
    let ground = Ground::new();
    let door = Door::Cgi(ground.directory.join("sessions"));
    let cookie = format!("session={}", &*ground.id.to_text());
    for length in [0, 1, 8, 63, 64, 4096] {
        write(&ground.path(), &vec![0; length], 0o600);
        let (store, id, (sender, loaded)) = (ground.store.clone(), ground.id, channel());
        // Who reads it for ever is not waited for.
        thread::spawn(move || sender.send(store.load(&id).expect("load").is_none()));
        assert_eq!(loaded.recv_timeout(PATIENCE), Ok(true), "{length} zeros");
        write(&ground.path(), &vec![0; length], 0o600);
        assert!(ground.store.lock(&ground.id, Duration::from_secs(1)).expect("lock").is_none(), "{length} zeros");
        write(&ground.path(), &vec![0; length], 0o600);
        let answer = Visitor::with(&door, &cookie).post("/counter", "").ok();
        assert_eq!(answer.number("Counter"), 1, "{length} zeros");
    }
}
