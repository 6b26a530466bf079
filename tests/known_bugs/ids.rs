//! Session IDs: how they are drawn, and that nobody brings his own.

use std::fs::File;
use std::io::Read as _;
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloakroom::session::{Guard, Id, Record, Saved, Store, Stored, Swept, Version};
use cloakroom::{DirectoryStore, Host, Request, Response, Session, StoreError};

use super::app::FRONTS;
use super::session::record;
use super::support::client::{http_request, read, send};
use super::support::visitor::{Site, Visitor};
use super::support::{TestDir, turn};

const WORKERS: usize = 8;

/// One after another out of the child of a fork, until its share is drawn. Nothing here allocates or locks: the parent has
/// other threads.
fn draw_in_child(share: usize, pipe: i32) -> ! {
    // Locks of other tests would be held here as well.
    let others = [(3, pipe - 1), (pipe + 1, i32::MAX)];
    for (first, last) in others {
        // SAFETY: three integers; no descriptor but `pipe` is used in this process.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
    let mut buffer = [0; 4096];
    let mut used = 0;
    for left in (0..share).rev() {
        let Ok(id) = Id::generate() else { std::process::abort() };
        buffer[used..used + 16].copy_from_slice(id.as_bytes());
        used += 16;
        if used == buffer.len() || left == 0 {
            let mut sent = 0;
            while sent < used {
                // SAFETY: the bytes are within the buffer, and the descriptor is open in this process.
                let n = unsafe { libc::write(pipe, buffer[sent..].as_ptr().cast(), used - sent) };
                let Ok(n) = usize::try_from(n) else { std::process::abort() };
                sent += n;
            }
            used = 0;
        }
    }
    // SAFETY: it ends this process at once, and calls nothing.
    unsafe { libc::_exit(0) }
}

/// `rand::rng()`, once used, gives all workers that are forked after that the same numbers; others made IDs of the process
/// ID, the time or `rand()`.
///
/// `CLOAKROOM_IDS=10000000` draws as many as that; 400,000 otherwise.
#[test]
fn cve_2026_56016_cve_2025_40931_cve_2026_5081_ids_of_forked_workers_never_repeat() {
    let _turn = turn();
    let share = super::count("CLOAKROOM_IDS", 400_000) / WORKERS;
    // The parent's own generator, if there were one, is at work when they are forked.
    let first = Id::generate().expect("an ID");
    let workers: Vec<(i32, OwnedFd)> = (0..WORKERS)
        .map(|_| {
            let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
            // SAFETY: the child calls nothing but what is safe in the child of a process with threads, and never returns.
            match unsafe { libc::fork() } {
                0 => draw_in_child(share, writer.as_raw_fd()),
                child => (child, reader),
            }
        })
        .collect();
    let mut ids = vec![*first.as_bytes()];
    std::thread::scope(|scope| {
        let readers: Vec<_> = workers
            .into_iter()
            .map(|(child, reader)| {
                scope.spawn(move || {
                    let mut bytes = Vec::with_capacity(share * 16);
                    File::from(reader).read_to_end(&mut bytes).expect("read IDs");
                    let mut status = 0;
                    // SAFETY: `status` is written while the call lasts; the child is this process's own.
                    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                    assert_eq!(status, 0, "a worker failed");
                    bytes
                })
            })
            .collect();
        for reader in readers {
            let bytes = reader.join().expect("a reader");
            ids.extend(bytes.chunks_exact(16).map(|id| <[u8; 16]>::try_from(id).expect("16 bytes")));
        }
    });
    assert_eq!(ids.len(), share * WORKERS + 1);
    let total = ids.len();
    // All of the 128 bits count: each is set in half of the IDs.
    for bit in 0..128 {
        let set = ids.iter().filter(|id| id[bit / 8] >> (bit % 8) & 1 == 1).count();
        let off = set.abs_diff(total / 2);
        // Six standard deviations.
        assert!(off * off <= 9 * total, "bit {bit} is set in {set} of {total}");
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), total, "an ID was drawn twice");
    eprintln!("{total} IDs drawn by {WORKERS} forked processes: 0 repeated");
}

fn visitor<'s>(site: &'s Site, cookie: &str) -> Visitor<'s> {
    let mut visitor = site.visitor();
    visitor.cookie = Some(cookie.to_owned());
    visitor
}

