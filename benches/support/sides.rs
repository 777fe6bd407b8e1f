//! One or two programs that are measured in one run: what each does in its turns, and the table of both.

use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Halley, Latencies, Server, disk, load};

/// Turns of a window, over which a rate is measured.
pub(crate) const TURNS: usize = 10;

/// One of the programs that are compared.
pub(crate) struct Side {
    name: &'static str,
    pub(crate) server: Halley,
    /// What each turn took.
    turns: Vec<Turn>,
    /// What its column of the table has, with the names of the rows.
    figures: Vec<(String, f64)>,
}

#[derive(Clone, Copy)]
struct Turn {
    messages: usize,
    time: Duration,
    processor: Duration,
}

impl Side {
    fn new(name: &'static str, binary: PathBuf) -> Self {
        Self {
            name,
            server: Halley::of(binary),
            turns: Vec::new(),
            figures: Vec::new(),
        }
    }

    /// Notes a figure.
    pub(crate) fn figure(&mut self, what: &str, value: f64) {
        self.figures.push((what.to_owned(), value));
    }

    /// Rate and processor time over some of the turns.
    fn rates(&mut self, when: &str, turns: Range<usize>) {
        let turns = &self.turns[turns];
        let messages: usize = turns.iter().map(|turn| turn.messages).sum();
        let time: Duration = turns.iter().map(|turn| turn.time).sum();
        let processor: Duration = turns.iter().map(|turn| turn.processor).sum();
        let rate = messages as f64 / time.as_secs_f64();
        let each = processor.as_secs_f64() * 1e6 / messages as f64;
        self.figure(&format!("{when}: messages a second"), rate);
        self.figure(&format!("{when}: processor us a message"), each);
    }

    /// The rates of the second window, of the last one and of all.
    pub(crate) fn all_rates(&mut self, window: &str) {
        let count = self.turns.len();
        self.rates(&format!("the second {window}"), TURNS..2 * TURNS);
        self.rates(&format!("the last {window}"), count - TURNS..count);
        self.rate_of_all();
    }

    /// The rate over all turns.
    pub(crate) fn rate_of_all(&mut self) {
        self.rates("all", 0..self.turns.len());
    }

    /// Notes its memory.
    pub(crate) fn memory(&mut self, when: &str) {
        let memory = self.server.memory();
        self.figure(&format!("resident MB {when}"), memory as f64 / 1e6);
    }

    /// Disk that a message takes.
    pub(crate) fn disk(&mut self, when: &str, messages: usize) {
        for part in ["journal", "sled"] {
            let [blocks, length] = disk(&self.server.data().join(part));
            let each = |bytes: u64| bytes as f64 / messages as f64;
            let what = format!("{part}, bytes a message {when}");
            self.figure(&what, each(blocks));
            self.figure(&format!("{what}{BY_LENGTH}"), each(length));
        }
    }

    /// Ends it as a crash does, and starts it again.
    pub(crate) async fn crash(&mut self) {
        self.server.kill();
        let started = self.server.start_again().await;
        self.figure("start after kill -9, s", started.as_secs_f64());
        self.memory("after that start");
    }

    /// Notes p50 and p99.
    pub(crate) fn percentiles(&mut self, what: &str, mut times: Latencies) {
        for percent in [50, 99] {
            let time = times.percentile(percent);
            self.figure(&format!("{what}: p{percent} ms"), time);
        }
    }
}

/// Ends the name of a row that is told only where it differs from the one above.
const BY_LENGTH: &str = ", by length";

/// A new server of this build, and one of the other.
pub(crate) fn sides() -> Vec<Side> {
    let own = Side::new(Halley::NAME, env!("CARGO_BIN_EXE_halley").into());
    let other = std::env::var_os("HALLEY_BESIDE");
    let other = other.map(|binary| Side::new("beside", binary.into()));
    [own].into_iter().chain(other).collect()
}

/// Does it with each in its turn, while the other one stands still.
pub(crate) async fn each(sides: &mut [Side], mut work: impl AsyncFnMut(usize, &mut Side)) {
    let is_alone = sides.len() == 1;
    for (number, side) in sides.iter_mut().enumerate() {
        side.server.resume();
        work(number, side).await;
        if !is_alone {
            side.server.pause();
        }
    }
}

/// Does it, with so many messages, and notes what it took.
pub(crate) async fn turn(side: &mut Side, messages: usize, work: impl Future<Output = ()>) {
    let (begin, before) = (Instant::now(), side.server.processor());
    work.await;
    side.turns.push(Turn {
        messages,
        time: begin.elapsed(),
        processor: side.server.processor().saturating_sub(before),
    });
}

/// A row for each figure, a column for each side, and ours by the other's.
pub(crate) fn print(title: &str, sides: &[Side]) {
    let names: Vec<_> = sides.iter().map(|side| side.name).collect();
    let ratio = if sides.len() == 2 { " ratio |" } else { "" };
    println!("\n{title}\n\n| | {} |{ratio}", names.join(" | "));
    println!("|---|{}", "---|".repeat(sides.len() * 2 - 1));
    let mut above = Vec::new();
    for (row, (what, _)) in sides[0].figures.iter().enumerate() {
        let values: Vec<f64> = sides.iter().map(|side| side.figures[row].1).collect();
        let texts: Vec<_> = values.iter().copied().map(text).collect();
        if !what.ends_with(BY_LENGTH) || texts != above {
            let ratio = match values[..] {
                [ours, others] => format!(" {:.2} |", ours / others),
                _ => String::new(),
            };
            println!("| {what} | {} |{ratio}", texts.join(" | "));
        }
        above = texts;
    }
    println!("\nload average after: {}", load());
}

fn text(value: f64) -> String {
    if value < 100.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.0}")
    }
}
