//! No input panics. (That none takes long is in `tests/config_limits.rs`: there is no clock in this room.)

use super::*;
use crate::config::parse_bytes;
use crate::config::yaml::{self, Node, Value};
use proptest::prelude::*;

#[test]
fn no_byte_prefix_of_the_full_example_panics_or_means_something_nobody_wrote() {
    let whole = valid(FULL);
    for end in 0..FULL.len() {
        // A cut between the bytes of a character is not text; the others may be valid, when what is left is whole.
        if let Ok(snapshot) = parse_bytes(&FULL.as_bytes()[..end], Path::new("/etc/rollgate")) {
            assert_eq!(snapshot.listeners, whole.listeners);
        }
    }
}

/// Where each key of a tree stands: byte ranges of the values cannot be known from the tree, so keys are edited in it.
fn each_key(node: &Node, edit: &mut dyn FnMut(&[usize])) {
    fn walk(node: &Node, at: &mut Vec<usize>, edit: &mut dyn FnMut(&[usize])) {
        let children: Vec<&Node> = match &node.value {
            Value::Mapping(entries) => entries.iter().map(|entry| &entry.node).collect(),
            Value::Sequence(nodes) => nodes.iter().collect(),
            _ => return,
        };
        for (index, child) in children.into_iter().enumerate() {
            at.push(index);
            edit(at);
            walk(child, at, edit);
            at.pop();
        }
    }
    walk(node, &mut Vec::new(), edit);
}

fn child_mut(node: &mut Node, index: usize) -> &mut Node {
    match &mut node.value {
        Value::Mapping(entries) => &mut entries[index].node,
        Value::Sequence(nodes) => &mut nodes[index],
        _ => panic!("no children"),
    }
}

fn edited(tree: &Node, at: &[usize], value: Option<Value>) -> Node {
    let mut tree = tree.clone();
    let (last, above) = at.split_last().unwrap();
    let parent = above.iter().fold(&mut tree, |node, index| child_mut(node, *index));
    match (value, &mut parent.value) {
        (Some(value), _) => child_mut(parent, *last).value = value,
        (None, Value::Mapping(entries)) => drop(entries.remove(*last)),
        (None, Value::Sequence(nodes)) => drop(nodes.remove(*last)),
        _ => panic!("no children"),
    }
    tree
}

/// YAML of a tree, in flow style.
fn written(node: &Node) -> String {
    match &node.value {
        Value::Null => String::new(),
        Value::Scalar { text, plain: true } => format!("{text} "),
        Value::Scalar { text, plain: false } => serde_json::to_string(&**text).unwrap(),
        Value::Sequence(nodes) => {
            let items: Vec<String> = nodes
                .iter()
                .map(|n| {
                    if matches!(n.value, Value::Null) {
                        "~".to_owned()
                    } else {
                        written(n)
                    }
                })
                .collect();
            format!("[{}]", items.join(", "))
        }
        Value::Mapping(entries) => {
            let items: Vec<String> = entries
                .iter()
                .map(|entry| format!("\"{}\": {}", entry.key, written(&entry.node)))
                .collect();
            format!("{{{}}}", items.join(", "))
        }
    }
}

#[test]
fn null_blank_missing_and_wrong_for_every_key() {
    let tree = yaml::parse(FULL).unwrap().0;
    assert!(parsed(&written(&tree)).is_ok(), "{}", written(&tree));
    let scalar = |text: &str, plain| Value::Scalar {
        text: text.into(),
        plain,
    };
    let mut keys = 0;
    each_key(&tree, &mut |at| {
        keys += 1;
        let problems = |value: Option<Value>| parsed(&written(&edited(&tree, at, value))).err();
        // Null, as nothing and as `~`: always an error that says where.
        for null in [Value::Null, scalar("~", true)] {
            let problems = problems(Some(null)).unwrap_or_else(|| panic!("null is accepted at {at:?}"));
            assert!(
                problems
                    .iter()
                    .all(|problem| problem.line >= 1 && !problem.message.is_empty())
            );
            assert!(problems.iter().any(|problem| !problem.path.is_empty()));
        }
        // Absent: a default or an error. Everything else: no panic.
        let _ = problems(None);
        for text in ["", "NaN", "\u{202e}", "["] {
            let _ = problems(Some(scalar(text, false)));
        }
        for text in ["-1", "99999999999999999999", "x", "0%"] {
            let _ = problems(Some(scalar(text, true)));
        }
        let _ = problems(Some(Value::Sequence(Vec::new())));
        let _ = problems(Some(Value::Mapping(Vec::new())));
        let nested = Node {
            line: 1,
            column: 1,
            value: Value::Sequence(Vec::new()),
        };
        let _ = problems(Some(Value::Sequence(vec![nested])));
    });
    assert!(keys > 150, "{keys}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_bytes(&bytes, Path::new(""));
    }

    #[test]
    fn the_alphabet_of_yaml_never_panics(text in "[-\\[\\]{}:,?&*!|>'\"%@` \t\n#a~1.<]{0,60}") {
        let _ = parsed(&text);
    }

    #[test]
    fn the_words_of_the_schema_in_any_order_never_panic(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "listeners:", "services:", "- ", "name:", "versions:", "pool:", "{", "}", "[", "]", ",", "\n", "\n  ", "\n    ",
                "endpoints:", "\"127.0.0.1:1\"", "segments:", "any:", "not:", "segment:", "a:", "a", "&a ", "*a", "1", "100%",
                "rules:", "when:", "header:", "equals:", "split:", "weight:", "|", "~", "!!str", "<<:", "? ", "---\n", "...\n",
                "'", "\"", "# ", "\u{2028}", "\u{85}",
            ]),
            0..60,
        )
    ) {
        let _ = parsed(&words.concat());
    }
}

proptest! {
    #[test]
    fn mutations_of_the_full_example_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, "[-\\[\\]{}:,?&*!|>'\"% \n#a0]{0,3}"), 1..6)
    ) {
        let mut bytes = FULL.as_bytes().to_vec();
        for (at, removed, inserted) in edits {
            let at = at.index(bytes.len());
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, inserted.into_bytes());
        }
        let problems = parse_bytes(&bytes, Path::new(""));
        if let Err(problems) = problems {
            prop_assert!(!problems.is_empty());
            let lines = bytes.iter().filter(|b| **b == b'\n').count() + 1;
            for problem in problems {
                prop_assert!((1..=lines + 1).contains(&problem.line), "{problem}");
                prop_assert!(!problem.to_string().contains('\n'));
            }
        }
    }
}
