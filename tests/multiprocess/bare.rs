//! The directory store by itself, used by processes that share nothing but the directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use cloakroom::DirectoryStore;
use cloakroom::session::{Id, Store};

use crate::coat::{Coat, as_argument, coat, create, names};
use crate::process::{Process, all};
use crate::turn;

const PROCESSES: u64 = 8;
const EACH: u64 = 10_000;

fn store() -> (DirectoryStore, tempfile::TempDir) {
    let directory = tempfile::Builder::new()
        .prefix("cloakroom-bare-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("a directory");
    (DirectoryStore::at(directory.path()), directory)
}

/// `PROCESSES` processes increment, `EACH` times each, spread over so many sessions, by these jobs in turn.
fn count_all(sessions: usize, jobs: &[&'static str], each: u64, per_increment: u64) {
    let _turn = turn();
    let (store, directory) = store();
    let ids = create(&store, sessions, 40);
    let arguments = |_| vec![as_argument(&ids), each.to_string()];
    all(directory.path(), jobs.iter().copied().cycle().take(PROCESSES as usize).map(|job| (job, arguments(job))));
    let counted: u64 = ids.iter().map(|id| coat(&store, id).expect("there").n).sum();
    assert_eq!(counted, PROCESSES * each * per_increment);
    assert_eq!(names(directory.path()).len(), sessions);
}

#[test]
fn locked_increments_of_one_session_are_all_counted() {
    count_all(1, &["increment-locked"], EACH, 1);
}

#[test]
fn locked_increments_of_many_sessions_are_all_counted() {
    count_all(50, &["increment-locked"], EACH, 1);
}

#[test]
fn optimistic_increments_of_one_session_are_all_counted() {
    count_all(1, &["increment-optimistic"], EACH, 1);
}

#[test]
fn optimistic_increments_of_many_sessions_are_all_counted() {
    count_all(50, &["increment-optimistic"], EACH, 1);
}

#[test]
fn locked_and_optimistic_increments_do_not_disturb_each_other() {
    count_all(3, &["increment-locked", "increment-optimistic"], EACH, 1);
}

#[test]
fn several_saves_under_one_lock_are_all_counted() {
    count_all(2, &["several-saves-per-lock"], 500, 3);
}

#[test]
fn a_deleted_session_stays_deleted_whoever_waits_for_it() {
    const ROUNDS: usize = 400;
    let _turn = turn();
    let (store, directory) = store();
    let ids = create(&store, ROUNDS, 40);
    let jobs = ["delete", "delete", "save-until-gone-optimistic", "save-until-gone-optimistic"];
    let jobs = jobs.into_iter().chain(std::iter::repeat_n("save-until-gone-locked", 5));
    let reports = all(directory.path(), jobs.map(|job| (job, vec![as_argument(&ids)])));
    let reports: Vec<Vec<(u64, String)>> =
        reports.iter().map(|lines| lines.iter().map(|line| pair(line)).collect()).collect();
    let (deletions, savings) = reports.split_at(2);
    let mut saves = 0;
    for round in 0..ROUNDS {
        let deleted: Vec<u64> = deletions
            .iter()
            .map(|lines| &lines[round])
            .filter(|(_, was_us)| was_us == "true")
            .map(|(at, _)| *at)
            .collect();
        assert_eq!(deleted.len(), 1, "round {round}: deleted by one and only one");
        for lines in savings {
            // Every waiter was answered, or there would be no line.
            let (last, count) = &lines[round];
            assert!(*last < deleted[0], "round {round}: saved {} ns after it was deleted", last - deleted[0]);
            saves += count.parse::<u64>().expect("a count");
        }
    }
    assert!(saves >= 14 * ROUNDS as u64, "only {saves} saves");
    assert!(names(directory.path()).is_empty(), "brought back: {:?}", names(directory.path()));
}

fn pair(line: &str) -> (u64, String) {
    let (number, rest) = line.split_once(' ').expect("two words");
    (number.parse().expect("a number"), rest.to_owned())
}

/// Runs `count` processes of a job and kills one every few milliseconds, putting another in its place. Gives what all of
/// them reported.
fn kill_again_and_again(directory: &Path, job: &str, arguments: &[String], count: usize, kills: usize) -> Vec<String> {
    let start = || {
        let mut process = Process::start(job, directory, arguments);
        process.go();
        process
    };
    let mut reports = Vec::new();
    let mut processes: Vec<Process> = std::iter::repeat_with(start).take(count).collect();
    for i in 0..kills {
        // Not to wait for anything, but to hit them at work, at ever different places.
        std::thread::sleep(Duration::from_micros(1000 + (i as u64 * 7919) % 9000));
        let process = std::mem::replace(&mut processes[i % count], start());
        reports.extend(process.kill());
    }
    reports.extend(processes.into_iter().flat_map(Process::kill));
    reports
}

#[test]
fn no_acknowledged_save_is_lost_when_savers_are_killed() {
    const KILLS: usize = 300;
    let _turn = turn();
    let (store, directory) = store();
    let ids = create(&store, 4, 10);
    let reports = kill_again_and_again(directory.path(), "save-until-killed", &[as_argument(&ids)], 6, KILLS);
    let mut acknowledged: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for line in &reports {
        let (at, n) = pair(line);
        assert!(acknowledged.entry(at).or_default().insert(n.parse().expect("a count")), "acknowledged twice: {line}");
    }
    let mut unknown = 0;
    for (at, id) in ids.iter().enumerate() {
        let began = Instant::now();
        assert!(store.lock(id, Duration::ZERO).expect("lock").is_some());
        assert!(began.elapsed() < Duration::from_secs(1));
        let n = coat(&store, id).expect("readable").n;
        let acknowledged = &acknowledged[&(at as u64)];
        assert!(*acknowledged.last().expect("some saves") <= n, "the last acknowledged save is lost");
        unknown += n - acknowledged.len() as u64;
    }
    // Each victim may have saved once without being able to say so.
    assert!(unknown <= KILLS as u64 + 6, "{unknown} saves that nobody made, or that were acknowledged and lost");
    assert!(reports.len() > KILLS, "hardly any saves: {}", reports.len());
    assert_eq!(names(directory.path()).len(), ids.len(), "something was left behind: {:?}", names(directory.path()));
}

#[test]
fn creations_and_deletions_are_kept_when_their_processes_are_killed() {
    let _turn = turn();
    let (store, directory) = store();
    let reports = kill_again_and_again(directory.path(), "live-and-die-until-killed", &[], 6, 200);
    let mut expected: BTreeMap<String, Option<u64>> = BTreeMap::new();
    let mut undecided = BTreeSet::new();
    for line in &reports {
        let words: Vec<&str> = line.split(' ').collect();
        let id = words[1].to_owned();
        match words[0] {
            "created" => drop(expected.insert(id, Some(0))),
            "saved" => drop(expected.insert(id, Some(words[2].parse().expect("a count")))),
            "deleting" => drop(undecided.insert(id)),
            "deleted" => {
                undecided.remove(&id);
                expected.insert(id, None);
            }
            other => panic!("{other}"),
        }
    }
    assert!(expected.values().filter(|n| n.is_none()).count() > 10, "hardly any deletions");
    for (text, n) in &expected {
        let id = Id::parse(text).expect("an ID");
        let found = coat(&store, &id).map(|coat| coat.n);
        match n {
            None => assert_eq!(found, None, "a deletion was undone"),
            Some(_) if undecided.contains(text) && found.is_none() => {}
            // One more save may have happened than could be reported.
            Some(n) => assert!(found.is_some_and(|found| found == *n || found == n + 1), "{found:?} in place of {n}"),
        }
        assert_eq!(found.is_some(), store.lock(&id, Duration::ZERO).expect("no lock left behind").is_some());
    }
    // Files that were killed in the making, or between tombstone and unlink, are no sessions and go with the sweep.
    let files = names(directory.path());
    let old = SystemTime::now() - Duration::from_secs(120);
    for name in &files {
        assert!(Id::parse(name).is_some(), "damage: {name}");
        File::options()
            .write(true)
            .open(directory.path().join(name))
            .and_then(|f| f.set_modified(old))
            .expect("set time");
    }
    let alive = files.iter().filter(|name| coat(&store, &Id::parse(name).expect("an ID")).is_some()).count();
    let swept = store.delete_old_sessions(None).expect("sweep");
    assert_eq!((swept.deleted, swept.remaining), ((files.len() - alive) as u64, alive as u64));
    assert_eq!(names(directory.path()).len(), alive);
}

/// Writers and readers until `until`, and how many reads there were.
fn read_while(writers: &[&'static str], readers: usize, sessions: usize, until: u64) -> u64 {
    let _turn = turn();
    let (store, directory) = store();
    let ids = create(&store, sessions, 100);
    let counts = directory.path().with_extension("counts");
    fs::write(&counts, vec![0; 8 * sessions]).expect("make the shared counts");
    let arguments = vec![as_argument(&ids), until.to_string(), counts.to_str().expect("text").to_owned()];
    let jobs = writers.iter().copied().chain(std::iter::repeat_n("read", readers));
    let reports = all(directory.path(), jobs.map(|job| (job, arguments.clone())));
    fs::remove_file(&counts).expect("remove the shared counts");
    assert_eq!(names(directory.path()).len(), sessions, "damage: {:?}", names(directory.path()));
    reports.iter().flatten().map(|reads| reads.parse::<u64>().expect("a number")).sum()
}

#[test]
fn readers_without_a_lock_see_whole_and_recent_records_of_every_size() {
    let reads = read_while(&["write-all-sizes"; 3], 5, 2, 1500);
    assert!(reads > 1000, "only {reads} reads");
}

#[test]
fn readers_without_a_lock_see_no_gap_while_a_file_grows() {
    let reads = read_while(&["write-growing"; 3], 5, 200, 6);
    assert!(reads > 1000, "only {reads} reads");
}

#[test]
fn readers_are_not_fooled_by_saves_that_race_past_them() {
    let reads = read_while(&["write-past-readers"], 2, 1, 300_000);
    assert!(reads > 100, "only {reads} reads");
}

#[test]
fn a_sweep_takes_no_session_that_is_in_use() {
    const DEAD: usize = 40;
    let _turn = turn();
    let (store, directory) = store();
    let ids = create(&store, 3, 40);
    for id in create(&store, DEAD, 40) {
        let file = File::options().write(true).open(directory.path().join(&*id.to_text())).expect("open");
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).expect("set the time");
    }
    let path = directory.path().to_str().expect("text").to_owned();
    let users = ("use-at-the-edge", vec![as_argument(&ids), EACH.to_string(), path]);
    let sweepers = ("sweep-while-counting", vec![as_argument(&ids), (4 * EACH).to_string()]);
    let reports = all(directory.path(), std::iter::repeat_n(users, 4).chain(std::iter::repeat_n(sweepers, 2)));
    let deleted: u64 = reports.iter().flatten().map(|deleted| deleted.parse::<u64>().expect("a number")).sum();
    assert_eq!(deleted, DEAD as u64, "what was dead, and nothing else");
    let counted: u64 = ids.iter().map(|id| coat(&store, id).expect("there").n).sum();
    assert_eq!(counted, 4 * EACH);
}

#[test]
fn touches_keep_a_session_from_being_swept() {
    const IDLE: Duration = Duration::from_secs(1);
    let _turn = turn();
    let (store, directory) = store();
    let mut ids = Vec::new();
    for _ in 0..20 {
        let id = Id::generate().expect("an ID");
        store.create(&id, &Coat { n: 0, size: 40 }.record_with(Some(1))).expect("create");
        ids.push(id);
    }
    let (awake, asleep) = ids.split_at(15);
    let users = ("stay-awake", vec![as_argument(awake), IDLE.as_millis().to_string(), "2500".to_owned()]);
    let sweepers = ("sweep-for", vec!["2600".to_owned()]);
    let reports = all(directory.path(), [users.clone(), users, sweepers.clone(), sweepers]);
    let checked: u64 = reports[..2].iter().flatten().map(|n| n.parse::<u64>().expect("a number")).sum();
    assert!(checked > 100, "only {checked} checks");
    for id in asleep {
        assert!(!directory.path().join(&*id.to_text()).exists(), "not swept though nobody used it");
    }
}
