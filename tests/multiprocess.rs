//! The stress test: many processes on one session and on many, through the bare store, as CGI scripts and as pool.
//!
//! ```text
//! cargo test --test multiprocess
//! ```
//!
//! needs nothing but Rust and takes a minute or two. Everything is counted, so nothing depends on how fast a machine is;
//! the few upper bounds of time are those of the promise that parallel requests do not wait for each other. Tests take
//! turns, so that each has the machine to itself.
#![allow(missing_docs, unreachable_pub)]

#[path = "multiprocess/bare.rs"]
mod bare;
#[path = "multiprocess/cgi.rs"]
mod cgi;
#[path = "multiprocess/coat.rs"]
mod coat;
#[path = "multiprocess/jobs.rs"]
mod jobs;
#[path = "multiprocess/pool.rs"]
mod pool;
#[path = "multiprocess/process.rs"]
mod process;
#[path = "multiprocess/site.rs"]
mod site;
mod support;

use support::turn;

/// Not a test: what the processes that the tests start do.
#[test]
fn job() {
    process::run_job();
}
