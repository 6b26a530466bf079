use super::*;

fn meta(pairs: &[(&str, &str)]) -> MetaVariables {
    let mut meta = MetaVariables::new();
    if !pairs.iter().any(|(name, _)| *name == "REQUEST_METHOD") {
        meta.push("REQUEST_METHOD", "GET");
    }
    for (name, value) in pairs {
        meta.push(name, value);
    }
    meta
}

fn make(pairs: &[(&str, &str)], front: Front, mount: Option<&str>) -> Result<Request, GatewayError> {
    let site = Site { script_name: mount.map(str::to_owned), ..Site::default() };
    request(meta(pairs), Body::empty(), front, &site)
}

fn names(pairs: &[(&str, &str)], front: Front, mount: Option<&str>) -> Result<(String, Vec<u8>), u16> {
    let request = make(pairs, front, mount).map_err(|error| error.status().as_u16())?;
    Ok((request.script_name().to_owned(), request.path_info().to_vec()))
}

fn uri(uri: &str, mount: &str) -> Result<(String, String), u16> {
    let split = names(&[("REQUEST_URI", uri)], Front::Scgi, Some(mount))?;
    assert_eq!(names(&[("REQUEST_URI", uri)], Front::Http, Some(mount)), Ok(split.clone()));
    Ok((split.0, String::from_utf8(split.1).unwrap()))
}

#[expect(clippy::unnecessary_wraps, reason = "it is compared with results")]
fn ok(script_name: &str, path_info: &str) -> Result<(String, String), u16> {
    Ok((script_name.to_owned(), path_info.to_owned()))
}

#[test]
fn a_request_uri_is_split_at_the_mount() {
    assert_eq!(uri("/", ""), ok("", "/"));
    assert_eq!(uri("/a/b?c=/d#e", ""), ok("", "/a/b"));
    assert_eq!(uri("/app", "/app"), ok("/app", ""));
    assert_eq!(uri("/app/", "/app"), ok("/app", "/"));
    assert_eq!(uri("/app?x", "/app"), ok("/app", ""));
    assert_eq!(uri("/app/x", "/app/"), ok("/app", "/x"));
    assert_eq!(uri("/app/x", "app"), ok("/app", "/x"));
    assert_eq!(uri("/app/x", "/"), ok("", "/app/x"));
    assert_eq!(uri("/%61pp/x", "/app"), ok("/app", "/x"));
    assert_eq!(uri("/a b/x", "/a b"), ok("/a b", "/x"));
    for outside in ["/apple", "/ap", "/", "/APP/x", "//app/x", "/x/app", "/app%00"] {
        assert!(uri(outside, "/app").is_err(), "{outside}");
    }
    assert_eq!(uri("/apple", "/app"), Err(404));
}

#[test]
fn a_path_is_decoded_once_and_not_tidied() {
    assert_eq!(uri("/a%20b%2Fc", ""), ok("", "/a b/c"));
    assert_eq!(uri("/%2541", ""), ok("", "/%41"));
    assert_eq!(uri("//a///b//", ""), ok("", "//a///b//"));
    assert_eq!(uri("/a/./b/../c", ""), ok("", "/a/./b/../c"));
    assert_eq!(uri("/a+b", ""), ok("", "/a+b"));
    assert_eq!(names(&[("REQUEST_URI", "/%ff%0a")], Front::Scgi, None), Ok((String::new(), b"/\xff\n".to_vec())));
    for wrong in ["/%", "/%4", "/%zz", "/%4g", "/a%", "/%00", "/a%00b"] {
        assert_eq!(uri(wrong, ""), Err(400), "{wrong}");
    }
}

#[test]
fn dot_segments_do_not_lead_out_of_the_mount() {
    for outside in [
        "/app/..",
        "/app/../other",
        "/app/a/../../other",
        "/app/%2e%2e/other",
        "/app/.%2E/other",
        "/app/./../other",
        "/app//../other",
        "/app%2f..%2fother",
        "/app/../app/x",
    ] {
        assert_eq!(uri(outside, "/app"), Err(404), "{outside}");
    }
    assert_eq!(uri("/../x", ""), Err(404));
    assert_eq!(uri("/app/a/../b", "/app"), ok("/app", "/a/../b"));
    assert_eq!(uri("/app/...", "/app"), ok("/app", "/..."));
    assert_eq!(uri("/other/../app/x", "/app"), Err(404));
    let cgi = names(&[("SCRIPT_NAME", "/app"), ("PATH_INFO", "/../x")], Front::Cgi, None);
    assert_eq!(cgi, Err(404));
}

