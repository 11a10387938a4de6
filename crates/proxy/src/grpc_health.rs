//! gRPC's health checking protocol (`grpc.health.v1.Health/Check`): one question, one answer.
//!
//! Both messages have one field, so they are written and read by hand.

pub(crate) const PATH: &str = "/grpc.health.v1.Health/Check";

/// `HealthCheckRequest { service = 1 }` as one message of a stream.
pub(crate) fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        // The length as a varint.
        let mut left = service.len();
        while left >= 0x80 {
            message.push(left as u8 | 0x80);
            left >>= 7;
        }
        message.push(left as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(&message);
    framed
}

/// Whether the answer is `HealthCheckResponse { status = SERVING }` with the status OK.
pub(crate) fn answer(status: Option<&[u8]>, body: &[u8]) -> Result<(), String> {
    match status {
        Some(b"0") => {}
        Some(status) => return Err(format!("grpc-status {}", status.escape_ascii())),
        None => return Err("no grpc-status".to_owned()),
    }
    let message = match body {
        [0, a, b, c, d, message @ ..] => {
            message.get(..u32::from_be_bytes([*a, *b, *c, *d]) as usize)
        }
        _ => None,
    };
    match message {
        Some([0x08, 1]) => Ok(()),
        Some([] | [0x08, 0]) => Err("its health is unknown".to_owned()),
        Some([0x08, 2]) => Err("it is not serving".to_owned()),
        Some([0x08, 3]) => Err("it does not know the service".to_owned()),
        _ => Err("the answer is no health of gRPC".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_one_message() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("a.B"), [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        let long = question(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn only_serving_is_well() {
        let of = |body: &[u8]| answer(Some(b"0"), body);
        assert_eq!(of(&[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        for (body, said) in [
            (&[0, 0, 0, 0, 0][..], "its health is unknown"),
            (&[0, 0, 0, 0, 2, 8, 2], "it is not serving"),
            (&[0, 0, 0, 0, 2, 8, 3], "it does not know the service"),
            (&[1, 0, 0, 0, 2, 8, 1], "the answer is no health of gRPC"),
            (&[0, 0, 0, 0, 9, 8, 1], "the answer is no health of gRPC"),
            (&[], "the answer is no health of gRPC"),
        ] {
            assert_eq!(of(body), Err(said.to_owned()), "{body:?}");
        }
        let serving = [0, 0, 0, 0, 2, 8, 1];
        assert_eq!(answer(Some(b"5"), &serving), Err("grpc-status 5".to_owned()));
        assert_eq!(answer(None, &serving), Err("no grpc-status".to_owned()));
    }
}
