//! One request as one line of the access log.

use std::net::IpAddr;
use std::time::Duration;

use portcullis_core::hex;

use crate::digits::{push_address, push_decimal};
use crate::json::push_string;
use crate::timestamp::Stamp;

/// What the log says about one request. Absent things are left out of the line.
///
/// Query strings and header values are not logged, because they carry credentials; `user_agent` is
/// the exception that operators ask for.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When the head was complete, since 1970-01-01T00:00:00Z.
    pub time: Duration,
    pub request_id: &'a [u8],
    /// 0: none.
    pub trace_id: u128,
    /// The client's address by trusted hops.
    pub client: IpAddr,
    /// `auth-name/client`.
    pub identity: Option<&'a str>,
    pub tenant: Option<&'a str>,
    pub listener: &'a str,
    pub route: Option<&'a str>,
    pub backend: Option<&'a str>,
    /// Which variant of the route it was, where there are several.
    pub variant: Option<&'a str>,
    /// The URL of the endpoint that answered, or that failed last.
    pub endpoint: Option<&'a str>,
    /// What was done to it on purpose: `delay`, `abort` or `delay, abort`.
    pub fault: Option<&'a str>,
    pub method: &'a str,
    /// Canonical.
    pub host: &'a [u8],
    /// Canonical, as it was matched.
    pub path: &'a [u8],
    /// 0: the client was gone before there was one.
    pub status: u16,
    /// The code of a problem the gateway answered with.
    pub problem: Option<&'a str>,
    /// What only the operator may know about it.
    pub detail: Option<&'a str>,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// From the complete head to the last byte of the answer.
    pub duration: Duration,
    /// Of it, waiting for the backend, all attempts together.
    pub backend_duration: Option<Duration>,
    /// Of it, the gateway's own: what the request would not have taken without it.
    pub gateway_added: Duration,
    /// Attempts after the first.
    pub retries: u32,
    /// `HTTP/1.1`, …
    pub protocol: &'static str,
    /// `TLSv1.3`, …
    pub tls: Option<&'static str>,
    /// `config@N`, with `+override@M` where one was in force.
    pub config: &'a str,
    pub user_agent: Option<&'a [u8]>,
}

impl Record<'_> {
    /// Appends the line, with its newline. Allocates only while `out` still grows.
    pub fn write(&self, stamp: &mut Stamp, out: &mut Vec<u8>) {
        out.reserve(512);
        out.extend_from_slice(b"{\"time\":\"");
        out.extend_from_slice(stamp.text(self.time));
        out.extend_from_slice(b"\",\"request_id\":");
        push_string(out, self.request_id);
        if self.trace_id != 0 {
            out.extend_from_slice(b",\"trace_id\":\"");
            out.extend_from_slice(&hex::of_128(self.trace_id));
            out.push(b'"');
        }
        out.extend_from_slice(b",\"client\":\"");
        push_address(out, self.client);
        out.push(b'"');
        optional(out, b",\"identity\":", self.identity.map(str::as_bytes));
        optional(out, b",\"tenant\":", self.tenant.map(str::as_bytes));
        text(out, b",\"listener\":", self.listener.as_bytes());
        optional(out, b",\"route\":", self.route.map(str::as_bytes));
        optional(out, b",\"backend\":", self.backend.map(str::as_bytes));
        optional(out, b",\"variant\":", self.variant.map(str::as_bytes));
        optional(out, b",\"endpoint\":", self.endpoint.map(str::as_bytes));
        optional(out, b",\"fault\":", self.fault.map(str::as_bytes));
        text(out, b",\"method\":", self.method.as_bytes());
        text(out, b",\"host\":", self.host);
        text(out, b",\"path\":", self.path);
        if self.status != 0 {
            number(out, b",\"status\":", u64::from(self.status));
        }
        optional(out, b",\"problem\":", self.problem.map(str::as_bytes));
        optional(out, b",\"detail\":", self.detail.map(str::as_bytes));
        number(out, b",\"bytes_in\":", self.bytes_in);
        number(out, b",\"bytes_out\":", self.bytes_out);
        number(out, b",\"duration_us\":", micros(self.duration));
        if let Some(backend) = self.backend_duration {
            number(out, b",\"backend_us\":", micros(backend));
        }
        number(out, b",\"gateway_us\":", micros(self.gateway_added));
        number(out, b",\"retries\":", u64::from(self.retries));
        text(out, b",\"protocol\":", self.protocol.as_bytes());
        optional(out, b",\"tls\":", self.tls.map(str::as_bytes));
        text(out, b",\"config\":", self.config.as_bytes());
        optional(out, b",\"user_agent\":", self.user_agent);
        out.extend_from_slice(b"}\n");
    }
}

