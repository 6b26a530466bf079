//! The smallest clients that do.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use super::PATIENCE;

/// A connection to a server's address as the log names it.
pub trait Connection: Read + Write + Send {}
impl<T: Read + Write + Send> Connection for T {}

/// Connects to `HOST:PORT` or `unix:PATH`.
pub fn connect(address: &str) -> io::Result<Box<dyn Connection>> {
    if let Some(path) = address.strip_prefix("unix:") {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        return Ok(Box::new(stream));
    }
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(Box::new(stream))
}

/// The bytes of an SCGI request as a front server sends it.
pub fn scgi_request(method: &str, target: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len().to_string();
    let pairs = [
        ("CONTENT_LENGTH", length.as_str()),
        ("SCGI", "1"),
        ("REQUEST_METHOD", method),
        ("REQUEST_URI", target),
        ("QUERY_STRING", target.split_once('?').map_or("", |(_, query)| query)),
        ("SERVER_NAME", "localhost"),
        ("SERVER_PORT", "80"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("HTTP_HOST", "localhost"),
    ];
    let mut request = scgi_head(&pairs);
    request.extend_from_slice(body);
    request
}

/// The head of an SCGI request with these meta-variables: a netstring.
pub fn scgi_head(pairs: &[(&str, &str)]) -> Vec<u8> {
    let block = pairs.iter().map(|(name, value)| [name, "\0", value, "\0"].concat()).collect::<Vec<_>>().concat();
    format!("{}:{block},", block.len()).into_bytes()
}

/// The bytes of an HTTP request, for a connection that is closed after it.
pub fn http_request(method: &str, target: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").into_bytes()
}

/// Sends a request; the response is read from what is returned.
pub fn send(address: &str, request: &[u8]) -> io::Result<Box<dyn Connection>> {
    let mut connection = connect(address)?;
    connection.write_all(request)?;
    Ok(connection)
}

/// All of the response, up to the end of the connection.
pub fn read(connection: Box<dyn Connection>) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&read_bytes(connection)?).into_owned())
}

/// The same as bytes.
pub fn read_bytes(mut connection: Box<dyn Connection>) -> io::Result<Vec<u8>> {
    let mut response = Vec::new();
    connection.read_to_end(&mut response)?;
    Ok(response)
}

/// One SCGI GET request and its response.
pub fn scgi(address: &str, target: &str) -> io::Result<String> {
    read(send(address, &scgi_request("GET", target, b""))?)
}

/// One HTTP GET request and its response.
pub fn http(address: &str, target: &str) -> io::Result<String> {
    read(send(address, &http_request("GET", target))?)
}
