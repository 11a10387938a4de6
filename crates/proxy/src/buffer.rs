//! Read buffers that belong to the worker and are leased while there is something in them.
//!
//! An idle connection holds none. One that waits with half a message keeps a copy of those bytes
//! and nothing else.

use std::cell::RefCell;
use std::rc::Rc;

/// Bytes read at once. Two TLS records, or most responses whole.
pub(crate) const BUFFER_BYTES: usize = 32 * 1024;
/// Bytes read at once of a body that is long and comes quickly: each read wakes whoever sends it,
/// and each write whoever takes it, and that costs as much as the copies.
const LONG_BYTES: usize = 8 * BUFFER_BYTES;
/// A body is long after so many full reads on end, which is a mebibyte. A short one would only meet
/// pages that are not in the cache.
const LONG_AFTER: u8 = 32;
/// Long pieces of a worker's that wait for whoever takes them; beyond that, reads are short.
const HELD_MAX: usize = 32;

/// Free buffers a worker keeps; more are given back to the allocator.
const FREE_MAX: usize = 64;
/// Of those that are long.
const FREE_LONG_MAX: usize = 4;

/// Says that a long piece waits; see [`Buffers::hold`].
pub(crate) type Held = Rc<()>;

/// Free lists of one worker, last in first out, so that what is used is warm.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    read: RefCell<Vec<Box<[u8]>>>,
    long: RefCell<Vec<Box<[u8]>>>,
    write: RefCell<Vec<Vec<u8>>>,
    /// As many others have it as there are long pieces that wait.
    held: Held,
}

impl Buffers {
    pub(crate) fn lease_read(&self) -> Box<[u8]> {
        self.read.borrow_mut().pop().unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice())
    }

    fn lease_long(&self) -> Box<[u8]> {
        self.long.borrow_mut().pop().unwrap_or_else(|| vec![0; LONG_BYTES].into_boxed_slice())
    }

    pub(crate) fn give_read(&self, buffer: Box<[u8]>) {
        let (free, most) = match buffer.len() {
            BUFFER_BYTES => (&self.read, FREE_MAX),
            LONG_BYTES => (&self.long, FREE_LONG_MAX),
            _ => return,
        };
        let mut free = free.borrow_mut();
        if free.len() < most {
            free.push(buffer);
        }
    }

    /// To be kept by whoever has this much that he cannot pass on now, until he could.
    pub(crate) fn hold(&self, bytes: usize) -> Option<Held> {
        (bytes > 2 * BUFFER_BYTES).then(|| Rc::clone(&self.held))
    }

    fn may_be_long(&self) -> bool {
        Rc::strong_count(&self.held) <= HELD_MAX
    }

    pub(crate) fn lease_write(&self) -> Vec<u8> {
        self.write.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn give_write(&self, mut buffer: Vec<u8>) {
        let mut free = self.write.borrow_mut();
        let most = match buffer.capacity() {
            0 => 0,
            n if n <= 4 * BUFFER_BYTES => FREE_MAX,
            n if n <= 2 * LONG_BYTES => FREE_LONG_MAX,
            _ => 0,
        };
        if free.len() < most {
            buffer.clear();
            free.push(buffer);
        }
    }
}

/// What one side of a connection has received and not yet consumed.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    leased: Option<Box<[u8]>>,
    /// Bytes that outlived the lease. Holds memory only while it holds bytes.
    kept: Vec<u8>,
    start: usize,
    end: usize,
    /// Reads on end that were as much as a buffer holds.
    full: u8,
}

