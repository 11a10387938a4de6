//! What can be wrong with a message, named for logs and with the status it is answered with.
//!
//! Every error here ends the connection: after it nobody knows where the next message begins.

use std::fmt;

use http::StatusCode;
use portcullis_core::authority::AuthorityError;
use portcullis_core::path::PathError;

/// Faults of field lines and framing, in requests and responses alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    BareLineFeed,
    BareCarriageReturn,
    ControlByte,
    BadFieldName,
    FoldedLine,
    TooLarge,
    TooManyFields,
    DuplicateContentLength,
    BadContentLength,
    DuplicateTransferEncoding,
    BadTransferEncoding,
    LengthAndEncoding,
    EncodingInHttp10,
    FramingAlias,
    TooManyConnectionOptions,
}

impl HeadError {
    /// Stable, for logs and metrics.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::BareLineFeed => "bare-line-feed",
            Self::BareCarriageReturn => "bare-carriage-return",
            Self::ControlByte => "control-byte",
            Self::BadFieldName => "bad-field-name",
            Self::FoldedLine => "folded-line",
            Self::TooLarge => "head-too-large",
            Self::TooManyFields => "too-many-fields",
            Self::DuplicateContentLength => "duplicate-content-length",
            Self::BadContentLength => "bad-content-length",
            Self::DuplicateTransferEncoding => "duplicate-transfer-encoding",
            Self::BadTransferEncoding => "bad-transfer-encoding",
            Self::LengthAndEncoding => "length-and-encoding",
            Self::EncodingInHttp10 => "encoding-in-http10",
            Self::FramingAlias => "framing-alias",
            Self::TooManyConnectionOptions => "too-many-connection-options",
        }
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    Head(HeadError),
    BadRequestLine,
    BadMethod,
    /// CONNECT and TRACE: no tunnel to an address of the client's choice, no echo of credentials.
    MethodRefused,
    BadTarget,
    TargetTooLong,
    /// An absolute target of the other scheme than the connection's (RFC 9110 §7.4).
    SchemeMismatch,
    UnsupportedVersion,
    MissingHost,
    DuplicateHost,
    Host(AuthorityError),
    Path(PathError),
    BadExpectation,
}

impl RequestError {
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Head(HeadError::TooLarge | HeadError::TooManyFields) => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::MethodRefused => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::SchemeMismatch => StatusCode::MISDIRECTED_REQUEST,
            Self::UnsupportedVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::BadExpectation => StatusCode::EXPECTATION_FAILED,
            Self::Head(_)
            | Self::BadRequestLine
            | Self::BadMethod
            | Self::BadTarget
            | Self::MissingHost
            | Self::DuplicateHost
            | Self::Host(_)
            | Self::Path(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// Stable, for logs and metrics.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Head(error) => error.reason(),
            Self::BadRequestLine => "bad-request-line",
            Self::BadMethod => "bad-method",
            Self::MethodRefused => "method-refused",
            Self::BadTarget => "bad-target",
            Self::TargetTooLong => "target-too-long",
            Self::SchemeMismatch => "scheme-mismatch",
            Self::UnsupportedVersion => "unsupported-version",
            Self::MissingHost => "host-missing",
            Self::DuplicateHost => "host-duplicate",
            Self::Host(error) => error.reason(),
            Self::Path(error) => error.reason(),
            Self::BadExpectation => "bad-expectation",
        }
    }
}

impl From<HeadError> for RequestError {
    fn from(error: HeadError) -> Self {
        Self::Head(error)
    }
}

impl From<AuthorityError> for RequestError {
    fn from(error: AuthorityError) -> Self {
        Self::Host(error)
    }
}

impl From<PathError> for RequestError {
    fn from(error: PathError) -> Self {
        Self::Path(error)
    }
}

/// Why a backend's response is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    Head(HeadError),
    BadStatusLine,
    BadStatus,
    UnsupportedVersion,
}

impl ResponseError {
    /// The client sees a 502 whatever the backend did wrong.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        StatusCode::BAD_GATEWAY
    }

    /// Stable, for logs and metrics.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Head(error) => error.reason(),
            Self::BadStatusLine => "bad-status-line",
            Self::BadStatus => "bad-status",
            Self::UnsupportedVersion => "unsupported-version",
        }
    }
}

impl From<HeadError> for ResponseError {
    fn from(error: HeadError) -> Self {
        Self::Head(error)
    }
}

/// Why a body cannot be read on. Of a request it is a 400, of a response a 502 or, once the head
/// has gone out, an aborted transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    BadChunkSize,
    BadChunkExtension,
    ChunkExtensionsTooLong,
    /// The data of a chunk, or the last chunk, is not followed by CRLF.
    BadChunkEnd,
    TrailersTooLarge,
    BadTrailer(HeadError),
    /// The connection ended before the body did.
    Truncated,
}

impl BodyError {
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::TrailersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Stable, for logs and metrics.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::BadChunkSize => "bad-chunk-size",
            Self::BadChunkExtension => "bad-chunk-extension",
            Self::ChunkExtensionsTooLong => "chunk-extensions-too-long",
            Self::BadChunkEnd => "bad-chunk-end",
            Self::TrailersTooLarge => "trailers-too-large",
            Self::BadTrailer(error) => error.reason(),
            Self::Truncated => "body-truncated",
        }
    }
}

macro_rules! displayed_by_reason {
    ($($error:ty),*) => {$(
        impl fmt::Display for $error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.reason())
            }
        }

        impl std::error::Error for $error {}
    )*};
}

displayed_by_reason!(HeadError, RequestError, ResponseError, BodyError);
