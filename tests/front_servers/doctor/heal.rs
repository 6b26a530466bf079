//! A mistake, what the doctor says of it, and the lines that it prints, put where it says.

use serde_json::Value;

use super::{Said, TOKEN, ask_site};
use crate::site::{Front, Plan, Site};

/// What is wrong in the file of a web server. What is to be changed must be there.
#[derive(Clone, Copy)]
pub(super) enum Edit {
    /// Lines that begin so are gone.
    Drop(&'static str),
    /// The line that begins so reads otherwise.
    Replace(&'static str, &'static str),
    /// Behind the line that begins so stands another one.
    Add(&'static str, &'static str),
}

impl Edit {
    pub(super) fn apply(self, text: &str) -> String {
        let (Self::Drop(start) | Self::Replace(start, _) | Self::Add(start, _)) = self;
        let mut lines: Vec<&str> = Vec::new();
        let mut found = false;
        for line in text.lines() {
            let is_it = line.trim_start().starts_with(start);
            found |= is_it;
            match self {
                Self::Drop(_) if is_it => {}
                Self::Replace(_, other) if is_it => lines.push(other),
                Self::Add(_, more) if is_it => lines.extend([line, more]),
                _ => lines.push(line),
            }
        }
        assert!(found, "no line begins with {start:?}:\n{text}");
        lines.join("\n") + "\n"
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct Mistake {
    pub(super) mount: &'static str,
    pub(super) https: bool,
    /// More words for the pool's command line.
    pub(super) arguments: &'static [&'static str],
    pub(super) edits: &'static [Edit],
    /// The checks that find something to mend, in their order.
    pub(super) finds: &'static [&'static str],
    /// Lines that the doctor cannot know are not printed.
    pub(super) is_incurable: bool,
}

/// The doctor finds the mistake, and nothing else; with the lines that it prints it finds nothing any more.
pub(super) fn heal(front: Front, mistake: Mistake) {
    let plan = Plan {
        mount: mistake.mount,
        https: mistake.https,
        doctor_token: Some(TOKEN),
        pool_arguments: mistake.arguments,
        ..Plan::default()
    };
    let edit = |file: String| mistake.edits.iter().fold(file, |file, edit| edit.apply(&file));
    let said = find(front, plan, mistake.finds, edit);
    if !mistake.is_incurable {
        mend(front, plan, &said, edit);
    }
}

/// What the doctor says of a site whose file was changed: that these checks find something to mend, and no other.
pub(super) fn find(front: Front, plan: Plan, finds: &[&str], edit: impl Fn(String) -> String) -> Said {
    let site = Site::start_with(front, plan, edit);
    let said = ask_site(&site, plan);
    assert_eq!(said.to_mend(), finds, "{}\n{}", said.text, site.pool_log());
    assert_eq!(said.status, 1, "{}", said.text);
    said
}

/// The same site with the lines that the doctor has printed: it finds nothing to mend any more.
pub(super) fn mend(front: Front, plan: Plan, said: &Said, edit: impl Fn(String) -> String) {
    let mut mends = Vec::new();
    for mend in said.findings().flat_map(|finding| finding["mend"].as_array().unwrap()) {
        // Two findings may have one cause.
        if !mends.contains(&mend) {
            mends.push(mend);
        }
    }
    assert!(!mends.is_empty(), "no lines: {}", said.text);
    let (program, server): (Vec<&Value>, Vec<&Value>) = mends.iter().partition(|mend| mend["server"] == "program");
    let more = program.into_iter().flat_map(lines).flat_map(|line| line.split(' '));
    let arguments = plan.pool_arguments.iter().copied().chain(more).map(|word| &*word.to_owned().leak());
    let plan = Plan { pool_arguments: arguments.collect::<Vec<&'static str>>().leak(), ..plan };
    let site = Site::start_with(front, plan, |file| server.iter().fold(edit(file), |file, mend| put(mend, &file)));
    let again = ask_site(&site, plan);
    assert_eq!(again.to_mend(), [""; 0], "before: {}\nafter: {}", said.text, again.text);
    assert_eq!(again.status, 0, "{}", again.text);
}

fn lines(mend: &Value) -> Vec<&str> {
    mend["lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect()
}

/// The words that name what a line sets.
fn name(line: &str) -> String {
    let words: Vec<&str> = line.split([' ', '=']).filter(|word| !word.is_empty()).collect();
    let count = if matches!(words.first(), Some(&("scgi_param" | "proxy_set_header" | "SetEnv"))) { 2 } else { 1 };
    words[..count.min(words.len())].join(" ")
}

/// Puts lines where the doctor says, in place of those of the same name.
fn put(mend: &Value, file: &str) -> String {
    // The program's place is this test's own.
    let own = file.lines().find_map(|line| line.trim().strip_prefix("<Directory \"")?.strip_suffix("\">"));
    let lines: Vec<String> = lines(mend)
        .into_iter()
        .map(|line| own.map_or_else(|| line.to_owned(), |own| line.replace("/usr/local/lib/cloakroom", own)))
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let place = mend["place"].as_str().unwrap();
    let kept = |file: &str, what: &dyn Fn(&str) -> bool| {
        file.lines()
            .filter(|line| line.trim_start().starts_with('#') || !what(line.trim_start()))
            .map(str::to_owned)
            .collect()
    };
    let names: Vec<String> = lines.iter().map(|line| name(line)).collect();
    let is_set = |line: &str| {
        let is_replaced = line.starts_with("include ") && lines[0] == "# in place of include scgi_params:";
        is_replaced || names.contains(&name(line.trim_end_matches(';')))
    };
    let insert = |lines_of_file: Vec<String>, start: &str, before: bool| {
        let at = lines_of_file.iter().position(|line| line.trim_start().starts_with(start));
        let at = at.unwrap_or_else(|| panic!("no line begins with {start:?}"));
        let (head, tail) = lines_of_file.split_at(at + usize::from(!before));
        let all = head.iter().map(String::as_str).chain(lines.iter().copied()).chain(tail.iter().map(String::as_str));
        all.collect::<Vec<_>>().join("\n") + "\n"
    };
    let first_line = |start: &str| {
        assert!(file.lines().any(|line| line.trim_start().starts_with(start)), "no line begins with {start:?}");
        let lines_of_file = file.lines().map(|line| if line.trim_start().starts_with(start) { lines[0] } else { line });
        lines_of_file.collect::<Vec<_>>().join("\n") + "\n"
    };
    let whole = || file.lines().map(str::to_owned).collect::<Vec<_>>();
    match place {
        "in the location { }" if file.contains("proxy_pass ") => insert(kept(file, &is_set), "proxy_pass ", false),
        "in the location { }" => insert(kept(file, &is_set), "scgi_pass ", false),
        "in the server { }" => insert(kept(file, &is_set), "server_name ", false),
        "before the server { }" => {
            // It is there already, and only not used.
            if file.contains(lines[0]) { file.to_owned() } else { insert(whole(), "server {", true) }
        }
        "as the first line of the location" => first_line("location "),
        "as the first line of the <Location>" => first_line("<Location "),
        "in the <VirtualHost>" => insert(kept(file, &is_set), "</VirtualHost>", true),
        "in the <Location>" => insert(kept(file, &is_set), "<Location ", false),
        "in the <Directory> of the program" => insert(kept(file, &is_set), "<Directory ", false),
        "in the entry of scgi.server" => insert(whole(), "\"check-local\"", false),
        "in its configuration" => {
            let kept: Vec<String> = kept(file, &is_set);
            kept.iter().map(String::as_str).chain(lines.iter().copied()).collect::<Vec<_>>().join("\n") + "\n"
        }
        "in setenv.set-environment ( )" => {
            let name = lines[0].split(' ').next().unwrap();
            let kept: Vec<String> = kept(file, &|line| line.starts_with(name));
            insert(kept, "setenv.set-environment", false)
        }
        other => panic!("where is {other:?}?"),
    }
}
