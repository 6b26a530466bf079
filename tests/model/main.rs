//! An explicit-state model of the session file (`src/docs/file-format.md`): every order of the steps of up to three
//! processes, with kills before each of them, and power cuts. It finds nothing bad; without any one of the guards it
//! does, and shows the way there.
//!
//! ```text
//! cargo test --test model -- --nocapture
//! CLOAKROOM_MODEL=full cargo test --test model -- --nocapture
//! ```
#![allow(missing_docs, unreachable_pub)]

mod explore;
mod file;
mod guards;
mod power;
mod read;
mod scenario;
mod steps;
mod sweep;

use std::time::Instant;

use crate::explore::explore;
use crate::guards::Guard;
use crate::scenario::{Role, Scenario};

const fn saver(wide: &'static [bool]) -> Role {
    Role::Saver { wide, optimistic: false }
}

const fn optimistic(wide: &'static [bool]) -> Role {
    Role::Saver { wide, optimistic: true }
}

/// Reads both slots, or of a large file no more than it must.
const WHOLE: Role = Role::Reader { skips: false };
const LARGE: Role = Role::Reader { skips: true };

const N: bool = false;
const W: bool = true;

const fn scenario(roles: [Option<Role>; 3], kills: u8, hours: u8, cut: Option<bool>) -> Scenario {
    Scenario { roles, kills, hours, cut }
}

/// More saves than in the rest, and creation; and what once was found by the rest.
const SCENARIOS: &[Scenario] = &[
    scenario([Some(saver(&[N, N])), Some(saver(&[N])), Some(WHOLE)], 2, 0, None),
    scenario([Some(saver(&[N, N, N, N])), Some(WHOLE), None], 1, 0, None),
    scenario([Some(saver(&[N])), Some(optimistic(&[N, N])), Some(optimistic(&[N]))], 2, 0, None),
    scenario([Some(saver(&[N, W])), Some(saver(&[N])), Some(WHOLE)], 1, 0, None),
    scenario([Some(saver(&[W, W, N, N])), Some(WHOLE), None], 1, 0, None),
    scenario([Some(saver(&[N, N])), Some(Role::Deleter), Some(WHOLE)], 2, 0, None),
    scenario([Some(saver(&[N, W, W])), Some(Role::Deleter), Some(WHOLE)], 1, 0, None),
    scenario([Some(Role::Deleter), Some(Role::Deleter), Some(optimistic(&[N, N]))], 2, 0, None),
    scenario([Some(Role::Renewer), Some(saver(&[N, N])), Some(WHOLE)], 2, 0, None),
    scenario([Some(Role::Renewer), Some(Role::Renewer), Some(optimistic(&[N, N]))], 2, 0, None),
    scenario([Some(Role::Renewer), Some(Role::Deleter), Some(saver(&[N]))], 2, 0, None),
    scenario([Some(Role::Sweeper), Some(saver(&[N, N])), Some(Role::Toucher)], 1, 2, None),
    scenario([Some(Role::Sweeper), Some(optimistic(&[N, W])), Some(WHOLE)], 1, 1, None),
    scenario([Some(Role::Sweeper), Some(Role::Sweeper), Some(Role::Deleter)], 2, 2, None),
    scenario([Some(Role::Sweeper), Some(Role::Deleter), Some(saver(&[N]))], 1, 2, None),
    scenario([Some(Role::Sweeper), Some(Role::Renewer), Some(saver(&[N]))], 1, 2, None),
    scenario([Some(Role::Creator), Some(Role::Sweeper), Some(Role::Sweeper)], 1, 2, None),
    scenario([Some(saver(&[N, W, W, N])), Some(saver(&[N])), None], 1, 0, Some(true)),
    scenario([Some(saver(&[N, N])), Some(Role::Deleter), None], 1, 0, Some(true)),
    scenario([Some(saver(&[N])), Some(Role::Renewer), None], 1, 0, Some(true)),
    scenario([Some(Role::Creator), None, None], 1, 0, Some(true)),
    scenario([Some(saver(&[N, W, W, N])), Some(saver(&[N])), None], 1, 0, Some(false)),
    scenario([Some(saver(&[N, W])), Some(saver(&[N, W])), None], 1, 0, Some(false)),
    scenario([Some(saver(&[N, W])), Some(saver(&[N, W])), Some(Role::Deleter)], 2, 0, Some(false)),
    scenario([Some(saver(&[N, W])), Some(Role::Deleter), None], 1, 0, Some(false)),
    scenario([Some(saver(&[N])), Some(Role::Renewer), None], 1, 0, Some(false)),
    scenario([Some(saver(&[W, W, N])), Some(optimistic(&[N, W])), Some(WHOLE)], 1, 0, None),
    scenario([Some(saver(&[N, N])), Some(saver(&[N])), Some(LARGE)], 2, 0, None),
    scenario([Some(saver(&[N, N, N, N])), Some(LARGE), None], 1, 0, None),
    scenario([Some(saver(&[W, W, N, N])), Some(LARGE), None], 1, 0, None),
    scenario([Some(saver(&[N, W, W])), Some(Role::Deleter), Some(LARGE)], 1, 0, None),
    scenario([Some(saver(&[W, W, N])), Some(optimistic(&[N, W])), Some(LARGE)], 1, 0, None),
    scenario([Some(saver(&[N, W, W, N, N])), Some(LARGE), None], 2, 0, None),
];

