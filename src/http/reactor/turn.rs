//! A reactor's turns: who was handed over, who was woken, who is due, and only then what sockets have to say. So what came
//! for many is written to all of them before the first asks again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Poll, Token};
use slab::Slab;
use tokio::time::Instant;

use super::deadlines::Calendar;
use super::entry::{Entry, Fate, READ_BYTES, Tools};
use super::gate::{Arrivals, Bell, Course, Gate, WAKER};
use super::{Guest, Manners};

/// What sockets have to say is heard so much at once: what others are woken for meanwhile does not wait for long.
const EVENTS_MAX: usize = 256;
/// What is kept room for when a burst is over.
const ARRIVALS_USUAL: usize = 1024;
/// A reactor whose epoll fails tries again.
const FAILED_PAUSE: Duration = Duration::from_millis(100);

struct Reactor<'a> {
    poll: Poll,
    gate: &'a Arc<Gate>,
    entries: Slab<Entry>,
    tools: Tools,
    /// Those who go on in the next turn, each once.
    again: Vec<usize>,
}

/// Turns until the end; all connections that are left are cut then.
pub(super) fn run(poll: Poll, gate: &Arc<Gate>, manners: Manners) {
    let mut reactor = Reactor {
        poll,
        gate,
        entries: Slab::new(),
        tools: Tools {
            manners,
            calendar: Calendar::new(),
            buffer: vec![0; READ_BYTES].into(),
            now: Instant::now(),
            stopping: false,
        },
        again: Vec::new(),
    };
    let mut events = Events::with_capacity(EVENTS_MAX);
    let mut arrivals = Arrivals::default();
    let mut course = Course::GoOn;
    loop {
        reactor.wait(&mut events, course);
        course = gate.take(&mut arrivals);
        if course == Course::End {
            break;
        }
        reactor.turn(&mut arrivals, course);
        reactor.hear(&events);
    }
}

impl Reactor<'_> {
    /// Sleeps until something is to be done.
    fn wait(&mut self, events: &mut Events, course: Course) {
        let pause = if !self.again.is_empty() || !self.gate.sleep(course) {
            Some(Duration::ZERO)
        } else {
            self.tools.calendar.pause(Instant::now())
        };
        match self.poll.poll(events, pause) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                tracing::error!(%error, "a reactor cannot wait for its connections");
                std::thread::park_timeout(FAILED_PAUSE);
            }
            Ok(()) | Err(_) => {}
        }
        self.tools.now = Instant::now();
    }

    /// Does what is not the sockets' matter.
    fn turn(&mut self, arrivals: &mut Arrivals, course: Course) {
        if course == Course::Stop && !self.tools.stopping {
            self.tools.stopping = true;
            self.again.clear();
            for (place, entry) in &mut self.entries {
                entry.again = true;
                self.again.push(place);
            }
        }
        for place in std::mem::take(&mut self.again) {
            // It may have gone since, and another may be in its place.
            let entry = self.entries.get_mut(place);
            if entry.is_some_and(|entry| std::mem::take(&mut entry.again)) {
                self.go_on(place);
            }
        }
        for place in arrivals.woken.drain(..) {
            self.go_on(place);
        }
        for guest in arrivals.parked.drain(..) {
            self.take(guest);
        }
        arrivals.woken.shrink_to(ARRIVALS_USUAL);
        arrivals.parked.shrink_to(ARRIVALS_USUAL);
        while let Some(noted) = self.tools.calendar.next(self.tools.now) {
            let (place, _) = noted;
            let Tools { calendar, now, .. } = &mut self.tools;
            if let Some(entry) = self.entries.get_mut(place)
                && calendar.is_due(noted, entry.due(), *now)
            {
                self.go_on(place);
            }
        }
    }

    fn hear(&mut self, events: &Events) {
        for event in events {
            if event.token() == WAKER {
                continue;
            }
            let place = event.token().0;
            // Behind its end an event may be another's, or nobody's.
            if let Some(entry) = self.entries.get_mut(place)
                && entry.note(event)
            {
                self.go_on(place);
            }
        }
    }

    fn take(&mut self, guest: Guest) {
        let vacant = self.entries.vacant_entry();
        let place = vacant.key();
        let bell = Bell::new(self.gate, place);
        match Entry::new(guest, bell, (self.poll.registry(), Token(place))) {
            Ok(entry) => {
                vacant.insert(entry);
                self.go_on(place);
            }
            Err(error) => tracing::warn!(%error, "cannot hold a connection"),
        }
    }

    fn go_on(&mut self, place: usize) {
        let Some(entry) = self.entries.get_mut(place) else {
            return;
        };
        // It has had its share of this turn.
        if entry.again {
            return;
        }
        match entry.go_on(place, &mut self.tools) {
            Fate::Stays => {}
            Fate::Again => {
                entry.again = true;
                self.again.push(place);
            }
            Fate::GoesBack => self.entries.remove(place).go_back(self.poll.registry()),
            Fate::Gone => drop(self.entries.remove(place)),
        }
    }
}
