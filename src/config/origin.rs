//! Origins of web pages, as `--cors-origin` names them and as browsers send them.
//!
//! A browser writes an origin in one way only: small letters, no usual port, nothing behind it. What is given in
//! another way and means one is put so; what no browser can ever send is refused.

use std::fmt;
use std::str::FromStr;

/// What an origin looks like.
const FORM: &str = "an origin is *, or scheme://host, or scheme://host:port; the host may begin with *., and then \
                    the scheme may be left out";

/// Pages that may use the client listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// All.
    Any,
    /// Those of one origin, as browsers write it.
    One(String),
    /// Those of all hosts below a domain: `.example.com`; by `http` and `https` where there is no scheme.
    Below {
        /// `https`.
        scheme: Option<String>,
        /// With its first dot, and the port if it is not the usual one.
        domain: String,
    },
}

impl AllowedOrigin {
    /// Whether a page is one of these, by the origin that its browser sent.
    pub fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::One(one) => one == origin,
            Self::Below { scheme, domain } => {
                let Some((by, host)) = origin.split_once("://") else {
                    return false;
                };
                let right = match scheme {
                    Some(scheme) => scheme == by,
                    None => matches!(by, "http" | "https"),
                };
                let below = host.strip_suffix(domain.as_str());
                right && below.is_some_and(|name| !name.is_empty() && is_host(name))
            }
        }
    }
}

impl fmt::Display for AllowedOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::One(one) => f.write_str(one),
            Self::Below { scheme, domain } => match scheme {
                Some(scheme) => write!(f, "{scheme}://*{domain}"),
                None => write!(f, "*{domain}"),
            },
        }
    }
}

impl FromStr for AllowedOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // `null` is what pages without an origin say: those of files.
        match text {
            "*" => return Ok(Self::Any),
            "null" => return Ok(Self::One(text.to_owned())),
            _ => {}
        }
        let text = text.to_ascii_lowercase();
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
            None if text.starts_with("*.") => (None, text.as_str()),
            _ => return Err(FORM.to_owned()),
        };
        // One slash is how people copy an address; more is a path, which no origin has.
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(format!(
                "it has a path or more, which browsers do not send: {FORM}"
            ));
        }
        let host = without_usual_port(scheme, rest);
        if let Some(domain) = host.strip_prefix("*.") {
            check_host(domain)?;
            let (scheme, domain) = (scheme.map(str::to_owned), format!(".{domain}"));
            return Ok(Self::Below { scheme, domain });
        }
        check_host(host)?;
        Ok(Self::One(format!(
            "{}://{host}",
            scheme.unwrap_or_default()
        )))
    }
}

/// Letters, and then also digits and three signs (RFC 3986, 3.1).
fn is_scheme(text: &str) -> bool {
    let sign = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.bytes().all(sign)
}

fn without_usual_port<'a>(scheme: Option<&str>, host: &'a str) -> &'a str {
    let usual = match scheme {
        Some("http" | "ws") => ":80",
        Some("https" | "wss") => ":443",
        _ => return host,
    };
    host.strip_suffix(usual).unwrap_or(host)
}

fn is_host(text: &str) -> bool {
    let sign = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    text.split('.').all(|label| !label.is_empty()) && text.bytes().all(sign)
}

/// A host as browsers write it, with a port if need be.
fn check_host(text: &str) -> Result<(), String> {
    if !text.is_ascii() {
        return Err("browsers send such a host in ASCII, as xn--...".to_owned());
    }
    if text.contains('*') {
        return Err(format!(
            "* stands alone or for the first part of a host: {FORM}"
        ));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let numbered = port.is_none_or(|port| {
        !port.starts_with('0')
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok()
    });
    let six = host
        .strip_prefix('[')
        .and_then(|inside| inside.strip_suffix(']'));
    // As browsers write it: shortened.
    let good = match six.map(str::parse::<std::net::Ipv6Addr>) {
        Some(address) => address.is_ok_and(|address| format!("[{address}]") == host),
        None => is_host(host),
    };
    if good && numbered {
        Ok(())
    } else {
        Err(FORM.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> AllowedOrigin {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn what_means_an_origin_is_put_as_browsers_send_it() {
        for (given, sent) in [
            ("https://app.example", "https://app.example"),
            ("HTTPS://App.Example", "https://app.example"),
            ("https://app.example/", "https://app.example"),
            ("https://app.example:443", "https://app.example"),
            ("http://app.example:80/", "http://app.example"),
            ("http://app.example:443", "http://app.example:443"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://127.0.0.1:8100", "http://127.0.0.1:8100"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("capacitor://localhost", "capacitor://localhost"),
            (
                "https://xn--bcher-kva.example",
                "https://xn--bcher-kva.example",
            ),
            ("null", "null"),
        ] {
            assert_eq!(origin(given).to_string(), sent, "{given}");
            assert!(origin(given).matches(sent), "{given}");
            assert!(!origin(given).matches("https://evil.example"), "{given}");
        }
        assert!(origin("*").matches("https://any.example") && origin("*").matches("null"));
    }

    #[test]
    fn a_star_stands_for_every_host_below_a_domain() {
        for (given, matched, not_matched) in [
            (
                "*.example.com",
                &["https://a.example.com", "http://a.b.example.com"][..],
                &[
                    "https://example.com",
                    "https://evilexample.com",
                    "https://a.example.com:8443",
                    "https://.example.com",
                    "https://a.example.com.evil.example",
                    "app://a.example.com",
                    "https://evil/.example.com",
                    "https://a@b.example.com",
                    "null",
                    "",
                ][..],
            ),
            (
                "HTTPS://*.Example.com:443/",
                &["https://a.example.com"],
                &["http://a.example.com", "https://a.example.com:444"],
            ),
            (
                "http://*.localhost:3000",
                &["http://a.localhost:3000"],
                &["http://a.localhost", "http://localhost:3000"],
            ),
            ("https://*.x", &["https://a.x"], &["https://x"]),
        ] {
            for sent in matched {
                assert!(origin(given).matches(sent), "{given} {sent}");
            }
            for sent in not_matched {
                assert!(!origin(given).matches(sent), "{given} {sent}");
            }
        }
        assert_eq!(origin("*.Example.com").to_string(), "*.example.com");
        assert_eq!(origin("https://*.x:8443").to_string(), "https://*.x:8443");
    }

    #[test]
    fn what_no_browser_sends_is_refused() {
        for wrong in [
            "",
            "app.example",
            "localhost:3000",
            "https://",
            "https:///",
            "://x",
            "https:/x",
            "https://x/app",
            "https://x//",
            "https://x?y",
            "https://x#y",
            "https://a@x",
            "https://x:",
            "https://x:0",
            "https://x:080",
            "https://x:65536",
            "https://x:y",
            "https://a,b",
            "https://a b",
            "https://a\"",
            "https://*",
            "*.",
            "**",
            "*x",
            "https://a.*",
            "https://a.*.x",
            "https://*.*.x",
            "https://bücher.example",
            "https://a..b",
            "1a://x",
            "https://[::1",
            "https://::1",
            "https://[0::1]",
            "https://[x]",
            "*.x/y",
            " https://x",
            "https://*x.y",
        ] {
            let parsed = wrong.parse::<AllowedOrigin>();
            assert!(parsed.is_err(), "{wrong}: {parsed:?}");
        }
        let said = "https://x/app".parse::<AllowedOrigin>().unwrap_err();
        assert!(said.contains("path"), "{said}");
    }
}
