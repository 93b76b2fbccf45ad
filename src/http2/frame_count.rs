//! Frames counted as they pass, by what they are good for.

/// Bytes of a frame's header (RFC 9113 section 4.1).
const HEADER_BYTES: usize = 9;

/// DATA and HEADERS; every other type is about the connection, or unknown.
const CARRYING: [u8; 2] = [0, 1];

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
    frames: Frames,
}

impl FrameCount {
    /// `before`: bytes that come before the first frame.
    pub fn new(before: usize) -> Self {
        Self {
            header: [0; HEADER_BYTES],
            held: 0,
            skip: before,
            frames: Frames::default(),
        }
    }

    /// The next bytes of the connection.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let wanted = (HEADER_BYTES - self.held).min(bytes.len());
            let (part, rest) = bytes.split_at_checked(wanted).unwrap_or_default();
            if let Some(room) = self.header.get_mut(self.held..self.held + wanted) {
                room.copy_from_slice(part);
            }
            self.held += wanted;
            bytes = rest;
            if self.held == HEADER_BYTES {
                self.begun();
            }
        }
    }

    /// A header is complete.
    fn begun(&mut self) {
        let [high, middle, low, kind, ..] = self.header;
        self.held = 0;
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if CARRYING.contains(&kind) {
            self.frames.carrying += 1;
        } else {
            self.frames.control += 1;
        }
    }

    /// Frames since this was asked last.
    pub fn take(&mut self) -> Frames {
        std::mem::take(&mut self.frames)
    }
}
