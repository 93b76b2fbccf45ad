//! Text -> a tree of nodes, each with its line and column. All that a hostile file can do is bounded here: its size, its
//! nodes and text after aliases are expanded, and its depth.

use super::problem::{MAX_PROBLEMS, Path, Problem, printable, printable_up_to};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle};
use std::collections::HashMap;
use std::rc::Rc;

/// Bytes of a file.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// Nodes of a file, those of expanded aliases included.
pub const MAX_NODES: usize = 250_000;
/// Bytes of all scalars, those of expanded aliases included.
pub const MAX_TEXT_BYTES: usize = 4 << 20;
/// Mappings and sequences inside each other.
pub const MAX_DEPTH: usize = 64;

/// A value and where it begins.
#[derive(Debug, Clone)]
pub struct Node {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub enum Value {
    /// `~`, `null` or nothing at all.
    Null,
    /// `plain`: written without quotes, so that `true` may be a boolean and `5` a number.
    Scalar {
        text: Rc<str>,
        plain: bool,
    },
    Sequence(Vec<Node>),
    /// In the order of the file; keys are unique.
    Mapping(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone)]
pub struct Entry {
    pub key: Rc<str>,
    pub line: usize,
    pub column: usize,
    pub node: Node,
}

impl Node {
    /// A value nobody wrote: the text of a default. `[]`, `{}` and `[a, b]` are understood.
    pub fn of_default(text: &str) -> Self {
        let plain = |text: &str| Value::Scalar {
            text: text.into(),
            plain: true,
        };
        let at_start = |value| Node {
            line: 1,
            column: 1,
            value,
        };
        at_start(match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
            Some("") => Value::Sequence(Vec::new()),
            Some(list) => Value::Sequence(list.split(", ").map(|item| at_start(plain(item))).collect()),
            None if text == "{}" => Value::Mapping(Vec::new()),
            None => plain(text),
        })
    }

    /// What kind of value this is, for `expected ..., found ...`.
    pub fn found(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Scalar { text, plain: true } => format!("`{}`", printable(text)),
            Value::Scalar { text, plain: false } => format!("the string \"{}\"", printable(text)),
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
        }
    }
}

/// The tree of the one document in `text`, with the keys that are written twice: of those, the first value stays.
///
/// # Errors
/// The first of: too large, empty, a control character, not YAML, more than one document, a tag, a key that is not a
/// single word, too deep, or more nodes or text than the bound.
pub fn parse(text: &str) -> Result<(Node, Vec<Problem>), Problem> {
    if text.len() > MAX_FILE_BYTES {
        return Err(problem(1, 1, too_large(text.len() as u64)));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(control) = first_control_character(text) {
        return Err(control);
    }
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => builder.accept(event, span.start)?,
            Err(error) => {
                let (line, column) = place(*error.marker());
                let message = format!("not valid YAML: {}", printable_up_to(error.info(), 200));
                return Err(problem(line, column, message));
            }
        }
    }
    match builder.root {
        Some(Node { value: Value::Null, .. }) | None => Err(problem(
            1,
            1,
            "the file is empty: at least `listeners` and `services` are needed".to_owned(),
        )),
        Some(root) => Ok((root, builder.duplicates)),
    }
}

/// What is said of a file over the limit.
pub fn too_large(bytes: u64) -> String {
    format!("the file is too large: {bytes} bytes, at most {MAX_FILE_BYTES} are read")
}

fn problem(line: usize, column: usize, message: String) -> Problem {
    Problem {
        path: String::new(),
        line,
        column,
        message,
        suggestion: None,
    }
}

fn place(marker: Marker) -> (usize, usize) {
    (marker.line().max(1), marker.col() + 1)
}

