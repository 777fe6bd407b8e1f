//! The source keeps its shape: imports go one way, sled and warp stay in their folders, files stay small.

#![expect(clippy::unwrap_used, clippy::string_slice, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Upper layers first; each may import those after it. Those in one row stand beside each other.
const LAYERS: [&[&str]; 7] = [
    &["main"],
    &["cli"],
    &["server"],
    &["http"],
    &["hub"],
    &["store"],
    &["model", "error"],
];
/// Anyone may import these; they import only `model` and one another.
const LEAVES: [&str; 6] = ["config", "clock", "logging", "secret", "signals", "token"];
/// The insides of folders, upper modules first: each may import those below it, and none beside it. [`OWN`] stands for
/// what the folder's own file holds; where it is missing, that file and its modules import one another.
const FOLDERS: [(&str, &[&[&str]]); 32] = [
    (
        "hub",
        &[
            &["lifecycle"],
            &["icomet"],
            &["read", "write"],
            &[OWN],
            &["proposal", "threads"],
            &["live", "plan"],
            &["membership"],
            &["state"],
            &["channel"],
            &["tail"],
            &["damage", "disk", "known", "standing"],
        ],
    ),
    (
        "hub/lifecycle",
        &[
            &["open"],
            &["check", "rebuild", "verify", "watch"],
            &["recover"],
            &["guard"],
        ],
    ),
    (
        "hub/read",
        &[
            &["feed"],
            &["channel", "conversations", "inbox"],
            &["list_tail"],
            &["history"],
        ],
    ),
    ("hub/write", &[&["accept", "journal"], &["apply", "times"]]),
    ("hub/membership", &[&[OWN], &["cache"], &["interval"]]),
    ("hub/live", &[&["turns", "wake", "watermark"]]),
    (
        "hub/plan",
        &[&[OWN], &["message"], &["channel"], &["group"], &["planner"]],
    ),
    ("hub/channel", &[&["book", "numbers"], &[OWN]]),
    ("hub/tail", &[&["seal"], &[OWN], &["window"]]),
    (
        "store",
        &[
            &[OWN],
            &["held"],
            &["view"],
            &["journal"],
            &["directory"],
            &["error"],
            &["command_line"],
        ],
    ),
    (
        "store/directory",
        &[
            &["aside", "damage", "room"],
            &[OWN],
            &["files", "format", "lock", "mark"],
            &["identity", "segments"],
            &["owner", "place"],
        ],
    ),
    (
        "store/journal",
        &[
            &["damage"],
            &[OWN],
            &["ahead", "follow"],
            &["live", "segment"],
            &["rest"],
            &["frame", "checksum"],
            &["command"],
        ],
    ),
    (
        "store/view",
        &[
            &["channel", "check"],
            &["cut", "forget", "read", "scan", "write"],
            &["grow"],
            &["recent"],
            &["aside", "block"],
            &[OWN],
            &["list"],
            &["members", "rows", "sequence", "varint"],
            &["mark", "writes"],
            &["record"],
            &["key"],
        ],
    ),
    (
        "model",
        &[
            &[OWN],
            &["page"],
            &["cursor", "message"],
            &["id", "name", "portable", "transport"],
        ],
    ),
    ("logging", &[&[OWN], &["queue", "repeats"]]),
    (
        "config",
        &[
            &["auth", "environment", "limits", "options", "show"],
            &["file", "origin", "values"],
        ],
    ),
    (
        "cli",
        &[
            &[
                "config", "demo", "history", "push", "rebuild", "serve", "tail", "token", "verify",
                "version",
            ],
            &["client", "interrupt", "line"],
        ],
    ),
    (
        "http",
        &[
            &[OWN],
            &["listener"],
            &["routing"],
            &["icomet", "pages"],
            &["session"],
            &["api"],
            &["endpoint"],
            &["parked", "request"],
            &["context"],
            &["reactor", "response"],
            &["socket"],
            &["address", "authority", "listener_kind", "shutdown"],
        ],
    ),
    (
        "http/listener",
        &[
            &[OWN],
            &["accept"],
            &["connection"],
            &["hyper_io", "service"],
            &["exchange"],
        ],
    ),
    (
        "http/routing",
        &[&[OWN], &["routes"], &["table"], &["openapi"], &["schemas"]],
    ),
    (
        "http/routing/table",
        &[&[OWN], &["backend", "users"], &["shared"]],
    ),
    (
        "http/icomet",
        &[
            &[OWN],
            &["presence", "subscribe"],
            &["admin", "subscriber"],
            &["reply"],
            &["text"],
            &["params"],
        ],
    ),
    (
        "http/session",
        &[
            &[OWN],
            &["poll", "stream", "websocket"],
            &["page", "remembered", "schedule"],
            &["close_reason"],
        ],
    ),
    (
        "http/session/websocket",
        &[&[OWN], &["allowance", "frames", "request"]],
    ),
    (
        "http/api",
        &[
            &[OWN],
            &["demo"],
            &[
                "conversations",
                "groups",
                "history",
                "operations",
                "push",
                "tokens",
            ],
            &["shapes"],
        ],
    ),
    ("http/parked", &[&["cancellable", "endless"], &[OWN]]),
    (
        "http/request",
        &[
            &[OWN],
            &["auth", "host"],
            &["call", "json"],
            &["body", "query"],
        ],
    ),
    (
        "http/context",
        &[
            &[OWN],
            &[
                "admission",
                "attempts",
                "channels",
                "in_progress",
                "timeouts",
            ],
        ],
    ),
    ("http/context/channels", &[&[OWN], &["rate"]]),
    (
        "http/response",
        &[&[OWN], &["head"], &["cors", "json", "reply"], &["problem"]],
    ),
    (
        "http/reactor",
        &[
            &["reactors"],
            &["turn"],
            &["entry"],
            &["deadlines", "gate", "unsent"],
            &[OWN],
        ],
    ),
    ("http/socket", &[&[OWN], &["pace"]]),
];
/// A folder's own file: `mod.rs` in it, or the one of its name beside it.
const OWN: &str = "mod";
const LINES_MAX: usize = 400;

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The first part of a file's module path.
fn layer(path: &Path) -> String {
    let first = path
        .strip_prefix("src")
        .unwrap()
        .components()
        .next()
        .unwrap();
    first
        .as_os_str()
        .to_str()
        .unwrap()
        .trim_end_matches(".rs")
        .to_owned()
}

