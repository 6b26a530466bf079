//! Requests that fail, and what ran out.

use super::overlap::{overlapping, shared};
use super::*;

#[test]
fn a_persistent_cookie_without_timeouts_is_persistent() {
    let site = site_with(|h| h.cookie(CookiePolicy::default().persistent()).expiry(Expiry::NEVER));
    let response = site.request("GET", |_, s| count(s).map(|_| Response::text("x")));
    let field = response.headers()[SET_COOKIE].to_str().unwrap().to_owned();
    assert!(field.contains("Max-Age="), "{field}");
}

#[test]
fn a_login_keeps_the_timeouts_that_the_session_was_given() {
    let site = site();
    site.post(|s| {
        s.set_expiry(Expiry { idle: None, absolute: Some(Duration::from_secs(30 * 86400)) })?;
        Ok(s.set_user("ada")?)
    });
    let record = site.store.load(&site.id().unwrap()).unwrap().unwrap().record;
    assert_eq!(record.idle_timeout(), None);
}

#[test]
fn a_failed_response_is_not_for_caches() {
    let site = shared();
    let response = site.request("GET", |_, s| {
        s.get::<u64>("n")?;
        Err(Error::new(StatusCode::NOT_FOUND, "not for you"))
    });
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert!(response.headers().contains_key(CACHE_CONTROL) || response.headers().contains_key(VARY));
}

#[test]
fn a_panic_in_has_info_is_a_500() {
    let site = site_with(|h| h.has_info(|r| r.get::<u64>("n").unwrap().unwrap() > 0));
    let response = site.request("GET", |_, s| Ok(s.insert("n", "text").map(|()| Response::text("x"))?));
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[test]
fn a_panic_in_the_access_rule_is_a_500() {
    let site = site_with(|h| h.access(|_| panic!("rule")));
    let response = site.request("GET", |_, _| Ok(Response::text("x")));
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

/// A site whose sessions are in a directory; the store, and what keeps it.
fn site_on_disk(expiry: Expiry) -> (Arc<Site>, DirectoryStore, tempfile::TempDir) {
    let temporary = tempfile::tempdir().unwrap();
    let store = DirectoryStore::at(temporary.path().join("sessions"));
    let sessions = store.clone();
    let site = site_with(|host| host.sessions(sessions).expiry(expiry).touch_resolution(Duration::ZERO));
    (Arc::new(site), store, temporary)
}

#[test]
fn a_flush_that_fails_leaves_the_session_untouched() {
    let (site, store, _keep) = site_on_disk(Expiry::NEVER);
    site.get(count);
    let id = site.id().unwrap();
    let response = site.request("POST", |_, session| {
        session.flush()?;
        session.insert("too large for the store", "x".repeat(16 << 20))?;
        Ok(Response::text("x"))
    });
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(store.exists(&id).unwrap(), "500, and yet the session is gone");
}

/// Whoever logs out of a session that has just run out is told that there is none, and that must stay true.
#[test]
fn a_logout_of_a_session_that_ran_out_is_not_undone_by_a_touch() {
    let (site, store, keep) = site_on_disk(Expiry { idle: Some(Duration::from_secs(100)), absolute: None });
    site.post(|session| Ok(session.set_user("ada")?));
    let id = site.id().unwrap();
    let file = keep.path().join("sessions").join(&*id.to_text());
    let past = std::time::SystemTime::now() - Duration::from_secs(99);
    std::fs::File::open(&file).unwrap().set_modified(past).unwrap();
    overlapping(
        &site,
        "GET",
        |session| Ok(session.user().map(drop)?),
        move |site| {
            let past = std::time::SystemTime::now() - Duration::from_secs(101);
            std::fs::File::open(&file).unwrap().set_modified(past).unwrap();
            site.post(|session| Ok(session.flush()?));
        },
        |_| {
            // The reader's own clock must have passed the end as well.
            std::thread::sleep(Duration::from_millis(1100));
            Ok(())
        },
    );
    assert!(!store.exists(&id).unwrap(), "logged in again after the logout");
}

#[test]
fn a_store_failure_that_the_page_hides_is_not_for_shared_caches() {
    let temporary = tempfile::tempdir().unwrap();
    std::fs::write(temporary.path().join("file"), "").unwrap();
    let host = Host::new(|_, session| Ok(Response::text(format!("{:?}", session.get::<u64>("n").is_ok()))));
    let host = host.sessions(DirectoryStore::at(temporary.path().join("file")));
    let cookie = format!("session={}", &*Id::generate().unwrap().to_text());
    let response = host.respond(Request::test("GET", "/", &[("Cookie", &cookie)], ""));
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.headers().contains_key(VARY));
}

/// The cookie of a mount is sent to what is below it, which its bare name is not (RFC 6265 section 5.1.4).
#[test]
fn the_bare_mount_leads_to_its_slash() {
    let request = |method: &str, query: &str| {
        let mut meta = crate::message::MetaVariables::new();
        for (name, value) in [
            ("REQUEST_METHOD", method),
            ("SCRIPT_NAME", "/cgi-bin/a counter.cgi"),
            ("QUERY_STRING", query),
            ("SERVER_NAME", "example.org"),
            ("SERVER_PORT", "80"),
        ] {
            meta.push(name, value);
        }
        let site = crate::gateway::Site::default();
        crate::gateway::request(meta, crate::message::Body::empty(), crate::gateway::Front::Cgi, &site).unwrap()
    };
    let host = Host::new(|_, _| Ok(Response::text("the application")));
    for (method, query, expected) in [
        ("GET", "", Some("/cgi-bin/a%20counter.cgi/")),
        ("HEAD", "a=b&c", Some("/cgi-bin/a%20counter.cgi/?a=b&c")),
        ("POST", "", None),
    ] {
        let response = host.respond(request(method, query));
        let location = response.headers().get(http::header::LOCATION).map(|value| value.to_str().unwrap());
        assert_eq!(location, expected, "{method}");
    }
}