/// YAML 1.2 section 5.1 allows no control characters but tab and line breaks; a NUL would end the text unseen.
fn first_control_character(text: &str) -> Option<Problem> {
    for (index, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let found = line
            .chars()
            .enumerate()
            .find(|(_, c)| matches!(c, '\0'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}'));
        if let Some((column, c)) = found {
            let message = format!(
                "the file is not text: it holds the control character U+{:04X}",
                u32::from(c)
            );
            return Some(problem(index + 1, column + 1, message));
        }
    }
    None
}

/// A mapping or sequence that is still open.
struct Open {
    anchor: usize,
    line: usize,
    column: usize,
    /// Nodes and bytes of text counted when it began.
    counted_before: (usize, usize),
    content: Content,
}

enum Content {
    Sequence(Vec<Node>),
    Mapping {
        entries: Vec<Entry>,
        /// Where each key stands in the file.
        lines: HashMap<Rc<str>, usize>,
        /// A key that waits for its value.
        key: Option<Key>,
    },
}

struct Key {
    text: Rc<str>,
    line: usize,
    column: usize,
    /// The line of the same key before, when there is one.
    first: Option<usize>,
}

/// An anchored node, and what an alias to it costs.
struct Anchored {
    node: Node,
    nodes: usize,
    bytes: usize,
    depth: usize,
}

#[derive(Default)]
struct Builder {
    stack: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    root: Option<Node>,
    documents: usize,
    nodes: usize,
    bytes: usize,
    duplicates: Vec<Problem>,
}

impl Builder {
    fn accept(&mut self, event: Event<'_>, marker: Marker) -> Result<(), Problem> {
        let (line, column) = place(marker);
        let fail = |message: &str| Err(problem(line, column, message.to_owned()));
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return fail("a second document begins here: the file must hold one");
                }
                Ok(())
            }
            Event::Scalar(_, _, _, Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                fail("tags (`!...`) have no meaning in this file; a value that begins with `!` needs quotes")
            }
            Event::Scalar(text, style, anchor, None) => {
                self.count(1, text.len(), line, column)?;
                let plain = style == ScalarStyle::Plain;
                let value = match &*text {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
                    _ => Value::Scalar {
                        text: text.as_ref().into(),
                        plain,
                    },
                };
                if anchor > 0 {
                    let before = (self.nodes.saturating_sub(1), self.bytes.saturating_sub(text.len()));
                    let value = value.clone();
                    self.keep_anchor(anchor, Node { line, column, value }, before)?;
                }
                self.place_node(Node { line, column, value })
            }
            Event::SequenceStart(anchor, None) => self.open(anchor, line, column, Content::Sequence(Vec::new())),
            Event::MappingStart(anchor, None) => self.open(
                anchor,
                line,
                column,
                Content::Mapping {
                    entries: Vec::new(),
                    lines: HashMap::new(),
                    key: None,
                },
            ),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.expand(anchor, line, column),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn count(&mut self, nodes: usize, bytes: usize, line: usize, column: usize) -> Result<(), Problem> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.bytes = self.bytes.saturating_add(bytes);
        let message = if self.nodes > MAX_NODES {
            format!("the file holds more than {MAX_NODES} values (aliases count as what they stand for)")
        } else if self.bytes > MAX_TEXT_BYTES {
            format!("the file holds more than {MAX_TEXT_BYTES} bytes of text (aliases count as what they stand for)")
        } else {
            return Ok(());
        };
        Err(problem(line, column, message))
    }

    fn open(&mut self, anchor: usize, line: usize, column: usize, content: Content) -> Result<(), Problem> {
        let counted_before = (self.nodes, self.bytes);
        self.count(1, 0, line, column)?;
        if self.stack.len() >= MAX_DEPTH {
            return Err(problem(line, column, too_deep()));
        }
        if let Some(Open {
            content: Content::Mapping { key: None, .. },
            ..
        }) = self.stack.last()
        {
            return Err(problem(
                line,
                column,
                "a key must be a single word, not a list or mapping".to_owned(),
            ));
        }
        self.stack.push(Open {
            anchor,
            line,
            column,
            counted_before,
            content,
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Problem> {
        let Some(open) = self.stack.pop() else { return Ok(()) };
        let value = match open.content {
            Content::Sequence(nodes) => Value::Sequence(nodes),
            Content::Mapping { entries, .. } => Value::Mapping(entries),
        };
        let node = Node {
            line: open.line,
            column: open.column,
            value,
        };
        if open.anchor > 0 {
            self.keep_anchor(open.anchor, node.clone(), open.counted_before)?;
        }
        self.place_node(node)
    }

    /// Keeps a copy for aliases. The copy is counted like what it copies: anchors inside anchors must not multiply memory.
    fn keep_anchor(&mut self, anchor: usize, node: Node, before: (usize, usize)) -> Result<(), Problem> {
        let nodes = self.nodes.saturating_sub(before.0).max(1);
        let bytes = self.bytes.saturating_sub(before.1);
        self.count(nodes, 0, node.line, node.column)?;
        let depth = depth_of(&node);
        let anchored = Anchored {
            node,
            nodes,
            bytes,
            depth,
        };
        self.anchors.insert(anchor, anchored);
        Ok(())
    }

    fn expand(&mut self, anchor: usize, line: usize, column: usize) -> Result<(), Problem> {
        let Some(anchored) = self.anchors.get(&anchor) else {
            let message = "an alias to a value that contains it".to_owned();
            return Err(problem(line, column, message));
        };
        if self.stack.len() + anchored.depth > MAX_DEPTH {
            return Err(problem(line, column, too_deep()));
        }
        let (nodes, bytes) = (anchored.nodes, anchored.bytes);
        self.count(nodes, bytes, line, column)?;
        let node = self.anchors.get(&anchor).map(|anchored| anchored.node.clone());
        match node {
            Some(node) => self.place_node(node),
            None => Ok(()),
        }
    }

    /// Puts a finished node where it belongs: the root, a sequence, or a mapping's key or value.
    fn place_node(&mut self, node: Node) -> Result<(), Problem> {
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.content {
            Content::Sequence(nodes) => nodes.push(node),
            Content::Mapping { entries, lines, key } => match key.take() {
                Some(key) if key.first.is_some() => {}
                Some(key) => entries.push(Entry {
                    key: key.text,
                    line: key.line,
                    column: key.column,
                    node,
                }),
                None => {
                    let (line, column) = (node.line, node.column);
                    let Value::Scalar { text, .. } = node.value else {
                        return Err(problem(line, column, "a key must be a single word".to_owned()));
                    };
                    let first = lines.get(&text).copied();
                    lines.entry(text.clone()).or_insert(line);
                    *key = Some(Key {
                        text,
                        line,
                        column,
                        first,
                    });
                    self.report_duplicate();
                }
            },
        }
        Ok(())
    }

    /// Notes the key just placed, if it is there twice.
    fn report_duplicate(&mut self) {
        let Some(Open {
            content: Content::Mapping { key: Some(key), .. },
            ..
        }) = self.stack.last()
        else {
            return;
        };
        let Some(first) = key.first else { return };
        if self.duplicates.len() >= MAX_PROBLEMS {
            return;
        }
        let mut path = String::new();
        for open in &self.stack {
            match &open.content {
                Content::Sequence(nodes) => Path::ROOT.index(nodes.len()).extend(&mut path),
                Content::Mapping { key: Some(key), .. } => Path::ROOT.key(&key.text).extend(&mut path),
                Content::Mapping { key: None, .. } => {}
            }
        }
        let line = key.line;
        let message = format!(
            "the key `{}` is written twice: first on line {first}, again on line {line}",
            printable(&key.text)
        );
        let problem = Problem {
            path,
            ..problem(line, key.column, message)
        };
        self.duplicates.push(problem);
    }
}

fn too_deep() -> String {
    format!("nested deeper than {MAX_DEPTH} levels")
}

/// Levels of mappings and sequences. The recursion is bounded by [`MAX_DEPTH`], which is checked before a node is built.
fn depth_of(node: &Node) -> usize {
    let inner = match &node.value {
        Value::Null | Value::Scalar { .. } => return 0,
        Value::Sequence(nodes) => nodes.iter().map(depth_of).max(),
        Value::Mapping(entries) => entries.iter().map(|entry| depth_of(&entry.node)).max(),
    };
    inner.unwrap_or(0) + 1
}
