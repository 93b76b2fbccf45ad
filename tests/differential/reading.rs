//! The reference: what a stream of bytes says by the letter of RFC 9110 and 9112, and of the choices written down in
//! `rollgate::http1`. It reads whole streams with regular expressions and shares no code with what it judges.

use regex::bytes::Regex;
use std::fmt;
use std::net::Ipv6Addr;
use std::sync::LazyLock;

/// A name in lower case, and a value without white space around it.
pub type Field = (String, Vec<u8>);

/// A request as it is meant, or an answer: what they share.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Of a request: `GET`.
    pub method: String,
    /// Of a request: in origin-form or `*`.
    pub target: String,
    /// Of a request: the authority that counts.
    pub host: String,
    /// Of an answer.
    pub status: u16,
    pub minor: u8,
    pub fields: Vec<Field>,
    pub body: Vec<u8>,
    pub trailers: Vec<Field>,
    pub chunked: bool,
    /// The connection goes on behind it.
    pub keep_alive: bool,
    /// Bytes on the wire, head and body.
    pub len: usize,
    /// Bytes of the head.
    pub head_len: usize,
}

/// Fields and body as text.
pub fn show(f: &mut fmt::Formatter<'_>, fields: &[Field], body: &[u8]) -> fmt::Result {
    for (name, value) in fields {
        write!(f, "; {name}: {}", value.escape_ascii())?;
    }
    let cut = &body[..body.len().min(200)];
    write!(f, "; {} bytes: {}", body.len(), cut.escape_ascii())
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            0 => write!(f, "{} {} at {}", self.method, self.target, self.host)?,
            status => write!(f, "{status}")?,
        }
        show(f, &self.fields, &self.body)?;
        write!(f, "; trailers {}; keep alive: {}", self.trailers.len(), self.keep_alive)
    }
}

impl Message {
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, v)| v.as_slice())
    }

    /// The elements of `Connection`, in lower case.
    pub fn options(&self) -> Vec<String> {
        let all = self.values("connection").flat_map(|v| v.split(|&b| b == b','));
        let text = |option: &[u8]| String::from_utf8_lossy(option.trim_ascii()).to_ascii_lowercase();
        all.map(text).filter(|option| !option.is_empty()).collect()
    }
}

/// How a stream ends behind its last good message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// At the end of a message.
    Clean,
    /// The last message closes the connection: the rest is not read.
    Closed,
    /// Within a message that is good so far.
    Incomplete,
    /// In what must be refused.
    Malformed(&'static str),
}

/// The good messages of a stream, and what follows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    pub messages: Vec<Message>,
    pub end: End,
}

impl Reading {
    /// The methods of what is answered: those of the messages in `bytes`, and HEAD if what could not be read begins so.
    pub fn methods(&self, bytes: &[u8]) -> Vec<&str> {
        let mut methods: Vec<&str> = self.messages.iter().map(|message| message.method.as_str()).collect();
        let at = self.messages.iter().map(|message| message.len).sum::<usize>();
        let rest = bytes.get(at..).unwrap_or_default();
        if rest.strip_prefix(b"\r\n").unwrap_or(rest).starts_with(b"HEAD ") {
            methods.push("HEAD");
        }
        methods
    }
}

/// Why no message was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Incomplete,
    Malformed(&'static str),
}

type Read<T> = Result<T, Stop>;

fn bad<T>(why: &'static str) -> Read<T> {
    Err(Stop::Malformed(why))
}

/// Reads requests up to the end of the stream.
pub fn requests(bytes: &[u8]) -> Reading {
    let (mut messages, mut at) = (Vec::new(), 0);
    loop {
        if bytes.len() == at {
            return Reading {
                messages,
                end: End::Clean,
            };
        }
        let end = match request(&bytes[at..]) {
            Err(Stop::Incomplete) => End::Incomplete,
            Err(Stop::Malformed(why)) => End::Malformed(why),
            Ok(message) => {
                at += message.len;
                let goes_on = message.keep_alive;
                messages.push(message);
                if goes_on {
                    continue;
                }
                End::Closed
            }
        };
        return Reading { messages, end };
    }
}

macro_rules! regex {
    ($name:ident, $text:expr) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($text).unwrap());
    };
}

