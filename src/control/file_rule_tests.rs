use super::*;
use proptest::prelude::*;

const FILE: &str = r#"# the shop
listeners:
  - address: 0.0.0.0:8080
admin:
  address: 127.0.0.1:9900
services:
  - name: checkout
    routes:
      - { host: shop.example.com, path_prefix: /checkout }
    versions:
      - name: v1
        role: stable
        weight: 95
        pool:
          endpoints: ["127.0.0.1:9001", { address: "127.0.0.1:9002", weight: 2 }]
          timeouts: { connect: 1s, first_byte: 30s }
      - name: v2
        role: canary
        weight: 5
        pool: { endpoints: ["127.0.0.1:9003"] }
    fallback: stable
  - name: search
    routes:
      - { path_prefix: /search }
    versions:
      - name: v1
        role: stable
        weight: 100
        pool:
          endpoints:
            - 127.0.0.1:9101
            - 127.0.0.1:9102
      - name: v2
        role: canary
        weight: 0
        pool: { endpoints: ["127.0.0.1:9103"] }
    fallback: stable
  - name: site
    versions:
      - { name: v1, role: stable, weight: 9, pool: { endpoints: ["127.0.0.1:9201"] } }
      - { name: v2, role: canary, weight: 1, pool: { endpoints: ["127.0.0.1:9202"] } }
"#;

fn in_place(text: &str, stable: Duration) -> Verdict {
    against(FILE, text, stable)
}

fn against(in_force: &str, text: &str, stable: Duration) -> Verdict {
    judge(&Candidate {
        in_force,
        text,
        how: How::InPlace,
        stable,
        pending: stable,
        writer_open: false,
    })
}

/// After so long every wait is over.
const LONG: Duration = Duration::from_secs(3600);

#[test]
fn an_explicit_reload_takes_anything_at_once() {
    for text in ["", "x", FILE, FILE.split_at(100).0] {
        let candidate = Candidate {
            in_force: FILE,
            text,
            how: How::Explicit,
            stable: Duration::ZERO,
            pending: Duration::ZERO,
            writer_open: true,
        };
        assert_eq!(judge(&candidate), Verdict::Take);
    }
}

#[test]
fn a_rename_is_taken_after_a_breath_whatever_it_holds() {
    let mut candidate = Candidate {
        in_force: FILE,
        text: "short: 1",
        how: How::Atomic,
        stable: Duration::ZERO,
        pending: Duration::ZERO,
        writer_open: false,
    };
    assert_eq!(judge(&candidate), Verdict::Wait(ATOMIC_SETTLE));
    candidate.stable = ATOMIC_SETTLE;
    assert_eq!(judge(&candidate), Verdict::Take);
    candidate.stable = Duration::ZERO;
    candidate.pending = ATOMIC_PENDING_MAX;
    assert_eq!(
        judge(&candidate),
        Verdict::Take,
        "a stream of renames must not starve the last of them"
    );
}

#[test]
fn no_prefix_of_the_file_in_force_is_taken() {
    for (cut, _) in FILE.char_indices() {
        let verdict = in_place(&FILE[..cut], LONG);
        assert!(matches!(verdict, Verdict::Refuse(_)), "{cut}: {verdict:?}");
    }
}

#[test]
fn an_edited_value_is_taken_after_the_stable_time_anywhere_in_the_file() {
    for (from, to) in [
        ("weight: 95", "weight: 5"),
        ("weight: 0", "weight: 25"),
        ("connect: 1s", "connect: 1500ms"),
        ("weight: 9,", "weight: 19,"),
        ("weight: 1,", "weight: 0,"),
    ] {
        let text = FILE.replacen(from, to, 1);
        assert_ne!(text, FILE);
        assert_eq!(in_place(&text, STABLE / 4), Verdict::Wait(STABLE - STABLE / 4), "{to}");
        assert_eq!(in_place(&text, STABLE), Verdict::Take, "{to}");
    }
}

#[test]
fn lines_added_before_the_ending_are_taken_after_the_stable_time() {
    let text = FILE.replacen(
        "    fallback: stable\n",
        "    fallback: fail\n    expose_version: true\n",
        1,
    );
    assert_eq!(in_place(&text, STABLE), Verdict::Take);
}

#[test]
fn a_lost_name_or_address_waits_for_confirmation() {
    assert!(!differ_in_values("  - name: 1\n", "  - name: 2\n"));
    for (from, to) in [
        ("name: search", "name: find"),
        ("127.0.0.1:9003", "127.0.0.1:9004"),
        ("9202", "9203"),
    ] {
        let text = FILE.replacen(from, to, 1);
        assert_eq!(in_place(&text, STABLE), Verdict::Wait(CONFIRM - STABLE), "{to}");
        assert_eq!(in_place(&text, CONFIRM), Verdict::Take, "{to}");
    }
}

#[test]
fn a_block_removed_from_the_middle_is_taken_after_confirmation_and_one_from_the_end_is_refused() {
    let search = FILE.find("  - name: search").unwrap();
    let site = FILE.find("  - name: site").unwrap();
    let middle = format!("{}{}", &FILE[..search], &FILE[site..]);
    assert_eq!(in_place(&middle, STABLE), Verdict::Wait(CONFIRM - STABLE));
    assert_eq!(in_place(&middle, CONFIRM), Verdict::Take);
    let end = FILE[..site].replacen("weight: 95", "weight: 90", 1);
    assert_eq!(in_place(&end, LONG), Verdict::Refuse(Suspicion::Shorter));
}

