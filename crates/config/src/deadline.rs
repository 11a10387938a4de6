//! The header by which callers say how long they still wait, as written.

use std::fmt;
use std::str::FromStr;

use portcullis_core::decode::Fault;
use portcullis_core::head::is_token;
use portcullis_core::known::Known;
use portcullis_core::written_as_text;

/// Names that begin so are the gateway's own.
const OWNED: [&str; 3] = ["portcullis", "x-forwarded", "grpc-"];

/// A field's name in lower case, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadlineHeader(pub Option<String>);

impl FromStr for DeadlineHeader {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        if text == "off" {
            return Ok(Self(None));
        }
        let name = text.to_ascii_lowercase();
        let fault = |message: String| Err(Fault::new(0..text.len(), message));
        if !is_token(text.as_bytes()) {
            return fault(format!("`{text}` is not the name of a header"));
        }
        let known = Known::of(name.as_bytes()) != Known::Other;
        if known || OWNED.iter().any(|owned| name.starts_with(owned)) {
            return fault(format!("`{text}` means something else"))
                .map_err(|fault| fault.help("write a name of its own, as `X-Request-Timeout-Ms`"));
        }
        Ok(Self(Some(name)))
    }
}

impl fmt::Display for DeadlineHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("off"))
    }
}

written_as_text! {
    DeadlineHeader: "deadline-header", "the name of a header, or `off`", r"^[!-~]+$";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_its_own_or_none() {
        let of = |text: &str| text.parse::<DeadlineHeader>();
        assert_eq!(of("X-Budget-Ms").unwrap().0.as_deref(), Some("x-budget-ms"));
        assert_eq!(of("off").unwrap().0, None);
        let refused =
            ["", "a b", "a:b", "Host", "content-length", "Portcullis-Client", "grpc-timeout"];
        for text in refused {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
