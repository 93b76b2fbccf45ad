//! How plans and states are told to people.

use super::plan::Plan;
use super::share::Share;
use super::state::{Phase, State};
use std::time::Duration;

/// The most characters of a text from outside that a state keeps.
const MAX_TEXT: usize = 400;

/// `500ms`, `90s` as `1m30s`, `10m`, `2h`, `30d`.
pub fn duration(duration: Duration) -> String {
    let ms = duration.subsec_millis();
    let seconds = duration.as_secs();
    if seconds == 0 {
        return format!("{ms}ms");
    }
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (u64::from(ms), "ms"),
    ];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    parts.map(|(count, unit)| format!("{count}{unit}")).collect()
}

/// The same, rounded up to two units or so: `1h30m` of 5,399.2 s.
pub fn about(span: Duration) -> String {
    let unit_ms = match span.as_secs() {
        0 => 1,
        1..600 => 1_000,
        600..86_400 => 60_000,
        _ => 3_600_000,
    };
    let ms = u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    duration(Duration::from_millis(ms.div_ceil(unit_ms).saturating_mul(unit_ms)))
}

/// `a, b and c`
pub(super) fn list(names: &[Box<str>]) -> String {
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        Some((last, _)) => last.to_string(),
        None => String::new(),
    }
}

/// `10 %`, `segment staff`, `5 % and segments staff and beta`, `a mirror of 10 %`
pub fn exposure(share: Share, segments: &[Box<str>], mirror: Share) -> String {
    if mirror > Share::ZERO {
        return format!("a mirror of {mirror}");
    }
    let ring = match segments {
        [] => return share.to_string(),
        [one] => format!("segment {one}"),
        more => format!("segments {}", list(more)),
    };
    match share {
        Share::ZERO => ring,
        // Who is in a ring is in everything.
        Share::WHOLE => share.to_string(),
        share => format!("{share} and {ring}"),
    }
}

/// `at step 2 of 5 (10 %)`, or `before the first step`.
pub(super) fn position(plan: &Plan, state: &State) -> String {
    match state.step {
        0 => "before the first step".to_owned(),
        step => format!(
            "at step {step} of {} ({})",
            plan.last(),
            exposure(state.share, &state.segments, state.mirror)
        ),
    }
}

/// How a rollout stands, for people: `paused at step 2 of 5 (10 %): by ada`.
pub fn standing(plan: &Plan, state: &State) -> String {
    let position = position(plan, state);
    match &state.phase {
        Phase::Idle => "idle".to_owned(),
        Phase::Progressing => format!("progressing, {position}"),
        Phase::Paused(reason) => format!("paused {position}: {}", reason.text),
        Phase::WaitingApproval => format!("waiting for approval {position}"),
        Phase::Baking => format!("baking, {position}"),
        Phase::Succeeded => "delivered".to_owned(),
        Phase::RolledBack(reason) => format!("rolled back: {}", reason.text),
    }
}

/// What a person can do next.
pub(super) fn next(plan: &Plan, state: &State) -> String {
    let service = &plan.service;
    let command = |verb: &str, does: &str| format!("`rollgate rollout {verb} {service}` {does}");
    match &state.phase {
        Phase::Idle => command("start", "begins it"),
        Phase::Progressing | Phase::Baking => command("rollback", "ends it"),
        Phase::Paused(_) => command("resume", "goes on with it"),
        Phase::WaitingApproval => command("approve", "lets it go on"),
        Phase::Succeeded => "a candidate of another name begins a new rollout".to_owned(),
        Phase::RolledBack(_) => command("retry", "begins again"),
    }
}

/// A text from outside, bounded.
pub(super) fn kept(text: &str) -> Box<str> {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()).into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_in_the_file() {
        for (ms, text) in [
            (0, "0ms"),
            (500, "500ms"),
            (1_500, "1s500ms"),
            (90_000, "1m30s"),
            (600_000, "10m"),
            (7_200_000, "2h"),
            (1_814_400_000, "21d"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn about_is_never_less() {
        for (ms, text) in [
            (0.2, "1ms"),
            (999.0, "999ms"),
            (1_400.0, "2s"),
            (599_001.0, "10m"),
            (601_000.0, "11m"),
            (5_399_200.0, "1h30m"),
            (90_000_000.0, "1d1h"),
        ] {
            assert_eq!(about(Duration::from_secs_f64(ms / 1_000.0)), text);
        }
        assert!(!about(Duration::MAX).is_empty());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(&*kept("short"), "short");
        assert_eq!(kept(&"ä".repeat(1000)).chars().count(), MAX_TEXT + 1);
    }
}
