//! What counters and tables are found by: hashes under a secret that lives as long as the state.
//!
//! A compile has no randomness, so the secret is drawn from [`Services::random`] at first use. It
//! is carried from snapshot to snapshot, since another secret would mean other counters.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use portcullis_core::Services;
use portcullis_core::carry::Carry;
use serde_json::Value;

use crate::sip::Sip;

/// The secret, shared by all that hash under it.
#[derive(Clone, Debug)]
pub(crate) struct Secret(Arc<OnceLock<[u64; 2]>>);

impl Secret {
    /// The one of this process.
    pub(crate) fn of(carry: &mut Carry) -> Self {
        Self(carry.keep("policies", "secret", &(), OnceLock::new))
    }

    /// A hash in progress. `purpose` keeps users of the same secret apart.
    pub(crate) fn hasher(&self, services: &dyn Services, purpose: u64) -> KeyHasher {
        let [k0, k1] = self.0.get_or_init(|| {
            let mut bytes = [[0; 8]; 2];
            services.random(bytes.as_flattened_mut());
            bytes.map(u64::from_le_bytes)
        });
        KeyHasher(Sip::new([k0 ^ purpose, *k1]))
    }
}

/// Absorbs the parts of a key. Every part is marked, so that no two lists of parts are alike.
#[derive(Clone, Debug)]
pub(crate) struct KeyHasher(Sip);

impl KeyHasher {
    pub(crate) fn number(&mut self, number: u64) {
        self.0.write(&number.to_le_bytes());
    }

    pub(crate) fn text(&mut self, text: &[u8]) {
        self.0.write_text(text);
    }

    /// One IPv4 address, or one IPv6 network of 64 bits: the least that one customer is given.
    pub(crate) fn address(&mut self, address: IpAddr) {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.number(u64::from(v4.to_bits())),
            IpAddr::V6(v6) => {
                self.number(6 << 32);
                self.number((v6.to_bits() >> 64) as u64);
            }
        }
    }

    /// A claim, in the form it has in the token: `1` and `"1"` differ.
    pub(crate) fn json(&mut self, value: &Value) {
        match value {
            Value::Null => self.number(0),
            Value::Bool(value) => self.number(1 + u64::from(*value)),
            Value::Number(number) => {
                self.number(3);
                let whole = number.as_i64().map(|n| n as u64).or(number.as_u64());
                self.number(whole.or(number.as_f64().map(f64::to_bits)).unwrap_or_default());
            }
            Value::String(text) => {
                self.number(4);
                self.text(text.as_bytes());
            }
            Value::Array(items) => {
                self.number(5);
                self.number(items.len() as u64);
                items.iter().for_each(|item| self.json(item));
            }
            Value::Object(map) => {
                self.number(6);
                self.number(map.len() as u64);
                for (name, value) in map {
                    self.text(name.as_bytes());
                    self.json(value);
                }
            }
        }
    }

    pub(crate) fn finish(self) -> u128 {
        self.0.finish()
    }
}
