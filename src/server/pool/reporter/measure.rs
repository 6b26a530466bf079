//! What a worker uses, from `/proc`: looked at anew only once in a while, since the kernel walks all of a process's
//! memory for it.

use std::collections::HashMap;
use std::fs;
use std::sync::Mutex;

use serde::Serialize;

/// How old a measurement may be, in microseconds.
const FRESH: u64 = 500_000;

/// What a process uses; `None` where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Usage {
    /// Memory that is this process's alone.
    pub(super) private_bytes: Option<u64>,
    /// The same with its share of what it has in common with others.
    pub(super) proportional_bytes: Option<u64>,
    pub(super) cpu_seconds: Option<f64>,
}

/// Measurements, by process.
#[derive(Default)]
pub(super) struct Measure(Mutex<HashMap<u64, (u64, Usage)>>);

impl Measure {
    /// What process `pid` uses, or used a moment ago. `time` is now, in microseconds.
    pub(super) fn usage(&self, pid: u64, time: u64) -> Usage {
        let mut known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((at, usage)) = known.get(&pid)
            && time.saturating_sub(*at) < FRESH
        {
            return *usage;
        }
        known.retain(|_, (at, _)| time.saturating_sub(*at) < 20 * FRESH);
        let usage = measure(pid);
        known.insert(pid, (time, usage));
        usage
    }
}

fn measure(pid: u64) -> Usage {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let (private_bytes, proportional_bytes) = match rollup(&read("smaps_rollup")) {
        Some((private, proportional)) => (Some(private), Some(proportional)),
        // Of a process that changed its user only root sees that.
        None => (statm(&read("statm")), None),
    };
    Usage { private_bytes, proportional_bytes, cpu_seconds: cpu(&read("stat")) }
}

/// `Private_*` and `Pss` of `smaps_rollup`.
fn rollup(text: &str) -> Option<(u64, u64)> {
    let sum = |wanted: fn(&str) -> bool| {
        let lines = text.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| wanted(name));
        lines.map(|(_, value)| value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).sum::<Option<u64>>()
    };
    let proportional = sum(|name| name == "Pss")?;
    let private = sum(|name| matches!(name, "Private_Clean" | "Private_Dirty"))?;
    (proportional > 0).then_some((private * 1024, proportional * 1024))
}

/// Resident pages that no file is behind; some of them are still the master's as well.
fn statm(text: &str) -> Option<u64> {
    let mut words = text.split(' ').skip(1).map(|word| word.trim().parse::<u64>().ok());
    let (resident, shared) = (words.next()??, words.next()??);
    Some(resident.saturating_sub(shared) * rustix::param::page_size() as u64)
}

/// User and system time, the 14th and 15th word of `stat`; the second, in parentheses, may contain anything.
fn cpu(text: &str) -> Option<f64> {
    let mut words = text.rsplit_once(") ")?.1.split(' ').skip(11).map(|word| word.parse::<u32>().ok());
    let ticks = f64::from(words.next()??) + f64::from(words.next()??);
    let per_second = u32::try_from(rustix::param::clock_ticks_per_second()).ok()?;
    Some(ticks / f64::from(per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_this_process() {
        let usage = Measure::default().usage(u64::from(std::process::id()), 0);
        assert!(usage.private_bytes.is_some_and(|bytes| bytes > 10_000), "{usage:?}");
        assert!(usage.cpu_seconds.is_some(), "{usage:?}");
    }

    #[test]
    fn reads_what_the_kernel_writes() {
        let text = "55-7f ---p 0 00:00 0 [rollup]\nRss:  900 kB\nPss:  300 kB\nPss_Dirty: 9 kB\nPrivate_Clean: 8 kB\n\
                    Private_Dirty:  100 kB\nPrivate_Hugetlb: 0 kB\n";
        assert_eq!(rollup(text), Some((108 * 1024, 300 * 1024)));
        assert_eq!(rollup(""), None);
        assert_eq!(statm("1000 30 10 5 0 99 0\n"), Some(20 * rustix::param::page_size() as u64));
        assert_eq!(statm("gone"), None);
        let stat = "7 (a) b) S 1 7 7 0 -1 4 1 0 0 0 150 50 0 0 20 0 1 0 9 1 1";
        let per_second = u32::try_from(rustix::param::clock_ticks_per_second()).unwrap();
        assert_eq!(cpu(stat), Some(200.0 / f64::from(per_second)));
        assert_eq!(cpu("7 (a) S"), None);
    }

    #[test]
    fn a_measurement_is_kept_for_a_moment() {
        let measure = Measure::default();
        measure.0.lock().unwrap().insert(1, (5, Usage { cpu_seconds: Some(7.0), ..Usage::default() }));
        assert_eq!(measure.usage(1, 6).cpu_seconds, Some(7.0));
        assert_ne!(measure.usage(1, 6 + FRESH).cpu_seconds, Some(7.0));
    }
}
