use std::sync::Arc;

use super::*;
use crate::gateway::{Front, Site, request};
use crate::message::{Body, MetaVariables};

pub(in crate::gateway) fn parts(method: &str, uri: &str, mount: &str, host: &str) -> Arc<RequestParts> {
    let mut meta = MetaVariables::new();
    for (name, value) in [("REQUEST_METHOD", method), ("REQUEST_URI", uri), ("HTTP_HOST", host)] {
        meta.push(name, value);
    }
    let site = Site { script_name: Some(mount.to_owned()), ..Site::default() };
    request(meta, Body::empty(), Front::Http, &site).unwrap().into_parts().0
}

fn resolve(location: &str, uri: &str) -> String {
    String::from_utf8(absolute_location(location.as_bytes(), &parts("GET", uri, "", "h:81"))).unwrap()
}

/// RFC 3986 section 5.4.1, and those of section 5.4.2 that stay on this host.
#[test]
fn resolves_as_the_rfc_says() {
    for (reference, expected) in [
        ("g", "/b/c/g"),
        ("./g", "/b/c/g"),
        ("g/", "/b/c/g/"),
        ("/g", "/g"),
        ("?y", "/b/c/d;p?y"),
        ("g?y", "/b/c/g?y"),
        ("#s", "/b/c/d;p?q#s"),
        ("g#s", "/b/c/g#s"),
        ("g?y#s", "/b/c/g?y#s"),
        (";x", "/b/c/;x"),
        ("g;x", "/b/c/g;x"),
        ("g;x?y#s", "/b/c/g;x?y#s"),
        ("", "/b/c/d;p?q"),
        (".", "/b/c/"),
        ("./", "/b/c/"),
        ("..", "/b/"),
        ("../", "/b/"),
        ("../g", "/b/g"),
        ("../..", "/"),
        ("../../", "/"),
        ("../../g", "/g"),
        ("../../../g", "/g"),
        ("../../../../g", "/g"),
        ("/./g", "/g"),
        ("/../g", "/g"),
        ("g.", "/b/c/g."),
        (".g", "/b/c/.g"),
        ("g..", "/b/c/g.."),
        ("..g", "/b/c/..g"),
        ("./../g", "/b/g"),
        ("./g/.", "/b/c/g/"),
        ("g/./h", "/b/c/g/h"),
        ("g/../h", "/b/c/h"),
        ("g;x=1/./y", "/b/c/g;x=1/y"),
        ("g;x=1/../y", "/b/c/y"),
        ("g?y/./x", "/b/c/g?y/./x"),
        ("g#s/../x", "/b/c/g#s/../x"),
    ] {
        assert_eq!(resolve(reference, "/b/c/d;p?q"), format!("http://h:81{expected}"), "{reference}");
    }
    assert_eq!(resolve("g:h", "/b/c/d;p?q"), "g:h");
    assert_eq!(resolve("//g", "/b/c/d;p?q"), "http://g");
    assert_eq!(resolve("https://other.example/a/../b", "/"), "https://other.example/a/../b");
}

#[test]
fn odd_paths_and_bytes_are_escaped() {
    assert_eq!(resolve("?x", "/a%3Fb%20c%25"), "http://h:81/a%3Fb%20c%25?x");
    assert_eq!(resolve("?x", "/%C3%A9%0A"), "http://h:81/%C3%A9%0A?x");
    assert_eq!(resolve("/é x\u{7f}", "/"), "http://h:81/%C3%A9%20x%7F");
    assert_eq!(resolve("/a%20b", "/"), "http://h:81/a%20b");
    assert_eq!(resolve("a/b:c", "/"), "http://h:81/a/b:c");
    for byte in 0..=255 {
        let absolute = absolute_location(&[b'/', byte], &parts("GET", "/", "", "h"));
        assert!(absolute.iter().all(|b| matches!(b, 0x21..=0x7e)), "{byte:#x}");
    }
}

#[test]
fn the_mount_is_part_of_the_base() {
    let location = |location: &str, uri: &str| {
        String::from_utf8(absolute_location(location.as_bytes(), &parts("GET", uri, "/my app", "h"))).unwrap()
    };
    assert_eq!(location("x", "/my%20app/a/b"), "http://h/my%20app/a/x");
    assert_eq!(location("/x", "/my%20app/a/b"), "http://h/x");
    assert_eq!(location("x", "/my%20app"), "http://h/x");
}
