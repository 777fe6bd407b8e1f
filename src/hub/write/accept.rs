//! Takes proposals in: bounded, refused when there is no room, and independent of who made them.

use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{RwLock, oneshot};

use crate::error::Error;
use crate::hub::channel::Opening;
use crate::hub::plan::{GroupReceipt, Outcome};
use crate::hub::proposal::{Answer, GroupTurn, Proposal, Queued, Waiting};
use crate::hub::{Hub, Inner};
use crate::model::{Draft, GroupName, Receipt, Receiver, UserName};
use crate::store::{Command, HistoryMode};

/// Proposals that may wait for the journal, whatever their size.
pub(in crate::hub) const QUEUE_PROPOSALS: usize = 8192;

/// How long a push waits for windows to be sealed when the tail is full; then it is refused.
const ROOM_PATIENCE: Duration = Duration::from_secs(2);

/// A change of a group.
#[derive(Clone, Debug)]
pub enum GroupChange {
    /// Make it, or set who its members are.
    Set {
        /// Exactly these are members afterwards; `None` keeps those that the group has.
        members: Option<Vec<UserName>>,
        /// For those who join from now on; `None` keeps what the group has, or `Member`.
        history: Option<HistoryMode>,
    },
    /// Let some join and some leave; who is in both leaves.
    Members {
        /// Who joins.
        add: Vec<UserName>,
        /// Who leaves.
        remove: Vec<UserName>,
    },
    /// All leave, and nothing more can be sent.
    Delete,
}

impl Hub {
    /// Commits drafts in one entry, in order; an outcome for each. An outer error stands for all: `Busy`,
    /// `Behind`, `Closing` and `DiskFull` say that nothing was stored, `WritesRefused` that it is not known. Dropping
    /// the future changes nothing: the drafts are stored and delivered all the same.
    pub async fn push(&self, drafts: Vec<Draft>) -> Result<Vec<Result<Receipt, Error>>, Error> {
        // Users do not open channels of others: with made-up names one of them could take all there may be.
        let receivers = drafts.iter().filter_map(|draft| match &draft.to {
            Receiver::User(to) if !draft.by_user => Some(to),
            Receiver::User(_) | Receiver::Group(_) => None,
        });
        let opening = self.0.channels.to_open(receivers);
        self.0.commit(opening, drafts).await
    }

    /// Changes a group. The change takes its place in the one order of all commands.
    pub async fn change_group(
        &self,
        group: GroupName,
        change: GroupChange,
    ) -> Result<GroupReceipt, Error> {
        let joining: &[UserName] = match &change {
            GroupChange::Set { members, .. } => members.as_deref().unwrap_or_default(),
            GroupChange::Members { add, .. } => add,
            GroupChange::Delete => &[],
        };
        let opening = self.0.channels.to_open(joining);
        let turn = GroupTurn::of(&change, &self.0.group_changes).await;
        let command = match change {
            GroupChange::Set { members, history } => Command::SetGroup {
                members: match members {
                    Some(members) => members,
                    None => self.members_now(&group).await?,
                },
                group,
                history,
            },
            GroupChange::Members { add, remove } => Command::ChangeMembers { group, add, remove },
            GroupChange::Delete => Command::DeleteGroup { group },
        };
        let outcomes = self
            .0
            .propose_in_turn(opening, vec![command], Some(turn))
            .await?;
        outcomes
            .into_iter()
            .find_map(Outcome::group)
            .unwrap_or(Err(Error::WritesRefused))
    }

    /// The members of a group; none of one that is still to be made.
    async fn members_now(&self, group: &GroupName) -> Result<Vec<UserName>, Error> {
        match self.group(group.clone()).await {
            Ok(found) => Ok(found.members),
            Err(Error::GroupNotFound) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

impl GroupTurn {
    async fn of(change: &GroupChange, changes: &Arc<RwLock<()>>) -> Self {
        let changes = Arc::clone(changes);
        match change {
            GroupChange::Set { members: None, .. } => Self::Alone(changes.write_owned().await),
            _ => Self::Shared(changes.read_owned().await),
        }
    }
}

impl Outcome {
    fn message(self) -> Option<Result<Receipt, Error>> {
        match self {
            Self::Message(receipt) => Some(Ok(receipt)),
            Self::Refused(error) => Some(Err(error)),
            Self::Group(_) | Self::Opened | Self::Closed(_) => None,
        }
    }

    fn group(self) -> Option<Result<GroupReceipt, Error>> {
        match self {
            Self::Group(receipt) => Some(Ok(receipt)),
            Self::Refused(error) => Some(Err(error)),
            Self::Message(_) | Self::Opened | Self::Closed(_) => None,
        }
    }
}

impl Inner {
    /// Commits drafts, behind the opening of channels. An outcome for each.
    pub(in crate::hub) async fn commit(
        &self,
        opening: Opening,
        drafts: Vec<Draft>,
    ) -> Result<Vec<Result<Receipt, Error>>, Error> {
        let messages = drafts.into_iter().map(Command::Message).collect();
        let outcomes = self.propose(opening, messages).await?;
        Ok(outcomes.into_iter().filter_map(Outcome::message).collect())
    }

    /// Has commands committed, behind the opening of channels. An outcome for each of both.
    pub(in crate::hub) async fn propose(
        &self,
        opening: Opening,
        commands: Vec<Command>,
    ) -> Result<Vec<Outcome>, Error> {
        self.propose_in_turn(opening, commands, None).await
    }

    /// The same, in a turn of changing groups, which lasts until the answer.
    async fn propose_in_turn(
        &self,
        opening: Opening,
        commands: Vec<Command>,
        turn: Option<GroupTurn>,
    ) -> Result<Vec<Outcome>, Error> {
        let (proposal, answer) = self.new_proposal(opening, commands, turn)?;
        // It counts as queued meanwhile: those that wait take no more memory than the queue may.
        if !self.tail.has_room() && !self.tail.room_within(ROOM_PATIENCE).await {
            let limit = self.options.tail_bytes_max;
            return Err(Error::Behind { limit });
        }
        self.enqueue(proposal)?;
        // A thread that ended without an answer has failed: what it had written is not known.
        answer.await.map_err(|_| Error::WritesRefused)?
    }

    /// A proposal, unless the queue has no room for its bytes, and its answer.
    pub(super) fn new_proposal(
        &self,
        opening: Opening,
        commands: Vec<Command>,
        turn: Option<GroupTurn>,
    ) -> Result<(Proposal, Answer), Error> {
        self.writable()?;
        let commands: Vec<_> = opening.commands().chain(commands).collect();
        let bytes = commands.iter().map(Command::weight).sum();
        let queued = Queued::new(bytes, &self.queued_bytes, self.options.queue_bytes_max)?;
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            answer,
            commands: commands.len(),
            _queued: queued,
            _opening: opening,
            _turn: turn,
        };
        Ok((Proposal { commands, waiting }, answered))
    }

    /// Hands a proposal to the journal stage.
    pub(super) fn enqueue(&self, proposal: Proposal) -> Result<(), Error> {
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner);
        let queue: &SyncSender<Proposal> = queue.as_ref().ok_or(Error::Closing)?;
        queue.try_send(proposal).map_err(|error| match error {
            TrySendError::Full(_) => Error::Busy,
            TrySendError::Disconnected(_) => Error::WritesRefused,
        })
    }
}
