//! The diagnosis of what a deployment behind nginx has answered, changed in one point each time.

use serde_json::{Value, json};

use super::*;
use crate::doctor::answer::{LANDING, SECOND_COOKIE};
use crate::doctor::client::Reply;
use crate::doctor::probes::{
    AUTHORIZATION, BODY_SIZE, DECODED_PATH, ESCAPED_PATH, FIELD_SIZE, FORGED_ADDRESS, HEAD_SIZES, QUERY,
};

/// What an SCGI pool answered behind nginx, by https.
const RECORDED: &str = include_str!("recorded.json");

fn told() -> Value {
    serde_json::from_str(RECORDED).unwrap()
}

fn reply(status: u16, told: &Value) -> Outcome {
    Outcome::Reply(Reply { status, fields: Vec::new(), body: told.to_string().into_bytes() })
}

fn bare(status: u16, fields: &[(&str, &str)]) -> Outcome {
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Outcome::Reply(Reply { status, fields, body: b"<html>".to_vec() })
}

/// The same answer with other variables.
fn with(told: &Value, variables: &[(&str, Value)]) -> Value {
    let mut told = told.clone();
    for (name, value) in variables {
        told["variables"][name] = value.clone();
    }
    told
}

fn path_told(told: &Value) -> Value {
    let uri = json!({ "value": format!("{ESCAPED_PATH}?{QUERY}") });
    let mut told = with(told, &[("REQUEST_URI", uri), ("QUERY_STRING", json!({ "value": QUERY }))]);
    if told["request"].is_object() {
        told["request"]["path_info"] = json!(DECODED_PATH);
    }
    told
}

fn body_told(told: &Value, length: u64) -> Value {
    let kind = json!({ "value": "application/x-cloakroom-doctor" });
    let length_text = json!({ "value": length.to_string() });
    let variables =
        [("CONTENT_TYPE", kind), ("CONTENT_LENGTH", length_text.clone()), ("HTTP_CONTENT_LENGTH", length_text)];
    let mut told = with(told, &variables);
    told["body"]["length"] = json!(length);
    told
}

/// All answers of a deployment that is right, where `told` is the first one.
fn seen(told: &Value) -> Seen {
    let plain = reply(200, told);
    let mut slash = told.clone();
    if slash["request"].is_object() {
        slash["request"]["path_info"] = json!("/cloakroom-doctor/a/b");
    }
    let repeated = [("HTTP_X_CLOAKROOM_PROBE", json!({ "value": "a, b" })), ("HTTP_COOKIE", json!({ "length": 28 }))];
    let derived = &told["request"];
    let text = |name: &str| derived[name].as_str().unwrap_or_default();
    let location = format!("{}://{}{}{LANDING}", text("scheme"), text("authority"), text("script_name"));
    let cookies = [("Location", location.as_str()), ("Set-Cookie", text("cookie")), ("Set-Cookie", SECOND_COOKIE)];
    let limit = told["configured"]["body_limit"].as_u64().unwrap();
    Seen {
        own: [192, 0, 2, 1].into(),
        peer: [198, 51, 100, 1].into(),
        first: plain.clone(),
        rest: Some(Rest {
            page: plain.clone(),
            bare: None,
            neighbour: None,
            path: reply(200, &path_told(told)),
            slash: reply(200, &slash),
            authorization: reply(200, &with(told, &[("HTTP_AUTHORIZATION", json!({ "length": AUTHORIZATION.len() }))])),
            proxy: plain.clone(),
            forged: plain.clone(),
            repeated: reply(200, &with(told, &repeated)),
            field: reply(200, &with(told, &[("HTTP_X_CLOAKROOM_LONG", json!({ "length": FIELD_SIZE }))])),
            heads: HEAD_SIZES.iter().map(|size| (*size, plain.clone())).collect(),
            redirect: bare(303, &cookies),
            error: reply(404, told),
            body: reply(200, &body_told(told, BODY_SIZE as u64)),
            chunked: reply(200, &body_told(told, BODY_SIZE as u64)),
            halves: Some(reply(200, &body_told(told, BODY_SIZE as u64))),
            full: Some(reply(200, &body_told(told, limit))),
            over: Some(bare(413, &[])),
        }),
    }
}

fn diagnose(seen: &Seen) -> Report {
    report(&Target::parse("https://example.org/").unwrap(), seen)
}

