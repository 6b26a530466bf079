//! Each mistake of a configuration that the doctor knows, behind each server that it can be made with.

use super::TOKEN;
use super::heal::Edit::{Add, Drop, Replace};
use super::heal::{Mistake, find, heal, mend};
use crate::site::{Front, Plan};

/// A test for each of these mistakes with one server.
macro_rules! mistakes {
    ($module:ident, $front:ident, $reason:literal: $($name:ident { $($field:ident: $value:expr),* $(,)? })*) => {
        mod $module {
            use super::*;
            $(
                #[test]
                #[ignore = $reason]
                fn $name() {
                    heal(Front::$front, Mistake { $($field: $value,)* ..Mistake::default() });
                }
            )*
        }
    };
}

mistakes! { nginx_scgi, NginxScgi, "needs nginx (Debian: nginx-light): run tests/run":
    proxy_is_passed { edits: &[Drop("scgi_param HTTP_PROXY ")], finds: &["proxy"] }
    https_is_not_said {
        https: true,
        edits: &[Drop("scgi_param HTTPS "), Drop("scgi_param REQUEST_SCHEME ")],
        finds: &["scheme", "cookie"],
    }
    https_is_said_of_http {
        edits: &[Replace("scgi_param HTTPS ", "scgi_param HTTPS on;")],
        finds: &["scheme", "cookie"],
    }
    https_and_scheme_contradict {
        https: true,
        edits: &[Replace("scgi_param REQUEST_SCHEME ", "scgi_param REQUEST_SCHEME http;")],
        finds: &["scheme"],
    }
    the_port_is_lost {
        edits: &[Replace("scgi_param HTTP_HOST ", "scgi_param HTTP_HOST $host;")],
        finds: &["host"],
    }
    the_list_is_debians {
        edits: &[Drop("scgi_param "), Add("scgi_pass ", "include /etc/nginx/scgi_params;")],
        finds: &["host", "proxy"],
    }
    a_variable_is_given_twice {
        edits: &[Add("scgi_pass ", "scgi_param REQUEST_METHOD $request_method;")],
        finds: &["answer"],
        is_incurable: true,
    }
    response_heads_of_a_page {
        edits: &[Drop("scgi_buffer_size "), Drop("scgi_buffers ")],
        finds: &["response-head"],
    }
    bodies_of_one_mebibyte {
        edits: &[Replace("client_max_body_size ", "client_max_body_size 1m;")],
        finds: &["body-limit"],
    }
    bodies_of_the_default_size { edits: &[Drop("client_max_body_size ")], finds: &["body-limit"] }
    requests_are_not_buffered {
        edits: &[Replace("scgi_request_buffering ", "scgi_request_buffering off;")],
        finds: &["buffering", "body-limit"],
    }
    request_uri_is_decoded {
        edits: &[Replace("scgi_param REQUEST_URI ", "scgi_param REQUEST_URI $uri;")],
        finds: &["path", "request-uri"],
    }
    request_uri_is_missing { edits: &[Drop("scgi_param REQUEST_URI ")], finds: &["request-uri"] }
    nothing_says_the_path {
        edits: &[Drop("scgi_param REQUEST_URI "), Drop("scgi_param DOCUMENT_URI ")],
        finds: &["answer", "request-uri"],
    }
    the_method_is_missing { edits: &[Drop("scgi_param REQUEST_METHOD ")], finds: &["answer"] }
    the_query_is_missing { edits: &[Drop("scgi_param QUERY_STRING ")], finds: &["query"] }
    the_query_is_another {
        edits: &[Replace("scgi_param QUERY_STRING ", "scgi_param QUERY_STRING q=$uri;")],
        finds: &["query"],
    }
    the_content_type_is_missing { edits: &[Drop("scgi_param CONTENT_TYPE ")], finds: &["content-type"] }
    the_client_is_not_told { edits: &[Drop("scgi_param REMOTE_ADDR ")], finds: &["client"] }
    an_unchecked_user {
        edits: &[Add("scgi_pass ", "scgi_param REMOTE_USER $remote_user;")],
        finds: &["remote-user"],
    }
    authorization_is_dropped {
        edits: &[Add("scgi_pass ", "scgi_param HTTP_AUTHORIZATION \"\";")],
        finds: &["authorization"],
    }
    small_header_fields {
        edits: &[Add("server_name ", "large_client_header_buffers 4 2k;")],
        finds: &["request-head"],
    }
    errors_are_replaced {
        edits: &[
            Add("scgi_pass ", "scgi_intercept_errors on; error_page 404 = @own;"),
            Add("server_name ", "location @own { return 404 \"not here\"; }"),
            ],
        finds: &["errors"],
        is_incurable: true,
    }
    cookies_are_hidden { edits: &[Add("scgi_pass ", "scgi_hide_header Set-Cookie;")], finds: &["redirect"] }
    the_server_is_not_named {
        edits: &[Drop("scgi_param SERVER_NAME "), Drop("scgi_param SERVER_PORT "), Drop("scgi_param SERVER_PROTOCOL ")],
        finds: &["variables"],
    }
    the_program_does_not_know_its_mount {
        mount: "/app",
        arguments: &["--script-name", "/"],
        finds: &["mount"],
    }
    the_program_takes_the_root_for_a_mount { arguments: &["--script-name", "/app"], finds: &["mount"] }
    the_mount_has_a_slash_at_its_end {
        mount: "/app",
        edits: &[Replace("location ", "location ~ ^/app/ {")],
        finds: &["bare-mount"],
    }
    the_mount_takes_its_neighbours {
        mount: "/app",
        edits: &[Replace("location ", "location /app {")],
        finds: &["neighbours"],
    }
    the_front_page_is_another {
        edits: &[Add("server_name ", "location = / { return 403; }")],
        finds: &["front-page"],
        is_incurable: true,
    }
}

