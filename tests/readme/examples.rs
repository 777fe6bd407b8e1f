//! The examples of the documents are run, and answer what is written there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::server::Server;

const API: &str = include_str!("../../docs/api.md");
const BACKUP: &str = include_str!("../../docs/backup.md");
const ERRORS: &str = include_str!("../../docs/errors.md");
const README: &str = include_str!("../../README.md");
const DEADLINE: Duration = Duration::from_secs(60);

/// A command of a document and what it printed.
struct Example {
    command: String,
    answer: String,
}

/// The code blocks of a language.
fn blocks<'a>(document: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("```{language}\n");
    let rests = document.split(begin.as_str()).skip(1);
    rests
        .map(|rest| rest.split_once("```").unwrap().0)
        .collect()
}

/// The commands of all console blocks, in order. What stands before the first command of a block has none.
fn examples(document: &str) -> Vec<Example> {
    let mut found = Vec::new();
    for block in blocks(document, "console") {
        let mut command = String::new();
        let mut answer = String::new();
        for line in block.lines() {
            if let Some(next) = line.strip_prefix("$ ") {
                if !(command.is_empty() && answer.is_empty()) {
                    found.push(Example { command, answer });
                }
                (command, answer) = (next.to_owned(), String::new());
            } else {
                answer.push_str(line);
                answer.push('\n');
            }
        }
        found.push(Example { command, answer });
    }
    found
}

/// A text without what differs from run to run: log ids, times, tokens; with `all`, every number. An id stays
/// as long as it has one digit.
fn tame(text: &str, all: bool) -> String {
    let part_of_word = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    let mut tamed = String::new();
    let mut rest = text;
    let mut previous = ' ';
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|letter| !part_of_word(letter));
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()).max(first.len_utf8()));
        let digits = word.contains(|letter: char| letter.is_ascii_digit());
        let in_a_time = ":.".contains(previous) && word.len() >= 2;
        let varies = digits && (all || in_a_time || word.len() >= 8) || word.len() >= 32;
        tamed.push_str(if varies { "#" } else { word });
        previous = first;
        rest = after;
    }
    tamed.trim_end().to_owned()
}

/// A shell at the place where the documents assume one.
struct Shell<'a> {
    server: &'a Server,
    variables: BTreeMap<&'static str, String>,
}

