//! Nodes -> values, collecting every problem: the trait [`Decode`], the containers of the schema, and the two macros
//! from which the schema's types, their decoding and their reference all come.
//!
//! A type of the schema is built whenever its node has the right shape, also when something in it is wrong: what is
//! wrong has been reported, and is then absent ([`Required`] holds nothing, a [`List`] has a hole). So the checks of
//! meaning that follow can say what else is wrong.

use super::problem::{Path, Problems, nearest, one_of, printable};
use super::yaml::{Entry, Node, Value};

/// A value of the file.
pub trait Decode: Sized {
    /// The value of `node`; `None` when it is wrong, which is then among `problems`.
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self>;

    /// What the reference says of values of this type: `duration`, `list of ...`.
    fn kind() -> String;

    /// Adds the sections of the reference that describe this type, as found at `place`.
    fn describe(_place: &str, _sections: &mut Vec<Section>) {}
}

/// A field of a mapping: what holds when its key is absent or wrong.
pub trait Field: Sized {
    /// The value for an absent key, `None` when the key must be there.
    fn absent() -> Option<Self>;
    /// The value that stands in for a wrong one.
    fn wrong() -> Self;
    fn of(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self>;
    fn kind() -> String;
    fn describe(place: &str, sections: &mut Vec<Section>);
    fn is_required() -> bool;
}

/// One key of the reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub key: &'static str,
    pub kind: String,
    pub required: bool,
    /// As it would be written in the file.
    pub default: Option<&'static str>,
    pub doc: String,
}

/// One mapping of the reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// `services[].versions[]`
    pub place: String,
    pub doc: String,
    pub rows: Vec<Row>,
}

/// A key that must be there. Empty only when its problem has been reported.
#[derive(Debug, Clone, PartialEq)]
pub struct Required<T>(Option<T>);

impl<T> Required<T> {
    pub fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

impl<T: Decode> Field for Required<T> {
    fn absent() -> Option<Self> {
        None
    }
    fn wrong() -> Self {
        Self(None)
    }
    fn of(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        T::decode(node, path, problems).map(|value| Self(Some(value)))
    }
    fn kind() -> String {
        T::kind()
    }
    fn describe(place: &str, sections: &mut Vec<Section>) {
        T::describe(place, sections);
    }
    fn is_required() -> bool {
        true
    }
}

impl<T: Decode> Field for Option<T> {
    fn absent() -> Option<Self> {
        Some(None)
    }
    fn wrong() -> Self {
        None
    }
    fn of(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        T::decode(node, path, problems).map(Some)
    }
    fn kind() -> String {
        T::kind()
    }
    fn describe(place: &str, sections: &mut Vec<Section>) {
        T::describe(place, sections);
    }
    fn is_required() -> bool {
        false
    }
}

/// A list. Elements that are wrong have been reported and are left out; the others keep their positions.
#[derive(Debug, Clone, PartialEq)]
pub struct List<T>(Vec<Option<T>>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> List<T> {
    /// The elements that are right, with their positions.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.0
            .iter()
            .enumerate()
            .filter_map(|(index, item)| item.as_ref().map(|item| (index, item)))
    }

    /// Every element through `compile`, which reports what is wrong; `None` when any is.
    pub fn compile<U>(&self, mut compile: impl FnMut(usize, &T) -> Option<U>) -> Option<Box<[U]>> {
        let compiled: Vec<Option<U>> = self
            .0
            .iter()
            .enumerate()
            .map(|(index, item)| item.as_ref().and_then(|item| compile(index, item)))
            .collect();
        compiled.into_iter().collect()
    }

    /// How many elements the file has, wrong ones included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether no element is wrong.
    pub fn is_complete(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }
}

impl<T: Decode> Decode for List<T> {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        let Value::Sequence(nodes) = &node.value else {
            expected(node, path, problems, &a(&Self::kind()));
            return None;
        };
        let item = |(index, node): (usize, &Node)| {
            let path = path.index(index);
            if matches!(node.value, Value::Null) {
                problems.add(&path, format!("an empty entry: expected {}", a(&T::kind())));
                return None;
            }
            T::decode(node, &path, problems)
        };
        Some(Self(nodes.iter().enumerate().map(item).collect()))
    }

    fn kind() -> String {
        let kind = T::kind();
        let plural = if kind.ends_with(|c: char| c.is_ascii_alphabetic()) {
            "s"
        } else {
            ""
        };
        format!("list of {kind}{plural}")
    }

    fn describe(place: &str, sections: &mut Vec<Section>) {
        T::describe(&format!("{place}[]"), sections);
    }
}

/// A mapping whose keys are names the user gives, in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Map<T>(Vec<(String, Option<T>)>);

