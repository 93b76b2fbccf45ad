//! Freeze windows: when a rollout advances by nothing of its own. Rolling back never waits for one.
//!
//! A window is written `Fri 16:00-Mon 08:00 Europe/Berlin` (each week), `22:00-06:00 UTC` (each day) or
//! `2026-12-23 12:00-2027-01-04 08:00 Europe/Berlin` (once). It is from the moment the local clock first reaches its
//! beginning to the moment it last reaches its end: where clocks are put forward over one of them, that is the moment of
//! the change; where they are put back, the longer reading counts. Time zones are those of the IANA database that is part
//! of the binary.

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan};
use std::fmt;
use std::sync::LazyLock;

/// What a window looks like.
const FORM: &str = "expected a window such as `Fri 16:00-Mon 08:00 Europe/Berlin`, `22:00-06:00 UTC` or `2026-12-23 \
                    12:00-2027-01-04 08:00 UTC`";
const MINUTES_A_DAY: i64 = 24 * 60;
/// No window is longer than a week, so none that began earlier is still open.
const DAYS_BACK: i64 = 8;

const WEEKDAYS: [(&str, &str, Weekday); 7] = [
    ("Mon", "Monday", Weekday::Monday),
    ("Tue", "Tuesday", Weekday::Tuesday),
    ("Wed", "Wednesday", Weekday::Wednesday),
    ("Thu", "Thursday", Weekday::Thursday),
    ("Fri", "Friday", Weekday::Friday),
    ("Sat", "Saturday", Weekday::Saturday),
    ("Sun", "Sunday", Weekday::Sunday),
];

/// The zones of the binary, read as they are asked for.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A window in which nothing advances.
#[derive(Debug, Clone, PartialEq)]
pub struct Freeze {
    text: Box<str>,
    window: Window,
    zone: TimeZone,
}

#[derive(Debug, Clone, PartialEq)]
enum Window {
    Once {
        start: DateTime,
        end: DateTime,
    },
    /// From each `day` (`None`: every day) at `start` to `end`, `days` later.
    Repeated {
        day: Option<Weekday>,
        start: Time,
        days: i64,
        end: Time,
    },
}

/// Why a text is no window, and what may have been meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FreezeError {
    pub message: String,
    /// The whole text as it may have been meant.
    pub suggestion: Option<String>,
}

impl FreezeError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            suggestion: None,
        }
    }
}

/// As it was written.
impl fmt::Display for Freeze {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl Freeze {
    /// The window that `text` says.
    ///
    /// # Errors
    /// Another form, an unknown day or zone, or a window that is never or always open.
    pub fn parse(text: &str) -> Result<Self, FreezeError> {
        let mut rest = Rest { all: text, at: text };
        let start = rest.moment()?;
        rest.skip_spaces();
        if !rest.take('-') {
            return Err(rest.wrong());
        }
        let end = rest.moment()?;
        let zone = rest.zone()?;
        Ok(Self {
            text: text.split_whitespace().collect::<Vec<_>>().join(" ").into(),
            window: window(start, end)?,
            zone,
        })
    }

    /// Until when (in seconds since the Unix epoch) the window that is open at `unix_s` stays open; `None`: it is not open.
    /// A time that no calendar has is in every window.
    pub fn until(&self, unix_s: i64) -> Option<i64> {
        let Ok(now) = Timestamp::from_second(unix_s) else {
            return Some(i64::MAX);
        };
        let mut until = self.open_until(now)?.as_second();
        // Where clocks are put back, the next window may begin before this one ends.
        for _ in 0..DAYS_BACK {
            let last = Timestamp::from_second(until - 1).ok();
            match last.and_then(|last| self.open_until(last)) {
                Some(later) if later.as_second() > until => until = later.as_second(),
                _ => break,
            }
        }
        Some(until)
    }

    fn open_until(&self, now: Timestamp) -> Option<Timestamp> {
        match &self.window {
            Window::Once { start, end } => self.open_between(*start, *end, now),
            Window::Repeated { day, start, days, end } => {
                let today = self.zone.to_datetime(now).date();
                (-1..=DAYS_BACK).find_map(|back| {
                    let date = today.checked_sub(back.days()).ok()?;
                    if day.is_some_and(|day| day != date.weekday()) {
                        return None;
                    }
                    let last = date.checked_add(days.days()).ok()?;
                    self.open_between(date.to_datetime(*start), last.to_datetime(*end), now)
                })
            }
        }
    }

    fn open_between(&self, start: DateTime, end: DateTime, now: Timestamp) -> Option<Timestamp> {
        let (start, end) = (self.instant(start, Of::Start)?, self.instant(end, Of::End)?);
        (start <= now && now < end).then_some(end)
    }

