//! The journal damaged: what nobody was told of may go; anything else is refused, named, and left
//! alone until the operator decides.

use std::path::Path;

use super::base::{Base, FLUSHED, Moment, USERS, refuses};
use super::sled::remove;
use crate::image::{Entry, Image, look, put};
use crate::random::Random;
use crate::support::{Launch, pause};

/// A segment begins with a header of this length.
const HEADER: usize = 68;
/// Before the payload of a frame: its length (4), checksum (4), version (1), offset (8).
const FRAME_HEAD: usize = 17;

fn segments(image: &Image) -> Vec<String> {
    let segments = image.keys().filter(|path| path.starts_with("journal/"));
    segments.cloned().collect()
}

fn bytes_of<'a>(image: &'a mut Image, path: &str) -> &'a mut Vec<u8> {
    match image.get_mut(path) {
        Some(Entry::File(bytes)) => bytes,
        other => panic!("{path} is {other:?}"),
    }
}

fn last_segment(image: &mut Image) -> &mut Vec<u8> {
    let path = segments(image).pop().unwrap();
    bytes_of(image, &path)
}

/// Where each frame of a segment begins, and the end of the last one: behind it may be zeros.
fn frames(segment: &[u8]) -> Vec<usize> {
    let mut starts = vec![HEADER];
    while let Some(head) = segment
        .get(starts[starts.len() - 1]..)
        .filter(|rest| rest.iter().take(FRAME_HEAD).any(|byte| *byte != 0))
    {
        let length = u32::from_be_bytes(head[..4].try_into().unwrap());
        let length = usize::try_from(length).unwrap();
        starts.push(starts[starts.len() - 1] + FRAME_HEAD + length);
    }
    starts
}

/// A few places of the frame from `start` to `end`: all of its head, its first and last bytes.
fn places(start: usize, end: usize, rng: &mut Random) -> Vec<usize> {
    let length = end - start;
    let mut places = vec![
        1,
        3,
        4,
        8,
        9,
        16,
        17,
        18,
        length / 2,
        length - 2,
        length - 1,
    ];
    places.push(
        rng.range(1, u64::try_from(length).unwrap() - 1)
            .try_into()
            .unwrap(),
    );
    places.retain(|place| *place > 0 && *place < length);
    places.sort_unstable();
    places.dedup();
    places
}

/// The last segment without the zeros behind its last frame, and where that one begins.
fn last_frame(image: &mut Image) -> (Vec<u8>, usize) {
    let mut segment = last_segment(image).clone();
    let starts = frames(&segment);
    segment.truncate(starts[starts.len() - 1]);
    (segment, starts[starts.len() - 2])
}

/// Zeros as they are written ahead, or none.
fn zeros(rng: &mut Random) -> Vec<u8> {
    vec![0; [0, 5, 100_000][rng.index(3)]]
}

fn garbage(rng: &mut Random) -> Vec<u8> {
    (0..rng.index(300))
        .map(|_| u8::try_from(rng.index(256)).unwrap())
        .collect()
}

/// The journal and the format are as before.
#[track_caller]
fn assert_untouched(dir: &Path, image: &Image) {
    let (found, _) = look(dir);
    for (path, entry) in image {
        if path.starts_with("journal") || path == "format" {
            assert!(found.get(path) == Some(entry), "{path} has changed");
        }
    }
}

#[test]
fn a_torn_tail_is_cut_off_with_a_warning() {
    let mut rng = Random::from_environment("torn tail");
    let base = Base::new(&mut rng);
    for (index, moment) in base.ends.iter().enumerate() {
        let mut image = moment.image.clone();
        let (segment, last) = last_frame(&mut image);
        for (number, place) in places(last, segment.len(), &mut rng)
            .into_iter()
            .enumerate()
        {
            let mut torn = segment.clone();
            torn.extend_from_slice(&segment[last..last + place]);
            if number % 2 == index {
                torn.extend(garbage(&mut rng));
            }
            torn.extend(zeros(&mut rng));
            // Zeros are what stands there anyway.
            let shows = torn.iter().skip(segment.len()).any(|byte| *byte != 0);
            *last_segment(&mut image) = torn;
            base.put(&image, None);
            let (code, text) = base.command(&["verify"]);
            assert_eq!(code, Some(0), "a torn tail is no damage: {text}");
            let text = base.assert_heals(moment, &format!("torn at {place}"));
            assert_eq!(text.contains("torn end of the journal"), shows, "{text}");
            let cut = look(&base.data).0;
            assert!(cut.contains_key("format"));
        }
    }
}