impl<T> Map<T> {
    /// Names and values; `None` for a value that is wrong.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&T>)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_ref()))
    }

    /// How many names the file has.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<T: Decode> Decode for Map<T> {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        let Value::Mapping(entries) = &node.value else {
            expected(node, path, problems, &a(&Self::kind()));
            return None;
        };
        let item = |entry: &Entry| {
            let path = path.key(&entry.key);
            let value = value_of(entry, &path, problems, &T::kind()).and_then(|node| T::decode(node, &path, problems));
            (entry.key.to_string(), value)
        };
        Some(Self(entries.iter().map(item).collect()))
    }

    fn kind() -> String {
        format!("mapping of name to {}", T::kind())
    }

    fn describe(place: &str, sections: &mut Vec<Section>) {
        T::describe(&format!("{place}.<name>"), sections);
    }
}

/// A kind with its article; words in backticks have none.
pub fn a(kind: &str) -> String {
    match kind.chars().next() {
        Some('a' | 'e' | 'i' | 'o' | 'u') => format!("an {kind}"),
        Some('`') | None => kind.to_owned(),
        Some(_) => format!("a {kind}"),
    }
}

/// Reports `expected ..., found ...`.
pub fn expected(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>, what: &str) {
    expected_with(node, path, problems, what, None);
}

/// Reports `expected ..., found ...`, and what may have been meant.
pub fn expected_with(
    node: &Node,
    path: &Path<'_>,
    problems: &mut Problems<'_>,
    what: &str,
    suggestion: Option<String>,
) {
    problems.add_with(path, format!("expected {what}, found {}", node.found()), suggestion);
}

/// The value of an entry; a problem that names the key when there is nothing.
fn value_of<'n>(entry: &'n Entry, path: &Path<'_>, problems: &mut Problems<'_>, kind: &str) -> Option<&'n Node> {
    if matches!(entry.node.value, Value::Null) {
        let message = format!(
            "`{}` has no value: expected {}, or the key left out",
            printable(&entry.key),
            a(kind)
        );
        problems.add_key(path, message, None);
        return None;
    }
    Some(&entry.node)
}

/// The entries of a mapping while its fields are taken.
pub struct Fields<'n> {
    entries: &'n [Entry],
    /// Keys that unknown ones were taken for: that they are missing too needs no saying.
    meant: Vec<String>,
}

impl<'n> Fields<'n> {
    /// The fields of `node`, with unknown keys reported; `None` when it is no mapping.
    pub fn open(
        node: &'n Node,
        path: &Path<'_>,
        problems: &mut Problems<'_>,
        kind: &str,
        keys: &[&'static str],
    ) -> Option<Self> {
        let Value::Mapping(entries) = &node.value else {
            expected(node, path, problems, &format!("a mapping ({kind})"));
            return None;
        };
        let mut meant = Vec::new();
        for entry in entries {
            let unknown = !keys.contains(&&*entry.key);
            if unknown && !problems.is_full() {
                let suggestion = nearest(&entry.key, keys.iter().copied());
                meant.extend(suggestion.clone());
                let message = if &*entry.key == "<<" {
                    "merge keys (`<<`) are not part of YAML 1.2".to_owned()
                } else {
                    format!("unknown key: expected {}", one_of(keys.iter().copied()))
                };
                problems.add_key(&path.key(&entry.key), message, suggestion);
            } else if unknown {
                problems.add(path, "unknown key");
            }
        }
        Some(Self { entries, meant })
    }

    /// The keys of the mapping, in the order of the file.
    pub fn keys(&self) -> impl Iterator<Item = &'n str> {
        self.entries.iter().map(|entry| &*entry.key)
    }

    /// The field under `key`, which has no default.
    pub fn take<F: Field>(&self, key: &'static str, path: &Path<'_>, problems: &mut Problems<'_>) -> F {
        let here = path.key(key);
        let Some(entry) = self.entries.iter().find(|entry| &*entry.key == key) else {
            return F::absent().unwrap_or_else(|| {
                if !self.meant.iter().any(|meant| meant == key) {
                    problems.add(path, format!("`{key}` is missing: expected {}", a(&F::kind())));
                }
                F::wrong()
            });
        };
        value_of(entry, &here, problems, &F::kind())
            .and_then(|node| F::of(node, &here, problems))
            .unwrap_or_else(F::wrong)
    }

    /// The field under `key`, or its default, which also stands in for a wrong one. `None` (with a problem) only for a
    /// default that is itself wrong, which a test excludes.
    pub fn take_or<T: Decode>(
        &self,
        key: &'static str,
        default: &'static str,
        path: &Path<'_>,
        problems: &mut Problems<'_>,
    ) -> Option<T> {
        let here = path.key(key);
        let written = self.entries.iter().find(|entry| &*entry.key == key).and_then(|entry| {
            let node = value_of(entry, &here, problems, &T::kind())?;
            T::decode(node, &here, problems)
        });
        written.or_else(|| T::decode(&Node::of_default(default), &here, problems))
    }
}

