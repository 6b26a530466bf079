//! Requests and responses: what an application reads and answers.
//!
//! Built on the `http` crate's types. Nothing here knows how a message travels; the codecs are in `gateway`.

mod body;
pub(crate) mod conditional;
mod cookies;
mod deadline;
mod error;
mod file;
mod form;
mod meta;
mod multipart;
mod request;
mod response;
mod upload;

pub use body::Body;
pub use cookie::{Cookie, SameSite};
pub(crate) use deadline::{Clock, Deadline};
pub use error::MessageError;
pub use form::{Form, FormLimits};
pub use meta::MetaVariables;
pub(crate) use meta::TooMany;
pub use request::Request;
pub(crate) use request::RequestParts;
pub use response::Response;
pub use upload::Upload;