fn uncommented(text: &str) -> String {
    let lines = text.lines();
    let code = lines.filter(|line| !line.trim_start().starts_with("//"));
    code.collect::<Vec<_>>().join("\n")
}

/// A text without comments, without what it only gives on (`pub use`), and without its unit tests.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut given_on = false;
    let text = uncommented(text);
    for line in text.lines().take_while(|line| *line != "#[cfg(test)]") {
        given_on |= line.starts_with("pub") && line.contains(" use ");
        if !given_on {
            code.push_str(line);
            code.push('\n');
        }
        given_on &= !line.ends_with(';');
    }
    code
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// All paths in a text that begin with this word, from a module on; `{...}` in them is opened.
fn paths_from(word: &str, text: &str, module: &[String]) -> Vec<Vec<String>> {
    let named = format!("{word}::");
    let begins = text.match_indices(&named).filter(|(at, _)| {
        let before = &text[..*at];
        // `pub(in crate::store)` imports nothing.
        !before.ends_with(|c| is_word(c) || c == ':') && !before.ends_with("(in ")
    });
    begins
        .flat_map(|(at, _)| open_path(&text[at..], module.to_vec()))
        .collect()
}

/// The paths that go on from a module as a text does.
fn open_path(text: &str, mut module: Vec<String>) -> Vec<Vec<String>> {
    let text = text.trim_start();
    if let Some(inside) = text.strip_prefix('{') {
        let parts = parts(inside).into_iter();
        return parts
            .flat_map(|part| open_path(part, module.clone()))
            .collect();
    }
    let word = text.split(|c| !is_word(c)).next().unwrap();
    match word {
        "crate" => module.clear(),
        "super" => drop(module.pop()),
        "self" | "" => {}
        _ => module.push(word.to_owned()),
    }
    match text[word.len()..].strip_prefix("::") {
        Some(rest) if !word.is_empty() => open_path(rest, module),
        _ => vec![module],
    }
}

