//! What somebody else put where the store looks: refused at once, and left as it was.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use cloakroom::session::{Id, Store, Swept};
use cloakroom::{DirectoryStore, StoreError};
use rustix::fs::{CWD, FileType, mknodat};

use super::demo::Pool;
use super::session::record;
use super::support::visit::{Door, Visitor};
use super::support::{PATIENCE, TestDir, eventually};

/// Anything the kernel has to look up takes less; it is the shortest of some tries that counts.
const AT_ONCE: Duration = Duration::from_millis(10);
const NOBODY: u32 = 65534;

/// What can be where a session's file should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    Link,
    LinkToSession,
    LinkToNothing,
    LinkOutside,
    Pipe,
    HardLink,
    Directory,
    /// One that gives zeros for ever.
    Device,
    Socket,
    ForeignOwner,
    ModeForAll,
    ModeForGroup,
}

const PLANTS: [Plant; 12] = [
    Plant::Link,
    Plant::LinkToSession,
    Plant::LinkToNothing,
    Plant::LinkOutside,
    Plant::Pipe,
    Plant::HardLink,
    Plant::Directory,
    Plant::Device,
    Plant::Socket,
    Plant::ForeignOwner,
    Plant::ModeForAll,
    Plant::ModeForGroup,
];

/// A session directory, and beside it what must stay as it is.
struct Ground {
    directory: TestDir,
    store: DirectoryStore,
    /// A session of whoever runs this.
    good: Id,
}

impl Ground {
    fn new() -> Self {
        let directory = TestDir::new();
        let store = DirectoryStore::at(directory.join("sessions"));
        let good = Id::generate().expect("an ID");
        store.create(&good, &record(&good, 1, 100)).expect("create");
        // A sweep leaves a note on it, once.
        store.delete_old_sessions(None).expect("sweep");
        fs::write(directory.join("target"), "precious").expect("write");
        fs::set_permissions(directory.join("target"), Permissions::from_mode(0o600)).expect("chmod");
        Self { directory, store, good }
    }

    fn sessions(&self) -> PathBuf {
        self.directory.join("sessions")
    }

    /// Puts it there; `None` where only root could, and says so.
    fn plant(&self, plant: Plant, name: &str) -> Option<PathBuf> {
        let (path, target) = (self.sessions().join(name), self.directory.join("target"));
        let copy = || fs::copy(self.sessions().join(&*self.good.to_text()), &path).map(drop);
        let mode = |mode| copy().and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)));
        let done = match plant {
            Plant::Link => symlink(&target, &path),
            Plant::LinkToSession => symlink(&*self.good.to_text(), &path),
            Plant::LinkToNothing => symlink(self.directory.join("nothing"), &path),
            Plant::LinkOutside => symlink("/etc/passwd", &path),
            Plant::Pipe => mknodat(CWD, &path, FileType::Fifo, 0o600.into(), 0).map_err(Into::into),
            Plant::HardLink => fs::hard_link(&target, &path),
            Plant::Directory => fs::create_dir(&path).and_then(|()| fs::write(path.join("file"), "precious")),
            Plant::Device => {
                let zero = rustix::fs::makedev(1, 5);
                mknodat(CWD, &path, FileType::CharacterDevice, 0o600.into(), zero).map_err(Into::into)
            }
            Plant::Socket => UnixListener::bind(&path).map(drop),
            Plant::ForeignOwner => copy().and_then(|()| std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY))),
            Plant::ModeForAll => mode(0o666),
            Plant::ModeForGroup => mode(0o640),
        };
        match done {
            Ok(()) => Some(path),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                eprintln!("{plant:?}: skipped, only root can make it");
                let _ = fs::remove_file(&path);
                None
            }
            Err(error) => panic!("{plant:?}: {error}"),
        }
    }

    /// Everything that is there, but for what reading changes.
    fn look(&self) -> Vec<String> {
        fn list(path: &Path, found: &mut Vec<String>) {
            let data = fs::symlink_metadata(path).expect("look");
            let content = if data.is_file() { fs::read(path).expect("read") } else { Vec::new() };
            found.push(format!(
                "{} inode={} mode={:o} owner={} links={} size={} modified={}.{} changed={}.{} {content:?}",
                path.display(),
                data.ino(),
                data.mode(),
                data.uid(),
                data.nlink(),
                data.size(),
                data.mtime(),
                data.mtime_nsec(),
                data.ctime(),
                data.ctime_nsec(),
            ));
            if data.is_dir() {
                for entry in fs::read_dir(path).expect("list") {
                    list(&entry.expect("an entry").path(), found);
                }
            }
        }
        let mut found = Vec::new();
        list(self.directory.path(), &mut found);
        found.sort();
        found
    }
}

