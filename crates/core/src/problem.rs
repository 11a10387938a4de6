//! What the gateway says to a client when it answers in the backend's place (RFC 9457).

use std::fmt::{self, Write as _};

use bytes::Bytes;
use http::StatusCode;

use crate::codes::Code;
use crate::grpc;
use crate::head::ResponseHead;
use crate::policy::{Reply, ReplyBody};

/// One refusal or failure, with one half for the client and one half for the log.
///
/// The code's name and title are public. `detail` is private: it never leaves the process except
/// through the access log and `explain`.
#[derive(Debug)]
pub struct Problem {
    pub code: &'static Code,
    pub detail: String,
    /// Fields the status asks for: `retry-after`, `www-authenticate`, `allow`, …
    pub fields: Vec<(&'static str, String)>,
    /// In place of what the code says.
    answered: Option<StatusCode>,
    grpc_status: Option<u8>,
}

impl Problem {
    #[must_use]
    pub fn new(code: &'static Code) -> Self {
        let (detail, fields) = (String::new(), Vec::new());
        Self { code, detail, fields, answered: None, grpc_status: None }
    }

    /// Adds what only the operator may see.
    #[must_use]
    pub fn detail(mut self, detail: impl fmt::Display) -> Self {
        self.detail = detail.to_string();
        self
    }

    #[must_use]
    pub fn field(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// Answers with another status than the code's, for a failure that stands for another one.
    /// gRPC callers are told `grpc_status`, or what says the same.
    #[must_use]
    pub fn answered(self, status: StatusCode, grpc_status: Option<u8>) -> Self {
        Self { answered: Some(status), grpc_status, ..self }
    }

    /// When to come back, in whole seconds; at least one (RFC 9110 §10.2.3).
    #[must_use]
    pub fn retry_after(self, wait: std::time::Duration) -> Self {
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        self.field("retry-after", seconds.to_string())
    }

    #[must_use]
    pub fn status(&self) -> StatusCode {
        let of_code = || StatusCode::from_u16(self.code.status);
        self.answered.map_or_else(of_code, Ok).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// With [`Self::into_grpc_reply`] the only place where a problem turns into bytes.
    #[must_use]
    pub fn into_reply(self, request_id: &str) -> Reply {
        let answered = self.status();
        let mut head = ResponseHead::new(answered);
        head.fields.append(b"content-type", b"application/problem+json");
        head.fields.append(b"cache-control", b"no-store");
        for (name, value) in &self.fields {
            head.fields.append(name.as_bytes(), value.as_bytes());
        }
        let (Code { name, title, .. }, status) = (self.code, answered.as_u16());
        let mut body = String::with_capacity(256);
        // Names and titles are constants without quotes and ids are hexadecimal: nothing to escape.
        write!(
            body,
            r#"{{"type":"urn:portcullis:problem:{name}","title":"{title}","status":{status},"code":"{name}","request_id":"{request_id}"}}"#
        )
        .unwrap_or_default();
        Reply { head, body: ReplyBody::Bytes(Bytes::from(body)) }
    }

    /// The same for a gRPC caller: a "Trailers-Only" answer, whose status is in the head.
    #[must_use]
    pub fn into_grpc_reply(self, request_id: &str) -> Reply {
        let mut head = ResponseHead::new(StatusCode::OK);
        head.fields.append(b"content-type", grpc::CONTENT_TYPE);
        let Code { name, title, .. } = self.code;
        let status = self.grpc_status.unwrap_or(grpc::status_of(self.status().as_u16()));
        head.fields.append(b"grpc-status", status.to_string().as_bytes());
        let message = format!("{title} ({name}, request {request_id})");
        head.fields.append(b"grpc-message", grpc::message(&message).as_bytes());
        for (name, value) in &self.fields {
            head.fields.append(name.as_bytes(), value.as_bytes());
        }
        Reply { head, body: ReplyBody::Bytes(Bytes::new()) }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::codes;

    fn lines(reply: &Reply) -> Vec<String> {
        let line = |(name, value): (&[u8], &[u8])| {
            format!("{}: {}", name.escape_ascii(), value.escape_ascii())
        };
        reply.head.fields.iter().map(line).collect()
    }

    #[test]
    fn a_grpc_caller_reads_the_problem_in_the_head() {
        let problem = Problem::new(codes::RATE_LIMITED)
            .detail("client 192.0.2.7 over 10/s")
            .field("retry-after", "2");
        let reply = problem.into_grpc_reply("c0ffee");
        assert_eq!(reply.head.status, StatusCode::OK);
        expect![[r#"
            content-type: application/grpc
            grpc-status: 8
            grpc-message: Too many requests (rate-limited, request c0ffee)
            retry-after: 2"#]]
        .assert_eq(&lines(&reply).join("\n"));
        let ReplyBody::Bytes(body) = reply.body else { unreachable!() };
        assert!(body.is_empty());
    }

    /// A failure that stands for another one looks like it in both protocols.
    #[test]
    fn another_status_than_the_codes_is_that_of_the_whole_answer() {
        let status = |grpc_status| {
            let problem = Problem::new(codes::FAULT_INJECTED);
            problem.answered(StatusCode::TOO_MANY_REQUESTS, grpc_status)
        };
        let reply = status(None).into_reply("c0ffee");
        let ReplyBody::Bytes(body) = reply.body else { unreachable!() };
        assert_eq!(reply.head.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(body.windows(12).any(|part| part == b"\"status\":429"));
        let told = |grpc_status| lines(&status(grpc_status).into_grpc_reply("c0ffee"));
        assert_eq!(told(None)[1], "grpc-status: 8");
        assert_eq!(told(Some(4))[1], "grpc-status: 4");
    }

    #[test]
    fn the_detail_stays_inside() {
        let problem = Problem::new(codes::RATE_LIMITED)
            .detail("client 192.0.2.7 over 10/s")
            .retry_after(std::time::Duration::from_millis(1200));
        let reply = problem.into_reply("c0ffee");
        let fields = lines(&reply);
        let ReplyBody::Bytes(body) = reply.body else { unreachable!() };
        expect![[r#"
            429
            content-type: application/problem+json
            cache-control: no-store
            retry-after: 2
            {"type":"urn:portcullis:problem:rate-limited","title":"Too many requests","status":429,"code":"rate-limited","request_id":"c0ffee"}"#]]
        .assert_eq(&format!("{}\n{}\n{}", reply.head.status.as_u16(), fields.join("\n"), body.escape_ascii().to_string().replace("\\\"", "\"")));
    }
}
