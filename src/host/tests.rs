//! What a request does to its session, seen from outside: each test plays requests against a host, one inside another
//! where they are to overlap.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use http::header::{CACHE_CONTROL, RETRY_AFTER, SET_COOKIE, VARY};
use serde::{Deserialize, Serialize};

use super::Host;
use crate::error::{Error, Result};
use crate::message::{Request, Response};
use crate::session::{Access, CookiePolicy, Expiry, Id, Session, Store};
use crate::store::{DirectoryStore, MemoryStore};

mod facts;
mod failure;
mod locks;
mod overlap;
mod unsteady;

type Callback = dyn Fn(Request, &mut Session) -> Result<Response> + Send + Sync;

/// A user agent with one cookie, in front of a host whose application is given anew with each request.
struct Site {
    host: Host,
    next: Arc<Mutex<Option<Arc<Callback>>>>,
    store: MemoryStore,
    cookie: Mutex<Option<String>>,
}

fn site() -> Site {
    site_with(|host| host)
}

fn site_with(configure: impl FnOnce(Host) -> Host) -> Site {
    let next: Arc<Mutex<Option<Arc<Callback>>>> = Arc::default();
    let store = MemoryStore::new();
    let application = next.clone();
    let host = Host::new(move |request, session| {
        let callback = application.lock().unwrap().clone().unwrap();
        callback(request, session)
    });
    Site { host: configure(host.sessions(store.clone())), next, store, cookie: Mutex::default() }
}

impl Site {
    fn request(
        &self,
        method: &str,
        callback: impl Fn(Request, &mut Session) -> Result<Response> + Send + Sync + 'static,
    ) -> Response {
        let before = self.next.lock().unwrap().replace(Arc::new(callback));
        let cookie = self.cookie.lock().unwrap().clone();
        let cookie = cookie.map(|id| format!("session={id}"));
        let headers: Vec<(&str, &str)> = cookie.iter().map(|cookie| ("Cookie", cookie.as_str())).collect();
        let response = self.host.respond(Request::test(method, "/", &headers, ""));
        *self.next.lock().unwrap() = before;
        if let Some(field) = response.headers().get(SET_COOKIE) {
            let value = field.to_str().unwrap().strip_prefix("session=").unwrap().split(';').next().unwrap().to_owned();
            *self.cookie.lock().unwrap() = Some(value).filter(|value| !value.is_empty());
        }
        response
    }

    /// A GET whose session is used as `act` does; it must succeed.
    fn get<T: Send + 'static>(&self, act: impl Fn(&mut Session) -> Result<T> + Send + Sync + 'static) -> T {
        self.ok("GET", act)
    }

    fn post<T: Send + 'static>(&self, act: impl Fn(&mut Session) -> Result<T> + Send + Sync + 'static) -> T {
        self.ok("POST", act)
    }

    fn ok<T: Send + 'static>(
        &self,
        method: &str,
        act: impl Fn(&mut Session) -> Result<T> + Send + Sync + 'static,
    ) -> T {
        let result: Arc<Mutex<Option<T>>> = Arc::default();
        let slot = result.clone();
        let response = self.request(method, move |_, session| {
            *slot.lock().unwrap() = Some(act(session)?);
            Ok(Response::text("ok"))
        });
        assert_eq!(response.status(), StatusCode::OK);
        let result = result.lock().unwrap().take();
        result.unwrap()
    }

    fn id(&self) -> Option<Id> {
        Id::parse(self.cookie.lock().unwrap().as_deref()?)
    }

    fn sessions(&self) -> usize {
        self.store.iter().unwrap().count()
    }
}

fn count(session: &mut Session) -> Result<u64> {
    let n = session.get::<u64>("n")?.unwrap_or(0) + 1;
    session.insert("n", n)?;
    Ok(n)
}

#[test]
fn a_session_is_kept_from_the_first_value_on() {
    let site = site();
    assert_eq!(site.get(|session| Ok(session.id()?)), None);
    assert_eq!((site.id(), site.sessions()), (None, 0));
    assert_eq!(site.get(count), 1);
    let id = site.id().unwrap();
    assert_eq!(site.get(|session| Ok(session.id()?)), Some(id));
    assert_eq!(site.post(count), 2);
    assert_eq!(site.get(count), 3);
    assert_eq!((site.id(), site.sessions()), (Some(id), 1));
}

