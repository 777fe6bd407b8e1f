//! Channels: the part of planning that numbers what is for one user without gaps, as icomet's clients want it.

use super::planner::Planner;
use crate::hub::channel::{ChannelChange, ICOMET, icomet_group};
use crate::hub::state::Members;
use crate::model::{GroupName, Sequence, UserName};
use crate::store::{Addition, Change, HistoryMode};

impl Planner<'_> {
    /// Opens a user's channel, unless it is open, and adds the user to the group of broadcasts. Numbers that were
    /// forgotten are not given again: clients may still hold them, and would take others for theirs.
    pub(super) fn open_channel(&mut self, user: &UserName) {
        let number = self.number(user);
        if self.state.channels.contains_key(&number) {
            return;
        }
        let forgotten = self.state.forgotten.get(&number).flatten();
        let last = forgotten.unwrap_or(0);
        self.state.channels.insert(number, Some(last));
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
        let last = self.state.channels.remove(&number)?;
        let last = last.expect("the channels of an entry are looked up before it");
        let forgotten = &mut self.state.forgotten;
        forgotten.change(number, Some(last), self.offset);
        self.change(Change::ChannelClosed { user: number, last });
        self.leave(&icomet_group(), std::slice::from_ref(user));
        let closed = ChannelChange::Closed(user.clone());
        self.plan.channels.push(closed);
        Some(last + 1)
    }

    /// Whether only backends may send to a group: all who have a channel are members of one, and could otherwise
    /// write to each other.
    pub(super) fn is_backends(&self, group: &GroupName) -> bool {
        !self.state.channels.is_empty() && group.as_str() == ICOMET
    }

    /// Gives a message the next number of a user's channel, if there is one.
    pub(super) fn number_in_channel(&mut self, user: u32, sequence: Sequence, id: u64) {
        let Some(last) = self.state.channels.get_mut(&user) else {
            return;
        };
        let number = last.expect("the channels of an entry are looked up before it") + 1;
        *last = Some(number);
        self.add(Addition::ChannelNumber {
            user,
            number,
            sequence,
            id,
        });
    }

    /// Gives a group's message its numbers: one per member with a channel, except the sender.
    pub(super) fn number_in_channels(&mut self, members: &Members, from: &UserName, id: u64) {
        if self.state.channels.is_empty() {
            return;
        }
        for (name, member) in members.iter() {
            if name != from {
                self.number_in_channel(member.number, Sequence::Group, id);
            }
        }
    }
}
