//! User tokens: JSON Web Tokens that say who a client is and until when.
//!
//! A verifier has one key, and that key alone decides the algorithm: HS256 for a secret, RS256 or `EdDSA` for
//! a public key. What the token's own header asks for is only compared with it, so neither `none` nor a
//! public key used as a secret gets through. Names are not checked against the rule for names here.

use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Clocks of two machines differ; a token is taken this long after its end and before its start.
const LEEWAY_S: u64 = 5;
/// Shorter RSA keys are within reach of being factored.
const RSA_MODULUS_BYTES_MIN: usize = 256;
/// A token that lasts longer is a mistake: `exp` in milliseconds, as a rule.
const AHEAD_MAX_S: u64 = 10 * 366 * 24 * 60 * 60;
/// An Ed25519 public key is exactly this long.
const ED25519_BYTES: usize = 32;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `sub`: the user whose token this is.
    pub user: String,
    /// `send`: whether the bearer may push as this user.
    pub send: bool,
    /// `exp`: Unix seconds.
    pub expires_at: u64,
}

impl Claims {
    /// From when on the token is refused, Unix seconds: a little after its end.
    pub fn refused_from(&self) -> u64 {
        self.expires_at.saturating_add(LEEWAY_S)
    }
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not a token, not signed by our key, or lacks a claim; the reason is safe to show to its bearer.
    #[error("the token is not valid: {0}")]
    Invalid(&'static str),
    /// It was valid once.
    #[error("the token has expired")]
    Expired,
}

/// Why a public key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the public key cannot be used: {0}")]
pub struct PublicKeyError(&'static str);

#[derive(Serialize)]
struct ClaimsOut<'a> {
    sub: &'a str,
    exp: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    send: bool,
}

/// Every claim as any JSON value, also `null`, so that a wrong type is told by name. None may be there twice.
#[derive(Deserialize)]
struct ClaimsIn {
    #[serde(default, deserialize_with = "present")]
    sub: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    exp: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    iat: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    aud: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    send: Option<Value>,
}

fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// Signs a token with HS256.
pub fn mint(secret: &[u8], claims: &Claims) -> String {
    let claims = ClaimsOut {
        sub: &claims.user,
        exp: claims.expires_at,
        send: claims.send,
    };
    jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims,
        &EncodingKey::from_secret(secret),
    )
    .expect("three plain claims serialise, and HS256 signs with any secret")
}

/// Checks tokens with one key.
#[derive(Debug, Clone)]
pub struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

impl Verifier {
    /// For tokens signed with HS256 and this secret.
    pub fn from_secret(secret: &[u8]) -> Self {
        Self::new(DecodingKey::from_secret(secret), Algorithm::HS256)
    }

    /// For tokens signed with RS256 or `EdDSA`, as the key in this PEM text is an RSA or an Ed25519 key.
    pub fn from_public_key_pem(pem: &[u8]) -> Result<Self, PublicKeyError> {
        let text = std::str::from_utf8(pem).map_err(|_| PublicKeyError("it is not PEM text"))?;
        if text.contains("PRIVATE KEY-----") {
            return Err(PublicKeyError(
                "this is a private key, which does not belong on this machine",
            ));
        }
        if text.matches("-----BEGIN ").count() > 1 {
            return Err(PublicKeyError(
                "there is more than one block in it: give one key",
            ));
        }
        if !text.contains("PUBLIC KEY-----") {
            return Err(PublicKeyError("there is no PUBLIC KEY block in it"));
        }
        if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            return match key.try_get_as_bytes() {
                Ok(bytes) if bytes.len() == ED25519_BYTES => Ok(Self::new(key, Algorithm::EdDSA)),
                _ => Err(PublicKeyError("an Ed25519 key has 32 bytes")),
            };
        }
        match DecodingKey::from_rsa_pem(pem) {
            Ok(key) => match key.try_get_as_bytes() {
                Ok(bytes) if bytes.len() > RSA_MODULUS_BYTES_MIN => {
                    Ok(Self::new(key, Algorithm::RS256))
                }
                _ => Err(PublicKeyError("an RSA key needs at least 2048 bits")),
            },
            Err(_) => Err(PublicKeyError("it is neither an RSA nor an Ed25519 key")),
        }
    }

    fn new(key: DecodingKey, algorithm: Algorithm) -> Self {
        let mut validation = Validation::new(algorithm);
        // The times are compared below, with the caller's clock; `aud` too, as the library takes one that is
        // neither a text nor a list of texts.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        Self { key, validation }
    }

    /// Checks signature and times; `now` is in Unix seconds.
    pub fn verify(&self, token: &str, now: u64) -> Result<Claims, TokenError> {
        let token = jsonwebtoken::decode::<ClaimsIn>(token, &self.key, &self.validation)
            .map_err(|error| TokenError::Invalid(reason(error.kind())))?;
        // Both change what the rest of the token means, and nothing here knows how (RFC 7515, 4.1.11).
        if token.header.crit.is_some() {
            return Err(TokenError::Invalid("its header has crit"));
        }
        if token.header.zip.is_some() {
            return Err(TokenError::Invalid("its header has zip"));
        }
        let claims = claims(token.claims, now).map_err(TokenError::Invalid)?;
        if claims.refused_from() <= now {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }
}

/// What the claims say, if each is of its type.
fn claims(given: ClaimsIn, now: u64) -> Result<Claims, &'static str> {
    if given.aud.is_some() {
        // RFC 7519, 4.1.3: who is not the audience must refuse, and this server has no name.
        return Err("it is made for another service (claim aud)");
    }
    let expires_at = match given.exp {
        None => return Err("claim exp is missing"),
        Some(value) => numeric_date(&value).ok_or("claim exp is not a time in Unix seconds")?,
    };
    if expires_at > now.saturating_add(AHEAD_MAX_S) {
        return Err("claim exp is more than ten years ahead: it is in seconds, not milliseconds");
    }
    if let Some(value) = given.nbf {
        let starts_at = numeric_date(&value).ok_or("claim nbf is not a time in Unix seconds")?;
        if starts_at > now.saturating_add(LEEWAY_S) {
            return Err("it is not valid yet (claim nbf)");
        }
    }
    if given
        .iat
        .is_some_and(|value| numeric_date(&value).is_none())
    {
        return Err("claim iat is not a time in Unix seconds");
    }
    let user = match given.sub {
        Some(Value::String(user)) if !user.is_empty() => user,
        Some(_) => return Err("claim sub is not the name of a user"),
        None => return Err("claim sub is missing"),
    };
    let send = match given.send {
        None => false,
        Some(Value::Bool(send)) => send,
        Some(_) => return Err("claim send is neither true nor false"),
    };
    Ok(Claims {
        user,
        send,
        expires_at,
    })
}

/// A time in Unix seconds; RFC 7519 allows a fraction, which is dropped.
fn numeric_date(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        Duration::try_from_secs_f64(value.as_f64()?)
            .ok()
            .map(|time| time.as_secs())
    })
}

fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidSignature => "the signature does not match",
        ErrorKind::InvalidAlgorithm => "it is signed with another algorithm than this server's key",
        _ => "it is not a signed JSON Web Token",
    }
}

#[cfg(test)]
mod tests;
