//! Every crash point and every error, on the real thing: each operation is run as a CGI script, or as the administrator's
//! sweep, under strace(1), which kills it before one system call, or has one system call fail; then what is there is looked
//! at from outside.
//!
//! ```text
//! cargo test --test faults -- --ignored
//! CLOAKROOM_FAULTS=full cargo test --test faults -- --ignored     each error for each call, twice in a row as well
//! ```
//!
//! What must be true afterwards is in `src/docs/reliability.md`.
#![allow(missing_docs, unreachable_pub)]

mod injection;
mod operation;
mod pool;
#[path = "../support/mod.rs"]
mod support;
mod verdict;

use injection::{Fault, Injection, NEVER_FAIL, region};
use operation::{CREATE, Operation, SWEEPS};
use verdict::{Scene, judge_error, judge_kill};

/// What system calls fail with. Where the call cannot fail like that, the program must not know.
const ERRORS: [&str; 11] =
    ["ENOSPC", "EIO", "EDQUOT", "EMFILE", "ENFILE", "ENOMEM", "EINTR", "EACCES", "EROFS", "ENOLCK", "EFBIG"];

fn is_full() -> bool {
    std::env::var("CLOAKROOM_FAULTS").is_ok_and(|value| value == "full")
}

/// Kills the operation before each of its system calls.
fn killed_everywhere(operation: &Operation) {
    let mut kills = 0;
    for (name, first) in region(operation) {
        for nth in first.. {
            let scene = Scene::new(operation);
            let injection = Injection { call: name.clone(), nth, times: 1, fault: Fault::Kill };
            let run = scene.run(Some(&injection));
            if !run.injected {
                judge_error(&scene, &run, &injection);
                break;
            }
            judge_kill(&scene, &injection);
            kills += 1;
        }
    }
    println!("{}: killed {kills} times", operation.name);
    assert!(kills >= 8, "{}: only {kills} places to kill it at", operation.name);
}

/// Has each of the operation's system calls fail with each error.
fn failing_everywhere(operation: &Operation) {
    let (mut failures, mut told) = (0, 0);
    for (number, (name, first)) in region(operation).into_iter().enumerate() {
        if NEVER_FAIL.contains(&name.as_str()) {
            continue;
        }
        for (nth_error, error) in ERRORS.into_iter().enumerate() {
            // Which errors a call is given in the short run is dealt out evenly; these three are never left out.
            let always = ["EIO", "ENOSPC", "EINTR"].contains(&error);
            if !always && !is_full() && (number + nth_error) % 4 != 0 {
                continue;
            }
            for times in if is_full() { &[1, 2][..] } else { &[1] } {
                for nth in first.. {
                    let scene = Scene::new(operation);
                    let injection = Injection { call: name.clone(), nth, times: *times, fault: Fault::Error(error) };
                    let run = scene.run(Some(&injection));
                    told += usize::from(judge_error(&scene, &run, &injection));
                    if !run.injected {
                        break;
                    }
                    failures += 1;
                }
            }
        }
    }
    println!("{}: {failures} failures, told of {told}", operation.name);
    assert!(failures >= 8, "{}: only {failures} failures", operation.name);
}

/// The file size limit makes a write short, and the next one fail; or the process is killed between them, which leaves
/// what a kill inside the write would.
fn torn(operation: &Operation) {
    let Some((offset, length)) = operation.write else { return };
    let steps = if is_full() { 1 } else { 29 };
    let cuts: Vec<u64> =
        (0..length).step_by(steps).chain([8, 63, 64, length - 1]).filter(|cut| *cut < length).collect();
    // Where it does not write, in case that it does.
    for limit in cuts.iter().map(|cut| 2048 - offset + cut) {
        let scene = Scene::new(operation);
        let elsewhere = Injection { call: "pwrite64".into(), nth: 1, times: 1, fault: Fault::Limit(limit) };
        judge_error(&scene, &scene.limited(limit, None), &elsewhere);
    }
    for cut in cuts {
        let scene = Scene::new(operation);
        let run = scene.limited(offset + cut, None);
        let injection = Injection { call: "pwrite64".into(), nth: 1, times: 1, fault: Fault::Limit(offset + cut) };
        assert!(judge_error(&scene, &run, &injection), "{}: nobody was told of a write cut at {cut}", operation.name);
        if cut > 0 {
            let scene = Scene::new(operation);
            let kill = Injection { call: "pwrite64".into(), nth: 2, times: 1, fault: Fault::Kill };
            let run = scene.limited(offset + cut, Some(&kill));
            assert!(run.injected, "{}: no second write after one cut at {cut}", operation.name);
            judge_kill(&scene, &kill);
        }
    }
}

