//! The report for a terminal.

use std::fmt::{self, Display, Write as _};

use super::report::{Report, Row, SlowClients};

/// Writes the report as lines of text.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = head(&mut text, report).and_then(|()| locks(&mut text, report)).and_then(|()| rows(&mut text, report));
    text
}

fn head(out: &mut String, report: &Report) -> fmt::Result {
    let Report { pool, workers, requests, sessions, reloads, .. } = report;
    let stopping = if pool.stopping { ", stopping" } else { "" };
    writeln!(out, "cloakroom {}: pool {}, up {}{stopping}", report.version, pool.pid, Span(pool.uptime_seconds))?;
    let range = if workers.min == workers.max { String::new() } else { format!("{}..", workers.min) };
    write!(out, "workers   {} ready: {} busy, {} idle", workers.ready, workers.busy, workers.idle)?;
    for (count, name) in [(workers.transfer, "in transfer"), (workers.booting, "booting"), (workers.leaving, "leaving")]
    {
        if count > 0 {
            write!(out, ", {count} {name}")?;
        }
    }
    writeln!(out, "; {} wanted of {range}{}; exhausted {}", workers.wanted, workers.max, report.exhausted)?;
    for queue in &report.listeners {
        let waiting = queue.waiting.map_or("?".to_owned(), |count| count.to_string());
        let limit = queue.limit.map_or("?".to_owned(), |count| count.to_string());
        writeln!(out, "queue     {waiting}/{limit} {} {}", queue.protocol, Plain(&queue.address))?;
    }
    let slow = &report.slow_clients;
    if slow.handed_over_total > 0 {
        let ends = format!("{} dropped, {} porters died", slow.dropped_total, slow.porter_deaths_total);
        let SlowClients { receiving, sending, handed_over_total, .. } = slow;
        writeln!(out, "slow      {receiving} receiving, {sending} sending; {handed_over_total} handed over, {ends}")?;
    }
    let classes: Vec<String> = requests
        .by_class
        .iter()
        .filter(|(class, count)| **count > 0 || **class != "1xx")
        .map(|(class, count)| format!("{class} {count}"))
        .collect();
    writeln!(out, "requests  {}: {}; {:.1}/s on average", requests.total, classes.join(", "), requests.per_second)?;
    let time = |time: Option<f64>| time.map_or("-".to_owned(), |time| Time(time).to_string());
    writeln!(
        out,
        "times     p50 {}, p90 {}, p99 {}; slow {}, past the soft deadline {}, forbidden {}",
        time(requests.p50_seconds),
        time(requests.p90_seconds),
        time(requests.p99_seconds),
        requests.slow,
        requests.soft_timeouts,
        requests.forbidden
    )?;
    writeln!(
        out,
        "sessions  {} saved, {} run again; {} waits for a lock ({} in all), {} timed out, {} refused",
        sessions.commits,
        sessions.conflicts,
        sessions.lock_waits,
        Time(sessions.lock_wait_seconds),
        sessions.lock_timeouts,
        sessions.lock_refusals
    )?;
    let exits: Vec<String> =
        report.exits.iter().map(|(reason, count)| format!("{} {count}", reason.replace('_', " "))).collect();
    writeln!(out, "exits     {}; reloads {}, failed {}", exits.join(", "), reloads.done, reloads.failed)?;
    match &report.sweep {
        None => writeln!(out, "sweep     never")?,
        Some(sweep) => writeln!(
            out,
            "sweep     {} ago: {} deleted, {} remaining, took {}, lag {}; {} deleted by {} sweeps, {} failed",
            Span(sweep.ago_seconds),
            sweep.deleted,
            sweep.remaining,
            Time(sweep.took_seconds),
            Time(sweep.lag_seconds),
            sweep.deleted_total,
            sweep.sweeps_total,
            sweep.failures_total
        )?,
    }
    if report.access_log_lost_lines > 0 {
        writeln!(out, "access log {} lines lost", report.access_log_lost_lines)?;
    }
    Ok(())
}

