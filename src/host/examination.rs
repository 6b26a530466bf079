//! The answer for the doctor: what a request looked like when it arrived, told only to whoever has the token.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::time::Instant;

use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue, SET_COOKIE};

use super::Host;
use crate::doctor::answer::{
    ASK_VARIABLE, Answer, Ask, BodySeen, Configured, Derived, LANDING, Refused, SECOND_COOKIE, TOKEN_VARIABLE,
    Variable, Way,
};
use crate::gateway::{Front, GatewayError};
use crate::message::{Body, MetaVariables, RequestParts, Response};

/// A request of the doctor's. It is answered here, whether or not the application would have seen it.
pub(crate) struct Examination {
    ask: Ask,
    answer: Answer,
    /// Since when its head was there.
    since: Instant,
}

impl Host {
    /// Whether this is a request of the doctor's: there is a token, and it is the same. Asked of the meta-variables as
    /// they came, since what is wrong with them is what the doctor wants to know.
    pub(crate) fn examination(&self, meta: &MetaVariables, front: Front, since: Instant) -> Option<Examination> {
        let token = self.doctor_token.as_ref()?;
        meta.get(TOKEN_VARIABLE).filter(|candidate| token.is(candidate))?;
        let mut variables = BTreeMap::new();
        for (name, value) in meta.iter() {
            if let Ok(name) = std::str::from_utf8(name)
                && let Some(variable) = Variable::of(name, value)
            {
                variables.insert(name.to_owned(), variable);
            }
        }
        let answer = Answer {
            cloakroom: env!("CARGO_PKG_VERSION").to_owned(),
            way: match front {
                Front::Cgi => Way::Cgi,
                Front::Scgi => Way::Scgi,
                Front::Http => Way::Http,
            },
            variables,
            refused: None,
            request: None,
            body: None,
            configured: Configured {
                script_name: self.site.script_name.clone(),
                trusts_proxies: !self.site.trusted_proxies.is_empty(),
                body_limit: self.limits.body,
            },
        };
        let ask = Ask::parse(meta.get_str(ASK_VARIABLE).unwrap_or_default());
        Some(Examination { ask, answer, since })
    }
}

