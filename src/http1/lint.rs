//! A judge of forwarded bytes that shares no code with the parser or the writer: used by tests on what was on the wire.

/// What is wrong with a forwarded head, in words with the line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LintError(String);

fn wrong<T>(what: impl Into<String>) -> Result<T, LintError> {
    Err(LintError(what.into()))
}

/// Checks the head of a forwarded request at the beginning of `bytes`: one unambiguous HTTP/1.1 request line in origin-form
/// or `*`, one `Host`, at most one framing field, no field of the other hop, no bare CR or LF, no control character.
/// Returns the bytes of the head.
pub fn lint_request(bytes: &[u8]) -> Result<usize, LintError> {
    let head = Head::read(bytes)?;
    let parts: Vec<&[u8]> = head.first.split(|&b| b == b' ').collect();
    let [method, target, b"HTTP/1.1"] = parts.as_slice() else {
        return wrong(format!("request line: {}", show(head.first)));
    };
    if method.is_empty() || !method.iter().all(|&b| TOKEN.contains(&b)) {
        return wrong(format!("method: {}", show(method)));
    }
    let origin = target.starts_with(b"/") || (*target == b"*" && *method == b"OPTIONS");
    if !origin || !target.iter().all(|b| (0x21..=0x7e).contains(b) && *b != b'#') {
        return wrong(format!("target: {}", show(target)));
    }
    match head.values("host").as_slice() {
        [_] => {}
        hosts => return wrong(format!("{} Host fields", hosts.len())),
    }
    let framing = head.framing()?;
    head.lint_hop_by_hop(&["te", "upgrade"])?;
    if *method == b"TRACE" && framing > 0 && head.values("content-length") != [&b"0"[..]] {
        return wrong("TRACE with a body");
    }
    Ok(head.len)
}

/// Checks the head of a forwarded answer at the beginning of `bytes`, as [`lint_request`] does; `head_request`: it answers
/// HEAD. Returns the bytes of the head.
pub fn lint_response(bytes: &[u8], head_request: bool) -> Result<usize, LintError> {
    let head = Head::read(bytes)?;
    let status = match head.first {
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            b'1',
            b' ',
            a @ b'1'..=b'5',
            b,
            c,
            b' ',
            ..,
        ] if b.is_ascii_digit() && c.is_ascii_digit() => {
            u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
        }
        _ => return wrong(format!("status line: {}", show(head.first))),
    };
    let framing = head.framing()?;
    let closes = head.options().any(|o| o.eq_ignore_ascii_case(b"close"));
    let interim = status < 200;
    if (interim || status == 204) && framing > 0 {
        return wrong(format!("{status} with a framing field"));
    }
    let bodiless = interim || status == 204 || status == 304 || head_request;
    if !bodiless && framing == 0 && !closes {
        return wrong("no framing field, and the connection stays open");
    }
    if interim && closes {
        return wrong("an interim answer that closes");
    }
    head.lint_hop_by_hop(&["close", "keep-alive", "upgrade"])?;
    if status == 101 && (head.values("upgrade").len() != 1 || head.values("upgrade").concat().contains(&b',')) {
        return wrong("101 without one protocol in Upgrade");
    }
    Ok(head.len)
}

const TOKEN: &[u8] = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Fields that no forwarded message may hold.
const NEVER: [&str; 7] = [
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-authentication-info",
    "http2-settings",
    "transfer_encoding",
];

struct Head<'b> {
    len: usize,
    first: &'b [u8],
    fields: Vec<(String, &'b [u8])>,
}

