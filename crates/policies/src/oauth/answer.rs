//! What a token endpoint answers (RFC 6749 §5, RFC 8693 §2.2).

use std::time::Duration;

use portcullis_core::services::Fetched;
use serde::Deserialize;
use serde_json::Value;

use super::hidden::Hidden;

/// Longer tokens are taken for a mistake: they have to fit into a head.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// What is repeated in the log of an error code.
const ERROR_BYTES_MAX: usize = 64;

/// A token to be used as a bearer (RFC 6750).
#[derive(Clone, Debug)]
pub(crate) struct TokenAnswer {
    pub(crate) access_token: Hidden,
    /// From the moment of the request; RFC 6749 lets a server leave it out.
    pub(crate) expires_in: Option<Duration>,
    pub(crate) refresh_token: Option<Hidden>,
    pub(crate) id_token: Option<Hidden>,
    pub(crate) scope: Option<String>,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The server has decided: `invalid_grant`, `invalid_client`, …
    Refused(String),
    /// The server did not answer, or with something else.
    Unavailable(String),
}

impl Failure {
    /// For the operator.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Refused(reason) | Self::Unavailable(reason) => reason,
        }
    }
}

#[derive(Deserialize)]
struct Raw {
    access_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<Value>,
    refresh_token: Option<String>,
    id_token: Option<String>,
    scope: Option<String>,
    error: Option<String>,
}

/// Reads the answer of a token endpoint. Nothing of it is repeated but an error's code.
///
/// # Errors
/// The server's refusal, or that this is no answer of a token endpoint.
pub(crate) fn read(url: &str, fetched: &Fetched) -> Result<TokenAnswer, Failure> {
    let status = fetched.status.as_u16();
    let unusable = |what: &str| Failure::Unavailable(format!("{url} answers {what}"));
    let raw: Option<Raw> = serde_json::from_slice(&fetched.body).ok();
    if status != 200 {
        return Err(match raw.and_then(|raw| raw.error) {
            // Below 500 it is the server's decision; 429 is about now, not about us.
            Some(error) if (400..500).contains(&status) && status != 429 => {
                Failure::Refused(format!("{url} answers {status} {}", shown(&error)))
            }
            Some(error) => unusable(&format!("{status} {}", shown(&error))),
            None => unusable(&status.to_string()),
        });
    }
    let raw = raw.ok_or_else(|| unusable("something else than JSON"))?;
    let token = raw.access_token.ok_or_else(|| unusable("no `access_token`"))?;
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !token.bytes().all(is_token_byte) {
        return Err(unusable("a token that cannot be sent"));
    }
    if !raw.token_type.is_some_and(|kind| kind.eq_ignore_ascii_case("Bearer")) {
        return Err(unusable("a token that is not for use as a bearer"));
    }
    let expires_in = match raw.expires_in {
        None | Some(Value::Null) => None,
        Some(value) => Some(seconds(&value).ok_or_else(|| unusable("an odd `expires_in`"))?),
    };
    let hidden = |text: Option<String>| text.map(|text| Hidden::from(text.as_str()));
    Ok(TokenAnswer {
        access_token: Hidden::from(token.as_str()),
        expires_in,
        refresh_token: hidden(raw.refresh_token),
        id_token: hidden(raw.id_token),
        scope: raw.scope,
    })
}

/// What may stand after `Bearer ` (RFC 6750 §2.1); a little more than that, as some issuers do.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b'\\')
}

/// A number, or as some servers write it, a text with one; at most a year.
fn seconds(value: &Value) -> Option<Duration> {
    const MAX: u64 = 366 * 86_400;
    let whole = match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_u64().or_else(|| {
            number.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| seconds as u64)
        }),
        _ => None,
    };
    whole.map(|seconds| Duration::from_secs(seconds.min(MAX)))
}

/// An error code as RFC 6749 §5.2 has them: printable, without what would end a text.
fn shown(error: &str) -> String {
    let plain = |c: &char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
    error.chars().filter(plain).take(ERROR_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests;
