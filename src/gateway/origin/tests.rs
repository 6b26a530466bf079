use super::*;

fn of(pairs: &[(&str, &str)]) -> Result<Origin, u16> {
    let mut meta = MetaVariables::new();
    for (name, value) in pairs {
        meta.push(name, value);
    }
    let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].iter().map(|network| network.parse().unwrap()).collect();
    origin(&meta, None, &trusted).map_err(|error| error.status().as_u16())
}

const PROXY: (&str, &str) = ("REMOTE_ADDR", "10.0.0.1");
const CLIENT: (&str, &str) = ("REMOTE_ADDR", "192.0.2.1");

fn address(pairs: &[(&str, &str)]) -> Option<String> {
    of(pairs).unwrap().client_address.map(|ip| ip.to_string())
}

fn authority(pairs: &[(&str, &str)]) -> Result<String, u16> {
    of(pairs).map(|origin| origin.authority)
}

#[test]
fn the_server_says_whether_it_is_https() {
    for (name, value, secure) in [
        ("HTTPS", "on", true),
        ("HTTPS", "ON", true),
        ("HTTPS", "1", true),
        ("HTTPS", "off", false),
        ("HTTPS", "", false),
        ("HTTPS", "0", false),
        ("REQUEST_SCHEME", "https", true),
        ("REQUEST_SCHEME", "http", false),
        ("HTTP_X_FORWARDED_PROTO", "https", false),
        ("HTTP_FORWARDED", "proto=https", false),
    ] {
        assert_eq!(of(&[CLIENT, (name, value)]).unwrap().secure, secure, "{name}={value}");
        assert_eq!(of(&[(name, value)]).unwrap().secure, secure, "{name}={value}");
    }
}

#[test]
fn a_trusted_proxy_says_whether_it_is_https() {
    for (name, value, secure) in [
        ("HTTP_X_FORWARDED_PROTO", "https", true),
        ("HTTP_X_FORWARDED_PROTO", "HTTPS", true),
        ("HTTP_X_FORWARDED_PROTO", "https, http", false),
        ("HTTP_X_FORWARDED_PROTO", "http, https", true),
        ("HTTP_FORWARDED", "proto=https", true),
        ("HTTP_FORWARDED", "for=192.0.2.7; Proto=\"https\"", true),
        ("HTTP_FORWARDED", "proto=https, for=192.0.2.7", false),
        ("HTTP_FORWARDED", "proto=https, proto=http", false),
    ] {
        assert_eq!(of(&[PROXY, (name, value)]).unwrap().secure, secure, "{name}={value}");
    }
    assert!(!of(&[PROXY, ("HTTPS", "on"), ("HTTP_X_FORWARDED_PROTO", "http")]).unwrap().secure);
}

#[test]
fn the_client_is_the_last_address_that_is_no_trusted_proxy() {
    let xff = |list| address(&[PROXY, ("HTTP_X_FORWARDED_FOR", list)]);
    assert_eq!(xff("192.0.2.7").as_deref(), Some("192.0.2.7"));
    assert_eq!(xff("1.1.1.1, 192.0.2.7").as_deref(), Some("192.0.2.7"));
    assert_eq!(xff("1.1.1.1, 192.0.2.7, 10.9.9.9").as_deref(), Some("192.0.2.7"));
    assert_eq!(xff("10.1.1.1,10.9.9.9").as_deref(), Some("10.1.1.1"));
    assert_eq!(xff("192.0.2.7:4711").as_deref(), Some("192.0.2.7"));
    assert_eq!(xff("2001:db8::1").as_deref(), Some("2001:db8::1"));
    assert_eq!(xff("[2001:db8::1]").as_deref(), Some("2001:db8::1"));
    assert_eq!(xff("[2001:db8::1]:80").as_deref(), Some("2001:db8::1"));
    assert_eq!(xff("192.0.2.7, ::ffff:10.0.0.2").as_deref(), Some("192.0.2.7"));
    assert_eq!(xff("1.1.1.1, unknown"), None);
    assert_eq!(xff("").as_deref(), None);
    assert_eq!(address(&[CLIENT, ("HTTP_X_FORWARDED_FOR", "1.1.1.1")]).as_deref(), Some("192.0.2.1"));
    assert_eq!(address(&[("HTTP_X_FORWARDED_FOR", "1.1.1.1")]), None);
    assert_eq!(address(&[("REMOTE_ADDR", "::ffff:192.0.2.1")]).as_deref(), Some("192.0.2.1"));
    let mapped = [("REMOTE_ADDR", "::ffff:10.0.0.1"), ("HTTP_X_FORWARDED_FOR", "192.0.2.7")];
    assert_eq!(address(&mapped).as_deref(), Some("192.0.2.7"));
}