#[test]
fn a_target_may_be_absolute_or_an_asterisk_and_nothing_else() {
    assert_eq!(uri("http://example.org/app/x?y", "/app"), ok("/app", "/x"));
    assert_eq!(uri("HTTPS://example.org", ""), ok("", "/"));
    assert_eq!(uri("http://example.org?q", ""), ok("", "/"));
    let request = make(&[("REQUEST_URI", "http://a.example/"), ("HTTP_HOST", "b.example")], Front::Http, None).unwrap();
    assert_eq!(request.authority(), "a.example");
    for wrong in
        ["app", "example.org:443", "*", "ftp://example.org/", "http:/x", "?x", "http://user@host/", "http:///x"]
    {
        assert_eq!(uri(wrong, ""), Err(400), "{wrong}");
    }
    assert_eq!(
        names(&[("REQUEST_METHOD", "OPTIONS"), ("REQUEST_URI", "*")], Front::Http, None),
        Ok((String::new(), Vec::new()))
    );
}

#[test]
fn without_request_uri_the_decoded_variables_are_taken_as_they_are() {
    let split = |pairs: &[(&str, &str)]| names(pairs, Front::Scgi, Some("/app"));
    let expected = Ok(("/app".to_owned(), b"/%41".to_vec()));
    assert_eq!(split(&[("DOCUMENT_URI", "/app/%41"), ("SCRIPT_NAME", "/no")]), expected);
    assert_eq!(split(&[("REQUEST_URI", ""), ("DOCUMENT_URI", "/app/%41")]), expected);
    assert_eq!(split(&[("SCRIPT_NAME", "/app/%41")]), expected);
    assert_eq!(split(&[("SCRIPT_NAME", "/app"), ("PATH_INFO", "/%41")]), expected);
    assert_eq!(split(&[("REQUEST_URI", "/app/%2541"), ("DOCUMENT_URI", "/no")]), expected);
    assert_eq!(split(&[]), Err(400));
}

#[test]
fn under_cgi_the_server_knows_script_name_and_path_info() {
    let cgi = |pairs: &[(&str, &str)], mount| names(pairs, Front::Cgi, mount);
    let names = |script_name: &str, path_info: &str| Ok((script_name.to_owned(), path_info.as_bytes().to_vec()));
    let pairs = [("SCRIPT_NAME", "/cgi-bin/a"), ("PATH_INFO", "/%41"), ("REQUEST_URI", "/pretty/%2541")];
    assert_eq!(cgi(&pairs, None), names("/cgi-bin/a", "/%41"));
    assert_eq!(cgi(&pairs, Some("/pretty/")), names("/pretty", "/%41"));
    assert_eq!(cgi(&pairs, Some("/")), names("", "/%41"));
    assert_eq!(cgi(&[("SCRIPT_NAME", "/"), ("PATH_INFO", "/x")], None), names("", "/x"));
    assert_eq!(cgi(&[("SCRIPT_NAME", "/a"), ("REQUEST_URI", "%%%")], None), names("/a", ""));
    assert_eq!(cgi(&[], None), names("", ""));
    assert_eq!(cgi(&[("PATH_INFO", "x")], None), Err(400));
    assert_eq!(cgi(&[("SCRIPT_NAME", "x")], None), Err(400));
}

