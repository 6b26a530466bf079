//! The lines that mend something.

use crate::doctor::answer::Way;
use crate::doctor::report::{Mend, Server};

const IN_LOCATION: &str = "in the location { }";
const IN_ENTRY: &str = "in the entry of scgi.server";
const IN_FILE: &str = "in its configuration";
const IN_HOST: &str = "in the <VirtualHost>";

fn mend<L: Into<String>>(server: Server, place: &'static str, lines: impl IntoIterator<Item = L>) -> Mend {
    Mend { server, place, lines: lines.into_iter().map(Into::into).collect() }
}

pub(super) fn nginx<L: Into<String>>(lines: impl IntoIterator<Item = L>) -> Mend {
    mend(Server::Nginx, IN_LOCATION, lines)
}

pub(super) fn nginx_server<L: Into<String>>(lines: impl IntoIterator<Item = L>) -> Mend {
    mend(Server::Nginx, "in the server { }", lines)
}

pub(super) fn nginx_outside<L: Into<String>>(lines: impl IntoIterator<Item = L>) -> Mend {
    mend(Server::Nginx, "before the server { }", lines)
}

/// All that nginx is to say over SCGI. A file that it includes cannot be mended line by line: a variable that is sent
/// twice is refused.
pub(super) fn nginx_all_params() -> Vec<Mend> {
    let params = ALL_PARAMS.iter().map(|param| format!("scgi_param {param};"));
    vec![nginx(std::iter::once("# in place of include scgi_params:".to_owned()).chain(params))]
}

/// As in `deploy/nginx`.
const ALL_PARAMS: [&str; 17] = [
    "SCGI 1",
    "GATEWAY_INTERFACE CGI/1.1",
    "SERVER_SOFTWARE nginx/$nginx_version",
    "REQUEST_METHOD $request_method",
    "REQUEST_URI $request_uri",
    "QUERY_STRING $query_string",
    "CONTENT_TYPE $content_type",
    "DOCUMENT_URI $document_uri",
    "SERVER_PROTOCOL $server_protocol",
    "REQUEST_SCHEME $scheme",
    "HTTPS $https if_not_empty",
    "REMOTE_ADDR $remote_addr",
    "REMOTE_PORT $remote_port",
    "SERVER_ADDR $server_addr",
    "SERVER_PORT $server_port",
    "SERVER_NAME $server_name",
    "HTTP_HOST $host$cloakroom_port",
];

/// The line that a location begins with.
pub(super) fn nginx_location(mount: &str) -> Mend {
    let line = if mount.is_empty() { "location / {".to_owned() } else { format!("location ~ ^{mount}(/|$) {{") };
    mend(Server::Nginx, "as the first line of the location", [line])
}

/// The same for Apache's `<Location>`.
pub(super) fn apache_first_line(line: String) -> Mend {
    mend(Server::Apache, "as the first line of the <Location>", [line])
}

/// A variable where nginx speaks SCGI, a header field where it speaks HTTP; or nothing, as it speaks no CGI.
pub(super) fn nginx_params(way: Way, scgi: &[&str], http: &[&str]) -> Option<Mend> {
    match way {
        Way::Cgi => None,
        Way::Scgi => Some(nginx(scgi.iter().map(|param| format!("scgi_param {param};")))),
        Way::Http if http.is_empty() => None,
        Way::Http => Some(nginx(http.iter().map(|field| format!("proxy_set_header {field};")))),
    }
}

/// A directive that begins with `scgi_` or `proxy_`, as nginx speaks.
pub(super) fn nginx_upstream(way: Way, directives: &[&str]) -> Option<Mend> {
    let prefix = match way {
        Way::Cgi => return None,
        Way::Scgi => "scgi",
        Way::Http => "proxy",
    };
    Some(nginx(directives.iter().map(|directive| format!("{prefix}_{directive};"))))
}

pub(super) fn apache<L: Into<String>>(lines: impl IntoIterator<Item = L>) -> Mend {
    mend(Server::Apache, IN_HOST, lines)
}

/// What Apache wants where the program is named.
pub(super) fn apache_location<L: Into<String>>(way: Way, lines: impl IntoIterator<Item = L>) -> Mend {
    let place = if way == Way::Cgi { "in the <Directory> of the program" } else { "in the <Location>" };
    mend(Server::Apache, place, lines)
}

pub(super) fn lighttpd<L: Into<String>>(lines: impl IntoIterator<Item = L>) -> Mend {
    mend(Server::Lighttpd, IN_FILE, lines)
}

pub(super) fn lighttpd_entry<L: Into<String>>(lines: impl IntoIterator<Item = L>) -> Mend {
    mend(Server::Lighttpd, IN_ENTRY, lines)
}

/// An option of the program: as a flag, or under CGI as a variable, which the web server sets.
pub(super) fn program(way: Way, flag: &str, variable: &str, value: &str) -> Vec<Mend> {
    match way {
        Way::Cgi => vec![
            apache([format!("SetEnv {variable} \"{value}\"")]),
            mend(Server::Lighttpd, "in setenv.set-environment ( )", [format!("\"{variable}\" => \"{value}\",")]),
        ],
        Way::Scgi | Way::Http => vec![mend(Server::Program, "on its command line", [format!("{flag} {value}")])],
    }
}

/// The environment of a pool. Not `Environment=`, which every user may read.
pub(super) fn environment<L: Into<String>>(lines: impl IntoIterator<Item = L>) -> Mend {
    mend(Server::Program, "a pool: in its environment, as in a file that EnvironmentFile= of its unit names", lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_that_of_the_file_to_install() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/nginx/cloakroom.conf");
        let file = std::fs::read_to_string(path).unwrap();
        let lines = file.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        let params: Vec<String> = lines.filter(|line| line.starts_with("scgi_param ")).collect();
        let mut own = nginx_all_params()[0].lines[1..].to_vec();
        own.push("scgi_param HTTP_PROXY \"\" if_not_empty;".to_owned());
        assert_eq!(own, params);
    }
}
