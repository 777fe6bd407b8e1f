//! The lines of the log on their way to standard error: whoever logs never waits for whoever reads.
//!
//! One thread writes. When it cannot write fast enough, or not at all because the reader of a pipe hangs, lines
//! are dropped and counted, and the count is logged once there is room.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Lines that wait to be written; about 5,000 of them.
const BYTES_MAX: usize = 1 << 20;

/// The queue, and who writes into it.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// Of the lines, and of the one that is being written.
    bytes: usize,
    dropped: u64,
}

impl Queue {
    /// Starts the thread that writes what is queued to `out`.
    pub(super) fn write_to(&self, out: impl Write + Send + 'static) -> io::Result<()> {
        let queue = self.clone();
        // It ends with the process: it may hang in the middle of a write.
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || queue.drain(out))
            .map(drop)
    }

    /// Waits until all is written, or until it took too long.
    pub(super) fn flush(&self, patience: Duration) {
        let state = self.state();
        drop(
            self.0
                .changed
                .wait_timeout_while(state, patience, |state| state.bytes > 0),
        );
    }

    fn drain(&self, mut out: impl Write) {
        loop {
            let line = self.next();
            // Nobody could be told of an error, and the reader may come back.
            drop(out.write_all(&line));
            let dropped = {
                let mut state = self.state();
                state.bytes -= line.len();
                std::mem::take(&mut state.dropped)
            };
            self.0.changed.notify_all();
            if dropped > 0 {
                tracing::warn!(
                    lines = dropped,
                    "log lines were dropped: they were not read in time"
                );
            }
        }
    }

    fn next(&self) -> Vec<u8> {
        let mut state = self.state();
        loop {
            if let Some(line) = state.lines.pop_front() {
                return line;
            }
            state = self
                .0
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes one whole line a call, as the formatter hands it over.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        if state.bytes + line.len() > BYTES_MAX {
            state.dropped += 1;
        } else {
            state.bytes += line.len();
            state.lines.push_back(line.to_vec());
        }
        drop(state);
        self.0.changed.notify_all();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// A pipe whose reader takes a write only when the test does.
    struct Pipe(SyncSender<Vec<u8>>);

    impl Write for Pipe {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.send(line.to_vec()).map_err(io::Error::other)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn queue() -> (Queue, Receiver<Vec<u8>>) {
        let (send, receive) = sync_channel(0);
        let queue = Queue::default();
        queue.write_to(Pipe(send)).unwrap();
        (queue, receive)
    }

    #[test]
    fn lines_are_written_in_order_and_flushed() {
        let (mut queue, reader) = queue();
        for line in ["a\n", "b\n", "c\n"] {
            queue.write_all(line.as_bytes()).unwrap();
        }
        let read = thread::spawn(move || reader.iter().take(3).collect::<Vec<_>>().concat());
        queue.flush(Duration::from_secs(60));
        assert_eq!(read.join().unwrap(), b"a\nb\nc\n");
    }

    #[test]
    fn a_reader_that_hangs_stops_nobody_and_costs_no_memory() {
        let (mut queue, reader) = queue();
        let line = [b'x'; 1024];
        for _ in 0..10_000 {
            queue.write_all(&line).unwrap();
        }
        let state = queue.state();
        assert!(state.bytes <= BYTES_MAX);
        assert_eq!(state.dropped, 10_000 - 1024);
        drop(state);
        queue.flush(Duration::from_millis(1));
        // What was kept is still written when somebody reads again.
        assert_eq!(reader.iter().take(1024).count(), 1024);
    }
}