macro_rules! operations {
    ($($module:ident: $operation:expr;)*) => {
        $(
            mod $module {
                #[test]
                #[ignore = "needs strace (Debian: strace): run tests/run"]
                fn killed_at_every_system_call() {
                    crate::killed_everywhere(&$operation);
                }

                #[test]
                #[ignore = "needs strace (Debian: strace): run tests/run"]
                fn every_system_call_failing() {
                    crate::failing_everywhere(&$operation);
                }
            }
        )*
    };
}

operations! {
    create: crate::operation::CREATE;
    create_the_first: crate::operation::CREATE_THE_FIRST;
    save_to_b: crate::operation::SAVE_TO_B;
    save_to_a: crate::operation::SAVE_TO_A;
    save_optimistic: crate::operation::SAVE_OPTIMISTIC;
    grow_from_a: crate::operation::GROW_FROM_A;
    grow_from_b: crate::operation::GROW_FROM_B;
    delete_from_a: crate::operation::DELETE_FROM_A;
    delete_from_b: crate::operation::DELETE_FROM_B;
    renew: crate::operation::RENEW;
    touch: crate::operation::TOUCH;
    read: crate::operation::READ;
    read_torn: crate::operation::READ_TORN;
    read_damaged: crate::operation::READ_DAMAGED;
    sweep: crate::operation::SWEEPS[0];
    sweep_with_a_budget: crate::operation::SWEEPS[1];
}

#[test]
#[ignore = "needs strace (Debian: strace): run tests/run"]
fn a_write_cut_at_any_byte() {
    for operation in &[operation::SAVE_TO_B, operation::SAVE_TO_A, operation::DELETE_FROM_A, operation::DELETE_FROM_B] {
        torn(operation);
    }
}

/// Whatever the limit is, the client is told; the process does not end of the signal.
#[test]
#[ignore = "needs strace (Debian: strace): run tests/run"]
fn files_that_may_not_become_large_enough() {
    use operation::{GROW_FROM_A, GROW_FROM_B, RENEW};
    let both = [(&CREATE, 0), (&CREATE, 2100), (&RENEW, 0), (&RENEW, 4095), (&GROW_FROM_A, 4096), (&GROW_FROM_B, 4097)];
    for (operation, limit) in both {
        let scene = Scene::new(operation);
        let run = scene.limited(limit, None);
        let injection = Injection { call: String::new(), nth: 0, times: 1, fault: Fault::Limit(limit) };
        assert!(judge_error(&scene, &run, &injection), "{}: nobody was told of the limit {limit}", operation.name);
    }
}

#[test]
fn each_operation_does_what_it_is_to_do() {
    use operation::{CREATE_THE_FIRST, SAVE_OPTIMISTIC, SAVE_TO_A, SAVE_TO_B, TOUCH};
    use operation::{DELETE_FROM_A, DELETE_FROM_B, GROW_FROM_A, GROW_FROM_B, READ, READ_DAMAGED, READ_TORN, RENEW};
    let all = [
        &CREATE,
        &CREATE_THE_FIRST,
        &SAVE_TO_B,
        &SAVE_TO_A,
        &SAVE_OPTIMISTIC,
        &GROW_FROM_A,
        &GROW_FROM_B,
        &DELETE_FROM_A,
        &DELETE_FROM_B,
        &RENEW,
        &TOUCH,
        &READ,
        &READ_TORN,
        &READ_DAMAGED,
        &SWEEPS[0],
        &SWEEPS[1],
    ];
    for operation in all {
        let scene = Scene::new(operation);
        let run = scene.run(None);
        let nothing = Injection { call: String::new(), nth: 0, times: 0, fault: Fault::Kill };
        assert!(!judge_error(&scene, &run, &nothing), "{}: {run:?}", operation.name);
    }
}
