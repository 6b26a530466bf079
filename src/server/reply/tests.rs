use std::io::Read as _;

use super::*;

/// Notes each write.
#[derive(Default)]
struct Writes(Vec<Vec<u8>>);

impl Write for Writes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn head_and_small_body_go_out_in_one_write() {
    let (mut writes, mut buffers) = (Writes::default(), Buffers::new());
    cgi(&mut writes, Response::text("hello"), None, &mut buffers).unwrap();
    http(&mut writes, Response::text("hello"), None, Exchange::BROKEN, &mut buffers).unwrap();
    assert_eq!(writes.0.len(), 2);
    assert!(writes.0.iter().all(|bytes| bytes.ends_with(b"\r\n\r\nhello")));
}

#[test]
fn a_large_body_is_not_copied() {
    let (mut writes, mut buffers) = (Writes::default(), Buffers::new());
    cgi(&mut writes, Response::bytes("a/b", vec![7; 1 << 20]), None, &mut buffers).unwrap();
    assert_eq!(writes.0.len(), 2);
    assert_eq!(writes.0[1].len(), (1 << 20) - PIECE);
}

#[test]
fn a_streamed_body_is_sent_as_it_is_read() {
    let reader = (&b"abc"[..]).chain(&b"def"[..]);
    let (mut writes, mut buffers) = (Writes::default(), Buffers::new());
    let exchange = Exchange { keep_alive: true, ..Exchange::BROKEN };
    assert!(http(&mut writes, Response::stream("a/b", reader), None, exchange, &mut buffers).unwrap());
    assert!(writes.0[0].ends_with(b"\r\n\r\n3\r\nabc\r\n"));
    assert_eq!(writes.0[1..], [b"3\r\ndef\r\n".to_vec(), b"0\r\n\r\n".to_vec()]);
}

#[test]
fn a_reader_that_claims_too_much_is_refused() {
    struct Liar;
    impl io::Read for Liar {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            Ok(buffer.len() + 1)
        }
    }
    let (mut writes, mut buffers) = (Writes::default(), Buffers::new());
    cgi(&mut writes, Response::stream("a/b", Liar), None, &mut buffers).unwrap();
    assert!(writes.0[0].starts_with(b"Status: 500 "));
}