impl Examination {
    /// The answer where the request was understood.
    pub(crate) fn answer(mut self, host: &Host, parts: &RequestParts, body: Body) -> Response {
        let cookie = host.settings.cookie.revoke(parts);
        self.answer.body = Some(self.read(body));
        self.answer.request = Some(Derived {
            method: parts.method.as_str().to_owned(),
            script_name: parts.script_name.clone(),
            path_info: String::from_utf8_lossy(&parts.path_info).into_owned(),
            scheme: parts.scheme().to_owned(),
            authority: parts.authority.clone(),
            client_address: parts.client_address.map(|address| address.to_string()),
            cookie: String::from_utf8_lossy(cookie.as_bytes()).into_owned(),
        });
        let mut response = self.response();
        match self.ask {
            Ask::Plain => {}
            Ask::Status(status) => *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default(),
            Ask::Redirect => {
                let location = parts.encoded_mount() + LANDING;
                if let Ok(redirect) = Response::redirect(&location) {
                    response = redirect;
                }
                response.headers_mut().append(SET_COOKIE, cookie);
                response.headers_mut().append(SET_COOKIE, HeaderValue::from_static(SECOND_COOKIE));
            }
            Ask::Head(size) => pad(&mut response, size),
        }
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    /// The answer where the request was refused before anybody saw it.
    pub(crate) fn refused(mut self, error: &GatewayError) -> Response {
        self.answer.refused = Some(Refused { status: error.status().as_u16(), reason: error.to_string() });
        let mut response = self.response();
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    fn response(&self) -> Response {
        Response::json(&self.answer).unwrap_or_else(|_| Response::new(StatusCode::INTERNAL_SERVER_ERROR))
    }

    fn read(&self, mut body: Body) -> BodySeen {
        let mut piece = vec![0; 16 * 1024];
        let mut length = 0;
        let error = loop {
            match body.next_piece(&mut piece) {
                Ok(0) => break None,
                Ok(n) => length += n as u64,
                Err(error) => break Some(kind(&error)),
            }
        };
        BodySeen { length, error, milliseconds: self.since.elapsed().as_millis() as u64 }
    }
}

fn kind(error: &io::Error) -> String {
    let mut text = error.to_string();
    if let Some(source) = error.get_ref().and_then(std::error::Error::source) {
        let _ = write!(text, ": {source}");
    }
    text
}

/// Fields of a usual size, since a front server may limit each by itself.
fn pad(response: &mut Response, size: usize) {
    let name = HeaderName::from_static("x-cloakroom-padding");
    let line = "x".repeat(476);
    let value = HeaderValue::from_str(&line).expect("letters");
    for _ in 0..size.div_ceil(500) {
        response.headers_mut().append(name.clone(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::Site;
    use crate::message::Request;
    use crate::session::Session;

    const TOKEN: &str = "0123456789abcdef";

    fn host() -> Host {
        Host::new(|_: Request, _: &mut Session| Ok(Response::text("the application")))
            .doctor_token(TOKEN.parse().unwrap())
    }

    fn meta(token: &str, more: &[(&str, &str)]) -> MetaVariables {
        let mut meta = MetaVariables::new();
        let usual = [("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/a"), ("HTTP_HOST", "example.org")];
        for (name, value) in usual.iter().chain(&[(TOKEN_VARIABLE, token)]).chain(more) {
            meta.push(name, value);
        }
        meta
    }

    fn answer(host: &Host, meta: MetaVariables) -> (http::HeaderMap, String) {
        let examination = host.examination(&meta, Front::Scgi, Instant::now()).unwrap();
        let response = match crate::gateway::request(meta, Body::from("body"), Front::Scgi, host.site()) {
            Ok(request) => {
                let (parts, body) = request.into_parts();
                examination.answer(host, &parts, body)
            }
            Err(error) => examination.refused(&error),
        };
        let (head, body) = response.into_http().into_parts();
        (head.headers, String::from_utf8(body.into_bytes().unwrap().to_vec()).unwrap())
    }

    #[test]
    fn nobody_is_told_anything_without_the_token() {
        for token in ["", "0123456789abcdeF", "0123456789abcde", "0123456789abcdef0"] {
            assert!(host().examination(&meta(token, &[]), Front::Cgi, Instant::now()).is_none(), "{token}");
        }
        let without = Host::new(|_: Request, _: &mut Session| Ok(Response::text("")));
        for token in ["", TOKEN] {
            assert!(without.examination(&meta(token, &[]), Front::Cgi, Instant::now()).is_none());
        }
    }

    #[test]
    fn tells_what_arrived_and_no_secret() {
        let more = [("HTTP_COOKIE", "session=secret"), ("HTTP_AUTHORIZATION", "Basic secret"), ("HTTPS", "on")];
        let (headers, text) = answer(&host(), meta(TOKEN, &more));
        assert!(!text.contains("secret") && !text.contains(TOKEN), "{text}");
        assert_eq!(headers[CACHE_CONTROL], "no-store");
        let told: Answer = serde_json::from_str(&text).unwrap();
        assert_eq!(told.variables["HTTP_COOKIE"].length, Some(14));
        let request = told.request.unwrap();
        assert_eq!((request.scheme.as_str(), request.path_info.as_str()), ("https", "/a"));
        assert!(request.cookie.contains("; Secure"), "{}", request.cookie);
        assert_eq!(told.body.unwrap().length, 4);
    }

    #[test]
    fn tells_why_a_request_is_refused() {
        let mut host = host().script_name("/app");
        let (_, text) = answer(&host, meta(TOKEN, &[("HTTP_PROXY", "x")]));
        let told: Answer = serde_json::from_str(&text).unwrap();
        assert_eq!(told.refused.unwrap().status, 404);
        assert!(told.request.is_none());
        assert_eq!(told.variables["HTTP_PROXY"].length, Some(1), "what a request loses on its way is told, too");
        host.site = Site::default();
        let (_, text) = answer(&host, meta(TOKEN, &[("HTTP_CONTENT_LENGTH", "7")]));
        assert!(serde_json::from_str::<Answer>(&text).unwrap().refused.unwrap().reason.contains("CONTENT_LENGTH"));
    }

    #[test]
    fn answers_as_it_is_asked() {
        let (headers, _) = answer(&host(), meta(TOKEN, &[(ASK_VARIABLE, "head=6000")]));
        let length: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        assert!((6000..7000).contains(&length), "{length}");
        let (headers, _) = answer(&host().script_name("/a"), meta(TOKEN, &[(ASK_VARIABLE, "redirect")]));
        assert_eq!(headers["location"], "/a/cloakroom-doctor/landing?a=b");
        assert_eq!(headers.get_all(SET_COOKIE).iter().count(), 2);
    }
}