/// CVE-2019-11043: php-fpm computed the length of `PATH_INFO` from other variables and got below zero.
#[test]
fn path_info_empty_absent_or_a_line_feed_by_every_script_name() {
    for script_name in [None, Some(""), Some("/"), Some("/a"), Some("/a/"), Some("/a\n")] {
        for path_info in [None, Some(""), Some("/"), Some("\n"), Some("/\n"), Some("/x\n/y")] {
            for request_uri in [None, Some(""), Some("/"), Some("/a%0a"), Some("/%0a/a"), Some("/a/x%0a%0a")] {
                for mount in [None, Some("/a")] {
                    for front in [Front::Cgi, Front::Scgi, Front::Http] {
                        let pairs =
                            [("SCRIPT_NAME", script_name), ("PATH_INFO", path_info), ("REQUEST_URI", request_uri)];
                        let set: Vec<_> = pairs.iter().filter_map(|(name, value)| Some((*name, (*value)?))).collect();
                        if let Ok((script_name, path_info)) = names(&set, front, mount) {
                            assert!(
                                script_name.is_empty() || script_name.starts_with('/') && !script_name.ends_with('/')
                            );
                            assert!(path_info.is_empty() || path_info.starts_with(b"/"), "{set:?}");
                            if front == Front::Cgi && mount.is_none() {
                                let given = set.iter().find(|(name, _)| *name == "PATH_INFO").map_or("", |(_, v)| v);
                                assert_eq!(path_info, given.as_bytes());
                            }
                        }
                    }
                }
            }
        }
    }
    assert_eq!(uri("/a/x%0a", "/a"), ok("/a", "/x\n"));
    assert_eq!(uri("/a%0a", "/a"), Err(404));
}

#[test]
fn a_missing_query_string_comes_from_request_uri() {
    let query =
        |pairs: &[(&str, &str)]| make(pairs, Front::Scgi, None).unwrap().meta().get("QUERY_STRING").map(<[u8]>::to_vec);
    assert_eq!(query(&[("REQUEST_URI", "/?a=b?c#d")]), Some(b"a=b?c".to_vec()));
    assert_eq!(query(&[("REQUEST_URI", "/?a=b"), ("QUERY_STRING", "")]), Some(Vec::new()));
    assert_eq!(query(&[("REQUEST_URI", "/")]), None);
}

#[test]
fn a_proxy_field_of_the_client_does_not_become_http_proxy() {
    for front in [Front::Cgi, Front::Scgi, Front::Http] {
        let request = make(&[("REQUEST_URI", "/"), ("HTTP_PROXY", "http://evil")], front, None).unwrap();
        assert_eq!(request.meta().get("HTTP_PROXY"), None);
        assert!(request.headers().get("proxy").is_none());
    }
}

#[test]
fn contradicting_lengths_are_refused() {
    let status = |pairs: &[(&str, &str)]| {
        let pairs = [&[("REQUEST_URI", "/")], pairs].concat();
        make(&pairs, Front::Scgi, None).map_or_else(|error| error.status().as_u16(), |_| 200)
    };
    assert_eq!(status(&[("CONTENT_LENGTH", "5")]), 200);
    assert_eq!(status(&[("CONTENT_LENGTH", "")]), 200);
    assert_eq!(status(&[("CONTENT_LENGTH", "5"), ("HTTP_CONTENT_LENGTH", "5")]), 200);
    assert_eq!(status(&[("CONTENT_LENGTH", "5"), ("HTTP_CONTENT_LENGTH", "")]), 200);
    assert_eq!(status(&[("CONTENT_LENGTH", "5"), ("HTTP_CONTENT_LENGTH", "05")]), 200);
    assert_eq!(status(&[("CONTENT_LENGTH", "0"), ("HTTP_CONTENT_LENGTH", "5")]), 400);
    assert_eq!(status(&[("HTTP_CONTENT_LENGTH", "5")]), 400);
    assert_eq!(status(&[("HTTP_CONTENT_LENGTH", "0")]), 200);
    assert_eq!(status(&[("CONTENT_LENGTH", "5"), ("HTTP_CONTENT_LENGTH", "5, 5")]), 400);
    for wrong in ["-5", "1_0", "+5", "5 ", "18446744073709551616", "x"] {
        assert_eq!(status(&[("CONTENT_LENGTH", wrong)]), 400, "{wrong}");
    }
}

#[test]
fn a_method_is_a_token() {
    let status = |method: &str| {
        let pairs = [("REQUEST_METHOD", method), ("REQUEST_URI", "/")];
        make(&pairs, Front::Scgi, None).map_or_else(|error| error.status().as_u16(), |_| 200)
    };
    for good in ["GET", "get", "PROPFIND", "M-SEARCH"] {
        assert_eq!(status(good), 200, "{good}");
    }
    for wrong in ["", "G T", "GET\n", "GÉT", "GET/"] {
        assert_eq!(status(wrong), 400, "{wrong:?}");
    }
    let mut none = MetaVariables::new();
    none.push("REQUEST_URI", "/");
    assert!(request(none, Body::empty(), Front::Scgi, &Site::default()).is_err());
}
