//! What a deployment tells its doctor: JSON, the same on both sides.
//!
//! Values only of what the doctor sent itself or what the front server says of itself; of the client's secrets the
//! length, and of the rest of the environment nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The request header field that carries the token, and its meta-variable.
pub(crate) const TOKEN_FIELD: &str = "X-Cloakroom-Doctor";
pub(crate) const TOKEN_VARIABLE: &str = "HTTP_X_CLOAKROOM_DOCTOR";
/// The same for what is asked besides.
pub(crate) const ASK_FIELD: &str = "X-Cloakroom-Doctor-Ask";
pub(crate) const ASK_VARIABLE: &str = "HTTP_X_CLOAKROOM_DOCTOR_ASK";
/// A request header field whose value comes back.
pub(crate) const PROBE_FIELD: &str = "X-Cloakroom-Probe";
pub(crate) const PROBE_VARIABLE: &str = "HTTP_X_CLOAKROOM_PROBE";
/// Where a redirect for the doctor leads, below the mount, and the cookie that goes with it.
pub(crate) const LANDING: &str = "/cloakroom-doctor/landing?a=b";
pub(crate) const SECOND_COOKIE: &str = "cloakroom-doctor=second";

/// What is asked of a deployment besides what it received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Plain,
    /// A response head of at least so many bytes.
    Head(usize),
    /// A redirect to [`LANDING`], with two cookies.
    Redirect,
    /// This status.
    Status(u16),
}

impl Ask {
    /// More is what no front server takes.
    const MOST_HEAD: usize = 32 * 1024;

    pub(crate) fn parse(text: &str) -> Self {
        match text.split_once('=') {
            Some(("head", size)) => Self::Head(size.parse().unwrap_or(0).min(Self::MOST_HEAD)),
            Some(("status", status)) => match status.parse() {
                Ok(status @ 400..=599) => Self::Status(status),
                _ => Self::Plain,
            },
            None if text == "redirect" => Self::Redirect,
            _ => Self::Plain,
        }
    }

    pub(crate) fn text(self) -> String {
        match self {
            Self::Plain => String::new(),
            Self::Head(size) => format!("head={size}"),
            Self::Redirect => "redirect".to_owned(),
            Self::Status(status) => format!("status={status}"),
        }
    }
}

/// How a program is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    Cgi,
    Scgi,
    Http,
}

/// What arrived.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The version of the package, and by its presence the sign that this is an answer for the doctor.
    pub(crate) cloakroom: String,
    pub(crate) way: Way,
    pub(crate) variables: BTreeMap<String, Variable>,
    /// Why the request would have been refused.
    pub(crate) refused: Option<Refused>,
    /// What was made of it, where it was not.
    pub(crate) request: Option<Derived>,
    pub(crate) body: Option<BodySeen>,
    pub(crate) configured: Configured,
}

/// A meta-variable: its value where that is harmless, its length where a client sent it, or that it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Variable {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) length: Option<usize>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) reason: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Derived {
    pub(crate) method: String,
    pub(crate) script_name: String,
    pub(crate) path_info: String,
    pub(crate) scheme: String,
    pub(crate) authority: String,
    pub(crate) client_address: Option<String>,
    /// The `Set-Cookie` that takes a session's cookie back: its attributes are those of every session's.
    pub(crate) cookie: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BodySeen {
    pub(crate) length: u64,
    pub(crate) error: Option<String>,
    /// From the end of the request head to the end of the message-body.
    pub(crate) milliseconds: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Configured {
    pub(crate) script_name: Option<String>,
    pub(crate) trusts_proxies: bool,
    pub(crate) body_limit: u64,
}

impl Variable {
    /// Meta-variables that hold nothing of a client's secrets.
    const SHOWN: &[&str] = &[
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "DOCUMENT_ROOT",
        "DOCUMENT_URI",
        "GATEWAY_INTERFACE",
        "HTTPS",
        "HTTP_CONTENT_LENGTH",
        "HTTP_CONTENT_TYPE",
        "HTTP_FORWARDED",
        "HTTP_HOST",
        "HTTP_TRANSFER_ENCODING",
        "HTTP_X_FORWARDED_FOR",
        "HTTP_X_FORWARDED_HOST",
        "HTTP_X_FORWARDED_PROTO",
        "PATH_INFO",
        PROBE_VARIABLE,
        "QUERY_STRING",
        "REDIRECT_STATUS",
        "REDIRECT_URL",
        "REMOTE_ADDR",
        "REMOTE_PORT",
        "REQUEST_METHOD",
        "REQUEST_SCHEME",
        "REQUEST_URI",
        "SCGI",
        "SCRIPT_NAME",
        "SERVER_ADDR",
        "SERVER_NAME",
        "SERVER_PORT",
        "SERVER_PROTOCOL",
        "SERVER_SOFTWARE",
    ];
    /// Those that are only said to be there. Whatever else is in a CGI script's environment is nobody's business.
    const NAMED: &[&str] = &["AUTH_TYPE", "REMOTE_IDENT", "REMOTE_USER"];

    /// How this meta-variable is told, if it is.
    pub(crate) fn of(name: &str, value: &[u8]) -> Option<Self> {
        if Self::SHOWN.contains(&name) {
            Some(Self { value: Some(String::from_utf8_lossy(value).into_owned()), length: None })
        } else if name.starts_with("HTTP_") && name != TOKEN_VARIABLE {
            Some(Self { value: None, length: Some(value.len()) })
        } else if Self::NAMED.contains(&name) && !value.is_empty() {
            Some(Self::default())
        } else {
            None
        }
    }
}

impl Answer {
    /// The value of a meta-variable that is told with it.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.variables.get(name)?.value.as_deref()
    }

    /// The length of a header field.
    pub(super) fn length(&self, name: &str) -> Option<usize> {
        self.variables.get(name)?.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_survives_the_way() {
        for ask in [Ask::Head(6000), Ask::Redirect, Ask::Status(404), Ask::Plain] {
            assert_eq!(Ask::parse(&ask.text()), ask);
        }
        assert_eq!(Ask::parse("head=999999999"), Ask::Head(Ask::MOST_HEAD));
        for plain in ["", "x", "status=200", "status=x", "=", "redirect=1"] {
            assert_eq!(Ask::parse(plain), Ask::Plain, "{plain}");
        }
    }

    #[test]
    fn secrets_are_not_told() {
        for name in [TOKEN_VARIABLE, "DATABASE_PASSWORD", "PATH", "LD_PRELOAD", "CLOAKROOM_DOCTOR_TOKEN"] {
            assert_eq!(Variable::of(name, b"secret"), None, "{name}");
        }
        for name in ["HTTP_COOKIE", "HTTP_AUTHORIZATION", "HTTP_PROXY", "HTTP_X_API_KEY"] {
            assert_eq!(Variable::of(name, b"secret"), Some(Variable { value: None, length: Some(6) }), "{name}");
        }
        assert_eq!(Variable::of("REMOTE_USER", b"secret"), Some(Variable::default()));
        assert_eq!(Variable::of("HTTPS", b"on").unwrap().value.as_deref(), Some("on"));
    }
}
