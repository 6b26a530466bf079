//! Pure codecs: bytes and meta-variables in, [`Request`](crate::message::Request) out; [`Response`](crate::message::Response)
//! in, bytes out. No sockets, no processes, no clocks.

pub(crate) mod cgi;
mod error;
mod fields;
pub(crate) mod http1;
mod limits;
mod location;
mod netstring;
mod number;
mod origin;
mod repeated;
mod request;
pub(crate) mod scgi;

pub use error::GatewayError;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use fields::push_field;
pub use limits::Limits;
pub(crate) use number::decimal;
pub(crate) use request::{Front, Site, request};