/// An ID that somebody else has chosen is not taken over, and at a login the ID changes.
#[test]
fn cve_2011_4718_cve_2018_12071_an_id_is_never_adopted() {
    for front in FRONTS {
        let site = Site::new(front);
        let planted = Id::generate().expect("an ID").to_text().to_string();
        for method_is_post in [false, true] {
            let mut victim = visitor(&site, &planted);
            if method_is_post {
                victim.post("/keep", &[])
            } else {
                victim.get("/keep")
            };
            let own = victim.cookie.clone().expect("a cookie");
            assert_ne!(own, planted, "{front:?}");
            visitor(&site, &planted).get("/check").shows(200, "session_id: None");
        }
        // One that exists, since the attacker has made it: whoever logs in leaves it behind.
        let mut attacker = site.visitor();
        attacker.get("/keep");
        let fixed = attacker.cookie.clone().expect("a cookie");
        let mut victim = attacker.clone();
        let token = victim.get("/create_token").line("Token created");
        victim.post("/login", &[("name", "ada"), ("form_token", &token)]).shows(200, "Hello, ada");
        assert_ne!(victim.cookie.as_deref(), Some(fixed.as_str()), "{front:?}");
        victim.get("/check").shows(200, "user: ada");
        attacker.cookie = Some(fixed);
        attacker.get("/check").shows(200, "session_id: None");
    }
}

/// Gives the first session that is to be created an ID that is taken.
struct Colliding {
    store: DirectoryStore,
    taken: Id,
    asked: Arc<Mutex<Vec<bool>>>,
}

impl Store for Colliding {
    fn create(&self, id: &Id, record: &Record) -> Result<Version, StoreError> {
        let mut asked = self.asked.lock().expect("no panic");
        let id = if asked.is_empty() { &self.taken } else { id };
        let created = self.store.create(id, record);
        asked.push(created.is_ok());
        created
    }

    fn load(&self, id: &Id) -> Result<Option<Stored>, StoreError> {
        self.store.load(id)
    }

    fn save(&self, id: &Id, record: &Record, expected: Version) -> Result<Saved, StoreError> {
        self.store.save(id, record, expected)
    }

    fn touch(&self, id: &Id) -> Result<bool, StoreError> {
        self.store.touch(id)
    }

    fn lock(&self, id: &Id, wait: Duration) -> Result<Option<Box<dyn Guard>>, StoreError> {
        self.store.lock(id, wait)
    }

    fn iter(&self) -> Result<Box<dyn Iterator<Item = Result<(Id, Stored), StoreError>> + '_>, StoreError> {
        self.store.iter()
    }

    fn setup(&self) -> Result<(), StoreError> {
        self.store.setup()
    }

    fn delete_old_sessions(&self, age: Option<Duration>) -> Result<Swept, StoreError> {
        self.store.delete_old_sessions(age)
    }

    fn sweep(&self, age: Option<Duration>, budget: Option<Duration>) -> Result<Option<Swept>, StoreError> {
        self.store.sweep(age, budget)
    }

    fn is_multiprocess_safe(&self) -> bool {
        true
    }

    fn is_thread_safe(&self) -> bool {
        true
    }
}

/// A renewal that saved under the new ID, where it should have created, would overwrite whoever has it.
#[test]
fn tower_sessions_188_a_new_id_that_is_taken_overwrites_nobody() {
    let directory = TestDir::new();
    let store = DirectoryStore::at(directory.join("sessions"));
    let taken = Id::generate().expect("an ID");
    store.create(&taken, &record(&taken, 7, 100)).expect("create");
    let own = Id::generate().expect("an ID");
    store.create(&own, &record(&own, 1, 100)).expect("create");
    let asked = Arc::default();
    let colliding = Colliding { store: store.clone(), taken, asked: Arc::clone(&asked) };
    let login = |_: Request, session: &mut Session| {
        session.set_user("ada")?;
        Ok(Response::text("hello"))
    };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    // It serves until the process ends.
    std::thread::spawn(move || Host::new(login).sessions(colliding).serve_http(listener));
    let request = String::from_utf8(http_request("GET", "/")).expect("text");
    let request = request.replacen("\r\n", &format!("\r\nCookie: session={}\r\n", &*own.to_text()), 1);
    let answer = read(send(&address, request.as_bytes()).expect("send")).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(*asked.lock().expect("no panic"), [false, true], "created where it was taken, or not tried again");
    let stored = store.load(&taken).expect("load").expect("still there");
    assert_eq!((super::session::number(&taken, &stored.record), stored.record.user()), (Some(7), None));
    let id = answer.split_once("session=").expect("a cookie").1.split(';').next().expect("an ID");
    let id = Id::parse(id).expect("an ID");
    assert_ne!(id, taken);
    let renewed = store.load(&id).expect("load").expect("a session");
    assert_eq!((renewed.record.user(), store.exists(&own).expect("look")), (Some("ada"), false));
}
