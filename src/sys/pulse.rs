//! Whether another process gets on: as far as `/proc` tells.

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pulse {
    /// It is dead, or nobody has that ID.
    Gone,
    /// It waits for something, or is stopped. Also where `/proc` is not mounted, and nothing is known.
    Rests,
    /// It runs, or would if it had a processor; it has had one for so many milliseconds since it was started.
    Runs(u64),
}

/// Takes the pulse of process `pid`.
pub(crate) fn pulse(pid: u64) -> Pulse {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => parse(&text).unwrap_or(Pulse::Rests),
        Err(_) if std::fs::exists("/proc/self/stat").unwrap_or(false) => Pulse::Gone,
        Err(_) => Pulse::Rests,
    }
}

fn parse(text: &str) -> Option<Pulse> {
    // The name, in parentheses, may contain anything. The state is field 3, the times are fields 14 and 15 (proc(5)).
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    match fields.next()? {
        "Z" | "X" | "x" => Some(Pulse::Gone),
        "R" => {
            let mut times = fields.skip(10).map_while(|field| field.parse::<u64>().ok());
            // A tick is 10 ms for programs, whatever it is for the kernel.
            Some(Pulse::Runs(10 * times.next()?.saturating_add(times.next()?)))
        }
        _ => Some(Pulse::Rests),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// Killed, whatever happens.
    struct Victim(Child);

    impl Victim {
        fn of(script: &str) -> Self {
            Self(Command::new("sh").arg("-c").arg(script).spawn().unwrap())
        }

        fn until(&self, what: impl Fn(Pulse) -> bool) {
            let began = std::time::Instant::now();
            while !what(pulse(self.0.id().into())) {
                assert!(began.elapsed().as_secs() < 20, "{:?}", pulse(self.0.id().into()));
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    }

    impl Drop for Victim {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn tells_work_from_rest_from_death() {
        let mut busy = Victim::of("while :; do :; done");
        busy.until(|pulse| matches!(pulse, Pulse::Runs(millis) if millis >= 50));
        Victim::of("exec sleep 60").until(|pulse| pulse == Pulse::Rests);
        // Dead before anybody has asked how it ended.
        busy.0.kill().unwrap();
        busy.until(|pulse| pulse == Pulse::Gone);
        busy.0.wait().unwrap();
        busy.until(|pulse| pulse == Pulse::Gone);
    }

    #[test]
    fn a_name_may_contain_anything() {
        let rest = "1 2 3 4 5 6 7 8 9 10 30 12 0 0 20";
        assert_eq!(parse(&format!("7 (a) S 1 (b) R {rest}")), Some(Pulse::Runs(420)));
        assert_eq!(parse(&format!("7 (a) D {rest}")), Some(Pulse::Rests));
        assert_eq!(parse("7 (a) Z"), Some(Pulse::Gone));
        assert_eq!((parse(""), parse("7 (a) R 1 2")), (None, None));
    }
}
