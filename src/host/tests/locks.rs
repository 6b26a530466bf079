//! What a witness is told of sessions and their locks, and that its word counts.

use std::collections::VecDeque;
use std::time::Instant;

use super::*;
use crate::session::{Happening, Patience, Witness};

/// Writes down what it is told, and has an answer ready for each question of patience; the last one for all others.
#[derive(Default)]
struct Recorder {
    told: Mutex<Vec<String>>,
    patience: Mutex<VecDeque<Patience>>,
    /// Done at each question.
    asked: Mutex<Option<Box<dyn FnMut() + Send>>>,
}

impl Recorder {
    fn tell(&self, what: impl Into<String>) {
        self.told.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

impl Witness for Recorder {
    fn uses(&self, _: &Id) {
        self.tell("uses");
    }

    fn waits(&self, _: &Id) {
        self.tell("waits");
    }

    fn patience(&self) -> Patience {
        self.tell("asks");
        if let Some(act) = self.asked.lock().unwrap().as_mut() {
            act();
        }
        let mut answers = self.patience.lock().unwrap();
        let next = if answers.len() > 1 { answers.pop_front() } else { answers.front().copied() };
        next.unwrap_or(Patience::Wait(Duration::from_secs(60)))
    }

    fn holds(&self, _: &Id) {
        self.tell("holds");
    }

    fn leaves(&self) {
        self.tell("leaves");
    }

    fn note(&self, what: Happening) {
        match what {
            Happening::Waited(_) => self.tell("Waited"),
            other => self.tell(format!("{other:?}")),
        }
    }
}

/// A site whose visitor has a session, and what its witness is told from now on.
fn witnessed(configure: impl FnOnce(Host) -> Host) -> (Site, Arc<Recorder>) {
    let site = site_with(configure);
    site.get(count);
    let recorder = Arc::new(Recorder::default());
    site.host.set_witness(recorder.clone());
    (site, recorder)
}

fn told(recorder: &Recorder, expected: &str) {
    assert_eq!(recorder.take().join(" "), expected);
}

#[test]
fn a_lock_is_told_of_while_it_is_held() {
    let (site, recorder) = witnessed(|host| host);
    site.post(count);
    told(&recorder, "waits holds uses Committed leaves");
    // Nothing to save.
    site.post(|session| Ok(session.id()?));
    told(&recorder, "waits holds uses leaves");
    // A reader has no lock, and one that adds to what is there has it at the end only.
    site.get(|session| Ok(session.get::<u64>("n")?));
    told(&recorder, "uses");
    site.get(count);
    told(&recorder, "uses waits holds Committed leaves");
    // Neither an error nor a panic leaves a lock behind.
    site.request("POST", |_, session| Err(Error::message(format!("{:?}", session.id()?))));
    told(&recorder, "waits holds uses leaves");
    site.request("POST", |_, session| panic!("{}", session.id().is_ok()));
    told(&recorder, "waits holds uses leaves");
    // What deletes the old session gives its lock back with that. Renewed: another session from here on; flushed: none.
    site.post(|session| Ok(session.set_user("anna")?));
    told(&recorder, "waits holds uses uses leaves Committed");
    site.post(|session| Ok(session.flush()?));
    told(&recorder, "waits holds uses leaves Committed");
    assert_eq!(site.sessions(), 0);
    site.post(count);
    told(&recorder, "uses Committed");
}

#[test]
fn who_finds_the_lock_taken_asks_how_long_to_wait() {
    let (site, recorder) = witnessed(|host| host);
    let id = site.id().unwrap();
    let guard = site.store.lock(&id, Duration::ZERO).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    *recorder.asked.lock().unwrap() = Some(Box::new(move || sender.send(()).unwrap()));
    let brief = Patience::Wait(Duration::from_millis(1));
    recorder.patience.lock().unwrap().extend([brief, brief, Patience::Wait(Duration::from_secs(60))]);
    let runs = std::thread::scope(|scope| {
        let post = scope.spawn(|| site.post(count));
        (0..3).for_each(|_| receiver.recv().unwrap());
        drop(guard);
        post.join().unwrap()
    });
    assert_eq!(runs, 2);
    told(&recorder, "waits asks asks asks Waited holds uses Committed leaves");
}

#[test]
fn who_is_not_to_wait_is_answered_at_once() {
    let (site, recorder) = witnessed(|host| host);
    let id = site.id().unwrap();
    let guard = site.store.lock(&id, Duration::ZERO).unwrap();
    recorder.patience.lock().unwrap().push_back(Patience::GiveUp);
    let began = Instant::now();
    let response = site.request("POST", |_, session| count(session).map(|_| Response::text("ok")));
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()[RETRY_AFTER], "1");
    told(&recorder, "waits asks Refused Waited leaves");
    // The same at the end of a request that began without the lock; one that only reads is not concerned.
    let response = site.request("GET", |_, session| count(session).map(|_| Response::text("ok")));
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    told(&recorder, "uses waits asks Refused Waited leaves");
    assert_eq!(site.get(|session| Ok(session.get::<u64>("n")?)), Some(1));
    told(&recorder, "uses");
    drop(guard);
    assert_eq!(site.post(count), 2);
}

#[test]
fn the_lock_timeout_ends_every_patience() {
    for timeout in [0, 30] {
        let (site, recorder) = witnessed(|host| host.lock_timeout(Duration::from_millis(timeout)));
        let id = site.id().unwrap();
        let _guard = site.store.lock(&id, Duration::ZERO).unwrap();
        recorder.patience.lock().unwrap().push_back(Patience::Wait(Duration::from_millis(20)));
        let response = site.request("POST", |_, session| count(session).map(|_| Response::text("ok")));
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let told = recorder.take().join(" ");
        assert!(told.starts_with("waits ") && told.ends_with("TimedOut Waited leaves"), "{told}");
    }
}

#[test]
fn a_second_run_is_told_of_and_has_the_lock() {
    let (site, recorder) = witnessed(|host| host);
    let site = Arc::new(site);
    let (response, runs) =
        super::overlap::overlapping(&site, "GET", |s| count(s).map(drop), |site| _ = site.get(count), |_| Ok(()));
    assert_eq!((response.status(), runs), (StatusCode::OK, 2));
    told(&recorder, "uses uses waits holds Committed leaves waits holds Repeated Committed leaves");
}