impl<'b> Head<'b> {
    fn read(bytes: &'b [u8]) -> Result<Self, LintError> {
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
            return wrong("the head does not end");
        };
        let block = bytes.get(..end).unwrap_or_default();
        let mut lines = Vec::new();
        let mut rest = block;
        while let Some(at) = rest.windows(2).position(|w| w == b"\r\n") {
            lines.push(rest.get(..at).unwrap_or_default());
            rest = rest.get(at + 2..).unwrap_or_default();
        }
        lines.push(rest);
        for line in &lines {
            if line.iter().any(|&b| (b < 0x20 && b != b'\t') || b == 0x7f) {
                return wrong(format!("control character: {}", show(line)));
            }
        }
        let mut lines = lines.into_iter();
        let first = lines.next().unwrap_or_default();
        let fields = lines.map(Self::field).collect::<Result<_, _>>()?;
        Ok(Self {
            len: end + 4,
            first,
            fields,
        })
    }

    fn field(line: &'b [u8]) -> Result<(String, &'b [u8]), LintError> {
        let colon = line.iter().position(|&b| b == b':').unwrap_or(0);
        let name = line.get(..colon).unwrap_or_default();
        if name.is_empty() || !name.iter().all(|b| TOKEN.contains(b)) {
            return wrong(format!("field line: {}", show(line)));
        }
        let value = line.get(colon + 1..).unwrap_or_default().trim_ascii();
        Ok((String::from_utf8_lossy(name).to_ascii_lowercase(), value))
    }

    fn values(&self, name: &str) -> Vec<&'b [u8]> {
        self.fields.iter().filter(|(n, _)| n == name).map(|&(_, v)| v).collect()
    }

    fn options(&self) -> impl Iterator<Item = &'b [u8]> {
        let connection = self.fields.iter().filter(|(n, _)| n == "connection");
        connection.flat_map(|(_, v)| v.split(|&b| b == b',').map(<[u8]>::trim_ascii))
    }

    /// The number of framing fields: 0 or 1.
    fn framing(&self) -> Result<usize, LintError> {
        let lengths = self.values("content-length");
        let codings = self.values("transfer-encoding");
        if lengths.len() + codings.len() > 1 {
            return wrong("more than one framing field");
        }
        for length in &lengths {
            let digits = !length.is_empty() && length.len() <= 19 && length.iter().all(u8::is_ascii_digit);
            if !digits || (length.len() > 1 && length.starts_with(b"0")) {
                return wrong(format!("Content-Length: {}", show(length)));
            }
        }
        for coding in &codings {
            if *coding != b"chunked" {
                return wrong(format!("Transfer-Encoding: {}", show(coding)));
            }
        }
        Ok(lengths.len() + codings.len())
    }

    /// Only our own hop-by-hop fields, each with its option.
    fn lint_hop_by_hop(&self, allowed: &[&str]) -> Result<(), LintError> {
        for name in NEVER {
            if !self.values(name).is_empty() {
                return wrong(format!("{name} was forwarded"));
            }
        }
        let options: Vec<String> = self
            .options()
            .map(|o| String::from_utf8_lossy(o).to_ascii_lowercase())
            .collect();
        for option in &options {
            if !allowed.contains(&option.as_str()) {
                return wrong(format!("Connection: {option}"));
            }
        }
        let protocols = |value: &[u8]| value.split(|&b| b == b',').all(|name| is_protocol(name.trim_ascii()));
        let trailers = |value: &[u8]| value == b"trailers";
        for (name, fits) in [("te", &trailers as &dyn Fn(&[u8]) -> bool), ("upgrade", &protocols)] {
            let values = self.values(name);
            let named = options.iter().any(|o| o == name);
            if named != matches!(values.as_slice(), [value] if fits(value)) || (!named && !values.is_empty()) {
                return wrong(format!("{name} does not agree with Connection"));
            }
        }
        Ok(())
    }
}

/// `name` or `name/version`.
fn is_protocol(bytes: &[u8]) -> bool {
    let mut parts = bytes.split(|&b| b == b'/');
    let tokens = parts
        .by_ref()
        .take(2)
        .all(|part| !part.is_empty() && part.iter().all(|b| TOKEN.contains(b)));
    tokens && parts.next().is_none()
}

fn show(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
