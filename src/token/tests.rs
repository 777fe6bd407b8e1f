//! Tokens that are good, and every way in which one can be bad.

use serde_json::json;

use super::*;

mod claims;

const SECRET: &[u8] = b"a secret for tests";
const NOW: u64 = 1_900_000_000;

// Public keys, and tokens signed once with their private halves, which nobody kept. They say
// {"sub":"alice","exp":2000000000,"send":true}.
const RSA_PEM: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA0hD36kn84946wcB/I4mM
TxBozOeaITwOFqDEszNlhjJsMfTRBlYVRVUgeNBTmUiEwIqJs0Ivq5lI6TG6uFk8
CmRR3NbBxE9Pzpn+wlsdJXkbcrMplhKlux1W9XAv9bqv5N+GJJ1potbxDGsuymCx
YrDQulOGKG1w+C6OuuHl/83mYTKLdiLfZ+oDa1tSkbRdccluJowdQmZOUcUb5Qsr
mZS3pNlmojkK0ie3nb/e8BON304WVf6xO201QDPpwIhaLBe90Ln8p+hjo6Ds/4JF
T0XD17AH1ENP/IVkesB9698vtXQAPIrGp6mdVx4k8+k6o//tHRugPSYynG3c9toW
LQIDAQAB
-----END PUBLIC KEY-----
";
const RSA_1024_PEM: &str = "\
-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC6Arjn++TjFtO4jAm6ZF1wstla
QQXpSuIKx1Yhn+GtVfU2pBDDqwJhuyoMSD2fygxjZq/nPtoXpyyiIK+w7hSC3kRF
pbvygAFDhREaUdjCMZbRRjGNFovZ55e6uaHE72udFIkUFl+EFphvXzoV7iwiqrnN
8HRFVji3/PHdcmK0BwIDAQAB
-----END PUBLIC KEY-----
";
const ED25519_PEM: &str = "\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA1lgQ5f3Ct/pD+EY9T0LGRTYxOIfVGBOKTukJzvdJdqM=
-----END PUBLIC KEY-----
";
const P256_PEM: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEj3U7wc0Gyc7xoNtTGOAtPU+ltVDS
lU8KEWHWT75QPQpfoskO3lxwmdagfCdBJatv7h7F8URP9YIBya6bpbmk+Q==
-----END PUBLIC KEY-----
";
const RSA_TOKEN: &str = concat!(
    "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MjAwMDAwMDAwMCwic2VuZCI",
    "6dHJ1ZX0.fAH65gqxjTG1w-aEKriWjPSoicLoWYU5c0rUToA9YLOcc6m_yzyQpI8CPYQHGRX0ijnSV96jNjTtrIY",
    "YMe3tVb_IW1kOxBSn5nkSIfPyhboRW2GRnpEyv3STL8HiSSrwNC1FwQnbm-6KNKTHKQoTMUQ92h9TCavEkId66bT",
    "J4wjqF2EMogxK0wazaOs2Odgoko1V4YukOZ2oRDk9-2uhqUID9ZexK1BHk-taMNzLDh65H-Etl2ipOTGsGOs3qKj",
    "mwAzpGat27gym-th3Iy-u918d4or6sFFd80j5wbBREGoROJL9Ps7yFZ0MgSdaYSLV-RnbKwz8q0xhxBYlRwO23Q",
);
const ED25519_TOKEN: &str = concat!(
    "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MjAwMDAwMDAwMCwic2VuZCI",
    "6dHJ1ZX0.cRV3F1iM7fc9gMat_K8kulLBtMoDB_flkzN87OM67qOufp6i88yKhbKlXVXR0ZDjRd68d5ujcjnCWVq",
    "cJ-ZLBg",
);

fn alice() -> Claims {
    Claims {
        user: "alice".to_owned(),
        send: true,
        expires_at: 2_000_000_000,
    }
}

