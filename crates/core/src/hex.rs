//! Numbers and bytes as lower-case hexadecimal digits, all of them.

/// Two digits for each byte.
#[must_use]
pub fn of_bytes(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect()
}

/// 16 digits.
#[must_use]
pub const fn of_64(number: u64) -> [u8; 16] {
    let (high, low) = (digits((number >> 32) as u32), digits(number as u32));
    (((high as u128) << 64) | low as u128).to_be_bytes()
}

/// 32 digits.
#[must_use]
pub fn of_128(number: u128) -> [u8; 32] {
    let mut text = [0; 32];
    let (high, low) = text.split_at_mut(16);
    high.copy_from_slice(&of_64((number >> 64) as u64));
    low.copy_from_slice(&of_64(number as u64));
    text
}

/// Eight digits at once, the first in the highest byte.
const fn digits(number: u32) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut spread = number as u64;
    spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    spread = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // Letters begin 39 places after where the digits end.
    let letters = ((spread + ONES * 6) >> 4) & ONES;
    spread + ONES * b'0' as u64 + letters * 39
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_are_as_the_formatter_writes_them(number: u128) {
            let text = |digits: &[u8]| String::from_utf8_lossy(digits).into_owned();
            prop_assert_eq!(text(&of_128(number)), format!("{number:032x}"));
            prop_assert_eq!(text(&of_64(number as u64)), format!("{:016x}", number as u64));
        }
    }
}
