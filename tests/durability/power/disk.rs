//! A disk that loses power: which bytes and names are surely on it, and which may be.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::file::{Change, File};
use super::log::{Event, Log};
use crate::image::{Entry, Image};
use crate::random::Random;

/// What becomes of that which no sync covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fate {
    /// Of the pages written since, so many in a hundred survive.
    pub(super) pages: u64,
    /// Whether a random prefix of the changed names survives, or none of them.
    pub(super) names: bool,
}

/// Everything that has happened to the directory up to some event.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    nodes: Vec<Node>,
    inodes: HashMap<u64, usize>,
    /// The names as they were when recording began; all that follow are in `operations`.
    base: Vec<Step>,
    operations: Vec<Operation>,
    syncs: HashMap<u64, (usize, Option<usize>)>,
    done: usize,
}

#[derive(Clone, Debug)]
enum Node {
    File(File),
    /// The names of now.
    Dir(BTreeMap<String, usize>),
}

/// A change of names, whole or not at all; durable when no directory is left to be synced.
#[derive(Clone, Debug)]
struct Operation {
    steps: Vec<Step>,
    unsynced: BTreeSet<usize>,
    when: usize,
}

/// A name of a directory gets a node, or goes.
#[derive(Clone, Debug)]
struct Step {
    dir: usize,
    name: String,
    node: Option<usize>,
}

const ROOT: usize = 0;

impl Disk {
    /// What is in the directory before recording begins: all of it durable.
    pub(super) fn load(root: &Path) -> Self {
        let mut disk = Self {
            nodes: vec![Node::Dir(BTreeMap::new())],
            inodes: HashMap::from([(fs::metadata(root).unwrap().ino(), ROOT)]),
            base: Vec::new(),
            operations: Vec::new(),
            syncs: HashMap::new(),
            done: 0,
        };
        disk.load_dir(root, ROOT);
        disk
    }

    /// The same, but nothing that the files hold has been synced.
    pub(super) fn with_unsynced_contents(mut self) -> Self {
        for node in &mut self.nodes {
            if let Node::File(file) = node {
                let data = file.current();
                *file = File::new(Vec::new());
                file.push(0, Change::Write { at: 0, data });
            }
        }
        self
    }

    /// The same, but no name has been synced.
    pub(super) fn with_unsynced_names(mut self) -> Self {
        for step in std::mem::take(&mut self.base) {
            self.operations.push(Operation {
                unsynced: BTreeSet::from([step.dir]),
                steps: vec![step],
                when: 0,
            });
        }
        self
    }

