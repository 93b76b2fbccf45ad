use super::*;
use proptest::prelude::*;

fn at(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_second()
}

fn until(window: &str, now: &str) -> Option<String> {
    let until = Freeze::parse(window)
        .unwrap_or_else(|error| panic!("{window}: {error}"))
        .until(at(now))?;
    Some(Timestamp::from_second(until).unwrap().to_string())
}

#[test]
fn a_weekend_is_frozen_from_its_first_second_to_its_last() {
    let weekend = "Fri 16:00-Mon 08:00 Europe/Berlin";
    // 2026-02-27 is a Friday; Berlin is one hour ahead of UTC.
    for (now, open) in [
        ("2026-02-27T14:59:59Z", false),
        ("2026-02-27T15:00:00Z", true),
        ("2026-02-28T12:00:00Z", true),
        ("2026-03-02T06:59:59Z", true),
        ("2026-03-02T07:00:00Z", false),
        ("2026-03-04T12:00:00Z", false),
    ] {
        assert_eq!(until(weekend, now).is_some(), open, "{now}");
    }
    assert_eq!(
        until(weekend, "2026-03-01T00:00:00Z").as_deref(),
        Some("2026-03-02T07:00:00Z")
    );
    let freezes = [
        Freeze::parse(weekend).unwrap(),
        Freeze::parse("Sun 00:00-Sun 24:00 UTC").unwrap(),
    ];
    assert_eq!(
        frozen(&freezes, at("2026-03-01T00:00:00Z")).as_deref(),
        Some("frozen until 2026-03-02 08:00 (Fri 16:00-Mon 08:00 Europe/Berlin)")
    );
    assert_eq!(frozen(&freezes, at("2026-03-03T00:00:00Z")), None);
}

#[test]
fn windows_of_each_kind_open_and_close() {
    for (window, now, open) in [
        ("22:00-06:00 UTC", "2026-01-01T21:59:59Z", false),
        ("22:00-06:00 UTC", "2026-01-01T22:00:00Z", true),
        ("22:00-06:00 UTC", "2026-01-02T05:59:59Z", true),
        ("22:00-06:00 UTC", "2026-01-02T06:00:00Z", false),
        ("12:00-13:30 UTC", "2026-01-02T13:29:59Z", true),
        ("00:00-24:00 UTC", "", false),
        ("Sat 00:00-Sat 24:00 UTC", "2026-01-03T23:59:59Z", true),
        ("Sat 00:00-Sat 24:00 UTC", "2026-01-04T00:00:00Z", false),
        ("Fri 16:00-Fri 15:00 UTC", "2026-01-02T15:30:00Z", false),
        ("Fri 16:00-Fri 15:00 UTC", "2026-01-02T14:30:00Z", true),
        ("monday 8:00 - TUE 09:00 utc", "2026-01-05T08:00:00Z", true),
        (
            "2026-12-23 12:00-2027-01-04 08:00 Europe/Berlin",
            "2026-12-23T11:00:00Z",
            true,
        ),
        (
            "2026-12-23 12:00-2027-01-04 08:00 Europe/Berlin",
            "2027-01-04T07:00:00Z",
            false,
        ),
        (
            "2026-12-23 12:00-2027-01-04 08:00 Europe/Berlin",
            "2027-12-24T00:00:00Z",
            false,
        ),
        ("2026-12-31 00:00-2026-12-31 24:00 UTC", "2026-12-31T23:59:59Z", true),
    ] {
        if now.is_empty() {
            assert!(Freeze::parse(window).is_err(), "{window}");
        } else {
            assert_eq!(until(window, now).is_some(), open, "{window} at {now}");
        }
    }
}

