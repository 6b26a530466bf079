//! Requests of one session that overlap.

use super::*;

/// Plays `inner` (on the same session) while a request is inside its callback, after it has done `before`.
pub(super) fn overlapping(
    site: &Arc<Site>,
    method: &str,
    before: impl Fn(&mut Session) -> Result<()> + Send + Sync + 'static,
    inner: impl Fn(&Site) + Send + Sync + 'static,
    after: impl Fn(&mut Session) -> Result<()> + Send + Sync + 'static,
) -> (Response, u32) {
    let (runs, other) = (Arc::new(AtomicU32::new(0)), site.clone());
    let counter = runs.clone();
    let response = site.request(method, move |_, session| {
        before(session)?;
        if counter.fetch_add(1, Ordering::SeqCst) == 0 {
            inner(&other);
        }
        after(session)?;
        Ok(Response::text("ok"))
    });
    (response, runs.load(Ordering::SeqCst))
}

#[allow(clippy::unnecessary_wraps)]
pub(super) fn nothing(_: &mut Session) -> Result<()> {
    Ok(())
}

pub(super) fn shared() -> Arc<Site> {
    let site = site();
    site.get(count);
    Arc::new(site)
}

#[test]
fn changes_of_different_keys_are_both_kept_without_a_second_run() {
    let site = shared();
    let (response, runs) = overlapping(
        &site,
        "GET",
        |session| Ok(session.insert("mine", 1)?),
        |site| site.get(|session| Ok(session.insert("theirs", 2)?)),
        nothing,
    );
    assert_eq!((response.status(), runs), (StatusCode::OK, 1));
    assert_eq!(site.get(|session| Ok((session.get::<u8>("mine")?, session.get::<u8>("theirs")?))), (Some(1), Some(2)));
}

#[test]
fn a_changed_key_runs_the_callback_once_more_and_loses_nothing() {
    let site = shared();
    let (response, runs) = overlapping(&site, "GET", |s| count(s).map(drop), |site| _ = site.get(count), nothing);
    assert_eq!((response.status(), runs), (StatusCode::OK, 2));
    assert_eq!(site.get(|session| Ok(session.get::<u64>("n")?)), Some(3));
}

#[test]
fn a_key_that_was_only_read_conflicts_as_well_if_something_is_written() {
    let site = shared();
    let read_then_write = |session: &mut Session| {
        let n: Option<u64> = session.get("n")?;
        Ok(session.insert("copy", n)?)
    };
    let (_, runs) = overlapping(&site, "GET", read_then_write, |site| _ = site.get(count), nothing);
    assert_eq!(runs, 2);
    assert_eq!(site.get(|session| Ok(session.get::<u64>("copy")?)), Some(2));
    // A request that writes nothing has nothing to lose.
    let (_, runs) =
        overlapping(&site, "GET", |s| Ok(s.get::<u64>("n").map(drop)?), |site| _ = site.get(count), nothing);
    assert_eq!(runs, 1);
}

#[test]
fn commuting_operations_never_conflict() {
    let site = shared();
    let act = |session: &mut Session| Ok(session.add("n", 10).and_then(|()| session.push("list", 1))?);
    let (_, runs) = overlapping(
        &site,
        "GET",
        act,
        |site| {
            site.get(count);
            site.get(|s| Ok(s.push("list", 2)?));
        },
        nothing,
    );
    assert_eq!(runs, 1);
    assert_eq!(
        site.get(|session| Ok((session.get::<u64>("n")?, session.get::<Vec<u8>>("list")?))),
        (Some(12), Some(vec![2, 1]))
    );
    // Once its value was looked at, it does.
    let look = |session: &mut Session| Ok(session.add("n", 1).and_then(|()| session.get::<u64>("n")).map(drop)?);
    let (_, runs) = overlapping(&site, "GET", look, |site| _ = site.get(count), nothing);
    assert_eq!(runs, 2);
    assert_eq!(site.get(|session| Ok(session.get::<u64>("n")?)), Some(14));
}

#[test]
fn a_logout_in_the_middle_wins() {
    let site = shared();
    let seen: Arc<Mutex<Vec<Option<u64>>>> = Arc::default();
    let log = seen.clone();
    let act = move |session: &mut Session| {
        log.lock().unwrap().push(session.get("n")?);
        Ok(session.insert("mine", 1)?)
    };
    let old = site.id().unwrap();
    let (response, runs) = overlapping(&site, "GET", act, |site| site.get(|s| Ok(s.flush()?)), nothing);
    assert_eq!((response.status(), runs), (StatusCode::OK, 2));
    assert_eq!(*seen.lock().unwrap(), [Some(1), None]);
    assert!(!site.store.exists(&old).unwrap());
    assert_ne!(site.id(), Some(old));
}

