//! The report for a browser: one page without anything from elsewhere, which its script keeps up to date and which is
//! a page to be reloaded where there is no script.

use std::fmt::{self, Display, Write as _};

use super::report::{Report, Row, State};
use super::text::{Plain, Span, Time};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Writes the report as HTML; `nonce` is what its policy lets style and script in by.
pub(super) fn page(report: &Report, nonce: &str) -> String {
    let mut page = String::with_capacity(16 * 1024);
    // Writing to a String does not fail.
    let _ = write(&mut page, report, nonce);
    page
}

fn write(out: &mut String, report: &Report, nonce: &str) -> fmt::Result {
    let workers = &report.workers;
    let pool = &report.pool;
    let stopping = if pool.stopping { ", stopping" } else { "" };
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n\
         <meta name=viewport content=\"width=device-width, initial-scale=1\">\n\
         <title>{} of {} busy - cloakroom</title>\n<noscript><meta http-equiv=refresh content=2></noscript>\n\
         <style nonce=\"{nonce}\">\n{STYLE}</style>\n</head>\n<body>\n\
         <header><h1>Cloakroom</h1><p>pool {}, up {}{stopping}</p></header>\n\
         <p id=lost role=status>The pool does not answer. Trying again.</p>\n",
        workers.busy,
        workers.ready,
        pool.pid,
        Span(pool.uptime_seconds),
    )?;
    // The chart is the script's: it stays when the rest is replaced.
    out.push_str(
        "<figure class=chart><svg viewBox=\"0 0 600 60\" preserveAspectRatio=none role=img aria-label=\"Requests per \
         second\"><path class=area /><path class=line /></svg>\
         <figcaption><span>requests per second, the last two minutes</span><span id=most></span></figcaption></figure>\n",
    );
    writeln!(out, "<main data-requests={} data-pid={}>", report.requests.total, pool.pid)?;
    tiles(out, report)?;
    board(out, report)?;
    locks(out, report)?;
    facts(out, report)?;
    out.push_str(
        "</main>\n<footer>The same for programs: <a href=\"/status\">text</a>, <a href=\"/status.json\">JSON</a>, \
                  <a href=\"/metrics\">metrics</a>, <a href=\"/health\">health</a>.</footer>\n",
    );
    write!(out, "<script nonce=\"{nonce}\">\n{SCRIPT}</script>\n</body>\n</html>\n")
}

fn tiles(out: &mut String, report: &Report) -> fmt::Result {
    let workers = &report.workers;
    let requests = &report.requests;
    out.push_str("<ul class=tiles>\n");
    let full = workers.ready > 0 && workers.busy >= workers.max;
    let range = if workers.min == workers.max {
        "workers".to_owned()
    } else {
        format!("workers; {} to {}", workers.min, workers.max)
    };
    tile(out, full, format_args!("{}<small> of {} busy</small>", workers.busy, workers.ready), &range)?;
    tile(out, false, format_args!("<span id=rate>{:.1}</span>", requests.per_second), "")?;
    // The words beside the rate are the script's to change.
    let end = out.rfind("<span></span>").unwrap_or(out.len());
    out.replace_range(end..end + "<span></span>".len(), "<span id=rate-of>requests per second since the start</span>");
    let time = |time: Option<f64>| time.map_or("-".to_owned(), |time| Time(time).to_string());
    let others = format!("90 % of requests; half {}, 99 % {}", time(requests.p50_seconds), time(requests.p99_seconds));
    tile(out, false, time(requests.p90_seconds), &others)?;
    let known: Vec<u32> = report.listeners.iter().filter_map(|queue| queue.waiting).collect();
    let waiting: u32 = known.iter().sum();
    let queue = if known.is_empty() { "?".to_owned() } else { waiting.to_string() };
    tile(out, waiting > 0, queue, "connections in the queue")?;
    let waiters: usize = report.locks.iter().map(|lock| lock.waiting.len()).sum();
    tile(out, waiters > 0, waiters, "requests wait for a session")?;
    let failed = requests.by_class.get("5xx").copied().unwrap_or(0);
    tile(out, false, failed, "answers 5xx since the start")?;
    out.push_str("</ul>\n");
    Ok(())
}