#[test]
fn values_are_any_serde_type_and_a_wrong_type_is_an_error() {
    #[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
    struct Cart {
        items: Vec<(String, u32)>,
        note: Option<String>,
    }
    let cart = Cart { items: vec![("coat".into(), 1)], note: None };
    let site = site();
    let kept = cart.clone();
    site.get(move |session| Ok(session.insert("cart", &kept)?));
    assert_eq!(site.get(|session| Ok(session.get::<Cart>("cart")?)), Some(cart));
    let response = site.request("GET", |_, session| {
        session.insert("other", 1)?;
        let wrong: Option<u64> = session.get("cart")?;
        Ok(Response::text(format!("{wrong:?}")))
    });
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(site.get(|session| Ok(!session.contains("other")? && session.contains("cart")?)));
}

#[test]
fn error_and_panic_save_nothing_and_tell_nothing() {
    let site = site();
    site.get(count);
    let failing: [fn() -> Result<Response>; 2] = [|| Err(Error::message("secret detail")), || panic!("secret detail")];
    for fail in failing {
        for method in ["GET", "POST"] {
            let response = site.request(method, move |_, session| {
                count(session)?;
                session.flush()?;
                fail()
            });
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            assert!(!response.headers().contains_key(SET_COOKIE));
            assert_eq!(response.body().as_bytes().unwrap(), "Internal Server Error\n");
        }
    }
    assert_eq!(site.get(count), 2);
}

#[test]
fn the_response_says_for_whom_it_is() {
    let site = site();
    let plain = site.request("GET", |_, _| Ok(Response::text("x")));
    assert!(!plain.headers().contains_key(VARY) && !plain.headers().contains_key(CACHE_CONTROL));
    let first = site.request("GET", |_, session| count(session).map(|_| Response::text("x")));
    assert_eq!(
        (&first.headers()[VARY], &first.headers()[CACHE_CONTROL]),
        (&"Cookie".parse().unwrap(), &"no-store".parse().unwrap())
    );
    let field = first.headers()[SET_COOKIE].to_str().unwrap();
    let id = site.id().unwrap().to_text();
    assert_eq!(field, format!("session={}; HttpOnly; SameSite=Lax; Path=/", &*id));
    let later = site.request("GET", |_, session| session.id().map(|_| Response::text("x")).map_err(Error::from));
    assert!(!later.headers().contains_key(SET_COOKIE));
    assert_eq!(
        (&later.headers()[VARY], &later.headers()[CACHE_CONTROL]),
        (&"Cookie".parse().unwrap(), &"no-store".parse().unwrap())
    );
}

#[test]
fn cookie_attributes_follow_policy_and_request() {
    let policy = CookiePolicy::default().strict().always_secure().persistent();
    let expiry = Expiry { idle: Some(Duration::from_secs(600)), absolute: None };
    let site = site_with(|host| host.cookie(policy).expiry(expiry));
    let response = site.request("GET", |_, session| count(session).map(|_| Response::text("x")));
    let field = response.headers()[SET_COOKIE].to_str().unwrap().to_owned();
    assert!(field.ends_with("; HttpOnly; SameSite=Strict; Secure; Path=/; Max-Age=600"), "{field}");
}

#[test]
fn an_unknown_id_is_never_adopted() {
    let site = site();
    let planted = Id::generate().unwrap();
    *site.cookie.lock().unwrap() = Some(planted.to_text().to_string());
    let response = site.request("GET", |_, session| session.id().map(|_| Response::text("x")).map_err(Error::from));
    assert!(
        !response.headers().contains_key(SET_COOKIE),
        "an unknown cookie is left alone: another tab may just log in"
    );
    for method in ["GET", "POST"] {
        *site.cookie.lock().unwrap() = Some(planted.to_text().to_string());
        assert_eq!(site.ok(method, count), 1);
        assert_ne!(site.id(), Some(planted));
    }
}

#[test]
fn of_several_cookies_the_first_that_exists_counts() {
    let site = site();
    site.get(count);
    let id = site.id().unwrap().to_text();
    let unknown = Id::generate().unwrap().to_text();
    for method in ["GET", "POST"] {
        *site.cookie.lock().unwrap() =
            Some(format!("{}; session=*del*; session={}; session={}", &*unknown, &*unknown, &*id));
        assert!(site.ok(method, count) > 1, "{method}");
    }
    assert_eq!(site.sessions(), 1);
}

#[test]
fn login_renews_the_id_and_the_old_one_is_dead() {
    for method in ["GET", "POST"] {
        let site = site();
        site.get(count);
        let old = site.id().unwrap();
        site.ok(method, |session| Ok(session.set_user("ada")?));
        let new = site.id().unwrap();
        assert_ne!(old, new);
        assert!(!site.store.exists(&old).unwrap());
        assert_eq!(site.get(|session| Ok(session.user()?.map(str::to_owned))).as_deref(), Some("ada"));
        assert_eq!(site.get(count), 2);
        site.ok(method, |session| Ok(session.remove_user()?));
        assert!(!site.store.exists(&new).unwrap());
        assert_eq!(site.get(|session| Ok(session.user()?.map(str::to_owned))), None);
        assert_eq!(site.sessions(), 1);
    }
}

