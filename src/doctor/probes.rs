//! What is asked of a deployment, and what came back.

use std::net::IpAddr;

use super::answer::{Answer, Ask, PROBE_FIELD};
use super::client::{Client, ClientError, Payload, Probe, Reply};

/// A page that no application has: where the token is unknown there, nothing happens.
const PATH: &str = "/cloakroom-doctor";
/// Decoded once and no more, `%2541` is `%41`.
pub(super) const ESCAPED_PATH: &str = "/cloakroom-doctor/a%20b%2541/%C3%A9+c";
pub(super) const DECODED_PATH: &str = "/cloakroom-doctor/a b%41/\u{e9}+c";
pub(super) const QUERY: &str = "x=1%20a+b&y=%2F&z";
pub(super) const SLASH_PATH: &str = "/cloakroom-doctor/a%2Fb";
pub(super) const AUTHORIZATION: &str = "Basic Y2xvYWtyb29tOmRvY3Rvcg==";
/// Addresses and names that are nobody's (RFC 5737, RFC 6761).
pub(super) const FORGED_ADDRESS: &str = "192.0.2.77";
pub(super) const FORGED_HOST: &str = "forged.invalid";
pub(super) const FIELD_SIZE: usize = 6000;
pub(super) const HEAD_SIZES: [usize; 3] = [3500, 6000, 12000];
pub(super) const BODY_SIZE: usize = 3000;
/// A message-body that is longer is not sent to see whether it arrives.
pub(super) const MOST_BODY: u64 = 16 << 20;

/// What came back for one request.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Reply(Reply),
    /// Why nothing came.
    Failed(String),
}

impl Outcome {
    pub(super) fn answer(&self) -> Option<Answer> {
        match self {
            Self::Reply(reply) => reply.answer(),
            Self::Failed(_) => None,
        }
    }

    /// A status, or 0 where there is none.
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Reply(reply) => reply.status,
            Self::Failed(_) => 0,
        }
    }

    /// What is said of it where it is not what was hoped for.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Reply(reply) => format!("status {}", reply.status),
            Self::Failed(reason) => format!("no response ({reason})"),
        }
    }
}

/// All that came back.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The addresses of a connection to the front server: this machine's and its own.
    pub(super) own: IpAddr,
    pub(super) peer: IpAddr,
    pub(super) first: Outcome,
    /// `None` where the first answer was not the deployment's: nothing else was sent then.
    pub(super) rest: Option<Rest>,
}

/// What came back from a deployment that answers its doctor.
#[derive(Clone, Debug)]
pub(super) struct Rest {
    pub(super) page: Outcome,
    /// The mount without a slash; none where it is the root.
    pub(super) bare: Option<Outcome>,
    /// A path that only begins like the mount; none where that is the root.
    pub(super) neighbour: Option<Outcome>,
    pub(super) path: Outcome,
    pub(super) slash: Outcome,
    pub(super) authorization: Outcome,
    pub(super) proxy: Outcome,
    pub(super) forged: Outcome,
    pub(super) repeated: Outcome,
    pub(super) field: Outcome,
    /// As far as they were answered, and the first that was not.
    pub(super) heads: Vec<(usize, Outcome)>,
    pub(super) redirect: Outcome,
    pub(super) error: Outcome,
    pub(super) body: Outcome,
    pub(super) chunked: Outcome,
    /// Not over TLS.
    pub(super) halves: Option<Outcome>,
    /// A message-body as long as the program takes, and one that is longer, where they are not too long to be sent.
    pub(super) full: Option<Outcome>,
    pub(super) over: Option<Outcome>,
}

pub(super) fn examine(client: &Client<'_>) -> Result<Seen, ClientError> {
    let ends = client.ends()?;
    // Without a connection there is nothing to tell; once there was one, its failures are findings.
    let first = match client.send(&Probe::get(PATH)) {
        Ok(reply) => Outcome::Reply(reply),
        Err(error @ (ClientError::Cut | ClientError::Malformed(_) | ClientError::Request(_))) => {
            Outcome::Failed(error.to_string())
        }
        Err(error) => return Err(error),
    };
    let rest = first.answer().map(|answer| rest(client, &answer));
    Ok(Seen { own: ends.own, peer: ends.peer, first, rest })
}

fn rest(client: &Client<'_>, answer: &Answer) -> Rest {
    let ask = |probe: Probe| match client.send(&probe) {
        Ok(reply) => Outcome::Reply(reply),
        Err(error) => Outcome::Failed(error.to_string()),
    };
    let mut heads = Vec::new();
    for size in HEAD_SIZES {
        let outcome = ask(Probe::get(PATH).asking(Ask::Head(size)));
        let arrived = outcome.answer().is_some();
        heads.push((size, outcome));
        if !arrived {
            break;
        }
    }
    let other_scheme = if client.target.is_https { "http" } else { "https" };
    let forged = Probe::get(PATH)
        .field("X-Forwarded-For", FORGED_ADDRESS)
        .field("X-Forwarded-Proto", other_scheme)
        .field("X-Forwarded-Host", FORGED_HOST)
        .field("Forwarded", format!("for={FORGED_ADDRESS};proto={other_scheme};host={FORGED_HOST}"));
    let repeated = Probe::get(PATH)
        .field(PROBE_FIELD, "a")
        .field("Cookie", "cloakroom-a=1")
        .field(PROBE_FIELD, "b")
        .field("Cookie", "cloakroom-b=2");
    let limit = answer.configured.body_limit;
    let has_mount = !client.target.mount().is_empty();
    let filled = |length: u64| Payload::Whole(vec![b'x'; length as usize]);
    Rest {
        page: ask(Probe::get("/")),
        bare: has_mount.then(|| ask(Probe::get(""))),
        // `/app-cloakroom-doctor`, which may be another application's.
        neighbour: has_mount.then(|| ask(Probe::anonymous("-cloakroom-doctor"))),
        path: ask(Probe::get(&format!("{ESCAPED_PATH}?{QUERY}"))),
        slash: ask(Probe::get(SLASH_PATH)),
        authorization: ask(Probe::get(PATH).field("Authorization", AUTHORIZATION)),
        proxy: ask(Probe::get(PATH).field("Proxy", "http://192.0.2.1")),
        forged: ask(forged),
        repeated: ask(repeated),
        field: ask(Probe::get(PATH).field("X-Cloakroom-Long", "x".repeat(FIELD_SIZE))),
        heads,
        redirect: ask(Probe::get(PATH).asking(Ask::Redirect)),
        error: ask(Probe::get(PATH).asking(Ask::Status(404))),
        body: ask(Probe::post(filled(BODY_SIZE as u64))),
        chunked: ask(Probe::post(Payload::Chunked(vec![b'x'; BODY_SIZE]))),
        halves: (!client.target.is_https).then(|| ask(Probe::post(Payload::Halves(vec![b'x'; BODY_SIZE])))),
        full: (limit <= MOST_BODY).then(|| ask(Probe::post(filled(limit)))),
        over: (limit < MOST_BODY).then(|| ask(Probe::post(filled(limit + 1)))),
    }
}
