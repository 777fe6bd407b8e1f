//! Figures: what the system says of a process, and latencies.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Resident memory of a process, bytes.
pub(super) fn memory(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("it has memory");
    let kib = line.trim().trim_end_matches(" kB");
    kib.trim().parse::<u64>().expect("it is a number") * 1024
}

/// Processor time of a process, all threads.
pub(crate) fn processor(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let (_, after_name) = text.rsplit_once(')').expect("the name is in parentheses");
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("it is a number"))
        .sum();
    Duration::from_millis(ticks * 10) // a tick is 10 ms wherever Linux runs
}

/// Sends a signal to a server.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("it is a process"), signal).expect("it runs");
}

/// What the files below a folder take on the disk, and how long they are, bytes. Where there are none, nothing.
pub(crate) fn disk(folder: &Path) -> [u64; 2] {
    let mut sum = [0, 0];
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // The server may remove a file meanwhile.
        let Ok(data) = entry.metadata() else { continue };
        let [blocks, length] = if data.is_dir() {
            disk(&entry.path())
        } else {
            [data.blocks() * 512, data.len()]
        };
        sum = [sum[0] + blocks, sum[1] + length];
    }
    sum
}

/// The load average: what else the machine was doing.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// The machine in one line.
pub(crate) fn about_machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| {
            rest.trim_start_matches([':', '\t', ' '])
        });
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{model}, {cores} cores, load average before: {}", load())
}

/// Times, to be sorted once.
#[derive(Default)]
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that so many percent do not exceed, ms.
    pub(crate) fn percentile(&mut self, percent: usize) -> f64 {
        self.0.sort_unstable();
        let last = self.0.len().saturating_sub(1);
        let time = self.0.get(last * percent / 100);
        time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}
