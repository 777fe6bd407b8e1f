//! The source keeps its shape: imports go one way, sled and warp stay in their folders, files stay small.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

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

/// The first parts of all `crate::` paths in a text.
fn imports(text: &str) -> Vec<String> {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| {
        line.split("crate::")
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    })
    .map(|rest| {
        rest.split(|c: char| !c.is_alphanumeric() && c != '_')
            .next()
            .unwrap()
            .to_owned()
    })
    .filter(|name| !name.is_empty())
    .collect()
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
        for to in imports(&fs::read_to_string(&path).unwrap()) {
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
fn every_module_has_a_place() {
    for path in sources(Path::new("src")) {
        let layer = layer(&path);
        let known = layer == "lib" || rank(&layer).is_some() || LEAVES.contains(&layer.as_str());
        assert!(known, "{} is in no layer", path.display());
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
