//! The looks: one frame for all pages, without anything that has to be fetched.

use cloakroom::{Request, Response, Result};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};

/// The style sheet, within each page. A change needs a new hash in [`POLICY`]; a test knows it.
const STYLE: &str = include_str!("style.css");

/// Nothing may be loaded, run or framed; one style sheet and the icon are let through.
const POLICY: &str = "default-src 'none'; style-src 'sha256-5crZLUinlKsU10RGEDlElzdh0QJoh+47TKSInm2P2fk='; \
                      img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A coat hanger.
pub(super) const HANGER: &str = "<svg viewBox=\"0 0 48 40\" aria-hidden=\"true\"><path d=\"M19.5 9.5A4.5 4.5 0 1 1 24 14v3m0 0L4 \
                                 31a2.5 2.5 0 0 0 1.5 4.5h37A2.5 2.5 0 0 0 44 31z\"/></svg>";

const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Cpath fill='%23a3283f' \
                    d='M3 8h26v5a3 3 0 0 0 0 6v5H3v-5a3 3 0 0 0 0-6z'/%3E%3Cpath stroke='%23fff' stroke-width='2' \
                    stroke-dasharray='2 2' d='M12 9v14'/%3E%3C/svg%3E";

/// As text between tags.
pub(super) fn text(text: &str) -> std::borrow::Cow<'_, str> {
    html_escape::encode_text(text)
}

/// As the value of an attribute in double quotes.
pub(super) fn attribute(text: &str) -> std::borrow::Cow<'_, str> {
    html_escape::encode_double_quoted_attribute(text)
}

/// A whole page.
pub(super) fn page(request: &Request, title: &str, main: &str) -> Result<Response> {
    let html = format!(
        "<!DOCTYPE html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<meta name=\"color-scheme\" content=\"light dark\">
<title>{title}</title>
<link rel=\"icon\" href=\"{ICON}\">
<style>{STYLE}</style>
</head>
<body>
<header><a href=\"{home}\">{HANGER}cloakroom</a></header>
<main>
{main}
</main>
<footer>One small program: CGI script, SCGI pool, HTTP server.</footer>
</body>
</html>
",
        title = text(title),
        home = attribute(&request.link("/")),
    );
    Ok(Response::html(html)
        // With IDs and tokens in it, and wrong as soon as the session changes.
        .with_header(CACHE_CONTROL, "no-store")?
        .with_header(CONTENT_SECURITY_POLICY, POLICY)?
        .with_header(X_CONTENT_TYPE_OPTIONS, "nosniff")?
        .with_header(REFERRER_POLICY, "same-origin")?)
}

/// A page that says one thing only.
pub(super) fn message(request: &Request, status: StatusCode, title: &str, words: &str) -> Result<Response> {
    let back = button(request, "/", "To the desk");
    let main = format!("<h1>{}</h1>\n<p>{}</p>\n<p class=\"actions\">{back}</p>", text(title), text(words));
    Ok(page(request, title, &main)?.with_status(status))
}

/// A link that looks like a button.
pub(super) fn button(request: &Request, path: &str, label: &str) -> String {
    format!("<a class=\"button\" href=\"{}\">{}</a>", attribute(&request.link(path)), text(label))
}

/// Links to all the rest, in groups.
pub(super) fn links(request: &Request) -> String {
    let groups: String = LINKS.iter().map(|(title, links)| group(request, title, links)).collect();
    // A button, so that nothing that follows links by itself ever gets there.
    format!(
        "<div class=\"groups\">\n{groups}</div>
<form class=\"exit\" method=\"post\" action=\"{}\"><button>Kill the process that answers</button></form>\n",
        attribute(&request.link("/exit"))
    )
}

fn group(request: &Request, title: &str, links: Links) -> String {
    let item = |(path, what): &(&str, &str)| {
        let name = path.split('?').next().unwrap_or(path);
        format!("<li><a href=\"{}\">{name}</a> {what}</li>\n", attribute(&request.link(path)))
    };
    let items: String = links.iter().map(item).collect();
    format!("<section>\n<h2>{title}</h2>\n<ul>\n{items}</ul>\n</section>\n")
}

type Links = &'static [(&'static str, &'static str)];

const LINKS: &[(&str, Links)] = &[
    (
        "Count",
        &[
            ("/counter", "adds one and shows it"),
            ("/increment", "adds one and comes back here"),
            ("/read", "reads, and could not write"),
            ("/slow?ms=1000&write=slow", "takes a second, then adds one to a value of its own"),
            ("/fill?bytes=1000", "puts a thousand bytes into the session"),
        ],
    ),
    (
        "Look behind the desk",
        &[
            ("/check", "the session in lines for programs"),
            ("/create_token", "draws a form token"),
            ("/check_token", "counts them"),
            ("/env", "what the web server said"),
            ("/hello", "a page without a session"),
            ("/large?bytes=1000000", "a million bytes"),
        ],
    ),
    (
        "Come and go",
        &[
            ("/login", "under any name"),
            ("/keep", "gives you a ticket without a name"),
            ("/logout", "ends the session"),
            ("/upload", "measures your files"),
            ("/delete_old?minutes=60", "throws out sessions not used for an hour"),
        ],
    ),
    (
        "Make it fail",
        &[
            ("/incrementfail", "adds one, then fails: not counted"),
            ("/logoutfail", "logs you out, then fails: still here"),
            ("/boom", "panics: nothing is saved"),
        ],
    ),
];
