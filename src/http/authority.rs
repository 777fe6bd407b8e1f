//! Hosts as requests name them.

use std::net::{Ipv4Addr, Ipv6Addr};

use warp::http::HeaderValue;

/// A host, perhaps with a port, as it stands in `Host` and in addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Authority<'a> {
    pub(super) host: &'a str,
    pub(super) port: Option<&'a str>,
}

impl<'a> Authority<'a> {
    /// As RFC 3986, 3.2.2 has it, without a user; an empty one names nobody, and is allowed.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
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
    pub(super) fn is_own(&self, given: &[String]) -> bool {
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

    /// As it stands in `Host`.
    pub(super) fn of_header(host: &'a HeaderValue) -> Option<Self> {
        Self::parse(host.to_str().ok()?)
    }

    /// Whether pages of this origin come from here.
    pub(super) fn is_of_origin(&self, origin: &str) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else {
            return false;
        };
        let usual = if scheme == "https" { "443" } else { "80" };
        let port = |authority: &Authority<'_>| match authority.port {
            None | Some("") => usual.to_owned(),
            Some(port) => port.to_owned(),
        };
        Authority::parse(authority)
            .is_some_and(|own| own.host.eq_ignore_ascii_case(self.host) && port(&own) == port(self))
    }
}
