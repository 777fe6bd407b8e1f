//! What applying needs to know: the mark, the groups, the channels, and what it looked up of names,
//! members, conversations and idempotency keys. After an entry it is exactly what a reading of the view would give.

use std::collections::HashMap;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::channel::{Numbers, icomet_group};
use super::known::Known;
use super::standing::{Member, Standing, Standings};
use crate::model::{ChainEnd, Draft, GroupName, Receiver, UserName};
use crate::store::{
    Applied, Command, Entry, Error, GroupState, HistoryMode, KeyHash, KeyUse, ListedMember, View,
};

/// What readers share with the applier about a group.
#[derive(Debug)]
pub(super) struct GroupFacts {
    pub(super) name: GroupName,
    pub(super) number: u32,
    /// Its last message; raised before the watermark.
    pub(super) last: AtomicU64,
}

#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) facts: Arc<GroupFacts>,
    pub(super) history: HistoryMode,
    pub(super) deleted: bool,
    pub(super) end: ChainEnd,
    /// How many members it has.
    pub(super) members: u64,
}

/// The state that entries are applied to.
#[derive(Debug)]
pub(crate) struct State {
    pub(super) applied: Applied,
    pub(super) groups: HashMap<GroupName, Group>,
    /// Their members, and who left them.
    pub(super) standings: Standings,
    /// Numbers of users; `None`: has none yet.
    pub(super) users: Known<UserName, Option<u32>>,
    /// The ends of conversations, under the lower number first.
    pub(super) conversations: Known<(u32, u32), ChainEnd>,
    /// Idempotency keys that were used, perhaps more than a day ago.
    pub(super) keys: Known<KeyHash, Option<KeyUse>>,
    pub(super) numbers: Numbers,
}

impl State {
    /// The state of an empty view, from which all is known that entries change.
    pub(crate) fn new(applied: Applied) -> Self {
        Self::keeping(applied, usize::MAX)
    }

    fn keeping(applied: Applied, kept: usize) -> Self {
        Self {
            applied,
            groups: HashMap::new(),
            standings: Standings::new(kept),
            users: Known::new(kept),
            conversations: Known::new(kept),
            keys: Known::new(kept),
            numbers: Numbers::new(kept),
        }
    }

    /// The mark of what was applied.
    pub(crate) fn applied(&self) -> &Applied {
        &self.applied
    }

    /// Reads the groups and the channels. Of everything else, `kept` values of each kind are kept, and those that are not
    /// in the view yet.
    pub(super) fn load(view: &View, applied: Applied, kept: usize) -> Result<Self, Error> {
        let mut state = Self::keeping(applied, kept);
        for group in view.groups() {
            let (number, group) = group?;
            let end = view.last_of_group(number, applied.heads.group)?;
            let facts = GroupFacts {
                name: group.name.clone(),
                number,
                last: AtomicU64::new(end.last),
            };
            let GroupState {
                name,
                history,
                deleted,
                members,
            } = group;
            let group = Group {
                facts: Arc::new(facts),
                history,
                deleted,
                end,
                members,
            };
            state.groups.insert(name, group);
        }
        state.numbers = Numbers::load(view, kept)?;
        Ok(state)
    }

    /// Looks up what planning an entry needs. What an earlier, unfinished application of the same entry
    /// left in the view is not seen: numbers and ids beyond the mark do not count.
    pub(super) fn prepare(&mut self, view: &View, entry: &Entry) -> Result<(), Error> {
        for command in &entry.commands {
            match command {
                Command::Message(draft) => {
                    if let Some(hash) = key_hash(draft) {
                        self.prepare_key(view, hash)?;
                    }
                    match &draft.to {
                        Receiver::User(to) => {
                            self.prepare_conversation(view, &draft.from, to)?;
                        }
                        Receiver::Group(group) => {
                            if draft.by_user {
                                let from = slice::from_ref(&draft.from);
                                self.prepare_members(view, group, from)?;
                            }
                            if !self.numbers.is_empty() {
                                self.prepare_user(view, &draft.from)?;
                            }
                        }
                    }
                }
                Command::SetGroup { group, members, .. } => {
                    self.prepare_list(view, group)?;
                    self.prepare_members(view, group, members)?;
                }
                Command::ChangeMembers { group, add, remove } => {
                    self.prepare_members(view, group, add)?;
                    self.prepare_members(view, group, remove)?;
                }
                Command::DeleteGroup { group } => self.prepare_list(view, group)?,
                Command::OpenChannel { user } | Command::CloseChannel { user } => {
                    self.prepare_channel(view, user)?;
                }
            }
        }
        Ok(())
    }

    /// Forgets what is in the view, which has all up to an entry, where too much is known.
    pub(super) fn forget(&mut self, sealed: u64) {
        self.standings.forget(sealed);
        self.users.forget(sealed);
        self.conversations.forget(sealed);
        self.keys.forget(sealed);
        self.numbers.forget(sealed);
    }

    fn prepare_users(&mut self, view: &View, names: &[UserName]) -> Result<(), Error> {
        for name in names {
            self.prepare_user(view, name)?;
        }
        Ok(())
    }

    fn group_number(&self, group: &GroupName) -> Option<u32> {
        self.groups.get(group).map(|group| group.facts.number)
    }

    /// All members of a group.
    fn prepare_list(&mut self, view: &View, group: &GroupName) -> Result<(), Error> {
        let Some(group) = self.group_number(group) else {
            return Ok(());
        };
        let members = view.members(group).map(|member| {
            let (number, member) = member?;
            let ListedMember {
                name,
                from,
                membership,
            } = member;
            let member = Member {
                number,
                from,
                all: membership.all,
                joined_ms: membership.joined_ms,
            };
            Ok((name, member))
        });
        self.standings.list(group, members)
    }

