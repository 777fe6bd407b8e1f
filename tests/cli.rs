//! The command line as a user meets it: the built program, its output and its exit codes.
#![expect(
    clippy::unwrap_used,
    reason = "what tests share stands outside test functions"
)]

mod program;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use halley::config::{Config, Keys};
use halley::token::Claims;

use program::{KEY, fail, halley, succeed};

const COMMANDS: [&str; 10] = [
    "serve", "demo", "token", "push", "tail", "history", "verify", "rebuild", "config", "version",
];

fn file(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path.display().to_string()
}

/// The line of `halley config` for one option.
fn setting(command: &mut Command, name: &str) -> String {
    let shown = succeed(command);
    let line = shown
        .lines()
        .find(|line| line.starts_with(&format!("{name} ")));
    line.unwrap_or_default().to_owned()
}

/// Each of these command lines is refused, with these words.
fn each_ends_with_2(command_lines: &[(&[&str], &str)]) {
    for (arguments, reason) in command_lines {
        let said = fail(&mut halley(arguments), 2);
        assert!(said.contains(reason), "{arguments:?}: {said}");
    }
}

#[test]
fn help_is_there_for_every_command() {
    let all = succeed(&mut halley(&["--help"]));
    for command in COMMANDS {
        assert!(
            all.contains(&format!("\n  {command} ")),
            "{command} is not in the help"
        );
        let help = succeed(&mut halley(&[command, "--help"]));
        assert!(help.contains(&format!("Usage: halley {command}")), "{help}");
        assert!(
            help.lines().all(|line| line.chars().count() <= 100),
            "{help}"
        );
    }
    assert!(!succeed(&mut halley(&["push", "--help"])).contains("--cache-bytes"));
    assert!(succeed(&mut halley(&["serve", "--help"])).contains("--cache-bytes"));
}

#[test]
fn help_never_shows_a_secret_of_the_environment() {
    let mut command = halley(&["--help"]);
    command
        .env("HALLEY_ADMIN_KEY", KEY)
        .env("HALLEY_TOKEN_SECRET", KEY);
    assert!(!succeed(&mut command).contains(KEY));
}

#[test]
fn wrong_flags_and_values_end_with_2_and_say_the_limit() {
    each_ends_with_2(&[
        (&["--no-such-flag"], "--no-such-flag"),
        (&["no-such-command"], "no-such-command"),
        (&["--listen", "nowhere"], "--listen"),
        (
            &["config", "--body-bytes-max", "0"],
            "0 is not in 1..=98304",
        ),
        (&["config", "--body-bytes-max", "1e6"], "invalid digit"),
        (&["config", "--page-messages-max", "10001"], "1..=10000"),
        (&["config", "--poll-wait-s-max", "3601"], "1..=3600"),
        (&["config", "--log", "halley=loud"], "\"loud\" is no level"),
        (
            &["config", "check", "--log", "inof"],
            "\"inof\" is no level",
        ),
        (&["config", "--log", "info,wran"], "\"wran\" is no level"),
        (&["config", "--log", ""], "\"\" is no level"),
        (
            &["config", "--log", "hallye=debug,info"],
            "nothing called \"hallye\"",
        ),
        (&["config", "--log", "[a]=debug"], "nothing called"),
        (&["config", "--data", "~/halley"], "only a shell expands ~"),
        (
            &["config", "--data", "${HOME}/halley"],
            "expands a variable",
        ),
        (
            &["config", "--data", "/srv/halley\r"],
            "a control character",
        ),
        (
            &["config", "--data", "/srv/halley "],
            "a blank before or after",
        ),
        (&["config", "--data", "\"/srv/halley\""], "quotes around it"),
        (&["config", "--data", "'/srv/halley'"], "quotes around it"),
        (&["config", "--data", "file:///srv/halley"], "it is a URL"),
        (
            &["config", "--cors-origin", "https://app.example/page"],
            "it has a path",
        ),
        (
            &["config", "--cors-origin", "https://*"],
            "* stands alone or for the first part of a host",
        ),
        (
            &["config", "--cors-origin", "https://a,app.example"],
            "an origin is *, or scheme://host",
        ),
        (
            &["config", "--allowed-host", "push.example.com:8100"],
            "without a port",
        ),
    ]);
}