/// What stands between the commas up to the brace that closes.
fn parts(inside: &str) -> Vec<&str> {
    let (mut depth, mut begun, mut found) = (0, 0, Vec::new());
    for (at, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' if depth == 0 => {
                found.push(&inside[begun..at]);
                begun = at + 1;
            }
            '}' => {
                found.push(&inside[begun..at]);
                break;
            }
            _ => {}
        }
    }
    found.retain(|part| !part.trim().is_empty());
    found
}

/// The path of a file's module.
fn module(file: &Path) -> Vec<String> {
    let path = file.strip_prefix("src").unwrap().with_extension("");
    let parts = path.iter().map(|part| part.to_str().unwrap().to_owned());
    let mut module: Vec<String> = parts.collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

/// The part of a folder that a path is in; [`OWN`] for what the folder's own file holds. `None`: it is elsewhere.
fn part(path: &[String], folder: &[String], modules: &BTreeSet<String>) -> Option<String> {
    let inside = path.strip_prefix(folder)?;
    let known = inside.first().filter(|name| modules.contains(*name));
    Some(known.map_or(OWN, |name| name).to_owned())
}

/// The files of a folder, also its own one beside it, and its modules.
fn folder(name: &str) -> (Vec<String>, Vec<PathBuf>, BTreeSet<String>) {
    let path = Path::new("src").join(name);
    let folder = module(&path);
    let mut files = sources(&path);
    let modules = files.iter().map(|file| module(file));
    let modules = modules.filter_map(|module| module.get(folder.len()).cloned());
    let modules = modules.filter(|name| name != "tests").collect();
    let beside = path.with_extension("rs");
    files.extend(beside.exists().then_some(beside));
    files.retain(|file| {
        !file
            .iter()
            .any(|part| part == "tests" || part == "tests.rs")
    });
    (folder, files, modules)
}

fn rank(layer: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&layer))
}

