//! Lines that a dependency logs again and again, at most once a minute each: on a failing disk, sled tells ten
//! times a second that it cannot flush.
//!
//! Halley's own lines are written where it is known how often they may come.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

const PERIOD: Duration = Duration::from_secs(60);

/// When each place of a dependency's code was last heard.
#[derive(Debug, Default)]
pub(super) struct Repeats(Mutex<HashMap<Place, Instant>>);

/// A line of code that logs.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
struct Place {
    file: String,
    line: u64,
}

impl Repeats {
    fn is_new(&self, place: Place, now: Instant) -> bool {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = heard.get(&place);
        let new = last.is_none_or(|last| now.saturating_duration_since(*last) >= PERIOD);
        if new {
            heard.insert(place, now);
        }
        new
    }
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        // Events of the crate `log`, which says the place in fields. Whoever asks for more than info wants all.
        if event.metadata().target() != "log" || *event.metadata().level() > Level::INFO {
            return true;
        }
        let mut place = Place::default();
        event.record(&mut place);
        self.is_new(place, Instant::now())
    }
}

impl Visit for Place {
    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "log.file" {
            value.clone_into(&mut self.file);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "log.line" {
            self.line = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn a_place_is_heard_once_a_minute() {
        let repeats = Repeats::default();
        let place = |line| Place {
            file: "flusher.rs".to_owned(),
            line,
        };
        let start = Instant::now();
        let heard = |line, ms| repeats.is_new(place(line), start + Duration::from_millis(ms));
        assert!(heard(85, 0));
        assert!(heard(138, 50), "another place");
        let again = (1..600).filter(|tenth| heard(85, tenth * 100)).count();
        assert_eq!(again, 0);
        assert!(heard(85, 60_000));
        assert!(!heard(85, 60_100));
    }

    #[test]
    fn only_lines_of_dependencies_are_left_out() {
        struct Count(Arc<AtomicUsize>);
        impl<S: Subscriber> Layer<S> for Count {
            fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let heard = Arc::new(AtomicUsize::new(0));
        let log = tracing_subscriber::registry()
            .with(Count(Arc::clone(&heard)))
            .with(Repeats::default());
        let default = tracing::subscriber::set_default(log);
        // As the crate `log` is heard.
        for turn in 0..10_u64 {
            tracing::error!(target: "log", { log.file = "flusher.rs", log.line = 85_u64 }, "{turn}");
        }
        assert_eq!(heard.swap(0, Ordering::Relaxed), 1);
        for turn in 0..10_u64 {
            tracing::error!("our own {turn}");
        }
        assert_eq!(heard.load(Ordering::Relaxed), 10);
        drop(default);
    }
}
