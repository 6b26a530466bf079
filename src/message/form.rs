//! Forms: `application/x-www-form-urlencoded` and `multipart/form-data`, with limits on everything.

use super::{Body, MessageError};

/// The limits of a form. What passes one is answered with 413.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FormLimits {
    /// Fields and files together. Default 1,000.
    pub count: usize,
    /// Bytes of one field that is no file. Default 1 MiB.
    pub field_size: u64,
    /// Bytes of one file. Default 8 MiB.
    pub file_size: u64,
    /// Bytes of all of them. Default 8 MiB, as for any message-body.
    pub total_size: u64,
}

impl Default for FormLimits {
    fn default() -> Self {
        Self { count: 1000, field_size: 1 << 20, file_size: 8 << 20, total_size: 8 << 20 }
    }
}

/// A form that was sent.
#[derive(Debug, Default)]
pub struct Form {
    fields: Vec<(String, String)>,
    files: Vec<Upload>,
}

/// A file of a form.
#[derive(Debug)]
pub struct Upload {
    _todo: (),
}

impl Form {
    pub(super) fn read(_content_type: &str, _body: Body, _limits: &FormLimits) -> Result<Self, MessageError> {
        todo!("written by the room's owner")
    }
}
