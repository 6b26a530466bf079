//! The scripts that came with Session3's test application, by the names they had there.

use super::support::visitor::Site;
use super::{kept, logged_in};

pub(super) fn session3_increment(site: &Site) {
    let mut visitor = kept(site);
    visitor.get("/").shows(200, "Counter is at 0");
    for n in 1..=3 {
        let answer = visitor.get("/increment");
        assert_eq!((answer.status, answer.header("Location")), (303, Some("http://localhost/")));
        visitor.get("/").shows(200, &format!("Counter is at {n}"));
    }
    // Somebody else has another counter.
    site.visitor().get("/").shows(200, "Counter is at 0");
}

pub(super) fn session3_increment_and_fail(site: &Site) {
    let mut visitor = kept(site);
    visitor.get("/increment");
    let answer = visitor.get("/incrementfail");
    assert_eq!((answer.status, answer.text().as_str()), (500, "Internal Server Error\n"));
    assert_eq!(answer.header("Set-Cookie"), None);
    visitor.get("/").shows(200, "Counter is at 1");
    assert_eq!(site.visitor().get("/incrementfail").header("Set-Cookie"), None);
}

pub(super) fn session3_logout(site: &Site) {
    let mut visitor = logged_in(site, "ada");
    visitor.get("/keep");
    visitor.get("/increment");
    let before = visitor.clone();
    let answer = visitor.get("/logout");
    answer.shows(200, "Goodbye, ada");
    assert_eq!(answer.header("Set-Cookie"), Some("session=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0"));
    assert_eq!(site.stored(), 0);
    for mut visitor in [visitor, before] {
        let page = visitor.get("/");
        page.shows(200, "Not logged in");
        page.shows(200, "Your session ID is None");
        page.shows(200, "Counter is at 0");
    }
}

pub(super) fn session3_logout_and_fail(site: &Site) {
    let mut visitor = logged_in(site, "ada");
    visitor.get("/increment");
    let answer = visitor.get("/logoutfail");
    assert_eq!((answer.status, answer.header("Set-Cookie")), (500, None));
    let page = visitor.get("/");
    page.shows(200, "Hello, ada");
    page.shows(200, "Counter is at 1");
    page.shows(200, &format!("Your session ID is {}", visitor.cookie.unwrap()));
}

pub(super) fn session3_logout_without_keep(site: &Site) {
    let mut visitor = site.visitor();
    visitor.get("/increment");
    let answer = visitor.get("/logout");
    answer.shows(200, "Goodbye");
    visitor.get("/").shows(200, "Your session ID is None");
    assert_eq!(site.stored(), 0);
}

pub(super) fn session3_session_id(site: &Site) {
    let mut visitor = site.visitor();
    visitor.get("/").shows(200, "Your session ID is None");
    visitor.get("/keep");
    let id = visitor.get("/").between("Your session ID is ", "<");
    visitor.get("/increment");
    visitor.get("/keep");
    visitor.get("/").shows(200, &format!("Your session ID is {id}"));
    assert_ne!(kept(site).get("/").between("Your session ID is ", "<"), id);
    // An ID that was not given out is not taken over (session fixation).
    let foreign = "0123456789abcdef0123456789abcdef";
    let mut visitor = site.visitor();
    visitor.cookie = Some(foreign.to_owned());
    visitor.get("/").shows(200, "Your session ID is None");
    visitor.get("/keep");
    assert_ne!(visitor.cookie.as_deref(), Some(foreign));
}