/// `r#for` is the key `for`.
pub fn key_of(ident: &'static str) -> &'static str {
    ident.strip_prefix("r#").unwrap_or(ident)
}

/// The lines of a doc comment as one paragraph.
pub fn paragraph(lines: &[&str]) -> String {
    let trimmed: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    trimmed.join(" ").trim().to_owned()
}

/// From the definition of a mapping with its doc comments and defaults: the type, its decoding, its reference.
/// A field is `Required<T>`, `Option<T>`, or any `T` with the text of its default.
macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])*
        $Name:ident as $kind:literal {
            $( $(#[doc = $field_doc:literal])* $field:ident : $Type:ty $(= $default:literal)? , )*
        }
    )*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $Name {
            $( $(#[doc = $field_doc])* pub $field: settings!(@type $Type $(= $default)?), )*
        }

        impl $crate::config::decode::Decode for $Name {
            fn decode(
                node: &$crate::config::yaml::Node,
                path: &$crate::config::problem::Path<'_>,
                problems: &mut $crate::config::problem::Problems<'_>,
            ) -> Option<Self> {
                let keys = [$($crate::config::decode::key_of(stringify!($field))),*];
                let fields = $crate::config::decode::Fields::open(node, path, problems, $kind, &keys)?;
                Some(Self {
                    $( $field: settings!(@take fields, $field, path, problems, $Type $(= $default)?), )*
                })
            }

            fn kind() -> String {
                $kind.to_owned()
            }

            fn describe(place: &str, sections: &mut Vec<$crate::config::decode::Section>) {
                let rows = vec![$( $crate::config::decode::Row {
                    key: $crate::config::decode::key_of(stringify!($field)),
                    kind: settings!(@kind $Type $(= $default)?),
                    required: settings!(@required $Type $(= $default)?),
                    default: settings!(@default $($default)?),
                    doc: $crate::config::decode::paragraph(&[$($field_doc),*]),
                }, )*];
                let doc = $crate::config::decode::paragraph(&[$($doc),*]);
                sections.push($crate::config::decode::Section { place: place.to_owned(), doc, rows });
                $( settings!(@describe place, sections, $field, $Type $(= $default)?); )*
            }
        }
    )*};
    (@type $Type:ty = $default:literal) => { $Type };
    (@type $Type:ty) => { $Type };
    (@take $fields:ident, $field:ident, $path:ident, $problems:ident, $Type:ty = $default:literal) => {
        $fields.take_or::<$Type>($crate::config::decode::key_of(stringify!($field)), $default, $path, $problems)?
    };
    (@take $fields:ident, $field:ident, $path:ident, $problems:ident, $Type:ty) => {
        $fields.take::<$Type>($crate::config::decode::key_of(stringify!($field)), $path, $problems)
    };
    (@kind $Type:ty = $default:literal) => { <$Type as $crate::config::decode::Decode>::kind() };
    (@kind $Type:ty) => { <$Type as $crate::config::decode::Field>::kind() };
    (@required $Type:ty = $default:literal) => { false };
    (@required $Type:ty) => { <$Type as $crate::config::decode::Field>::is_required() };
    (@default) => { None };
    (@default $default:literal) => { Some($default) };
    (@describe $place:ident, $sections:ident, $field:ident, $Type:ty = $default:literal) => {
        <$Type as $crate::config::decode::Decode>::describe(
            &$crate::config::decode::join($place, $crate::config::decode::key_of(stringify!($field))),
            $sections,
        )
    };
    (@describe $place:ident, $sections:ident, $field:ident, $Type:ty) => {
        <$Type as $crate::config::decode::Field>::describe(
            &$crate::config::decode::join($place, $crate::config::decode::key_of(stringify!($field))),
            $sections,
        )
    };
}

/// From the words a key may have: the type, its decoding, its reference.
macro_rules! words {
    ($(
        $(#[doc = $doc:literal])*
        $Name:ident { $( $Word:ident = $text:literal, )* }
    )*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $Name { $($Word),* }

        impl $Name {
            const WORDS: &'static [&'static str] = &[$($text),*];
        }

        impl $crate::config::decode::Decode for $Name {
            fn decode(
                node: &$crate::config::yaml::Node,
                path: &$crate::config::problem::Path<'_>,
                problems: &mut $crate::config::problem::Problems<'_>,
            ) -> Option<Self> {
                let word = $crate::config::decode::word(node, path, problems, Self::WORDS)?;
                $( if word == $text { return Some(Self::$Word); } )*
                None
            }

            fn kind() -> String {
                $crate::config::problem::one_of(Self::WORDS.iter().copied())
            }
        }
    )*};
}

pub(super) use {settings, words};

/// The place of `key` below `place`.
pub fn join(place: &str, key: &str) -> String {
    if place.is_empty() {
        key.to_owned()
    } else {
        format!("{place}.{key}")
    }
}

/// The one of `words` that `node` is; else a problem.
pub fn word(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>, words: &[&'static str]) -> Option<&'static str> {
    let typed = match &node.value {
        Value::Scalar { text, .. } => Some(&**text),
        _ => None,
    };
    let known = typed.and_then(|typed| words.iter().find(|word| **word == typed).copied());
    if known.is_none() {
        let suggestion = typed.and_then(|typed| nearest(typed, words.iter().copied()));
        expected_with(node, path, problems, &one_of(words.iter().copied()), suggestion);
    }
    known
}
