//! The cookies of one entry: what they are called, how they are read and written (RFC 6265bis).
//!
//! `__Host-` makes the browser see to it that nobody but this host set them, and that they go
//! nowhere else. `SameSite=Lax` and nothing stricter, because the way back from the provider is
//! another site's link. On loopback without TLS there is neither prefix nor `Secure`, which
//! browsers would refuse there.

use std::time::Duration;

use portcullis_core::RequestHead;

use crate::auth::cookies;

/// Of one cookie; browsers refuse more than 4096 with its name.
const PIECE_BYTES_MAX: usize = 3800;
/// Pieces of one session.
const PIECES_MAX: usize = 4;
/// Logins that one browser may have begun and not ended: tabs.
pub(super) const LOGINS_MAX: usize = 5;
/// Of a login's state, which its cookie is named by.
pub(super) const LOGIN_ID_BYTES: usize = 16;

#[derive(Debug)]
pub(super) struct Jar {
    secure: Names,
    plain: Names,
    domain: Option<Box<str>>,
}

#[derive(Debug)]
struct Names {
    session: Box<str>,
    /// Followed by the login's id.
    login: Box<str>,
}

impl Names {
    fn new(prefix: &str, name: &str) -> Self {
        let session = format!("{prefix}{name}");
        Self { login: format!("{session}-login-").into(), session: session.into() }
    }

    fn has(&self, name: &[u8]) -> bool {
        if name.starts_with(self.login.as_bytes()) {
            return true;
        }
        match name.strip_prefix(self.session.as_bytes()) {
            Some([]) => true,
            Some([b'.', digits @ ..]) => {
                !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
            }
            _ => false,
        }
    }
}

impl Jar {
    pub(super) fn new(name: &str, domain: Option<&str>) -> Self {
        let prefix = if domain.is_some() { "__Secure-" } else { "__Host-" };
        Self {
            secure: Names::new(prefix, name),
            plain: Names::new("", name),
            domain: domain.map(Box::from),
        }
    }

    /// The cookies as they are called where the browser's connection is secure, or is not.
    pub(super) fn of(&self, secure: bool) -> Shelf<'_> {
        let names = if secure { &self.secure } else { &self.plain };
        Shelf { names, secure, domain: self.domain.as_deref().filter(|_| secure) }
    }

    pub(super) fn conceal(&self, request: &mut RequestHead) {
        cookies::remove(request, |name| self.secure.has(name) || self.plain.has(name));
    }
}

/// The cookies of a [`Jar`] under their names for one kind of connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shelf<'a> {
    names: &'a Names,
    secure: bool,
    domain: Option<&'a str>,
}

impl<'a> Shelf<'a> {
    pub(super) fn session_name(self) -> &'a str {
        &self.names.session
    }

    /// The sealed session, put together from its pieces: how many there are stands before the
    /// first. `None` where some are missing or any is there twice.
    pub(super) fn session(self, request: &RequestHead) -> Option<Vec<u8>> {
        let bytes = request.fields.bytes();
        let piece = |name: &str| {
            let mut values = cookies::named(request, name.as_bytes());
            values.next().filter(|_| values.next().is_none()).map(|span| span.of(bytes))
        };
        let (count, first) = piece(&self.names.session)?.split_first()?;
        let pieces = usize::from(count.wrapping_sub(b'0'));
        if !(1..=PIECES_MAX).contains(&pieces) {
            return None;
        }
        let mut whole = first.to_vec();
        for at in 1..pieces {
            whole.extend_from_slice(piece(&format!("{}.{at}", self.names.session))?);
        }
        Some(whole)
    }

    /// `Set-Cookie` values for a sealed session; whatever the browser has of a longer one goes.
    /// `None` where it is too long.
    pub(super) fn keep_session(
        self,
        sealed: &str,
        max_age: Duration,
        request: &RequestHead,
    ) -> Option<Vec<String>> {
        let pieces: Vec<&[u8]> = sealed.as_bytes().chunks(PIECE_BYTES_MAX).collect();
        if pieces.len() > PIECES_MAX {
            return None;
        }
        let mut values = Vec::with_capacity(pieces.len());
        for (at, piece) in pieces.iter().enumerate() {
            let text = String::from_utf8_lossy(piece);
            let text = if at == 0 { format!("{}{text}", pieces.len()) } else { text.into_owned() };
            values.push(self.cookie(&self.piece_name(at), &text, max_age));
        }
        let stale = (pieces.len()..PIECES_MAX).map(|at| self.piece_name(at));
        values.extend(stale.filter(|name| has(request, name)).map(|name| self.clear(&name)));
        Some(values)
    }

    fn piece_name(self, at: usize) -> String {
        match at {
            0 => self.names.session.to_string(),
            at => format!("{}.{at}", self.names.session),
        }
    }

    /// `Set-Cookie` values that end the session in the browser.
    pub(super) fn forget_session(self, request: &RequestHead) -> Vec<String> {
        let names = (0..PIECES_MAX).map(|at| self.piece_name(at));
        names.filter(|name| has(request, name)).map(|name| self.clear(&name)).collect()
    }

    /// The sealed state of the login with this id.
    pub(super) fn login(self, id: &str, request: &RequestHead) -> Option<Vec<u8>> {
        let name = self.login_name(id);
        let mut values = cookies::named(request, name.as_bytes());
        let value = values.next().filter(|_| values.next().is_none())?;
        Some(value.of(request.fields.bytes()).to_vec())
    }

    /// Ids and sealed states of the logins that the browser has begun.
    pub(super) fn logins(self, request: &RequestHead) -> Vec<(String, Vec<u8>)> {
        let found = cookies::pairs(request).filter_map(|(name, value)| {
            let id = name.strip_prefix(self.names.login.as_bytes())?;
            let id = std::str::from_utf8(id).ok().filter(|id| is_login_id(id))?;
            Some((id.to_owned(), value.of(request.fields.bytes()).to_vec()))
        });
        found.collect()
    }

    pub(super) fn keep_login(self, id: &str, sealed: &str, max_age: Duration) -> String {
        self.cookie(&self.login_name(id), sealed, max_age)
    }

    pub(super) fn forget_login(self, id: &str) -> String {
        self.clear(&self.login_name(id))
    }

    fn login_name(self, id: &str) -> String {
        format!("{}{id}", self.names.login)
    }

    fn clear(self, name: &str) -> String {
        self.cookie(name, "", Duration::ZERO)
    }

    fn cookie(self, name: &str, value: &str, max_age: Duration) -> String {
        let mut text = format!("{name}={value}; Path=/; Max-Age={}", max_age.as_secs());
        if let Some(domain) = self.domain {
            text.push_str("; Domain=");
            text.push_str(domain);
        }
        text.push_str("; HttpOnly; SameSite=Lax");
        if self.secure {
            text.push_str("; Secure");
        }
        text
    }
}

