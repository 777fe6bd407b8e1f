//! Whatever comes from outside is parsed into a value that is right, or refused; nothing panics.

use std::fs;

use clap::FromArgMatches;
use halley::config::{self, Config, Options, options_command};
use halley::model::{After, GroupName, IdempotencyKey, NAME_BYTES_MAX, UserName};
use halley::token::Verifier;
use proptest::prelude::*;

/// Any text, and often one beside a border of the rule: the length, a control character, the dots.
fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "\\PC{118,130}",
        "[aé]{60,70}",
        "[a\u{7f}\u{85}é]{0,4}",
        "\\.{0,4}"
    ]
}

/// Any text, and often lines that are nearly those of a configuration.
fn configurations() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        "listen|data|cors-origin|icomet|log|log-format|durability|config|help",
        "cache-bytes|body-bytes-max|page-messages-max|poll-wait-s-max|connections-max",
        "[a-z.\"-]{0,9}"
    ];
    let value = prop_oneof![
        "-?[0-9]{1,22}|0x[0-9a-f]{1,18}|1e9|inf|true|false|1979-05-27",
        "\"\\PC{0,12}\"|\"(127.0.0.1:0|always|json|\\*|http://a.b)\"",
        "\\[(\"a\",?|1,?){0,3}\\]|\\{.{0,9}\\}|\\[{200,400}"
    ];
    let line = (key, "( ?= ?)|=|", value).prop_map(|(key, is, value)| key + &is + &value + "\n");
    let lines = prop::collection::vec(line, 0..4).prop_map(|lines| lines.concat());
    prop_oneof![1 => any::<String>(), 1 => any::<Vec<u8>>().prop_map(|bytes| String::from_utf8_lossy(&bytes).into()), 6 => lines]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_cursor_is_refused_or_reads_back_as_itself(text in "\\PC{0,40}|[0-9.a-f]{0,40}") {
        if let Ok(After::Cursor(cursor)) = After::parse(&text) {
            let again = After::parse(&cursor.to_string());
            prop_assert_eq!(again, Ok(After::Cursor(cursor)));
        }
    }

    #[test]
    fn every_position_has_a_text(direct in any::<u64>(), group in any::<u64>(), tag in any::<u32>()) {
        let text = format!("{direct}.{group}.{tag:08x}");
        let After::Cursor(cursor) = After::parse(&text).unwrap() else { panic!("{text}") };
        prop_assert_eq!((cursor.position.direct, cursor.position.group), (direct, group));
        prop_assert_eq!(cursor.to_string(), text);
    }

    #[test]
    fn a_name_keeps_the_rule(text in names()) {
        let right = (1..=NAME_BYTES_MAX).contains(&text.len())
            && !text.chars().any(char::is_control)
            && !matches!(text.as_str(), "." | "..");
        prop_assert_eq!(UserName::parse(&text).is_ok(), right);
        prop_assert_eq!(GroupName::parse(&text).is_ok(), right);
        let json = serde_json::to_string(&text).unwrap();
        prop_assert_eq!(serde_json::from_str::<UserName>(&json).is_ok(), right);
    }

    #[test]
    fn a_key_keeps_the_rule(text in any::<String>()) {
        let right = (1..=255).contains(&text.len()) && text.bytes().all(|b| (b' '..=b'~').contains(&b));
        prop_assert_eq!(IdempotencyKey::parse(&text).is_ok(), right);
    }

    #[test]
    fn no_text_is_a_token(text in "\\PC{0,80}|[A-Za-z0-9_-]{1,20}\\.[A-Za-z0-9_-]{1,20}\\.[A-Za-z0-9_-]{0,20}") {
        prop_assert!(Verifier::from_secret(b"a secret of some length").verify(&text, 0).is_err());
    }

    #[test]
    fn a_configuration_is_taken_or_its_error_names_the_file(text in configurations()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("halley.toml");
        fs::write(&path, &text).unwrap();
        let arguments = ["halley".into(), "--config".into(), path.clone().into_os_string()];
        match config::load(&options_command(), &arguments) {
            Ok((matches, _)) => {
                let options = Options::from_arg_matches(&matches).unwrap();
                drop(Config::from_options(options));
            }
            Err(error) => {
                prop_assert!(error.to_string().contains(path.to_str().unwrap()), "{}", error);
            }
        }
    }
}