fn locks(out: &mut String, report: &Report) -> fmt::Result {
    if !report.locks.is_empty() {
        writeln!(out, "\nlocks")?;
    }
    let row = |number: usize| report.scoreboard.iter().find(|row| row.worker == number);
    for lock in &report.locks {
        write!(out, "{}  ", lock.session)?;
        match lock.holder.and_then(row) {
            Some(holder) => write!(out, "held by {}", Who(holder))?,
            None => write!(out, "held by another process")?,
        }
        for (i, waiter) in lock.waiting.iter().filter_map(|&number| row(number)).enumerate() {
            write!(out, "{}{}", if i == 0 { "; waiting: " } else { ", " }, Who(waiter))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn rows(out: &mut String, report: &Report) -> fmt::Result {
    writeln!(
        out,
        "\n NR     PID STATE         AGE     DONE  PRIVATE      CPU LOCK                             FOR REQUEST"
    )?;
    for row in &report.scoreboard {
        let private = row.usage.private_bytes.map_or("?".to_owned(), |bytes| format!("{} K", bytes / 1024));
        let cpu = row.usage.cpu_seconds.map_or("?".to_owned(), |time| format!("{time:.2}"));
        let lock = row
            .lock
            .as_ref()
            .map_or("-".to_owned(), |lock| format!("{} {} {}", lock.state, lock.session, Time(lock.seconds)));
        write!(
            out,
            "{:3} {:7} {:8} {:>8} {:8} {private:>8} {cpu:>8} {lock:<27}",
            row.worker,
            row.pid,
            row.state.name(),
            Span(row.age_seconds).to_string(),
            row.requests
        )?;
        match &row.request {
            Some(request) => writeln!(
                out,
                " {:>8} {} {}",
                Time(request.age_seconds).to_string(),
                Plain(&request.method),
                Plain(&request.path)
            )?,
            None => writeln!(out, "        -")?,
        }
    }
    Ok(())
}

/// A worker, and since when it has to do with a lock.
struct Who<'a>(&'a Row);

impl Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.0;
        write!(f, "{} (pid {}", row.worker, row.pid)?;
        if let Some(request) = &row.request {
            write!(f, ", {} {}", Plain(&request.method), Plain(&request.path))?;
        }
        if let Some(lock) = &row.lock {
            write!(f, ", {}", Time(lock.seconds))?;
        }
        f.write_char(')')
    }
}

/// Text that others chose, without what would drive a terminal or turn the line around.
pub(super) struct Plain<'a>(pub(super) &'a str);

impl Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let turns = |c| matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        self.0.chars().try_for_each(|c| {
            if c.is_control() || turns(c) { write!(f, "{}", c.escape_default()) } else { f.write_char(c) }
        })
    }
}

/// Seconds, in the unit that suits them.
pub(super) struct Time(pub(super) f64);

impl Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            time if time < 0.000_000_5 => write!(f, "0 s"),
            time if time < 0.001 => write!(f, "{:.0} us", time * 1e6),
            time if time < 0.1 => write!(f, "{:.1} ms", time * 1e3),
            time if time < 1.0 => write!(f, "{:.0} ms", time * 1e3),
            time if time < 100.0 => write!(f, "{time:.1} s"),
            time => write!(f, "{time:.0} s"),
        }
    }
}

/// A longer time: days, hours, minutes, seconds.
pub(super) struct Span(pub(super) f64);

impl Display for Span {
    #[expect(clippy::cast_sign_loss, reason = "never negative")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.max(0.0) as u64;
        match (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
            (0, 0, 0, seconds) => write!(f, "{seconds}s"),
            (0, 0, minutes, seconds) => write!(f, "{minutes}m{seconds:02}s"),
            (0, hours, minutes, _) => write!(f, "{hours}h{minutes:02}m"),
            (days, hours, ..) => write!(f, "{days}d{hours:02}h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn nothing_that_a_client_sent_drives_the_terminal() {
        let text = text(&report());
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()) && !text.contains('\u{202e}'), "{text}");
        assert!(text.contains("GET /<b>\\u{1b}[2J\\u{202e}&"), "{text}");
        assert!(text.contains("held by 0 (pid "), "{text}");
        assert!(text.contains("; waiting: 1 (pid "), "{text}");
        assert!(
            text.contains("slow      6 receiving, 2 sending; 9 handed over, 0 dropped, 0 porters died\n"),
            "{text}"
        );
        assert!(text.contains("requests  4: 2xx 3, 3xx 0, 4xx 1, 5xx 0;"), "{text}");
    }

    #[test]
    fn times_have_a_unit() {
        let times = [0.0, 0.000_25, 0.0123, 0.25, 2.5, 250.0].map(|time| Time(time).to_string());
        assert_eq!(times, ["0 s", "250 us", "12.3 ms", "250 ms", "2.5 s", "250 s"]);
        let spans = [7.9, 67.0, 7270.0, 90_000.0].map(|time| Span(time).to_string());
        assert_eq!(spans, ["7s", "1m07s", "2h01m", "1d01h"]);
    }
}