#[test]
fn the_same_form_token_is_accepted_from_one_request_only() {
    let site = shared();
    let token = site.get(|session| Ok(session.create_form_token()?));
    let accepted: Arc<Mutex<Vec<bool>>> = Arc::default();
    let (mine, log, theirs, other) = (token.clone(), accepted.clone(), token, accepted.clone());
    let (_, runs) = overlapping(
        &site,
        "GET",
        move |session| {
            log.lock().unwrap().push(session.remove_form_token(&mine)?);
            Ok(())
        },
        move |site| {
            let theirs = theirs.clone();
            let ok = site.get(move |s| Ok(s.remove_form_token(&theirs)?));
            other.lock().unwrap().push(ok);
        },
        nothing,
    );
    assert_eq!(runs, 2);
    assert_eq!(
        *accepted.lock().unwrap(),
        [true, true, false],
        "seen on the snapshot, used by the other, refused at last"
    );
}

#[test]
fn an_exclusive_request_runs_once_and_others_wait_or_give_up() {
    let site = site_with(|host| host.lock_timeout(Duration::from_millis(20)));
    site.get(count);
    let site = Arc::new(site);
    let refused: Arc<Mutex<Option<Response>>> = Arc::default();
    let slot = refused.clone();
    let inner = move |site: &Site| {
        // Another exclusive request must wait, in vain; a reader need not.
        *slot.lock().unwrap() = Some(site.request("POST", |_, session| count(session).map(|_| Response::text("x"))));
        assert_eq!(site.get(|session| Ok(session.get::<u64>("n")?)), Some(1));
    };
    let (response, runs) = overlapping(&site, "POST", |s| count(s).map(drop), inner, nothing);
    assert_eq!((response.status(), runs), (StatusCode::OK, 1));
    let refused = refused.lock().unwrap().take().unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key(RETRY_AFTER));
    assert_eq!(site.get(|session| Ok(session.get::<u64>("n")?)), Some(2));
}

#[test]
fn values_set_after_a_flush_survive_a_logout_in_the_middle() {
    let site = shared();
    let (response, _runs) = overlapping(
        &site,
        "GET",
        |s| Ok(s.id().map(drop)?),
        |site| site.get(|s| Ok(s.flush()?)),
        |s| Ok(s.flush().and_then(|()| s.insert("n", 7))?),
    );
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(site.get(|s| Ok(s.get::<u64>("n")?)), Some(7));
}

#[test]
fn a_value_carried_over_a_flush_is_relied_on() {
    let site = shared();
    let carried: Arc<Mutex<u64>> = Arc::default();
    let (c, d) = (carried.clone(), carried);
    let (response, runs) = overlapping(
        &site,
        "GET",
        move |s| {
            *c.lock().unwrap() = s.get("n")?.unwrap_or(0);
            Ok(())
        },
        |site| _ = site.get(count),
        move |s| {
            let n = *d.lock().unwrap();
            Ok(s.flush().and_then(|()| s.insert("n", n))?)
        },
    );
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!((site.get(|s| Ok(s.get::<u64>("n")?)), runs), (Some(2), 2));
}

#[test]
fn set_access_in_the_callback_is_no_error_in_the_second_run() {
    let site = shared();
    let (response, _) = overlapping(
        &site,
        "GET",
        |s| {
            s.set_access(Access::Optimistic)?;
            count(s).map(drop)
        },
        |site| _ = site.get(count),
        nothing,
    );
    assert_eq!(response.status(), StatusCode::OK);
}

#[test]
fn a_post_that_asks_for_optimistic_runs_again_exclusively() {
    let site = shared();
    let (response, _) = overlapping(
        &site,
        "POST",
        |s| {
            s.set_access(Access::Optimistic)?;
            count(s).map(drop)
        },
        |site| _ = site.get(count),
        nothing,
    );
    assert_eq!(response.status(), StatusCode::OK);
}

#[test]
fn set_access_cannot_make_a_third_run() {
    // each run meets a login that renews the ID (the session vanishes)
    let site = shared();
    let runs = Arc::new(AtomicU32::new(0));
    let (r, other) = (runs.clone(), site.clone());
    let response = site.request("GET", move |_, s| {
        s.set_access(Access::Optimistic)?;
        count(s)?;
        if r.fetch_add(1, Ordering::SeqCst) < 5 {
            other.get(|s| Ok(s.cycle_id()?));
        }
        Ok(Response::text("x"))
    });
    assert_eq!((response.status(), runs.load(Ordering::SeqCst)), (StatusCode::OK, 2));
}

#[test]
fn a_touch_hands_out_no_cookie_of_a_dead_session() {
    let site = site_with(|h| h.cookie(CookiePolicy::default().persistent()).touch_resolution(Duration::ZERO));
    site.get(count);
    let site = Arc::new(site);
    let old = site.id().unwrap();
    let (response, _) = overlapping(
        &site,
        "GET",
        |s| Ok(s.get::<u64>("n").map(drop)?),
        |site| site.post(|s| Ok(s.set_user("ada")?)),
        nothing,
    );
    assert!(!site.store.exists(&old).unwrap());
    let field = response.headers().get(SET_COOKIE).map(|f| f.to_str().unwrap().to_owned());
    assert_eq!(field, None, "hands out the dead ID over the new login");
}
