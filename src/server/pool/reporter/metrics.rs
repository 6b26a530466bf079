//! The report for Prometheus: its text format, version 0.0.4.

use std::fmt::{self, Display, Write as _};

use super::report::{Report, State};

/// The media type.
pub(super) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes the report as metrics.
pub(super) fn metrics(report: &Report) -> String {
    let mut metrics = Metrics(String::new());
    // Writing to a String does not fail.
    let _ = pool(&mut metrics, report).and_then(|()| requests(&mut metrics, report));
    let _ = sessions(&mut metrics, report).and_then(|()| workers(&mut metrics, report));
    metrics.0
}

struct Metrics(String);

impl Metrics {
    fn family(&mut self, name: &str, kind: &str, help: &str) -> fmt::Result {
        write!(self.0, "# HELP cloakroom_{name} {help}\n# TYPE cloakroom_{name} {kind}\n")
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) -> fmt::Result {
        write!(self.0, "cloakroom_{name}")?;
        for (i, (label, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(self.0, "{}{label}=\"{value}\"", if i == 0 { '{' } else { ',' })?;
        }
        writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" })
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) -> fmt::Result {
        self.family(name, kind, help)?;
        self.sample(name, &[], value)
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) -> fmt::Result {
        self.one(name, "counter", help, value)
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) -> fmt::Result {
        self.one(name, "gauge", help, value)
    }

    /// One sample for each label's value; nothing at all where there is none.
    fn each<'a, V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (&'a str, V)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_some() {
            self.family(name, kind, help)?;
        }
        samples.try_for_each(|(text, value)| self.sample(name, &[(label, text)], value))
    }
}

fn pool(out: &mut Metrics, report: &Report) -> fmt::Result {
    out.family("build_info", "gauge", "The version of the library; always 1.")?;
    out.sample("build_info", &[("version", report.version)], 1)?;
    out.gauge("start_time_seconds", "When the pool was started, in seconds since 1970.", report.pool.started)?;
    out.gauge("stopping", "Whether the pool is being stopped.", u8::from(report.pool.stopping))?;
    let workers = &report.workers;
    let states = State::ALL.map(|state| {
        let count = match state {
            State::Booting => workers.booting,
            State::Idle => workers.idle,
            State::Busy => workers.busy,
            State::Transfer => workers.transfer,
            State::Leaving => workers.leaving,
        };
        (state.name(), count)
    });
    out.each("workers", "gauge", "Workers by what they do.", "state", states)?;
    out.gauge("workers_min", "How many workers there are at least.", workers.min)?;
    out.gauge("workers_max", "How many workers there may be.", workers.max)?;
    out.gauge("workers_wanted", "How many workers there should be now.", workers.wanted)?;
    out.counter("pool_exhausted_total", "How often more workers were wanted than there may be.", report.exhausted)?;
    let exits = report.exits.iter().map(|(reason, count)| (*reason, count));
    out.each("worker_exits_total", "counter", "Workers that ended, by reason.", "reason", exits)?;
    let reloads = [("done", report.reloads.done), ("failed", report.reloads.failed)];
    out.each("reloads_total", "counter", "Reloads by result.", "result", reloads)?;
    for (name, help, value) in [
        ("listener_queue_connections", "Connections that wait in a listener's queue.", 0),
        ("listener_queue_limit", "How many connections may wait in a listener's queue.", 1),
    ] {
        let queues = report.listeners.iter();
        let queues = queues.filter_map(|queue| Some((queue, [queue.waiting?, queue.limit?][value])));
        let queues: Vec<_> = queues.collect();
        if !queues.is_empty() {
            out.family(name, "gauge", help)?;
        }
        for (queue, value) in queues {
            out.sample(name, &[("protocol", &queue.protocol), ("address", &queue.address)], value)?;
        }
    }
    let slow = &report.slow_clients;
    let clients = [("receiving", slow.receiving), ("sending", slow.sending)];
    out.each("slow_clients", "gauge", "Slow clients that the porter holds.", "state", clients)?;
    let help = "Connections handed over since their clients were slow.";
    out.counter("slow_clients_handed_over_total", help, slow.handed_over_total)?;
    let help = "Slow clients closed to have room for others.";
    out.counter("slow_clients_dropped_total", help, slow.dropped_total)?;
    out.counter("porter_deaths_total", "Porters that died, with their slow clients.", slow.porter_deaths_total)?;
    out.counter("access_log_lost_lines_total", "Lines lost of the access log.", report.access_log_lost_lines)
}

