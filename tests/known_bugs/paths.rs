//! IDs that are paths, or none at all.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use cloakroom::DirectoryStore;
use cloakroom::session::{Id, Store as _};

use super::app::FRONTS;
use super::session::{number, record};
use super::support::visitor::{Front, Message, Site};

/// All that is in and below a directory, with what is in it.
fn all(directory: &Path) -> BTreeSet<(String, Vec<u8>)> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).expect("list") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.insert((path.display().to_string(), Vec::new()));
            found.extend(all(&path));
        } else {
            found.insert((path.display().to_string(), fs::read(&path).expect("read")));
        }
    }
    found
}

/// A session directory, and beside it another with a session that is good in every way but for where it is.
struct Ground {
    site: Site,
    outside: Id,
    inside: Id,
    store: DirectoryStore,
}

impl Ground {
    fn new(front: Front) -> Self {
        let site = Site::new(front);
        let other = site.dir().join("outside");
        let store = DirectoryStore::at(&other);
        let outside = Id::generate().expect("an ID");
        store.create(&outside, &record(&outside, 666, 100)).expect("create");
        let inside = Id::generate().expect("an ID");
        let sessions = DirectoryStore::at(site.dir().join("sessions"));
        sessions.create(&inside, &record(&inside, 777, 100)).expect("create");
        fs::set_permissions(site.dir().path(), fs::Permissions::from_mode(0o700)).expect("chmod");
        Self { site, outside, inside, store }
    }

    /// Cookies that would lead to it, or to something else outside, were they taken for paths.
    fn cookies(&self) -> Vec<Vec<u8>> {
        let id = self.outside.to_text().to_string();
        let root = self.site.dir().path().display().to_string();
        // Some ways to somebody's session lead round about.
        let inside = self.inside.to_text().to_string();
        let mut cookies: Vec<Vec<u8>> = [
            format!("../outside/{id}"),
            format!("./../outside/{id}"),
            format!("{root}/outside/{id}"),
            format!("//{root}/outside/{id}"),
            format!("..%2foutside%2f{id}"),
            format!("%2e%2e/outside/{id}"),
            format!("..\\outside\\{id}"),
            format!("....//outside/{id}"),
            format!("..;/outside/{id}"),
            format!("{id}/../../outside/{id}"),
            format!("../sessions/../outside/{id}"),
            format!("../outside/{id}%00"),
            format!("../outside/{id}\t"),
            format!("\u{ff0e}\u{ff0e}\u{2215}outside\u{2215}{id}"),
            "../../../../../../../../etc/passwd".to_owned(),
            "/etc/passwd".to_owned(),
            "/proc/self/environ".to_owned(),
            format!("./{inside}"),
            format!("../sessions/{inside}"),
            format!("{inside}/"),
            format!("{inside}%00.txt"),
            inside.to_uppercase(),
            format!("{root}/sessions/{inside}"),
            "..".to_owned(),
            ".".to_owned(),
            "/".to_owned(),
            "*del*".to_owned(),
            "sweep-position".to_owned(),
            format!("damaged-{id}-1"),
            "a".repeat(5000),
            format!("{}{id}", "../outside/../".repeat(100)),
        ]
        .map(String::into_bytes)
        .into();
        cookies.push([b"\xe9\xc0\xaf../outside/", id.as_bytes()].concat());
        cookies
    }

    fn ask(&self, method: &str, target: &str, cookie: &[u8]) -> Option<(u16, Option<String>, String)> {
        let headers = vec![("Cookie", [b"session=", cookie].concat())];
        let message = Message { method, target, headers, body: Vec::new() };
        let answer = self.site.visitor().send(message)?;
        Some((answer.status, answer.header("Set-Cookie").map(str::to_owned), answer.text()))
    }
}

#[test]
fn cve_2008_0252_cve_2006_1128_cve_2011_0698_an_id_is_no_path() {
    for front in FRONTS {
        let ground = Ground::new(front);
        let before = all(ground.site.dir().path());
        for cookie in ground.cookies() {
            let what = format!("{front:?}: {}", cookie.escape_ascii());
            let (status, set_cookie, text) = ground.ask("GET", "/check", &cookie).expect("an answer");
            assert_eq!((status, set_cookie), (200, None), "{what}");
            assert!(text.contains("session_id: None\n") && text.contains("counter: 0\n"), "{what}: {text}");
            // Session3 deleted what such a cookie named.
            let (status, ..) = ground.ask("GET", "/logout", &cookie).expect("an answer");
            assert_eq!(status, 200, "{what}");
        }
        assert_eq!(all(ground.site.dir().path()), before, "{front:?}");
        let stored = ground.store.load(&ground.outside).expect("load").expect("still there");
        assert_eq!(number(&ground.outside, &stored.record), Some(666));
    }
}

/// A file made under a name that the client has chosen was the first step to running what is in it.
#[test]
fn gorilla_sessions_275_go_2024_2730_cve_2024_3400_an_unknown_id_makes_no_file() {
    for front in FRONTS {
        let ground = Ground::new(front);
        let before = all(ground.site.dir().path());
        let unknown = Id::generate().expect("an ID").to_text().to_string();
        let cookies: Vec<Vec<u8>> = ground.cookies().into_iter().chain([unknown.clone().into_bytes()]).collect();
        for cookie in &cookies {
            for (method, target) in [("POST", "/counter"), ("GET", "/increment"), ("GET", "/login"), ("GET", "/logout")]
            {
                let (status, ..) = ground.ask(method, target, cookie).expect("an answer");
                assert!(status < 400, "{front:?}: {target}: {}", cookie.escape_ascii());
            }
        }
        assert_eq!(all(ground.site.dir().path()), before, "{front:?}");
        // Where something is to be kept it is, under a name that nobody has chosen.
        let mut names = BTreeSet::new();
        for cookie in &cookies {
            let (_, set_cookie, _) = ground.ask("GET", "/keep", cookie).expect("an answer");
            let set_cookie = set_cookie.expect("a cookie");
            let id = set_cookie.strip_prefix("session=").expect("ours").split(';').next().expect("an ID").to_owned();
            assert!(Id::parse(&id).is_some() && id != unknown, "{front:?}: {set_cookie}");
            names.insert(ground.site.dir().join("sessions").join(id).display().to_string());
        }
        let after = all(ground.site.dir().path());
        let new: BTreeSet<String> = after.difference(&before).map(|(name, _)| name.clone()).collect();
        assert_eq!(new, names, "{front:?}");
    }
}

/// Requests without a session, with an unknown one or with nonsense, logouts above all, filled the stores of others.
/// A million of them: `tests/disk`.
#[test]
fn cve_2015_5143_cve_2015_5963_cve_2015_5964_cherrypy_874_requests_leave_no_session() {
    for front in FRONTS {
        let site = Site::new(front);
        for round in 0..if front == Front::Cgi { 6 } else { 60 } {
            for target in ["/", "/login", "/logout", "/counter", "/increment", "/check", "/create_token", "/hello"] {
                let mut visitor = site.visitor();
                visitor.cookie = match round % 3 {
                    0 => None,
                    1 => Some(Id::generate().expect("an ID").to_text().to_string()),
                    _ => Some(format!("../{round}")),
                };
                let answer = visitor.get(target);
                assert!(answer.status < 400, "{front:?}: {target}: {}", answer.status);
                let given = answer.header("Set-Cookie").is_some_and(|cookie| !cookie.starts_with("session=;"));
                assert!(!given, "{front:?}: {target} handed out a session");
            }
        }
        assert_eq!(site.stored(), 0, "{front:?}");
    }
}
