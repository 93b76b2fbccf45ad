//! Frames of WebSocket (RFC 6455 section 5), as far as a proxy needs them that passes bytes on: where one ends, so that
//! one of its own may follow.

/// The peer may connect again at once: the service goes on without what it was connected to (IANA's registry of close
/// codes).
pub const SERVICE_RESTART: u16 = 1012;
/// Whoever was connected goes away (RFC 6455 section 7.4.1).
pub const GOING_AWAY: u16 = 1001;

/// The longest head of a frame: two bytes, eight of length, four of mask.
const LONGEST_HEAD: usize = 14;
const OPCODE: u8 = 0x0f;
const CLOSE: u8 = 0x08;
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;

/// Where one direction of a connection is among its frames.
#[derive(Debug, Default)]
pub struct FrameScan {
    /// What has come of the head of the next frame.
    head: [u8; LONGEST_HEAD],
    held: usize,
    /// Bytes to come of the current frame.
    left: u64,
    closed: bool,
}

impl FrameScan {
    /// The next bytes of the direction have been passed on.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.left > 0 {
                let skipped = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.left -= skipped as u64;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            if let Some(place) = self.head.get_mut(self.held) {
                *place = byte;
            }
            self.held += 1;
            bytes = rest;
            if self.held == self.head_len() {
                self.left = self.payload_len();
                self.closed |= self.head[0] & OPCODE == CLOSE;
                self.held = 0;
            }
        }
    }

    /// Whether a frame may follow: none is half sent, and none has said that it is the last.
    pub fn may_follow(&self) -> bool {
        !self.is_within_frame() && !self.closed
    }

    /// Whether a frame is half sent.
    pub fn is_within_frame(&self) -> bool {
        self.held > 0 || self.left > 0
    }

    /// Whether a frame has said that it is the last.
    pub fn has_closed(&self) -> bool {
        self.closed
    }

    /// As far as is known: two bytes tell.
    fn head_len(&self) -> usize {
        let mask = if self.head[1] & MASKED == 0 { 0 } else { 4 };
        match self.head[1] & !MASKED {
            _ if self.held < 2 => LONGEST_HEAD,
            126 => 4 + mask,
            127 => 10 + mask,
            _ => 2 + mask,
        }
    }

    fn payload_len(&self) -> u64 {
        let [_, length, a, b, c, d, e, f, g, h, ..] = self.head;
        match length & !MASKED {
            126 => u64::from(u16::from_be_bytes([a, b])),
            127 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            short => u64::from(short),
        }
    }
}

/// A close frame that says `code`; `mask`: of a client.
pub fn close_frame(code: u16, mask: Option<[u8; 4]>) -> Vec<u8> {
    let [high, low] = code.to_be_bytes();
    match mask {
        None => vec![FINAL | CLOSE, 2, high, low],
        Some([a, b, c, d]) => vec![FINAL | CLOSE, MASKED | 2, a, b, c, d, high ^ a, low ^ b],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame as RFC 6455 section 5.2 draws it.
    fn frame(opcode: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
        let masked = if mask.is_some() { MASKED } else { 0 };
        let mut bytes = vec![FINAL | opcode];
        match payload.len() {
            length @ 0..=125 => bytes.push(masked | length as u8),
            length @ 126..=0xffff => {
                bytes.push(masked | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                bytes.push(masked | 127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        bytes.extend(mask.into_iter().flatten());
        bytes.extend_from_slice(payload);
        bytes
    }

    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let length = prop_oneof![0..130_usize, 65_530..65_540_usize];
        // Text, binary, continuation, ping, pong.
        let opcode = prop_oneof![Just(1_u8), Just(2), Just(0), Just(9), Just(10)];
        (opcode, any::<Option<[u8; 4]>>(), length, any::<u8>())
            .prop_map(|(opcode, mask, length, byte)| frame(opcode, mask, &vec![byte; length]))
    }

    proptest! {
        #[test]
        fn a_frame_may_follow_exactly_where_one_has_ended(
            frames in proptest::collection::vec(any_frame(), 1..6),
            cuts in proptest::collection::vec(1..70_000_usize, 1..6),
        ) {
            let mut ends = vec![0];
            for frame in &frames {
                ends.push(ends.last().unwrap() + frame.len());
            }
            let all = frames.concat();
            let (mut scan, mut at, mut cuts) = (FrameScan::default(), 0, cuts.into_iter().cycle());
            while at < all.len() {
                let next = (at + cuts.next().unwrap()).min(all.len());
                scan.feed(&all[at..next]);
                at = next;
                prop_assert_eq!(scan.may_follow(), ends.contains(&at), "at {}", at);
                prop_assert_eq!(scan.is_within_frame(), !ends.contains(&at), "at {}", at);
            }
        }

        #[test]
        fn nothing_follows_a_close(before in any_frame(), mask in any::<Option<[u8; 4]>>(), code in any::<u16>()) {
            let mut scan = FrameScan::default();
            scan.feed(&before);
            prop_assert!(scan.may_follow() && !scan.has_closed());
            let close = close_frame(code, mask);
            scan.feed(&close);
            prop_assert!(!scan.may_follow() && scan.has_closed() && !scan.is_within_frame());
            let mut payload = code.to_be_bytes();
            let key = mask.unwrap_or_default();
            payload.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
            prop_assert_eq!(close, frame(CLOSE, mask, &payload));
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut scan = FrameScan::default();
            bytes.chunks(7).for_each(|piece| scan.feed(piece));
            prop_assert!(scan.held < LONGEST_HEAD);
        }
    }
}
