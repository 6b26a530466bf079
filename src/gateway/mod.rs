//! Pure codecs: bytes and meta-variables in, [`Request`](crate::message::Request) out; [`Response`](crate::message::Response)
//! in, bytes out. No sockets, no processes, no clocks.

mod error;
mod limits;
mod request;

pub use error::GatewayError;
pub use limits::Limits;
pub(crate) use request::{Front, Site, request};
