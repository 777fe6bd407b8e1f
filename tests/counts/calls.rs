//! System calls, of the program: `strace` writes each down, with its moment and its thread.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};

use crate::session::Session;
use crate::{ADMIN_KEY, LINES, TOKEN_SECRET, Work};

/// Turns that are not counted, and those that are.
const WARM: usize = 100;
const TURNS: usize = 400;
/// How long strace may take to write the rest down, after the program has ended.
const WRITE_LIMIT: Duration = Duration::from_secs(20);

/// Threads that work by the clock, or behind the path of a message.
const BACKGROUND: [&str; 5] = ["watch", "check", "seal", "zeros", "sled"];
/// Calls that wait, and that look whether there is anything to do. How many there are depends on who is faster.
const WAITS: [&str; 6] = [
    "futex",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "sched_yield",
    "restart_syscall",
];
/// Calls of the allocator for more memory, which come as it grows.
const MEMORY: [&str; 5] = ["brk", "mmap", "munmap", "mprotect", "madvise"];

/// How the free space of a disk is asked for.
const DISK_CALL: &str = "fstatfs";

/// By name, how many there were in each turn.
type Calls = BTreeMap<String, Vec<usize>>;

#[derive(Default)]
struct Counts {
    /// Calls of the threads that a message passes through.
    works: Calls,
    /// Waiting, and waking who waits.
    waits: Calls,
    /// Memory, and all calls of the threads in the background.
    others: Calls,
}

impl Counts {
    fn note(&mut self, turn: usize, thread: &str, call: &str, line: &str) {
        // A thread that waits for sockets is woken by a number that is written into a file.
        let wakes = call == "write" && line.contains("[eventfd]");
        let (kind, name) = if BACKGROUND.iter().any(|name| thread.starts_with(name)) {
            (&mut self.others, thread)
        } else if MEMORY.contains(&call) {
            (&mut self.others, call)
        } else if wakes || WAITS.contains(&call) {
            (&mut self.waits, call)
        } else {
            (&mut self.works, call)
        };
        let turns = kind.entry(name.to_owned());
        turns.or_insert_with(|| vec![0; TURNS])[turn] += 1;
    }

    /// What a turn usually needs: of each call the median, without the turns in which the server also looks after its
    /// disk, as it does every few milliseconds.
    fn usual(&self) -> usize {
        let disk = self.works.get(DISK_CALL);
        let looks = |turn: &usize| disk.is_some_and(|disk| disk[*turn] > 0);
        let quiet: Vec<usize> = (0..TURNS).filter(|turn| !looks(turn)).collect();
        assert!(quiet.len() > TURNS / 20, "too slow to be counted");
        let median = |turns: &Vec<usize>| {
            let mut calls: Vec<usize> = quiet.iter().map(|turn| turns[*turn]).collect();
            calls.sort_unstable();
            calls[calls.len() / 2]
        };
        self.works.values().map(median).sum()
    }
}

fn mean(turns: &[usize]) -> f64 {
    let all = u32::try_from(turns.iter().sum::<usize>()).unwrap();
    f64::from(all) / f64::from(u32::try_from(TURNS).unwrap())
}

/// How many of each there are on average.
fn means(calls: &Calls) -> String {
    let mean = |(name, turns): (&String, &Vec<usize>)| format!("{name} {:.2}", mean(turns));
    calls.iter().map(mean).collect::<Vec<_>>().join(", ")
}

fn start(folder: &Path, trace: &Path) -> Child {
    // With -D the program is our child, and strace is not between us.
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-q", "-ttt", "-y", "-s", "0", "-o"]);
    command
        .arg(trace)
        .args(["-e", "signal=none", env!("CARGO_BIN_EXE_halley"), "--data"])
        .arg(folder.join("data"))
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .args(["--log", "warn"])
        .env("HALLEY_ADMIN_KEY", ADMIN_KEY)
        .env("HALLEY_TOKEN_SECRET", TOKEN_SECRET)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("strace is installed: see CONTRIBUTING.md")
}

/// The next address that the program says.
fn address(output: &mut impl BufRead) -> SocketAddr {
    let mut line = String::new();
    while output.read_line(&mut line).unwrap() > 0 {
        if let Some((_, rest)) = line.split_once("http://") {
            return rest.split_whitespace().next().unwrap().parse().unwrap();
        }
        line.clear();
    }
    unreachable!("it ended without saying its address");
}

/// The names of the threads.
fn threads(program: u32) -> HashMap<String, String> {
    let threads = fs::read_dir(format!("/proc/{program}/task")).unwrap();
    let threads = threads.map(|thread| thread.unwrap());
    threads
        .map(|thread| {
            let name = fs::read_to_string(thread.path().join("comm")).unwrap();
            let id = thread.file_name().into_string().unwrap();
            (id, name.trim().to_owned())
        })
        .collect()
}

/// As strace says it.
#[expect(
    clippy::disallowed_methods,
    reason = "the program's clock does not tell one turn from the next"
)]
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

/// All that strace has written, once it is the whole.
fn whole(trace: &Path) -> String {
    let begun = Instant::now();
    loop {
        let text = fs::read_to_string(trace).unwrap();
        let last = text.lines().last().unwrap_or_default();
        if last.contains("+++ exited with 0 +++") {
            return text;
        }
        assert!(begun.elapsed() < WRITE_LIMIT, "the end of it is {last:?}");
        std::thread::yield_now();
    }
}

fn count(work: Work) -> Counts {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let mut program = start(folder.path(), &trace);
    let mut output = BufReader::new(program.stdout.take().unwrap());
    let mut session = Session::begin(work, [address(&mut output), address(&mut output)]);
    for _ in 0..WARM {
        session.turn(&|| ());
    }
    let mut began = Vec::new();
    for _ in 0..TURNS {
        began.push(now());
        session.turn(&|| ());
    }
    let ended = now();
    let threads = threads(program.id());
    kill_process(Pid::from_child(&program), Signal::TERM).unwrap();
    assert!(program.wait().unwrap().success());
    let mut counts = Counts::default();
    for line in whole(&trace).lines() {
        // Thread, moment, call; its end may have a line of its own, where others came between.
        let mut parts = line.split_whitespace();
        let (thread, moment) = (parts.next().unwrap(), parts.next().unwrap());
        let moment: f64 = moment.parse().unwrap();
        let Some((call, _)) = parts.next().and_then(|call| call.split_once('(')) else {
            continue;
        };
        let turn = began.partition_point(|begin| *begin <= moment);
        if turn > 0 && moment < ended {
            // One that is gone by now was started for one read or the like.
            let thread = threads.get(thread).map_or("", String::as_str);
            counts.note(turn - 1, thread, call, line);
        }
    }
    counts
}

#[test]
fn a_push_and_its_delivery_make_no_more_system_calls_than_their_lines() {
    let mut over = Vec::new();
    for line in LINES {
        let Some(most) = line.calls else { continue };
        let counts = count(line.work);
        let found = counts.usual();
        let told = format!(
            "{:?}: {found} system calls (line {most}); on average {}",
            line.work,
            means(&counts.works)
        );
        eprintln!("{told}");
        eprintln!("    waits {}", means(&counts.waits));
        eprintln!("    not counted {}", means(&counts.others));
        if found > most {
            over.push(told);
        }
    }
    assert!(over.is_empty(), "over the line: {over:#?}");
}
