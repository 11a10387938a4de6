//! Numbers and addresses as text, appended without the formatting machinery.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portcullis_core::hex;

pub(crate) const HEX: &[u8; 16] = b"0123456789abcdef";

/// `00` to `99`.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    pairs
};

/// The two digits of a number below 100.
pub(crate) const fn pair(number: u64) -> [u8; 2] {
    PAIRS[(number % 100) as usize]
}

pub(crate) fn push_decimal(out: &mut Vec<u8>, number: u64) {
    // Most are small.
    if number < 10 {
        return out.push(b'0' + number as u8);
    }
    if number < 1_000 {
        let [tens, units] = pair(number);
        return match number / 100 {
            0 => out.extend_from_slice(&[tens, units]),
            hundreds => out.extend_from_slice(&[b'0' + hundreds as u8, tens, units]),
        };
    }
    // u64::MAX has 20 digits.
    let mut text = [0; 20];
    let mut at = text.len();
    let mut left = number;
    while left >= 10 {
        at -= 2;
        text[at..at + 2].copy_from_slice(&pair(left));
        left /= 100;
    }
    // A lone leading digit; zero only for the number zero itself.
    if left > 0 || number == 0 {
        at -= 1;
        text[at] = b'0' + left as u8;
    }
    out.extend_from_slice(&text[at..]);
}

/// As `Display` of [`IpAddr`], which is RFC 5952.
pub(crate) fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => push_v4(out, address),
        IpAddr::V6(address) => push_v6(out, address),
    }
}

fn push_v4(out: &mut Vec<u8>, address: Ipv4Addr) {
    for (i, octet) in address.octets().into_iter().enumerate() {
        if i > 0 {
            out.push(b'.');
        }
        push_decimal(out, u64::from(octet));
    }
}

fn push_v6(out: &mut Vec<u8>, address: Ipv6Addr) {
    if let Some(mapped) = address.to_ipv4_mapped() {
        out.extend_from_slice(b"::ffff:");
        return push_v4(out, mapped);
    }
    let groups = address.segments();
    let (zeros, count) = longest_zeros(&groups);
    let mut i = 0;
    while i < groups.len() {
        if count > 1 && i == zeros {
            out.extend_from_slice(b"::");
            i += count;
            continue;
        }
        if i > 0 && !out.ends_with(b"::") {
            out.push(b':');
        }
        let digits = hex::of_64(u64::from(groups[i]));
        let leading = (groups[i].leading_zeros() / 4).min(3) as usize;
        out.extend_from_slice(&digits[12 + leading..]);
        i += 1;
    }
}

/// Where the first longest run of zero groups begins, and its length.
fn longest_zeros(groups: &[u16; 8]) -> (usize, usize) {
    let mut best = (0, 0);
    let mut start = 0;
    for (i, group) in groups.iter().enumerate() {
        if *group != 0 {
            start = i + 1;
        } else if i + 1 - start > best.1 {
            best = (start, i + 1 - start);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b"::".to_vec();
        out.clear();
        push(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_at_their_edges() {
        for number in [0, 9, 10, 99, 100, 101, 999, 1000, 1_234_567, u64::MAX] {
            assert_eq!(text(|out| push_decimal(out, number)), number.to_string());
        }
    }

    proptest! {
        #[test]
        fn numbers_and_addresses_read_as_the_standard_library_writes_them(
            number: u64,
            v4: [u8; 4],
            // Few values, so that runs of zeros come up.
            groups in prop::array::uniform8(prop::sample::select(vec![0_u16, 0, 0, 1, 0x20, 0xabc, 0xffff])),
        ) {
            prop_assert_eq!(text(|out| push_decimal(out, number)), number.to_string());
            for address in [IpAddr::from(v4), IpAddr::from(groups)] {
                prop_assert_eq!(text(|out| push_address(out, address)), address.to_string());
            }
        }
    }
}
