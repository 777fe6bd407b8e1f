//! When connections are due. Each has one time, which is moved all the time and comes rarely: so it is only noted with the
//! connection, and what stands in the calendar is looked at when its day has come, and moved on then.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// How exact deadlines are. They never come early.
const TICK: Duration = Duration::from_millis(10);
/// How far ahead a connection stands in the calendar at the most. So what it leaves there does not stay for long.
const AHEAD_TICKS: u64 = 800;
const NEVER: u64 = u64::MAX;

/// Connections by the time at which they are to be looked at.
pub(super) struct Calendar {
    begin: Instant,
    days: BTreeMap<u64, Vec<usize>>,
}

/// One connection's time.
#[derive(Debug)]
pub(super) struct Due {
    at: u64,
    /// Where it stands in the calendar.
    noted: u64,
}

impl Default for Due {
    fn default() -> Self {
        Self {
            at: NEVER,
            noted: NEVER,
        }
    }
}

impl Calendar {
    pub(super) fn new() -> Self {
        Self {
            begin: Instant::now(),
            days: BTreeMap::new(),
        }
    }

    fn tick(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.begin).as_millis();
        u64::try_from(since / TICK.as_millis()).unwrap_or(NEVER)
    }

    /// The connection in this place is due then, and no longer at any other time.
    pub(super) fn set(&mut self, place: usize, due: &mut Due, at: Option<Instant>, now: Instant) {
        due.at = at.map_or(NEVER, |at| self.tick(at).saturating_add(1));
        self.note(place, due, now);
    }

    fn note(&mut self, place: usize, due: &mut Due, now: Instant) {
        if due.at >= due.noted {
            return;
        }
        let day = due.at.min(self.tick(now).saturating_add(AHEAD_TICKS));
        if day < due.noted {
            due.noted = day;
            self.days.entry(day).or_default().push(place);
        }
    }

    /// The next place of which the day has come, with the day.
    pub(super) fn next(&mut self, now: Instant) -> Option<(usize, u64)> {
        let today = self.tick(now);
        let mut first = self.days.first_entry()?;
        let day = *first.key();
        if day > today {
            return None;
        }
        let place = first.get_mut().pop();
        if first.get().is_empty() {
            first.remove();
        }
        place.map(|place| (place, day))
    }

    /// Whether a connection is due that stood in the calendar for this day; it is noted again if not.
    pub(super) fn is_due(
        &mut self,
        (place, day): (usize, u64),
        due: &mut Due,
        now: Instant,
    ) -> bool {
        // Another was there then, or it was due earlier and has been looked at since.
        if due.noted != day {
            return false;
        }
        due.noted = NEVER;
        if due.at <= self.tick(now) {
            due.at = NEVER;
            return true;
        }
        self.note(place, due, now);
        false
    }

    /// How long it is until somebody is to be looked at.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        let (day, _) = self.days.first_key_value()?;
        let ticks = u32::try_from(*day).unwrap_or(u32::MAX);
        let at = self.begin + TICK * ticks;
        Some(at.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(300);

    /// Who is due up to a moment, looked at tick by tick.
    fn run(calendar: &mut Calendar, dues: &mut [Due], until: Duration) -> Vec<(usize, Duration)> {
        let mut found = Vec::new();
        let mut since = Duration::ZERO;
        while since <= until {
            let now = calendar.begin + since;
            while let Some(noted) = calendar.next(now) {
                let due = &mut dues[noted.0];
                if calendar.is_due(noted, due, now) {
                    found.push((noted.0, since));
                }
            }
            since += TICK;
        }
        found
    }

    #[test]
    fn who_is_due_is_found_once_never_early_and_at_its_last_time() {
        let mut calendar = Calendar::new();
        let mut dues = [(); 5].map(|()| Due::default());
        let begin = calendar.begin;
        let ms = |ms| Some(begin + Duration::from_millis(ms));
        for (place, times) in [
            vec![ms(500)],
            vec![ms(500), ms(20_000)],
            vec![ms(20_000), ms(500)],
            vec![ms(500), None],
            vec![Some(begin + LONG), ms(20_000), ms(30_000), ms(500), ms(700)],
        ]
        .into_iter()
        .enumerate()
        {
            for at in times {
                calendar.set(place, &mut dues[place], at, begin);
            }
        }
        let mut found = run(&mut calendar, &mut dues, LONG + LONG);
        found.sort_unstable();
        let places: Vec<_> = found.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [0, 1, 2, 4]);
        for ((_, at), due) in found.iter().zip([500, 20_000, 500, 700]) {
            let due = Duration::from_millis(due);
            assert!(*at >= due && *at <= due + TICK * 2, "{at:?} for {due:?}");
        }
        assert!(calendar.days.is_empty());
    }

    #[test]
    fn who_comes_and_goes_or_moves_its_time_leaves_little_behind() {
        let mut calendar = Calendar::new();
        let mut due = Due::default();
        let begin = calendar.begin;
        for n in 0..100_000 {
            calendar.set(0, &mut due, Some(begin + LONG + TICK * (n % 7)), begin);
        }
        let standing = |calendar: &Calendar| calendar.days.values().map(Vec::len).sum::<usize>();
        assert_eq!(standing(&calendar), 1);
        for place in 0..1000 {
            calendar.set(place, &mut Due::default(), Some(begin + LONG), begin);
        }
        let later = begin + TICK * u32::try_from(AHEAD_TICKS + 200).unwrap();
        while let Some(noted) = calendar.next(later) {
            if noted.0 == 0 {
                assert!(!calendar.is_due(noted, &mut due, later));
            }
        }
        assert_eq!(standing(&calendar), 1);
        assert!(calendar.pause(begin).unwrap() <= LONG);
    }
}