/// The outcome, and that it is there at once.
#[track_caller]
fn at_once<T>(what: &str, mut act: impl FnMut() -> T) -> T {
    // Whoever waits for a FIFO's other end waits for ever.
    let (done, is_done) = channel::<()>();
    let name = what.to_owned();
    thread::spawn(move || {
        if is_done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs");
            std::process::abort();
        }
    });
    let mut shortest = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        let outcome = act();
        shortest = shortest.min(began.elapsed());
        if shortest < AT_ONCE {
            drop(done);
            return outcome;
        }
    }
    panic!("{what} took {shortest:?}")
}

#[track_caller]
fn refused<T>(plant: Plant, what: &str, mut act: impl FnMut() -> Result<T, StoreError>) {
    match at_once(what, &mut act) {
        Err(StoreError::Untrusted { .. }) => {}
        Err(error) => panic!("{plant:?}: {what}: {error}"),
        Ok(_) => panic!("{plant:?}: {what} was not refused"),
    }
}

#[test]
fn what_is_planted_in_place_of_a_session_is_refused_and_left_alone() {
    for plant in PLANTS {
        let ground = Ground::new();
        let id = Id::generate().expect("an ID");
        let Some(_) = ground.plant(plant, &id.to_text()) else { continue };
        let store = &ground.store;
        let before = ground.look();
        refused(plant, "load", || store.load(&id));
        refused(plant, "exists", || store.exists(&id));
        refused(plant, "lock", || store.lock(&id, Duration::from_secs(20)).map(drop));
        refused(plant, "delete", || store.delete(&id));
        refused(plant, "touch", || store.touch(&id));
        let version = store.load(&ground.good).expect("load").expect("a session").version;
        refused(plant, "save", || store.save(&id, &record(&id, 2, 100), version));
        let created = at_once("create", || store.create(&id, &record(&id, 2, 100)));
        assert!(matches!(created, Err(StoreError::Exists)), "{plant:?}: {created:?}");
        // One file does not keep the others from being seen, and is no session.
        let listed: Vec<Id> =
            at_once("iter", || store.iter().expect("iter").filter_map(|one| Some(one.ok()?.0)).collect());
        assert_eq!(listed, [ground.good], "{plant:?}");
        let swept = at_once("sweep", || store.delete_old_sessions(None)).expect("sweep");
        assert_eq!(swept.deleted, 0, "{plant:?}");
        assert_eq!(ground.look(), before, "{plant:?}");
    }
}

/// Through the demo, as pool and as CGI script: an error for the visitor whose cookie it is, and for nobody else.
#[test]
fn what_is_planted_fails_the_request_and_is_left_alone() {
    let ground = Ground::new();
    let pool = Pool::new(&ground.sessions());
    for plant in PLANTS {
        let id = Id::generate().expect("an ID");
        let Some(path) = ground.plant(plant, &id.to_text()) else { continue };
        let before = ground.look();
        for door in [&pool.door, &Door::Cgi(ground.sessions())] {
            for (method, target) in [("GET", "/check"), ("POST", "/counter"), ("POST", "/keep"), ("POST", "/logout")] {
                let ask = || {
                    let cookie = format!("session={}", &*id.to_text());
                    Visitor::with(door, &cookie).ask(method, target, "").expect("an answer")
                };
                // A CGI script takes its time to start.
                let answer = if matches!(door, Door::Cgi(_)) { ask() } else { at_once("a request", ask) };
                assert_eq!((answer.status, &answer.set_cookie), (500, &None), "{plant:?}: {target}");
            }
        }
        assert_eq!(ground.look(), before, "{plant:?}");
        if plant == Plant::Directory { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("remove");
    }
    let cookie = format!("session={}", &*ground.good.to_text());
    assert_eq!(Visitor::with(&pool.door, &cookie).get("/check").ok().number("counter"), 1);
}

/// Old enough to be removed, were they what they seem to be.
#[test]
fn what_is_planted_under_a_damaged_files_name_is_left_alone() {
    for plant in PLANTS {
        let ground = Ground::new();
        let Some(path) = ground.plant(plant, "damaged-0123456789abcdef0123456789abcdef-1") else { continue };
        age(&path);
        let over = Id::generate().expect("an ID");
        ground.store.create(&over, &super::session::over()).expect("create");
        let target = ground.directory.join("target");
        let before = content(&target);
        // It keeps nobody from what is to be swept.
        swept(&ground, &over, || Some(ground.store.delete_old_sessions(None).expect("sweep")));
        assert_eq!(content(&target), before, "{plant:?}");
        let is_file = matches!(plant, Plant::HardLink | Plant::ForeignOwner | Plant::ModeForAll | Plant::ModeForGroup);
        assert_eq!(fs::symlink_metadata(&path).is_ok(), !is_file, "{plant:?}: only files are removed");
    }
}

#[test]
fn what_is_planted_in_place_of_a_sweeps_position_is_not_believed() {
    for plant in PLANTS {
        let ground = Ground::new();
        // A position behind all that there is: whoever believed it would find nothing to sweep.
        let end = "9223372036854775807\n";
        fs::write(ground.directory.join("target"), end).expect("write");
        let Some(path) = ground.plant(plant, "sweep-position") else { continue };
        if matches!(plant, Plant::ForeignOwner | Plant::ModeForAll | Plant::ModeForGroup) {
            fs::write(&path, end).expect("write");
        }
        let over = Id::generate().expect("an ID");
        ground.store.create(&over, &super::session::over()).expect("create");
        let before = content(&ground.directory.join("target"));
        let sweep = || ground.store.sweep(None, Some(Duration::from_secs(20))).expect("sweep");
        // The first that is not kept away has seen both sessions.
        let first = (0..1000).find_map(|_| sweep()).expect("a sweep");
        assert!(first.deleted + first.remaining >= 2, "{plant:?}: {first:?}");
        swept(&ground, &over, sweep);
        // And one that has to write its own.
        let position = ground.sessions().join("sweep-position");
        if fs::symlink_metadata(&position).is_err() {
            ground.plant(plant, "sweep-position");
        }
        ground.store.sweep(None, Some(Duration::ZERO)).expect("sweep");
        assert_eq!(content(&ground.directory.join("target")), before, "{plant:?}");
    }
}

/// Sweeps until this session is gone. Once is enough, unless a process that another test starts just now has a copy of a lock:
/// it has one until it executes its program.
#[track_caller]
fn swept(ground: &Ground, over: &Id, sweep: impl Fn() -> Option<Swept>) {
    eventually("the sweep deletes what is over", || {
        let outcome = at_once("sweep", &sweep);
        assert!(outcome.is_none_or(|swept| swept.complete), "{outcome:?}");
        fs::symlink_metadata(ground.sessions().join(&*over.to_text())).is_err()
    });
}

fn content(target: &Path) -> (Vec<u8>, u32, u32, i64) {
    let data = fs::symlink_metadata(target).expect("look");
    (fs::read(target).expect("read"), data.mode(), data.uid(), data.mtime_nsec())
}

/// A month old.
fn age(path: &Path) {
    let time = rustix::fs::Timespec { tv_sec: (cloakroom_now() - 30 * 24 * 3600).cast_signed(), tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).expect("set the time");
}

fn cloakroom_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
}

