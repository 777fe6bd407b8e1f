//! Polls, events, lines and sockets: what each of them says, and that all of them give the same.

mod beats;
mod counts;
mod ends;
mod heads;
mod mixed;
mod resume;
mod sizes;
