//! The host that a request is for, and the page that sends it.
//!
//! HTTP/1.1 requires exactly one `Host` (RFC 9112, 3.2). Where requests need no token or key (the demo, icomet's own
//! rules), any web page could use the server through the browser of somebody inside the network: under a name that its
//! owner points at this address (DNS rebinding), or by a plain request across sites. So there only this server's own
//! names are accepted, and only its own pages and those of `--cors-origin`.

use warp::http::{HeaderValue, Method, Request, Version, header};

use crate::config::{AllowedOrigin, IcometRules};
use crate::http::authority::Authority;
use crate::http::context::App;
use crate::http::listener_kind::ListenerKind;
use crate::http::request::query::beginning;
use crate::http::response::problem::Problem;

/// How much of a foreign name is repeated.
const ECHO_BYTES_MAX: usize = 64;

/// Checks whom a request is for, and where nobody need say who they are, by which page it is sent.
pub(in crate::http) fn check<B>(
    request: &Request<B>,
    app: &App,
    kind: ListenerKind,
) -> Result<(), Problem> {
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => authority_of(host)?,
        (Some(_), Some(_)) => return Err(wrong("there is more than one `Host`")),
        (None, _) if request.version() < Version::HTTP_11 => Authority {
            host: "",
            port: None,
        },
        (None, _) => return Err(wrong("`Host` is missing: HTTP/1.1 needs it")),
    };
    if !app.demo && app.icomet != Some(IcometRules::Open) {
        return Ok(());
    }
    // A target with a host of its own overrules the header (RFC 9112, 3.2.2).
    let host = match request.uri().authority() {
        Some(authority) => Authority::parse(authority.as_str())
            .ok_or_else(|| wrong("the target's host is malformed"))?,
        None => host,
    };
    if !host.is_own(&app.allowed_hosts) {
        let name = beginning(host.host, ECHO_BYTES_MAX);
        return Err(Problem::ForeignHost(format!(
            "{name:?} is not a known name of this server; it takes requests without a key or token, so a name must \
             be listed in --allowed-host"
        )));
    }
    sent_by_own_page(request, host, app, kind)
}

fn authority_of(host: &HeaderValue) -> Result<Authority<'_>, Problem> {
    Authority::of_header(host).ok_or_else(|| wrong("`Host` is not a host, or a host and a port"))
}

fn wrong(reason: &str) -> Problem {
    Problem::BadRequest(reason.to_owned())
}

/// Browsers say which page sends a request; whatever else sends one says nothing.
fn sent_by_own_page<B>(
    request: &Request<B>,
    host: Authority<'_>,
    app: &App,
    kind: ListenerKind,
) -> Result<(), Problem> {
    let headers = request.headers();
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let site = text("sec-fetch-site");
    if matches!(site, Some("same-origin" | "none")) {
        return Ok(());
    }
    // A link to the first page changes nothing and shows nothing to the page that it is on.
    let shown = text("sec-fetch-mode") == Some("navigate") && request.uri().path() == "/";
    if shown && *request.method() == Method::GET {
        return Ok(());
    }
    let sender = headers
        .get(header::ORIGIN)
        .or_else(|| headers.get(header::REFERER));
    let sender = match (sender, site) {
        (Some(sender), _) => origin_of(sender.to_str().unwrap_or_default()),
        (None, Some(_)) => "",
        (None, None) => return Ok(()),
    };
    let listed = |origin: &AllowedOrigin| origin.matches(sender);
    if host.is_of_origin(sender)
        || (kind == ListenerKind::Client && app.cors_origins.iter().any(listed))
    {
        return Ok(());
    }
    let page = beginning(sender, ECHO_BYTES_MAX);
    Err(Problem::ForeignPage(match kind {
        ListenerKind::Client => format!(
            "a page of another site sends this request (origin {page:?}); this server takes requests without a token, \
             so the origin must be listed in --cors-origin"
        ),
        ListenerKind::Admin => format!(
            "a page of another site sends this request (origin {page:?}); no page may use the admin address"
        ),
    }))
}

/// `https://app.example` of `https://app.example/a/page`.
fn origin_of(address: &str) -> &str {
    let after_scheme = address.find("://").map_or(0, |at| at + 3);
    let rest = address.get(after_scheme..).unwrap_or_default();
    let end = rest.find('/').map_or(address.len(), |at| after_scheme + at);
    address.get(..end).unwrap_or_default()
}