/// `key` comes with its comma, quotes and colon.
fn text(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.extend_from_slice(key);
    push_string(out, value);
}

fn optional(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    if let Some(value) = value {
        text(out, key, value);
    }
}

fn number(out: &mut Vec<u8>, key: &[u8], value: u64) {
    out.extend_from_slice(key);
    push_decimal(out, value);
}

fn micros(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(duration.subsec_micros()))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn full() -> Record<'static> {
        Record {
            time: Duration::from_millis(1_795_512_600_125),
            request_id: b"0af7651916cd43dd8448eb211c80319c",
            trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            client: IpAddr::from([192, 0, 2, 7]),
            identity: Some("idp/shop"),
            tenant: Some("acme"),
            listener: "https",
            route: Some("orders"),
            backend: Some("orders-v1"),
            variant: Some("stable"),
            endpoint: Some("http://10.0.0.1:8080"),
            fault: None,
            method: "GET",
            host: b"api.example.com",
            path: b"/orders/1",
            status: 200,
            problem: None,
            detail: None,
            bytes_in: 0,
            bytes_out: 512,
            duration: Duration::from_micros(1_840),
            backend_duration: Some(Duration::from_micros(1_790)),
            gateway_added: Duration::from_micros(50),
            retries: 0,
            protocol: "HTTP/1.1",
            tls: Some("TLSv1.3"),
            config: "config@7",
            user_agent: Some(b"curl/8.5.0"),
        }
    }

    fn line(record: &Record<'_>) -> String {
        let mut out = Vec::new();
        record.write(&mut Stamp::default(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_that_was_forwarded() {
        expect![[r#"
            {"time":"2026-11-24T09:30:00.125Z","request_id":"0af7651916cd43dd8448eb211c80319c","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","client":"192.0.2.7","identity":"idp/shop","tenant":"acme","listener":"https","route":"orders","backend":"orders-v1","variant":"stable","endpoint":"http://10.0.0.1:8080","method":"GET","host":"api.example.com","path":"/orders/1","status":200,"bytes_in":0,"bytes_out":512,"duration_us":1840,"backend_us":1790,"gateway_us":50,"retries":0,"protocol":"HTTP/1.1","tls":"TLSv1.3","config":"config@7","user_agent":"curl/8.5.0"}
        "#]]
        .assert_eq(&line(&full()));
    }

    #[test]
    fn a_request_that_was_refused_without_a_route() {
        let record = Record {
            trace_id: 0,
            identity: None,
            tenant: None,
            route: None,
            backend: None,
            variant: None,
            endpoint: None,
            status: 404,
            problem: Some("no-route"),
            detail: Some("host \"api.example.com\" has no such path"),
            backend_duration: None,
            tls: None,
            user_agent: None,
            ..full()
        };
        expect![[r#"
            {"time":"2026-11-24T09:30:00.125Z","request_id":"0af7651916cd43dd8448eb211c80319c","client":"192.0.2.7","listener":"https","method":"GET","host":"api.example.com","path":"/orders/1","status":404,"problem":"no-route","detail":"host \"api.example.com\" has no such path","bytes_in":0,"bytes_out":512,"duration_us":1840,"gateway_us":50,"retries":0,"protocol":"HTTP/1.1","config":"config@7"}
        "#]]
        .assert_eq(&line(&record));
    }

    #[test]
    fn a_request_that_failed_on_purpose() {
        let record = Record { fault: Some("delay, abort"), ..full() };
        assert!(line(&record).contains(r#""fault":"delay, abort","method""#));
    }

    proptest! {
        #[test]
        fn whatever_strangers_send_is_one_object_on_one_line(
            host in prop::collection::vec(any::<u8>(), 0..40),
            path in prop::collection::vec(any::<u8>(), 0..40),
            agent in prop::collection::vec(any::<u8>(), 0..40),
            identity: String,
            status in 0_u16..1000,
            micros: u64,
        ) {
            let record = Record {
                host: &host,
                path: &path,
                user_agent: Some(&agent),
                identity: Some(&identity),
                status,
                duration: Duration::from_micros(micros),
                ..full()
            };
            let line = line(&record);
            prop_assert_eq!(line.matches('\n').count(), 1);
            let read: Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(read["identity"].as_str(), Some(identity.as_str()));
            prop_assert_eq!(read["duration_us"].as_u64(), Some(micros));
            prop_assert_eq!(read.as_object().unwrap().len(), if status == 0 { 24 } else { 25 });
        }
    }
}