regex!(
    REQUEST_LINE,
    r"(?-u)^([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([!-~]+) HTTP/1\.([01])$"
);
regex!(
    STATUS_LINE,
    r"(?-u)^HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t -~\x80-\xff]*)?$"
);
regex!(FIELD, r"(?-u)^([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t -~\x80-\xff]*)$");
regex!(
    CHUNK_LINE,
    "(?-u)^([0-9A-Fa-f]{1,16})([ \t]*;[ \t]*TOKEN([ \t]*=[ \t]*(TOKEN|\"([\t !#-\\[\\]-~\u{80}-\u{ff}]|\\\\[\t -~])*\"))?)*$"
        .replace("TOKEN", "[!#$%&'*+.^_`|~0-9A-Za-z-]+")
        .replace("\u{80}-\u{ff}", "\\x80-\\xff")
        .as_str()
);
regex!(
    HOST,
    r"(?-u)^([A-Za-z0-9._~-]+|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{0,5}))?$"
);
regex!(ABSOLUTE, r"(?-u)^(?i:(https?)://)([^/?]*)(.*)$");
regex!(ESCAPE, r"(?-u)%[0-9A-Fa-f]{2}");
regex!(
    DOT_SEGMENT,
    r"(?i-u)(?:^|/|\\|%2f|%5c)(?:\.|%2e){1,2}(?:;|/|\\|%3b|%2f|%5c|$)"
);
regex!(TOKEN, r"(?-u)^[!#$%&'*+.^_`|~0-9A-Za-z-]+$");