impl<'a> Shell<'a> {
    fn new(server: &'a Server) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_halley")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let variables = [
            ("PATH", format!("{}:{path}", program.display())),
            ("HALLEY_SERVER", format!("http://{}", server.addresses[1])),
        ];
        Self {
            server,
            variables: variables.into(),
        }
    }

    fn command(&self, line: &str) -> Command {
        let [clients, backends] = &self.server.addresses;
        let line = line
            .replace("localhost:8100", clients)
            .replace("localhost:8000", backends);
        let mut command = Command::new("sh");
        command
            .args(["-c", &line])
            .current_dir(self.server.folder())
            .envs(&self.variables)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> String {
        String::from_utf8(self.command(line).output().unwrap().stdout).unwrap()
    }

    /// Runs lines that set variables, and keeps these.
    fn set(&mut self, lines: &str, names: [&'static str; 2]) {
        for name in names {
            self.variables.remove(name);
        }
        let shown = self.run(&format!(
            "{lines}\nprintf '\\n%s' \"${}\" \"${}\"",
            names[0], names[1]
        ));
        let mut values = shown.lines().rev();
        for name in names.into_iter().rev() {
            let value = values.next().filter(|value| !value.is_empty());
            self.variables.insert(name, value.unwrap().to_owned());
        }
    }
}

/// A stream that stays open until the server stops, into a file.
struct Stream {
    example: Example,
    child: Child,
    file: PathBuf,
}

impl Stream {
    /// Comes back when the server has answered.
    fn open(shell: &Shell<'_>, example: Example, number: usize) -> Self {
        let file = shell.server.folder().join(format!("stream-{number}"));
        let mut command = shell.command(&format!("exec {}", example.command));
        let child = command
            .stdout(File::create(&file).unwrap())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while fs::metadata(&file).unwrap().len() == 0 {
            assert!(began.elapsed() < DEADLINE, "{}", example.command);
            std::thread::yield_now();
        }
        Self {
            example,
            child,
            file,
        }
    }

    /// The same messages under any cut into pages, and the same end.
    fn check(mut self) {
        self.child.wait().unwrap();
        let printed = fs::read_to_string(&self.file).unwrap();
        let [written, printed] = [&self.example.answer, &printed].map(|text| {
            let lines = text.lines().map(|line| line.trim_start_matches("data: "));
            let objects: Vec<Value> = lines
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect();
            let mut messages: Vec<String> = Vec::new();
            for object in &objects {
                let several = object["messages"].as_array().into_iter().flatten();
                let one = Some(object).filter(|object| object["sequence"].is_string());
                messages.extend(
                    several
                        .chain(one)
                        .map(|message| tame(&message.to_string(), false)),
                );
            }
            messages.sort_unstable();
            assert!(!messages.is_empty(), "{text}");
            (messages, tame(&objects.last().unwrap().to_string(), false))
        });
        assert_eq!(written, printed, "{}", self.example.command);
    }
}

#[test]
fn the_examples_of_the_api_answer_as_written() {
    let mut server = Server::start("data");
    let mut streams = Vec::new();
    {
        let mut shell = Shell::new(&server);
        shell.set(blocks(API, "sh")[0], ["KEY", "TOKEN"]);
        for example in examples(API).into_iter().chain(examples(ERRORS)) {
            let Example { command, answer } = &example;
            if command.contains("curl -N") {
                let number = streams.len();
                streams.push(Stream::open(&shell, example, number));
                continue;
            }
            let figures = command.contains("/v1/status");
            assert_eq!(
                tame(answer, figures),
                tame(&shell.run(command), figures),
                "the documents do not say what this prints: {command}"
            );
        }
    }
    server.stop();
    assert_eq!(streams.len(), 2);
    streams.into_iter().for_each(Stream::check);
}

/// The lines of the greeting that can be pasted.
fn lines_to_paste(server: &Server) -> &str {
    let (_, lines) = server.greeting.split_once("another terminal.\n").unwrap();
    lines
}

#[test]
fn the_first_lines_can_be_pasted_whatever_the_path() {
    let server = Server::start("it's $HOME here");
    let lines = lines_to_paste(&server);
    let said = Shell::new(&server).run(lines);
    let answers = said.lines().map(serde_json::from_str::<Value>);
    assert_eq!(
        answers.filter_map(Result::ok).count(),
        2,
        "one line each: {said}"
    );
    for part in ["\"duplicate\":false", "\"body\":\"Hello, Bob\""] {
        assert!(said.contains(part), "{lines}\n{said}");
    }
}

#[test]
fn the_examples_of_the_readme_and_of_backups_answer_as_written() {
    let server = Server::start("data");
    let shell = Shell::new(&server);
    let [clients, backends] = &server.addresses;
    let greeting = server
        .greeting
        .replace(server.data().to_str().unwrap(), "/home/you/halley/data")
        .replace(clients, "127.0.0.1:8100")
        .replace(backends, "127.0.0.1:8000");
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(|line| tame(line, false)).collect();
        lines.sort_unstable();
        lines
    };
    let mut seen = 0;
    let copies = server.folder().to_str().unwrap();
    for Example { command, answer } in examples(README).into_iter().chain(examples(BACKUP)) {
        let printed = match command.as_str() {
            "cargo run --release" => greeting.clone(),
            // Both answers are printed when they come.
            "" => {
                assert_eq!(sorted(&answer), sorted(&shell.run(lines_to_paste(&server))));
                continue;
            }
            command => shell
                .run(&command.replace("/backup", copies))
                .replace(copies, "/backup"),
        };
        assert_eq!(
            tame(&answer, false),
            tame(&printed, false),
            "the documents do not say what this prints: {command}"
        );
        seen += 1;
    }
    assert!(seen >= 5, "examples are found where this looks");
}
