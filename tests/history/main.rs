//! Linearizability: what concurrent processes did to sessions and were told must have an order in which each did it at
//! one instant between its call and its return. Whoever was killed may have done the last thing or not.
//!
//! ```text
//! cargo test --test history
//! CLOAKROOM_HISTORY_SEED=42 CLOAKROOM_HISTORY_COUNT=100000 cargo test --test history
//! ```
//!
//! The seed decides what each process does, not how the machine runs them: a history that was refused is printed whole.
#![allow(missing_docs, unreachable_pub)]

mod check;
#[path = "../multiprocess/coat.rs"]
#[allow(dead_code)] // Those of the stress tests.
mod coat;
mod pool;
mod random;
mod store;
#[path = "../support/mod.rs"]
mod support;
mod worker;

/// Not a test: what the processes that the tests start do.
#[test]
fn worker() {
    worker::run();
}

/// The seed of the first history and how many there are to be.
fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let first = number("CLOAKROOM_HISTORY_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 20);
    let count = number("CLOAKROOM_HISTORY_COUNT").unwrap_or(count);
    println!("CLOAKROOM_HISTORY_SEED={first} CLOAKROOM_HISTORY_COUNT={count}");
    (0..count).map(move |i| first + i)
}
