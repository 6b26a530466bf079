//! The doctor before deployments that are right, and before those that are wrong in one point: it names that point, and
//! the lines that it prints heal it.

mod heal;
mod mistakes;
mod proxied;
mod silent;

use std::process::Command;

use serde_json::Value;

use crate::site::{Front, Plan, Site};

const TOKEN: &str = "a-token-of-the-tests";

/// What the doctor says.
struct Said {
    status: i32,
    report: Value,
    /// All that it wrote.
    text: String,
}

impl Said {
    /// The names of the checks that found something to mend.
    fn to_mend(&self) -> Vec<&str> {
        let of = |finding: &'static str| move |value: &Value| value[finding].as_str().unwrap_or_default().to_owned();
        let severity = of("severity");
        let bad = self.findings().filter(|finding| matches!(severity(finding).as_str(), "warn" | "fail"));
        bad.map(|finding| finding["check"].as_str().unwrap()).collect()
    }

    fn findings(&self) -> impl Iterator<Item = &Value> {
        self.report["findings"].as_array().unwrap_or_else(|| panic!("no report: {}", self.text)).iter()
    }
}

fn ask(url: &str, token: &str, more: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloakroom"));
    command.args(["doctor", "--json", url]).args(more).env("CLOAKROOM_DOCTOR_TOKEN", token);
    let output = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains(token), "the token is shown: {text}");
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    Said { status: output.status.code().unwrap(), report, text }
}

fn url(site: &Site, plan: Plan) -> String {
    let scheme = if plan.https { "https" } else { "http" };
    format!("{scheme}://{}{}/", site.address, plan.mount)
}

fn ask_site(site: &Site, plan: Plan) -> Said {
    ask(&url(site, plan), TOKEN, if plan.https { &["--insecure"] } else { &[] })
}

pub(crate) fn the_doctor_finds_nothing_to_mend(front: Front) {
    for (mount, https) in [("", false), ("/app", false), ("", true), ("/app", true)] {
        let plan = Plan { mount, https, doctor_token: Some(TOKEN), ..Plan::default() };
        let said = ask_site(&Site::start(front, plan), plan);
        assert_eq!(said.to_mend(), [""; 0], "{mount} https={https}: {}", said.text);
        assert_eq!(said.status, 0, "{}", said.text);
        // The checks were made, each of them where it can be.
        let count = 27 + 2 * usize::from(!mount.is_empty()) - usize::from(https);
        assert_eq!(said.findings().count(), count, "{}", said.text);
        // What is only noted is what the guide says of this server.
        let noted: Vec<&str> =
            said.findings().filter(|it| it["severity"] == "note").map(|it| it["check"].as_str().unwrap()).collect();
        let expected: &[&str] = match front {
            Front::NginxScgi => &[],
            Front::ApacheCgi => &["buffering"],
            Front::ApacheScgi => &["variables", "chunked", "buffering"],
            Front::LighttpdCgi => &["query"],
            Front::LighttpdScgi => &["neighbours", "query"],
        };
        let is_made = |check: &&&str| match **check {
            "neighbours" => !mount.is_empty(),
            "buffering" => !https,
            _ => true,
        };
        assert_eq!(noted, expected.iter().filter(is_made).copied().collect::<Vec<_>>(), "{}", said.text);
    }
}

/// A program that answers its doctor answers everybody else as before, and tells nobody else anything.
pub(crate) fn only_the_doctor_is_told_anything(front: Front) {
    let right = Plan { doctor_token: Some(TOKEN), ..Plan::default() };
    for (plan, token) in [(right, "another-token-of-the-tests"), (Plan::default(), TOKEN)] {
        let site = Site::start(front, plan);
        let said = ask(&url(&site, plan), token, &[]);
        assert_eq!((said.status, said.to_mend()), (1, vec!["answer"]), "{}", said.text);
        assert_eq!(said.findings().count(), 1, "nothing else was asked: {}", said.text);
        assert!(said.text.contains("CLOAKROOM_DOCTOR_TOKEN"), "{}", said.text);
        let reply = site.request("GET", "/cloakroom-doctor").header("X-Cloakroom-Doctor", token).send();
        assert_eq!(reply.status, 404);
        assert!(!reply.text().contains("variables"), "{}", reply.text());
        // It is the application that has answered, as it answers everything.
        let reply = site.request("GET", "/hello").header("X-Cloakroom-Doctor", token).send();
        assert_eq!((reply.status, reply.text().as_str()), (200, "Hello, world!\n"));
    }
    let site = Site::start(front, right);
    for token in ["", "a-token-of-the-test", "a-token-of-the-tests1", "A-token-of-the-tests"] {
        let reply = site.request("GET", "/hello").header("X-Cloakroom-Doctor", token).send();
        assert_eq!((reply.status, reply.text().as_str()), (200, "Hello, world!\n"), "{token}");
    }
    assert_eq!(site.get("/hello").text(), "Hello, world!\n");
    let reply = site.request("GET", "/hello").header("X-Cloakroom-Doctor", TOKEN).header("Cookie", "a=secret").send();
    assert!(reply.text().contains("HTTP_COOKIE") && !reply.text().contains("secret"), "{}", reply.text());
    assert_eq!(reply.header("Cache-Control").as_deref(), Some("no-store"));
}