#[test]
fn a_directory_that_is_none_of_ours_is_refused_and_left_alone() {
    let root = rustix::process::geteuid().is_root();
    for plant in PLANTS {
        let ground = Ground::new();
        // In its own place, beside the target.
        let directory = ground.directory.join("place");
        let ours = ground.directory.join("ours");
        fs::create_dir(&ours).expect("create");
        fs::set_permissions(&ours, Permissions::from_mode(0o700)).expect("chmod");
        match plant {
            // What root or we have linked is followed; see below.
            Plant::LinkToSession | Plant::LinkOutside | Plant::HardLink => {
                symlink(&ours, &directory).expect("link");
                if !root {
                    continue;
                }
                std::os::unix::fs::lchown(&directory, Some(NOBODY), Some(NOBODY)).expect("chown");
            }
            Plant::Link | Plant::LinkToNothing | Plant::Pipe | Plant::Device | Plant::Socket => {
                let Some(planted) = ground.plant(plant, "planted") else { continue };
                fs::rename(planted, &directory).expect("rename");
            }
            Plant::ForeignOwner | Plant::Directory => {
                fs::create_dir(&directory).expect("create");
                if !root {
                    continue;
                }
                fs::set_permissions(&directory, Permissions::from_mode(0o700)).expect("chmod");
                std::os::unix::fs::chown(&directory, Some(NOBODY), Some(NOBODY)).expect("chown");
            }
            Plant::ModeForAll | Plant::ModeForGroup => {
                fs::create_dir(&directory).expect("create");
                let mode = if plant == Plant::ModeForAll { 0o777 } else { 0o750 };
                fs::set_permissions(&directory, Permissions::from_mode(mode)).expect("chmod");
            }
        }
        let before = ground.look();
        let id = Id::generate().expect("an ID");
        for what in ["setup", "load", "create", "sweep"] {
            let failed = at_once(what, || {
                let store = DirectoryStore::at(&directory);
                match what {
                    "setup" => store.setup(),
                    "load" => store.load(&id).map(drop),
                    "create" => store.create(&id, &record(&id, 1, 100)).map(drop),
                    _ => store.delete_old_sessions(None).map(drop),
                }
            });
            let refused = matches!(failed, Err(StoreError::Unsuitable { .. } | StoreError::Io { .. }));
            assert!(refused, "{plant:?}: {what}: {failed:?}");
        }
        assert_eq!(ground.look(), before, "{plant:?}");
    }
}

#[test]
fn a_directory_that_we_have_linked_ourselves_is_ours() {
    let ground = Ground::new();
    symlink(ground.sessions(), ground.directory.join("link")).expect("link");
    let store = DirectoryStore::at(ground.directory.join("link"));
    store.setup().expect("set up");
    assert!(store.load(&ground.good).expect("load").is_some());
}
