//! Forms: `application/x-www-form-urlencoded` and `multipart/form-data`, with limits on everything.

use std::io::Read;

use super::upload::Spool;
use super::{Body, MessageError, Upload, multipart};

/// The limits of a form. What passes one is answered with 413.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FormLimits {
    /// Fields and files together. Default 1,000.
    pub count: usize,
    /// Bytes of one field that is no file, and of any field's name. Default 1 MiB.
    pub field_size: u64,
    /// Bytes of all fields that are no files, names included: they are kept in memory, unlike files. For
    /// `application/x-www-form-urlencoded`, bytes of the message-body. Default 8 MiB.
    pub fields_size: u64,
    /// Bytes of one file. Default 8 MiB.
    pub file_size: u64,
    /// Bytes of all of them: of the message-body. Default 8 MiB, as for any message-body.
    pub total_size: u64,
}

impl Default for FormLimits {
    fn default() -> Self {
        Self { count: 1000, field_size: 1 << 20, fields_size: 8 << 20, file_size: 8 << 20, total_size: 8 << 20 }
    }
}

/// A form that was sent: fields and files in the order they came. Names may repeat.
#[derive(Debug, Default)]
pub struct Form {
    fields: Vec<(String, String)>,
    files: Vec<Upload>,
}

impl Form {
    /// The value of the first field of this name that is no file.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    /// The values of all fields of this name that are no files.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields().filter(move |(n, _)| *n == name).map(|(_, value)| value)
    }

    /// The names and values of all fields that are no files.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The first file in a field of this name. A file input in which nothing was chosen has none.
    pub fn file(&self, name: &str) -> Option<&Upload> {
        self.files.iter().find(|file| file.name() == name)
    }

    /// All files.
    pub fn files(&self) -> &[Upload] {
        &self.files
    }

    /// All files, to be kept longer than the form.
    pub fn into_files(self) -> Vec<Upload> {
        self.files
    }

    /// Reads `body` as the form that `content_type` says it is.
    pub(super) fn read(content_type: &str, mut body: Body, limits: &FormLimits) -> Result<Self, MessageError> {
        if body.length().is_some_and(|length| length > limits.total_size) {
            return Err(too_large("total size", limits.total_size));
        }
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("multipart/form-data") {
            return multipart::read(content_type, body, limits);
        }
        if media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return urlencoded(body, limits);
        }
        // Only reading tells whether a message-body of unknown length is there at all.
        match body.next_piece(&mut [0]).map_err(MessageError::from_body)? {
            0 => Ok(Self::default()),
            _ => Err(MessageError::NotAForm),
        }
    }
}

pub(super) fn too_large(what: &'static str, limit: u64) -> MessageError {
    MessageError::FormTooLarge { what, limit }
}

/// What a form is collected in. Every limit that can be checked before something is kept is checked here.
pub(super) struct Builder<'l> {
    limits: &'l FormLimits,
    fields: Vec<(String, String)>,
    fields_size: u64,
    count: usize,
    pub(super) spool: Spool,
}

impl<'l> Builder<'l> {
    pub(super) fn new(limits: &'l FormLimits) -> Self {
        Self { limits, fields: Vec::new(), fields_size: 0, count: 0, spool: Spool::default() }
    }

    /// Counts a field or file.
    pub(super) fn count(&mut self) -> Result<(), MessageError> {
        self.count += 1;
        if self.count > self.limits.count { Err(too_large("count", self.limits.count as u64)) } else { Ok(()) }
    }

    /// Checks `size` bytes of one field, and what they add to all fields.
    pub(super) fn check_field(&self, name: &str, size: u64) -> Result<(), MessageError> {
        if size.max(name.len() as u64) > self.limits.field_size {
            return Err(too_large("size of a field", self.limits.field_size));
        }
        if self.fields_size + name.len() as u64 + size > self.limits.fields_size {
            return Err(too_large("size of all fields", self.limits.fields_size));
        }
        Ok(())
    }

    /// Checks the names of a file, of these lengths, against what all fields may take.
    pub(super) fn add_name(&mut self, lengths: &[usize]) -> Result<(), MessageError> {
        self.fields_size += lengths.iter().sum::<usize>() as u64;
        if self.fields_size > self.limits.fields_size {
            return Err(too_large("size of all fields", self.limits.fields_size));
        }
        Ok(())
    }

    pub(super) fn add_field(&mut self, name: String, value: String) -> Result<(), MessageError> {
        self.check_field(&name, value.len() as u64)?;
        self.fields_size += (name.len() + value.len()) as u64;
        self.fields.push((name, value));
        Ok(())
    }

    pub(super) fn finish(self) -> Form {
        Form { fields: self.fields, files: self.spool.finish() }
    }
}

