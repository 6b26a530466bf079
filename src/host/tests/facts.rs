//! What a session tells of itself, and what it keeps to itself.

use std::net::IpAddr;
use std::time::SystemTime;

use super::*;

#[test]
fn a_session_knows_when_and_from_where_it_was_made() {
    let site = site_with(|host| host.touch_resolution(Duration::ZERO));
    let since = SystemTime::now() - Duration::from_secs(1);
    site.get(count);
    let (created, accessed, address) =
        site.get(|session| Ok((session.creation_time()?, session.access_time()?, session.remote_address()?)));
    let now = SystemTime::now();
    assert!(since <= created && created <= accessed && accessed <= now, "{created:?} {accessed:?}");
    let record = site.store.load(&site.id().unwrap()).unwrap().unwrap().record;
    assert_eq!((record.created(), record.remote_address()), (created, address));
    assert_eq!(record.keys().collect::<Vec<_>>(), ["n"]);
    assert_eq!(record.ends(), created.checked_add(Expiry::default().absolute.unwrap()));
    // A later look does not make it younger.
    assert_eq!(site.get(|session| Ok(session.creation_time()?)), created);
}

#[test]
fn the_address_is_that_of_the_request_that_made_it() {
    let address = Arc::new(Mutex::new(Vec::<Option<IpAddr>>::new()));
    let seen = address.clone();
    let host = Host::new(move |_, session| {
        session.insert("n", 1)?;
        seen.lock().unwrap().push(session.remote_address()?);
        Ok(Response::text("x"))
    });
    let host = host.sessions(MemoryStore::new());
    let first = host.respond(Request::test("GET", "/", &[], ""));
    let cookie = first.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    host.respond(Request::test("GET", "/", &[("Cookie", &cookie)], ""));
    let seen = address.lock().unwrap();
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn the_access_mode_is_the_one_that_the_method_or_the_callback_chose() {
    let site = site();
    assert_eq!(site.get(|session| Ok(session.access())), Access::Optimistic);
    assert_eq!(site.post(|session| Ok(session.access())), Access::Exclusive);
    let chosen = site.get(|session| {
        session.set_access(Access::ReadOnly)?;
        Ok(session.access())
    });
    assert_eq!(chosen, Access::ReadOnly);
}

#[test]
fn debug_output_shows_no_secret() {
    let site = site();
    let text = site.get(|session| {
        session.insert("password", "swordfish")?;
        Ok(format!("{session:?}"))
    });
    assert!(text.starts_with("Session") && !text.contains("swordfish") && !text.contains("password"), "{text}");
    let value = crate::session::Encoded::new(&"swordfish").unwrap();
    assert_eq!(format!("{value:?}"), "Encoded(10 bytes)");
    let store = format!("{:?}", site.store);
    assert_eq!(store, "MemoryStore(1 sessions)");
    assert!(!store.contains(&*site.id().unwrap().to_text()));
}

#[test]
fn writing_what_is_there_already_saves_nothing() {
    let site = site();
    site.get(count);
    let version = || site.store.load(&site.id().unwrap()).unwrap().unwrap().version;
    let before = version();
    site.post(|session| Ok(session.insert("n", 1_u64)?));
    site.get(|session| Ok(session.insert("n", 1_u64)?));
    assert_eq!(version(), before);
    site.get(|session| Ok(session.insert("n", 2_u64)?));
    assert_ne!(version(), before);
}

#[test]
fn the_cookie_has_the_name_that_it_was_given() {
    let host = Host::new(|_, session| count(session).map(|n| Response::text(n.to_string())));
    let host = host.sessions(MemoryStore::new()).cookie(CookiePolicy::default().name("sid"));
    let response = host.respond(Request::test("GET", "/", &[], ""));
    let field = response.headers()[SET_COOKIE].to_str().unwrap().to_owned();
    let pair = field.split(';').next().unwrap().to_owned();
    assert!(pair.starts_with("sid="), "{field}");
    let text = |cookie: &str| {
        let response = host.respond(Request::test("GET", "/", &[("Cookie", cookie)], ""));
        String::from_utf8(response.body().as_bytes().unwrap().to_vec()).unwrap()
    };
    assert_eq!(text(&pair), "2");
    assert_eq!(text(&pair.replace("sid=", "session=")), "1");
    assert_eq!(text(&pair.replace("sid=", "SID=")), "1");
}

#[test]
fn a_cookie_name_that_is_no_token_is_refused() {
    for name in ["", "a b", "a=b", "a;b", "ä", "a\r\nb", "a,b"] {
        let made = std::panic::catch_unwind(|| CookiePolicy::default().name(name));
        assert!(made.is_err(), "{name:?}");
    }
}
