//! Frames counted as they pass, by what they are good for, and the streams that end with them.

/// Bytes of a frame's header (RFC 9113 section 4.1).
const HEADER_BYTES: usize = 9;

/// Every other type is about the connection, or unknown.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Of the identifier of a stream, to be passed over.
const RESERVED_BIT: u32 = 1 << 31;

/// How many frames of either kind began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Frames {
    /// DATA and HEADERS: what a connection is for.
    pub carrying: u64,
    /// All others. Ordinary peers send a few for each of the former; each costs work, and some an answer.
    pub control: u64,
}

/// Finds the frames in one direction of a connection, however its bytes are split.
#[derive(Debug, Clone)]
pub struct FrameCount {
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that are there.
    held: usize,
    /// Bytes to pass over: what is left of a payload, or of the preface.
    skip: usize,
    /// The frame that is under way, or the head that it is a part of, is the last of its stream.
    last: bool,
    /// The stream that ends where the frame does.
    ending: Option<u32>,
    frames: Frames,
}

impl FrameCount {
    /// `before`: bytes that come before the first frame.
    pub fn new(before: usize) -> Self {
        Self {
            header: [0; HEADER_BYTES],
            held: 0,
            skip: before,
            last: false,
            ending: None,
            frames: Frames::default(),
        }
    }

    /// The next bytes of the connection. `ended` is told of each stream of which the last frame is whole.
    pub fn pass(&mut self, mut bytes: &[u8], mut ended: impl FnMut(u32)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            if skipped == 0 {
                bytes = self.head(bytes);
            }
            if self.skip == 0 {
                self.ending.take().map(&mut ended);
            }
        }
    }

    /// The next bytes of a header. What is behind them.
    fn head<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let wanted = (HEADER_BYTES - self.held).min(bytes.len());
        let (part, rest) = bytes.split_at_checked(wanted).unwrap_or_default();
        if let Some(room) = self.header.get_mut(self.held..self.held + wanted) {
            room.copy_from_slice(part);
        }
        self.held += wanted;
        if self.held == HEADER_BYTES {
            self.begun();
        }
        rest
    }

    /// A header is complete.
    fn begun(&mut self) {
        let [high, middle, low, kind, flags, stream @ ..] = self.header;
        self.held = 0;
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let carrying = matches!(kind, DATA | HEADERS);
        if carrying {
            self.frames.carrying += 1;
        } else {
            self.frames.control += 1;
        }
        self.last = (carrying && flags & END_STREAM != 0) || (kind == CONTINUATION && self.last);
        let whole = kind == DATA || flags & END_HEADERS != 0;
        self.ending = (self.last && whole).then_some(u32::from_be_bytes(stream) & !RESERVED_BIT);
    }

    /// Whether some of them carry something.
    pub fn carries(&self) -> bool {
        self.frames.carrying > 0
    }

    /// Frames since this was asked last.
    pub fn take(&mut self) -> Frames {
        std::mem::take(&mut self.frames)
    }
}