fn tile(out: &mut String, alarm: bool, value: impl Display, what: &str) -> fmt::Result {
    writeln!(out, "<li{}><b>{value}</b><span>{what}</span></li>", if alarm { " class=alarm" } else { "" })
}

fn letter(state: State) -> char {
    match state {
        State::Booting => 'S',
        State::Idle => '\u{b7}',
        State::Busy => 'B',
        State::Transfer => 'T',
        State::Leaving => 'L',
    }
}

fn meaning(state: State) -> &'static str {
    match state {
        State::Booting => "starts",
        State::Idle => "idle",
        State::Busy => "busy with a request",
        State::Transfer => "reads or writes",
        State::Leaving => "leaves",
    }
}

const COLUMNS: [(&str, &str); 9] = [
    ("", "Nr"),
    ("", "Process"),
    (" class=t", "State"),
    ("", "Age"),
    ("", "Answered"),
    ("", "Memory"),
    ("", "CPU"),
    (" class=t", "Session"),
    (" class=t", "Request"),
];

fn board(out: &mut String, report: &Report) -> fmt::Result {
    out.push_str("<h2>Scoreboard</h2>\n<div class=board>\n<ul class=cells>");
    for row in &report.scoreboard {
        let lock = row.lock.as_ref().map_or("", |lock| lock.state);
        let what = Title(row);
        let (state, letter) = (row.state.name(), letter(row.state));
        write!(out, "<li class=\"{state} {lock}\" title=\"{what}\">{letter}</li>")?;
    }
    out.push_str("</ul>\n<ul class=key>");
    for state in State::ALL {
        write!(out, "<li><i class={}>{}</i>{}</li>", state.name(), letter(state), meaning(state))?;
    }
    out.push_str("<li><i class=holds></i>holds a session</li><li><i class=waits></i>waits for one</li></ul>\n</div>\n");
    out.push_str("<h2>Workers</h2>\n<div class=scroll><table>\n<thead><tr>");
    for (class, name) in COLUMNS {
        write!(out, "<th scope=col{class}>{name}</th>")?;
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &report.scoreboard {
        let memory = row.usage.private_bytes.map_or("?".to_owned(), |bytes| format!("{} KiB", bytes / 1024));
        let cpu = row.usage.cpu_seconds.map_or("?".to_owned(), |time| format!("{time:.2} s"));
        let state = row.state.name();
        write!(
            out,
            "<tr><td data-n=Nr>{}</td><td data-n=Process>{}</td><td class=t data-n=State><span class={state}>{state}\
             </span></td><td data-n=Age>{}</td><td data-n=Answered>{}</td><td data-n=Memory>{memory}</td>\
             <td data-n=CPU>{cpu}</td><td class=t data-n=Session>",
            row.worker,
            row.pid,
            Span(row.age_seconds),
            row.requests
        )?;
        match &row.lock {
            Some(lock) => write!(out, "{} <code>{}</code> {}", lock.state, lock.session, Time(lock.seconds))?,
            None => out.push('-'),
        }
        out.push_str("</td><td class=\"t path\" data-n=Request>");
        match &row.request {
            Some(request) => write!(
                out,
                "<code>{} {}</code> {}",
                Escaped(&request.method),
                Escaped(&request.path),
                Time(request.age_seconds)
            )?,
            None => out.push('-'),
        }
        out.push_str("</td></tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    Ok(())
}

fn locks(out: &mut String, report: &Report) -> fmt::Result {
    if report.locks.is_empty() {
        return Ok(());
    }
    out.push_str("<h2>Sessions in use</h2>\n<dl>\n");
    for lock in &report.locks {
        let holder = lock.holder.map_or("held by another process".to_owned(), |nr| format!("held by worker {nr}"));
        write!(out, "<dt><code>{}</code></dt><dd>{holder}", lock.session)?;
        for (i, number) in lock.waiting.iter().enumerate() {
            write!(out, "{}{number}", if i == 0 { "; waiting: " } else { ", " })?;
        }
        out.push_str("</dd>\n");
    }
    out.push_str("</dl>\n");
    Ok(())
}

fn facts(out: &mut String, report: &Report) -> fmt::Result {
    let Report { requests, sessions, reloads, .. } = report;
    out.push_str("<h2>Since the start</h2>\n<div class=facts>\n");
    let mut answers: Vec<(String, String)> =
        requests.by_class.iter().map(|(class, count)| ((*class).to_owned(), count.to_string())).collect();
    answers.insert(0, ("all".to_owned(), requests.total.to_string()));
    answers.push(("slow".to_owned(), requests.slow.to_string()));
    answers.push(("past the soft deadline".to_owned(), requests.soft_timeouts.to_string()));
    answers.push(("SCGI connections refused".to_owned(), requests.forbidden.to_string()));
    answers.push(("lines of the access log lost".to_owned(), report.access_log_lost_lines.to_string()));
    list(out, "Requests", &answers)?;
    let own = |name: &str, value: String| (name.to_owned(), value);
    let mut kept = vec![
        own("saved", sessions.commits.to_string()),
        own("requests run again after a conflict", sessions.conflicts.to_string()),
        own("waits for a lock", sessions.lock_waits.to_string()),
        own("time in them", Time(sessions.lock_wait_seconds).to_string()),
        own("waits that timed out", sessions.lock_timeouts.to_string()),
        own("waits that were refused", sessions.lock_refusals.to_string()),
    ];
    if let Some(sweep) = &report.sweep {
        kept.push(own("last sweep", format!("{} ago", Span(sweep.ago_seconds))));
        kept.push(own("it deleted, it left", format!("{}, {}", sweep.deleted, sweep.remaining)));
        kept.push(own("deleted by all sweeps", sweep.deleted_total.to_string()));
    }
    list(out, "Sessions", &kept)?;
    let mut ends: Vec<(String, String)> =
        report.exits.iter().map(|(reason, count)| (reason.replace('_', " "), count.to_string())).collect();
    ends.push(own("reloads", reloads.done.to_string()));
    ends.push(own("reloads that failed", reloads.failed.to_string()));
    ends.push(own("more workers wanted than may be", report.exhausted.to_string()));
    list(out, "Workers that ended", &ends)?;
    let queue = |number: Option<u32>| number.map_or("?".to_owned(), |number| number.to_string());
    let queues: Vec<(String, String)> = report
        .listeners
        .iter()
        .map(|l| (format!("{} {}", l.protocol, l.address), format!("{} of {}", queue(l.waiting), queue(l.limit))))
        .collect();
    list(out, "Queues", &queues)?;
    out.push_str("</div>\n");
    Ok(())
}

fn list(out: &mut String, title: &str, entries: &[(String, String)]) -> fmt::Result {
    write!(out, "<dl><h2>{title}</h2>")?;
    for (name, value) in entries {
        write!(out, "<dt>{}</dt><dd>{value}</dd>", Escaped(name))?;
    }
    out.push_str("</dl>\n");
    Ok(())
}

/// What a cell says when it is pointed at.
struct Title<'a>(&'a Row);

impl Display for Title<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.0;
        write!(f, "worker {} (process {}): {}", row.worker, row.pid, meaning(row.state))?;
        if let Some(request) = &row.request {
            let (method, path) = (Escaped(&request.method), Escaped(&request.path));
            write!(f, ", {method} {path} for {}", Time(request.age_seconds))?;
        }
        Ok(())
    }
}

/// Text that others chose, for element content and quoted attributes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Plain(self.0).to_string().chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn nothing_that_a_client_sent_is_markup() {
        let page = page(&report(), "n0");
        assert!(!page.contains("<b>\\u") && !page.contains('\u{1b}') && !page.contains('\u{202e}'), "{page}");
        assert!(page.contains("GET /&lt;b&gt;\\u{1b}[2J\\u{202e}&amp;&quot;&#39;"), "{page}");
        assert!(page.contains("<span id=rate-of>requests per second since the start</span>"), "{page}");
    }

    #[test]
    fn nothing_comes_from_elsewhere() {
        let page = page(&report(), "n0");
        assert!(!page.contains("://") && !page.contains("@import") && !page.contains("url("), "{page}");
        assert_eq!(page.matches("nonce=\"n0\"").count(), 2);
        assert!(!page.contains(" style="), "a policy without unsafe-inline forbids it");
    }
}