    /// What users are to a group, who may have no number yet.
    fn prepare_members(
        &mut self,
        view: &View,
        group: &GroupName,
        users: &[UserName],
    ) -> Result<(), Error> {
        self.prepare_users(view, users)?;
        let Some(group) = self.group_number(group) else {
            return Ok(());
        };
        for user in users {
            let Some(number) = self.prepare_user(view, user)? else {
                continue;
            };
            let look_up = || {
                let newest = view.last_membership(number, group)?;
                Ok(Standing::of(number, newest))
            };
            self.standings.look_up(group, user, look_up)?;
        }
        Ok(())
    }

    /// What opening or closing a user's channel needs.
    fn prepare_channel(&mut self, view: &View, user: &UserName) -> Result<(), Error> {
        self.prepare_members(view, &icomet_group(), slice::from_ref(user))?;
        self.prepare_forgotten(view, user)
    }

    fn prepare_forgotten(&mut self, view: &View, user: &UserName) -> Result<(), Error> {
        if let Some(number) = self.prepare_user(view, user)? {
            self.numbers.look_up_forgotten(view, number)?;
        }
        Ok(())
    }

    fn prepare_user(&mut self, view: &View, name: &UserName) -> Result<Option<u32>, Error> {
        let given = self.applied.users;
        self.users.look_up(name.clone(), || {
            Ok(view.user(name)?.filter(|number| *number <= given))
        })
    }

    fn prepare_conversation(
        &mut self,
        view: &View,
        from: &UserName,
        to: &UserName,
    ) -> Result<(), Error> {
        let numbers = (self.prepare_user(view, from)?, self.prepare_user(view, to)?);
        let (Some(from), Some(to)) = numbers else {
            return Ok(());
        };
        let users = (from.min(to), from.max(to));
        let head = self.applied.heads.direct;
        let look_up = || view.last_of_conversation(users, head);
        self.conversations.look_up(users, look_up).map(drop)
    }

    fn prepare_key(&mut self, view: &View, hash: KeyHash) -> Result<(), Error> {
        self.keys.look_up(hash, || view.key(hash)).map(drop)
    }
}

impl GroupFacts {
    pub(super) fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }
}

/// What stands for a draft's idempotency key: users have spaces of their own, the backend has one.
pub(super) fn key_hash(draft: &Draft) -> Option<KeyHash> {
    let key = draft.key.as_ref()?;
    let space = if draft.by_user {
        draft.from.as_str()
    } else {
        ""
    };
    Some(KeyHash(digest(&[
        space.as_bytes(),
        key.as_str().as_bytes(),
    ])))
}

/// What stands for the content of a draft.
pub(super) fn content_hash(draft: &Draft) -> [u8; 16] {
    let (kind, to) = match &draft.to {
        Receiver::User(name) => ("user", name.as_str()),
        Receiver::Group(name) => ("group", name.as_str()),
    };
    let from = draft.from.as_str();
    digest(&[
        kind.as_bytes(),
        to.as_bytes(),
        from.as_bytes(),
        draft.body.as_bytes(),
    ])
}

/// The first half of a SHA-256 over the parts, each with its length in front.
fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(
            u64::try_from(part.len())
                .expect("a length fits 64 bits")
                .to_be_bytes(),
        );
        hash.update(part);
    }
    let hash: [u8; 32] = hash.finalize().into();
    *hash.first_chunk().expect("32 bytes hold 16")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::plan::{Outcome, plan};
    use crate::model::{Body, IdempotencyKey};
    use crate::store::{Directory, KEYS_KEPT_MS};

    const KEYS: usize = 1000;
    /// Those that are used again.
    const AGAIN: usize = 20;

    fn keyed(n: usize) -> Command {
        let user = |name| UserName::parse(name).unwrap();
        Command::Message(Draft {
            from: user("ann"),
            to: Receiver::User(user("bob")),
            body: Body::from(b"1".to_vec()),
            key: Some(IdempotencyKey::parse(&format!("key {n}")).unwrap()),
            by_user: false,
        })
    }

    #[test]
    fn a_key_that_is_used_again_is_kept_when_its_first_time_is_forgotten() {
        let data = tempfile::tempdir().unwrap();
        let directory = Directory::open(data.path()).unwrap();
        let (view, applied) = View::open(&directory, 8 << 20).unwrap();
        let mut state = State::load(&view, applied, usize::MAX).unwrap();
        // How many of an entry's pushes were known already.
        let mut known = |at_ms, keys: std::ops::Range<usize>| {
            let offset = state.applied.offset + 1;
            let entry = Entry {
                proposer: 1,
                n: offset,
                at_ms,
                keys_us: at_ms * 1000,
                commands: keys.map(keyed).collect(),
            };
            state.prepare(&view, &entry).unwrap();
            let plan = plan(&mut state, offset, &entry);
            view.write(&plan.writes, &state.applied, &mut |_| Ok(()))
                .unwrap();
            let known = |outcome: &&Outcome| matches!(outcome, Outcome::Message(receipt) if receipt.duplicate);
            plan.outcomes.iter().filter(known).count()
        };
        assert_eq!(known(1, 0..KEYS), 0);
        assert_eq!(known(KEYS_KEPT_MS, 0..AGAIN), AGAIN, "the day is not over");
        assert_eq!(known(KEYS_KEPT_MS + 2, 0..AGAIN), 0, "the day is over");
        // The view forgets some with each of these.
        for _ in 0..KEYS {
            known(KEYS_KEPT_MS + 2, 0..0);
        }
        assert_eq!(known(KEYS_KEPT_MS + 3, 0..AGAIN), AGAIN);
        assert_eq!(known(2 * KEYS_KEPT_MS + 1, 0..AGAIN), AGAIN);
    }
}
