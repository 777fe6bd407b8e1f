//! What the test pushes, what was acknowledged or read, and how long the recorder's log was by then.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::checker::check_all;
use crate::client::{Client, Receipt};
use crate::http::Reply;
use crate::ledger::{Change, Draft, Ledger, Position, Target};
use crate::load::{ANCHORS, GROUPS, USERS};
use crate::random::Random;
use crate::support::{Process, eventually, pause};

const WRITERS: usize = 4;
/// A group that nobody writes to: one member joins after the other.
const GROWING: &str = "growing";

/// All that is known of one data directory.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    ledger: Ledger,
    keyed: Vec<(Draft, Receipt)>,
    /// Members of the growing group that were asked for.
    joined: u64,
    /// A user's token: what signs it must be durable too.
    token: String,
    /// From when on the groups are there; `None` before they were made.
    ready: Option<u64>,
    known: Known,
}

/// What was surely acknowledged, or given to a reader, when the log was `length` long.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    length: u64,
    position: Position,
    joined: u64,
}

/// All that one recorded server acknowledged, in time.
#[derive(Clone, Debug)]
pub(super) struct Story {
    world: World,
    samples: Vec<Known>,
}

/// How a recorded server ends: after so long, by a clean stop (cut off at a limit) or at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub(super) after: Duration,
    pub(super) clean: bool,
    pub(super) limit: Duration,
}

/// What the writers of one story share.
#[derive(Debug)]
struct Shared {
    world: Mutex<World>,
    joined: Mutex<u64>,
    down: AtomicBool,
}

impl World {
    /// How many messages are known.
    pub(super) fn len(&self) -> usize {
        self.ledger.len()
    }

    /// Makes the groups; their members stay the same.
    fn make_groups(&mut self, client: &mut Client, log: &Path) {
        for (index, group) in GROUPS.into_iter().enumerate() {
            let users = USERS.iter().skip(index).step_by(3);
            let members: Vec<String> = users
                .chain([&ANCHORS[index]])
                .map(|u| (*u).to_owned())
                .collect();
            let history = if group == "g0" { "all" } else { "member" };
            let made = client.put_group(group, &members, history);
            made.unwrap().expect(201);
            for user in members {
                let group = group.to_owned();
                let (low, high) = (0, 0);
                self.ledger.changed(Change {
                    group,
                    user,
                    joins: true,
                    low,
                    high,
                });
            }
        }
        client.put_group(GROWING, &[], "all").unwrap().expect(201);
        self.token = client.token(USERS[0]);
        self.ready = Some(length(log));
    }

    /// Pushes with several writers for a while, then ends the server.
    pub(super) fn run(
        mut self,
        process: &mut Process,
        log: &Path,
        rng: &mut Random,
        ending: Ending,
    ) -> Story {
        if self.ready.is_none() {
            self.make_groups(&mut process.admin(), log);
        }
        let mut samples = vec![Known {
            length: 0,
            ..self.known
        }];
        let shared = Shared {
            joined: Mutex::new(self.known.joined),
            world: Mutex::new(self),
            down: AtomicBool::new(false),
        };
        thread::scope(|scope| {
            for _ in 0..WRITERS {
                let (client, rng, shared) = (process.admin(), rng.split(), &shared);
                scope.spawn(move || shared.write(client, rng));
            }
            let (client, joiner) = (process.admin(), &shared);
            scope.spawn(move || joiner.join(client));
            for user in ANCHORS {
                let token = process.admin().token(user);
                let (client, reader) = (process.user(&token), &shared);
                scope.spawn(move || reader.read(client));
            }
            eventually(ending.after, || {
                samples.push(shared.sample(log));
                false
            });
            shared.down.store(true, Ordering::SeqCst);
            if ending.clean {
                process.ask_to_stop();
                eventually(ending.limit, || {
                    samples.push(shared.sample(log));
                    !process.is_running()
                });
            }
            process.kill9();
        });
        samples.push(shared.sample(log));
        Story {
            world: shared.world.into_inner().unwrap(),
            samples,
        }
    }
}

impl Shared {
    /// What is acknowledged or read now; the log is looked at afterwards, so it holds all of that.
    fn sample(&self, log: &Path) -> Known {
        let joined = *self.joined.lock().unwrap();
        let position = self.world.lock().unwrap().ledger.last();
        let length = length(log);
        Known {
            length,
            position,
            joined,
        }
    }

    fn write(&self, mut client: Client, mut rng: Random) {
        while !self.down.load(Ordering::SeqCst) {
            let draft = random_draft(&mut rng);
            self.world.lock().unwrap().ledger.sent(&draft);
            let Some(reply) = push(&mut client, &draft) else {
                assert!(self.down.load(Ordering::SeqCst), "no answer to a push");
                return;
            };
            let receipt = reply.receipt();
            let mut world = self.world.lock().unwrap();
            world.ledger.acknowledged(&draft, &receipt);
            if draft.key.is_some() && rng.percent(5) {
                world.keyed.push((draft, receipt));
            }
        }
    }

    /// Holds polls: what a reader is given must be on the disk by then, acknowledged or not.
    fn read(&self, mut client: Client) {
        let mut cursor = "now".to_owned();
        while !self.down.load(Ordering::SeqCst) {
            let reply = client.poll(&cursor, 100, 1).ok();
            let Some(reply) = reply.filter(|reply| reply.status != 503) else {
                assert!(self.down.load(Ordering::SeqCst), "no answer to a poll");
                return;
            };
            let page = reply.page();
            let mut world = self.world.lock().unwrap();
            for message in &page.messages {
                world.ledger.seen(message);
            }
            cursor = page.next;
        }
    }

