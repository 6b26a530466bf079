//! What is there after a fault, and whether it may be.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use cloakroom::DirectoryStore;
use cloakroom::session::{Id, Store as _, Stored};

use crate::injection::{Fault, Injection, bare, traced};
use crate::operation::{Ask, Coat, OWN, Operation, age};
use crate::support::TestDir;
use crate::support::process::demo;
use crate::support::visit::{Answer, Door, Visitor, read_cgi};

/// A session directory of its own for each run.
pub struct Scene<'a> {
    pub operation: &'a Operation,
    pub sessions: PathBuf,
    directory: TestDir,
    began: SystemTime,
}

/// What came of a run.
#[derive(Debug)]
pub struct Run {
    /// What the client has got; of a sweep: 200, or 500 where its exit status or its log tells of an error.
    pub answer: Option<Answer>,
    pub log: String,
    pub trace: String,
    pub injected: bool,
}

/// What is there.
#[derive(Debug)]
pub struct Seen {
    own: Option<Coat>,
    used: bool,
    others: Vec<(String, Coat)>,
}

/// Taken where a process is started, and where a file is locked: a process that another thread starts just then has the
/// lock as well, until it executes its program.
pub fn starting() -> MutexGuard<'static, ()> {
    static STARTING: Mutex<()> = Mutex::new(());
    STARTING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Scene<'a> {
    pub fn new(operation: &'a Operation) -> Self {
        let directory = TestDir::new();
        let sessions = directory.join("sessions");
        let quiet = starting();
        (operation.prepare)(&sessions);
        drop(quiet);
        Self { operation, sessions, directory, began: SystemTime::now() - Duration::from_secs(5) }
    }

    /// Where strace writes to.
    pub fn trace(&self) -> PathBuf {
        self.directory.join("trace")
    }

    /// Makes what is there before once more, in the same directory, which a pool has open.
    pub fn again(&mut self) {
        for name in self.names() {
            fs::remove_file(self.sessions.join(name)).expect("remove");
        }
        let quiet = starting();
        (self.operation.prepare)(&self.sessions);
        drop(quiet);
        self.began = SystemTime::now() - Duration::from_secs(5);
    }

    /// Runs the operation under strace.
    pub fn run(&self, injection: Option<&Injection>) -> Run {
        self.end(&mut traced(&self.program(), &self.trace(), injection), injection)
    }

    /// The same with a limit to the size of files.
    pub fn limited(&self, limit: u64, injection: Option<&Injection>) -> Run {
        let program = self.program();
        let mut limited = Command::new("prlimit");
        limited.arg(format!("--fsize={limit}")).arg(program.get_program()).args(program.get_args());
        limited.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.end(&mut traced(&limited, &self.trace(), injection), injection)
    }

    fn visitor(&self) -> Visitor {
        let door = Door::Cgi(self.sessions.clone());
        // Whoever has no session has no cookie, but for one that was damaged.
        if self.sessions.join(OWN).exists() {
            Visitor::with(&door, &format!("session={OWN}"))
        } else {
            Visitor::new(&door)
        }
    }

    fn program(&self) -> Command {
        match self.operation.ask {
            Ask::Page(method, target, form) => self.visitor().script(demo(), method, target, form),
            Ask::Sweep(arguments) => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_cloakroom"));
                bare(&mut command).arg("sweep").arg("--sessions").arg(&self.sessions).args(arguments);
                command
            }
        }
    }

    fn end(&self, command: &mut Command, injection: Option<&Injection>) -> Run {
        use std::io::Write as _;
        let quiet = starting();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace (Debian: strace)");
        drop(quiet);
        if let Ask::Page(_, _, form) = self.operation.ask {
            // Who is killed may not have read it.
            let _ = child.stdin.take().expect("piped").write_all(form.as_bytes());
        }
        let output = child.wait_with_output().expect("wait for strace");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        let trace = fs::read_to_string(self.trace()).expect("what strace has written");
        let answer = match self.operation.ask {
            Ask::Page(..) => read_cgi(&output.stdout[..]).ok(),
            Ask::Sweep(_) => {
                let status = if output.status.success() && log.is_empty() { 200 } else { 500 };
                Some(Answer { status, set_cookie: None, retry_after: None, body: String::new() })
            }
        };
        let injected = injection.is_some_and(|injection| match injection.fault {
            // strace ends as its program does.
            Fault::Kill => output.status.signal() == Some(9),
            Fault::Error(_) => trace.contains("(INJECTED)"),
            Fault::Limit(_) => true,
        });
        Run { answer, log, trace, injected }
    }

    fn names(&self) -> Vec<String> {
        // Where the directory was not made there is nothing in it.
        let Ok(entries) = fs::read_dir(&self.sessions) else { return Vec::new() };
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect()
    }

    fn load(&self, id: &str) -> Option<Stored> {
        DirectoryStore::at(&self.sessions).load(&Id::parse(id)?).unwrap_or_else(|error| panic!("load {id}: {error}"))
    }

    fn look(&self) -> Seen {
        let _quiet = starting();
        let coat = |stored: &Stored| Coat {
            user: stored.record.user().map(str::to_owned),
            counter: stored.record.get("counter").expect("decode").unwrap_or(0),
        };
        let own = self.load(OWN);
        let is_own = |name: &String| name == OWN;
        let others = self.names().into_iter().filter(|name| !is_own(name));
        Seen {
            own: own.as_ref().map(coat),
            used: own.is_some_and(|own| own.record.accessed() >= self.began),
            others: others.filter_map(|name| self.load(&name).map(|stored| (name, coat(&stored)))).collect(),
        }
    }

    /// Nobody who lives holds a lock: each is to be had at once.
    fn locks_are_free(&self) {
        let _quiet = starting();
        let began = Instant::now();
        for name in self.names().into_iter().filter(|name| Id::parse(name).is_some()) {
            let Ok(file) = File::open(self.sessions.join(&name)) else { continue };
            while file.try_lock().is_err() {
                assert!(began.elapsed() < Duration::from_millis(10), "{name} is locked");
            }
        }
    }

    /// What is no session goes with the sweep, once it is old enough; what is one stays.
    fn leaves_no_litter(&self) {
        if !self.sessions.exists() {
            return;
        }
        let _quiet = starting();
        let mut alive = Vec::new();
        for name in self.names() {
            if self.load(&name).is_some() {
                alive.push(name);
            } else if let Ok(file) = File::options().write(true).open(self.sessions.join(&name)) {
                drop(file);
                // Damage is kept for a week, what never became a session for a minute.
                age(&self.sessions.join(&name), if name.starts_with("damaged-") { 8 * 24 * 3600 } else { 61 });
            }
        }
        // A load may have set damage aside.
        for name in self.names().iter().filter(|name| name.starts_with("damaged-")) {
            age(&self.sessions.join(name), 8 * 24 * 3600);
        }
        DirectoryStore::at(&self.sessions).sweep(None, None).expect("sweep").expect("nobody else sweeps");
        let (mut left, mut expected) = (self.names(), alive);
        left.sort();
        expected.sort();
        assert_eq!(left, expected, "litter, or a session that was swept");
    }

    /// The same once more, or the next request: it works.
    fn works_again(&self, is_old: bool) {
        if let Ask::Sweep(_) = self.operation.ask {
            // Done by the sweep above.
            return;
        }
        let Operation { old, new, another, .. } = self.operation;
        if is_old && (old.is_some() != new.is_some() || another.is_some()) {
            let run = self.run(None);
            self.succeeded(&run, &self.look());
        } else {
            let before = self.look().own.map(|coat| coat.counter);
            let quiet = starting();
            let answer = self.visitor().post("/counter", "").ok();
            drop(quiet);
            assert_eq!(answer.number("Counter"), before.unwrap_or(0) + 1);
        }
    }

    fn is_old(&self, seen: &Seen) -> bool {
        let Operation { old, touches, .. } = self.operation;
        let same = seen.own.as_ref().map(|coat| coat.counter) == *old && seen.own.as_ref().is_none_or(is_adas);
        same && !(*touches && seen.used)
    }

    fn is_new(&self, seen: &Seen) -> bool {
        let Operation { new, touches, another, .. } = self.operation;
        let own = seen.own.as_ref().map(|coat| coat.counter) == *new && seen.own.as_ref().is_none_or(is_adas);
        own && (seen.used || !touches) && another.is_none_or(|_| seen.others.len() == 1 && self.others_are_whole(seen))
    }

    /// The old session of a renewal has ended, in doubt as that is, and the client was told of an error: logged out.
    fn is_lost_in_renewal(&self, seen: &Seen) -> bool {
        self.operation.another.is_some() && self.operation.old.is_some() && seen.own.is_none()
    }

    /// What is there under another ID is what was to be there, all of it.
    fn others_are_whole(&self, seen: &Seen) -> bool {
        if let Ask::Sweep(_) = self.operation.ask {
            return true;
        }
        let expected = self.operation.another.map(|(user, counter)| Coat { user: user.map(str::to_owned), counter });
        seen.others.len() <= 1 && seen.others.iter().all(|(_, coat)| Some(coat) == expected.as_ref())
    }

    /// The answer is that of a success, and it is true.
    fn succeeded(&self, run: &Run, seen: &Seen) {
        assert!(self.is_new(seen), "the answer says that it is done: {run:?} {seen:?}");
        if let Ask::Sweep(arguments) = self.operation.ask {
            assert!(
                !arguments.is_empty() || self.names() == [OWN],
                "it says that it is done: {:?} {run:?}",
                self.names()
            );
            return;
        }
        let answer = run.answer.as_ref().expect("an answer");
        let cookie = answer.set_cookie.as_deref().map(|cookie| cookie.strip_prefix("session=").expect("our cookie"));
        let expected = match (self.operation.another, self.operation.new, self.operation.old) {
            (Some(_), _, _) => Some(&*seen.others[0].0),
            (None, None, Some(_)) => Some(""),
            _ => None,
        };
        assert_eq!(cookie, expected, "{run:?} {seen:?}");
    }
}

