//! `halley token`: makes a user token with the secret of the data directory, whether the server runs or not.
//!
//! Standard output is the token and nothing else, so that it can be used in `$(halley token alice)`.

use std::io::{self, Write};

use super::{Failure, output};
use crate::clock;
use crate::config::{Config, TokenKey};
use crate::model::UserName;
use crate::secret::{KeySource, SecretError};
use crate::token::{Claims, mint};

/// A year: a token cannot be called back, so it should end.
const TTL_S_MAX: u64 = 31_536_000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the user
    #[arg(value_parser = parse_user)]
    user: String,
    /// How long it is valid: seconds, or with a unit, such as 90s, 15m, 12h, 30d
    #[arg(long, value_name = "TIME", default_value = "86400s", value_parser = parse_ttl_s)]
    ttl: u64,
    /// Let its bearer also send messages as this user
    #[arg(long)]
    send: bool,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, config: &Config, out: &mut dyn Write) -> Result<(), Failure> {
    let source = match &config.auth.tokens {
        TokenKey::Secret(source) => source,
        TokenKey::PublicKeyFile(path) => {
            return Err(Failure::Usage(format!(
                "tokens are checked with the public key {}, so only the holder of its private key can \
                 make one",
                path.display()
            )));
        }
    };
    let secret = source.load().map_err(|error| explain(source, error))?;
    let claims = Claims {
        user: args.user.clone(),
        send: args.send,
        expires_at: clock::now_s() + args.ttl,
    };
    let token = mint(secret.expose().as_bytes(), &claims);
    if args.json {
        let made = serde_json::json!({
            "token": token, "user": claims.user, "expires_at": claims.expires_at,
        });
        writeln!(out, "{made}").map_err(output)
    } else {
        writeln!(out, "{token}").map_err(output)
    }
}

/// The usual mistake is another working directory than the server's.
fn explain(source: &KeySource, error: SecretError) -> Failure {
    match (source, &error) {
        (KeySource::DataFile(path), SecretError::Io { source, .. })
            if source.kind() == io::ErrorKind::NotFound =>
        {
            Failure::Usage(format!(
                "there is no {}: name the server's data directory with --data, or start the server once, \
                 which makes the file",
                path.display()
            ))
        }
        _ => Failure::Secret(error),
    }
}

pub(super) fn parse_user(text: &str) -> Result<String, String> {
    match UserName::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn parse_ttl_s(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    let unit_s = match text.strip_prefix(digits) {
        Some("" | "s") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        Some("d") => 86_400,
        _ => return Err("the unit is s, m, h or d".to_owned()),
    };
    let count: u64 = digits
        .parse()
        .map_err(|_| "it is a whole number and a unit, such as 12h".to_owned())?;
    match count.saturating_mul(unit_s) {
        ttl_s @ 1..=TTL_S_MAX => Ok(ttl_s),
        _ => Err(format!(
            "a token is valid for 1 to {TTL_S_MAX} seconds (365d)"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_limits() {
        for (text, expected) in [
            ("1", Some(1)),
            ("90s", Some(90)),
            ("15m", Some(900)),
            ("12h", Some(43_200)),
            ("365d", Some(TTL_S_MAX)),
        ] {
            assert_eq!(parse_ttl_s(text).ok(), expected, "{text}");
        }
        for text in [
            "",
            "0",
            "366d",
            "1w",
            "h",
            "-1",
            "1.5h",
            "99999999999999999999d",
            "18446744073709551615d",
        ] {
            assert!(parse_ttl_s(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_keep_the_rule() {
        assert!(parse_user("Zoë / 1").is_ok());
        for name in ["", "..", "a\nb", &"é".repeat(65)] {
            assert!(parse_user(name).is_err(), "{name:?}");
        }
    }
}
