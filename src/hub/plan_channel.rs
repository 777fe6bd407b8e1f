//! Channels: the part of planning that numbers what is for one user without gaps, as icomet's clients want it.

use super::channel::{ICOMET, icomet_group};
use super::plan::Planner;
use super::state::Members;
use crate::model::{GroupName, Sequence, UserName};
use crate::store::{HistoryMode, channel, key};

impl Planner<'_> {
    /// Opens a user's channel, unless it is open, and adds the user to the group of broadcasts.
    pub(super) fn open_channel(&mut self, user: &UserName) {
        let number = self.number(user);
        if self.state.channels.contains_key(&number) {
            return;
        }
        self.state.channels.insert(number, Some(0));
        let row = channel::encode_opened(self.offset, user);
        self.row(key::open_channel(number), row);
        let group = icomet_group();
        match self.state.groups.get_mut(&group) {
            None => self.make_group(&group, HistoryMode::Member),
            Some(known) if known.deleted => {
                known.deleted = false;
                self.group_changed(&group, true);
            }
            Some(_) => {}
        }
        self.join(&group, std::slice::from_ref(user));
        self.plan.opened.push(user.clone());
    }

    /// Whether only backends may send to a group: all who have a channel are members of one, and could otherwise
    /// write to each other.
    pub(super) fn is_backends(&self, group: &GroupName) -> bool {
        !self.state.channels.is_empty() && group.as_str() == ICOMET
    }

    /// Gives a message the next number of a user's channel, if there is one.
    pub(super) fn channel_row(&mut self, user: u32, sequence: Sequence, id: u64) {
        let Some(last) = self.state.channels.get_mut(&user) else {
            return;
        };
        let number = last.expect("the channels of an entry are looked up before it") + 1;
        *last = Some(number);
        let key = key::with_id(&key::channel(user), number);
        self.row(key, channel::encode(sequence, id));
    }

    /// Gives a group's message its numbers: one row per member with a channel, except the sender.
    pub(super) fn channel_rows(&mut self, members: &Members, from: &UserName, id: u64) {
        if self.state.channels.is_empty() {
            return;
        }
        for (name, member) in members.iter() {
            if name != from {
                self.channel_row(member.number, Sequence::Group, id);
            }
        }
    }
}