fn requests(out: &mut Metrics, report: &Report) -> fmt::Result {
    let requests = &report.requests;
    let classes = requests.by_class.iter().map(|(class, count)| (*class, count));
    out.each("requests_total", "counter", "Answered requests by class of status.", "class", classes)?;
    let name = "request_duration_seconds";
    out.family(name, "histogram", "From the call of the application to its answer.")?;
    for bucket in &requests.histogram {
        let bound = bucket.at_most_seconds.map_or("+Inf".to_owned(), |bound| bound.to_string());
        out.sample("request_duration_seconds_bucket", &[("le", &bound)], bucket.requests)?;
    }
    out.sample("request_duration_seconds_sum", &[], requests.seconds)?;
    // The last bucket and not the total: both were read while the workers went on counting.
    let count = requests.histogram.last().map_or(0, |bucket| bucket.requests);
    out.sample("request_duration_seconds_count", &[], count)?;
    out.counter("slow_requests_total", "Requests that took longer than --slow-request.", requests.slow)?;
    out.counter("soft_timeouts_total", "Requests that took longer than --soft-timeout.", requests.soft_timeouts)?;
    out.counter(
        "forbidden_connections_total",
        "SCGI connections from addresses that may not speak it.",
        requests.forbidden,
    )
}

fn sessions(out: &mut Metrics, report: &Report) -> fmt::Result {
    let sessions = &report.sessions;
    for (name, help, value) in [
        ("session_commits_total", "Sessions saved, created or deleted by a request.", sessions.commits),
        ("session_conflicts_total", "Requests run again since their session had changed.", sessions.conflicts),
        ("session_lock_waits_total", "Waits for a session's lock.", sessions.lock_waits),
        ("session_lock_timeouts_total", "Waits that ended with the lock timeout.", sessions.lock_timeouts),
        ("session_lock_refusals_total", "Waits refused since too many waited.", sessions.lock_refusals),
    ] {
        out.counter(name, help, value)?;
    }
    out.counter("session_lock_wait_seconds_total", "Time in waits for a session's lock.", sessions.lock_wait_seconds)?;
    let holders = report.locks.iter().filter(|lock| lock.holder.is_some()).count();
    let waiters: usize = report.locks.iter().map(|lock| lock.waiting.len()).sum();
    let locks = [("holds", holders), ("waits", waiters)];
    out.each("session_locks", "gauge", "Workers that hold, or wait for, a session's lock.", "state", locks)?;
    let Some(sweep) = &report.sweep else { return Ok(()) };
    out.gauge("sweep_age_seconds", "How long ago the last sweep ended.", sweep.ago_seconds)?;
    out.gauge("sweep_duration_seconds", "How long the last sweep took.", sweep.took_seconds)?;
    out.gauge("sweep_lag_seconds", "How long sessions are over before they are deleted.", sweep.lag_seconds)?;
    out.gauge("sweep_remaining_sessions", "Sessions that the last sweep left.", sweep.remaining)?;
    out.counter("sweep_deleted_sessions_total", "Sessions deleted by sweeps.", sweep.deleted_total)?;
    out.counter("sweeps_total", "Sweeps.", sweep.sweeps_total)?;
    out.counter("sweep_failures_total", "Sweeps that failed.", sweep.failures_total)
}

fn workers(out: &mut Metrics, report: &Report) -> fmt::Result {
    let numbers: Vec<String> = report.scoreboard.iter().map(|row| row.worker.to_string()).collect();
    let rows = || numbers.iter().map(String::as_str).zip(report.scoreboard.iter().map(|row| row.usage));
    let private = rows().filter_map(|(number, usage)| Some((number, usage.private_bytes?)));
    let name = "worker_memory_private_bytes";
    out.each(name, "gauge", "Memory of a worker that it shares with nobody.", "worker", private)?;
    let name = "worker_memory_proportional_bytes";
    let proportional = rows().filter_map(|(number, usage)| Some((number, usage.proportional_bytes?)));
    out.each(name, "gauge", "Memory of a worker, with its share of what it has in common.", "worker", proportional)?;
    let cpu = rows().filter_map(|(number, usage)| Some((number, usage.cpu_seconds?)));
    let help = "Processor time of a worker; begins anew with another one in its place.";
    out.each("worker_cpu_seconds_total", "counter", help, "worker", cpu)
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut out = Metrics(String::new());
        out.sample("x", &[("a", "q\"b\\n\n"), ("b", "")], 1.5).unwrap();
        assert_eq!(out.0, "cloakroom_x{a=\"q\\\"b\\\\n\\n\",b=\"\"} 1.5\n");
    }

    #[test]
    fn what_is_not_known_is_not_there() {
        let text = metrics(&report());
        assert!(!text.contains("listener_queue"), "{text}");
        assert!(text.contains("cloakroom_request_duration_seconds_count 4\n"), "{text}");
        assert!(text.contains("cloakroom_requests_total{class=\"4xx\"} 1\n"), "{text}");
        assert!(text.contains("cloakroom_request_duration_seconds_bucket{le=\"+Inf\"} 4\n"), "{text}");
        assert!(text.contains("cloakroom_slow_clients{state=\"receiving\"} 6\n"), "{text}");
        assert!(text.contains("cloakroom_slow_clients_handed_over_total 9\n"), "{text}");
        assert!(text.contains("cloakroom_session_locks{state=\"waits\"} 1\n"), "{text}");
    }
}
