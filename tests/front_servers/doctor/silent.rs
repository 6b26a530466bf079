//! Deployments that do not answer, and what is said of them.

use std::process::{Command, Output};

use super::{TOKEN, ask, ask_site, url};
use crate::site::{Front, Plan, Site};

const PLAN: Plan =
    Plan { mount: "", https: false, body_limit: None, sweeps: false, doctor_token: Some(TOKEN), pool_arguments: &[] };

fn text_of_answer(said: &super::Said) -> String {
    assert_eq!((said.status, said.to_mend()), (1, vec!["answer"]), "{}", said.text);
    said.findings().next().unwrap()["text"].as_str().unwrap().to_owned()
}

#[test]
#[ignore = "needs nginx (Debian: nginx-light): run tests/run"]
fn a_pool_that_is_away_is_not_mistaken_for_one_that_does_not_know_the_token() {
    let mut site = Site::start(Front::NginxScgi, PLAN);
    site.stop_pool();
    let text = text_of_answer(&ask_site(&site, PLAN));
    assert!(text.contains("502") && text.contains("does not get through"), "{text}");
}

#[test]
#[ignore = "needs nginx (Debian: nginx-light): run tests/run"]
fn a_redirect_is_not_followed_but_told() {
    let site = Site::start_with(Front::NginxScgi, PLAN, |file| {
        file.replacen("    location / {", "    return 301 https://example.org$request_uri;\n    location / {", 1)
    });
    let text = text_of_answer(&ask_site(&site, PLAN));
    assert!(text.contains("301") && text.contains("https://example.org/cloakroom-doctor"), "{text}");
}

#[test]
#[ignore = "needs nginx (Debian: nginx-light): run tests/run"]
fn a_certificate_is_checked_unless_told_otherwise() {
    let plan = Plan { https: true, ..PLAN };
    let site = Site::start(Front::NginxScgi, plan);
    let said = ask(&url(&site, plan), TOKEN, &[]);
    assert_eq!(said.status, 111, "{}", said.text);
    assert!(said.text.to_ascii_lowercase().contains("certificate"), "{}", said.text);
    assert_eq!(ask(&url(&site, plan), TOKEN, &["--insecure"]).status, 0);
}

#[test]
#[ignore = "needs nginx (Debian: nginx-light): run tests/run"]
fn without_curl_https_is_not_examined() {
    let plan = Plan { https: true, ..PLAN };
    let site = Site::start(Front::NginxScgi, plan);
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloakroom"));
    command.args(["doctor", &url(&site, plan)]).env("CLOAKROOM_DOCTOR_TOKEN", TOKEN).env("PATH", "/nonexistent");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(111));
    assert!(String::from_utf8_lossy(&output.stderr).contains("curl"), "{output:?}");
}

/// Every program has it, and says the same to people.
#[test]
#[ignore = "needs nginx (Debian: nginx-light): run tests/run"]
fn the_program_itself_is_a_doctor() {
    let demo = |site: &Site| -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        command.args(["--doctor", &url(site, PLAN)]).env("CLOAKROOM_DOCTOR_TOKEN", TOKEN).output().unwrap()
    };
    let output = demo(&Site::start(Front::NginxScgi, PLAN));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""), "{text}");
    assert!(text.ends_with("nothing to mend\n") && text.contains("\nok   mount: the root\n"), "{text}");

    let site = Site::start_with(Front::NginxScgi, PLAN, |file| file.replace("scgi_param HTTP_PROXY", "#"));
    let output = demo(&site);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let expected = "\n       nginx, in the location { }:\n           scgi_param HTTP_PROXY \"\" if_not_empty;\n";
    assert!(text.contains("\nwarn proxy: ") && text.contains(expected), "{text}");
    assert!(!text.contains("Apache"), "the server is recognised: {text}");
}
