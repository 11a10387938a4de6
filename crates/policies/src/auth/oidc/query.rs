//! The parameters of a query, as forms write them (`application/x-www-form-urlencoded`).

/// More are refused.
const PARAMETERS_MAX: usize = 32;

/// Names and values, decoded.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// # Errors
    /// For the log.
    pub(super) fn read(text: &[u8]) -> Result<Self, &'static str> {
        let pairs = text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
        let mut read = Vec::new();
        for pair in pairs {
            if read.len() == PARAMETERS_MAX {
                return Err("too many parameters");
            }
            let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let value = pair.get(at + 1..).unwrap_or_default();
            let decoded = decode(&pair[..at]).zip(decode(value));
            read.push(decoded.ok_or("a parameter cannot be read")?);
        }
        Ok(Self(read))
    }

    /// RFC 6749 §3.1: no parameter of an answer is there more than once.
    ///
    /// # Errors
    /// For the log.
    pub(super) fn one(&self, name: &str) -> Result<Option<String>, &'static str> {
        let mut values = self.0.iter().filter(|(found, _)| found == name);
        match (values.next(), values.next()) {
            (Some(_), Some(_)) => Err("a parameter is there twice"),
            (value, _) => Ok(value.map(|(_, value)| value.clone())),
        }
    }
}

fn decode(text: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => (digit(rest.next())? << 4 | digit(rest.next())?) as u8,
            byte => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}
