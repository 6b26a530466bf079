//! What an application says, as it leaves.

use super::app::{self, FRONTS, PARTS, get, to_hex};
use super::support::visitor::Front;

/// A response on the wire.
pub struct Wire {
    pub lines: Vec<Vec<u8>>,
    pub body: Vec<u8>,
}

impl Wire {
    #[track_caller]
    pub fn of(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| {
            panic!("no head: {}", bytes.escape_ascii());
        });
        let head = &bytes[..end];
        let mut lines = vec![Vec::new()];
        let mut rest = head;
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            if *byte == b'\r' && rest.first() == Some(&b'\n') {
                rest = &rest[1..];
                lines.push(Vec::new());
            } else {
                lines.last_mut().expect("the first").push(*byte);
            }
        }
        Self { lines, body: bytes[end + 4..].to_vec() }
    }

    pub fn status(&self) -> u16 {
        let line = String::from_utf8_lossy(&self.lines[0]).into_owned();
        let code = line.strip_prefix("HTTP/1.1 ").or(line.strip_prefix("Status: ")).expect("a status");
        code[..3].parse().expect("a number")
    }

    /// The values of all fields of this name.
    pub fn all(&self, name: &str) -> Vec<String> {
        let fields = self.lines.iter().map(|line| String::from_utf8_lossy(line).into_owned());
        fields
            .filter_map(|line| {
                let (field, value) = line.split_once(':')?;
                field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
            .collect()
    }
}

/// Every byte in every part of a response head that an application makes: it is an error, and nothing of it is sent, or it
/// stays where it belongs.
#[test]
fn cve_2012_5526_cve_2010_2761_cve_2010_4411_cve_2020_7695_no_byte_ends_a_field() {
    for front in FRONTS {
        let site = app::site(front);
        let (mut sent, mut refused) = (0, 0);
        for byte in 0..=255_u8 {
            // What writes the head is the same as over SCGI, and a process for each takes its time.
            let is_harmless = byte.is_ascii_alphanumeric() || byte > 0x80 && byte < 0xff;
            if front == Front::Cgi && is_harmless {
                continue;
            }
            for part in PARTS {
                let bytes = match part {
                    "name" => [b"x-a", &[byte][..], b"b"].concat(),
                    "cookie-name" | "cookie-domain" => [b"a", &[byte][..], b"evil"].concat(),
                    _ => [b"a", &[byte][..], b"Evil: 1"].concat(),
                };
                let what = format!("{front:?}: {byte:#04x} in {part}");
                let raw = get(&site, &format!("/part?at={part}&bytes={}", to_hex(&bytes)), &[]);
                let wire = Wire::of(&raw);
                for line in &wire.lines {
                    let is_clean = !line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
                    assert!(is_clean, "{what}: {}", line.escape_ascii());
                    assert!(!line.starts_with(b"Evil"), "{what}: {}", raw.escape_ascii());
                }
                // One cookie, with the attributes that it was given.
                let cookies = wire.all("Set-Cookie");
                let attributes = usize::from(matches!(part, "cookie-path" | "cookie-domain"));
                let is_one = cookies.iter().all(|cookie| cookie.matches(';').count() == attributes);
                assert!(cookies.len() <= 1 && is_one, "{what}: {cookies:?}");
                if matches!(wire.status(), 200 | 303) {
                    sent += 1;
                    let body = if part == "location" { &b"See Other\n"[..] } else { b"ok" };
                    assert_eq!(wire.body, body, "{what}");
                    assert!(!matches!(byte, b'\r' | b'\n' | 0), "{what} was sent");
                } else {
                    refused += 1;
                    assert_eq!((wire.status(), &wire.body[..]), (500, &b"Internal Server Error\n"[..]), "{what}");
                    assert!(cookies.is_empty() && wire.all("X-Text").is_empty(), "{what}: {}", raw.escape_ascii());
                }
            }
        }
        eprintln!("{front:?}: {sent} heads sent, {refused} refused, 0 bytes CR, LF or NUL within a field");
        assert!(sent > 100 && refused > 100);
    }
}

/// Front servers that took the program's word for where a response ends, or cut a head that was too long for them.
#[test]
fn cve_2024_24795_cve_2023_38709_cve_2023_27522_cve_2022_37436_a_response_is_framed_once() {
    for front in FRONTS {
        let site = app::site(front);
        for case in ["length", "lengths", "no-length", "chunked", "status", "trailer", "upgrade", "types", "large"] {
            let raw = get(&site, &format!("/framing?case={case}"), &[]);
            let wire = Wire::of(&raw);
            assert_eq!((wire.status(), &wire.body[..]), (200, &b"hello"[..]), "{front:?}: {case}");
            assert_eq!(wire.all("Content-Length"), ["5"], "{front:?}: {case}");
            for name in ["Transfer-Encoding", "Trailer", "Upgrade"] {
                assert_eq!(wire.all(name), [""; 0], "{front:?}: {case}");
            }
            // HTTP says it in its first line.
            assert_eq!(wire.all("Status").len(), usize::from(front != Front::Http), "{front:?}: {case}");
            let connection = wire.all("Connection");
            assert!(connection.is_empty() || connection == ["close"], "{front:?}: {case}: {connection:?}");
        }
    }
}

/// What was made for one visitor is nobody else's, and an ID is in no cache, whatever the application says.
#[test]
fn cve_2023_30861_a_response_made_for_a_session_is_in_no_cache() {
    for front in FRONTS {
        let site = app::site(front);
        let first = Wire::of(&get(&site, "/public", &[]));
        let cookie = first.all("Set-Cookie").pop().expect("a cookie");
        assert_eq!((first.all("Cache-Control"), first.all("Vary")), (vec!["no-store".into()], vec!["Cookie".into()]));
        let cookie = cookie.split(';').next().expect("a pair").to_owned();
        // No ID in it: then the application may say what it likes, but for whom it is stays said.
        let second = Wire::of(&get(&site, "/public", &[("Cookie", cookie.as_bytes())]));
        assert_eq!(second.all("Set-Cookie"), [""; 0]);
        let control = vec!["public, max-age=3600".to_owned()];
        assert_eq!((second.all("Cache-Control"), second.all("Vary")), (control, vec!["Cookie".into()]));

        let demo = super::support::visitor::Site::new(front);
        let mut visitor = demo.visitor();
        visitor.get("/keep");
        for (target, uses) in [("/read", true), ("/", true), ("/counter", true), ("/hello", false)] {
            let answer = visitor.get(target);
            let expected = if uses { (Some("Cookie"), Some("no-store")) } else { (None, None) };
            assert_eq!((answer.header("Vary"), answer.header("Cache-Control")), expected, "{front:?}: {target}");
        }
    }
}