impl Inbox {
    /// The bytes at hand.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.leased {
            Some(buffer) => &buffer[self.start..self.end],
            None => &self.kept[self.start..self.end],
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Takes `n` bytes off the front; an emptied buffer goes back.
    pub(crate) fn consume(&mut self, n: usize, buffers: &Buffers) {
        self.start += n;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            self.release(buffers);
        }
    }

    /// Room to read into, after the bytes at hand; `None` when the buffer is full.
    pub(crate) fn room(&mut self, buffers: &Buffers) -> Option<&mut [u8]> {
        if self.leased.is_none() {
            let mut buffer = match self.full >= LONG_AFTER && buffers.may_be_long() {
                true => buffers.lease_long(),
                false => buffers.lease_read(),
            };
            let n = self.end - self.start;
            if n > buffer.len() {
                buffer = vec![0; n.next_power_of_two() * 2].into_boxed_slice();
            }
            buffer[..n].copy_from_slice(&self.kept[self.start..self.end]);
            self.kept = Vec::new();
            self.leased = Some(buffer);
            (self.start, self.end) = (0, n);
        }
        let buffer = self.leased.as_mut()?;
        if self.end == buffer.len() && self.start > 0 {
            buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        Some(&mut buffer[self.end..]).filter(|room| !room.is_empty())
    }

    /// Makes the buffer larger, for a head that does not fit. The caller's limit bounds it.
    pub(crate) fn grow(&mut self) {
        if let Some(buffer) = &mut self.leased {
            let mut larger = vec![0; buffer.len() * 2].into_boxed_slice();
            let n = self.end - self.start;
            larger[..n].copy_from_slice(&buffer[self.start..self.end]);
            *buffer = larger;
            (self.start, self.end) = (0, n);
        }
    }

    /// Notes that `n` bytes were read into the room.
    pub(crate) fn filled(&mut self, n: usize) {
        self.end += n;
        self.full = if n >= BUFFER_BYTES { self.full.saturating_add(1) } else { 0 };
    }

    /// Gives the leased buffer back before a wait; what is in it is copied out, at its true size.
    pub(crate) fn park(&mut self, buffers: &Buffers) {
        if let Some(buffer) = self.leased.take() {
            self.kept = buffer[self.start..self.end].to_vec();
            (self.start, self.end) = (0, self.kept.len());
            buffers.give_read(buffer);
        }
    }

    pub(crate) fn release(&mut self, buffers: &Buffers) {
        if let Some(buffer) = self.leased.take() {
            buffers.give_read(buffer);
        }
        self.kept = Vec::new();
        (self.start, self.end) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(inbox: &mut Inbox, buffers: &Buffers, bytes: &[u8]) {
        inbox.room(buffers).unwrap()[..bytes.len()].copy_from_slice(bytes);
        inbox.filled(bytes.len());
    }

    #[test]
    fn what_is_parked_is_found_again_and_nothing_is_held() {
        let buffers = Buffers::default();
        let mut inbox = Inbox::default();
        put(&mut inbox, &buffers, b"GET / HT");
        inbox.consume(4, &buffers);
        inbox.park(&buffers);
        assert_eq!((inbox.bytes(), inbox.kept.capacity()), (&b"/ HT"[..], 4));
        assert_eq!(buffers.read.borrow().len(), 1);
        put(&mut inbox, &buffers, b"TP/1.1");
        assert_eq!(inbox.bytes(), b"/ HTTP/1.1");
        inbox.consume(10, &buffers);
        assert!(inbox.leased.is_none() && inbox.kept.capacity() == 0);
        assert_eq!(buffers.read.borrow().len(), 1);
    }

    #[test]
    fn a_full_buffer_moves_its_bytes_to_the_front_then_grows() {
        let buffers = Buffers::default();
        let mut inbox = Inbox::default();
        put(&mut inbox, &buffers, &[b'x'; BUFFER_BYTES]);
        inbox.consume(10, &buffers);
        assert_eq!(inbox.room(&buffers).unwrap().len(), 10);
        inbox.filled(10);
        assert!(inbox.room(&buffers).is_none());
        inbox.grow();
        assert_eq!(inbox.room(&buffers).unwrap().len(), BUFFER_BYTES);
        assert_eq!(inbox.bytes().len(), BUFFER_BYTES);
    }

    /// The size of each of so many reads that fill their room, all consumed at once.
    fn reads(buffers: &Buffers, inbox: &mut Inbox, count: usize) -> Vec<usize> {
        let mut read = || {
            let n = inbox.room(buffers).unwrap().len();
            inbox.filled(n);
            inbox.consume(n, buffers);
            n
        };
        (0..count).map(|_| read()).collect()
    }

    #[test]
    fn reads_become_long_when_many_on_end_were_full_and_few_wait() {
        let buffers = Buffers::default();
        let mut inbox = Inbox::default();
        let (short, long) = (vec![BUFFER_BYTES; LONG_AFTER.into()], vec![LONG_BYTES; 3]);
        assert_eq!(reads(&buffers, &mut inbox, 35), [&short[..], &long].concat());
        assert_eq!((buffers.long.borrow().len(), buffers.read.borrow().len()), (1, 1));
        // One that was not full ends it.
        put(&mut inbox, &buffers, b"the last");
        inbox.consume(8, &buffers);
        assert_eq!(reads(&buffers, &mut inbox, 35), [&short[..], &long].concat());
        assert!(buffers.hold(2 * BUFFER_BYTES).is_none());
        let mut held: Vec<_> = (0..HELD_MAX).map(|_| buffers.hold(LONG_BYTES)).collect();
        assert_eq!(reads(&buffers, &mut inbox, 2), [BUFFER_BYTES; 2]);
        held.pop();
        assert_eq!(reads(&buffers, &mut inbox, 2), [LONG_BYTES; 2]);
    }

    #[test]
    fn few_long_buffers_are_kept() {
        let buffers = Buffers::default();
        for _ in 0..FREE_MAX {
            buffers.give_read(vec![0; LONG_BYTES].into_boxed_slice());
            buffers.give_write(Vec::with_capacity(LONG_BYTES));
        }
        let kept = (buffers.long.borrow().len(), buffers.write.borrow().len());
        assert_eq!(kept, (FREE_LONG_MAX, FREE_LONG_MAX));
    }
}
