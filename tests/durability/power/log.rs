//! The log that `preload.c` writes: everything that the server did to its files, in order.

use std::ops::Range;
use std::path::Path;

/// Something done to the files below the directory; paths are relative to it.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Create {
        inode: u64,
        path: String,
    },
    MakeDir {
        inode: u64,
        path: String,
    },
    Write {
        inode: u64,
        at: usize,
        data: Range<usize>,
    },
    Truncate {
        inode: u64,
        length: usize,
    },
    Rename {
        from: String,
        to: String,
    },
    Unlink {
        path: String,
    },
    Link {
        from: String,
        to: String,
    },
    SyncBegin {
        inode: u64,
        ticket: u64,
    },
    SyncEnd {
        ticket: u64,
    },
    /// `sync_file_range`: it makes nothing durable.
    Range,
    /// What the recorder cannot follow.
    Odd(String),
    /// These names are about to change.
    Intent {
        paths: [String; 2],
    },
}

/// The events, and where in the log each one ends: what a pusher saw acknowledged when the log was
/// so long may depend on these events and on no later ones.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) events: Vec<Event>,
    pub(super) ends: Vec<u64>,
    bytes: Vec<u8>,
}

const HEAD: usize = 32;

impl Log {
    /// Reads a log; a last event that a kill has cut is left out, because it was not done.
    pub(super) fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).expect("the recorder was loaded and has written its log");
        let (mut events, mut ends, mut start) = (Vec::new(), Vec::new(), 0);
        while let Some(head) = bytes.get(start..start + HEAD) {
            let end = start + size(&head[..4]);
            if end > bytes.len() {
                break;
            }
            events.push(event(&bytes, start, end));
            ends.push(u64::try_from(end).unwrap());
            start = end;
        }
        Self {
            events,
            ends,
            bytes,
        }
    }

    /// What a write wrote.
    pub(super) fn data(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes[range.clone()]
    }

    /// How many syncs ended among the events.
    pub(super) fn syncs(&self) -> usize {
        let ended = |event: &&Event| matches!(event, Event::SyncEnd { .. });
        self.events.iter().filter(ended).count()
    }

    /// What the recorder could not follow.
    pub(super) fn odd(&self) -> Vec<&str> {
        let mut found = Vec::new();
        for event in &self.events {
            if let Event::Odd(words) = event {
                found.push(words.as_str());
            }
        }
        found
    }
}

fn event(bytes: &[u8], start: usize, end: usize) -> Event {
    let field = |at: usize, length: usize| &bytes[start + at..start + at + length];
    let (inode, number) = (wide(field(8, 8)), wide(field(16, 8)));
    let (first, second) = (size(field(24, 4)), size(field(28, 4)));
    let text = |at, length| String::from_utf8(field(at, length).to_vec()).unwrap();
    let (path, other) = (text(HEAD, first), text(HEAD + first, second));
    match field(4, 1)[0] {
        1 => Event::Create { inode, path },
        2 => Event::MakeDir { inode, path },
        3 => Event::Write {
            inode,
            at: usize::try_from(number).unwrap(),
            data: start + HEAD..end,
        },
        4 => Event::Truncate {
            inode,
            length: usize::try_from(number).unwrap(),
        },
        5 => Event::Rename {
            from: path,
            to: other,
        },
        6 => Event::Unlink { path },
        7 => Event::Link {
            from: path,
            to: other,
        },
        8 => Event::SyncBegin {
            inode,
            ticket: number,
        },
        9 => Event::SyncEnd { ticket: number },
        10 => Event::Range,
        11 => Event::Odd(path),
        12 => Event::Intent {
            paths: [path, other],
        },
        kind => panic!("the log holds an event of kind {kind}"),
    }
}

fn wide(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

fn size(bytes: &[u8]) -> usize {
    usize::try_from(u32::from_be_bytes(bytes.try_into().unwrap())).unwrap()
}