#[test]
fn values_that_do_not_go_together_end_with_2() {
    each_ends_with_2(&[
        (
            &["config", "--listen", "127.0.0.1:8000"],
            "they must differ",
        ),
        (
            &["config", "--request-bytes-max", "65536"],
            "must be at least 73728",
        ),
        (
            &["config", "--queue-bytes-max", "65536"],
            "it must be at least 10485760",
        ),
        (
            &["config", "--disk-free-min-bytes", "1000"],
            "at least 33554432",
        ),
        (
            &["config", "--admin-key", KEY, "--admin-key-file", "x"],
            "are both set",
        ),
        (
            &[
                "config",
                "--token-secret",
                KEY,
                "--token-public-key-file",
                "x",
            ],
            "are both set",
        ),
    ]);
}

#[test]
fn more_connections_than_files_that_may_be_opened_end_with_2() {
    let mut limited = Command::new("sh");
    limited.args([
        "-c",
        "ulimit -n 4096; exec \"$@\"",
        "sh",
        env!("CARGO_BIN_EXE_halley"),
        "serve",
        "--connections-max",
        "5000",
    ]);
    let said = fail(&mut limited, 2);
    assert!(said.contains("this process may open 4096 files"), "{said}");
}

#[test]
fn wrong_arguments_of_commands_end_with_2() {
    each_ends_with_2(&[
        (&["token", "alice", "--ttl", "0"], "1 to 31536000 seconds"),
        (&["token", ""], "1 to 128 bytes"),
        (&["push", "--from", "a", "1"], "--to <USER>|--group <GROUP>"),
        (
            &["push", "--from", "a", "--to", "b", "--group", "g", "1"],
            "cannot be used with",
        ),
        (
            &["push", "--from", "a", "--to", "b", "hello"],
            "--text sends it as text",
        ),
        (
            &["tail", "--user", "a", "--server", "https://halley.example"],
            "https is not spoken",
        ),
        (
            &[
                "history", "--user", "a", "--peer", "b", "--before", "1", "--after", "2",
            ],
            "cannot be used",
        ),
    ]);
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(
        folder.path(),
        "halley.toml",
        "shutdown-s = 21\ncors-origin = ['http://a', 'http://b']\n",
    );
    let none = &["config"][..];
    let with_file = &["config", "--config", &path][..];
    let with_flag = &["--shutdown-s", "23", "config", "--config", &path][..];
    let flag_behind = &["config", "--config", &path, "--shutdown-s", "23"][..];

    for (arguments, env, expected) in [
        (none, None, "shutdown-s = 10  # default"),
        (with_file, None, "shutdown-s = 21  # configuration file"),
        (
            none,
            Some("22"),
            "shutdown-s = 22  # environment HALLEY_SHUTDOWN_S",
        ),
        (
            with_file,
            Some("22"),
            "shutdown-s = 22  # environment HALLEY_SHUTDOWN_S",
        ),
        (
            with_flag,
            Some("22"),
            "shutdown-s = 23  # flag --shutdown-s",
        ),
        (
            flag_behind,
            Some("22"),
            "shutdown-s = 23  # flag --shutdown-s",
        ),
    ] {
        let mut command = halley(arguments);
        command.envs(env.map(|value| ("HALLEY_SHUTDOWN_S", value)));
        assert_eq!(
            setting(&mut command, "shutdown-s"),
            expected,
            "{arguments:?}"
        );
    }

    let origins = setting(&mut halley(with_file), "cors-origin");
    assert_eq!(
        origins,
        "cors-origin = [\"http://a\", \"http://b\"]  # configuration file"
    );
    let mut command = halley(&["config", "--cors-origin", "*"]);
    command.env("HALLEY_CONFIG", &path);
    assert_eq!(
        setting(&mut command, "cors-origin"),
        "cors-origin = [\"*\"]  # flag --cors-origin"
    );
    assert_eq!(
        setting(&mut command, "shutdown-s"),
        "shutdown-s = 21  # configuration file"
    );
}