#[test]
fn a_service_added_at_the_end_waits_for_confirmation() {
    let text = format!("{FILE}  - name: mail\n    versions: []\n");
    assert_eq!(in_place(&text, STABLE), Verdict::Wait(CONFIRM - STABLE));
    assert_eq!(in_place(&text, CONFIRM), Verdict::Take);
}

#[test]
fn a_writer_that_holds_the_file_open_is_waited_for() {
    let text = FILE.replacen("weight: 95", "weight: 90", 1);
    let mut candidate = Candidate {
        in_force: FILE,
        text: &text,
        how: How::InPlace,
        stable: STABLE,
        pending: STABLE,
        writer_open: true,
    };
    assert_eq!(judge(&candidate), Verdict::Wait(CONFIRM - STABLE));
    candidate.writer_open = false;
    assert_eq!(judge(&candidate), Verdict::Take);
}

#[test]
fn an_end_marker_once_in_force_is_required() {
    let marked = format!("{FILE}...\n");
    let grown = format!("{FILE}  - name: mail\n");
    assert_eq!(against(&marked, &grown, LONG), Verdict::Refuse(Suspicion::NoEndMarker));
    assert_eq!(against(&marked, &format!("{grown}...\n"), CONFIRM), Verdict::Take);
}

#[test]
fn an_unterminated_last_line_is_refused_where_it_was_terminated_or_longer() {
    let edited = FILE.replacen("weight: 95", "weight: 90", 1);
    assert_eq!(
        in_place(edited.trim_end(), LONG),
        Verdict::Refuse(Suspicion::Unterminated)
    );
    let (old, new) = ("a: 1\nweight: 50", "a: 2\nweight: 5");
    assert_eq!(against(old, new, LONG), Verdict::Refuse(Suspicion::Beginning));
}

#[test]
fn going_back_to_the_text_in_force_needs_no_more_than_rest() {
    assert_eq!(in_place(FILE, STABLE), Verdict::Take);
}

/// An edit of the file that does not touch its last lines: what a person changes in a file that is in force.
fn edits() -> impl Strategy<Value = String> {
    let weights = (0_u32..1000, 0_u32..1000, 0_u32..1000).prop_map(|(a, b, c)| {
        FILE.replacen("weight: 95", &format!("weight: {a}"), 1)
            .replacen("weight: 5\n", &format!("weight: {b}\n"), 1)
            .replacen("weight: 0", &format!("weight: {c}"), 1)
    });
    let rules = (1_usize..12, 0_usize..3).prop_map(|(count, after)| {
        let lines: String = (0..count)
            .map(|i| format!("      - {{ name: r{i}, when: {{ header: x-{i}, exists: true }}, version: v2 }}\n"))
            .collect();
        let at = FILE
            .match_indices("    fallback: stable\n")
            .nth(after.min(1))
            .unwrap()
            .0;
        format!("{}    rules:\n{lines}{}", &FILE[..at], &FILE[at..])
    });
    prop_oneof![
        weights.boxed(),
        rules.boxed(),
        Just(FILE.replacen("v2", "v3", 1)).boxed(),
        Just(FILE.replacen("127.0.0.1:9003", "127.0.0.1:9013", 1)).boxed(),
        Just(FILE.replacen("# the shop\n", "", 1)).boxed(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// PROMISES 3.2, for a writer that stops for ever at any byte of an edited file: at no byte is anything taken that
    /// lacks a name, an address or a line of the file in force.
    #[test]
    fn no_prefix_of_an_edited_file_that_lost_something_is_taken(new in edits()) {
        for (cut, _) in new.char_indices() {
            let prefix = &new[..cut];
            let taken = against(FILE, prefix, LONG) == Verdict::Take;
            let comparison = Comparison::of(FILE, prefix);
            prop_assert!(!taken || !(comparison.fewer_names || comparison.fewer_lines), "cut at {cut}:\n{prefix}");
        }
        prop_assert_eq!(against(FILE, &new, CONFIRM), Verdict::Take);
    }

    /// The same for edits that add no lines, without any exception.
    #[test]
    fn no_prefix_of_a_file_with_other_weights_is_ever_taken(a in 0_u32..1000, b in 0_u32..1000, c in 0_u32..1000) {
        let new = FILE.replacen("weight: 95", &format!("weight: {a}"), 1)
            .replacen("weight: 100", &format!("weight: {b}"), 1)
            .replacen("weight: 9,", &format!("weight: {c},"), 1);
        for (cut, _) in new.char_indices() {
            prop_assert!(matches!(against(FILE, &new[..cut], LONG), Verdict::Refuse(_)), "cut at {cut}");
        }
        prop_assert_eq!(against(FILE, &new, STABLE), Verdict::Take);
    }

    #[test]
    fn any_pair_of_texts_gets_a_verdict_and_waits_end(old in "[a-c:\n .]{0,40}", new in "[a-c:\n .]{0,40}") {
        let verdict = against(&old, &new, LONG);
        prop_assert!(!matches!(verdict, Verdict::Wait(_)));
    }

    #[test]
    fn endings_are_what_a_plain_comparison_finds(old in prop::collection::vec("[ab]", 0..12), new in prop::collection::vec("[ab]", 0..12)) {
        let (old, new): (Vec<&str>, Vec<&str>) = (old.iter().map(String::as_str).collect(), new.iter().map(String::as_str).collect());
        let common = |a: &[&str], b: &[&str]| a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
        let elsewhere = (0..old.len()).map(|end| common(&old[..end], &new)).max().unwrap_or(0);
        prop_assert_eq!(endings(&old, &new), (common(&old, &new), elsewhere));
    }
}