#[test]
fn flush_ends_the_session() {
    for method in ["GET", "POST"] {
        let site = site();
        site.get(count);
        let response = site.request(method, |_, session| {
            session.flush()?;
            assert_eq!(session.get::<u64>("n")?, None);
            Ok(Response::text("goodbye"))
        });
        assert!(response.headers()[SET_COOKIE].to_str().unwrap().contains("session=; "));
        assert!(response.headers()[SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
        assert_eq!(site.sessions(), 0);
        assert_eq!(site.get(count), 1);
    }
}

#[test]
fn what_is_set_after_a_flush_starts_a_new_session() {
    let site = site();
    site.get(count);
    let old = site.id();
    assert_eq!(site.get(|session| session.flush().map_err(Error::from).and_then(|()| count(session))), 1);
    assert!(site.id().is_some() && site.id() != old);
    assert_eq!(site.sessions(), 1);
}

#[test]
fn a_session_that_becomes_empty_is_deleted() {
    let site = site();
    site.get(count);
    let response = site.request("POST", |_, session| Ok(session.remove::<u64>("n").map(|_| Response::text("x"))?));
    assert!(response.headers()[SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(site.sessions(), 0);
}

#[test]
fn the_application_may_say_what_is_worth_keeping() {
    let site = site_with(|host| host.has_info(|record| record.user().is_some()));
    site.get(count);
    assert_eq!(site.sessions(), 0);
    assert!(!site.get(|session| Ok(session.has_info()?)));
    site.get(|session| count(session).and_then(|_| Ok(session.set_user("ada")?)));
    assert_eq!(site.get(count), 2);
    assert!(site.get(|session| Ok(session.has_info()?)));
    site.post(|session| Ok(session.remove_user()?));
    assert_eq!(site.sessions(), 0);
}

#[test]
fn clear_removes_values_and_keeps_the_user() {
    let site = site();
    site.get(|session| count(session).and_then(|_| Ok(session.set_user("ada")?)));
    site.get(|session| Ok(session.clear()?));
    assert_eq!(site.get(|session| Ok(session.keys()?)), Vec::<String>::new());
    assert_eq!(site.get(|session| Ok(session.user()?.map(str::to_owned))).as_deref(), Some("ada"));
}

#[test]
fn a_flash_value_is_gone_after_it_was_read() {
    let site = site();
    site.get(|session| Ok(session.flash("note", "saved")?));
    site.get(count);
    assert_eq!(site.get(|session| Ok(session.take_flash::<String>("note")?)).as_deref(), Some("saved"));
    assert_eq!(site.get(|session| Ok(session.take_flash::<String>("note")?)), None);
}

#[test]
fn a_form_token_works_once() {
    let site = site();
    let token = site.get(|session| Ok(session.create_form_token()?));
    let given = token.clone();
    assert!(site.get(move |session| Ok(session.has_form_token(&given)? && session.form_token_count()? == 1)));
    let given = token.clone();
    assert!(site.post(move |session| count(session).and_then(|_| Ok(session.remove_form_token(&given)?))));
    assert!(!site.post(move |session| Ok(session.remove_form_token(&token)?)));
}

#[test]
fn numbers_and_lists_grow_without_a_look() {
    let site = site();
    for n in 1..=3_u64 {
        site.get(move |session| Ok(session.add("n", 2).and_then(|()| session.push("seen", n))?));
    }
    assert_eq!(
        site.get(|session| Ok((session.get::<i64>("n")?, session.get::<Vec<u64>>("seen")?))),
        (Some(6), Some(vec![1, 2, 3]))
    );
    let response = site.request("GET", |_, session| Ok(session.add("seen", 1).map(|()| Response::text("x"))?));
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(site.sessions(), 1);
}

#[test]
fn access_modes_forbid_what_they_say() {
    let access = |request: &Request| match request.query_value("access").as_deref() {
        Some("none") => Access::None,
        Some("read") => Access::ReadOnly,
        _ => Access::Optimistic,
    };
    let host = Host::new(|request, session| {
        match request.path() {
            "/read" => session.get::<u64>("n").map(drop)?,
            "/late" => {
                session.id()?;
                session.set_access(Access::Exclusive)?;
            }
            "/body" => session.set_access(Access::Optimistic)?,
            _ => session.insert("n", 1)?,
        }
        Ok(Response::text("ok"))
    });
    let host = host.sessions(MemoryStore::new());
    let status = |host: &Host, method, target, body: &'static str| {
        host.respond(Request::test(method, target, &[], body)).status().as_u16()
    };
    assert_eq!(status(&host, "GET", "/late", ""), 500);
    assert_eq!(status(&host, "POST", "/body", "x"), 500);
    assert_eq!(status(&host, "POST", "/body", ""), 200);
    let host = host.access(access);
    assert_eq!(status(&host, "GET", "/read?access=none", ""), 500);
    assert_eq!(status(&host, "GET", "/read?access=read", ""), 200);
    assert_eq!(status(&host, "GET", "/write?access=read", ""), 500);
    assert_eq!(status(&host, "GET", "/write", ""), 200);
    let bare = Host::new(|_, session| session.id().map(|_| Response::text("x")).map_err(Error::from));
    assert_eq!(status(&bare, "GET", "/", ""), 500);
}

#[test]
fn an_optimistic_request_with_a_body_reads_it_twice() {
    let site = site_with(|host| host.access(|_| Access::Optimistic));
    site.get(count);
    let site = Arc::new(site);
    let (seen, inner, runs): (Arc<Mutex<Vec<String>>>, _, _) = (Arc::default(), site.clone(), AtomicU32::new(0));
    let log = seen.clone();
    *site.next.lock().unwrap() = Some(Arc::new(move |mut request: Request, session: &mut Session| {
        count(session)?;
        let form = request.form()?;
        log.lock().unwrap().push(form.value("a").unwrap_or_default().to_owned());
        if runs.fetch_add(1, Ordering::SeqCst) == 0 {
            inner.get(count);
        }
        Ok(Response::text("ok"))
    }));
    let cookie = format!("session={}", &*site.id().unwrap().to_text());
    let headers = [("Cookie", cookie.as_str()), ("Content-Type", "application/x-www-form-urlencoded")];
    let response = site.host.respond(Request::test("POST", "/", &headers, "a=b"));
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(*seen.lock().unwrap(), ["b", "b"]);
    assert_eq!(site.get(|session| Ok(session.get::<u64>("n")?)), Some(3));
}

#[test]
fn a_session_that_is_over_is_no_session() {
    let expiry = Expiry { idle: None, absolute: Some(Duration::ZERO) };
    let site = site();
    site.get(move |session| count(session).and_then(|_| Ok(session.set_expiry(expiry)?)));
    assert!(site.id().is_some());
    assert_eq!(site.get(count), 1);
}

#[test]
fn reading_renews_the_time_of_last_access_once_per_resolution() {
    let never = Expiry::NEVER;
    let site = site_with(|host| host.expiry(never).touch_resolution(Duration::ZERO));
    site.get(count);
    let id = site.id().unwrap();
    let accessed = |site: &Site| site.store.load(&id).unwrap().unwrap().record.accessed();
    let first = accessed(&site);
    while accessed(&site) == first {
        site.get(|session| Ok(session.id().map(drop)?));
    }
    let lazy = site_with(|host| host.expiry(never));
    lazy.get(count);
    let id = lazy.id().unwrap();
    let before = lazy.store.load(&id).unwrap().unwrap().record.accessed;
    for _ in 0..1000 {
        lazy.get(|session| Ok(session.id().map(drop)?));
    }
    assert_eq!(lazy.store.load(&id).unwrap().unwrap().record.accessed, before);
}

#[test]
fn a_failed_save_is_a_500_and_hands_out_no_cookie() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("sessions");
    let host = Host::new(|_, session| {
        session.insert("pad", "x".repeat(16 << 20))?;
        Ok(Response::text("saved"))
    });
    let host = host.sessions(DirectoryStore::at(&path));
    let response = host.respond(Request::test("GET", "/", &[], ""));
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!response.headers().contains_key(SET_COOKIE));
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
}

#[test]
fn a_store_that_cannot_be_opened_is_a_503_and_never_an_empty_session() {
    let temporary = tempfile::tempdir().unwrap();
    std::fs::write(temporary.path().join("file"), "").unwrap();
    let host = Host::new(|_, session| session.id().map(|_| Response::text("x")).map_err(Error::from));
    let host = host.sessions(DirectoryStore::at(temporary.path().join("file")));
    let cookie = format!("session={}", &*Id::generate().unwrap().to_text());
    for method in ["GET", "POST"] {
        let response = host.respond(Request::test(method, "/", &[("Cookie", &cookie)], ""));
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[test]
fn a_client_that_never_returns_the_cookie_costs_one_session_per_request_at_most() {
    let site = site();
    for _ in 0..10 {
        *site.cookie.lock().unwrap() = None;
        site.get(|session| count(session).and_then(|_| Ok(session.set_user("ada")?)));
    }
    assert_eq!(site.sessions(), 10);
    for _ in 0..100 {
        *site.cookie.lock().unwrap() = None;
        site.get(|session| Ok(session.get::<u64>("n").map(drop)?));
    }
    assert_eq!(site.sessions(), 10);
}