    fn load_dir(&mut self, path: &Path, dir: usize) {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let is_dir = entry.file_type().unwrap().is_dir();
            let node = if is_dir {
                Node::Dir(BTreeMap::new())
            } else {
                Node::File(File::new(fs::read(entry.path()).unwrap()))
            };
            let node = self.add(node, entry.metadata().unwrap().ino());
            let step = Step {
                dir,
                name: entry.file_name().into_string().unwrap(),
                node: Some(node),
            };
            self.rename(&step);
            self.base.push(step);
            if is_dir {
                self.load_dir(&entry.path(), node);
            }
        }
    }

    /// Follows the log up to and without event `until`.
    pub(super) fn advance(&mut self, log: &Log, until: usize) {
        for when in self.done..until {
            self.follow(log, when);
        }
        self.done = until;
    }

    fn follow(&mut self, log: &Log, when: usize) {
        match &log.events[when] {
            Event::Create { inode, path } => {
                let node = self.add(Node::File(File::new(Vec::new())), *inode);
                self.operate(when, &[(path, Some(node))]);
            }
            Event::MakeDir { inode, path } => {
                let node = self.add(Node::Dir(BTreeMap::new()), *inode);
                self.operate(when, &[(path, Some(node))]);
            }
            Event::Write { inode, at, data } => {
                let data = log.data(data).to_vec();
                self.file(*inode)
                    .push(when, Change::Write { at: *at, data });
            }
            Event::Truncate { inode, length } => {
                self.file(*inode).push(when, Change::Truncate(*length));
            }
            Event::Rename { from, to } => {
                let node = self.find(from);
                self.operate(when, &[(from, None), (to, Some(node))]);
            }
            Event::Unlink { path } => self.operate(when, &[(path, None)]),
            Event::Link { from, to } => {
                let node = self.find(from);
                self.operate(when, &[(to, Some(node))]);
            }
            Event::SyncBegin { inode, ticket } => {
                let node = (*inode != 0).then(|| self.inodes[inode]);
                self.syncs.insert(*ticket, (when, node));
            }
            Event::SyncEnd { ticket } => self.synced(*ticket),
            Event::Range | Event::Odd(_) | Event::Intent { .. } => {}
        }
    }

    fn synced(&mut self, ticket: u64) {
        let (begun, target) = self
            .syncs
            .remove(&ticket)
            .expect("a sync ends after its begin");
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if target.is_some_and(|target| target != index) {
                continue;
            }
            match node {
                Node::File(file) => file.sync(begun),
                Node::Dir(_) => {
                    for operation in self.operations.iter_mut().filter(|o| o.when < begun) {
                        operation.unsynced.remove(&index);
                    }
                }
            }
        }
    }

    fn add(&mut self, node: Node, inode: u64) -> usize {
        self.nodes.push(node);
        self.inodes.insert(inode, self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn file(&mut self, inode: u64) -> &mut File {
        let index = *self
            .inodes
            .get(&inode)
            .expect("the file's birth was recorded");
        match &mut self.nodes[index] {
            Node::File(file) => file,
            Node::Dir(_) => panic!("a directory was written to"),
        }
    }

    fn operate(&mut self, when: usize, changes: &[(&String, Option<usize>)]) {
        let steps: Vec<_> = changes
            .iter()
            .map(|(path, node)| self.step(path, *node))
            .collect();
        for step in &steps {
            self.rename(step);
        }
        self.operations.push(Operation {
            unsynced: steps.iter().map(|step| step.dir).collect(),
            steps,
            when,
        });
    }

    fn rename(&mut self, step: &Step) {
        match &mut self.nodes[step.dir] {
            Node::Dir(names) => apply(names, step),
            Node::File(_) => panic!("{} is put into a file", step.name),
        }
    }

    fn step(&self, path: &str, node: Option<usize>) -> Step {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = if parent.is_empty() {
            ROOT
        } else {
            self.find(parent)
        };
        let name = name.to_owned();
        Step { dir, name, node }
    }

    fn find(&self, path: &str) -> usize {
        path.split('/')
            .fold(ROOT, |dir, name| match &self.nodes[dir] {
                Node::Dir(names) => *names.get(name).unwrap_or_else(|| panic!("no {path}")),
                Node::File(_) => panic!("{path} goes through a file"),
            })
    }

    /// Whether the name is that of the file with this inode.
    pub(super) fn is_file(&self, path: &str, inode: u64) -> bool {
        self.inodes.get(&inode) == Some(&self.find(path))
    }

    /// The directory as the running program sees it.
    pub(super) fn seen(&self) -> Image {
        let names = |dir: usize| match &self.nodes[dir] {
            Node::Dir(names) => names.clone(),
            Node::File(_) => BTreeMap::new(),
        };
        self.image(&names, &mut File::current)
    }

    /// The directory as it may be found after a loss of power now.
    pub(super) fn lose_power(&self, fate: Fate, rng: &mut Random) -> Image {
        let loose = self
            .operations
            .iter()
            .filter(|o| !o.unsynced.is_empty())
            .count();
        let mut lucky = if fate.names { rng.index(loose + 1) } else { 0 };
        let mut dirs: BTreeMap<usize, BTreeMap<String, usize>> = BTreeMap::new();
        for step in &self.base {
            apply(dirs.entry(step.dir).or_default(), step);
        }
        for operation in &self.operations {
            if !operation.unsynced.is_empty() {
                if lucky == 0 {
                    continue;
                }
                lucky -= 1;
            }
            for step in &operation.steps {
                apply(dirs.entry(step.dir).or_default(), step);
            }
        }
        let names = |dir: usize| dirs.get(&dir).cloned().unwrap_or_default();
        self.image(&names, &mut |file| file.lose_power(fate.pages, rng))
    }

    fn image(
        &self,
        names: &dyn Fn(usize) -> BTreeMap<String, usize>,
        content: &mut dyn FnMut(&File) -> Vec<u8>,
    ) -> Image {
        let mut image = Image::new();
        let mut waiting = vec![(String::new(), ROOT)];
        while let Some((prefix, dir)) = waiting.pop() {
            for (name, node) in names(dir) {
                let path = format!("{prefix}{name}");
                let entry = match &self.nodes[node] {
                    Node::File(file) => Entry::File(content(file)),
                    Node::Dir(_) => {
                        waiting.push((format!("{path}/"), node));
                        Entry::Dir
                    }
                };
                image.insert(path, entry);
            }
        }
        image
    }
}

fn apply(names: &mut BTreeMap<String, usize>, step: &Step) {
    match step.node {
        Some(node) => names.insert(step.name.clone(), node),
        None => names.remove(&step.name),
    };
}
