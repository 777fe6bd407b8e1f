//! The two listeners, by name.

/// Which of the two listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenerKind {
    /// Users, with tokens.
    Client,
    /// The backend, with the API key.
    Admin,
}

impl ListenerKind {
    /// `client` or `admin`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Admin => "admin",
        }
    }
}
