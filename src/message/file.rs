//! A file as a response.

use std::fs::File;
use std::io;
use std::path::Path;

use http::header::{CONTENT_TYPE, HeaderValue, LAST_MODIFIED};

use super::{Body, MessageError, Response};

/// Opens `path` and answers with it.
pub(super) fn response(path: &Path) -> Result<Response, MessageError> {
    let error = |source| MessageError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(error)?;
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
