//! Read buffers that belong to the worker and are leased while there is something in them.
//!
//! An idle connection holds none. One that waits with half a message keeps a copy of those bytes
//! and nothing else.

use std::cell::RefCell;

/// Bytes read at once. Two TLS records, or most responses whole.
pub(crate) const BUFFER_BYTES: usize = 32 * 1024;

/// Free buffers a worker keeps; more are given back to the allocator.
const FREE_MAX: usize = 64;

/// Free lists of one worker, last in first out, so that what is used is warm.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    read: RefCell<Vec<Box<[u8]>>>,
    write: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    pub(crate) fn lease_read(&self) -> Box<[u8]> {
        self.read.borrow_mut().pop().unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice())
    }

    pub(crate) fn give_read(&self, buffer: Box<[u8]>) {
        let mut free = self.read.borrow_mut();
        if free.len() < FREE_MAX && buffer.len() == BUFFER_BYTES {
            free.push(buffer);
        }
    }

    pub(crate) fn lease_write(&self) -> Vec<u8> {
        self.write.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn give_write(&self, mut buffer: Vec<u8>) {
        let mut free = self.write.borrow_mut();
        if free.len() < FREE_MAX && (1..=4 * BUFFER_BYTES).contains(&buffer.capacity()) {
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
            let mut buffer = buffers.lease_read();
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
}
