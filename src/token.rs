//! User tokens: JSON Web Tokens that say who a client is and until when.
//!
//! A verifier has one key, and that key alone decides the algorithm: HS256 for a secret, RS256 or `EdDSA` for
//! a public key. What the token's own header asks for is only compared with it, so neither `none` nor a
//! public key used as a secret gets through. Names are not checked against the rule for names here.

use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

/// Clocks of two machines differ; a token is taken this long after its end and before its start.
const LEEWAY_S: u64 = 5;
/// Shorter RSA keys are within reach of being factored.
const RSA_MODULUS_BYTES_MIN: usize = 256;
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

/// Every claim as any JSON value, so that a wrong type is told by name.
#[derive(Deserialize)]
struct ClaimsIn {
    sub: Option<serde_json::Value>,
    exp: Option<serde_json::Value>,
    nbf: Option<serde_json::Value>,
    send: Option<serde_json::Value>,
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
        // The times are compared below, with the caller's clock. A token with an `aud` claim is made for
        // some other service, and the library refuses it, as RFC 7519 asks.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        Self { key, validation }
    }

    /// Checks signature and times; `now` is in Unix seconds.
    pub fn verify(&self, token: &str, now: u64) -> Result<Claims, TokenError> {
        let claims = jsonwebtoken::decode::<ClaimsIn>(token, &self.key, &self.validation)
            .map_err(|error| TokenError::Invalid(reason(error.kind())))?
            .claims;
        let expires_at = match claims.exp {
            None => return Err(TokenError::Invalid("claim exp is missing")),
            Some(value) => {
                numeric_date(&value).ok_or(TokenError::Invalid("claim exp is not a number"))?
            }
        };
        if let Some(value) = claims.nbf {
            let starts_at =
                numeric_date(&value).ok_or(TokenError::Invalid("claim nbf is not a number"))?;
            if starts_at > now.saturating_add(LEEWAY_S) {
                return Err(TokenError::Invalid("it is not valid yet (claim nbf)"));
            }
        }
        let user = match claims.sub {
            Some(serde_json::Value::String(user)) if !user.is_empty() => user,
            Some(_) => return Err(TokenError::Invalid("claim sub is not the name of a user")),
            None => return Err(TokenError::Invalid("claim sub is missing")),
        };
        let send = match claims.send {
            None => false,
            Some(serde_json::Value::Bool(send)) => send,
            Some(_) => return Err(TokenError::Invalid("claim send is neither true nor false")),
        };
        let claims = Claims {
            user,
            send,
            expires_at,
        };
        if claims.refused_from() <= now {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }
}

/// A time in Unix seconds; RFC 7519 allows a fraction, which is dropped.
fn numeric_date(value: &serde_json::Value) -> Option<u64> {
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
        ErrorKind::InvalidAudience => "it is made for another service (claim aud)",
        _ => "it is not a signed JSON Web Token",
    }
}

#[cfg(test)]
mod tests;
