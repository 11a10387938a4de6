//! What a plain text stands for: YAML's core schema, less what is a trap.

use portcullis_core::node::Value;

/// Why a plain text is refused.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) help: String,
}

/// Words that YAML 1.1 took for booleans, and spellings that some readers still do.
///
/// The single letters `y` and `n` are left alone: no reader in use takes them for booleans. `off`
/// is a word of the language; where a boolean is wanted the type says so.
const TRUTHY: [&str; 8] = ["yes", "Yes", "YES", "on", "On", "ON", "True", "TRUE"];
const FALSY: [&str; 7] = ["no", "No", "NO", "Off", "OFF", "False", "FALSE"];

/// Resolves a text without quotes.
pub(super) fn plain(text: &str) -> Result<Value, Refused> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" => return Ok(Value::Bool(true)),
        "false" => return Ok(Value::Bool(false)),
        _ => {}
    }
    for (words, boolean) in [(&TRUTHY[..], true), (&FALSY[..], false)] {
        if words.contains(&text) {
            return Err(Refused {
                code: "ambiguous-boolean",
                message: format!("`{text}` is a boolean to some readers and a text to others"),
                help: format!("write `{boolean}`, or `\"{text}\"` for the text"),
            });
        }
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return integer(text, digits);
    }
    if let Some((base, _)) = [("octal", "0o"), ("hexadecimal", "0x")].iter().find(|(_, prefix)| {
        let rest = digits.strip_prefix(prefix).unwrap_or_default();
        !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_hexdigit())
    }) {
        return Err(Refused {
            code: "ambiguous-number",
            message: format!("`{text}` is a number in {base} form"),
            help: format!("write numbers in decimal, or `\"{text}\"` for the text"),
        });
    }
    if is_float(digits) {
        let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
        return value.map(Value::Float).ok_or_else(|| too_large(text));
    }
    if [".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN"].contains(&digits) {
        return Err(Refused {
            code: "ambiguous-number",
            message: format!("`{text}` is not a number that any setting takes"),
            help: format!("write `\"{text}\"` for the text"),
        });
    }
    Ok(Value::Str(text.to_owned()))
}

fn integer(text: &str, digits: &str) -> Result<Value, Refused> {
    if digits.len() > 1 && digits.starts_with('0') {
        let decimal = digits.trim_start_matches('0');
        let decimal = if decimal.is_empty() { "0" } else { decimal };
        return Err(Refused {
            code: "ambiguous-number",
            message: format!("`{text}` is octal to some readers and decimal to others"),
            help: format!("write `{decimal}`, or `\"{text}\"` for the text"),
        });
    }
    text.parse().map(Value::Int).map_err(|_| too_large(text))
}

fn too_large(text: &str) -> Refused {
    Refused {
        code: "out-of-range",
        message: format!("the number `{text}` is too large"),
        help: format!("write `\"{text}\"` for the text"),
    }
}

/// `[0-9]+ ( . [0-9]* )? ( e [-+]? [0-9]+ )?`, or a fraction without digits before it, and at
/// least one of fraction and exponent.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let exponent_fits = exponent.is_none_or(|part| {
        let digits = part.strip_prefix(['-', '+']).unwrap_or(part);
        !digits.is_empty() && all_digits(digits)
    });
    let mantissa_fits = match mantissa.split_once('.') {
        Some((whole, fraction)) => {
            all_digits(whole) && all_digits(fraction) && !(whole.is_empty() && fraction.is_empty())
        }
        None => exponent.is_some() && !mantissa.is_empty() && all_digits(mantissa),
    };
    exponent_fits && mantissa_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_texts() {
        let cases = [
            ("", "Null"),
            ("null", "Null"),
            ("true", "Bool(true)"),
            ("yes", "ambiguous-boolean"),
            ("No", "ambiguous-boolean"),
            ("on", "ambiguous-boolean"),
            ("TRUE", "ambiguous-boolean"),
            ("off", "Str(\"off\")"),
            ("y", "Str(\"y\")"),
            ("12", "Int(12)"),
            ("-5", "Int(-5)"),
            ("+5", "Int(5)"),
            ("0", "Int(0)"),
            ("0755", "ambiguous-number"),
            ("00", "ambiguous-number"),
            ("0o755", "ambiguous-number"),
            ("0x1F", "ambiguous-number"),
            ("0xyz", "Str(\"0xyz\")"),
            ("9223372036854775808", "out-of-range"),
            ("1.5", "Float(1.5)"),
            ("1e3", "Float(1000.0)"),
            (".5", "Float(0.5)"),
            ("1e999", "out-of-range"),
            (".nan", "ambiguous-number"),
            ("-.inf", "ambiguous-number"),
            ("15s", "Str(\"15s\")"),
            ("1_000", "Str(\"1_000\")"),
            ("1.2.3", "Str(\"1.2.3\")"),
            ("12:30", "Str(\"12:30\")"),
            ("-", "Str(\"-\")"),
            ("e", "Str(\"e\")"),
            (".", "Str(\".\")"),
        ];
        for (text, expected) in cases {
            let got = match plain(text) {
                Ok(value) => format!("{value:?}"),
                Err(refused) => refused.code.to_owned(),
            };
            assert_eq!(got, expected, "{text}");
        }
    }
}