fn signed(claims: &Value, algorithm: Algorithm) -> String {
    let key = EncodingKey::from_secret(SECRET);
    jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
}

fn verified(claims: &Value) -> Result<Claims, TokenError> {
    Verifier::from_secret(SECRET).verify(&signed(claims, Algorithm::HS256), NOW)
}

fn refusal(outcome: Result<Claims, TokenError>) -> &'static str {
    match outcome {
        Err(TokenError::Invalid(reason)) => reason,
        other => panic!("not refused as invalid: {other:?}"),
    }
}

#[test]
fn a_minted_token_verifies_to_the_same_claims() {
    for send in [false, true] {
        let claims = Claims {
            user: "Zoë / 1".to_owned(),
            send,
            expires_at: NOW + 60,
        };
        let token = mint(SECRET, &claims);
        assert_eq!(
            Verifier::from_secret(SECRET).verify(&token, NOW),
            Ok(claims)
        );
    }
}

#[test]
fn tokens_of_public_keys_verify() {
    for (pem, token) in [(RSA_PEM, RSA_TOKEN), (ED25519_PEM, ED25519_TOKEN)] {
        let verifier = Verifier::from_public_key_pem(pem.as_bytes()).unwrap();
        assert_eq!(verifier.verify(token, NOW), Ok(alice()));
        assert_eq!(
            verifier.verify(token, 2_000_000_006),
            Err(TokenError::Expired)
        );
    }
}

#[test]
fn the_key_alone_decides_the_algorithm() {
    let other = "it is signed with another algorithm than this server's key";
    let by_secret = Verifier::from_secret(SECRET);
    let by_rsa = Verifier::from_public_key_pem(RSA_PEM.as_bytes()).unwrap();
    let by_ed25519 = Verifier::from_public_key_pem(ED25519_PEM.as_bytes()).unwrap();
    let claims = json!({"sub": "alice", "exp": NOW + 60});

    assert_eq!(
        refusal(by_secret.verify(&signed(&claims, Algorithm::HS512), NOW)),
        other
    );
    assert_eq!(refusal(by_secret.verify(RSA_TOKEN, NOW)), other);
    assert_eq!(refusal(by_rsa.verify(ED25519_TOKEN, NOW)), other);
    assert_eq!(refusal(by_ed25519.verify(RSA_TOKEN, NOW)), other);
    // The classic forgery: the public key, known to all, used as if it were a shared secret.
    let key = EncodingKey::from_secret(RSA_PEM.as_bytes());
    let forged = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
    assert_eq!(refusal(by_rsa.verify(&forged, NOW)), other);
}

#[test]
fn unsigned_tokens_are_refused() {
    // {"alg":"none"} and {"alg":"None"}, over {"sub":"alice","exp":2000000000}
    let claims = "eyJzdWIiOiJhbGljZSIsImV4cCI6MjAwMDAwMDAwMH0";
    for header in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOb25lIn0"] {
        for token in [format!("{header}.{claims}."), format!("{header}.{claims}")] {
            let reason = refusal(Verifier::from_secret(SECRET).verify(&token, NOW));
            assert_eq!(reason, "it is not a signed JSON Web Token");
        }
    }
}

#[test]
fn another_secret_or_a_changed_token_is_refused() {
    let token = mint(SECRET, &alice());
    let reason = refusal(Verifier::from_secret(b"another secret").verify(&token, NOW));
    assert_eq!(reason, "the signature does not match");

    let bob = mint(
        b"another secret",
        &Claims {
            user: "bob".to_owned(),
            ..alice()
        },
    );
    let parts: Vec<&str> = token.split('.').collect();
    let claims_of_bob = bob.split('.').nth(1).unwrap();
    let mixed = format!("{}.{claims_of_bob}.{}", parts[0], parts[2]);
    let reason = refusal(Verifier::from_secret(SECRET).verify(&mixed, NOW));
    assert_eq!(reason, "the signature does not match");
}