/// Berlin puts its clocks forward on 2026-03-29 at 02:00 (01:00 UTC) and back on 2026-10-25 at 03:00 (01:00 UTC).
#[test]
fn a_window_over_a_change_of_the_clocks_is_as_long_as_the_clock_says() {
    let berlin = |window: &str, now: &str| until(&format!("{window} Europe/Berlin"), now);
    // Over the change: 62 and 64 hours, not 63.
    assert_eq!(
        berlin("Fri 17:00-Mon 08:00", "2026-03-28T00:00:00Z").as_deref(),
        Some("2026-03-30T06:00:00Z")
    );
    assert_eq!(
        berlin("Fri 17:00-Mon 08:00", "2026-03-27T16:00:00Z").as_deref(),
        Some("2026-03-30T06:00:00Z")
    );
    assert_eq!(
        berlin("Fri 17:00-Mon 08:00", "2026-10-24T00:00:00Z").as_deref(),
        Some("2026-10-26T07:00:00Z")
    );
    // It begins or ends in the hour that is left out: at the change.
    assert_eq!(berlin("Sun 02:30-Sun 06:00", "2026-03-29T00:59:59Z"), None);
    assert_eq!(
        berlin("Sun 02:30-Sun 06:00", "2026-03-29T01:00:00Z").as_deref(),
        Some("2026-03-29T04:00:00Z")
    );
    assert_eq!(
        berlin("Sun 01:00-Sun 02:30", "2026-03-29T00:30:00Z").as_deref(),
        Some("2026-03-29T01:00:00Z")
    );
    assert_eq!(
        berlin("Sun 02:15-Sun 02:45", "2026-03-29T01:00:00Z"),
        None,
        "all of it is left out"
    );
    // It begins or ends in the hour that is there twice: from the first to the second.
    assert_eq!(
        berlin("Sun 02:30-Sun 06:00", "2026-10-25T00:30:00Z").as_deref(),
        Some("2026-10-25T05:00:00Z")
    );
    assert_eq!(
        berlin("Sun 01:00-Sun 02:30", "2026-10-25T00:45:00Z").as_deref(),
        Some("2026-10-25T01:30:00Z")
    );
    assert_eq!(berlin("Sun 01:00-Sun 02:30", "2026-10-25T01:30:00Z"), None);
}

#[test]
fn a_time_that_no_calendar_has_is_frozen() {
    let freeze = Freeze::parse("Sat 00:00-Sun 00:00 UTC").unwrap();
    for now in [i64::MAX, i64::MIN] {
        assert_eq!(freeze.until(now), Some(i64::MAX));
        insta::allow_duplicates! {
            insta::assert_snapshot!(
                frozen(std::slice::from_ref(&freeze), now).unwrap(),
                @"frozen, as the clock of this machine shows no possible time (Sat 00:00-Sun 00:00 UTC)"
            );
        }
    }
}

#[test]
fn what_is_wrong_with_a_window_is_said() {
    let cases = [
        "",
        "weekend",
        "Fri 16:00-Mon 08:00",
        "Fri 16:00-Mon 08:00 Europe/Berlim",
        "Fri 16:00-Mon 08:00 Berlin",
        "Fri 16:00-Mon 08:00 new york",
        "Fri 16:00-Mon 08:00 +02:00",
        "Fry 16:00-Mon 08:00 UTC",
        "Friday 16:00-Mondya 08:00 UTC",
        "Fri 16-Mon 8 UTC",
        "Fri 4pm-Mon 8am UTC",
        "Fri 25:00-Mon 08:00 UTC",
        "Fri 16:60-Mon 08:00 UTC",
        "Fri 24:00-Mon 08:00 UTC",
        "Fri 16:00-08:00 UTC",
        "Fri 16:00-Fri 16:00 UTC",
        "Mon 00:00-Sun 24:00 UTC",
        "00:00-24:00 UTC",
        "10:00-10:00 UTC",
        "2026-13-01 00:00-2026-12-01 00:00 UTC",
        "2026-12-02 00:00-2026-12-01 00:00 UTC",
        "2026-12-01 00:00-Mon 00:00 UTC",
        "Fri 16:00-Mon 08:00UTC",
        "Fri 16:00–Mon 08:00 UTC",
    ];
    let report: Vec<String> = cases
        .iter()
        .map(|case| match Freeze::parse(case) {
            Ok(freeze) => format!("{case:?}: taken as {freeze}"),
            Err(FreezeError {
                message,
                suggestion: Some(suggestion),
            }) => format!("{case:?}: {message} (did you mean {suggestion:?}?)"),
            Err(FreezeError { message, .. }) => format!("{case:?}: {message}"),
        })
        .collect();
    insta::assert_snapshot!(report.join("\n"));
}

