//! Goes through every state that can be reached, and shows the way to one that must not be.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::hash::{BuildHasherDefault, Hasher};

use crate::guards::Guard;
use crate::scenario::{Scenario, State};

/// Fast where the states are many and nobody chooses them to collide.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(n.into());
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn write_isize(&mut self, n: isize) {
        self.write_u64(n.cast_unsigned() as u64);
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

/// How many states there are, and the way to the first bad one.
pub struct Outcome {
    pub states: usize,
    pub bad: Option<String>,
}

/// Breadth first, so that the way is a shortest one.
pub fn explore(scenario: &Scenario, without: Option<Guard>) -> Outcome {
    let first = scenario.first();
    let mut seen: HashSet<State, BuildHasherDefault<Mixer>> = HashSet::default();
    seen.insert(first);
    // Each with the one it was reached from, and how.
    let mut states = vec![(first, u32::MAX, None)];
    let mut at = 0;
    while at < states.len() {
        let state = states[at].0;
        let mut bad = scenario.bad(&state, without);
        for step in scenario.steps(&state, without) {
            match step {
                Ok((who, what, next)) => {
                    if seen.insert(next) {
                        states.push((next, at as u32, Some((who, what))));
                    }
                }
                Err((who, what)) => bad = bad.or_else(|| Some(format!("{}: {what}", scenario.who(who)))),
            }
        }
        if let Some(bad) = bad {
            let mut way = vec![format!("-> {bad}")];
            let mut back = at as u32;
            while back != u32::MAX {
                let (state, before, step) = &states[back as usize];
                let label = step.map_or("at first".to_owned(), |(who, what)| format!("{}: {what}", scenario.who(who)));
                way.push(format!("{label:<52} {}", state.file));
                back = *before;
            }
            let mut text = String::new();
            for line in way.iter().rev() {
                let _ = writeln!(text, "    {line}");
            }
            return Outcome { states: states.len(), bad: Some(text) };
        }
        at += 1;
    }
    Outcome { states: states.len(), bad: None }
}