#[test]
fn times_are_kept_to_within_five_seconds() {
    for (exp, expected) in [
        (NOW - 6, false),
        (NOW - 5, false),
        (NOW - 4, true),
        (NOW, true),
    ] {
        let outcome = verified(&json!({"sub": "alice", "exp": exp}));
        assert_eq!(outcome.is_ok(), expected, "exp {exp}: {outcome:?}");
        assert!(outcome.is_ok() || outcome == Err(TokenError::Expired));
    }
    assert!(verified(&json!({"sub": "alice", "exp": NOW + 60, "nbf": NOW + 5})).is_ok());
    let early = verified(&json!({"sub": "alice", "exp": NOW + 60, "nbf": NOW + 6}));
    assert_eq!(refusal(early), "it is not valid yet (claim nbf)");
    let whole = verified(&json!({"sub": "alice", "exp": 1_900_000_060.75}));
    assert_eq!(whole.unwrap().expires_at, NOW + 60);
}

#[test]
fn wrong_claims_are_told_by_name() {
    for (claims, reason) in [
        (json!({"sub": "alice"}), "claim exp is missing"),
        (
            json!({"sub": "alice", "exp": "2000000000"}),
            "claim exp is not a time in Unix seconds",
        ),
        (
            json!({"sub": "alice", "exp": -1}),
            "claim exp is not a time in Unix seconds",
        ),
        (
            json!({"sub": "alice", "exp": null}),
            "claim exp is not a time in Unix seconds",
        ),
        (json!({"exp": NOW + 60}), "claim sub is missing"),
        (
            json!({"sub": "", "exp": NOW + 60}),
            "claim sub is not the name of a user",
        ),
        (
            json!({"sub": 7, "exp": NOW + 60}),
            "claim sub is not the name of a user",
        ),
        (
            json!({"sub": "alice", "exp": NOW + 60, "send": "yes"}),
            "claim send is neither true nor false",
        ),
        (
            json!({"sub": "alice", "exp": NOW + 60, "nbf": "later"}),
            "claim nbf is not a time in Unix seconds",
        ),
        (
            json!({"sub": "alice", "exp": NOW + 60, "aud": "billing"}),
            "it is made for another service (claim aud)",
        ),
    ] {
        assert_eq!(refusal(verified(&claims)), reason, "{claims}");
    }
}

#[test]
fn garbage_is_refused() {
    let huge = "a".repeat(16_384);
    for token in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "\u{0}",
        "Bearer x",
        &huge,
        "eyJhbGciOiJIUzI1NiJ9..",
    ] {
        for verifier in [
            Verifier::from_secret(SECRET),
            Verifier::from_public_key_pem(ED25519_PEM.as_bytes()).unwrap(),
        ] {
            assert!(matches!(
                verifier.verify(token, NOW),
                Err(TokenError::Invalid(_))
            ));
        }
    }
}

#[test]
fn keys_that_cannot_serve_are_refused_at_once() {
    let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for (pem, reason) in [
        ("", "no PUBLIC KEY block"),
        ("a secret", "no PUBLIC KEY block"),
        (private, "private key"),
        (&format!("{ED25519_PEM}{ED25519_PEM}"), "more than one"),
        (&format!("{ED25519_PEM}{RSA_PEM}"), "more than one"),
        (P256_PEM, "neither an RSA nor an Ed25519"),
        (RSA_1024_PEM, "2048 bits"),
        (
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "neither",
        ),
    ] {
        let error = Verifier::from_public_key_pem(pem.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{error}");
    }
    assert!(Verifier::from_public_key_pem(&[0xff, 0xfe]).is_err());
}

#[test]
fn debug_output_hides_the_key() {
    let shown = format!("{:?}", Verifier::from_secret(SECRET));
    assert!(
        shown.contains("redacted") && !shown.contains("97, 32, 115"),
        "{shown}"
    );
}