#[test]
fn options_that_a_command_does_not_use_still_reach_it_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(
        folder.path(),
        "halley.toml",
        "cache-bytes = 1048576\npage-messages-max = 7\n",
    );
    succeed(&mut halley(&["version", "--config", &path]));
    succeed(&mut halley(&[
        "--config",
        &path,
        "version",
        "--listen",
        "127.0.0.1:1",
    ]));
}

#[test]
fn a_wrong_file_ends_with_2_and_names_file_and_key() {
    let folder = tempfile::tempdir().unwrap();
    for (content, reason) in [
        (
            "lisen = '127.0.0.1:1'",
            "unknown key lisen; did you mean listen?",
        ),
        (
            "body-bytes-max = 0",
            "key body-bytes-max: invalid value '0'",
        ),
        ("body-bytes-max = 0", "0 is not in 1..=98304"),
        (
            "listen = ['a', 'b']",
            "key listen takes one value, not an array",
        ),
        (
            "durability = 'sometimes'",
            "key durability: invalid value 'sometimes'",
        ),
        ("listen = ", "TOML parse error"),
        (
            "[server]\nlisten = '127.0.0.1:1'",
            "key server is a table; options stand at the top",
        ),
    ] {
        let path = file(folder.path(), "wrong.toml", content);
        let said = fail(&mut halley(&["config", "check", "--config", &path]), 2);
        assert!(
            said.contains(reason) && said.contains("wrong.toml"),
            "{content}: {said}"
        );
    }
    let said = fail(&mut halley(&["--config", "/nonexistent.toml"]), 2);
    assert!(
        said.contains("/nonexistent.toml") && said.contains("No such file"),
        "{said}"
    );
}

#[test]
fn config_shows_no_secret_and_its_output_is_a_configuration_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = halley(&[
        "config",
        "--data",
        "/some \"data\"",
        "--cors-origin",
        "http://a",
    ]);
    command.env("HALLEY_ADMIN_KEY", KEY);
    let shown = succeed(&mut command);
    assert!(!shown.contains(KEY), "{shown}");
    assert!(
        shown.contains("# admin-key is hidden  # environment HALLEY_ADMIN_KEY"),
        "{shown}"
    );

    let path = file(folder.path(), "shown.toml", &shown);
    let again = succeed(&mut halley(&["config", "--config", &path]));
    let values = |shown: &str| -> Vec<String> {
        let lines = shown.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| line.split("  #").next())
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(values(&again), values(&shown));

    let mut command = halley(&["config", "--json", "--token-secret", KEY]);
    let json = succeed(&mut command);
    assert!(!json.contains(KEY), "{json}");
    let settings: serde_json::Value = serde_json::from_str(&json).unwrap();
    let secret = settings
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["name"] == "token-secret")
        .unwrap();
    assert_eq!(
        (&secret["values"][0], &secret["source"]),
        (&"(hidden)".into(), &"flag".into())
    );
}

#[test]
fn config_check_is_silent_or_tells_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(succeed(&mut halley(&["config", "check"])), "");
    let short = file(folder.path(), "short.key", "hunter2\n");
    let said = fail(
        &mut halley(&["config", "check", "--admin-key-file", &short]),
        2,
    );
    assert!(
        said.contains("short.key has 7 characters") && !said.contains("hunter2"),
        "{said}"
    );
    let said = fail(
        &mut halley(&["config", "check", "--token-public-key-file", &short]),
        2,
    );
    assert!(said.contains("no PUBLIC KEY block"), "{said}");
    let said = fail(
        &mut halley(&["config", "check", "--token-secret", "hunter2"]),
        2,
    );
    assert!(
        said.contains("token-secret has 7 characters") && !said.contains("hunter2"),
        "{said}"
    );
}

