//! The directory as a whole: what makes it ours, and who may use it.

use super::base::{Base, refuses};
use super::sled::remove;
use crate::image::{Entry, Image, look};
use crate::random::Random;
use crate::support::Launch;

#[test]
fn without_its_format_a_directory_is_refused_and_left_alone() {
    let mut rng = Random::from_environment("format");
    let base = Base::new(&mut rng);
    for keep in [&["sled", "clean"][..], &["sled"], &[]] {
        let mut image = base.ends[0].image.clone();
        image.remove("format");
        for name in ["sled", "clean"] {
            if !keep.contains(&name) {
                remove(&mut image, name);
            }
        }
        base.put(&image, None);
        let text = base.assert_refuses();
        assert!(text.contains("format"), "{text}");
        assert_all_there(&base, &image);
    }
    let mut image = base.ends[0].image.clone();
    let newer = format_of(&image).replacen("\"version\": 2", "\"version\": 3", 1);
    assert!(newer.contains("\"version\": 3"), "{newer}");
    image.insert("format".into(), Entry::File(newer.into_bytes()));
    base.put(&image, None);
    let text = base.assert_refuses();
    assert!(
        text.contains("version 3") && text.contains("up to 2"),
        "{text}"
    );
    assert_all_there(&base, &image);

    let half = format_of(&image);
    image.insert(
        "format".into(),
        Entry::File(half.as_bytes()[..half.len() / 2].to_vec()),
    );
    base.put(&image, None);
    let text = base.assert_refuses();
    assert!(text.contains("format"), "{text}");
    assert_all_there(&base, &image);
}

fn format_of(image: &Image) -> String {
    match &image["format"] {
        Entry::File(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        Entry::Dir => panic!("format is a directory"),
    }
}

#[track_caller]
fn assert_all_there(base: &Base, image: &Image) {
    let (found, _) = look(&base.data);
    for (path, entry) in image {
        assert!(found.get(path) == Some(entry), "{path} has changed");
    }
}

#[test]
fn a_second_server_is_refused_and_a_rebuild_changes_nothing() {
    let mut rng = Random::from_environment("second server");
    let base = Base::new(&mut rng);
    for moment in &base.ends {
        base.put(&moment.image, Some(&moment.times));
        let mut process = base.launch.start();
        let text = refuses(&Launch::new(&base.data));
        assert!(text.contains("LOCK"), "{text}");
        let (code, text) = base.command(&["rebuild"]);
        assert_eq!(code, Some(1), "a rebuild under a running server: {text}");
        assert!(text.contains("LOCK"), "{text}");
        moment.assert_same(&mut process.admin(), "the first server goes on");
        process.kill9();

        base.put(&moment.image, Some(&moment.times));
        let (code, text) = base.command(&["verify"]);
        assert_eq!(code, Some(0), "{text}");
        let (code, text) = base.command(&["rebuild"]);
        assert_eq!(code, Some(0), "{text}");
        base.assert_heals(moment, "rebuilt");
    }
}
