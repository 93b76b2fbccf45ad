//! Read buffers, borrowed from a thread's pool only while they hold something: an idle connection has none.

use std::cell::RefCell;

/// Bytes of a pooled buffer. A body of 64 KiB with its head takes two reads; 32 KiB cost a sixth more CPU on it.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// Bytes read at once for a peer that takes them slowly: what it has not taken is held for it.
pub const SLOW_READ_BYTES: usize = 32 * 1024;

/// Buffers a thread keeps for reuse; more are given back to the allocator.
const POOLED: usize = 128;

thread_local! {
    static POOL: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    static HEADS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// The largest head whose storage is kept for reuse.
const POOLED_HEAD_BYTES: usize = 8 * 1024;

/// Bytes of one head (kept, or about to be written), in storage that is reused.
#[derive(Default)]
pub struct HeadBytes(Vec<u8>);

impl HeadBytes {
    pub fn new() -> Self {
        Self(HEADS.with_borrow_mut(Vec::pop).unwrap_or_default())
    }

    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut head = Self::new();
        head.0.extend_from_slice(bytes);
        head
    }
}

impl std::ops::Deref for HeadBytes {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl std::ops::DerefMut for HeadBytes {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for HeadBytes {
    fn drop(&mut self) {
        let mut storage = std::mem::take(&mut self.0);
        if storage.capacity() > 0 && storage.capacity() <= POOLED_HEAD_BYTES {
            storage.clear();
            HEADS.with_borrow_mut(|heads| {
                if heads.len() < POOLED {
                    heads.push(storage);
                }
            });
        }
    }
}

fn take() -> Box<[u8]> {
    POOL.with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice())
}

fn give(storage: Box<[u8]>) {
    if storage.len() == BUFFER_BYTES {
        POOL.with_borrow_mut(|pool| {
            if pool.len() < POOLED {
                pool.push(storage);
            }
        });
    }
}

/// What was read and not yet used, with room to read more. Holds storage only from the first read until it is emptied
/// and released.
#[derive(Default)]
pub struct Buffer {
    storage: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// What was read and not yet used.
    pub fn unread(&self) -> &[u8] {
        self.storage.get(self.start..self.end).unwrap_or_default()
    }

    /// As [`Buffer::unread`], to be decoded in place.
    pub fn unread_mut(&mut self) -> &mut [u8] {
        self.storage.get_mut(self.start..self.end).unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first `n` unread bytes are used.
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Bytes of storage held.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.storage.len()
    }

    /// Gives the storage back when nothing unread is in it.
    pub fn release(&mut self) {
        if self.is_empty() && !self.storage.is_empty() {
            give(std::mem::take(&mut self.storage));
            self.start = 0;
            self.end = 0;
        }
    }

    /// What is unread in storage of its own size: who holds it for long must not hold a pooled one. Emptied, it is
    /// released.
    pub fn settle(&mut self) {
        if self.is_empty() {
            return self.release();
        }
        let own: Box<[u8]> = self.unread().into();
        (self.start, self.end) = (0, own.len());
        give(std::mem::replace(&mut self.storage, own));
    }

    /// Room to read into: at least one byte, unless `limit` bytes are already unread (then it is empty).
    pub fn room(&mut self, limit: usize) -> &mut [u8] {
        let unread = self.end - self.start;
        if unread >= limit {
            return &mut [];
        }
        if self.end == self.storage.len() && self.start == 0 {
            self.grow((self.storage.len() * 2).min(limit));
        }
        self.reserve(1);
        let room = limit - unread;
        let end = self.storage.len().min(self.end.saturating_add(room));
        self.storage.get_mut(self.end..end).unwrap_or_default()
    }

    /// Room for `n` bytes or more.
    pub fn room_for(&mut self, n: usize) -> &mut [u8] {
        self.reserve(n);
        self.storage.get_mut(self.end..).unwrap_or_default()
    }

    /// Takes over what fits of `bytes` while at most `limit` are unread; returns how many.
    pub fn push(&mut self, bytes: &[u8], limit: usize) -> usize {
        let mut left = bytes;
        while !left.is_empty() {
            let room = self.room(limit);
            let n = room.len().min(left.len());
            let (Some(to), Some((from, rest))) = (room.get_mut(..n), left.split_at_checked(n)) else {
                break;
            };
            if n == 0 {
                break;
            }
            to.copy_from_slice(from);
            self.filled(n);
            left = rest;
        }
        bytes.len() - left.len()
    }

    /// Makes room for `n` bytes behind what is unread, moving that to the front or to larger storage.
    fn reserve(&mut self, n: usize) {
        let unread = self.end - self.start;
        if self.storage.len() - self.end >= n {
            return;
        }
        if self.storage.len() - unread < n {
            return self.grow(unread + n);
        }
        self.storage.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, unread);
    }

