//! The command line's own requests to the admin listener: blocking, without TLS.

use std::io;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

use crate::config::Config;
use crate::secret::{KeySource, Secret, SecretError};

/// A listener on this or a near machine answers a connection at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For a reply that the server does not hold back: a commit on a slow disk takes less.
const REPLY_TIMEOUT: Duration = Duration::from_secs(15);
/// Far above the largest page; a reply beyond it is not from Halley.
const REPLY_BYTES_MAX: u64 = 256 << 20;

/// Where the server is.
#[derive(Debug, clap::Args)]
pub(super) struct ServerArgs {
    /// The server's admin address, http only [default: http:// and the address of --admin-listen]
    #[arg(long, env = "HALLEY_SERVER", value_name = "URL", value_parser = parse_server)]
    server: Option<String>,
}

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the address, or the connection broke.
    #[error("cannot reach the server at {server}; is it running, and is this its admin address?")]
    Unreachable {
        /// The address.
        server: String,
        /// What went wrong on the way.
        source: ureq::Error,
    },
    /// The server said no.
    #[error("the server refused: {detail} ({status} {code})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The problem's stable code.
        code: String,
        /// The problem's own sentence.
        detail: String,
        /// How long the server asks to wait before trying again.
        retry_after: Option<Duration>,
        /// The cursor to start over at, if the one that was given can never work.
        restart: Option<String>,
    },
    /// The reply is not one of Halley's.
    #[error("the answer from {server} is not Halley's ({status}): {reason}")]
    Foreign {
        /// The address.
        server: String,
        /// HTTP status.
        status: u16,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no key to show.
    #[error(
        "there is no admin key at {path}: name the server's data directory with --data, the key's file \
         with --admin-key-file, or set HALLEY_ADMIN_KEY"
    )]
    NoKey {
        /// Where it was looked for.
        path: String,
    },
}

/// The parts of an `application/problem+json` body that are shown.
#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: Option<String>,
    title: Option<String>,
    restart: Option<String>,
}

/// One server's admin listener and the key to it.
#[derive(Debug)]
pub(super) struct Client {
    http: Agent,
    server: String,
    key: Secret,
}

impl Client {
    /// Finds address and key. Nothing is sent.
    pub(super) fn new(args: &ServerArgs, config: &Config) -> Result<Self, super::Failure> {
        let source = &config.auth.admin_key;
        let key = source.load().map_err(|error| missing_key(source, error))?;
        let http = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // The key must not pass through whatever http_proxy says.
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .build()
            .new_agent();
        let server = args
            .server
            .clone()
            .unwrap_or_else(|| default_server(config));
        Ok(Self { http, server, key })
    }

    /// `path` begins with `/v1/` and is encoded. `held` is how long the server may hold the request.
    pub(super) fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        held: Duration,
    ) -> Result<T, ClientError> {
        let sent = self
            .http
            .get(format!("{}{path}", self.server))
            .header("Authorization", format!("Bearer {}", self.key.expose()))
            .config()
            .timeout_global(Some(held + REPLY_TIMEOUT))
            .build()
            .call();
        self.reply(sent)
    }

    /// Posts JSON. The same request may be sent again without a second effect if it has a key.
    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &str,
        idempotency_key: Option<&str>,
    ) -> Result<T, ClientError> {
        let mut request = self
            .http
            .post(format!("{}{path}", self.server))
            .header("Authorization", format!("Bearer {}", self.key.expose()))
            .header("Content-Type", "application/json");
        if let Some(key) = idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        let sent = request
            .config()
            .timeout_global(Some(REPLY_TIMEOUT))
            .build()
            .send(body);
        self.reply(sent)
    }

    fn reply<T: DeserializeOwned>(
        &self,
        sent: Result<Response<Body>, ureq::Error>,
    ) -> Result<T, ClientError> {
        let broken = |source| ClientError::Unreachable {
            server: self.server.clone(),
            source,
        };
        let mut response = sent.map_err(broken)?;
        let status = response.status();
        let retry_after = retry_after(&response);
        let body = response
            .body_mut()
            .with_config()
            .limit(REPLY_BYTES_MAX)
            .read_to_vec()
            .map_err(broken)?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|error| self.foreign(status, error.to_string()));
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(ClientError::Refused {
                status: status.as_u16(),
                detail: self.explained(
                    status,
                    problem
                        .detail
                        .or(problem.title)
                        .unwrap_or_else(|| status.to_string()),
                ),
                code: problem.code,
                retry_after,
                restart: problem.restart,
            }),
            Err(_) => {
                Err(self.foreign(status, "an error without a problem description".to_owned()))
            }
        }
    }

    /// The usual mistakes are the client address, where the key is no token, and the key of another directory.
    fn explained(&self, status: StatusCode, detail: String) -> String {
        if status == StatusCode::UNAUTHORIZED {
            let server = &self.server;
            format!("{detail}; is {server} the admin address, and is this its key?")
        } else {
            detail
        }
    }

    fn foreign(&self, status: StatusCode, reason: String) -> ClientError {
        ClientError::Foreign {
            server: self.server.clone(),
            status: status.as_u16(),
            reason,
        }
    }
}

