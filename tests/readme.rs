//! The documents and the program say the same.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what tests share stands outside test functions"
)]

#[allow(
    dead_code,
    clippy::allow_attributes,
    reason = "other tests use the rest"
)]
mod program;

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use program::{halley, succeed};
use serde_json::Value;

const API: &str = include_str!("../docs/api.md");
const ERRORS: &str = include_str!("../docs/errors.md");
const OPTIONS: &str = include_str!("../docs/options.md");

/// A server of its own, which ends with the test.
struct Server {
    child: Child,
    output: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start(directory: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join(directory);
        let mut child = halley(&["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .arg("--data")
            .arg(&data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
            _folder: folder,
        }
    }

    /// The document of each listener.
    fn documents(mut self) -> [Value; 2] {
        std::array::from_fn(|_| {
            let url = format!("{}/openapi.json", next_address(&mut self.output));
            let mut reply = ureq::get(&url).call().unwrap();
            serde_json::from_str(&reply.body_mut().read_to_string().unwrap()).unwrap()
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn next_address(output: &mut impl BufRead) -> String {
    let mut line = String::new();
    while output.read_line(&mut line).unwrap() > 0 {
        let word = line
            .split_whitespace()
            .find(|word| word.starts_with("http://"));
        if let Some(address) = word {
            return address.to_owned();
        }
        line.clear();
    }
    panic!("the server did not say its addresses");
}

/// What stands between two lines of a document.
fn between(document: &'static str, begin: &str, end: &str) -> &'static str {
    let (_, rest) = document.split_once(begin).expect("it has a begin");
    rest.split_once(end).expect("it has an end").0
}

/// What is printed at the first start, up to the end of the lines to paste.
fn first_lines(output: &mut impl BufRead) -> String {
    let mut text = String::new();
    while !text.ends_with("; wait\n") {
        assert!(output.read_line(&mut text).unwrap() > 0, "{text}");
    }
    text
}

#[test]
fn the_first_lines_can_be_pasted_whatever_the_path() {
    let mut server = Server::start("it's $HOME here");
    let text = first_lines(&mut server.output);
    let (_, lines) = text.split_once("another terminal.\n").unwrap();
    let pasted = Command::new("sh").arg("-c").arg(lines).output().unwrap();
    let said = String::from_utf8(pasted.stdout).unwrap();
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
fn the_options_are_those_of_the_program() {
    let table = succeed(&mut halley(&["config", "table"]));
    assert_eq!(
        between(OPTIONS, "<!-- options -->\n", "<!-- /options -->"),
        table,
        "put the output of `halley config table` between the markers"
    );
}

#[test]
fn the_option_of_the_client_commands_is_named() {
    for command in ["push", "tail", "history"] {
        let help = succeed(&mut halley(&[command, "--help"]));
        assert!(help.contains("--server <URL>"), "{help}");
        assert!(help.contains("HALLEY_SERVER"), "{help}");
    }
    assert!(OPTIONS.contains("(`push`, `tail`, `history`) also take `--server` (`HALLEY_SERVER`)"));
}

#[test]
fn every_endpoint_has_a_heading() {
    let parts = [
        between(API, "\n## For clients", "\n## For backends"),
        between(API, "\n## For backends", "\n## On both"),
    ];
    let (_, both) = API.split_once("\n## On both").unwrap();
    for (document, part) in Server::start("data").documents().iter().zip(parts) {
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                let heading = format!("### `{} {path}", method.to_uppercase());
                let stands_in = |text: &str| {
                    text.lines().any(|line| {
                        line.strip_prefix(&heading)
                            .is_some_and(|rest| rest.starts_with(['`', '?']))
                    })
                };
                assert!(stands_in(part) || stands_in(both), "{heading}");
            }
        }
    }
}

#[test]
fn every_error_code_is_in_the_table() {
    for document in Server::start("data").documents() {
        let mut codes = 0;
        for operation in operations(&document) {
            for (status, reply) in operation["responses"].as_object().unwrap() {
                for code in codes_of(reply) {
                    let row = format!("| {status} | `{code}` |");
                    assert!(ERRORS.contains(&row), "{row}");
                    codes += 1;
                }
            }
        }
        assert!(codes > 20, "the document names codes where this looks");
    }
}

fn operations(document: &Value) -> impl Iterator<Item = &Value> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .values()
        .flat_map(|path| path.as_object().unwrap().values())
}

/// The codes that an operation's reply may have.
fn codes_of(reply: &Value) -> Vec<String> {
    let codes = reply["x-codes"].as_array().into_iter().flatten();
    codes
        .map(|code| code.as_str().unwrap().to_owned())
        .collect()
}

/// Every Markdown file of the project, by its path from the root.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(".")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                if !name.starts_with('.') && !["target", "node_modules"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// The lines of a document that are not in a code block.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_block = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_block ^= fence;
        !in_block && !fence
    })
}

/// The anchors that the headings of a document have on GitHub.
fn anchors(text: &str) -> HashSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter))
                .map(|letter| if letter == ' ' { '-' } else { letter })
                .collect()
        })
        .collect()
}

/// The targets of the links `[text](target)` in a line, without those to other sites.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .filter(|target| !target.contains("://"))
}

#[test]
fn every_link_leads_somewhere() {
    let mut seen = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for target in prose(&text).flat_map(links) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => document.clone(),
                _ => document.parent().unwrap().join(file),
            };
            assert!(path.exists(), "{}: {target}", document.display());
            if !anchor.is_empty() {
                let known = anchors(&fs::read_to_string(&path).unwrap());
                assert!(known.contains(anchor), "{}: {target}", document.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 20, "links are found where this looks");
}