fn to_mend(report: &Report) -> Vec<(&'static str, Severity)> {
    let bad = report.findings.iter().filter(|finding| finding.severity > Severity::Note);
    bad.map(|finding| (finding.check, finding.severity)).collect()
}

fn finding<'a>(report: &'a Report, check: &str) -> &'a Finding {
    report.findings.iter().find(|finding| finding.check == check).unwrap_or_else(|| panic!("{check}: {report:?}"))
}

/// What is found where the first answer, and with it all others, is changed.
fn changed(change: impl FnOnce(&mut Value)) -> Report {
    let mut told = told();
    change(&mut told);
    diagnose(&seen(&told))
}

/// What is found where one of the other answers is another.
fn otherwise(change: impl FnOnce(&mut Rest)) -> Report {
    let mut seen = seen(&told());
    change(seen.rest.as_mut().unwrap());
    diagnose(&seen)
}

use Severity::{Fail, Note, Ok as Fine, Warn};

#[test]
fn what_is_right_is_found_right() {
    let report = changed(|_| {});
    assert_eq!(to_mend(&report), []);
    assert!(report.findings.iter().all(|finding| finding.severity == Fine), "{report:?}");
    assert_eq!((report.server, report.software.as_deref()), (Some(Server::Nginx), Some("nginx/1.22.1")));
    assert_eq!(report.findings.len(), 27);
}

#[test]
fn each_variable_counts() {
    let lost = |name: &'static str| {
        changed(move |told| {
            told["variables"].as_object_mut().unwrap().remove(name);
        })
    };
    for name in ["SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL"] {
        assert_eq!(to_mend(&lost(name)), [("variables", Warn)], "{name}");
    }
    for name in ["SCGI", "GATEWAY_INTERFACE"] {
        assert_eq!(finding(&lost(name), "variables").severity, Note, "{name}");
    }
    let report = changed(|told| told["variables"]["HTTPS"]["value"] = json!("off"));
    assert_eq!(to_mend(&report), [("scheme", Warn)]);
    let report = changed(|told| {
        told["request"]["scheme"] = json!("http");
        told["request"]["cookie"] = json!("session=; HttpOnly; Path=/");
    });
    assert_eq!(to_mend(&report), [("scheme", Fail), ("cookie", Fail)]);
    let lines: Vec<&str> =
        finding(&report, "scheme").mend.iter().flat_map(|mend| &mend.lines).map(String::as_str).collect();
    assert!(lines.contains(&"scgi_param HTTPS $https if_not_empty;"), "{lines:?}");
    assert!(lines.contains(&"--trusted-proxy 192.0.2.1"), "{lines:?}");
    // A value that merely holds the word is no attribute.
    let report = changed(|told| told["request"]["cookie"] = json!("Secure=; Path=/Secure"));
    assert_eq!(to_mend(&report), [("cookie", Fail)]);
    assert_eq!(to_mend(&changed(|told| told["request"]["authority"] = json!("example.org:8443"))), [("host", Fail)]);
}

#[test]
fn the_clients_address() {
    let told_address = |address: Value| changed(move |told| told["request"]["client_address"] = address);
    assert_eq!(to_mend(&told_address(Value::Null)), [("client", Warn)]);
    assert_eq!(to_mend(&told_address(json!("127.0.0.1"))), [("client", Warn)], "a proxy on the same machine");
    assert_eq!(finding(&told_address(json!("203.0.113.9")), "client").severity, Note, "an address translator");
}

#[test]
fn a_client_that_is_believed() {
    let forged = |way: &str, list: &str| {
        let mut told = told();
        told["way"] = json!(way);
        told["configured"]["trusts_proxies"] = json!(true);
        let mut seen = seen(&told);
        let mut answer = with(&told, &[("HTTP_X_FORWARDED_FOR", json!({ "value": list }))]);
        answer["request"]["client_address"] = json!(FORGED_ADDRESS);
        seen.rest.as_mut().unwrap().forged = reply(200, &answer);
        finding(&diagnose(&seen), "forwarding").severity
    };
    assert_eq!(forged("http", FORGED_ADDRESS), Fail);
    assert_eq!(forged("http", &format!("{FORGED_ADDRESS}, 192.0.2.1")), Note, "the proxy has added this machine");
    assert_eq!(forged("scgi", FORGED_ADDRESS), Note, "this machine is the peer that is trusted");
}