    /// When the local clock first (for a start) or last (for an end) reaches `civil`.
    fn instant(&self, civil: DateTime, of: Of) -> Option<Timestamp> {
        let readings = self.zone.to_ambiguous_timestamp(civil);
        match (readings.offset(), of) {
            (AmbiguousOffset::Unambiguous { .. }, _) => readings.unambiguous().ok(),
            (AmbiguousOffset::Fold { .. }, Of::Start) => readings.earlier().ok(),
            (AmbiguousOffset::Fold { .. }, Of::End) => readings.later().ok(),
            // The clock never shows it: it is passed at the change, which is the next after the earlier reading.
            (AmbiguousOffset::Gap { .. }, _) => {
                let before = readings.earlier().ok()?;
                self.zone.following(before).next().map(|change| change.timestamp())
            }
        }
    }

    /// `frozen until 2026-03-02 08:00 (Fri 16:00-Mon 08:00 Europe/Berlin)`
    fn sentence(&self, until: i64) -> String {
        let until = Timestamp::from_second(until).map(|until| self.zone.to_datetime(until));
        match until {
            Ok(until) => format!("frozen until {} ({self})", until.strftime("%Y-%m-%d %H:%M")),
            Err(_) => format!("frozen, as the clock of this machine shows no possible time ({self})"),
        }
    }
}

/// Which side of a window.
#[derive(Clone, Copy)]
enum Of {
    Start,
    End,
}

/// In a sentence until when `freezes` hold at `unix_s` (seconds since the Unix epoch): the open window that ends last.
/// `None`: none is open.
pub fn frozen(freezes: &[Freeze], unix_s: i64) -> Option<String> {
    let open = freezes
        .iter()
        .filter_map(|freeze| Some((freeze.until(unix_s)?, freeze)));
    open.max_by_key(|(until, _)| *until)
        .map(|(until, freeze)| freeze.sentence(until))
}

/// A side of a window as it is written.
#[derive(Clone, Copy)]
struct Moment {
    on: On,
    /// 0 to 1440.
    minute: i64,
}

#[derive(Clone, Copy)]
enum On {
    AnyDay,
    Weekday(Weekday),
    Date(Date),
}

fn window(start: Moment, end: Moment) -> Result<Window, FreezeError> {
    if start.minute == MINUTES_A_DAY {
        return Err(FreezeError::new(
            "a window cannot begin at `24:00`: expected `00:00` of the next day",
        ));
    }
    let time = |minute: i64| {
        let part = |part: i64| i8::try_from(part).unwrap_or(0);
        Time::new(part(minute / 60), part(minute % 60), 0, 0).map_err(|_| FreezeError::new(FORM))
    };
    let (whole_days, end_minute) = (end.minute / MINUTES_A_DAY, end.minute % MINUTES_A_DAY);
    let (start_time, end_time) = (time(start.minute)?, time(end_minute)?);
    let (day, mut days, period) = match (start.on, end.on) {
        (On::Date(from), On::Date(to)) => {
            let to = to.checked_add(whole_days.days()).map_err(|_| FreezeError::new(FORM))?;
            let (start, end) = (from.to_datetime(start_time), to.to_datetime(end_time));
            return if start < end {
                Ok(Window::Once { start, end })
            } else {
                Err(FreezeError::new("the window ends before it begins"))
            };
        }
        (On::AnyDay, On::AnyDay) => (None, 0, 1),
        (On::Weekday(from), On::Weekday(to)) => (Some(from), i64::from(from.until(to)), 7),
        _ => {
            return Err(FreezeError::new(
                "a window with two kinds of sides: expected a weekday, a date or neither on both",
            ));
        }
    };
    days += whole_days;
    if days == 0 && end_minute < start.minute {
        days = period;
    }
    let minutes = days * MINUTES_A_DAY + end_minute - start.minute;
    if minutes == 0 {
        return Err(FreezeError::new("a window that begins and ends at the same time"));
    }
    if minutes >= period * MINUTES_A_DAY {
        return Err(FreezeError::new(
            "a window that is always open: no rollout would ever advance",
        ));
    }
    Ok(Window::Repeated {
        day,
        start: start_time,
        days,
        end: end_time,
    })
}

/// What is left of a text.
struct Rest<'t> {
    all: &'t str,
    at: &'t str,
}

impl<'t> Rest<'t> {
    fn wrong(&self) -> FreezeError {
        FreezeError::new(FORM)
    }

    fn skip_spaces(&mut self) {
        self.at = self.at.trim_start();
    }

