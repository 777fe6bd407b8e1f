//! What is on its way to one peer: written as far as the socket takes it, and cut when the peer takes nothing for too long,
//! or too little.

use std::io::{self, IoSlice, Write};

use bytes::{Buf, Bytes};
use tokio::time::Instant;

use crate::http::socket::pace::{Pace, Patience};

/// What one system call writes.
const SLICES_MAX: usize = 64;

/// What a peer has not taken yet.
pub(super) struct Unsent {
    first: Bytes,
    rest: std::vec::IntoIter<Bytes>,
    /// Begins when the peer first does not take all at once.
    pace: Option<Pace>,
    /// Until when it must take something, since it last did.
    due: Option<Instant>,
}

/// How far writing got.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    All,
    /// The peer must take some of it until then.
    Some(Instant),
}

impl Unsent {
    pub(super) fn new(parts: Vec<Bytes>) -> Self {
        Self {
            first: Bytes::new(),
            rest: parts.into_iter(),
            pace: None,
            due: None,
        }
    }

    /// How much it is.
    pub(super) fn bytes(&self) -> usize {
        let rest = self.rest.as_slice().iter().map(Bytes::len).sum::<usize>();
        self.first.len() + rest
    }

    /// Writes what goes.
    pub(super) fn send(&mut self, to: &mut impl Write, patience: Patience) -> io::Result<Sent> {
        loop {
            self.pass(0);
            if self.first.is_empty() {
                return Ok(Sent::All);
            }
            match self.send_some(to) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    if let Some(pace) = &mut self.pace {
                        pace.add(written);
                    }
                    self.due = None;
                    self.pass(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let pace = self.pace.get_or_insert_with(|| patience.begin());
                    return Ok(Sent::Some(*self.due.get_or_insert_with(|| pace.due())));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn send_some(&self, to: &mut impl Write) -> io::Result<usize> {
        if self.rest.len() == 0 {
            return to.write(&self.first);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let parts = std::iter::once(&self.first).chain(self.rest.as_slice());
        let mut used = 0;
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
            used += 1;
        }
        to.write_vectored(slices.get(..used).unwrap_or_default())
    }

    /// Leaves out what was written. The first part is empty behind it only if all are.
    fn pass(&mut self, mut written: usize) {
        loop {
            let here = written.min(self.first.len());
            self.first.advance(here);
            written -= here;
            if !self.first.is_empty() {
                return;
            }
            match self.rest.next() {
                Some(next) => self.first = next,
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Takes so much at once, and nothing every other time.
    struct Slow {
        most: usize,
        taken: Vec<u8>,
        turn: bool,
    }

    impl Write for Slow {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.turn = !self.turn;
            if self.turn {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let length = self.most.min(text.len());
            self.taken.extend_from_slice(&text[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_parts_are_written_in_order_however_little_is_taken_at_once() {
        let patience = Patience {
            pause: Duration::from_secs(1),
            bytes_per_s: 1,
        };
        for parts in [
            vec![],
            vec![""],
            vec!["", "a", "", "bcd", "efghij", "", "k", ""],
        ] {
            for most in [1, 2, 3, 100] {
                let mut slow = Slow {
                    most,
                    taken: Vec::new(),
                    turn: true,
                };
                let texts = parts.iter().map(|text| Bytes::from_static(text.as_bytes()));
                let mut unsent = Unsent::new(texts.collect());
                assert_eq!(unsent.bytes(), parts.concat().len());
                while unsent.send(&mut slow, patience).unwrap() != Sent::All {
                    assert!(unsent.pace.is_some());
                }
                assert_eq!(slow.taken, parts.concat().as_bytes());
                assert_eq!(unsent.bytes(), 0);
            }
        }
    }
}