fn is_adas(coat: &Coat) -> bool {
    coat.user.as_deref() == Some("ada")
}

/// After a kill: old or new, and nothing else.
pub fn judge_kill(scene: &Scene<'_>, injection: &Injection) {
    let context = format!("{}, killed at {} {}", scene.operation.name, injection.call, injection.nth);
    println!("{context}");
    scene.locks_are_free();
    let seen = scene.look();
    assert!(scene.is_old(&seen) || scene.is_new(&seen), "{context}: neither old nor new: {seen:?}");
    assert!(scene.others_are_whole(&seen), "{context}: {seen:?}");
    scene.leaves_no_litter();
    // A session that nobody knows the ID of is no litter; it would be in the way of what is compared.
    if scene.is_old(&seen) {
        for (name, _) in &seen.others {
            let _ = fs::remove_file(scene.sessions.join(name));
        }
    }
    scene.works_again(scene.is_old(&seen) && !scene.is_new(&seen));
}

/// After an error: it was told, and nothing was changed; or it was not, and all is done. Returns whether it was told.
pub fn judge_error(scene: &Scene<'_>, run: &Run, injection: &Injection) -> bool {
    let Injection { call, nth, times, fault } = injection;
    println!("{}, {call} {nth} {fault:?} x{times}: {}", scene.operation.name, run.log.trim_end());
    scene.locks_are_free();
    let seen = scene.look();
    assert!(scene.others_are_whole(&seen), "{run:?} {seen:?}");
    let is_told = match &run.answer {
        Some(answer) if answer.status < 400 => {
            scene.succeeded(run, &seen);
            false
        }
        Some(answer) => {
            assert!([500, 503].contains(&answer.status), "{run:?}");
            assert!(answer.set_cookie.is_none(), "a cookie that comes with an error: {run:?}");
            // A write that was cut, but of which the rest was there already from an earlier save, is whole; and a
            // tombstone that cannot be brought to disk, not at the second try either, is there all the same.
            let is_in_doubt = matches!(fault, Fault::Limit(_)) || *times > 1 && call == "fdatasync";
            let may_be_new = is_in_doubt && (scene.is_new(&seen) || scene.is_lost_in_renewal(&seen));
            assert!(scene.is_old(&seen) || may_be_new, "an error, but not the old session: {run:?} {seen:?}");
            // Where neither the old one nor the new one can be deleted, the new one stays until it runs out.
            let may_stay = *times > 1 || matches!(scene.operation.ask, Ask::Sweep(_));
            assert!(may_stay || seen.others.is_empty(), "a second session: {run:?} {seen:?}");
            assert!(!run.log.is_empty(), "nothing is logged: {run:?}");
            true
        }
        None => {
            // No memory: the process aborts, and its server says 500.
            assert!(["mmap", "brk", "mremap"].contains(&call.as_str()), "no answer: {run:?}");
            assert!(scene.is_old(&seen) || scene.is_new(&seen), "{run:?} {seen:?}");
            true
        }
    };
    assert!(!is_told || *fault != Fault::Error("EINTR"), "EINTR is no error: {run:?}");
    scene.leaves_no_litter();
    if *times > 1 && call != "fdatasync" {
        for (name, _) in &seen.others {
            if is_told && scene.operation.another.is_some() {
                let _ = fs::remove_file(scene.sessions.join(name));
            }
        }
    }
    scene.works_again(is_told && scene.is_old(&seen));
    is_told
}
