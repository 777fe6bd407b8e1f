//! Channels: the part of planning that opens and closes them.

use super::planner::Planner;
use crate::hub::channel::{ChannelChange, ICOMET, icomet_group};
use crate::model::{GroupName, UserName};
use crate::store::{Change, Channel, HistoryMode};

impl Planner<'_> {
    /// Opens a user's channel, unless it is open, and adds the user to the group of broadcasts.
    pub(super) fn open_channel(&mut self, user: &UserName) {
        let number = self.number(user);
        let opened = self.state.applied.heads;
        let Some(base) = self.state.numbers.open(number, opened) else {
            return;
        };
        let channel = Channel {
            name: user.clone(),
            base,
            opened,
        };
        self.change(Change::ChannelOpened {
            user: number,
            channel: channel.clone(),
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
        let opened = ChannelChange::Opened(number, channel);
        self.plan.channels.push(opened);
    }

    /// Closes a user's channel, if it is open, and takes the user out of the group of broadcasts. The number with which
    /// it would go on.
    pub(super) fn close_channel(&mut self, user: &UserName) -> Option<u64> {
        let number = self.state.users.get(user).flatten()?;
        let heads = self.state.applied.heads;
        let last = self.state.numbers.close(number, heads, self.offset)?;
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

    /// The number of a user whose channel is open.
    pub(super) fn listener(&self, user: &UserName) -> Option<u32> {
        let number = self.state.users.get(user).flatten();
        number.filter(|number| self.state.numbers.is_open(*number))
    }
}