    /// Storage of `bytes` or more, at least a pooled one.
    fn grow(&mut self, bytes: usize) {
        let mut larger = if bytes <= BUFFER_BYTES {
            take()
        } else {
            vec![0; bytes].into_boxed_slice()
        };
        let unread = self.unread();
        let n = unread.len();
        if let Some(to) = larger.get_mut(..n) {
            to.copy_from_slice(unread);
        }
        give(std::mem::replace(&mut self.storage, larger));
        (self.start, self.end) = (0, n);
    }

    /// `n` bytes were read into the room.
    pub fn filled(&mut self, n: usize) {
        self.end = (self.end + n).min(self.storage.len());
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.storage.is_empty() {
            give(std::mem::take(&mut self.storage));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(buffer: &mut Buffer, bytes: &[u8], limit: usize) {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let room = buffer.room(limit);
            let n = room.len().min(bytes.len());
            assert!(n > 0, "no room");
            room[..n].copy_from_slice(&bytes[..n]);
            buffer.filled(n);
            bytes = &bytes[n..];
        }
    }

    #[test]
    fn what_is_filled_is_unread_until_consumed() {
        let mut buffer = Buffer::default();
        fill(&mut buffer, b"hello world", 1 << 20);
        buffer.consume(6);
        assert_eq!(buffer.unread(), b"world");
        buffer.consume(99);
        assert!(buffer.is_empty());
        buffer.release();
        assert!(buffer.storage.is_empty());
    }

    #[test]
    fn it_grows_to_the_limit_and_no_further() {
        let mut buffer = Buffer::default();
        let limit = 100_000;
        fill(&mut buffer, &vec![7; limit], limit);
        assert_eq!(buffer.unread().len(), limit);
        assert!(buffer.room(limit).is_empty());
        buffer.consume(1);
        assert_eq!(buffer.room(limit).len(), 1);
        assert!(buffer.unread().iter().all(|&b| b == 7));
    }

    #[test]
    fn unread_bytes_survive_the_move_to_the_front() {
        let mut buffer = Buffer::default();
        let bytes: Vec<u8> = (0..BUFFER_BYTES).map(|i| (i % 251) as u8).collect();
        fill(&mut buffer, &bytes, BUFFER_BYTES);
        buffer.consume(BUFFER_BYTES - 10);
        fill(&mut buffer, b"xy", BUFFER_BYTES);
        assert_eq!(&buffer.unread()[..10], &bytes[BUFFER_BYTES - 10..]);
        assert_eq!(&buffer.unread()[10..], b"xy");
    }

    #[test]
    fn settled_bytes_hold_no_pooled_storage_and_are_read_on() {
        let mut buffer = Buffer::default();
        fill(&mut buffer, b"a record that", BUFFER_BYTES);
        buffer.consume(2);
        buffer.settle();
        assert_eq!((buffer.unread(), buffer.storage.len()), (&b"record that"[..], 11));
        assert_eq!(
            buffer.room(BUFFER_BYTES).len(),
            BUFFER_BYTES - 11,
            "all the room at once"
        );
        fill(&mut buffer, b" goes on", BUFFER_BYTES);
        assert_eq!(buffer.unread(), b"record that goes on");
        buffer.consume(99);
        buffer.settle();
        assert!(buffer.storage.is_empty());
    }

    #[test]
    fn room_is_made_for_what_is_asked() {
        let mut buffer = Buffer::default();
        fill(&mut buffer, &[1; 1000], BUFFER_BYTES);
        buffer.consume(900);
        assert!(
            buffer.room_for(BUFFER_BYTES - 100).len() == BUFFER_BYTES - 100,
            "moved to the front"
        );
        assert!(
            buffer.room_for(BUFFER_BYTES).len() >= BUFFER_BYTES,
            "moved to larger storage"
        );
        assert_eq!(buffer.unread(), [1; 100]);
    }

    #[test]
    fn what_is_pushed_stops_at_the_limit() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.push(&[3; 200_000], 100_000), 100_000);
        assert_eq!(buffer.push(b"more", 100_000), 0);
        buffer.consume(99_998);
        assert_eq!(buffer.push(b"more", 4), 2);
        assert_eq!(buffer.unread(), b"\x03\x03mo");
    }

    #[test]
    fn a_release_with_unread_bytes_keeps_them() {
        let mut buffer = Buffer::default();
        fill(&mut buffer, b"next", 64);
        buffer.release();
        assert_eq!(buffer.unread(), b"next");
    }
}
