//! What each claim and header may be.

use serde_json::json;

use super::super::*;
use super::{NOW, SECRET, refusal, verified};

/// One row a claim: what may stand there, and what may not.
#[test]
fn claims_of_odd_types_are_refused() {
    let odd = [
        json!(null),
        json!(true),
        json!(""),
        json!("1900000060"),
        json!(-1),
        json!(-0.5),
        json!(1e300),
    ];
    let with = |name: &str, value: &Value| {
        let mut claims = json!({"sub": "alice", "exp": NOW + 60});
        claims[name] = value.clone();
        verified(&claims)
    };
    // Of a list or an object the library itself says that it is no token.
    for name in ["exp", "nbf", "iat", "sub", "send", "aud"] {
        refusal(with(name, &json!([])));
        refusal(with(name, &json!({})));
        refusal(with(name, &json!(["alice"])));
        refusal(with(name, &json!([NOW])));
    }
    for name in ["exp", "nbf", "iat"] {
        for value in &odd {
            let reason = refusal(with(name, value));
            let expected = format!("claim {name} is not a time in Unix seconds");
            assert_eq!(reason, expected, "{value}");
        }
        for value in [
            json!(NOW - 1),
            json!(1_899_999_999.5),
            json!(1.899_999_999e9),
        ] {
            let taken = with(name, &value);
            assert!(taken.is_ok(), "{name} {value}: {taken:?}");
        }
    }
    for value in odd.iter().filter(|value| **value != json!("1900000060")) {
        let reason = refusal(with("sub", value));
        assert_eq!(reason, "claim sub is not the name of a user", "{value}");
    }
    for value in odd.iter().filter(|value| **value != json!(true)) {
        let reason = refusal(with("send", value));
        assert_eq!(reason, "claim send is neither true nor false", "{value}");
    }
    for value in odd.iter().chain(&[json!("halley")]) {
        let reason = refusal(with("aud", value));
        assert_eq!(
            reason, "it is made for another service (claim aud)",
            "{value}"
        );
    }
}

#[test]
fn no_token_lasts_longer_than_ten_years() {
    const YEAR: u64 = 366 * 24 * 60 * 60;
    let lasting = |exp: Value| verified(&json!({"sub": "alice", "exp": exp}));
    assert!(lasting(json!(NOW + 10 * YEAR)).is_ok());
    for exp in [
        json!(NOW + 10 * YEAR + 1),
        json!((NOW + 60) * 1000),
        json!(1_900_000_060_000.5),
        json!(u64::MAX),
    ] {
        let reason = refusal(lasting(exp.clone()));
        assert!(
            reason.contains("more than ten years ahead"),
            "{exp}: {reason}"
        );
    }
}

/// A token as it can be written by hand.
fn token_of(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", url_safe(header), url_safe(claims));
    let key = EncodingKey::from_secret(SECRET);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
    format!("{message}.{}", signature.unwrap())
}

/// Base64 with the alphabet for addresses, without padding.
fn url_safe(text: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let mut bits = 0_u32;
        for index in 0..3 {
            bits = bits << 8 | u32::from(chunk.get(index).copied().unwrap_or(0));
        }
        for index in 0..=chunk.len() {
            let digit = bits >> (18 - 6 * index) & 63;
            out.push(char::from(ALPHABET[usize::try_from(digit).unwrap()]));
        }
    }
    out
}

#[test]
fn headers_that_change_the_meaning_and_claims_that_are_there_twice_are_refused() {
    let plain = r#"{"alg":"HS256","typ":"JWT"}"#;
    let right = r#"{"sub":"alice","exp":1900000060}"#;
    let verify = |header: &str, claims: &str| {
        Verifier::from_secret(SECRET).verify(&token_of(header, claims), NOW)
    };
    assert!(verify(plain, right).is_ok());
    assert!(verify(r#"{"alg":"HS256","kid":"1","x":{"y":1}}"#, right).is_ok());
    for (header, reason) in [
        (r#"{"alg":"HS256","crit":["exp"]}"#, "its header has crit"),
        (
            r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
            "its header has crit",
        ),
        (r#"{"alg":"HS256","crit":[]}"#, "its header has crit"),
        (r#"{"alg":"HS256","zip":"DEF"}"#, "its header has zip"),
        (r#"{"alg":"HS256","zip":"none"}"#, "its header has zip"),
        (r#"{"alg":"HS256","zip":7}"#, ""),
        (r#"{"alg":"HS256","crit":"exp"}"#, ""),
        (r#"{"alg":"none","alg":"HS256"}"#, ""),
        (r#"{"alg":["HS256"]}"#, ""),
        (r#"["HS256"]"#, ""),
    ] {
        let said = refusal(verify(header, right));
        assert!(said.contains(reason), "{header}: {said}");
    }
    for claims in [
        r#"{"sub":"alice","sub":"bob","exp":1900000060}"#,
        r#"{"sub":"alice","exp":1900000060,"exp":1900000061}"#,
        r#"{"sub":"alice","exp":1900000060,"aud":[],"aud":[]}"#,
        r#"{"sub":"alice","exp":1900000060,"send":true,"send":false}"#,
        r#"{"sub":"alice","exp":1e400}"#,
        r#"{"sub":"\ud800","exp":1900000060}"#,
        r#"["alice",1900000060]"#,
        r#""alice""#,
        "null",
        "",
    ] {
        refusal(verify(plain, claims));
    }
}
