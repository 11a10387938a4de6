use super::{FrameTracker, accept_key, close_frame, is_key};

const MASK: [u8; 4] = [1, 2, 3, 4];

/// A frame with that many bytes of payload, its length in 7 bits, 16 or 64 as `form` says.
fn frame(first: u8, form: u8, length: usize, mask: bool) -> Vec<u8> {
    let bit = u8::from(mask) << 7;
    let mut frame = vec![first];
    match form {
        126 => {
            frame.push(bit | 126);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        127 => {
            frame.push(bit | 127);
            frame.extend((length as u64).to_be_bytes());
        }
        _ => frame.push(bit | u8::try_from(length).unwrap()),
    }
    if mask {
        frame.extend(MASK);
    }
    // Looks like heads of frames, Close frames among them.
    frame.extend(std::iter::repeat_n(0x88, length));
    frame
}

/// Frames of every shape of head, with the boundaries between them.
fn many() -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::new();
    let mut ends = vec![0];
    for mask in [false, true] {
        for (form, length) in
            [(0, 0), (0, 1), (0, 125), (126, 0), (126, 126), (126, 300), (127, 0), (127, 3)]
        {
            for first in [0x01, 0x80, 0x82, 0x89, 0xff] {
                bytes.extend(frame(first, form, length, mask));
                ends.push(bytes.len());
            }
        }
    }
    (bytes, ends)
}

#[test]
fn keys() {
    // RFC 6455 §1.3 and §4.1; the second has bits set that encode nothing.
    for key in ["dGhlIHNhbXBsZSBub25jZQ==", "AQIDBAUGBwgJCgsMDQ4PEC==", "+/+/+/+/+/+/+/+/+/+/+w=="]
    {
        assert!(is_key(key.as_bytes()), "{key}");
    }
    for no in [
        "",
        "==",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25jZQ==a",
        "dGhlIHNhbXBsZSBub25jZQA==",
        "dGhlIHNhbXBsZSBub25jZQAA",
        "dGhlIHNhbXBsZSBub25jZ===",
        "dGhlIHNhbXBsZSBub25jZQ== ",
        "dGhlIHNhbXBsZSBub25j-_==",
        "dGhlIHNhbXBsZSBub25j, ==",
    ] {
        assert!(!is_key(no.as_bytes()), "{no}");
    }
}

#[test]
fn accepts() {
    // RFC 6455 §1.3.
    assert_eq!(&accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    // Computed with another implementation.
    assert_eq!(&accept_key(b"AQIDBAUGBwgJCgsMDQ4PEC=="), b"OfS0wDaT5NoxF2gqm7Zj2YtetzM=");
    assert_eq!(&accept_key(b""), b"Kfh9QIsMVZcl6xEPYxPHzW8SZ8w=");
    assert_eq!(accept_key(&[b'a'; 24]), accept_key(&[b'a'; 1000]));
}

#[test]
fn boundaries_where_the_bytes_come_one_by_one() {
    let (bytes, ends) = many();
    let mut tracker = FrameTracker::default();
    assert!(tracker.at_boundary());
    for (at, byte) in bytes.iter().enumerate() {
        tracker.feed(&[*byte]);
        assert_eq!(tracker.at_boundary(), ends.contains(&(at + 1)), "after {} bytes", at + 1);
    }
    assert!(!tracker.saw_close());
}

#[test]
fn boundaries_where_the_bytes_come_in_two_halves() {
    let (bytes, ends) = many();
    for split in 0..=bytes.len() {
        let (first, second) = bytes.split_at(split);
        let mut tracker = FrameTracker::default();
        tracker.feed(first);
        assert_eq!(tracker.at_boundary(), ends.contains(&split), "after {split}");
        // The first boundary from here on, in all that follows and in just too little of it.
        let next = ends.iter().find(|end| **end >= split).unwrap() - split;
        assert_eq!(tracker.boundary_in(second), Some(next), "from {split}");
        assert_eq!(tracker.boundary_in(&second[..next]), Some(next), "from {split}");
        if next > 0 {
            assert_eq!(tracker.boundary_in(&second[..next - 1]), None, "from {split}");
        }
        assert_eq!(tracker.at_boundary(), next == 0, "asking moves nothing");
        tracker.feed(second);
        assert!(tracker.at_boundary(), "split at {split}");
    }
}

#[test]
fn a_close_frame_has_passed_when_it_is_whole() {
    for mask in [false, true] {
        for (form, length) in [(0, 0), (0, 2), (0, 125), (126, 2), (127, 2)] {
            for first in [0x88, 0x08, 0xf8] {
                let whole = frame(first, form, length, mask);
                let mut tracker = FrameTracker::default();
                tracker.feed(&frame(0x81, 0, 5, mask));
                for byte in &whole {
                    assert!(!tracker.saw_close(), "{whole:x?}");
                    tracker.feed(&[*byte]);
                }
                assert!(tracker.saw_close() && tracker.at_boundary(), "{whole:x?}");
                tracker.feed(b"\x81");
                assert!(tracker.saw_close() && !tracker.at_boundary(), "it stays so");
            }
        }
    }
}

#[test]
fn lengths_that_make_no_sense_are_counted() {
    let mut tracker = FrameTracker::default();
    tracker.feed(b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04");
    for _ in 0..3 {
        tracker.feed(&[0x88; 1 << 16]);
        assert!(!tracker.at_boundary() && !tracker.saw_close());
        assert_eq!(tracker.boundary_in(&[0; 1 << 16]), None);
    }
}

#[test]
fn any_split_of_anything_ends_the_same() {
    let mut seed = 1_u64;
    let mut random = move || {
        // SplitMix64.
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    for _ in 0..2000 {
        let bytes: Vec<u8> = (0..200)
            .map(|_| match random() {
                // Mostly small, so that there are many frames.
                x if x & 3 == 0 => (x >> 8) as u8,
                x => (x >> 8) as u8 & 0x87,
            })
            .collect();
        let mut whole = FrameTracker::default();
        whole.feed(&bytes);
        let mut split = FrameTracker::default();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((random() % 40).min(rest.len() as u64) as usize);
            if let Some(end) = split.boundary_in(piece) {
                let mut cut = split.clone();
                cut.feed(&piece[..end]);
                assert!(cut.at_boundary(), "{bytes:x?}");
            }
            split.feed(piece);
            rest = after;
        }
        let state = |tracker: &FrameTracker| format!("{tracker:?}");
        assert_eq!(state(&whole), state(&split), "{bytes:x?}");
    }
}

#[test]
fn close_frames() {
    let (frame, length) = close_frame(1001, None);
    assert_eq!(&frame[..length], b"\x88\x02\x03\xe9");
    let (frame, length) = close_frame(1001, Some([0x0a, 0x0b, 0x0c, 0x0d]));
    assert_eq!(&frame[..length], b"\x88\x82\x0a\x0b\x0c\x0d\x09\xe2");
    for mask in [None, Some(MASK)] {
        let (frame, length) = close_frame(1000, mask);
        let mut tracker = FrameTracker::default();
        tracker.feed(&frame[..length]);
        assert!(tracker.saw_close() && tracker.at_boundary());
    }
}
