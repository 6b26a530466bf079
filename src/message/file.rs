//! A file as a response.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use http::header::{CONTENT_TYPE, HeaderValue, LAST_MODIFIED};
use rustix::fs::OFlags;

use super::{Body, MessageError, Response};

/// Opens `path` and answers with it.
pub(super) fn response(path: &Path) -> Result<Response, MessageError> {
    let error = |source| MessageError::File { path: path.to_owned(), source };
    // Opening a FIFO waits for somebody to write into it, and opening a terminal may make it ours.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path).map_err(error)?;
    let metadata = file.metadata().map_err(error)?;
    if !metadata.is_file() {
        return Err(error(io::Error::other("not a regular file")));
    }
    let mut response = Response::of("application/octet-stream", Body::from_reader(file, Some(metadata.len())));
    let guess = mime_guess::from_path(path).first_or_octet_stream();
    if let Ok(value) = HeaderValue::from_str(guess.as_ref()) {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    if let Ok(modified) = metadata.modified()
        && let Ok(value) = HeaderValue::from_str(&httpdate::fmt_http_date(modified))
    {
        response.headers_mut().insert(LAST_MODIFIED, value);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn a_file_with_its_type_and_date() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("page.html");
        std::fs::write(&path, "<p>hello").unwrap();
        let response = response(&path).unwrap();
        assert_eq!(response.headers()[CONTENT_TYPE], "text/html");
        let date = httpdate::parse_http_date(response.headers()[LAST_MODIFIED].to_str().unwrap()).unwrap();
        assert!(date.elapsed().unwrap().as_secs() < 60);
        assert_eq!(response.body().length(), Some(8));
        assert_eq!(response.into_http().into_body().into_bytes().unwrap(), "<p>hello");

        std::fs::write(directory.path().join("x.unknown-type"), "").unwrap();
        let response = super::response(&directory.path().join("x.unknown-type")).unwrap();
        assert_eq!(response.headers()[CONTENT_TYPE], "application/octet-stream");
    }

    #[test]
    fn a_file_that_shrinks_or_grows_while_it_is_sent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        for (later, expected) in [("12", Err(io::ErrorKind::UnexpectedEof)), ("123456", Ok("1234"))] {
            std::fs::write(&path, "1234").unwrap();
            let body = response(&path).unwrap().into_http().into_body();
            std::fs::write(&path, later).unwrap();
            assert_eq!(body.into_bytes().map_err(|e| e.kind()), expected.map(bytes::Bytes::from));
        }
    }

    #[test]
    fn only_regular_files_and_without_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        for path in [fifo.as_path(), directory.path(), Path::new("/dev/null")] {
            let error = response(path).unwrap_err();
            assert_eq!(error.status(), StatusCode::INTERNAL_SERVER_ERROR, "{path:?}");
        }
        let error = response(&directory.path().join("absent")).unwrap_err();
        assert_eq!(error.status(), StatusCode::NOT_FOUND);
        assert!(error.to_string().contains("absent"));
    }
}