    fn take(&mut self, c: char) -> bool {
        let rest = self.at.strip_prefix(c);
        self.at = rest.unwrap_or(self.at);
        rest.is_some()
    }

    fn word(&mut self, belongs: impl Fn(char) -> bool) -> &'t str {
        let end = self.at.find(|c| !belongs(c)).unwrap_or(self.at.len());
        let (word, rest) = self.at.split_at_checked(end).unwrap_or((self.at, ""));
        self.at = rest;
        word
    }

    /// The text with `word` (which is part of it) replaced.
    fn with(&self, word: &str, by: &str) -> String {
        self.all.replacen(word, by, 1)
    }

    fn moment(&mut self) -> Result<Moment, FreezeError> {
        self.skip_spaces();
        let on = self.day()?;
        self.skip_spaces();
        let hour = self.digits(2).ok_or_else(|| self.wrong())?;
        if !self.take(':') {
            return Err(self.wrong());
        }
        let minute = self.digits(2).ok_or_else(|| self.wrong())?;
        let of_day = hour * 60 + minute;
        if minute > 59 || of_day > MINUTES_A_DAY {
            let message = format!("`{hour:02}:{minute:02}` is no time of day: expected `00:00` to `24:00`");
            return Err(FreezeError::new(message));
        }
        Ok(Moment { on, minute: of_day })
    }

    /// Up to `most` digits, at least one.
    fn digits(&mut self, most: usize) -> Option<i64> {
        let digits = self.word(|c| c.is_ascii_digit());
        (digits.len() <= most).then(|| digits.parse().ok()).flatten()
    }

    fn day(&mut self) -> Result<On, FreezeError> {
        let date = self
            .at
            .split_at_checked(10)
            .filter(|(date, _)| date.as_bytes().get(4) == Some(&b'-'));
        if let Some((date, rest)) = date {
            self.at = rest;
            let parsed = date.parse::<Date>();
            return parsed
                .map(On::Date)
                .map_err(|_| FreezeError::new(format!("`{date}` is no date: expected one such as `2026-12-23`")));
        }
        let word = self.word(char::is_alphabetic);
        if word.is_empty() {
            return Ok(On::AnyDay);
        }
        let is = |name: &str| name.eq_ignore_ascii_case(word);
        let known = WEEKDAYS.iter().find(|(short, long, _)| is(short) || is(long));
        if let Some((_, _, day)) = known {
            return Ok(On::Weekday(*day));
        }
        let names = WEEKDAYS.iter().flat_map(|(short, long, _)| [*short, *long]);
        Err(FreezeError {
            message: format!("`{}` is no weekday: expected `Mon` to `Sun`", cut(word)),
            suggestion: nearest(word, names).map(|day| self.with(word, day)),
        })
    }

    fn zone(&mut self) -> Result<TimeZone, FreezeError> {
        let name = self.at.trim();
        if name.is_empty() {
            return Err(FreezeError {
                message: "the time zone is missing: expected a name such as `Europe/Berlin` or `UTC`".to_owned(),
                suggestion: Some(format!("{} UTC", self.all.trim())),
            });
        }
        if !self.at.starts_with(char::is_whitespace) {
            return Err(self.wrong());
        }
        if let Ok(zone) = ZONES.get(name) {
            return Ok(zone);
        }
        let known: Vec<String> = ZONES.available().map(|zone| zone.as_str().to_owned()).collect();
        // `Berlin` is `Europe/Berlin`.
        let city = name.replace(' ', "_");
        let is_city = |zone: &&String| {
            zone.rsplit('/')
                .next()
                .is_some_and(|last| last.eq_ignore_ascii_case(&city))
        };
        let meant = known
            .iter()
            .find(is_city)
            .map(String::as_str)
            .or_else(|| nearest(name, known.iter().map(String::as_str)));
        Err(FreezeError {
            message: format!(
                "there is no time zone `{}`: expected a name such as `Europe/Berlin` or `UTC`",
                cut(name)
            ),
            suggestion: meant.map(|meant| self.with(name, meant)),
        })
    }
}

/// Short enough to be shown, without control characters.
fn cut(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '?' } else { c };
    text.chars().take(40).map(shown).collect()
}

/// The candidate nearest to `word`, when it is near enough to have been meant.
fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if word.len() > 64 {
        return None;
    }
    let typed = word.to_ascii_lowercase();
    let distance = |candidate: &str| strsim::damerau_levenshtein(&typed, &candidate.to_ascii_lowercase());
    let near = candidates.into_iter().map(|candidate| (distance(candidate), candidate));
    near.filter(|(distance, candidate)| *distance <= candidate.len().max(word.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
#[path = "freeze_tests.rs"]
mod tests;
