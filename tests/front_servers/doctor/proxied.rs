//! An HTTP pool behind servers that are reverse proxies: the files of `deploy/`, with HTTP in place of SCGI.

use super::TOKEN;
use super::heal::Edit::{Add, Drop, Replace};
use super::heal::{find, mend};
use crate::site::{Front, Plan, Site, free_address};

const MODULES: &str = "LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so\n\
                       LoadModule headers_module /usr/lib/apache2/modules/mod_headers.so\n";

/// A pool that also speaks HTTP, and the file of a web server that goes there.
fn proxied(front: Front, https: bool, trusted: bool) -> (Plan, impl Fn(String) -> String + Copy) {
    let address = &*free_address().to_string().leak();
    let mut arguments = vec!["--http", address];
    if trusted {
        arguments.extend(["--trusted-proxy", "127.0.0.1"]);
    }
    let plan = Plan { https, doctor_token: Some(TOKEN), pool_arguments: arguments.leak(), ..Plan::default() };
    let line = match front {
        Front::NginxScgi => format!("proxy_pass http://{address};"),
        Front::ApacheScgi => format!("ProxyPass \"http://{address}/\" nocanon"),
        _ => {
            let (host, port) = address.split_once(':').unwrap();
            format!("proxy.server = ( \"\" => (( \"host\" => \"{host}\", \"port\" => {port} )) )")
        }
    };
    let line: &'static str = line.leak();
    let edit = move |file: String| match front {
        Front::NginxScgi => Drop("scgi_").apply(&Replace("scgi_pass ", line).apply(&file)),
        Front::ApacheScgi => MODULES.to_owned() + &Drop("ProxySCGI").apply(&Replace("ProxyPass ", line).apply(&file)),
        _ => "server.modules += ( \"mod_proxy\" )\nserver.max-request-size = 8192\n".to_owned() + line + "\n",
    };
    (plan, edit)
}

#[test]
#[ignore = "needs nginx (Debian: nginx-light): run tests/run"]
fn nginx_that_says_nothing_of_the_client() {
    for (https, finds) in [
        (false, &["host", "client", "response-head"][..]),
        (true, &["scheme", "cookie", "host", "client", "response-head"]),
    ] {
        let (plan, edit) = proxied(Front::NginxScgi, https, false);
        mend(Front::NginxScgi, plan, &find(Front::NginxScgi, plan, finds, edit), edit);
    }
}

/// A proxy that is trusted must set each of the fields that are believed.
#[test]
#[ignore = "needs nginx (Debian: nginx-light): run tests/run"]
fn nginx_that_passes_the_clients_word_on() {
    let (plan, edit) = proxied(Front::NginxScgi, false, true);
    let edit = |file: String| {
        let file = Add("proxy_pass ", "proxy_buffer_size 16k; proxy_buffers 8 16k;").apply(&edit(file));
        Add("proxy_pass ", "proxy_set_header Host $host$cloakroom_port;").apply(&file)
    };
    mend(Front::NginxScgi, plan, &find(Front::NginxScgi, plan, &["forwarding"], edit), edit);
}

#[test]
#[ignore = "needs nginx (Debian: nginx-light): run tests/run"]
fn nginx_that_drops_and_replaces() {
    let (plan, edit) = proxied(Front::NginxScgi, false, true);
    let edit = |file: String| {
        let lines = "proxy_buffer_size 16k; proxy_buffers 8 16k; proxy_set_header Host $host$cloakroom_port;\n\
                     proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;\n\
                     proxy_set_header X-Forwarded-Host $host$cloakroom_port;\n\
                     proxy_set_header Authorization \"\";\nproxy_request_buffering off;\nproxy_hide_header Set-Cookie;";
        Add("proxy_pass ", lines).apply(&edit(file))
    };
    let finds = ["authorization", "redirect", "buffering"];
    mend(Front::NginxScgi, plan, &find(Front::NginxScgi, plan, &finds, edit), edit);
}

#[test]
#[ignore = "needs Apache (Debian: apache2): run tests/run"]
fn apache_that_says_little_of_the_client() {
    for (https, finds) in [(false, &["host", "client"][..]), (true, &["scheme", "cookie", "host", "client"])] {
        let (plan, edit) = proxied(Front::ApacheScgi, https, false);
        mend(Front::ApacheScgi, plan, &find(Front::ApacheScgi, plan, finds, edit), edit);
    }
}

#[test]
#[ignore = "needs Apache (Debian: apache2): run tests/run"]
fn apache_that_replaces_errors() {
    let (plan, edit) = proxied(Front::ApacheScgi, false, true);
    let edit = |file: String| {
        let file = Add("ProxyPass ", "ProxyErrorOverride On").apply(&edit(file));
        Add(
            "ProxyRequests ",
            "ProxyPreserveHost On\nRequestHeader unset X-Forwarded-Proto early\n\
                               RequestHeader unset X-Forwarded-Host early",
        )
        .apply(&file)
    };
    mend(Front::ApacheScgi, plan, &find(Front::ApacheScgi, plan, &["errors"], edit), edit);
}

#[test]
#[ignore = "needs Apache (Debian: apache2): run tests/run"]
fn apache_that_passes_the_clients_word_on() {
    let (plan, edit) = proxied(Front::ApacheScgi, false, true);
    let edit = |file: String| Add("ProxyRequests ", "ProxyPreserveHost On").apply(&edit(file));
    mend(Front::ApacheScgi, plan, &find(Front::ApacheScgi, plan, &["forwarding"], edit), edit);
}

/// Apache encodes once more what it was told not to decode.
#[test]
#[ignore = "needs Apache (Debian: apache2): run tests/run"]
fn apache_that_encodes_twice() {
    let (plan, edit) = proxied(Front::ApacheScgi, false, true);
    let with_host = |file: String| {
        Add("ProxyRequests ", "ProxyPreserveHost On\nRequestHeader unset X-Forwarded-Proto early\nRequestHeader unset X-Forwarded-Host early").apply(&edit(file))
    };
    let said = find(Front::ApacheScgi, plan, &["encoded-slash"], |file| with_host(file).replace(" nocanon", ""));
    assert!(said.text.contains(" nocanon"), "{}", said.text);
    let site = Site::start_with(Front::ApacheScgi, plan, with_host);
    let said = super::ask_site(&site, plan);
    assert_eq!((said.status, said.to_mend()), (0, vec![]), "{}", said.text);
}

#[test]
#[ignore = "needs lighttpd (Debian: lighttpd): run tests/run"]
fn lighttpd_says_who_the_client_is() {
    let (plan, edit) = proxied(Front::LighttpdScgi, false, false);
    mend(Front::LighttpdScgi, plan, &find(Front::LighttpdScgi, plan, &["client"], edit), edit);
    let (plan, edit) = proxied(Front::LighttpdScgi, true, true);
    let site = Site::start_with(Front::LighttpdScgi, plan, edit);
    let said = super::ask_site(&site, plan);
    assert_eq!((said.status, said.to_mend()), (0, vec![]), "{}", said.text);
}
