//! The host that a request is for, and the page that sends it.
//!
//! HTTP/1.1 requires exactly one `Host` (RFC 9112, 3.2). Where requests need no token or key (the demo, icomet's own
//! rules), any web page could use the server through the browser of somebody inside the network: under a name that its
//! owner points at this address (DNS rebinding), or by a plain request across sites. So there only this server's own
//! names are accepted, and only its own pages and those of `--cors-origin`.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use warp::http::{HeaderMap, HeaderValue, Method, Request, Version, header};

use crate::config::{AllowedOrigin, IcometRules};
use crate::http::context::{App, Face};
use crate::http::request::query::beginning;
use crate::http::response::reply::Refusal;

/// How much of a foreign name is repeated.
const ECHO_BYTES_MAX: usize = 64;
/// Origins that the log is told of.
const STRANGERS_MAX: usize = 32;
/// Longer ones are not repeated.
const ORIGIN_BYTES_MAX: usize = 300;

/// A host, perhaps with a port, as it stands in `Host` and in addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Authority<'a> {
    host: &'a str,
    port: Option<&'a str>,
}

impl<'a> Authority<'a> {
    /// As RFC 3986, 3.2.2 has it, without a user; an empty one names nobody, and is allowed.
    fn parse(text: &'a str) -> Option<Self> {
        let end = if text.starts_with('[') {
            text.find(']')? + 1
        } else {
            text.find(':').unwrap_or(text.len())
        };
        let (host, rest) = text.split_at_checked(end)?;
        let port = match rest {
            "" => None,
            _ => Some(rest.strip_prefix(':')?),
        };
        let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
        let good = match host.strip_prefix('[') {
            Some(inside) => inside.trim_end_matches(']').parse::<Ipv6Addr>().is_ok(),
            None => host.bytes().all(named),
        };
        let numbered = port.is_none_or(|port| {
            port.bytes().all(|byte| byte.is_ascii_digit())
                && (port.is_empty() || port.parse::<u16>().is_ok())
        });
        (good && numbered).then_some(Self { host, port })
    }

    /// Whether nobody elsewhere can make this name lead here: an address, this machine, a name without a dot or below
    /// a domain that only private networks have. Or it was given.
    fn is_own(&self, given: &[String]) -> bool {
        let host = self.host.trim_end_matches('.').to_ascii_lowercase();
        let private = ["localhost", "local", "internal", "home.arpa"];
        host.starts_with('[')
            || host.parse::<Ipv4Addr>().is_ok()
            || !host.contains('.')
            || private.iter().any(|domain| {
                host.strip_suffix(domain)
                    .is_some_and(|rest| rest.ends_with('.'))
            })
            || given.contains(&host)
    }
}

/// Checks whom a request is for, and where nobody need say who they are, by which page it is sent.
pub(in crate::http) fn check<B>(
    request: &Request<B>,
    app: &App,
    face: Face,
) -> Result<(), Refusal> {
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
        return Err(Refusal::ForeignHost(format!(
            "{name:?} is not a known name of this server; it takes requests without a key or token, so a name must \
             be listed in --allowed-host"
        )));
    }
    sent_by_own_page(request, host, app, face)
}

fn authority_of(host: &HeaderValue) -> Result<Authority<'_>, Refusal> {
    let text = host.to_str().ok();
    text.and_then(Authority::parse)
        .ok_or_else(|| wrong("`Host` is not a host, or a host and a port"))
}

fn wrong(reason: &str) -> Refusal {
    Refusal::BadRequest(reason.to_owned())
}

/// Browsers say which page sends a request; whatever else sends one says nothing.
fn sent_by_own_page<B>(
    request: &Request<B>,
    host: Authority<'_>,
    app: &App,
    face: Face,
) -> Result<(), Refusal> {
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
    if is_same(sender, host) || (face == Face::Client && app.cors_origins.iter().any(listed)) {
        return Ok(());
    }
    let page = beginning(sender, ECHO_BYTES_MAX);
    Err(Refusal::ForeignPage(match face {
        Face::Client => format!(
            "a page of another site sends this request (origin {page:?}); this server takes requests without a token, \
             so the origin must be listed in --cors-origin"
        ),
        Face::Admin => format!(
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

/// Origins that the log has been told of: pages that may not read the replies they asked for.
#[derive(Debug, Default)]
pub(in crate::http) struct Strangers(Mutex<HashSet<String>>);

impl Strangers {
    /// Tells the log of each origin once, and of so many at most: any page can name one.
    pub(in crate::http) fn note(&self, origin: &HeaderValue, headers: &HeaderMap) {
        let Ok(origin) = origin.to_str() else {
            return;
        };
        let host = headers.get(header::HOST).map(authority_of);
        if host.is_some_and(|host| host.is_ok_and(|host| is_same(origin, host))) {
            return;
        }
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < STRANGERS_MAX && !told.contains(origin) && origin.len() <= ORIGIN_BYTES_MAX
        {
            told.insert(origin.to_owned());
            drop(told);
            tracing::warn!(
                origin,
                "a page of this origin may not read the replies: if it is yours, list it in --cors-origin"
            );
        }
    }
}

fn is_same(origin: &str, host: Authority<'_>) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let usual = if scheme == "https" { "443" } else { "80" };
    let port = |authority: &Authority<'_>| match authority.port {
        None | Some("") => usual.to_owned(),
        Some(port) => port.to_owned(),
    };
    Authority::parse(authority)
        .is_some_and(|own| own.host.eq_ignore_ascii_case(host.host) && port(&own) == port(&host))
}
