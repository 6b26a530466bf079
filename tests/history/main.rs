//! Linearizability: what concurrent processes did to sessions and were told must have an order in which each did it at
//! one instant between its call and its return. Whoever was killed may have done the last thing or not.
//!
//! ```text
//! cargo test --test history
//! CLOAKROOM_HISTORY_COUNT=1000 cargo test --test history -- --nocapture
//! CLOAKROOM_HISTORY_SEED=42 cargo test --test history
//! ```
//!
//! The seed decides what each process does, not how the machine runs them: a history that was refused is printed whole.
#![allow(missing_docs, unreachable_pub)]

mod check;
#[path = "../multiprocess/coat.rs"]
#[allow(dead_code)] // Those of the stress tests.
mod coat;
mod look;
mod random;
mod site;
mod store;
#[path = "../support/mod.rs"]
mod support;
mod worker;

use std::time::Instant;

use check::{Answer, Event, Op, check};

/// Not a test: what the processes that the tests start do.
#[test]
fn worker() {
    worker::run();
}

/// The seed of the first history, and how many there are to be: so many, or one in `share` of what is asked for.
fn seeds(count: u64, share: u64) -> impl Iterator<Item = u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let first = number("CLOAKROOM_HISTORY_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 20);
    let count = number("CLOAKROOM_HISTORY_COUNT").map_or(count, |count| count.div_ceil(share));
    (0..count).map(move |i| first + i)
}

/// What the histories were like that were found to be linearizable.
struct Figures {
    began: Instant,
    histories: u64,
    operations: usize,
    /// At once with others.
    overlaps: usize,
    unknown: usize,
    failed: usize,
    ends: usize,
}

impl Figures {
    fn new() -> Self {
        let began = Instant::now();
        Self { began, histories: 0, operations: 0, overlaps: 0, unknown: 0, failed: 0, ends: 0 }
    }

    fn check(&mut self, seed: u64, history: &[Event]) {
        if let Err(report) = check(history) {
            panic!("CLOAKROOM_HISTORY_SEED={seed}, history {}: {report}", self.histories);
        }
        let count = |is: &dyn Fn(&Event) -> bool| history.iter().filter(|event| is(event)).count();
        let meets = |a: &Event, b: &Event| a.process < b.process && a.start < b.end && b.start < a.end;
        self.histories += 1;
        self.operations += history.len();
        self.overlaps += count(&|a| history.iter().any(|b| meets(a, b)));
        self.unknown += count(&|event| event.answer == Answer::Unknown);
        self.failed += count(&|event| event.answer == Answer::Failed);
        let ends = |event: &Event| {
            matches!(event.op, Op::Delete { .. } | Op::Renew { .. })
                && matches!(event.answer, Answer::Is(true) | Answer::Done | Answer::Found(_))
        };
        self.ends += count(&ends);
    }

    fn print(&self, what: &str) {
        let Self { histories, operations, overlaps, unknown, failed, ends, began } = self;
        println!(
            "{histories} histories of {what}: {operations} operations, {overlaps} of them at once with others, {ends} \
             deletions and renewals, {unknown} of unknown outcome, {failed} failed: all linearizable, in {:?}",
            began.elapsed()
        );
        assert!(overlaps * 10 > *operations, "hardly anything happened at once");
    }
}