/// Reads `application/x-www-form-urlencoded` (WHATWG URL, section 5.1).
fn urlencoded(body: Body, limits: &FormLimits) -> Result<Form, MessageError> {
    let (what, limit) = if limits.fields_size < limits.total_size {
        ("size of all fields", limits.fields_size)
    } else {
        ("total size", limits.total_size)
    };
    let mut bytes = Vec::new();
    body.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(MessageError::from_body)?;
    if bytes.len() as u64 > limit {
        return Err(too_large(what, limit));
    }
    let mut form = Builder::new(limits);
    for pair in bytes.split(|&b| b == b'&') {
        // The parser replaces what is not UTF-8; a field that is not what was sent is worse than none.
        if percent_encoding::percent_decode(pair).decode_utf8().is_err() {
            return Err(MessageError::MalformedForm("a field is not UTF-8"));
        }
        for (name, value) in form_urlencoded::parse(pair) {
            form.count()?;
            form.add_field(name.into_owned(), value.into_owned())?;
        }
    }
    Ok(form.finish())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const URLENCODED: &str = "application/x-www-form-urlencoded";

    fn read(body: &'static str, limits: &FormLimits) -> Result<Form, MessageError> {
        Form::read(URLENCODED, body.into(), limits)
    }

    #[test]
    fn fields_in_order_with_repeated_names() {
        let form = read("a=1&b=x+y%26&&a=2&c&=n", &FormLimits::default()).unwrap();
        assert_eq!(form.fields().collect::<Vec<_>>(), [("a", "1"), ("b", "x y&"), ("a", "2"), ("c", ""), ("", "n")]);
        assert_eq!(form.value("a"), Some("1"));
        assert_eq!(form.values("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(form.value("d"), None);
        assert!(form.files().is_empty());
    }

    #[test]
    fn what_is_not_utf8_is_malformed() {
        for body in ["a=%ff", "%c3=1", "a=1&b=%c3&c=%a9"] {
            assert!(matches!(read(body, &FormLimits::default()), Err(MessageError::MalformedForm(_))), "{body}");
        }
        assert_eq!(read("a=%c3%a9", &FormLimits::default()).unwrap().value("a"), Some("é"));
    }

    #[test]
    fn limits_pass_at_their_value_and_fail_above() {
        let limits = |change: fn(&mut FormLimits)| {
            let mut limits = FormLimits::default();
            change(&mut limits);
            limits
        };
        let what = |result: Result<Form, MessageError>| match result {
            Ok(_) => "",
            Err(MessageError::FormTooLarge { what, .. }) => what,
            Err(error) => panic!("{error}"),
        };
        let three = limits(|l| l.count = 3);
        assert_eq!(what(read("a&b&c&", &three)), "");
        assert_eq!(what(read("a&b&c&d", &three)), "count");
        let field = limits(|l| l.field_size = 3);
        assert_eq!(what(read("a=%41%41%41", &field)), "");
        assert_eq!(what(read("a=1234", &field)), "size of a field");
        assert_eq!(what(read("abcd=1", &field)), "size of a field");
        let fields = limits(|l| l.fields_size = 7);
        assert_eq!(what(read("a=1&b=2", &fields)), "");
        assert_eq!(what(read("a=1&b=23", &fields)), "size of all fields");
        let total = limits(|l| l.total_size = 7);
        assert_eq!(what(read("a=1&b=2", &total)), "");
        assert_eq!(what(read("a=1&b=23", &total)), "total size");
        let unknown = Body::from_reader(io::repeat(b'&'), None);
        assert_eq!(what(Form::read(URLENCODED, unknown, &FormLimits::default())), "total size");
    }

    #[test]
    fn only_a_form_is_one() {
        let limits = FormLimits::default();
        let read = |content_type: &str, body: Body| Form::read(content_type, body, &limits);
        for content_type in
            ["", "text/plain", "application/json", "multipart/mixed; boundary=b", "multipart/form-datax"]
        {
            assert!(matches!(read(content_type, "a=1".into()), Err(MessageError::NotAForm)), "{content_type}");
            assert!(read(content_type, Body::empty()).is_ok());
            assert!(read(content_type, Body::from_reader(io::empty(), None)).is_ok());
        }
        let form = read("Application/X-WWW-Form-Urlencoded ; charset=UTF-8", "a=1".into()).unwrap();
        assert_eq!(form.value("a"), Some("1"));
        assert!(read(URLENCODED, Body::empty()).unwrap().fields().next().is_none());
    }

    #[test]
    fn a_failing_reader_is_no_short_form() {
        let limits = FormLimits::default();
        for content_type in [URLENCODED, "multipart/form-data; boundary=b", "text/plain"] {
            let body = Body::limited(io::repeat(b'a'), Some(11), 10);
            assert!(matches!(Form::read(content_type, body, &limits), Err(MessageError::BodyTooLarge { limit: 10 })));
        }
        for content_type in [URLENCODED, "multipart/form-data; boundary=b"] {
            let body = Body::limited(io::repeat(b'a'), None, 10);
            assert!(matches!(Form::read(content_type, body, &limits), Err(MessageError::BodyTooLarge { limit: 10 })));
            let body = Body::limited(&b"a=1"[..], Some(4), 10);
            assert!(matches!(Form::read(content_type, body, &limits), Err(MessageError::Body(_))));
        }
    }
}