/// What any three do, two of them killed; see `choices`.
const ROLES: [Role; 9] = [
    saver(&[N, N]),
    saver(&[N, W]),
    optimistic(&[N, W]),
    Role::Deleter,
    Role::Renewer,
    Role::Sweeper,
    Role::Toucher,
    WHOLE,
    LARGE,
];

/// Every choice of three of them, the same one more than once as well.
fn choices(cut: Option<bool>) -> impl Iterator<Item = Scenario> {
    // With what may be on disk the states are many more.
    let kills = match cut {
        Some(_) if std::env::var_os("CLOAKROOM_MODEL").is_none_or(|what| what != "full") => 1,
        _ => 2,
    };
    // The last three leave nothing on disk.
    let n = if cut.is_none() { ROLES.len() } else { ROLES.len() - 3 };
    let two = (0..n).flat_map(move |a| (a..n).map(move |b| (a, b)));
    two.flat_map(move |(a, b)| {
        (b..n).map(move |c| {
            let roles = [a, b, c].map(|i| Some(ROLES[i]));
            let sweeps = roles.iter().flatten().any(|role| matches!(role, Role::Sweeper));
            scenario(roles, kills, sweeps.into(), cut)
        })
    })
}

/// Explores them all, and panics at the first bad thing.
fn all(scenarios: impl Iterator<Item = Scenario>) -> usize {
    let began = Instant::now();
    let (mut count, mut states, mut most) = (0, 0, 0);
    for scenario in scenarios {
        let outcome = explore(&scenario, None);
        println!("{:<56} {:>8} states", scenario.title(), outcome.states);
        (count, states, most) = (count + 1, states + outcome.states, most.max(outcome.states));
        if let Some(way) = outcome.bad {
            panic!("{}:\n{way}", scenario.title());
        }
    }
    println!("{count} scenarios, {states} states, at most {most} of one, in {:?}", began.elapsed());
    states
}

#[test]
fn nothing_bad_can_be_reached() {
    let states = all(SCENARIOS.iter().copied());
    assert!(states > 100_000, "hardly anything was explored");
}

#[test]
fn nothing_bad_can_be_reached_by_any_three() {
    assert!(all(choices(None)) > 500_000);
}

#[test]
fn no_power_cut_leaves_anything_bad_of_any_three_at_power() {
    all(choices(Some(true)));
}

#[test]
fn no_power_cut_leaves_anything_bad_of_any_three_at_process() {
    all(choices(Some(false)));
}

/// Without this guard something bad happens, and here is how.
fn missed(guard: Guard) {
    let found = SCENARIOS.iter().find_map(|scenario| {
        let outcome = explore(scenario, Some(guard));
        outcome.bad.map(|way| (scenario.title(), outcome.states, way))
    });
    let (title, states, way) = found.unwrap_or_else(|| panic!("nothing bad happens without {guard:?}"));
    println!("without {guard:?}, {title}, after {states} states:\n{way}");
}

/// One test for each guard; one that is left out is never used, and the compiler says so.
macro_rules! without {
    ($($test:ident $guard:ident)*) => {
        mod without {
            use super::{Guard, missed};

            $(#[test]
            fn $test() {
                missed(Guard::$guard);
            })*
        }
    };
}

without! {
    lock Lock
    freed_by_death FreedByDeath
    version Version
    other_slot OtherSlot
    checksum Checksum
    second_look SecondLook
    both_headers BothHeaders
    mark Mark
    link_count LinkCount
    write_before_answer WriteBeforeAnswer
    copy Copy
    tombstone Tombstone
    new_before_old NewBeforeOld
    sweep_lock SweepLock
    sweep_look SweepLook
    sweep_time SweepTime
    create_lock CreateLock
    create_link_count CreateLinkCount
    sync_save SyncSave
    sync_current SyncCurrent
    sync_copy SyncCopy
    sync_length SyncLength
    sync_grown SyncGrown
    sync_tombstone SyncTombstone
    sync_directory SyncDirectory
}