#[test]
fn config_table_has_a_row_for_each_option() {
    let table = succeed(&mut halley(&["config", "table"]));
    for row in halley::config::option_table() {
        assert!(
            table.contains(&format!("| `--{}` | `{}` |", row.name, row.env)),
            "{}",
            row.name
        );
    }
}

#[test]
fn version_tells_all_three() {
    let shown = succeed(&mut halley(&["version"]));
    assert!(shown.starts_with(&format!(
        "halley {}\nsled 0.34.7\ndata format ",
        env!("CARGO_PKG_VERSION")
    )));
    let json: serde_json::Value =
        serde_json::from_str(&succeed(&mut halley(&["version", "--json"]))).unwrap();
    assert_eq!(json["sled"], "0.34.7");
}

#[test]
fn token_prints_a_token_that_the_server_takes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().display().to_string();
    let said = fail(&mut halley(&["token", "alice", "--data", &data]), 2);
    assert!(
        said.contains("token.secret") && said.contains("--data"),
        "{said}"
    );

    let Keys { verifier, .. } = Config::default_for(folder.path())
        .auth
        .load_or_create()
        .unwrap();
    let now = halley::clock::now_s();
    for (arguments, ttl_s, send) in [
        (&["token", "alice", "--data", &data][..], 86_400, false),
        (
            &["token", "alice", "--data", &data, "--ttl", "2h", "--send"],
            7200,
            true,
        ),
    ] {
        let printed = succeed(&mut halley(arguments));
        let Claims {
            user,
            send: may_send,
            expires_at,
        } = verifier.verify(printed.trim_end(), now).unwrap();
        assert_eq!((user.as_str(), may_send), ("alice", send));
        assert!((now + ttl_s..=now + ttl_s + 60).contains(&expires_at));
    }
    let json: serde_json::Value = serde_json::from_str(&succeed(&mut halley(&[
        "token", "alice", "--data", &data, "--json",
    ])))
    .unwrap();
    assert_eq!(json["user"], "alice");
    assert!(
        verifier
            .verify(json["token"].as_str().unwrap(), now)
            .is_ok()
    );
}

/// What each command says of a data directory that it cannot use.
#[test]
fn a_directory_that_cannot_be_used_is_told_by_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (file, missing, foreign, data) =
        (path("file"), path("missing"), path("foreign"), path("data"));
    fs::write(&file, "x").unwrap();
    fs::create_dir(&foreign).unwrap();
    fs::write(folder.path().join("foreign/notes"), "x").unwrap();
    drop(halley::store::Directory::open(Path::new(&data)).unwrap());
    let journal = folder.path().join("data/journal");
    for segment in fs::read_dir(&journal).unwrap() {
        fs::remove_file(segment.unwrap().path()).unwrap();
    }
    let no_files = "its `journal`, which holds all messages, is missing or has no files";
    let serve = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let said =
        |command: &[&str], data: &str, code| fail(halley(command).args(["--data", data]), code);
    for (command, data, code, reason) in [
        (
            &["verify"][..],
            &missing,
            1,
            "missing is not a usable data directory: it does not exist",
        ),
        (&["verify"], &foreign, 1, "it has no file `format`"),
        (&["verify"], &file, 1, "Not a directory"),
        (
            &["token", "alice"],
            &file,
            1,
            "token.secret: Not a directory",
        ),
        (&["token", "alice"], &missing, 2, "there is no "),
        (&serve, &foreign, 1, "it holds notes; nothing was changed"),
        (&["verify"], &data, 1, no_files),
        (&["rebuild"], &data, 1, no_files),
        (&["rebuild", "--accept-loss"], &data, 1, no_files),
        (&serve, &data, 1, no_files),
    ] {
        let said = said(command, data, code);
        assert!(said.contains(reason), "{command:?} {data}: {said}");
    }
    assert_eq!(
        fs::read_dir(&foreign).unwrap().count(),
        1,
        "nothing was changed"
    );
    fs::remove_dir(&journal).unwrap();
    assert!(said(&["verify"], &data, 1).contains(no_files));
}