impl ClientError {
    /// Whether the same request may well work later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } | Self::Foreign { status, .. } => {
                matches!(status, 408 | 429 | 500..)
            }
            Self::NoKey { .. } => false,
        }
    }

    /// How long the server asks to wait.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::Refused {
                retry_after: Some(wait),
                ..
            } => *wait,
            _ => Duration::ZERO,
        }
    }
}

fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let value = response.headers().get("retry-after")?.to_str().ok()?;
    value.parse().ok().map(Duration::from_secs)
}

fn missing_key(source: &KeySource, error: SecretError) -> super::Failure {
    match (source, &error) {
        (KeySource::DataFile(path) | KeySource::File(path), SecretError::Io { source, .. })
            if source.kind() == io::ErrorKind::NotFound =>
        {
            ClientError::NoKey {
                path: path.display().to_string(),
            }
            .into()
        }
        _ => error.into(),
    }
}

/// A server that listens on every address is reached on the loopback one.
fn default_server(config: &Config) -> String {
    let mut address = config.admin_listen;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{address}")
}

fn parse_server(text: &str) -> Result<String, &'static str> {
    if text.starts_with("https://") {
        return Err(
            "https is not spoken here: use the http admin address, on the server's machine or \
                    through a tunnel (ssh -L 8000:127.0.0.1:8000 HOST)",
        );
    }
    match text
        .strip_prefix("http://")
        .map(|host| host.trim_end_matches('/'))
    {
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']) => {
            Ok(format!("http://{host}"))
        }
        _ => Err("an address looks like http://127.0.0.1:8000"),
    }
}

/// A name as one part of a path or value of a query: all but letters, digits and `-._~` is encoded.
pub(super) fn encoded(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded() {
        assert_eq!(encoded("Zoë/1 ?&%"), "Zo%C3%AB%2F1%20%3F%26%25");
        assert_eq!(encoded("a-b._~9"), "a-b._~9");
    }

    #[test]
    fn addresses_are_http_and_nothing_but_an_address() {
        assert_eq!(
            parse_server("http://[::1]:8000/").as_deref(),
            Ok("http://[::1]:8000")
        );
        assert!(
            parse_server("https://halley.example")
                .unwrap_err()
                .contains("https is not spoken")
        );
        for text in [
            "127.0.0.1:8000",
            "http://",
            "http://host/path",
            "http://user@host",
            "ftp://host",
        ] {
            assert!(parse_server(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_server_on_every_address_is_asked_on_loopback() {
        let mut config = Config::default_for(std::path::Path::new("data"));
        for (listen, server) in [
            ("127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("0.0.0.0:9", "http://127.0.0.1:9"),
            ("[::]:9", "http://[::1]:9"),
        ] {
            config.admin_listen = listen.parse().unwrap();
            assert_eq!(default_server(&config), server);
        }
    }
}