mistakes! { apache_cgi, ApacheCgi, "needs Apache (Debian: apache2): run tests/run":
    authorization_is_kept { edits: &[Drop("CGIPassAuth ")], finds: &["authorization"] }
    encoded_slashes_are_refused { edits: &[Drop("AllowEncodedSlashes ")], finds: &["encoded-slash"] }
    bodies_of_one_mebibyte { edits: &[Replace("LimitRequestBody ", "LimitRequestBody 1048576")], finds: &["body-limit"] }
    small_header_fields { edits: &[Add("ServerName ", "LimitRequestFieldSize 2000")], finds: &["request-head"] }
    https_is_said_of_http { edits: &[Add("ServerName ", "SetEnv HTTPS on")], finds: &["scheme", "cookie"] }
    a_mount_of_another_site {
        mount: "/app",
        edits: &[Add("ServerName ", "SetEnv CLOAKROOM_SCRIPT_NAME /other")],
        finds: &["mount"],
    }
}

mistakes! { apache_scgi, ApacheScgi, "needs Apache (Debian: apache2): run tests/run":
    authorization_is_kept { edits: &[Drop("CGIPassAuth ")], finds: &["authorization"] }
    encoded_slashes_are_refused { edits: &[Drop("AllowEncodedSlashes ")], finds: &["encoded-slash"] }
    bodies_of_one_mebibyte { edits: &[Replace("LimitRequestBody ", "LimitRequestBody 1048576")], finds: &["body-limit"] }
    small_header_fields { edits: &[Add("ServerName ", "LimitRequestFieldSize 2000")], finds: &["request-head"] }
    https_is_said_of_http { edits: &[Add("ServerName ", "SetEnv HTTPS on")], finds: &["scheme", "cookie"] }
    the_program_does_not_know_its_mount {
        mount: "/app",
        arguments: &["--script-name", "/"],
        finds: &["mount"],
    }
    the_mount_has_a_slash_at_its_end {
        mount: "/app",
        edits: &[Replace("<Location ", "<Location \"/app/\">")],
        finds: &["bare-mount"],
    }
}

mistakes! { lighttpd_cgi, LighttpdCgi, "needs lighttpd (Debian: lighttpd): run tests/run":
    bodies_of_one_mebibyte {
        edits: &[Replace("server.max-request-size ", "server.max-request-size = 1024")],
        finds: &["body-limit"],
    }
    small_header_fields {
        edits: &[Add("server.max-request-size ", "server.max-request-field-size = 2048")],
        finds: &["request-head"],
    }
    errors_are_replaced {
        edits: &[Add("server.max-request-size ", "server.error-intercept = \"enable\"")],
        finds: &["errors"],
    }
    requests_are_streamed {
        edits: &[Add("server.max-request-size ", "server.stream-request-body = 1")],
        finds: &["chunked", "buffering"],
    }
    a_mount_of_another_site {
        mount: "/app",
        edits: &[Add("setenv.set-environment ", "\"CLOAKROOM_SCRIPT_NAME\" => \"/other\",")],
        finds: &["mount"],
    }
}

mistakes! { lighttpd_scgi, LighttpdScgi, "needs lighttpd (Debian: lighttpd): run tests/run":
    a_segment_is_taken_for_the_script { edits: &[Drop("\"fix-root-scriptname\" ")], finds: &["script-name"] }
    bodies_of_one_mebibyte {
        edits: &[Replace("server.max-request-size ", "server.max-request-size = 1024")],
        finds: &["body-limit"],
    }
    small_header_fields {
        edits: &[Add("server.max-request-size ", "server.max-request-field-size = 2048")],
        finds: &["request-head"],
    }
    errors_are_replaced {
        edits: &[Add("server.max-request-size ", "server.error-intercept = \"enable\"")],
        finds: &["errors"],
    }
    requests_are_streamed {
        edits: &[Replace("server.stream-request-body ", "server.stream-request-body = 1")],
        finds: &["chunked", "buffering"],
    }
    the_program_does_not_know_its_mount {
        mount: "/app",
        arguments: &["--script-name", "/"],
        finds: &["mount"],
    }
}

#[test]
#[ignore = "needs Apache (Debian: apache2): run tests/run"]
fn apache_cgi_with_a_slash_at_the_end_of_the_mount() {
    let plan = Plan { mount: "/app", doctor_token: Some(TOKEN), ..Plan::default() };
    let edit = |file: String| {
        let file = file.replace("ScriptAlias \"/app\"", "ScriptAlias \"/app/\"");
        file.lines().map(|line| if line.contains("ScriptAlias") { line.replace("/demo\"", "/demo/\"") } else { line.to_owned() } + "\n").collect()
    };
    let said = find(Front::ApacheCgi, plan, &["bare-mount"], edit);
    mend(Front::ApacheCgi, plan, &said, edit);
}