#[test]
fn what_gets_lost_on_its_way() {
    let plain = reply(200, &told());
    let with_told = |variables: &[(&str, Value)]| reply(200, &with(&told(), variables));
    let cases: Vec<(Report, Vec<(&str, Severity)>)> = vec![
        (otherwise(|rest| rest.authorization = plain.clone()), vec![("authorization", Warn)]),
        (otherwise(|rest| rest.authorization = bare(500, &[])), vec![("authorization", Warn)]),
        (otherwise(|rest| rest.authorization = bare(401, &[])), vec![]),
        (otherwise(|rest| rest.proxy = with_told(&[("HTTP_PROXY", json!({ "length": 1 }))])), vec![("proxy", Warn)]),
        (otherwise(|rest| rest.repeated = plain.clone()), vec![("repeated-fields", Warn)]),
        (
            otherwise(|rest| {
                let one =
                    [("HTTP_X_CLOAKROOM_PROBE", json!({ "value": "a,b" })), ("HTTP_COOKIE", json!({ "length": 13 }))];
                rest.repeated = with_told(&one);
            }),
            vec![("repeated-fields", Warn)],
        ),
        (otherwise(|rest| rest.field = bare(431, &[])), vec![("request-head", Warn)]),
        (otherwise(|rest| rest.field = plain.clone()), vec![("request-head", Warn)]),
        (otherwise(|rest| rest.heads[2].1 = bare(502, &[])), vec![("response-head", Warn)]),
        (
            otherwise(|rest| {
                rest.heads.truncate(2);
                rest.heads[1].1 = Outcome::Failed("cut".to_owned());
            }),
            vec![("response-head", Fail)],
        ),
        (otherwise(|rest| rest.redirect = bare(200, &[])), vec![("redirect", Fail)]),
        (otherwise(|rest| rest.redirect = bare(303, &[("Location", "http://example.org/")])), vec![("redirect", Fail)]),
        (
            otherwise(|rest| rest.redirect = bare(303, &[("Location", &format!("https://example.org{LANDING}"))])),
            vec![("redirect", Fail)],
        ),
        (otherwise(|rest| rest.error = bare(404, &[])), vec![("errors", Warn)]),
        (otherwise(|rest| rest.page = bare(403, &[])), vec![("front-page", Fail)]),
        (otherwise(|rest| rest.slash = bare(404, &[])), vec![("encoded-slash", Warn)]),
        (otherwise(|rest| rest.path = bare(404, &[])), vec![("path", Fail)]),
        (otherwise(|rest| rest.bare = Some(bare(404, &[]))), vec![("bare-mount", Warn)]),
    ];
    for (number, (report, expected)) in cases.into_iter().enumerate() {
        assert_eq!(to_mend(&report), expected, "{number}");
    }
}

#[test]
fn message_bodies() {
    let length = BODY_SIZE as u64;
    assert_eq!(to_mend(&otherwise(|rest| rest.body = reply(200, &body_told(&told(), length - 1)))), [("body", Fail)]);
    let contradicting = with(&body_told(&told(), length), &[("HTTP_CONTENT_LENGTH", json!({ "value": "1" }))]);
    assert_eq!(to_mend(&otherwise(|rest| rest.body = reply(200, &contradicting))), [("body", Fail)]);
    let without_type = with(&body_told(&told(), length), &[("CONTENT_TYPE", json!({ "value": "" }))]);
    assert_eq!(to_mend(&otherwise(|rest| rest.body = reply(200, &without_type))), [("content-type", Fail)]);
    assert_eq!(to_mend(&otherwise(|rest| rest.chunked = bare(411, &[]))), [("chunked", Warn)]);
    let mut slow = body_told(&told(), length);
    slow["body"]["milliseconds"] = json!(600);
    assert_eq!(to_mend(&otherwise(|rest| rest.halves = Some(reply(200, &slow)))), [("buffering", Warn)]);
    assert_eq!(to_mend(&otherwise(|rest| rest.full = Some(bare(413, &[])))), [("body-limit", Warn)]);
    let report = otherwise(|rest| rest.full = Some(bare(413, &[])));
    assert_eq!(finding(&report, "body-limit").mend[0].lines, ["client_max_body_size 8m;"]);
    assert_eq!(
        to_mend(&otherwise(|rest| rest.over = Some(Outcome::Failed("reset".to_owned())))),
        [("body-limit", Warn)]
    );
    let report = otherwise(|rest| (rest.full, rest.over) = (None, None));
    assert_eq!(finding(&report, "body-limit").severity, Note);
}

