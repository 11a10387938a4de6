//! What each chunked body decodes to, however it is cut.

use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::{BodyDecoder, encode_chunk, encode_last_chunk};
use portcullis_core::BodyLength;

/// Data, rest and trailers of a body that comes in pieces.
type Decoded = Result<(Vec<u8>, bool, Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>), BodyError>;

fn decode(pieces: &[&[u8]]) -> Decoded {
    let mut decoder = BodyDecoder::new(BodyLength::Unknown, true);
    let mut data = Vec::new();
    let mut rest = Vec::new();
    for piece in pieces {
        let mut at = 0;
        while at < piece.len() && !decoder.is_complete() {
            let step = decoder.decode(&piece[at..])?;
            assert!(step.consumed > 0 && step.data.end <= step.consumed, "{step:?}");
            assert_eq!(step.end, decoder.is_complete());
            data.extend_from_slice(&piece[at..][step.data]);
            at += step.consumed;
        }
        rest.extend_from_slice(&piece[at..]);
    }
    let trailers = decoder.trailers().into_iter().flat_map(Fields::iter);
    let trailers = trailers.map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    assert_eq!(decoder.finish().is_ok(), decoder.is_complete());
    Ok((data, decoder.is_complete(), rest, trailers))
}

fn verdict(input: &str) -> String {
    match decode(&[input.as_bytes()]) {
        Err(error) => format!("! {error}"),
        Ok((data, complete, rest, trailers)) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).escape_debug().to_string();
            let mut out = text(&data);
            for (name, value) in trailers {
                out += &format!(" [{}: {}]", text(&name), text(&value));
            }
            if !rest.is_empty() {
                out += &format!(" rest {}", text(&rest));
            }
            if complete { out } else { out + " ..." }
        }
    }
}

