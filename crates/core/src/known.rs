//! Names of the fields that the gateway itself reads or writes, recognised once when parsed.

macro_rules! known {
    ($($variant:ident = $name:literal,)*) => {
        /// A field name the gateway has business with. Everything else is `Other`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum Known {
            #[default]
            Other,
            $($variant,)*
        }

        impl Known {
            /// Compares without case (RFC 9110 §5.1).
            #[must_use]
            pub fn of(name: &[u8]) -> Self {
                // The first byte and the length rule out nearly everything before a comparison.
                $(if name.len() == $name.len() && name.eq_ignore_ascii_case($name) {
                    return Self::$variant;
                })*
                Self::Other
            }

            /// The name in lower case; empty for `Other`.
            #[must_use]
            pub const fn name(self) -> &'static [u8] {
                match self {
                    Self::Other => b"",
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

known! {
    AcceptEncoding = b"accept-encoding",
    Age = b"age",
    Authorization = b"authorization",
    CacheControl = b"cache-control",
    Connection = b"connection",
    ContentLength = b"content-length",
    ContentType = b"content-type",
    Cookie = b"cookie",
    Date = b"date",
    Expect = b"expect",
    Forwarded = b"forwarded",
    Host = b"host",
    Http2Settings = b"http2-settings",
    KeepAlive = b"keep-alive",
    Origin = b"origin",
    ProxyAuthenticate = b"proxy-authenticate",
    ProxyAuthorization = b"proxy-authorization",
    ProxyConnection = b"proxy-connection",
    Te = b"te",
    Traceparent = b"traceparent",
    Tracestate = b"tracestate",
    Trailer = b"trailer",
    TransferEncoding = b"transfer-encoding",
    Upgrade = b"upgrade",
    UserAgent = b"user-agent",
    Via = b"via",
    XForwardedFor = b"x-forwarded-for",
    XForwardedHost = b"x-forwarded-host",
    XForwardedProto = b"x-forwarded-proto",
    XRequestId = b"x-request-id",
}

impl Known {
    /// Fields that concern one connection only and never travel on (RFC 9110 §7.6.1).
    #[must_use]
    pub const fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::Http2Settings
                | Self::KeepAlive
                | Self::ProxyAuthenticate
                | Self::ProxyAuthorization
                | Self::ProxyConnection
                | Self::Te
                | Self::Trailer
                | Self::TransferEncoding
                | Self::Upgrade
        )
    }
}

impl Known {
    /// The name that a backend might read in this one though it is another: see [`is_alias`].
    #[must_use]
    pub fn aliased_by(name: &[u8]) -> Option<Self> {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        if name.iter().all(is_plain) || name.len() > NAME_BYTES_MAX {
            return None;
        }
        let mut folded = [0; NAME_BYTES_MAX];
        for (to, from) in folded.iter_mut().zip(name) {
            *to = if is_plain(from) { *from } else { b'-' };
        }
        Some(Self::of(&folded[..name.len()])).filter(|known| *known != Self::Other)
    }
}

/// Of the longest name above.
const NAME_BYTES_MAX: usize = 19;

/// Whether a backend might take `name` for `owned`: the same without case, once every byte that is
/// neither letter nor digit reads as `-` (CGI and its heirs turn `-` into `_`, some turn `.` too).
///
/// Holds for `owned` itself as well.
#[must_use]
pub fn is_alias(name: &[u8], owned: &[u8]) -> bool {
    let fold = |byte: &u8| {
        if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
    };
    name.len() == owned.len() && name.iter().map(fold).eq(owned.iter().map(fold))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn underscore_dot_and_case_do_not_make_another_name() {
        for name in ["x-gw-identity", "X_Gw_Identity", "x.gw.identity", "X gw-IDENTITY"] {
            assert!(is_alias(name.as_bytes(), b"x-gw-identity"), "{name}");
        }
        for name in ["x-gw-identit", "xx-gw-identity", "xxgw-identity", ""] {
            assert!(!is_alias(name.as_bytes(), b"x-gw-identity"), "{name}");
        }
    }

    #[test]
    fn an_alias_names_what_it_could_be_taken_for() {
        for (name, known) in [
            (&b"HTTP2%Settings"[..], Some(Known::Http2Settings)),
            (b"Keep_Alive", Some(Known::KeepAlive)),
            (b"proxy.authorization", Some(Known::ProxyAuthorization)),
            (b"Keep-Alive", None),
            (b"x_other", None),
            (b"x_longer_than_any_name_that_is_known", None),
        ] {
            assert_eq!(Known::aliased_by(name), known, "{}", name.escape_ascii());
        }
        for known in [Known::ProxyAuthorization, Known::ProxyAuthenticate, Known::TransferEncoding]
        {
            assert!(known.name().len() <= NAME_BYTES_MAX);
        }
    }
}
