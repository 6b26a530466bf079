//! The demo as CGI script: one process for each request.

use std::thread;
use std::time::Duration;

use crate::site::{self, Site, Tally, VISITORS};
use crate::support::visit::Visitor;
use crate::turn;

/// Of each of the visitors, and a process for each request.
const EACH: u64 = 2000;

#[test]
fn get_on_one_session_is_all_counted() {
    let _turn = turn();
    site::count_all(&Site::cgi(), 1, EACH, |_| "GET");
}

#[test]
fn post_on_one_session_is_all_counted() {
    let _turn = turn();
    site::count_all(&Site::cgi(), 1, EACH, |_| "POST");
}

#[test]
fn get_and_post_on_many_sessions_are_all_counted() {
    let _turn = turn();
    site::count_all(&Site::cgi(), 16, EACH, |i| if i.is_multiple_of(2) { "GET" } else { "POST" });
}

#[test]
fn different_keys_do_not_wait() {
    let _turn = turn();
    site::different_keys_do_not_wait(&Site::cgi());
}

#[test]
fn the_same_key_is_counted() {
    let _turn = turn();
    site::the_same_key_is_counted(&Site::cgi());
}

#[test]
fn posts_run_one_by_one() {
    let _turn = turn();
    site::posts_run_one_by_one(&Site::cgi());
}

#[test]
fn a_login_leaves_one_valid_id() {
    let _turn = turn();
    site::a_login_leaves_one_valid_id(&Site::cgi(), 6, 4);
}

#[test]
fn a_logout_is_never_undone() {
    let _turn = turn();
    site::a_logout_is_never_undone(&Site::cgi(), 6, 4);
}

#[test]
fn no_acknowledged_count_is_lost_when_scripts_are_killed() {
    let _turn = turn();
    let site = Site::cgi();
    let cookie = site.visitor().cookie.expect("a cookie");
    let visit = |visitor: u64| {
        let (cookie, mut tally) = (Visitor::with(&site.door, &cookie), Tally::default());
        for i in 0..150 {
            let method = if i % 2 == 0 { "GET" } else { "POST" };
            let mut script = cookie.start_script(method, "/counter", "").expect("start a script");
            if i % 3 != 0 {
                // Not to wait for anything, but to hit it at work, at ever different places.
                thread::sleep(Duration::from_micros((visitor * 131 + i * 7919) % 12_000));
                script.0.kill().expect("kill a script");
            }
            tally.note(script.answer());
        }
        tally
    };
    let mut all = Tally::default();
    thread::scope(|scope| {
        let visit = &visit;
        let threads: Vec<_> = (0..VISITORS).map(|i| scope.spawn(move || visit(i))).collect();
        for thread in threads {
            all.add(thread.join().expect("a visitor failed"));
        }
    });
    all.check(site.counter(&cookie));
    assert!(all.acknowledged() >= 50 * VISITORS as usize, "only {} answers", all.acknowledged());
    site.assert_lock_is_free(&cookie);
    assert_eq!(site.files().len(), 1, "{:?}", site.files());
}
