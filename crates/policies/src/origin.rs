//! Origins as browsers name them (RFC 6454): whose page a request comes from.

/// Whether it is written as browsers send it: `scheme://host[:port]`, lower case, without the
/// default port.
///
/// # Errors
/// What is wrong with it, for the operator.
pub(crate) fn check(origin: &str) -> Result<(), String> {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return Err(format!("`{origin}` is not an origin: write `https://shop.example`"));
    };
    if let Some((rest, _)) = authority.split_once('/') {
        return Err(format!("an origin has no path: write `{scheme}://{rest}`"));
    }
    let lower = origin.to_ascii_lowercase();
    if lower != origin {
        return Err(format!("browsers send origins in lower case: write `{lower}`"));
    }
    let own_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => "",
    };
    if !own_port.is_empty() && authority.ends_with(own_port) {
        let short = authority.trim_end_matches(own_port);
        return Err(format!("browsers leave out the default port: write `{scheme}://{short}`"));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]+".contains(&b);
    match authority.is_empty() || !origin.replacen("://", "", 1).bytes().all(plain) {
        true => Err(format!("`{origin}` is not an origin: each is written out, without patterns")),
        false => Ok(()),
    }
}