#[test]
fn a_journal_that_lost_acknowledged_entries_is_refused() {
    let mut rng = Random::from_environment("journal behind");
    let base = Base::new(&mut rng);
    let order = either_first(&base, &mut rng);
    for moment in order {
        let mut image = moment.image.clone();
        let (segment, last) = last_frame(&mut image);
        let mut cuts = places(last, segment.len(), &mut rng);
        cuts.truncate(6);
        cuts.insert(0, 0);
        for place in cuts {
            let mut torn = segment[..last + place].to_vec();
            if rng.percent(50) && place > 0 {
                torn.extend(garbage(&mut rng));
            }
            torn.extend(zeros(&mut rng));
            *last_segment(&mut image) = torn;
            base.put(&image, None);
            let text = base.assert_refuses();
            assert!(
                text.contains("ahead of the journal"),
                "{}: {text}",
                moment.name
            );
            assert!(text.contains("rebuild --accept-loss"), "{text}");
            assert_untouched(&base.data, &image);
        }
    }
    accept_loss(&base, order[1]);
}

/// Both moments; a loss is accepted for the second, which makes the directory another log's.
fn either_first<'a>(base: &'a Base, rng: &mut Random) -> [&'a Moment; 2] {
    let [one, other] = &base.ends;
    if rng.percent(50) {
        [one, other]
    } else {
        [other, one]
    }
}

/// After damage in the last segment: the operator goes on without what is lost.
fn accept_loss(base: &Base, moment: &Moment) {
    let (code, text) = base.command(&["rebuild", "--accept-loss"]);
    assert_eq!(code, Some(0), "{text}");
    let process = base.launch.start();
    let mut client = process.admin();
    let log = client.status()["log"].as_str().unwrap().to_owned();
    let page = |after: &str| format!("/v1/users/{}/inbox?after={after}&wait=0", USERS[0]);
    let (_, old) = moment.cursor.rsplit_once('.').unwrap();
    assert!(
        !log.starts_with(old),
        "the same log id, though the log lost its end"
    );
    let beyond = client.get(&page(&moment.cursor)).unwrap().expect(409);
    assert_eq!(beyond.code(), "cursor_ahead", "{:?}", beyond.json());
    assert!(beyond.json()["restart"].is_string());
    let start = client.get(&page(&format!("5.5.{old}"))).unwrap().page();
    assert_eq!(start.log, log, "what was before the loss goes on");
    let receipt = client
        .push_direct(USERS[0], USERS[1], "1", None)
        .unwrap()
        .receipt();
    let watermark = client.status()["watermark"]["direct"].as_u64();
    assert_eq!(Some(receipt.id), watermark);
}

#[test]
fn damage_in_the_middle_is_refused_and_named_until_its_loss_is_accepted() {
    let mut rng = Random::from_environment("journal flipped");
    let base = Base::new(&mut rng);
    let order = either_first(&base, &mut rng);
    for moment in order {
        for percent in [0, 30, 50, 90] {
            let mut image = moment.image.clone();
            let path = segments(&image).pop().unwrap();
            let segment = bytes_of(&mut image, &path);
            let starts = frames(segment);
            let frame = (starts.len() - 3) * percent / 100;
            let at = starts[frame] + rng.index(starts[frame + 1] - starts[frame]);
            segment[at] ^= 1 << rng.index(8);
            base.put(&image, None);
            let position = starts[frame].to_string();
            let refused = base.assert_refuses();
            let (code, verified) = base.command(&["verify"]);
            assert_eq!(code, Some(1), "{verified}");
            for text in [&refused, &verified] {
                assert!(text.contains(&path), "which file? {text}");
                assert!(
                    text.contains(&position),
                    "where, as byte {position}? {text}"
                );
            }
            assert!(refused.contains("halley verify"), "what to do? {refused}");
            let (code, text) = base.command(&["rebuild"]);
            assert_eq!(code, Some(1), "a rebuild loses nothing by itself: {text}");
            assert_untouched(&base.data, &image);
        }
    }
    accept_loss(&base, order[1]);
}

#[test]
fn a_missing_segment_is_refused() {
    let mut rng = Random::from_environment("segment missing");
    let base = Base::new(&mut rng);
    let temp = tempfile::TempDir::new().unwrap();
    let (mut dir, mut image) = (base.data.clone(), base.ends[0].image.clone());
    base.put(&image, None);
    // A copy of a directory goes on in a segment of its own.
    for number in 0..3 {
        dir = temp.path().join(format!("copy{number}"));
        put(&image, &dir);
        let mut process = Launch::new(&dir).start();
        process
            .admin()
            .push_direct("ann", "bob", "1", None)
            .unwrap()
            .receipt();
        pause(FLUSHED);
        process.kill9();
        image = look(&dir).0;
    }
    let all = segments(&image);
    assert!(all.len() >= 3, "{all:?}");
    let launch = Launch::new(&dir);
    for missing in &all[..all.len() - 1] {
        for without_sled in [false, true] {
            let mut image = image.clone();
            image.remove(missing);
            if without_sled {
                remove(&mut image, "sled");
            }
            put(&image, &dir);
            let text = refuses(&launch);
            assert!(text.contains("journal is damaged"), "{missing}: {text}");
            assert_untouched(&dir, &image);
        }
    }
    // Without its last segment the journal is shorter than what was applied.
    image.remove(&all[all.len() - 1]);
    put(&image, &dir);
    let text = refuses(&launch);
    assert!(text.contains("ahead of the journal"), "{text}");
}
