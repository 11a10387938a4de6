//! The Connection field: what it says of the connection, and which fields it takes with it.

use portcullis_core::known::Known;
use portcullis_core::{Fields, Span};

use crate::error::HeadError;
use crate::lines::Line;
use crate::scan;

/// More names than anybody nominates; each costs a pass over the fields.
const NOMINATED_MAX: usize = 16;

/// The options of all Connection fields of a head.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    nominated: [Span; NOMINATED_MAX],
    count: usize,
}

impl Options {
    pub(crate) fn add(&mut self, line: &Line<'_>) -> Result<(), HeadError> {
        let mut start = line.value.start as usize;
        for element in line.value_text.split(|byte| *byte == b',') {
            let option = scan::trim(element);
            if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else if !option.is_empty() {
                let slot = self.nominated.get_mut(self.count);
                *slot.ok_or(HeadError::TooManyConnectionOptions)? =
                    Span::new(start, start + element.len());
                self.count += 1;
            }
            start += element.len() + 1;
        }
        Ok(())
    }

    /// Removes the fields that the Connection fields named. `text` is what the spans count in.
    ///
    /// RFC 9110 §7.6.1 forbids senders to name fields that are meant for everybody, and to obey
    /// would let a client strip what others rely on, so `may_strip` has the last word.
    pub(crate) fn strip(&self, text: &[u8], fields: &mut Fields, may_strip: fn(Known) -> bool) {
        for span in &self.nominated[..self.count] {
            let option = scan::trim(span.of(text));
            fields
                .remove_if(|known, name, _| may_strip(known) && name.eq_ignore_ascii_case(option));
        }
    }

    /// Whether the connection may serve another message after this one (RFC 9112 §9.3).
    pub(crate) const fn persists(&self, http10: bool) -> bool {
        !self.close && (!http10 || self.keep_alive)
    }
}
