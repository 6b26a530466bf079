use std::io::{Cursor, Read, Write};

use proptest::prelude::*;

use super::*;

fn netstring(block: &[u8]) -> Vec<u8> {
    [format!("{}:", block.len()).as_bytes(), block, b","].concat()
}

fn block(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
    pairs.iter().flat_map(|(name, value)| [name, &b"\0"[..], value, b"\0"].concat()).collect()
}

/// Feeds `bytes` in pieces of `step`. Returns the head and the length of what follows it.
fn read(bytes: &[u8], step: usize) -> Result<Option<(Head, usize)>, GatewayError> {
    let mut reader = HeadReader::new(&Limits::default());
    for (i, piece) in bytes.chunks(step).enumerate() {
        if let Some((head, used)) = reader.feed(piece)? {
            return Ok(Some((head, bytes.len() - i * step - used)));
        }
    }
    Ok(None)
}

const GOOD: &[u8] =
    b"70:CONTENT_LENGTH\x0027\x00SCGI\x001\x00REQUEST_METHOD\x00POST\x00REQUEST_URI\x00/deepthought\x00,What";

#[test]
fn the_example_of_the_specification_is_read() {
    for step in [1, 2, 7, 1000] {
        let (head, rest) = read(GOOD, step).unwrap().unwrap();
        assert_eq!((head.content_length, rest, head.meta.len()), (27, 4, 4));
        assert_eq!(head.meta.get("REQUEST_URI"), Some(&b"/deepthought"[..]));
    }
}

#[test]
fn every_prefix_asks_for_more() {
    for end in 0..GOOD.len() - 4 {
        assert!(read(&GOOD[..end], 1000).unwrap().is_none(), "{end}");
        assert!(end == 0 || read(&GOOD[..end], 1).unwrap().is_none(), "{end}");
    }
}

#[test]
fn the_23_malformed_heads_are_refused() {
    let good = &b"CONTENT_LENGTH\x000\0SCGI\x001\0"[..];
    assert_eq!(good.len(), 24);
    assert!(read(&netstring(good), 1000).unwrap().is_some());
    let with = |prefix: &[u8], suffix: &[u8]| [prefix, good, suffix].concat();
    let pairs = |pairs: &[(&[u8], &[u8])]| netstring(&block(pairs));
    let heads: [(&str, Vec<u8>); 23] = [
        ("sign", with(b"+24:", b",")),
        ("negative", with(b"-24:", b",")),
        ("negative and short", with(b"-5:", b",")),
        ("space before the length", with(b" 24:", b",")),
        ("space after the length", with(b"24 :", b",")),
        ("underscore", with(b"2_4:", b",")),
        ("leading zero", with(b"024:", b",")),
        ("hexadecimal", with(b"0x18:", b",")),
        ("no length", with(b":", b",")),
        ("eleven digits", with(b"00000000024:", b",")),
        ("ten digits", b"9999999999:".to_vec()),
        ("no colon", b"1234567890x".to_vec()),
        ("no comma", with(b"24:", b";")),
        ("length too short", with(b"23:", b",")),
        ("no final NUL", netstring(&good[..23])),
        ("a name without a value", netstring(&[good, b"REQUEST_METHOD\0"].concat())),
        ("an empty name", pairs(&[(b"CONTENT_LENGTH", b"0"), (b"", b"x"), (b"SCGI", b"1")])),
        ("no CONTENT_LENGTH", pairs(&[(b"SCGI", b"1"), (b"REQUEST_METHOD", b"GET")])),
        ("late CONTENT_LENGTH", pairs(&[(b"SCGI", b"1"), (b"CONTENT_LENGTH", b"0")])),
        ("negative CONTENT_LENGTH", pairs(&[(b"CONTENT_LENGTH", b"-5"), (b"SCGI", b"1")])),
        ("underscore in CONTENT_LENGTH", pairs(&[(b"CONTENT_LENGTH", b"1_0"), (b"SCGI", b"1")])),
        ("repeated CONTENT_LENGTH", pairs(&[(b"CONTENT_LENGTH", b"5"), (b"SCGI", b"1"), (b"CONTENT_LENGTH", b"0")])),
        ("empty CONTENT_LENGTH", pairs(&[(b"CONTENT_LENGTH", b""), (b"SCGI", b"1")])),
    ];
    for (what, head) in &heads {
        for step in [1, 1000] {
            assert!(read(head, step).is_err(), "{what}, in pieces of {step}");
        }
    }
}

#[test]
fn other_malformed_heads_are_refused_too() {
    for wrong in [
        &[(&b"CONTENT_LENGTH"[..], &b"0"[..]), (b"SCGI", b"2")][..],
        &[(b"CONTENT_LENGTH", b"0"), (b"SCGI", b"")],
        &[(b"CONTENT_LENGTH", b"0"), (b"SCGI", b"1"), (b"SCGI", b"1")],
        &[(b"CONTENT_LENGTH", b"0"), (b"CONTENT_LENGTH", b"0")],
        &[(b"CONTENT_LENGTH", b"0"), (b"REQUEST_URI", b"/"), (b"REQUEST_URI", b"/admin")],
        &[(b"CONTENT_LENGTH", b"0"), (b"HTTP_HOST", b"a"), (b"HTTP_HOST", b"b")],
        &[(b"CONTENT_LENGTH", b"007")],
        &[(b"CONTENT_LENGTH", b"00")],
        &[(b"CONTENT_LENGTH", b"+1")],
        &[(b"CONTENT_LENGTH", b" 1")],
        &[(b"CONTENT_LENGTH", b"1 ")],
        &[(b"content_length", b"1")],
    ] {
        assert!(read(&netstring(&block(wrong)), 1000).is_err(), "{wrong:?}");
    }
    assert!(read(b"0:,", 1000).is_err());
    assert!(read(b"00:,", 1000).is_err());
}

