//! Requests and responses: what an application reads and answers.
//!
//! Built on the `http` crate's types. Nothing here knows how a message travels; the codecs are in `gateway`.

mod body;
mod error;
mod file;
mod form;
mod meta;
mod request;
mod response;

pub use body::Body;
pub use error::MessageError;
pub use form::{Form, FormLimits, Upload};
pub use meta::MetaVariables;
pub use request::Request;
pub(crate) use request::{RequestParts, cookies};
pub use response::Response;
pub(crate) fn finish(_: &RequestParts, _: &mut Response) {}
