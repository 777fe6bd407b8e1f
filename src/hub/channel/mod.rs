//! Channels: gap-free numbers, from 1, of one user's incoming messages, for clients that count messages instead of
//! keeping a cursor (icomet's). Numbering begins when the channel is opened and never restarts: a channel that was closed,
//! and whose numbers are forgotten, goes on behind them.
//!
//! No number is kept: it is how many messages there are for the user from the opening on, and follows from the lists of
//! what the user got and what groups got while the user was a member. So a message to a group costs the same however
//! many of its members have a channel.

mod book;
mod numbers;

use std::sync::Arc;

pub(super) use book::{ChannelChange, Channels, Opening};
pub(super) use numbers::Numbers;

use crate::model::{GroupName, Message, UserName};

/// The name of both.
pub(super) const ICOMET: &str = "icomet";

/// The user from whom messages without a sender come.
pub fn icomet_user() -> UserName {
    UserName::parse(ICOMET).expect("it is a name")
}

/// The group of all that have a channel.
pub fn icomet_group() -> GroupName {
    GroupName::parse(ICOMET).expect("it is a name")
}

/// Part of a channel.
#[derive(Clone, Debug, Default)]
pub struct ChannelPage {
    /// Messages with their numbers, which rise by one.
    pub messages: Vec<(u64, Arc<Message>)>,
    /// The first number that is not forgotten.
    pub first: u64,
    /// The number that the channel's next message will have.
    pub next: u64,
}
