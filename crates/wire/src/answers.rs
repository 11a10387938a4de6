//! Responses of HTTP/1.1 as a client that knows no mercy sees them: what is whole, and what is not.

/// One response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Status line and fields, without the empty line.
    pub head: Vec<u8>,
    /// As much of it as came, without chunk sizes.
    pub body: Vec<u8>,
    /// Its framing says that nothing is missing. Never true of a body that the end of the
    /// connection ends.
    pub whole: bool,
    /// The body ends with the connection.
    pub until_close: bool,
}

impl Answer {
    /// The field's value, in lower case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<String> {
        let head = String::from_utf8_lossy(&self.head).to_ascii_lowercase();
        head.split("\r\n").skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            (found == name).then(|| value.trim().to_owned())
        })
    }
}

/// The final responses in a stream, to requests of these methods; the last method goes for all
/// that follow. What is no response ends the list.
#[must_use]
pub fn answers(stream: &[u8], methods: &[Vec<u8>]) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut rest = stream;
    while let Some(end) = find(rest, b"\r\n\r\n") {
        let head = &rest[..end];
        let Some(status) = status(head) else { break };
        rest = &rest[end + 4..];
        if status < 200 && status != 101 {
            continue;
        }
        let method = methods.get(answers.len()).or(methods.last());
        let mut answer = Answer { status, head: head.to_vec(), ..Answer::default() };
        let taken = if matches!(status, 204 | 304) || method.is_some_and(|method| method == b"HEAD")
        {
            answer.whole = true;
            0
        } else {
            body(rest, &mut answer)
        };
        answers.push(answer);
        rest = &rest[taken..];
    }
    answers
}

fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.1 ").or(head.strip_prefix(b"HTTP/1.0 "))?;
    std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()
}

/// Reads a body; says how many bytes it takes.
fn body(rest: &[u8], answer: &mut Answer) -> usize {
    let chunked = answer.field("transfer-encoding").is_some_and(|value| value.contains("chunked"));
    let length = answer.field("content-length").and_then(|value| value.parse::<usize>().ok());
    match length {
        _ if answer.status == 101 => {}
        _ if chunked => return chunks(rest, answer),
        Some(length) => {
            let taken = length.min(rest.len());
            answer.body = rest[..taken].to_vec();
            answer.whole = taken == length;
            return taken;
        }
        None => {}
    }
    answer.body = rest.to_vec();
    answer.until_close = true;
    rest.len()
}

fn chunks(rest: &[u8], answer: &mut Answer) -> usize {
    let mut at = 0;
    loop {
        let Some(end) = find(&rest[at..], b"\r\n") else { return rest.len() };
        let line = String::from_utf8_lossy(&rest[at..at + end]).into_owned();
        let size = usize::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16);
        let Ok(size) = size else { return rest.len() };
        at += end + 2;
        if size == 0 {
            // Trailers, if any, and the empty line.
            let Some(end) = find(&rest[at - 2..], b"\r\n\r\n") else { return rest.len() };
            answer.whole = true;
            return at + end + 2;
        }
        let Some(data) = rest.get(at..at + size) else { return rest.len() };
        answer.body.extend_from_slice(data);
        at = (at + size + 2).min(rest.len());
    }
}

pub(crate) fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|part| part == word)
}

/// The methods of the requests in what a client sends, as far as lines look like requests.
#[must_use]
pub fn methods(sent: &[u8]) -> Vec<Vec<u8>> {
    let request = |line: &[u8]| {
        let method = line.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
        let rest = &line[method..];
        let is = rest.starts_with(b" ") && find(rest, b" HTTP/1").is_some();
        (is && (3..=8).contains(&method)).then(|| line[..method].to_vec())
    };
    sent.split(|byte| *byte == b'\n').filter_map(request).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(stream: &str) -> Vec<(u16, String, bool)> {
        let text = |answer: &Answer| String::from_utf8_lossy(&answer.body).into_owned();
        let all = answers(stream.as_bytes(), &[b"GET".to_vec()]);
        all.iter().map(|answer| (answer.status, text(answer), answer.whole)).collect()
    }

    #[test]
    fn what_is_whole_is_known_by_its_framing() {
        let ok = "HTTP/1.1 200 OK\r\n";
        let is = |status, body: &str, whole| (status, body.to_owned(), whole);
        assert_eq!(seen(&format!("{ok}Content-Length: 3\r\n\r\nabc")), [is(200, "abc", true)]);
        assert_eq!(seen(&format!("{ok}Content-Length: 4\r\n\r\nabc")), [is(200, "abc", false)]);
        assert_eq!(seen(&format!("{ok}\r\nabc")), [is(200, "abc", false)]);
        let chunked = format!("{ok}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        assert_eq!(seen(&chunked), [is(200, "abc", false)]);
        assert_eq!(seen(&format!("{chunked}0\r\n")), [is(200, "abc", false)]);
        assert_eq!(
            seen(&format!("{chunked}0\r\nA: b\r\n\r\n{ok}Content-Length: 0\r\n\r\n")),
            [is(200, "abc", true), is(200, "", true)]
        );
        let hints = format!("HTTP/1.1 103 x\r\nA: b\r\n\r\n{ok}Content-Length: 0\r\n\r\n");
        assert_eq!(seen(&hints), [is(200, "", true)]);
        assert_eq!(seen("HTTP/1.1 204 x\r\n\r\nrubbish"), [is(204, "", true)]);
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let sent = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET /a HTTP/1.1\r\n\r\n";
        assert_eq!(methods(sent), [b"HEAD".to_vec(), b"GET".to_vec()]);
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        let all = answers(format!("{head}{head}abc").as_bytes(), &methods(sent));
        assert_eq!(all.iter().map(|one| &one.body[..]).collect::<Vec<_>>(), [&b""[..], b"abc"]);
        assert!(all.iter().all(|answer| answer.whole));
    }
}
