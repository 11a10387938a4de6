//! Faults that can be planted in the gateway, so that the audit can be seen to find them.
//!
//! Each is a mistake that a gateway has been found to make, at the place where it would be made.
//! Without the feature `planted-faults`, which only the audit's tests ask for, nothing is ever
//! planted: the question is a constant, and the mistake is not compiled.

/// A mistake that lets somebody in, or tells a backend what is not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// Of two routes the less specific one is found.
    RouteOrder = 1,
    /// Routes have no policy that asks who is calling.
    PolicyMissing,
    /// One listener's requests are not asked.
    ListenerWithoutAuth,
    /// A request is refused only after it was sent on.
    AuthAfterForward,
    /// Routes are found by the path as it was sent, and the backend gets that too.
    PathNotCanonical,
    /// Paths are compared without case.
    PathCase,
    /// `;` and what follows is cut off the path that routes are found by.
    PathParameterCut,
    /// `%2F` is let through, and separates segments.
    EncodedSlash,
    /// `%25` is let through, and decoded once more.
    DoubleDecoding,
    /// `\` is let through, and separates segments.
    Backslash,
    /// A closing dot of a host is part of its name.
    HostDot,
    /// What a token says its algorithm is decides how it is verified.
    AlgorithmFromToken,
    /// A token without a signature is good.
    AlgorithmNone,
    /// Signatures are not looked at.
    SignatureNotChecked,
    ExpiryNotChecked,
    NotBeforeNotChecked,
    AudienceNotChecked,
    IssuerNotChecked,
    /// The key that a token brings along verifies it.
    EmbeddedKeyTrusted,
    /// An unknown key id means any key.
    UnknownKeyTriesAll,
    /// A key that has been taken out of the file is good.
    RevokedKeyAccepted,
    ExpiredKeyAccepted,
    /// One of the scopes is enough.
    AnyScope,
    TenantIgnored,
    /// Of two credentials the second one counts.
    SecondCredentialWins,
    HeadNotAsked,
    OptionsNotAsked,
    UnknownMethodNotAsked,
    Http2NotAsked,
    /// The method is what `X-HTTP-Method-Override` says.
    MethodOverride,
    /// The path is what `X-Original-URL` says.
    PathOverride,
    /// Identity fields that the client sent reach the backend.
    ClientIdentityKept,
    /// The backend gets the credential.
    CredentialForwarded,
    /// The backend is not told who is calling.
    IdentityNotTold,
    /// Whatever a role is asked for is had by everybody; likewise the others.
    RoleIgnored,
    ClaimIgnored,
    TenantOfPathIgnored,
    CertificateRuleIgnored,
    /// A signed request's signature is not looked at.
    MessageNotVerified,
    OldSignatureAccepted,
    /// A signature need not cover what it has to.
    UncoveredAccepted,
    NonceReplayed,
    /// Whoever knows a user's name is that user.
    PasswordNotChecked,
    /// What an issuer says of a token that is not active any more is believed.
    InactiveTokenAccepted,
    /// A token that is bound to somebody's certificate is good for everybody.
    BindingIgnored,
    /// Any certificate of the authority will do.
    CertificateNameIgnored,
    /// A certificate in a field is believed of anybody, not of trusted hops only.
    CertificateOfAnybody,
    /// The authorizer is asked, and not heard.
    AuthorizerIgnored,
    /// What the authorizer could have said of a caller, the caller says.
    CopiedFieldKept,
    /// An answer of the provider ends another login than its own.
    LoginStateNotChecked,
    LoginNonceNotChecked,
    LoginTwice,
    EndedSessionAccepted,
    /// Other sites' pages use the session.
    CrossSiteAccepted,
    /// Nobody gets in, which proves nothing.
    EverybodyRefused,
}

#[cfg(not(feature = "planted-faults"))]
mod chosen {
    use std::borrow::Cow;

    use super::Fault;
    use crate::exchange::Exchange;
    use crate::head::RequestHead;

    /// Whether this mistake is to be made.
    #[must_use]
    #[inline(always)]
    pub const fn is_planted(_: Fault) -> bool {
        false
    }

    /// Runs without any.
    pub fn honestly<T>(run: impl FnOnce() -> T) -> T {
        run()
    }

    /// Whether a path is left as it came.
    #[inline(always)]
    pub(crate) const fn leaves_path(_: &[u8]) -> bool {
        false
    }

    /// The path that routes are found by.
    #[must_use]
    #[inline(always)]
    pub fn routed_path(head: &RequestHead) -> Cow<'_, [u8]> {
        Cow::Borrowed(head.path())
    }

    /// The method that routes are found by, where it is another one than the request's.
    #[must_use]
    #[inline(always)]
    pub const fn routed_method(_: &RequestHead) -> Option<&[u8]> {
        None
    }

    /// Whether nobody is asked who is calling.
    #[must_use]
    #[inline(always)]
    pub const fn is_not_asked(_: &Exchange) -> bool {
        false
    }
}

#[cfg(feature = "planted-faults")]
mod chosen;

pub use chosen::*;