const ZONE_NAMES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "Pacific/Apia",
];

/// 1990 to 2050.
fn times() -> impl Strategy<Value = i64> {
    631_152_000i64..2_524_608_000
}

fn near_a_change() -> impl Strategy<Value = (&'static str, i64)> {
    (proptest::sample::select(&ZONE_NAMES[..]), times(), -7_200i64..7_200).prop_map(|(name, time, off)| {
        let zone = ZONES.get(name).unwrap();
        let change = zone
            .following(Timestamp::from_second(time).unwrap())
            .next()
            .map(|change| change.timestamp().as_second());
        (name, change.unwrap_or(time) + off)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_text_panics(text in "\\PC{0,40}") {
        let _ = Freeze::parse(&text);
    }

    #[test]
    fn nothing_like_a_window_panics(text in "(Mon|fri|Foo|2026-02-30|)? ?[0-9]{1,3}:[0-9]{0,3} ?[-–]? ?(Sun|2026-12-01|) ?[0-9]{1,2}:[0-9]{2} ?(UTC|Europe/Berlin|X|)") {
        if let Ok(freeze) = Freeze::parse(&text) {
            prop_assert_eq!(Freeze::parse(&freeze.to_string()).unwrap(), freeze);
        }
    }

    /// Away from changes of the clocks the window is open exactly when the local clock is within it.
    #[test]
    fn a_window_is_open_when_the_local_clock_is_within(
        zone in proptest::sample::select(&ZONE_NAMES[..]), now in times(),
        day in 0usize..7, hours in 1i64..167, start in 0i64..1440,
    ) {
        let tz = ZONES.get(zone).unwrap();
        let instant = Timestamp::from_second(now).unwrap();
        let steady = |hours: i64| {
            let other = instant.checked_add(hours.hours()).unwrap();
            tz.to_offset(other) == tz.to_offset(instant)
        };
        prop_assume!((-200..=200).step_by(4).all(steady));
        let end = start + hours * 60;
        let clock = |minute: i64| format!("{} {:02}:{:02}", WEEKDAYS[(day + (minute / 1440) as usize) % 7].0, minute % 1440 / 60, minute % 60);
        let freeze = Freeze::parse(&format!("{}-{} {zone}", clock(start), clock(end))).unwrap();
        let local = tz.to_datetime(instant);
        let monday = i64::from(local.weekday().to_monday_zero_offset());
        let second = monday * 86_400 + i64::from(local.hour()) * 3600 + i64::from(local.minute()) * 60 + i64::from(local.second());
        let since = (second - (day as i64 * 1440 + start) * 60).rem_euclid(7 * 86_400);
        let left = hours * 3600 - since;
        prop_assert_eq!(freeze.until(now), (left > 0).then(|| now + left));
    }

    /// Also around changes: while a window is open its end stays where it is, and there it is closed.
    #[test]
    fn the_end_that_is_said_is_the_end(
        (zone, now) in near_a_change(), start in 0i64..1440, minutes in 1i64..1439, day in proptest::option::of(0usize..7),
    ) {
        let end = (start + minutes) % 1440;
        let name = |late: usize| day.map_or(String::new(), |day| format!("{} ", WEEKDAYS[(day + late) % 7].0));
        let late = usize::from(start + minutes >= 1440);
        let text = format!("{}{:02}:{:02}-{}{:02}:{:02} {zone}", name(0), start / 60, start % 60, name(late), end / 60, end % 60);
        let freeze = Freeze::parse(&text).unwrap();
        if let Some(until) = freeze.until(now) {
            prop_assert!(until > now && until - now <= 8 * 86_400, "{} at {}", text, now);
            prop_assert_eq!(freeze.until(until - 1), Some(until), "{} at {}", text, until - 1);
            prop_assert_eq!(freeze.until((now + until) / 2), Some(until));
            // Daily windows may follow each other without a moment between only where a day is left out.
            if minutes < 1200 && zone != "Pacific/Apia" {
                prop_assert_eq!(freeze.until(until), None, "{} at {}", text, until);
            }
        }
    }
}