/// What can stand in a cookie's name and was not made up to stand for anything else.
pub(super) fn is_login_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    id.len() == LOGIN_ID_BYTES && id.bytes().all(plain)
}

fn has(request: &RequestHead, name: &str) -> bool {
    cookies::named(request, name.as_bytes()).next().is_some()
}

#[cfg(test)]
mod tests {
    use portcullis_core::Known;

    use super::*;

    /// A browser that keeps what it is told to.
    fn request(cookies: &[String]) -> RequestHead {
        let pairs = cookies.iter().filter(|cookie| !cookie.contains("Max-Age=0"));
        let pairs: Vec<&str> = pairs.map(|cookie| cookie.split(';').next().unwrap()).collect();
        let mut request = RequestHead::default();
        request.fields.append(b"cookie", pairs.join("; ").as_bytes());
        request
    }

    #[test]
    fn attributes() {
        let hour = Duration::from_secs(3600);
        let nothing = RequestHead::default();
        let jar = Jar::new("shop", None);
        let shared = Jar::new("shop", Some("example.com"));
        for (shelf, expected) in [
            (
                jar.of(true),
                "__Host-shop=1text; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure",
            ),
            (jar.of(false), "shop=1text; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"),
            (
                shared.of(true),
                "__Secure-shop=1text; Path=/; Max-Age=3600; Domain=example.com; HttpOnly; \
                 SameSite=Lax; Secure",
            ),
        ] {
            assert_eq!(shelf.keep_session("text", hour, &nothing).unwrap(), [expected]);
        }
    }

    #[test]
    fn a_long_session_comes_back_from_its_pieces() {
        let jar = Jar::new("shop", None);
        let shelf = jar.of(true);
        for length in [1, PIECE_BYTES_MAX, PIECE_BYTES_MAX + 1, PIECES_MAX * PIECE_BYTES_MAX] {
            let sealed: String = ('a'..='z').cycle().take(length).collect();
            let kept = shelf.keep_session(&sealed, Duration::from_secs(1), &RequestHead::default());
            let kept = kept.unwrap();
            assert!(kept.iter().all(|cookie| cookie.len() <= 4096), "{length}");
            assert_eq!(shelf.session(&request(&kept)), Some(sealed.into_bytes()), "{length}");
            if kept.len() > 1 {
                assert_eq!(shelf.session(&request(&kept[..kept.len() - 1])), None, "{length}");
            }
            let twice = [&kept[..], &kept[..1]].concat();
            assert_eq!(shelf.session(&request(&twice)), None, "{length}");
        }
        let longer = "x".repeat(PIECES_MAX * PIECE_BYTES_MAX + 1);
        let kept = shelf.keep_session(&longer, Duration::ZERO, &RequestHead::default());
        assert_eq!(kept, None);
    }

    #[test]
    fn a_shorter_session_takes_the_pieces_of_the_longer_one_away() {
        let jar = Jar::new("shop", None);
        let shelf = jar.of(true);
        let (long, hour) = ("x".repeat(PIECE_BYTES_MAX * 2 + 1), Duration::from_secs(3600));
        let before = shelf.keep_session(&long, hour, &RequestHead::default()).unwrap();
        let after = shelf.keep_session("y", hour, &request(&before)).unwrap();
        let cleared: Vec<&str> = after[1..].iter().map(|c| c.split(';').next().unwrap()).collect();
        assert_eq!(cleared, ["__Host-shop.1=", "__Host-shop.2="]);
        assert_eq!(shelf.forget_session(&request(&before)).len(), 3);
    }

    #[test]
    fn backends_see_none_of_them() {
        let jar = Jar::new("shop", None);
        let mut request = RequestHead::default();
        let all = "a=1; __Host-shop=1x; __Host-shop.1=y; shop=1z; __Host-shop-login-abc=s; \
                   __Host-shopper=2; shop.x=3; shops=4";
        request.fields.append(b"cookie", all.as_bytes());
        jar.conceal(&mut request);
        let left = request.fields.known(Known::Cookie).unwrap();
        assert_eq!(left.escape_ascii().to_string(), "a=1; __Host-shopper=2; shop.x=3; shops=4");
    }
}