#[test]
fn paths() {
    let path = |change: &dyn Fn(&mut Value)| {
        let mut answer = path_told(&told());
        change(&mut answer);
        to_mend(&otherwise(|rest| rest.path = reply(200, &answer)))
    };
    let value = |text: &str| json!({ "value": text });
    assert_eq!(path(&|told| told["request"]["path_info"] = json!("/x")), [("path", Fail)]);
    assert_eq!(path(&|told| told["variables"]["REQUEST_URI"] = value("/x")), [("request-uri", Fail)]);
    assert_eq!(path(&|told| told["variables"]["QUERY_STRING"] = value("x=2")), [("query", Fail)]);
    let whole = DECODED_PATH;
    for (name, info, expected) in [
        ("", whole, vec![]),
        (whole, "", vec![]),
        ("/cloakroom-doctor", &whole["/cloakroom-doctor".len()..], vec![("script-name", Warn)]),
        ("/app", whole, vec![("script-name", Warn)]),
    ] {
        let found = path(&|told| {
            told["variables"]["SCRIPT_NAME"] = value(name);
            told["variables"]["PATH_INFO"] = value(info);
        });
        assert_eq!(found, expected, "{name} {info}");
    }
    // Under CGI the program goes by them.
    let report = changed(|told| {
        told["way"] = json!("cgi");
        told["variables"]["SCRIPT_NAME"] = value("/cgi-bin");
        told["variables"]["PATH_INFO"] = value("/x");
    });
    assert_eq!(to_mend(&report), [("script-name", Fail)]);
}

#[test]
fn a_refused_request_is_one_finding() {
    let refused = |status: u16, reason: &str| {
        changed(|told| {
            told["request"] = Value::Null;
            told["body"] = json!({ "length": 0, "error": null, "milliseconds": 0 });
            told["refused"] = json!({ "status": status, "reason": reason });
            told["configured"]["script_name"] = json!("/app");
        })
    };
    let report = refused(404, "path is outside the mount");
    assert_eq!(to_mend(&report), [("mount", Fail)]);
    assert_eq!(finding(&report, "mount").mend[0].lines, ["--script-name /"]);
    assert_eq!(to_mend(&refused(400, "malformed request: HTTP_HOST")), [("answer", Fail)]);
}

#[test]
fn an_unknown_server_is_told_all_lines() {
    let report = changed(|told| told["variables"]["SERVER_SOFTWARE"] = json!({ "value": "thttpd" }));
    assert_eq!(report.server, None);
    let mut seen = seen(&with(&told(), &[("SERVER_SOFTWARE", json!({ "value": "thttpd" }))]));
    seen.rest.as_mut().unwrap().full = Some(bare(413, &[]));
    let report = diagnose(&seen);
    let servers: Vec<Server> = finding(&report, "body-limit").mend.iter().map(|mend| mend.server).collect();
    assert_eq!(servers, [Server::Nginx, Server::Apache, Server::Lighttpd]);
}

#[test]
fn who_does_not_answer_is_told_apart() {
    let first = |outcome| {
        let seen = Seen { first: outcome, rest: None, ..seen(&told()) };
        let report = diagnose(&seen);
        assert_eq!(to_mend(&report), [("answer", Fail)]);
        report
    };
    let text = |report: &Report| report.findings[0].text.clone();
    assert!(text(&first(bare(404, &[]))).contains("CLOAKROOM_DOCTOR_TOKEN"));
    assert!(text(&first(bare(502, &[]))).contains("does not get through"));
    assert!(text(&first(bare(401, &[]))).contains("password"));
    assert!(text(&first(bare(302, &[("Location", "https://b/")]))).contains("https://b/"));
    assert!(text(&first(Outcome::Failed("cut".to_owned()))).contains("cut"));
    let report = first(bare(404, &[("Server", "Apache/2.4")]));
    assert_eq!(report.server, Some(Server::Apache));
    // JSON of somebody else's is no answer.
    first(reply(200, &json!({ "cloakroom": "x" })));
}

/// A token that has gone over a network in the clear is to be replaced.
#[test]
fn a_token_that_others_may_have_read() {
    let plain = |peer: [u8; 4]| {
        let mut seen = seen(&told());
        seen.peer = peer.into();
        let report = report(&Target::parse("http://example.org/").unwrap(), &seen);
        report.findings.iter().any(|finding| finding.check == "token")
    };
    assert!(plain([198, 51, 100, 1]) && !plain([127, 0, 0, 1]));
}
