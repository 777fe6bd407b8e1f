//! Whatever comes from outside is parsed into a value that is right, or refused; nothing panics.

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
}