/// The next line, without CRLF, and what follows it.
fn line(bytes: &[u8]) -> Read<(&[u8], &[u8])> {
    let Some(at) = bytes.iter().position(|&b| b == b'\n') else {
        return Err(Stop::Incomplete);
    };
    match bytes[..at].strip_suffix(b"\r") {
        Some(line) => Ok((line, &bytes[at + 1..])),
        None => bad("bare LF"),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The fields up to the empty line, and what follows it.
fn fields(mut rest: &[u8]) -> Read<(Vec<Field>, &[u8])> {
    let mut lines = Vec::new();
    loop {
        let (line, after) = line(rest)?;
        rest = after;
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    if lines.len() > 100 {
        return bad("more than 100 fields");
    }
    let mut fields = Vec::new();
    for line in lines {
        let Some(parts) = FIELD.captures(line) else {
            return bad("field line");
        };
        fields.push((text(&parts[1]).to_ascii_lowercase(), parts[2].trim_ascii().to_vec()));
    }
    Ok((fields, rest))
}

/// Reads one request from the beginning of `bytes`.
///
/// # Errors
/// When there is no whole good one.
pub fn request(bytes: &[u8]) -> Read<Message> {
    let (mut first, mut rest) = line(bytes)?;
    if first.is_empty() {
        (first, rest) = line(rest)?;
    }
    let (fields, rest) = fields(rest)?;
    let Some(parts) = REQUEST_LINE.captures(first) else {
        return bad("request line");
    };
    let mut message = Message {
        method: text(&parts[1]),
        minor: parts[3][0] - b'0',
        fields,
        head_len: bytes.len() - rest.len(),
        ..Message::default()
    };
    if message.head_len > 32 << 10 {
        return bad("head over 32 KiB");
    }
    if message.method == "CONNECT" {
        return bad("CONNECT");
    }
    if parts[2].contains(&b'#') {
        return bad("fragment in the target");
    }
    read_connection(&mut message, true)?;
    read_target(&mut message, &parts[2])?;
    if message
        .values("expect")
        .any(|v| !v.eq_ignore_ascii_case(b"100-continue"))
    {
        return bad("expectation");
    }
    if matches!(message.method.as_str(), "OPTIONS" | "TRACE") && message.values("max-forwards").count() > 1 {
        return bad("two Max-Forwards");
    }
    let length = read_framing(&mut message)?;
    if message.method == "TRACE" && (message.chunked || length.is_some_and(|n| n > 0)) {
        return bad("TRACE with a body");
    }
    read_body(&mut message, bytes, length.unwrap_or(0))?;
    Ok(message)
}

/// Host, target and how they agree.
fn read_target(message: &mut Message, target: &[u8]) -> Read<()> {
    let hosts: Vec<&[u8]> = message.values("host").collect();
    if hosts.len() > 1 {
        return bad("two Hosts");
    }
    let host = hosts.first().map(|host| authority(host)).transpose()?;
    if host.is_none() && message.minor == 1 {
        return bad("no Host");
    }
    message.host = hosts.first().map(|host| text(host)).unwrap_or_default();
    if target.starts_with(b"/") || (target == b"*" && message.method == "OPTIONS") {
        message.target = text(target);
        return read_path(&message.target);
    }
    let Some(parts) = ABSOLUTE.captures(target) else {
        return bad("form of the target");
    };
    let named = authority(&parts[2])?;
    let default = if parts[1].eq_ignore_ascii_case(b"http") {
        80
    } else {
        443
    };
    if let Some(host) = host
        && (host.0 != named.0 || host.1.unwrap_or(default) != named.1.unwrap_or(default))
    {
        return bad("Host differs from the target");
    }
    let rest = text(&parts[3]);
    let asterisk = rest.is_empty() && message.method == "OPTIONS";
    message.host = text(&parts[2]);
    message.target = match rest.strip_prefix('/') {
        _ if asterisk => "*".to_owned(),
        Some(_) => rest,
        None => format!("/{rest}"),
    };
    read_path(&message.target)
}

/// What a server might resolve to another path than was asked for.
fn read_path(target: &str) -> Read<()> {
    let path = target.split('?').next().unwrap_or_default().as_bytes();
    if path.contains(&b'\\') {
        return bad("backslash in the path");
    }
    if ESCAPE.replace_all(path, b"").contains(&b'%') {
        return bad("half an escape in the path");
    }
    if ESCAPE.find_iter(path).any(|escape| escape.as_bytes() == b"%00") {
        return bad("NUL in the path");
    }
    if DOT_SEGMENT.is_match(path) {
        return bad("dot segment");
    }
    Ok(())
}

/// Host in lower case, and port.
fn authority(value: &[u8]) -> Read<(String, Option<u16>)> {
    let Some(parts) = HOST.captures(value) else {
        return bad("host");
    };
    if let Some(address) = parts.get(2)
        && text(address.as_bytes()).parse::<Ipv6Addr>().is_err()
    {
        return bad("host");
    }
    let port = match parts
        .get(3)
        .map(|digits| text(digits.as_bytes()))
        .filter(|p| !p.is_empty())
    {
        Some(digits) => Some(digits.parse::<u16>().map_err(|_| Stop::Malformed("port"))?),
        None => None,
    };
    Ok((text(&parts[1]).to_ascii_lowercase(), port))
}

/// Fields no `Connection` may name, of those this test ever sends.
const ESSENTIAL: [&str; 12] = [
    "host",
    "content-length",
    "transfer-encoding",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "forwarded",
    "cookie",
    "authorization",
    "cache-control",
    "via",
    "connection",
];

fn read_connection(message: &mut Message, of_request: bool) -> Read<()> {
    let options = message.options();
    for option in &options {
        if !TOKEN.is_match(option.as_bytes()) {
            return bad("Connection option");
        }
        let framing = ["host", "content-length", "transfer-encoding"].contains(&option.as_str());
        if framing || (of_request && ESSENTIAL.contains(&option.as_str())) {
            return bad("nominated field");
        }
    }
    if options.len() >= 10 {
        return bad("ten options");
    }
    let says = |what: &str| options.iter().any(|option| option == what);
    message.keep_alive = !says("close") && (message.minor == 1 || says("keep-alive"));
    Ok(())
}

/// The one framing field: the length, if it gives one.
fn read_framing(message: &mut Message) -> Read<Option<usize>> {
    let lengths: Vec<&[u8]> = message.values("content-length").collect();
    let codings: Vec<&[u8]> = message.values("transfer-encoding").collect();
    if !lengths.is_empty() && !codings.is_empty() {
        return bad("Content-Length and Transfer-Encoding");
    }
    match (lengths[..].first(), lengths.len() + codings.len()) {
        (_, 0) => Ok(None),
        (_, 2..) => bad("repeated framing field"),
        (Some(length), _) => {
            let digits = !length.is_empty() && length.len() <= 19 && length.iter().all(u8::is_ascii_digit);
            let number = text(length).parse::<i64>().ok().filter(|_| digits);
            number.map_or(bad("Content-Length"), |n| Ok(usize::try_from(n).ok()))
        }
        (None, _) if !codings[0].eq_ignore_ascii_case(b"chunked") => bad("Transfer-Encoding"),
        (None, _) if message.minor == 0 => bad("Transfer-Encoding on HTTP/1.0"),
        (None, _) => {
            message.chunked = true;
            Ok(None)
        }
    }
}

fn read_body(message: &mut Message, bytes: &[u8], length: usize) -> Read<()> {
    let rest = &bytes[message.head_len..];
    if message.chunked {
        let after = read_chunks(message, rest)?;
        message.len = bytes.len() - after.len();
        return Ok(());
    }
    message.body = rest.get(..length).ok_or(Stop::Incomplete)?.to_vec();
    message.len = message.head_len + length;
    Ok(())
}

fn read_chunks<'b>(message: &mut Message, mut rest: &'b [u8]) -> Read<&'b [u8]> {
    loop {
        let (head, after) = line(rest)?;
        let Some(parts) = CHUNK_LINE.captures(head) else {
            return bad("chunk line");
        };
        let Ok(size) = i64::from_str_radix(&text(&parts[1]), 16) else {
            return bad("chunk size");
        };
        if size == 0 {
            let (trailers, after) = fields(after)?;
            message.trailers = trailers;
            return Ok(after);
        }
        let size = usize::try_from(size).map_err(|_| Stop::Malformed("chunk size"))?;
        let have = size.min(after.len());
        message.body.extend_from_slice(&after[..have]);
        match after[have..] {
            [b'\r', b'\n', ..] => rest = &after[have + 2..],
            [] | [b'\r'] => return Err(Stop::Incomplete),
            _ => return bad("end of a chunk"),
        }
    }
}

/// Reads one answer to `method` from the beginning of `bytes`; `ended`: nothing follows them. An interim answer is an
/// answer here.
///
/// # Errors
/// When there is no whole good one.
pub fn answer(bytes: &[u8], method: &str, ended: bool) -> Read<Message> {
    let (mut message, length) = answer_head(bytes)?;
    let bodiless = message.status < 200 || message.status == 204 || message.status == 304 || method == "HEAD";
    if bodiless {
        message.chunked = false;
        message.len = message.head_len;
    } else if !message.chunked && length.is_none() {
        message.keep_alive = false;
        if !ended {
            return Err(Stop::Incomplete);
        }
        message.body = bytes[message.head_len..].to_vec();
        message.len = bytes.len();
    } else {
        read_body(&mut message, bytes, length.unwrap_or(0))?;
    }
    Ok(message)
}

/// The head of an answer, judged, and the length it declares.
///
/// # Errors
/// When there is no whole good one.
pub fn answer_head(bytes: &[u8]) -> Read<(Message, Option<usize>)> {
    let (first, rest) = line(bytes)?;
    let (fields, rest) = fields(rest)?;
    let Some(parts) = STATUS_LINE.captures(first) else {
        return bad("status line");
    };
    let mut message = Message {
        status: text(&parts[2]).parse().unwrap(),
        minor: parts[1][0] - b'0',
        fields,
        head_len: bytes.len() - rest.len(),
        ..Message::default()
    };
    if message.head_len > 32 << 10 {
        return bad("head over 32 KiB");
    }
    if message.values("host").count() > 1 {
        return bad("two Hosts");
    }
    read_connection(&mut message, false)?;
    let length = read_framing(&mut message)?;
    if message.status == 101 {
        return bad("101 that was not asked for");
    }
    let none = message.status < 200 || message.status == 204;
    if none && (message.chunked || length.is_some_and(|n| n > 0)) {
        return bad("a body where none may be");
    }
    Ok((message, length))
}

/// The final answers in `bytes`, to requests of these methods in this order (GET behind the last).
pub fn answers(bytes: &[u8], methods: &[&str], ended: bool) -> (Vec<Message>, Stop) {
    let (mut found, mut at) = (Vec::new(), 0);
    loop {
        let method = methods.get(found.len()).copied().unwrap_or("GET");
        match answer(&bytes[at..], method, ended) {
            Ok(message) => {
                at += message.len;
                if message.status >= 200 {
                    found.push(message);
                }
            }
            Err(stop) => return (found, stop),
        }
    }
}
