//! Requests over TLS, by curl(1). What it is to do goes to its stdin: arguments could be read by anybody who may run ps.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use super::client::{Client, ClientError, PATIENCE, Payload, Probe, Reply, parse};

pub(super) fn send(client: &Client<'_>, probe: &Probe) -> Result<Reply, ClientError> {
    // In a file, as stdin has the configuration. It is removed at the end of this function.
    let body = match &probe.payload {
        Payload::None => None,
        Payload::Whole(bytes) | Payload::Halves(bytes) | Payload::Chunked(bytes) => {
            let mut file = tempfile::NamedTempFile::new().map_err(ClientError::Request)?;
            file.write_all(bytes).map_err(ClientError::Request)?;
            Some(file)
        }
    };
    let mut config = configuration(client, probe);
    if let Some(file) = &body {
        let path = file.path().to_str().ok_or(ClientError::Malformed("the temporary directory is not UTF-8"))?;
        let _ = writeln!(config, "data-binary = \"@{}\"", quoted(path));
    }
    let mut command = Command::new("curl");
    // -q: not what the user has in ~/.curlrc.
    command.args(["-q", "-K", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ClientError::NoCurl,
        _ => ClientError::Curl(format!("start curl: {error}")),
    })?;
    // It reads all of it before it says anything, so nobody waits for the other; if it dies, its status says why.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(config.as_bytes());
    }
    let output = child.wait_with_output().map_err(ClientError::Request)?;
    // A server that answers before it has read everything makes a failure of the sending, but the answer is there.
    match parse(&output.stdout, true) {
        Ok(Some(reply)) => Ok(reply),
        _ if !output.status.success() => {
            let text = String::from_utf8_lossy(&output.stderr);
            let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("curl failed");
            Err(ClientError::Curl(line.to_owned()))
        }
        Ok(None) => Err(ClientError::Cut),
        Err(error) => Err(error),
    }
}

fn configuration(client: &Client<'_>, probe: &Probe) -> String {
    // HTTP/1.1, as in plain text: what comes back is read byte by byte (include, raw).
    let mut config = "silent\nshow-error\ninclude\nraw\nhttp1.1\npath-as-is\ngloboff\nnoproxy = \"*\"\n".to_owned();
    let _ = writeln!(config, "max-time = {}", 4 * PATIENCE.as_secs());
    if client.insecure {
        config.push_str("insecure\n");
    }
    let _ = writeln!(config, "url = \"{}\"", quoted(&client.target.url(&probe.path)));
    let _ = writeln!(config, "request = \"{}\"", probe.method());
    let framing = match &probe.payload {
        Payload::Chunked(_) => Some(("Transfer-Encoding", "chunked".to_owned())),
        _ => None,
    };
    for (name, value) in probe.all_fields(client.token).into_iter().chain(framing) {
        let _ = writeln!(config, "header = \"{name}: {}\"", quoted(&value));
    }
    // No waiting for an interim response, and nothing of its own.
    config.push_str("header = \"Expect:\"\nheader = \"Accept:\"\nheader = \"User-Agent:\"\n");
    config
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