#[test]
fn a_head_without_scgi_is_accepted_since_nginx_sends_it_only_where_it_is_configured() {
    assert!(read(&netstring(b"CONTENT_LENGTH\x000\0"), 1000).unwrap().is_some());
    assert!(read(&netstring(b"CONTENT_LENGTH\x000\0REQUEST_METHOD\0GET\0SCGI\x001\0"), 1000).unwrap().is_some());
}

#[test]
fn lengths_at_the_edges_of_integers() {
    let of = |length: &str| read(&netstring(&block(&[(b"CONTENT_LENGTH", length.as_bytes())])), 1000);
    for good in [
        "0",
        "1",
        "2147483647",
        "2147483648",
        "2147483649",
        "4294967295",
        "4294967296",
        "4294967297",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
    ] {
        assert_eq!(of(good).unwrap().unwrap().0.content_length.to_string(), good);
    }
    for wrong in ["18446744073709551616", "99999999999999999999", "184467440737095516150", &"9".repeat(400)] {
        assert!(of(wrong).is_err(), "{wrong}");
    }
    // A head this long is never one that is kept; the length is refused before anything follows it.
    for length in [
        "65537",
        "2147483647",
        "2147483648",
        "2147483649",
        "4294967295",
        "4294967296",
        "4294967297",
        "9223372036854775808",
        "18446744073709551616",
        "99999999999999999999",
    ] {
        assert!(read(format!("{length}:").as_bytes(), 1000).is_err(), "{length}");
    }
    assert!(read(b"65536:", 1000).unwrap().is_none());
}

#[test]
fn nothing_is_allocated_before_the_length_is_known_to_be_good() {
    let mut netstring = Netstring::new(64 * 1024);
    netstring.feed(b"65536").unwrap();
    assert_eq!(netstring.allocated(), 0);
    let mut netstring = Netstring::new(usize::MAX);
    netstring.feed(b"999999999:").unwrap();
    assert!(netstring.allocated() <= 64 * 1024);
    netstring.feed(&[b'x'; 1000]).unwrap();
    assert!(netstring.allocated() <= 64 * 1024);
}

#[test]
fn meta_variables_are_counted_before_they_are_indexed() {
    let limits = Limits { head_count: 10, ..Limits::default() };
    let many = |n: usize| {
        let mut block = b"CONTENT_LENGTH\x000\0".to_vec();
        (1..n).for_each(|i| block.extend_from_slice(format!("N{i}\0\0").as_bytes()));
        HeadReader::new(&limits).feed(&netstring(&block)).map(|head| head.is_some())
    };
    assert!(many(10).unwrap());
    assert_eq!(many(11).unwrap_err().status(), 431);
}

#[test]
fn values_are_bytes() {
    for byte in 1..=255_u8 {
        let head = netstring(&block(&[(b"CONTENT_LENGTH", b"0"), (b"HTTP_X", &[byte, b'x', byte])]));
        let (head, _) = read(&head, 1000).unwrap().unwrap();
        assert_eq!(head.meta.get("HTTP_X"), Some(&[byte, b'x', byte][..]));
    }
}

#[test]
fn a_reader_reads_one_head() {
    let mut reader = HeadReader::new(&Limits::default());
    assert_eq!(reader.feed(GOOD).unwrap().unwrap().1, GOOD.len() - 4);
    assert!(reader.feed(GOOD).is_err());
}

/// In memory, for the `scgi` crate, which wants a stream to write to as well.
struct Duplex(Cursor<Vec<u8>>);

impl Read for Duplex {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Duplex {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1..50_usize) {
        let _ = read(&bytes, step);
    }

    #[test]
    fn a_mutated_head_is_read_or_refused_the_same_however_it_is_cut(
        at in 0..GOOD.len(), byte: u8, step in 1..GOOD.len(),
    ) {
        let mut head = GOOD.to_vec();
        head[at] = byte;
        let outcome = |step| read(&head, step).map(|head| head.map(|(head, rest)| (format!("{head:?}"), rest)))
            .map_err(|error| error.to_string());
        prop_assert_eq!(outcome(step), outcome(1000));
    }

    #[test]
    fn what_the_scgi_crate_accepts_is_read_alike(
        mut pairs in proptest::collection::btree_map("[A-Z_]{1,20}", "[^\0]{0,30}", 0..20),
        length: u64,
        body in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        pairs.remove("SCGI");
        pairs.remove("CONTENT_LENGTH");
        let length = length.to_string();
        let mut all = vec![("CONTENT_LENGTH", length.as_str()), ("SCGI", "1")];
        all.extend(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let block: Vec<u8> = all.iter().flat_map(|(name, value)| format!("{name}\0{value}\0").into_bytes()).collect();
        let request = [netstring(&block), body.clone()].concat();

        let (head, rest) = read(&request, 13).unwrap().unwrap();
        prop_assert_eq!(&request[request.len() - rest..], &body[..]);
        let (oracle, mut stream) = ::scgi::read_headers(Duplex(Cursor::new(request))).unwrap();
        let oracle = ::scgi::str_map(&oracle).unwrap();
        prop_assert_eq!(oracle.len(), head.meta.len());
        for (name, value) in oracle {
            prop_assert_eq!(head.meta.get(name), Some(value.as_bytes()));
        }
        let mut oracle_body = Vec::new();
        stream.read_to_end(&mut oracle_body).unwrap();
        prop_assert_eq!(oracle_body, body);
    }
}
