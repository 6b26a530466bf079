//! An explicit-state model of the session file (`src/docs/file-format.md`): every order of the steps of up to three
//! processes, with kills before each of them, and power cuts. It finds nothing bad; without any one of the guards it
//! does, and shows the way there.
//!
//! ```text
//! cargo test --test model -- --nocapture
//! ```
#![allow(missing_docs, unreachable_pub)]

mod explore;
mod file;
mod guards;
mod steps;

use std::time::Instant;

use crate::explore::explore;
use crate::guards::{ALL, Guard};
use crate::steps::{Role, Scenario};

const fn saver(wide: &'static [bool]) -> Role {
    Role::Saver { wide, optimistic: false }
}

const fn optimistic(wide: &'static [bool]) -> Role {
    Role::Saver { wide, optimistic: true }
}

const N: bool = false;
const W: bool = true;

const fn scenario(name: &'static str, roles: [Option<Role>; 3], kills: u8, hours: u8, cut: Option<bool>) -> Scenario {
    Scenario { name, roles, kills, hours, cut }
}

const SCENARIOS: &[Scenario] = &[
    scenario("2 savers, reader", [Some(saver(&[N, N])), Some(saver(&[N])), Some(Role::Reader)], 2, 0, None),
    scenario("saver x 4, reader", [Some(saver(&[N, N, N, N])), Some(Role::Reader), None], 1, 0, None),
    scenario("saver, 2 optimistic", [Some(saver(&[N])), Some(optimistic(&[N, N])), Some(optimistic(&[N]))], 2, 0, None),
    scenario("grower, saver, reader", [Some(saver(&[N, W])), Some(saver(&[N])), Some(Role::Reader)], 1, 0, None),
    scenario("grower x 4, reader", [Some(saver(&[W, W, N, N])), Some(Role::Reader), None], 1, 0, None),
    scenario("saver, deleter, reader", [Some(saver(&[N, N])), Some(Role::Deleter), Some(Role::Reader)], 2, 0, None),
    scenario("grower, deleter, reader", [Some(saver(&[N, W, W])), Some(Role::Deleter), Some(Role::Reader)], 1, 0, None),
    scenario(
        "2 deleters, optimistic",
        [Some(Role::Deleter), Some(Role::Deleter), Some(optimistic(&[N, N]))],
        2,
        0,
        None,
    ),
    scenario("renewer, saver, reader", [Some(Role::Renewer), Some(saver(&[N, N])), Some(Role::Reader)], 2, 0, None),
    scenario(
        "2 renewers, optimistic",
        [Some(Role::Renewer), Some(Role::Renewer), Some(optimistic(&[N, N]))],
        2,
        0,
        None,
    ),
    scenario("renewer, deleter, saver", [Some(Role::Renewer), Some(Role::Deleter), Some(saver(&[N]))], 2, 0, None),
    scenario("sweeper, saver, toucher", [Some(Role::Sweeper), Some(saver(&[N, N])), Some(Role::Toucher)], 1, 2, None),
    scenario(
        "sweeper, saver, reader",
        [Some(Role::Sweeper), Some(optimistic(&[N, W])), Some(Role::Reader)],
        1,
        1,
        None,
    ),
    scenario("2 sweepers, deleter", [Some(Role::Sweeper), Some(Role::Sweeper), Some(Role::Deleter)], 2, 2, None),
    scenario("sweeper, deleter, saver", [Some(Role::Sweeper), Some(Role::Deleter), Some(saver(&[N]))], 1, 2, None),
    scenario("sweeper, renewer, saver", [Some(Role::Sweeper), Some(Role::Renewer), Some(saver(&[N]))], 1, 2, None),
    scenario("creator, 2 sweepers", [Some(Role::Creator), Some(Role::Sweeper), Some(Role::Sweeper)], 1, 2, None),
    scenario("power: growers", [Some(saver(&[N, W, W, N])), Some(saver(&[N])), None], 1, 0, Some(true)),
    scenario("power: saver, deleter", [Some(saver(&[N, N])), Some(Role::Deleter), None], 1, 0, Some(true)),
    scenario("power: saver, renewer", [Some(saver(&[N])), Some(Role::Renewer), None], 1, 0, Some(true)),
    scenario("power: creator", [Some(Role::Creator), None, None], 1, 0, Some(true)),
    scenario("process: growers", [Some(saver(&[N, W, W, N])), Some(saver(&[N])), None], 1, 0, Some(false)),
    scenario("process: grower, deleter", [Some(saver(&[N, W])), Some(Role::Deleter), None], 1, 0, Some(false)),
    scenario("process: saver, renewer", [Some(saver(&[N])), Some(Role::Renewer), None], 1, 0, Some(false)),
    scenario("2 growers, reader", [Some(saver(&[W, W, N])), Some(optimistic(&[N, W])), Some(Role::Reader)], 1, 0, None),
];

#[test]
fn nothing_bad_can_be_reached() {
    let began = Instant::now();
    let mut states = 0;
    for scenario in SCENARIOS {
        let outcome = explore(scenario, None);
        println!("{:<26} {:>8} states", scenario.name, outcome.states);
        states += outcome.states;
        if let Some(way) = outcome.bad {
            panic!("{}:\n{way}", scenario.name);
        }
    }
    println!("{states} states in {:?}", began.elapsed());
    assert!(states > 100_000, "hardly anything was explored");
}

#[test]
fn each_guard_is_missed_when_it_is_removed() {
    let mut idle = Vec::new();
    for guard in ALL {
        let found = SCENARIOS.iter().find_map(|scenario| {
            let outcome = explore(scenario, Some(guard));
            outcome.bad.map(|way| (scenario.name, outcome.states, way))
        });
        match found {
            Some((name, states, way)) => println!("without {guard:?}, {name}, after {states} states:\n{way}"),
            None => idle.push(guard),
        }
    }
    assert_eq!(idle, Vec::<Guard>::new(), "nothing bad happens without these");
}
