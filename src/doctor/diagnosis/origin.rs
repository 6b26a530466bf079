//! Where a request comes from: scheme, host, client, and whom the program believes.

use super::mend::{apache, lighttpd, nginx_all_params, nginx_outside, nginx_params, program};
use super::{Case, Finding};
use crate::doctor::answer::Way;
use crate::doctor::probes::{AUTHORIZATION, FORGED_ADDRESS, FORGED_HOST};
use crate::doctor::report::{Mend, Severity};

/// The value of `--trusted-proxy` for the front server, where that is what its requests come from.
fn trust(case: &Case<'_>) -> Vec<Mend> {
    let peer = case.first.value("REMOTE_ADDR").unwrap_or("ADDRESS");
    program(case.way(), "--trusted-proxy", "CLOAKROOM_TRUSTED_PROXY", peer)
}

/// What a proxy that speaks HTTP has to say of the client: all of it, as what it passes on is the client's word.
fn forwarding(case: &Case<'_>) -> Vec<Mend> {
    if case.way() != Way::Http {
        return Vec::new();
    }
    let fields = [HOST, "X-Forwarded-For $remote_addr", "X-Forwarded-Proto $scheme", FORWARDED_HOST];
    let apache_lines = [
        "ProxyPreserveHost On",
        "RequestHeader set X-Forwarded-Proto expr=%{REQUEST_SCHEME}",
        "RequestHeader unset X-Forwarded-For early",
        "RequestHeader unset X-Forwarded-Host early",
    ];
    let nginx = [Some(port_map()), nginx_params(Way::Http, &[], &fields)];
    nginx.into_iter().flatten().chain([apache(apache_lines)]).collect()
}

const HOST: &str = "Host $host$cloakroom_port";
const FORWARDED_HOST: &str = "X-Forwarded-Host $host$cloakroom_port";

/// The port that the client named: nginx's `$host` has none, and its `$http_host` is not always the host it chose.
fn port_map() -> Mend {
    nginx_outside([
        "map $http_host $cloakroom_port {",
        "    default \"\";",
        "    \"~(?<cloakroom_digits>:[0-9]+)$\" $cloakroom_digits;",
        "}",
    ])
}

/// Whether the program knows that the client came by TLS, or that it did not.
pub(super) fn scheme(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "scheme";
    let derived = case.derived()?;
    let wanted = case.target.scheme();
    let [https, scheme] = ["HTTPS", "REQUEST_SCHEME"].map(|name| case.first.value(name));
    let said = || {
        let tell =
            |name, value: Option<&str>| value.map_or(format!("no {name}"), |value| format!("{name} is {value:?}"));
        format!("{}, {}", tell("HTTPS", https), tell("REQUEST_SCHEME", scheme))
    };
    let lines = || nginx_params(case.way(), &["REQUEST_SCHEME $scheme", "HTTPS $https if_not_empty"], &[]);
    if derived.scheme != wanted {
        let text = format!("the client came by {wanted}, and the program believes {} ({})", derived.scheme, said());
        let mut finding = Finding::fail(CHECK, text).mend(lines());
        if case.target.is_https {
            // Who ends TLS says so; where that is another one before the front server, it is not known there.
            if case.way() != Way::Http {
                finding = finding.mend([apache(["SSLEngine on"]), lighttpd(["ssl.engine = \"enable\""])]);
            }
            finding = finding.mend(trust(case)).mend(forwarding(case));
        } else {
            finding = finding.mend([apache(["UnsetEnv HTTPS"])]);
        }
        return Some(finding);
    }
    let is_on = https.is_some_and(|value| value.eq_ignore_ascii_case("on") || value == "1");
    if scheme.is_some_and(|scheme| (scheme == "https") != is_on) && !case.first.configured.trusts_proxies {
        return Some(Finding::warn(CHECK, format!("they contradict each other: {}", said())).mend(lines()));
    }
    Some(Finding::ok(CHECK, wanted))
}

/// Whether session cookies are `Secure`, exactly where that is right.
pub(super) fn cookie(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "cookie";
    let derived = case.derived()?;
    let is_secure = derived.cookie.split("; ").skip(1).any(|attribute| attribute.eq_ignore_ascii_case("Secure"));
    Some(match (case.target.is_https, is_secure) {
        (true, true) => Finding::ok(CHECK, "Secure"),
        (false, false) => Finding::ok(CHECK, "not Secure, as this is not https"),
        (true, false) => Finding::fail(CHECK, "not Secure: it would be sent without encryption, too; see scheme"),
        (false, true) => {
            Finding::warn(CHECK, "Secure, and browsers do not send it back by http: every visit is a new session")
        }
    })
}

/// Whether links lead back to where the client came from.
pub(super) fn authority(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "host";
    let derived = case.derived()?;
    let wanted = case.target.authority();
    if derived.authority.eq_ignore_ascii_case(&wanted) {
        return Some(Finding::ok(CHECK, wanted));
    }
    let text = format!("redirects lead to {} and not to {wanted}", derived.authority);
    let nginx = match case.way() {
        Way::Cgi => Vec::new(),
        Way::Scgi => nginx_all_params(),
        Way::Http => nginx_params(Way::Http, &[], &[HOST]).into_iter().collect(),
    };
    let nginx = nginx.into_iter().flat_map(|lines| [port_map(), lines]);
    let apache = (case.way() == Way::Http).then(|| apache(["ProxyPreserveHost On"]));
    Some(Finding::fail(CHECK, text).mend(nginx).mend(apache))
}