#[test]
fn what_a_variable_holds_is_refused_by_the_variables_name() {
    for (variable, value, reason) in [
        ("HALLEY_LISTEN", "", "is empty"),
        ("HALLEY_DATA", "", "is empty"),
        ("HALLEY_CONFIG", "", "is empty"),
        ("HALLEY_ADMIN_KEY", "", "is empty"),
        ("HALLEY_TOKEN_SECRET", "", "is empty"),
        ("HALLEY_CORS_ORIGIN", "", "is empty"),
        ("HALLEY_ICOMET", "", "is empty"),
        ("HALLEY_CACHE_BYTES", "", "is empty"),
        ("HALLEY_LOG", "inof", "\"inof\" is no level"),
        ("HALLEY_LOG_FORMAT", "jsn", "invalid value 'jsn'"),
        ("HALLEY_SHUTDOWN_S", "0", "0 is not in 1..=600"),
        ("HALLEY_LISTEN", "localhost", "an address is IP:PORT"),
        ("HALLEY_DATA", "\"/srv/halley\"", "quotes around it"),
        ("HALLEY_DATA", "~/halley", "only a shell expands ~"),
    ] {
        for command in [&["config", "check"][..], &["serve"], &["token", "ann"]] {
            let said = fail(halley(command).env(variable, value), 2);
            assert!(said.starts_with(&format!("halley: {variable}")), "{said}");
            assert!(said.contains(reason) && !said.contains("--"), "{said}");
        }
    }
    // The file is not blamed for what a variable holds.
    let folder = tempfile::tempdir().unwrap();
    let config = file(folder.path(), "halley.toml", "cache-bytes = 1048576\n");
    let mut command = halley(&["config", "check", "--config", &config]);
    let said = fail(command.env("HALLEY_LISTEN", "nowhere"), 2);
    assert!(said.starts_with("halley: HALLEY_LISTEN"), "{said}");
}

#[test]
fn variables_without_an_effect_are_named() {
    let warned = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let mut command = halley(&["config", "check"]);
    let said = warned(
        command
            .env("HALLEY_LISEN", "127.0.0.1:1")
            .env("HALLEY_PORT", "8100"),
    );
    assert!(
        said.contains("HALLEY_LISEN (did you mean HALLEY_LISTEN?), HALLEY_PORT"),
        "{said}"
    );
    for (variable, value) in [
        ("HALLEY_LOG", "info"),
        // One of the commands that ask a server: a shell may have it for all of them.
        ("HALLEY_SERVER", "http://127.0.0.1:8000"),
    ] {
        let said = warned(halley(&["config", "check"]).env(variable, value));
        assert_eq!(said, "", "{variable}");
    }
}

#[test]
fn a_file_with_a_key_is_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let config = file(
        folder.path(),
        "halley.toml",
        &format!("admin-key = \"{KEY}\"\n"),
    );
    let key = file(folder.path(), "admin.key", KEY);
    let mode = |path: &str, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let with_config = ["config", "check", "--config", &config];
    let with_key = ["config", "check", "--admin-key-file", &key];
    for (arguments, path) in [(with_config, &config), (with_key, &key)] {
        mode(path, 0o600);
        let output = halley(&arguments).output().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
        mode(path, 0o644);
        let output = halley(&arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        assert!(
            said.contains("every user of this machine may read"),
            "{said}"
        );
        mode(path, 0o666);
        let said = fail(&mut halley(&arguments), 2);
        assert!(
            said.contains("every user of this machine may write"),
            "{said}"
        );
        mode(path, 0o600);
        // Only root can give a file away.
        if std::os::unix::fs::chown(path, Some(54_321), None).is_ok() {
            let said = fail(&mut halley(&arguments), 2);
            assert!(said.contains("belongs to user 54321"), "{said}");
        }
    }
    // A file without keys is anybody's to read.
    fs::write(&config, "log = 'info'\n").unwrap();
    mode(&config, 0o644);
    let output = halley(&with_config).output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}
