//! What there is to know of one endpoint.

use std::pin::Pin;

use crate::http::parked::Outcome;
use crate::http::request::call::Call;
use crate::http::request::query::Parameter;
use crate::http::response::problem::{Code, Problem};
use crate::http::response::reply::Reply;

/// A method that some endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Post,
    Put,
    Delete,
    /// Whatever no other row of the path takes; stands behind them.
    Other,
}

impl Verb {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Other => "",
        }
    }
}

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Auth {
    /// Anyone.
    Nobody,
    /// A user with a token.
    User,
    /// The backend with the API key.
    Key,
}

/// A query parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Param {
    pub(super) parameter: Parameter,
    /// A whole number, or else a text.
    pub(super) number: bool,
    pub(super) about: &'static str,
}

/// What a handler is doing.
pub(super) type Handling = Pin<Box<dyn Future<Output = Result<Outcome, Problem>> + Send>>;

/// One method of one path.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) verb: Verb,
    /// With `{parameters}`.
    pub(super) path: &'static str,
    pub(super) auth: Auth,
    pub(super) handler: fn(Call) -> Handling,
    pub(super) summary: &'static str,
    /// What generated clients call it; unique on its listener, where it is in the document.
    pub(super) name: &'static str,
    pub(super) query: &'static [Param],
    /// The schema of the request's body.
    pub(super) takes: Option<&'static str>,
    /// Status and schema of what is answered if all goes well.
    pub(super) gives: &'static [(u16, &'static str)],
    /// Whether the client may ask for a refusal as an event: `refusals=event`.
    pub(super) events: bool,
    /// Codes of refusals beyond those that the rest of the row implies.
    pub(super) refuses: &'static [Code],
}

impl Endpoint {
    pub(super) const fn new(
        verb: Verb,
        path: &'static str,
        handler: fn(Call) -> Handling,
        summary: &'static str,
    ) -> Self {
        Self {
            verb,
            path,
            auth: Auth::Nobody,
            handler,
            summary,
            name: "",
            query: &[],
            takes: None,
            gives: &[],
            events: false,
            refuses: &[],
        }
    }

    pub(super) const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    pub(super) const fn by(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    pub(super) const fn query(mut self, query: &'static [Param]) -> Self {
        self.query = query;
        self
    }

    pub(super) const fn takes(mut self, schema: &'static str) -> Self {
        self.takes = Some(schema);
        self
    }

    pub(super) const fn gives(mut self, gives: &'static [(u16, &'static str)]) -> Self {
        self.gives = gives;
        self
    }

    pub(super) const fn events(mut self) -> Self {
        self.events = true;
        self
    }

    pub(super) const fn refuses(mut self, refuses: &'static [Code]) -> Self {
        self.refuses = refuses;
        self
    }
}

/// The name in `{name}`.
pub(super) fn parameter(part: &'static str) -> Option<&'static str> {
    part.strip_prefix('{')?.strip_suffix('}')
}

/// Handles a request by a reply that has to be waited for.
pub(super) fn later(
    reply: impl Future<Output = Result<Reply, Problem>> + Send + 'static,
) -> Handling {
    Box::pin(async move { reply.await.map(Outcome::Reply) })
}

/// Handles a request by a reply that is there.
pub(super) fn now(reply: Result<Reply, Problem>) -> Handling {
    ready(reply.map(Outcome::Reply))
}

/// Handles a request by an outcome that is there.
pub(super) fn ready(outcome: Result<Outcome, Problem>) -> Handling {
    Box::pin(std::future::ready(outcome))
}
