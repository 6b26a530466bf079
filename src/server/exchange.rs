//! One request and its response, whatever the transport.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use super::activity::Activity;
use crate::gateway::{self, Front, GatewayError, Limits, Site};
use crate::host::{Examination, Host};
use crate::message::{Body, MetaVariables, Request, RequestParts, Response};
use crate::sys::log::log;

/// What a connection needs of a [`Host`].
pub(super) trait Application {
    fn limits(&self) -> &Limits;
    fn site(&self) -> &Site;
    fn respond(&self, request: Request) -> Response;
    /// See [`Host::examination`].
    fn examination(&self, meta: &MetaVariables, front: Front, since: Instant) -> Option<Examination>;
    /// The answer for the doctor, see [`Examination::answer`].
    fn examine(&self, examination: Examination, parts: &RequestParts, body: Body) -> Response;
}

impl Application for Host {
    fn limits(&self) -> &Limits {
        self.current_limits()
    }

    fn site(&self) -> &Site {
        self.site()
    }

    fn respond(&self, request: Request) -> Response {
        self.respond(request)
    }

    fn examination(&self, meta: &MetaVariables, front: Front, since: Instant) -> Option<Examination> {
        self.examination(meta, front, since)
    }

    fn examine(&self, examination: Examination, parts: &RequestParts, body: Body) -> Response {
        examination.answer(self, parts, body)
    }
}

/// Has the application answer, or, where it is the doctor who asks, the host in its place. The request's parts are
/// handed back for the response head; there are none where the doctor is told why its request was refused. `since` is
/// when the request's head was there.
pub(super) fn answer(
    meta: MetaVariables,
    body: Body,
    front: Front,
    since: Instant,
    application: &dyn Application,
    activity: &dyn Activity,
) -> Result<(Option<Arc<RequestParts>>, Response), GatewayError> {
    let examination = application.examination(&meta, front, since);
    let (parts, body) = match (gateway::request(meta, body, front, application.site()), &examination) {
        (Ok(request), _) => request.into_parts(),
        (Err(error), None) => return Err(error),
        (Err(error), Some(_)) => return Ok((None, examination.map(|it| it.refused(&error)).unwrap_or_default())),
    };
    if let Some(clock) = activity.clock() {
        parts.deadline.set(clock);
    }
    activity.begin(&parts.method, parts.path());
    let response = match examination {
        Some(examination) => application.examine(examination, &parts, body),
        None => application.respond(Request::new(Arc::clone(&parts), body)),
    };
    activity.end(response.status());
    Ok((Some(parts), response))
}

/// Logs why a request was refused, and makes the response that says so.
pub(super) fn refusal(protocol: &str, error: &GatewayError) -> Response {
    let status = error.status();
    match std::error::Error::source(error) {
        Some(source) => log!("{protocol}: refused with {}: {error}: {source}", status.as_str()),
        None => log!("{protocol}: refused with {}: {error}", status.as_str()),
    }
    plain(status)
}

/// A status with its own text.
pub(super) fn plain(status: StatusCode) -> Response {
    Response::text(format!("{} {}\n", status.as_str(), status.canonical_reason().unwrap_or("Error")))
        .with_status(status)
}

#[cfg(test)]
pub(super) mod support {
    //! An application with limits that a test can wait for.

    use std::cell::{Cell, RefCell};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::thread::JoinHandle;
    use std::time::Duration;

    use http::Method;

    use super::*;
    use crate::server::stream::Stream;

    /// Answers with what it was asked.
    pub(in crate::server) struct Echo {
        pub(in crate::server) limits: Limits,
        pub(in crate::server) site: Site,
    }

    impl Echo {
        pub(in crate::server) fn new() -> Self {
            let brief = Duration::from_millis(150);
            let limits = Limits {
                body: 200_000,
                head_timeout: brief,
                body_timeout: brief,
                write_timeout: brief,
                ..Limits::default()
            };
            Self { limits, site: Site::default() }
        }
    }

    impl Application for Echo {
        fn limits(&self) -> &Limits {
            &self.limits
        }

        fn site(&self) -> &Site {
            &self.site
        }

        fn examination(&self, _meta: &MetaVariables, _front: Front, _since: Instant) -> Option<Examination> {
            None
        }

        fn examine(&self, _examination: Examination, _parts: &RequestParts, _body: Body) -> Response {
            unreachable!("there is no examination")
        }

        fn respond(&self, mut request: Request) -> Response {
            let large = || std::io::repeat(b'x');
            match request.path() {
                "/stream" => Response::stream("text/plain", large().take(100_000)),
                "/known" => Response::of("text/plain", Body::from_reader(large(), Some(100_000))),
                "/short" => Response::of("text/plain", Body::from_reader(large().take(70_000), Some(100_000))),
                "/empty" => Response::of("text/plain", Body::from_reader(std::io::empty(), Some(1))),
                "/fails" => Response::stream("text/plain", large().take(70_000).chain(Failing)),
                "/panics" => Response::stream("text/plain", Panicking),
                "/big" => Response::text("x".repeat(3_000_000)),
                _ => {
                    let body = std::mem::take(request.body()).into_bytes().unwrap();
                    let line = format!("{} {} {}\n", request.method(), request.path(), body.len());
                    let mut text = line.into_bytes();
                    text.extend_from_slice(&body[..body.len().min(100)]);
                    Response::bytes("text/plain", text)
                }
            }
        }
    }

    struct Failing;

    impl Read for Failing {
        fn read(&mut self, _buffer: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("disk on fire"))
        }
    }

    struct Panicking;

    impl Read for Panicking {
        fn read(&mut self, _buffer: &mut [u8]) -> std::io::Result<usize> {
            panic!("a reader of the application's")
        }
    }

    /// Counts what it is told.
    #[derive(Default)]
    pub(in crate::server) struct Counter {
        pub(in crate::server) begun: RefCell<Vec<String>>,
        pub(in crate::server) ended: Cell<u32>,
        pub(in crate::server) stopping: Cell<bool>,
    }

    impl Activity for Counter {
        fn begin(&self, method: &Method, path: &str) {
            self.begun.borrow_mut().push(format!("{method} {path}"));
        }

        fn end(&self, _status: StatusCode) {
            self.ended.set(self.ended.get() + 1);
        }

        fn stopping(&self) -> bool {
            self.stopping.get()
        }
    }

    /// A client that writes each of `pieces`, with a pause before all but the first, then reads to the end.
    pub(in crate::server) fn client(pieces: Vec<Vec<u8>>) -> (Stream, JoinHandle<Vec<u8>>) {
        let (mut client, server) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            for (i, piece) in pieces.iter().enumerate() {
                if i > 0 {
                    std::thread::sleep(Duration::from_millis(20));
                }
                if client.write_all(piece).is_err() {
                    break;
                }
            }
            let mut response = Vec::new();
            let _ = client.read_to_end(&mut response);
            response
        });
        (Stream::new(server, None, None), thread)
    }
}