    fn join(&self, mut client: Client) {
        while !self.down.load(Ordering::SeqCst) {
            let next = {
                let mut world = self.world.lock().unwrap();
                world.joined += 1;
                world.joined
            };
            let path = format!("/v1/groups/{GROWING}/members/m{next:06}");
            match client.send("PUT", &path, None, "") {
                Ok(reply) if reply.status == 200 => *self.joined.lock().unwrap() = next,
                other => {
                    assert!(self.down.load(Ordering::SeqCst), "{other:?}");
                    return;
                }
            }
            pause(Duration::from_millis(5));
        }
    }
}

impl Story {
    /// All that was pushed and acknowledged in it.
    pub(super) fn world(&self) -> &World {
        &self.world
    }

    /// What was surely acknowledged when the log was so long.
    pub(super) fn known_at(&self, length: u64) -> Known {
        let past = self.samples.iter().rfind(|known| known.length <= length);
        *past.expect("there is a sample from before the first event")
    }

    /// The same, of a server that may lose what it acknowledged.
    pub(super) fn with_nothing_promised(mut self) -> Self {
        self.samples = vec![Known::default()];
        self
    }

    /// Whether the groups were there by then; before it nothing was pushed.
    pub(super) fn is_ready_at(&self, length: u64) -> bool {
        self.world.ready.is_some_and(|ready| ready <= length)
    }

    /// How many messages acknowledged by then a server that shows `watermark` has lost.
    pub(super) fn lost(&self, length: u64, watermark: Position) -> u64 {
        let known = self.known_at(length).position;
        known.direct.saturating_sub(watermark.direct) + known.group.saturating_sub(watermark.group)
    }

    /// Checks everything on a server that runs on what was left when the log was so long. Gives
    /// what is known from then on.
    #[track_caller]
    pub(super) fn check(&self, process: &Process, length: u64, rng: &mut Random) -> World {
        let mut client = process.admin();
        let known = self.known_at(length);
        let mut world = self.world.clone();
        if !self.is_ready_at(length) {
            // The groups may be half made; whatever is there, a new server takes a push.
            let to = Target::Direct(USERS[0].to_owned());
            let draft = Draft::new(rng, ANCHORS[0], to);
            push(&mut client, &draft).unwrap().receipt();
            return World::default();
        }
        let watermark = Position::from_status(&client.status());
        assert!(
            watermark.covers(known.position),
            "acknowledged messages are lost: {known:?} and now {watermark:?}"
        );
        world.ledger = self.world.ledger.fork(watermark);
        check_all(&mut client, &mut world.ledger, rng, known.position);
        world.known.joined = world.check_growing(&mut client, known.joined);
        world.joined = world.known.joined;
        world.check_keys(&mut client, watermark);
        let polled = process.user(&world.token).poll("now", 1, 0);
        polled.unwrap().expect(200);
        world.check_next(&mut client, rng, watermark);
        world.ready = Some(0);
        world.known.position = world.ledger.last();
        world
    }
}

impl World {
    /// The growing group has those who joined first, at least as many as were acknowledged.
    fn check_growing(&self, client: &mut Client, at_least: u64) -> u64 {
        let group = client.get(&format!("/v1/groups/{GROWING}")).unwrap();
        let members = group.expect(200).json()["members"].take();
        let members: Vec<String> = serde_json::from_value(members).unwrap();
        let count = u64::try_from(members.len()).unwrap();
        let expected = (1..=count).map(|number| format!("m{number:06}"));
        assert!(members.iter().cloned().eq(expected), "{members:?}");
        assert!((at_least..=self.joined).contains(&count), "{count} joined");
        count
    }

    /// Repeats are known as such, and get the first receipt.
    fn check_keys(&mut self, client: &mut Client, watermark: Position) {
        self.keyed
            .retain(|(draft, receipt)| receipt.id <= watermark.of(draft.sequence()));
        for (draft, receipt) in self.keyed.iter().rev().take(20) {
            let again = push(client, draft).unwrap().receipt();
            let first = Receipt {
                duplicate: true,
                ..receipt.clone()
            };
            assert_eq!(again, first, "a key was forgotten: {draft:?}");
        }
    }

    /// The next messages get the next ids.
    fn check_next(&mut self, client: &mut Client, rng: &mut Random, watermark: Position) {
        let group = Target::Group(GROUPS[0].to_owned());
        for target in [Target::Direct(USERS[0].to_owned()), group] {
            let draft = Draft::new(rng, ANCHORS[0], target);
            self.ledger.sent(&draft);
            let receipt = push(client, &draft).unwrap().receipt();
            assert_eq!(receipt.id, watermark.of(draft.sequence()) + 1);
            self.ledger.acknowledged(&draft, &receipt);
        }
    }
}

fn random_draft(rng: &mut Random) -> Draft {
    if rng.percent(60) {
        let users: Vec<&str> = USERS.into_iter().chain(ANCHORS).collect();
        let (from, to) = (users[rng.index(users.len())], users[rng.index(users.len())]);
        return Draft::new(rng, from, Target::Direct(to.to_owned()));
    }
    let group = rng.index(GROUPS.len());
    Draft::new(rng, ANCHORS[group], Target::Group(GROUPS[group].to_owned()))
}

/// Pushes a draft; `None` if the server did not answer, or refused for now.
fn push(client: &mut Client, draft: &Draft) -> Option<Reply> {
    let key = draft.key.as_deref();
    let reply = match &draft.target {
        Target::Direct(to) => client.push_direct(&draft.from, to, &draft.body, key),
        Target::Group(group) => client.push_group(&draft.from, group, &draft.body, key),
    };
    reply.ok().filter(|reply| reply.status != 503)
}

fn length(log: &Path) -> u64 {
    std::fs::metadata(log).map_or(0, |meta| meta.len())
}
