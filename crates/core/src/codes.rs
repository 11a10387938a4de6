//! Every problem the gateway can answer with. Codes are public and stable: clients branch on them.
//!
//! One line here, one page in `docs/problems/`.

/// Whose doing a failure is; the first thing an operator asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client sent something we refuse.
    Client,
    /// The backend failed, refused, or did not answer in time.
    Backend,
    /// We failed: a bug, or a limit of our own.
    Gateway,
}

/// One kind of problem (RFC 9457).
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// Kebab-case; the name of the page that explains it.
    pub name: &'static str,
    pub status: u16,
    /// One short phrase for people; the same for every occurrence (RFC 9457 §3.1.3).
    pub title: &'static str,
    pub fault: Fault,
}

macro_rules! codes {
    ($($constant:ident = $status:literal $fault:ident $name:literal $title:literal;)*) => {
        $(
            pub const $constant: &Code =
                &Code { name: $name, status: $status, title: $title, fault: Fault::$fault };
        )*
        /// All of them, in the order of their status.
        pub const ALL: &[&Code] = &[$($constant),*];
    };
}

codes! {
    MALFORMED_REQUEST = 400 Client "malformed-request" "The request is not well-formed HTTP";
    HOST_REFUSED = 400 Client "host-refused" "The host is missing or not valid";
    PATH_REFUSED = 400 Client "path-refused" "The path has a form that is not accepted";
    CREDENTIALS_AMBIGUOUS = 400 Client "credentials-ambiguous" "More than one credential was sent";
    LOGIN_FAILED = 400 Client "login-failed" "The login could not be completed";
    CREDENTIALS_MISSING = 401 Client "credentials-missing" "Credentials are required";
    CREDENTIALS_INVALID = 401 Client "credentials-invalid" "The credentials are not valid";
    CREDENTIALS_EXPIRED = 401 Client "credentials-expired" "The credentials have expired";
    DENIED = 403 Client "denied" "This resource is not served";
    ADDRESS_NOT_ALLOWED = 403 Client "address-not-allowed" "The client address is not allowed";
    INSUFFICIENT_SCOPE = 403 Client "insufficient-scope" "The credentials do not permit this";
    NOT_PERMITTED = 403 Client "not-permitted" "The credentials do not permit this";
    ORIGIN_NOT_ALLOWED = 403 Client "origin-not-allowed" "The origin is not allowed";
    NO_ROUTE = 404 Client "no-route" "Nothing is served here";
    METHOD_NOT_ALLOWED = 405 Client "method-not-allowed" "The method is not allowed here";
    REQUEST_TIMEOUT = 408 Client "request-timeout" "The request did not arrive in time";
    BODY_TOO_LARGE = 413 Client "body-too-large" "The body is too large";
    TARGET_TOO_LONG = 414 Client "target-too-long" "The request target is too long";
    EXPECTATION_FAILED = 417 Client "expectation-failed" "The expectation cannot be met";
    MISDIRECTED_REQUEST = 421 Client "misdirected-request" "This host is not served on this connection";
    RATE_LIMITED = 429 Client "rate-limited" "Too many requests";
    AUTHENTICATION_SLOWED = 429 Client "authentication-slowed" "Too many failed authentications";
    HEAD_TOO_LARGE = 431 Client "head-too-large" "The header fields are too large";
    INTERNAL = 500 Gateway "internal" "The gateway failed";
    BACKEND_UNREACHABLE = 502 Backend "backend-unreachable" "The backend cannot be reached";
    BACKEND_CLOSED = 502 Backend "backend-closed" "The backend closed the connection";
    BACKEND_MALFORMED = 502 Backend "backend-malformed" "The backend's answer is not valid";
    BACKEND_BODY_TOO_LARGE = 502 Backend "backend-body-too-large" "The backend's answer is too large";
    BACKEND_UNAVAILABLE = 503 Backend "backend-unavailable" "No endpoint of the backend is available";
    BACKEND_BUSY = 503 Backend "backend-busy" "The backend has no room for another request";
    OVERLOADED = 503 Gateway "overloaded" "The gateway has more to do than it can";
    BACKEND_CIRCUIT_OPEN = 503 Backend "backend-circuit-open" "Too many requests to the backend fail";
    KEYS_UNAVAILABLE = 503 Gateway "keys-unavailable" "Credentials cannot be checked right now";
    AUTHORIZER_UNAVAILABLE = 503 Gateway "authorizer-unavailable" "Permission cannot be checked right now";
    BACKEND_CREDENTIAL_UNAVAILABLE = 503 Gateway "backend-credential-unavailable" "The backend's credential cannot be had right now";
    FAULT_INJECTED = 503 Gateway "fault-injected" "The failure is made on purpose";
    LIMITS_UNAVAILABLE = 503 Gateway "limits-unavailable" "Limits cannot be checked right now";
    BACKEND_TIMEOUT = 504 Backend "backend-timeout" "The backend did not answer in time";
    VERSION_NOT_SUPPORTED = 505 Client "version-not-supported" "The HTTP version is not supported";
    LOOP_DETECTED = 508 Gateway "loop-detected" "The request goes in circles";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_statuses_fit_faults() {
        for (i, code) in ALL.iter().enumerate() {
            assert!(ALL[..i].iter().all(|other| other.name != code.name), "{}", code.name);
            let client = (400..500).contains(&code.status);
            assert!(!client || code.fault == Fault::Client, "{}", code.name);
        }
    }
}