pub(super) fn client(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "client";
    let derived = case.derived()?;
    let own = case.seen.own.to_string();
    let is_proxied = case.way() == Way::Http && case.server.is_some();
    let lines = || nginx_params(case.way(), &["REMOTE_ADDR $remote_addr"], &[]);
    Some(match &derived.client_address {
        None => Finding::warn(CHECK, "the program does not know the client's address").mend(lines()),
        Some(address) if is_proxied && !case.first.configured.trusts_proxies => {
            let text = format!("the program takes the proxy, {address}, for the client");
            Finding::warn(CHECK, text).mend(trust(case)).mend(forwarding(case))
        }
        Some(address) if *address == own => Finding::ok(CHECK, own),
        Some(address) => {
            let is_inner = address.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
            let severity = if is_inner && !case.seen.own.is_loopback() { Severity::Warn } else { Severity::Note };
            let text = format!(
                "the program takes {address} for the client, and this machine is {own}: right where addresses are \
                 translated between them, and where {address} is a proxy, it is to be trusted"
            );
            let mend = if severity == Severity::Warn { trust(case) } else { Vec::new() };
            Finding::new(CHECK, severity, text).mend(mend)
        }
    })
}

/// Whether a client can say who it is.
pub(super) fn forged(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "forwarding";
    let answer = case.rest.forged.answer()?;
    let Some((request, plain)) = answer.request.as_ref().zip(case.derived()) else {
        case.derived()?;
        return Some(Finding::note(CHECK, "a request with X-Forwarded-For, -Proto, -Host and Forwarded is refused"));
    };
    let is_address = request.client_address.as_deref() == Some(FORGED_ADDRESS);
    let is_other = request.authority == FORGED_HOST || request.scheme != plain.scheme;
    if !is_address && !is_other {
        return Some(Finding::ok(CHECK, "X-Forwarded-For, -Proto, -Host and Forwarded of a client are not believed"));
    }
    // A proxy that adds the client to the list does right; that what stands before it counts is then this machine's doing.
    let last = answer.value("HTTP_X_FORWARDED_FOR").and_then(|list| list.rsplit(',').next()).map(str::trim);
    let is_added = !is_other && last == Some(case.seen.own.to_string().as_str());
    let text = "the program believes a client's own X-Forwarded-For, -Proto, -Host or Forwarded";
    // Over SCGI and CGI it is the client whom the program knows as its peer, and here that is this machine.
    if case.way() != Way::Http || case.server.is_none() || is_added {
        let text = format!("{text} from this machine, since it is a trusted proxy: ask from one that is not");
        return Some(Finding::note(CHECK, text));
    }
    let fields = ["X-Forwarded-For $remote_addr", "X-Forwarded-Proto $scheme", FORWARDED_HOST, "Forwarded \"\""];
    let apache_lines = [
        "RequestHeader set X-Forwarded-Proto expr=%{REQUEST_SCHEME}",
        "RequestHeader unset X-Forwarded-For early",
        "RequestHeader unset X-Forwarded-Host early",
        "RequestHeader unset Forwarded early",
    ];
    Some(
        Finding::fail(CHECK, text)
            .mend([port_map()])
            .mend(nginx_params(Way::Http, &[], &fields))
            .mend([apache(apache_lines)]),
    )
}

/// A name that nobody has checked must not look as if somebody had.
pub(super) fn remote_user(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "remote-user";
    let answer = case.rest.authorization.answer()?;
    let set: Vec<&str> =
        ["REMOTE_USER", "AUTH_TYPE"].into_iter().filter(|name| answer.variables.contains_key(*name)).collect();
    if set.is_empty() {
        return Some(Finding::ok(CHECK, "no name that nobody has checked"));
    }
    let kind = AUTHORIZATION.split(' ').next().unwrap_or_default();
    let text = format!("an unchecked {kind} password sets {}: the program takes it for checked", set.join(" and "));
    let params: Vec<String> = set.iter().map(|name| format!("{name} \"\" if_not_empty")).collect();
    let params: Vec<&str> = params.iter().map(String::as_str).collect();
    Some(Finding::fail(CHECK, text).mend(nginx_params(case.way(), &params, &[])))
}

/// What RFC 3875 wants every server to say, and nginx only says where it is told to.
pub(super) fn variables(case: &Case<'_>) -> Option<Finding> {
    const CHECK: &str = "variables";
    const WANTED: [(&str, &str); 6] = [
        ("SERVER_PROTOCOL", "$server_protocol"),
        ("SERVER_NAME", "$server_name"),
        ("SERVER_PORT", "$server_port"),
        ("SERVER_SOFTWARE", "nginx/$nginx_version"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SCGI", "1"),
    ];
    if case.way() == Way::Http {
        return None;
    }
    let is_missing = |name: &str| {
        let is_for_scgi = name == "SCGI";
        (case.way() == Way::Scgi || !is_for_scgi) && case.first.value(name).is_none_or(str::is_empty)
    };
    let missing: Vec<_> = WANTED.into_iter().filter(|(name, _)| is_missing(name)).collect();
    if missing.is_empty() {
        return Some(Finding::ok(CHECK, "all that RFC 3875 asks for"));
    }
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    let is_needed = names.iter().any(|name| WANTED[..3].iter().any(|(needed, _)| needed == name));
    let severity = if is_needed { Severity::Warn } else { Severity::Note };
    let finding = Finding::new(CHECK, severity, format!("missing: {}", names.join(", ")));
    if !is_needed {
        return Some(finding);
    }
    let params: Vec<String> = missing.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let params: Vec<&str> = params.iter().map(String::as_str).collect();
    Some(finding.mend(nginx_params(case.way(), &params, &[])))
}