#[test]
fn forwarded_is_read_strictly() {
    let forwarded = |list| of(&[PROXY, ("HTTP_FORWARDED", list)]).map(|o| o.client_address.map(|ip| ip.to_string()));
    let some = |ip: &str| Ok(Some(ip.to_owned()));
    assert_eq!(forwarded("for=192.0.2.43, FOR=\"[2001:db8::17]:4711\""), some("2001:db8::17"));
    assert_eq!(forwarded("for=192.0.2.43;by=10.0.0.1;proto=http , for=10.0.0.2"), some("192.0.2.43"));
    assert_eq!(forwarded("for=\"192.0.2.43:80\""), some("192.0.2.43"));
    assert_eq!(forwarded("for=unknown"), Ok(None));
    assert_eq!(forwarded("for=192.0.2.43, for=_hidden"), Ok(None));
    for wrong in [
        "",
        "for",
        "for=",
        "=x",
        "for=a,",
        "for=a;",
        "for=\"1.1.1.1",
        "for=\"a, for=\"192.0.2.7\"",
        "for=a b",
        "fo r=a",
        "for=\"a\\",
        ",for=a",
        "for=\"a\"b",
    ] {
        assert_eq!(forwarded(wrong), Err(400), "{wrong}");
    }
    // What the client sent in the other style does not count.
    let both = [PROXY, ("HTTP_X_FORWARDED_FOR", "192.0.2.7"), ("HTTP_FORWARDED", "for=1.1.1.1;host=evil;proto=https")];
    let origin = of(&both).unwrap();
    assert_eq!(origin.client_address.unwrap().to_string(), "192.0.2.7");
    assert_eq!((origin.secure, origin.authority.as_str()), (false, "localhost"));
}

#[test]
fn an_authority_is_checked() {
    let host = |host| authority(&[("HTTP_HOST", host)]);
    for good in ["example.org", "EXAMPLE.org", "a-b.c", "127.0.0.1", "[::1]", "[2001:db8::1]:8080", "example.org:8080"]
    {
        assert_eq!(host(good), Ok(good.to_owned()));
    }
    assert_eq!(host("example.org:"), Ok("example.org".to_owned()));
    assert_eq!(host("example.org:80"), Ok("example.org".to_owned()));
    assert_eq!(host("example.org:443"), Ok("example.org:443".to_owned()));
    assert_eq!(authority(&[("HTTPS", "on"), ("HTTP_HOST", "a:443")]), Ok("a".to_owned()));
    assert_eq!(authority(&[("HTTPS", "on"), ("HTTP_HOST", "a:80")]), Ok("a:80".to_owned()));
    for wrong in [
        "a b",
        "a/b",
        "a@b",
        "a\r\nb",
        "a\"b",
        "a<b",
        "a_b",
        "ä",
        ":80",
        "a:x",
        "a:80:80",
        "a:-1",
        "a:+1",
        "a:65536",
        "a:99999999999",
        "[::1",
        "[]",
        "[x]",
        "[::1]x",
        "[::1]80",
        "::1",
        "a,b",
        "a, b",
        "\\a",
        "a%20b",
        "a?b",
        "a#b",
    ] {
        assert_eq!(host(wrong), Err(400), "{wrong}");
    }
    for byte in (0..=255_u8).filter(|b| !b.is_ascii_alphanumeric() && !b".-:".contains(b)) {
        assert_eq!(host_and_port(&[b'a', byte, b'b']), None, "{byte:#x}");
    }
}

#[test]
fn without_host_the_server_names_itself() {
    let server = |name, port| authority(&[("SERVER_NAME", name), ("SERVER_PORT", port)]);
    assert_eq!(server("example.org", "80"), Ok("example.org".to_owned()));
    assert_eq!(server("example.org", "8080"), Ok("example.org:8080".to_owned()));
    assert_eq!(server("::1", "8080"), Ok("[::1]:8080".to_owned()));
    assert_eq!(server("[::1]", "x"), Ok("[::1]".to_owned()));
    assert_eq!(server("_", "80"), Ok("localhost".to_owned()));
    assert_eq!(authority(&[("HTTP_HOST", ""), ("SERVER_NAME", "b")]), Ok("b".to_owned()));
    assert_eq!(authority(&[]), Ok("localhost".to_owned()));
}

#[test]
fn a_trusted_proxy_names_the_host() {
    let forwarded = [PROXY, ("HTTP_HOST", "inner"), ("HTTP_X_FORWARDED_HOST", "outer:8080")];
    assert_eq!(authority(&forwarded), Ok("outer:8080".to_owned()));
    assert_eq!(authority(&[PROXY, ("HTTP_X_FORWARDED_HOST", "evil, outer")]), Ok("outer".to_owned()));
    assert_eq!(authority(&[PROXY, ("HTTP_FORWARDED", "host=\"outer:81\"")]), Ok("outer:81".to_owned()));
    assert_eq!(authority(&[PROXY, ("HTTP_X_FORWARDED_HOST", "a b")]), Err(400));
    assert_eq!(authority(&[CLIENT, ("HTTP_HOST", "inner"), ("HTTP_X_FORWARDED_HOST", "evil")]), Ok("inner".to_owned()));
}
