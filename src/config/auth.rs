//! Where the admin key and the keys for user tokens come from, and how they are opened.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{ConfigError, Options, together};
use crate::secret::{KeySource, Secret, SecretError};
use crate::token::{PublicKeyError, Verifier};

/// File of the admin key in the data directory.
const ADMIN_KEY_FILE: &str = "admin.key";
/// File of the secret for user tokens in the data directory.
const TOKEN_SECRET_FILE: &str = "token.secret";

/// Where the keys come from.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// The admin listener's key.
    pub admin_key: KeySource,
    /// What user tokens are checked with.
    pub tokens: TokenKey,
}

/// What user tokens are checked with.
#[derive(Debug, Clone)]
pub enum TokenKey {
    /// A secret that also signs them (HS256).
    Secret(KeySource),
    /// A PEM file with a public key; they are signed elsewhere.
    PublicKeyFile(PathBuf),
}

/// The keys, ready for use.
#[derive(Debug, Clone)]
pub struct Keys {
    /// What the backend must show.
    pub admin: Secret,
    /// Checks user tokens.
    pub verifier: Verifier,
    /// Signs user tokens; `None` if they are signed elsewhere.
    pub token_secret: Option<Secret>,
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The admin key or the token secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The public key's file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The public key's file holds something else.
    #[error("in {}", path.display())]
    PublicKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PublicKeyError,
    },
}

impl AuthConfig {
    /// Whether tokens can be made here: not where only a public key is known.
    pub fn signs_tokens(&self) -> bool {
        matches!(self.tokens, TokenKey::Secret(_))
    }

    /// Options that exclude each other are refused, wherever they are set.
    pub(super) fn from_options(options: &Options) -> Result<Self, ConfigError> {
        let admin_key = match (&options.admin_key, &options.admin_key_file) {
            (Some(_), Some(_)) => return Err(one_of("admin-key", "admin-key-file")),
            (Some(key), None) => KeySource::Given(key.clone(), "admin-key"),
            (None, Some(path)) => KeySource::File(path.clone()),
            (None, None) => KeySource::DataFile(options.data.join(ADMIN_KEY_FILE)),
        };
        let (secret, file) = (&options.token_secret, &options.token_secret_file);
        let tokens = match (secret, file, &options.token_public_key_file) {
            (Some(_), Some(_), _) => return Err(one_of("token-secret", "token-secret-file")),
            (Some(_), _, Some(_)) => return Err(one_of("token-secret", "token-public-key-file")),
            (_, Some(_), Some(_)) => {
                return Err(one_of("token-secret-file", "token-public-key-file"));
            }
            (Some(secret), None, None) => {
                TokenKey::Secret(KeySource::Given(secret.clone(), "token-secret"))
            }
            (None, Some(path), None) => TokenKey::Secret(KeySource::File(path.clone())),
            (None, None, Some(path)) => TokenKey::PublicKeyFile(path.clone()),
            (None, None, None) => {
                TokenKey::Secret(KeySource::DataFile(options.data.join(TOKEN_SECRET_FILE)))
            }
        };
        Ok(Self { admin_key, tokens })
    }

    /// Reads the keys, and makes those that belong into the data directory and are not there yet. Only for
    /// who holds the data directory's lock.
    pub fn load_or_create(&self) -> Result<Keys, KeyError> {
        let admin = self.admin_key.load_or_create()?;
        match &self.tokens {
            TokenKey::Secret(source) => {
                let secret = source.load_or_create()?;
                let verifier = Verifier::from_secret(secret.expose().as_bytes());
                Ok(Keys {
                    admin,
                    verifier,
                    token_secret: Some(secret),
                })
            }
            TokenKey::PublicKeyFile(path) => Ok(Keys {
                admin,
                verifier: public_key(path)?,
                token_secret: None,
            }),
        }
    }

    /// Whether the keys that the configuration gives or names can be used; those of the data directory may
    /// not be there yet.
    pub(super) fn check(&self) -> Result<(), KeyError> {
        let secret = |source: &KeySource| match source {
            KeySource::DataFile(_) => Ok(()),
            given_or_named => given_or_named.load().map(drop),
        };
        secret(&self.admin_key)?;
        match &self.tokens {
            TokenKey::Secret(source) => Ok(secret(source)?),
            TokenKey::PublicKeyFile(path) => public_key(path).map(drop),
        }
    }
}

fn public_key(path: &Path) -> Result<Verifier, KeyError> {
    let pem = fs::read(path).map_err(|source| KeyError::Read {
        path: path.to_owned(),
        source,
    })?;
    Verifier::from_public_key_pem(&pem).map_err(|source| KeyError::PublicKey {
        path: path.to_owned(),
        source,
    })
}

fn one_of(first: &str, second: &str) -> ConfigError {
    together(format!(
        "{first} and {second} are both set; give one (a flag, an environment variable and a key of the \
         configuration file all count)"
    ))
}