#[test]
fn imports_go_down() {
    let mut wrong = Vec::new();
    for path in sources(Path::new("src")) {
        let from = layer(&path);
        if from == "lib" {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let named = paths_from("crate", &uncommented(&text), &[]);
        for to in named.into_iter().filter_map(|path| path.first().cloned()) {
            let leaf = LEAVES.contains(&to.as_str());
            let down = match (rank(&from), rank(&to)) {
                (Some(from), Some(to)) => from <= to,
                (None, Some(_)) => to == "model",
                _ => leaf,
            };
            if !down {
                wrong.push(format!("{} imports crate::{to}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn imports_go_down_within_folders() {
    let mut wrong = Vec::new();
    for (name, rows) in FOLDERS {
        let (folder, files, modules) = folder(name);
        let rank = |part: &str| rows.iter().position(|row| row.contains(&part));
        for module in &modules {
            assert!(rank(module).is_some(), "{name}/{module} is in no layer");
        }
        for file in files {
            let (here, code) = (module(&file), code(&fs::read_to_string(&file).unwrap()));
            let from = part(&here, &folder, &modules).unwrap();
            let mut named = paths_from("crate", &code, &here);
            named.extend(paths_from("super", &code, &here));
            if from == OWN {
                let own = modules.iter().flat_map(|own| paths_from(own, &code, &here));
                named.extend(own);
            }
            for path in named {
                let Some(to) = part(&path, &folder, &modules).filter(|to| *to != from) else {
                    continue;
                };
                if let (Some(from), Some(to)) = (rank(&from), rank(&to))
                    && from >= to
                {
                    wrong.push(format!("{} imports {}", file.display(), path.join("::")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What the test above reads, it must read right.
#[test]
fn paths_are_read_as_rust_reads_them() {
    let here = ["store", "view", "read"].map(str::to_owned);
    let read = |word, text: &str| -> Vec<String> {
        let found = paths_from(word, &code(text), &here).into_iter();
        found.map(|path| path.join("::")).collect()
    };
    let text = "// use super::comment;\npub use super::given_on::{\n    A,\n};\n\
        use super::{View, key::{self, Key}, record};\nuse super::super::error::Error;\n\
        pub(in crate::store) fn f() -> crate::model::LogId<super::Sequence> {}\n\
        #[cfg(test)]\nmod tests { use super::tested; }";
    let expected = [
        "store::view::View",
        "store::view::key",
        "store::view::key::Key",
        "store::view::record",
        "store::error::Error",
        "store::view::Sequence",
    ];
    assert_eq!(read("super", text), expected);
    assert_eq!(read("crate", text), ["model::LogId"]);
}

#[test]
fn every_module_has_a_place() {
    for path in sources(Path::new("src")) {
        let layer = layer(&path);
        let known = layer == "lib" || rank(&layer).is_some() || LEAVES.contains(&layer.as_str());
        assert!(known, "{} is in no layer", path.display());
    }
}

#[test]
fn every_folder_has_its_layers() {
    for path in sources(Path::new("src")) {
        let folder = path.parent().unwrap().strip_prefix("src").unwrap();
        let name = folder.to_str().unwrap();
        let known = FOLDERS.iter().any(|(known, _)| *known == name);
        let test = path
            .iter()
            .any(|part| part == "tests" || part == "tests.rs");
        assert!(
            known || test || name.is_empty(),
            "{name} has no row in FOLDERS"
        );
    }
}

#[test]
fn sled_and_warp_stay_in_their_folders() {
    for path in sources(Path::new("src")) {
        let text = fs::read_to_string(&path).unwrap();
        for (name, home) in [("sled", "store"), ("warp", "http"), ("hyper", "http")] {
            let named = text.contains(&format!("{name}::"));
            assert!(
                !named || layer(&path) == home,
                "{} names {name}",
                path.display()
            );
        }
    }
}

/// What keys and rows look like, and which versions of rows there are, is for the store alone to know: others name
/// what it says in nouns, and none of its modules.
#[test]
fn keys_and_rows_stay_in_the_store() {
    let modules: BTreeSet<String> = sources(Path::new("src/store"))
        .iter()
        .flat_map(|path| module(path).into_iter().skip(1))
        .collect();
    assert!(modules.contains("key") && modules.contains("record"));
    let own = |name: &str| {
        let version = name.ends_with("VERSION") && name != "FORMAT_VERSION";
        modules.contains(name) || ["Key", "encode", "decode"].contains(&name) || version
    };
    for path in sources(Path::new("src")) {
        if layer(&path) == "store" {
            continue;
        }
        let text = uncommented(&fs::read_to_string(&path).unwrap());
        let mut named = paths_from("crate", &text, &[]);
        named.extend(paths_from("store", &text, &[]));
        named.retain(|named| named.first().is_some_and(|first| first == "store"));
        for name in named.iter().flatten().skip(1) {
            assert!(!own(name), "{} names store::{name}", path.display());
        }
    }
}

#[test]
fn files_stay_small() {
    for path in sources(Path::new("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text
            .lines()
            .take_while(|line| *line != "#[cfg(test)]")
            .count();
        assert!(
            lines <= LINES_MAX,
            "{} has {lines} lines before its tests",
            path.display()
        );
    }
}
