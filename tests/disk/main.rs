//! What the disk may do to the sessions, and who else may: full disks, power cuts, and names that somebody else put there.
//!
//! Disks are mounted in a mount namespace of the test's own, so that none is left behind however a test ends; only root can
//! do that, and for everybody else these tests say that they are skipped. What needs a program that may be missing is not
//! run without being asked for: `tests/run`. How long the long ones go on is said by variables: see `tests/power-cut` and
//! `flood.rs`.
#![allow(missing_docs, unreachable_pub)]

mod cut;
mod demo;
mod flood;
mod full;
mod hostile;
mod ids;
mod mount;
mod order;
mod session;
#[path = "../support/mod.rs"]
mod support;
