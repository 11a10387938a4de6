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
            /// The name in lower case; empty for `Other`.
            #[must_use]
            pub const fn name(self) -> &'static [u8] {
                match self {
                    Self::Other => b"",
                    $(Self::$variant => $name,)*
                }
            }
        }

        const ALL: &[Known] = &[$(Known::$variant,)*];
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

/// Every name in a place of its own: one comparison tells whether a name is known.
static TABLE: [(&[u8], Known); 64] = {
    let mut table: [(&[u8], Known); 64] = [(b"", Known::Other); 64];
    let mut i = 0;
    while i < ALL.len() {
        let name = ALL[i].name();
        let place = place(name);
        assert!(table[place].0.is_empty(), "two names in one place: change the factors");
        table[place] = (name, ALL[i]);
        i += 1;
    }
    table
};

/// The same for a name in any case.
const fn place(name: &[u8]) -> usize {
    let (Some(first), Some(last)) = (name.first(), name.last()) else { return 0 };
    (name.len() + (*first | 0x20) as usize * 26 + (*last | 0x20) as usize * 12) % 64
}

/// Compares without case; `lower` is in lower case. Several bytes at once, since this is done for
/// every field of every message.
pub(crate) fn is_same(name: &[u8], lower: &[u8]) -> bool {
    if name.len() != lower.len() {
        return false;
    }
    // What is left over is looked at together with what came before it.
    if let (Some(last), Some(lower_last)) = (name.last_chunk(), lower.last_chunk()) {
        let (words, _) = name.as_chunks();
        let (lower_words, _) = lower.as_chunks();
        let is_same = |(word, lower): (&[u8; 8], &[u8; 8])| {
            to_lower(u64::from_ne_bytes(*word)) == u64::from_ne_bytes(*lower)
        };
        return words.iter().zip(lower_words).all(is_same) && is_same((last, lower_last));
    }
    name.iter().zip(lower).all(|(byte, lower)| byte.to_ascii_lowercase() == *lower)
}

/// Eight bytes, each as [`u8::to_ascii_lowercase`] has it.
const fn to_lower(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low = word & (ONES * 0x7f);
    let from_a = low + ONES * (0x80 - b'A' as u64);
    let beyond_z = low + ONES * (0x7f - b'Z' as u64);
    let upper = from_a & !beyond_z & !word & (ONES * 0x80);
    word | upper >> 2
}

impl Known {
    /// Compares without case (RFC 9110 §5.1).
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let (known_name, known) = TABLE[place(name)];
        if is_same(name, known_name) { known } else { Self::Other }
    }

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
    fn words_are_lowered_like_bytes() {
        for byte in 0..=255 {
            let word = [byte, b'A', 0xc1, b'Z', b'@', b'[', 0xff, byte];
            let lowered = to_lower(u64::from_ne_bytes(word)).to_ne_bytes();
            assert_eq!(lowered, word.map(|byte| byte.to_ascii_lowercase()));
        }
    }

    #[test]
    fn every_name_is_known_in_any_case_and_nothing_like_it_is() {
        for known in ALL {
            let name = known.name();
            assert_eq!((Known::of(name), Known::of(&name.to_ascii_uppercase())), (*known, *known));
            for at in 0..name.len() {
                let mut other = name.to_vec();
                other[at] ^= 1;
                assert_ne!(Known::of(&other), *known);
            }
        }
        assert_eq!((Known::of(b""), Known::of(b"x")), (Known::Other, Known::Other));
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
        for known in ALL.iter().filter(|known| known.name().contains(&b'-')) {
            let alias = known.name().escape_ascii().to_string().replace('-', "_");
            assert_eq!(Known::aliased_by(alias.as_bytes()), Some(*known), "{alias}");
        }
    }
}
