//! Damage of the readable view that is found while it is served: once the log tells it, the next start rebuilds the view.

use std::sync::atomic::{AtomicBool, Ordering};

use tracing::error;

use crate::store::{DamageNote, Error};

/// Whether damage was found, and where that is noted.
#[derive(Debug)]
pub(super) struct Damage {
    found: AtomicBool,
    note: DamageNote,
}

impl Damage {
    pub(super) fn new(note: DamageNote) -> Self {
        let found = AtomicBool::new(false);
        Self { found, note }
    }

    /// Whether any was found since the start.
    pub(super) fn is_found(&self) -> bool {
        self.found.load(Ordering::Acquire)
    }

    /// Notes and logs it, the first time.
    pub(super) fn tell(&self, found: &Error) {
        if self.found.swap(true, Ordering::AcqRel) {
            return;
        }
        // Before the log says so: a kill may follow.
        match self.note.leave(&found.to_string()) {
            Ok(()) => error!(
                error = found.cause(),
                "the readable view cannot be read: the next start rebuilds it"
            ),
            Err(e) => error!(
                error = found.cause(),
                cannot_note = e.cause(),
                "the readable view cannot be read, and that cannot be noted for the next start: before it, run `halley \
                 rebuild`"
            ),
        }
    }

    /// The same, if an error in a thread that writes the view says that it is damaged, not that the disk fails.
    pub(super) fn tell_if_damage(&self, error: &Error) {
        if matches!(error, Error::View(_)) {
            self.tell(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use crate::error;
    use crate::hub::{Compared, Hub, Options, verify};
    use crate::model::{Body, Draft, Receiver, UserName};
    use crate::store::{Directory, View};

    const MESSAGES: u64 = 20;

    fn open(data: &Path) -> Hub {
        Hub::open(Options::small(data)).unwrap()
    }

    /// Messages of two users, all in the view.
    async fn filled(data: &Path) -> Hub {
        let hub = open(data);
        for _ in 0..MESSAGES {
            let user = |name| UserName::parse(name).unwrap();
            let draft = Draft {
                from: user("alice"),
                to: Receiver::User(user("bob")),
                body: Body::from(b"1".to_vec()),
                key: None,
                by_user: false,
            };
            hub.push(vec![draft]).await.unwrap().remove(0).unwrap();
        }
        hub.seal_all();
        hub
    }

    /// Reads an inbox in the view.
    async fn read(hub: &Hub) -> Result<usize, error::Error> {
        let read = hub.blocking(|_, view| {
            let ids: Result<Vec<_>, _> = view.inbox_ids(1, 0, MESSAGES).collect();
            Ok(ids?.len())
        });
        read.await
    }

    /// The next start rebuilds the view, as the note says, and all is there again.
    async fn assert_rebuilt(data: &Path) {
        assert!(data.join("damaged").exists(), "it is noted");
        assert!(!data.join("clean").exists(), "a stop leaves no mark");
        let hub = open(data);
        assert!(!data.join("damaged").exists(), "the note is done with");
        assert_eq!(hub.status().watermark.direct, MESSAGES);
        hub.seal_all();
        assert!(matches!(read(&hub).await, Ok(20)));
        assert!(hub.ready().is_ok());
        hub.close();
        let verified = verify(data, 8 << 20, &mut |_, _| ()).unwrap();
        assert_eq!(verified.view, Compared::Same);
    }

    #[tokio::test]
    async fn what_a_reading_finds_is_rebuilt_by_the_next_start() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        let hub = filled(data).await;
        assert!(matches!(read(&hub).await, Ok(20)));
        let view = hub.0.view.read().unwrap().clone();
        view.unwrap().damage_inbox(1);
        assert!(matches!(read(&hub).await, Err(error::Error::StoreDamaged)));
        assert!(matches!(hub.ready(), Err(error::Error::StoreDamaged)));
        hub.close();
        assert_rebuilt(data).await;
    }

    #[tokio::test]
    async fn what_the_check_behind_a_start_finds_is_rebuilt_by_the_next_one() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        filled(data).await.close();
        let (view, _) = View::open(&Directory::open(data).unwrap(), 8 << 20).unwrap();
        view.damage_inbox(1);
        drop(view);
        fs::remove_file(data.join("clean")).unwrap();
        let hub = open(data);
        assert_eq!(hub.status().watermark.direct, MESSAGES, "it is served");
        let begun = Instant::now();
        while !data.join("damaged").exists() {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "nothing is found"
            );
            std::thread::yield_now();
        }
        hub.close();
        assert_rebuilt(data).await;
    }

    /// On a full disk the note is an empty file.
    #[tokio::test]
    async fn a_note_counts_also_where_it_says_nothing_and_after_a_clean_stop() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        filled(data).await.close();
        fs::write(data.join("damaged"), b"").unwrap();
        fs::remove_file(data.join("clean")).unwrap();
        assert_rebuilt(data).await;
        fs::write(data.join("damaged"), b"").unwrap();
        let hub = open(data);
        assert!(!data.join("damaged").exists());
        assert_eq!(hub.status().watermark.direct, MESSAGES);
        hub.close();
    }
}
