//! Halley: push and instant messages over held HTTP requests, in one binary.
//!
//! # Bird's-eye view
//!
//! An app's clients hold requests open against the client listener; the app's backend pushes messages into the
//! admin listener. Every message is kept once, under an id of one of two global sequences, and is read again by
//! id. A client's cursor is two ids; its next request is its acknowledgement.
//!
//! # Layers
//!
//! Imports go one way, also between the files of `hub` and `store`; a test reads the source and enforces it.
//!
//! | module | does | does not know |
//! |---|---|---|
//! | [`cli`] | one file a command | |
//! | [`server`] | opens, binds, runs, stops in order | |
//! | [`http`] | both listeners, routes, held requests; the only folder that names warp | sled, the journal |
//! | [`hub`] | accepts, commits, applies, wakes, reads | HTTP, status codes, sled |
//! | [`store`] | the data directory, the journal, the readable view; the only folder that names sled | async |
//! | [`model`] | ids, names, cursors, messages, pages | I/O |
//!
//! [`config`], [`clock`], [`logging`], [`secret`], [`signals`] and [`token`] are leaves that anyone may use. `src/web` holds no
//! Rust: the client for JavaScript and the pages, which `http::pages` has inside the program.
//!
//! # One message's path
//!
//! 1. `http::api::push` checks the key, reads the bounded body, and makes a [`model::Draft`] of it.
//! 2. [`hub::Hub::push`] puts it into the bounded queue and waits. From here on the pusher may leave: nothing
//!    depends on it any longer.
//! 3. The journal stage, one thread, takes all that is queued as one [`store::Entry`], appends it and syncs once.
//!    What arrives meanwhile is the next entry.
//! 4. The apply stage, in that thread while nothing more is queued, else in one of its own, plans the entry, which
//!    gives the ids; adds it to the tail, in memory, which makes it visible; answers the pushers; tells the mailboxes
//!    of the receivers; wakes them.
//! 5. [`hub::Feed`] reads the tail and, below it, the view.
//! 6. `http::parked`, or for polls a reactor (`http::reactor`), writes the reply to the socket, which waits outside of hyper.
//! 7. Behind all this the seal thread writes a full window of the tail into sled: a row a message, and lists packed.
//!
//! # What always holds
//!
//! - What is acknowledged or seen is in the journal, on disk. Everything in sled can be made from the journal.
//! - Planning is pure: no clock, no randomness, no configuration. The same journal gives the same ids. It says what is
//!   kept ([`store::Writes`]); only the store knows keys and rows.
//! - A channel's number is given where an id is given, and is as lasting.
//! - What is visible is what is in the tail, with all that it came with, and it is there before anyone is woken. A
//!   mailbox is registered before its feed reads. So nothing is skipped, whatever the timing.
//! - A window of the tail is let go of only when all of it is in sled, and readers look up the tail first: whatever is
//!   sealed meanwhile, they find each message in one or the other. Where windows end follows from the journal alone.
//! - After a failed write or sync, nothing more is written until a restart.
//! - sled is trusted only where it was written: after a clean stop it is as the mark says; after a kill it is
//!   recovered and checked; a copy taken while it was in use is rebuilt.
//! - Every queue, body, page and wait has a limit.
//!
//! # What is deliberately absent
//!
//! No state about devices, no acknowledgement call, no timer between a push and its commit, no copy of a message
//! for each receiver, no transaction or batch of sled (both lock out its readers), no id from sled's own
//! generator (it repeats ids after a kill).

// In reading order: from the command line down, then the leaves.
pub mod cli;
pub mod server;

pub mod http;

pub mod hub;

pub mod store;

pub mod model;

pub mod error;

pub mod config;
pub mod secret;
pub mod token;

pub mod clock;
pub mod logging;
pub mod signals;
