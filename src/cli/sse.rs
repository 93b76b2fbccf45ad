//! The text of an event stream (WHATWG HTML, section 9.2), piece by piece as it comes.

/// Bytes of one event.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// An event of more than [`MAX_EVENT_BYTES`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {MAX_EVENT_BYTES} bytes")]
pub struct TooLong;

/// Turns pieces of the stream into the data of its events. Their names and numbers are in the data, too.
#[derive(Debug, Default)]
pub struct Parser {
    /// The line that has begun.
    line: Vec<u8>,
    /// Of the event that has begun.
    data: Vec<u8>,
    /// The last byte was a carriage return: a line feed now belongs to it.
    after_return: bool,
}

impl Parser {
    /// The data of each event that `piece` completes. Comments and other fields are left out.
    ///
    /// # Errors
    /// An event is too long.
    pub fn push(&mut self, piece: &[u8]) -> Result<Vec<String>, TooLong> {
        let mut events = Vec::new();
        for &byte in piece {
            let paired = std::mem::replace(&mut self.after_return, byte == b'\r') && byte == b'\n';
            match byte {
                b'\n' if paired => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ => self.line.push(byte),
            }
            if self.line.len() + self.data.len() > MAX_EVENT_BYTES {
                return Err(TooLong);
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            let text = data.strip_suffix(b"\n")?;
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        if let Some(value) = line.strip_prefix(b"data:") {
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
            self.data.push(b'\n');
        } else if line == b"data" {
            self.data.push(b'\n');
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &str = "\u{feff}: hello\n\nid: 7\nevent: kill\ndata: {\"seq\":7}\n\nretry: 10\r\ndata: a\r\ndata:b\r\n\r\ndata\r\r\
                          : ping\n\ndata: half";

    fn whole() -> Vec<String> {
        ["{\"seq\":7}", "a\nb", ""].map(str::to_owned).to_vec()
    }

    #[test]
    fn fields_line_ends_and_comments() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(STREAM.as_bytes()), Ok(whole()));
        assert_eq!(
            parser.push(b" and the rest\n\n"),
            Ok(vec!["half and the rest".to_owned()])
        );
    }

    #[test]
    fn what_never_ends_is_refused() {
        for text in ["data: ", "data: x\n"] {
            let mut parser = Parser::default();
            let text = text.repeat(1000);
            assert!((0..1000).any(|_| parser.push(text.as_bytes()) == Err(TooLong)));
        }
    }

    proptest! {
        /// Wherever the stream is cut into pieces, the events are the same.
        #[test]
        fn pieces_make_no_difference(cuts in proptest::collection::vec(0..STREAM.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let mut parser = Parser::default();
            let mut events = Vec::new();
            for pair in cuts.windows(2) {
                events.extend(parser.push(&STREAM.as_bytes()[pair[0]..pair[1]]).unwrap());
            }
            prop_assert_eq!(events, whole());
        }
    }
}
