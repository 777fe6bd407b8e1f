//! Channels: the part of planning that numbers what is for one user without gaps, as icomet's clients want it.

use super::planner::Planner;
use crate::hub::channel::{ChannelChange, ICOMET, icomet_group};
use crate::hub::state::Members;
use crate::model::{GroupName, Sequence, UserName};
use crate::store::{Addition, Change, HistoryMode};

impl Planner<'_> {
    /// Opens a user's channel, unless it is open, and adds the user to the group of broadcasts.
    pub(super) fn open_channel(&mut self, user: &UserName) {
        let number = self.number(user);
        if !self.state.numbers.open(number) {
            return;
        }
        self.change(Change::ChannelOpened {
            user: number,
            name: user.clone(),
        });
        let group = icomet_group();
        match self.state.groups.get_mut(&group) {
            None => self.make_group(&group, HistoryMode::Member),
            Some(known) if known.deleted => {
                known.deleted = false;
                self.group_changed(&group);
            }
            Some(_) => {}
        }
        self.join(&group, std::slice::from_ref(user));
        let opened = ChannelChange::Opened(user.clone());
        self.plan.channels.push(opened);
    }

    /// Closes a user's channel, if it is open, and takes the user out of the group of broadcasts. What its next number
    /// would have been.
    pub(super) fn close_channel(&mut self, user: &UserName) -> Option<u64> {
        let number = self.state.users.get(user).flatten()?;
        let last = self.state.numbers.close(number, self.offset)?;
        self.change(Change::ChannelClosed { user: number, last });
        self.leave(&icomet_group(), std::slice::from_ref(user));
        let closed = ChannelChange::Closed(user.clone());
        self.plan.channels.push(closed);
        Some(last + 1)
    }

    /// Whether only backends may send to a group: all who have a channel are members of one, and could otherwise
    /// write to each other.
    pub(super) fn is_backends(&self, group: &GroupName) -> bool {
        !self.state.numbers.is_empty() && group.as_str() == ICOMET
    }

    /// Gives a message the next number of a user's channel, if there is one.
    pub(super) fn number_in_channel(&mut self, user: u32, sequence: Sequence, id: u64) {
        let Some(number) = self.state.numbers.next(user) else {
            return;
        };
        self.add(Addition::ChannelNumber {
            user,
            number,
            sequence,
            id,
        });
    }

    /// Gives a group's message its numbers: one per member with a channel, except the sender.
    pub(super) fn number_in_channels(&mut self, members: &Members, from: &UserName, id: u64) {
        if self.state.numbers.is_empty() {
            return;
        }
        for (name, member) in members.iter() {
            if name != from {
                self.number_in_channel(member.number, Sequence::Group, id);
            }
        }
    }
}