#[test]
fn the_coding_has_one_reading() {
    let inputs = [
        "0\r\n\r\n",
        "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        "A\r\n0123456789\r\n0\r\n\r\nGET / HTTP/1.1\r\n",
        "000a\r\n0123456789\r\n000\r\n\r\n",
        "3;foo=bar\r\nabc\r\n0\r\n\r\n",
        "3;a;b=\"c;\\\"\td\";e=f\r\nabc\r\n0;last\r\n\r\n",
        "3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
        "0\r\nX-T: 1\r\nHost: x\r\nContent-Length: 3\r\nContent_Length: 3\r\nGrpc-Status: 0\r\n\r\n",
        "0\r\nX:GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "0\r\nAuthorization: x\r\nX-Forwarded-Prefix: y\r\nSet-Cookie: z\r\nConnection: close\r\n\r\n",
        "5\r\nabc",
        "",
        "0_2e\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "-0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3 ;a\r\nabc\r\n0\r\n\r\n",
        "\r\n",
        "g\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "00000000000000003\r\nabc\r\n0\r\n\r\n",
        "8000000000000000\r\n",
        "7fffffffffffffff\r\nabc",
        "3\r\nabcdef\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\rabc\r\n0\r\n\r\n",
        "2;\nxx\r\n4c\r\nab\r\n0\r\n\r\n",
        "2;a\r\rXX\r\n0\r\n\r\n",
        "2\r\r;a\r\n02\r\n0\r\n\r\n",
        "2;\r\nab\r\n0\r\n\r\n",
        "2;a=\r\nab\r\n0\r\n\r\n",
        "2;a=\"b\r\nab\r\n0\r\n\r\n",
        "2;a=\"b\"c\r\nab\r\n0\r\n\r\n",
        "2;a b\r\nab\r\n0\r\n\r\n",
        "0\r\nX",
        "0\r\nXX\r\n\r\n",
        "0\r\nX-T: 1\n\r\n",
        "0\r\nX-T : 1\r\n\r\n",
        "0\r\nX-T: 1\r\n folded\r\n\r\n",
        "0\r\nX-T: a\0b\r\n\r\n",
        "0\r\n\n",
        "0\r\n\rX",
    ];
    let line = |input: &&str| format!("{} => {}\n", input.escape_debug(), verdict(input));
    expect![[r#"
        0\r\n\r\n => 
        3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n => abcde
        A\r\n0123456789\r\n0\r\n\r\nGET / HTTP/1.1\r\n => 0123456789 rest GET / HTTP/1.1\r\n
        000a\r\n0123456789\r\n000\r\n\r\n => 0123456789
        3;foo=bar\r\nabc\r\n0\r\n\r\n => abc
        3;a;b=\"c;\\\"\td\";e=f\r\nabc\r\n0;last\r\n\r\n => abc
        3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n => abc [X-T: 1]
        0\r\nX-T: 1\r\nHost: x\r\nContent-Length: 3\r\nContent_Length: 3\r\nGrpc-Status: 0\r\n\r\n =>  [X-T: 1] [Grpc-Status: 0]
        0\r\nX:GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n =>  [X: GET /smuggled HTTP/1.1]
        0\r\nAuthorization: x\r\nX-Forwarded-Prefix: y\r\nSet-Cookie: z\r\nConnection: close\r\n\r\n => 
        5\r\nabc => abc ...
         =>  ...
        0_2e\r\n\r\n => ! bad-chunk-size
        0x3\r\nabc\r\n0\r\n\r\n => ! bad-chunk-size
        -0\r\n\r\n => ! bad-chunk-size
        +3\r\nabc\r\n0\r\n\r\n => ! bad-chunk-size
         3\r\nabc\r\n0\r\n\r\n => ! bad-chunk-size
        3 \r\nabc\r\n0\r\n\r\n => ! bad-chunk-size
        3 ;a\r\nabc\r\n0\r\n\r\n => ! bad-chunk-size
        \r\n => ! bad-chunk-size
        g\r\n => ! bad-chunk-size
        10000000000000003\r\nabc\r\n0\r\n\r\n => ! bad-chunk-size
        00000000000000003\r\nabc\r\n0\r\n\r\n => ! bad-chunk-size
        8000000000000000\r\n => ! bad-chunk-size
        7fffffffffffffff\r\nabc => abc ...
        3\r\nabcdef\r\n0\r\n\r\n => ! bad-chunk-end
        3\r\nabc\n0\r\n\r\n => ! bad-chunk-end
        3\nabc\r\n0\r\n\r\n => ! bad-chunk-size
        3\r\rabc\r\n0\r\n\r\n => ! bad-chunk-size
        2;\nxx\r\n4c\r\nab\r\n0\r\n\r\n => ! bad-chunk-extension
        2;a\r\rXX\r\n0\r\n\r\n => ! bad-chunk-size
        2\r\r;a\r\n02\r\n0\r\n\r\n => ! bad-chunk-size
        2;\r\nab\r\n0\r\n\r\n => ! bad-chunk-extension
        2;a=\r\nab\r\n0\r\n\r\n => ! bad-chunk-extension
        2;a=\"b\r\nab\r\n0\r\n\r\n => ! bad-chunk-extension
        2;a=\"b\"c\r\nab\r\n0\r\n\r\n => ! bad-chunk-extension
        2;a b\r\nab\r\n0\r\n\r\n => ! bad-chunk-extension
        0\r\nX =>  ...
        0\r\nXX\r\n\r\n => ! bad-field-name
        0\r\nX-T: 1\n\r\n => ! bare-line-feed
        0\r\nX-T : 1\r\n\r\n => ! bad-field-name
        0\r\nX-T: 1\r\n folded\r\n\r\n => ! folded-line
        0\r\nX-T: a\0b\r\n\r\n => ! control-byte
        0\r\n\n => ! bare-line-feed
        0\r\n\rX => ! bad-chunk-end
    "#]].assert_eq(&inputs.iter().map(line).collect::<String>());
}

#[test]
fn extensions_and_trailers_are_bounded() {
    let long = "a".repeat(65_536);
    assert_eq!(decode(&[format!("3;{long}").as_bytes()]), Err(BodyError::ChunkExtensionsTooLong));
    let many = "1;aaaa=bbbbbb\r\nx\r\n".repeat(2000);
    assert_eq!(decode(&[many.as_bytes()]), Err(BodyError::ChunkExtensionsTooLong));
    assert_eq!(decode(&[format!("0\r\nX: {long}").as_bytes()]), Err(BodyError::TrailersTooLarge));
    let many = "x: y\r\n".repeat(33);
    assert_eq!(decode(&[format!("0\r\n{many}\r\n").as_bytes()]), Err(BodyError::TrailersTooLarge));
    let bare = b"0\r\nx: y\n".as_slice();
    assert_eq!(decode(&[bare]), Err(BodyError::BadTrailer(HeadError::BareLineFeed)));
}

#[test]
fn other_bodies_end_where_their_length_says() {
    let steps = |mut decoder: BodyDecoder, input: &[u8]| {
        let step = decoder.decode(input).unwrap();
        (step.consumed, step.data, step.end, decoder.finish().is_ok())
    };
    assert_eq!(steps(BodyDecoder::new(BodyLength::Empty, false), b"abc"), (0, 0..0, true, true));
    let known = |length| BodyDecoder::new(BodyLength::Known(length), false);
    assert_eq!(steps(known(2), b"abc"), (2, 0..2, true, true));
    assert_eq!(steps(known(3), b"abc"), (3, 0..3, true, true));
    assert_eq!(steps(known(4), b"abc"), (3, 0..3, false, false));
    let until_close = BodyDecoder::new(BodyLength::Unknown, false);
    assert_eq!(steps(until_close, b"abc"), (3, 0..3, false, true));
}

/// Mostly valid pieces of a chunked body, so that random bodies go deep into the machine.
fn chunked_text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just("3\r\nabc\r\n"), 2 => Just("1;a=\"b\"\r\nx\r\n"), 2 => Just("0\r\n\r\n"),
        2 => Just("0\r\nX-T: 1\r\n\r\n"), 1 => Just("5;a\r\n\r\n0\r\n\r\n"), 1 => Just("3"),
        1 => Just("\r\n"), 1 => Just(";"), 1 => Just("\n"), 1 => Just("0\r\nx"), 1 => Just("a"),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat().into_bytes())
}

fn cut(text: &[u8], mut cuts: Vec<usize>) -> Vec<&[u8]> {
    cuts.iter_mut().for_each(|at| *at %= text.len() + 1);
    cuts.extend([0, text.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn cuts_make_no_difference(
        text in prop_oneof![chunked_text(), any::<Vec<u8>>()],
        cuts: Vec<usize>,
    ) {
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        let whole = decode(&[&text]);
        prop_assert_eq!(&whole, &decode(&cut(&text, cuts)));
        prop_assert_eq!(&whole, &decode(&bytes));
    }

    #[test]
    fn what_is_encoded_decodes_to_itself(
        chunks in prop::collection::vec(any::<Vec<u8>>(), 0..6),
        trailer: Option<u8>,
    ) {
        let mut text = Vec::new();
        for chunk in &chunks {
            encode_chunk(chunk, &mut text);
        }
        let mut fields = Fields::default();
        if let Some(value) = trailer {
            fields.append(b"x-t", &[b'a', value, b'b']);
        }
        encode_last_chunk(Some(&fields), &mut text);
        let trailers: Vec<_> =
            fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        prop_assert_eq!(decode(&[&text]), Ok((chunks.concat(), true, Vec::new(), trailers)));
    }
}
