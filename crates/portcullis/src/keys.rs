//! `portcullis keys`: API keys, the file that lists them by their hashes, and hashes of passwords.
//!
//! What the gateway would make of a file is asked of the code that reads it there.

mod edit;
mod file;
mod list;
mod password;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use portcullis_core::Now;
use portcullis_core::calendar::{self, Time};
use portcullis_policies::auth::api_keys::{KeyEntry, NewKey, generate, read_entries};
use portcullis_proxy::Clock;
use rustls::crypto::aws_lc_rs::default_provider;
use serde_json::json;

use self::edit::Change;
use self::file::KeysFile;
use crate::{NO, USAGE, cli, output};

pub(crate) fn run(arguments: &cli::Keys) -> anyhow::Result<ExitCode> {
    match &arguments.verb {
        cli::KeysVerb::Create(arguments) => create(arguments),
        cli::KeysVerb::List(arguments) => list::run(arguments, now()),
        cli::KeysVerb::Rotate(arguments) => rotate(arguments, now()),
        cli::KeysVerb::Revoke(arguments) => revoke(arguments),
        cli::KeysVerb::HashPassword(arguments) => password::run(arguments),
    }
}

fn now() -> Now {
    Clock::real().now()
}

fn usage(message: &str) -> anyhow::Result<ExitCode> {
    output::complain(message);
    Ok(ExitCode::from(USAGE))
}

fn create(arguments: &cli::KeysCreate) -> anyhow::Result<ExitCode> {
    let mut key = match new_key(arguments.id.as_deref(), &arguments.client)? {
        Ok(key) => key,
        Err(message) => return usage(&message),
    };
    let entry = &mut key.entry;
    entry.tenant.clone_from(&arguments.tenant);
    entry.scopes.clone_from(&arguments.scopes);
    entry.expires.clone_from(&arguments.expires);
    entry.not_before.clone_from(&arguments.not_before);
    if let Err(message) = check(entry) {
        return usage(&message);
    }
    let Some(path) = &arguments.file else { return print_new(&key, arguments.json) };
    let mut file = match KeysFile::open_or_new(path)? {
        Ok(file) => file,
        Err(reasons) => return unusable(path, &reasons),
    };
    if file.position(&entry.id).is_some() {
        output::complain(&format!("{} has a key `{}` already", path.display(), entry.id));
        return Ok(ExitCode::from(NO));
    }
    file.change(Change::Append(entry));
    file.save()?;
    print_listed(&key, path, arguments.json)
}

fn rotate(arguments: &cli::KeysRotate, now: Now) -> anyhow::Result<ExitCode> {
    let path = &arguments.file;
    let mut file = match KeysFile::open(path)? {
        Ok(file) => file,
        Err(reasons) => return unusable(path, &reasons),
    };
    let Some(at) = file.position(&arguments.id) else { return unknown(path, &arguments.id) };
    let mut old = file.entries()[at].clone();
    let mut key = match new_key(arguments.new_id.as_deref(), &old.client)? {
        Ok(key) => key,
        Err(message) => return usage(&message),
    };
    if file.position(&key.entry.id).is_some() {
        output::complain(&format!("{} has a key `{}` already", path.display(), key.entry.id));
        return Ok(ExitCode::from(NO));
    }
    key.entry.tenant.clone_from(&old.tenant);
    key.entry.scopes.clone_from(&old.scopes);
    key.entry.expires.clone_from(&arguments.expires);
    if let Err(message) = check(&key.entry) {
        return usage(&message);
    }
    let end = now.wall + arguments.overlap;
    // A key that ends before the overlap does is left alone.
    if expiry(&old).is_none_or(|expires| expires > end) {
        old.expires = Some(Time(end).to_string());
        file.change(Change::Replace(at, &old));
    }
    file.change(Change::Append(&key.entry));
    file.save()?;
    if !arguments.json {
        let until = old.expires.as_deref().unwrap_or_default();
        output::remark(&format!("`{}` is good until {until}.\n", old.id));
    }
    print_listed(&key, path, arguments.json)
}

fn revoke(arguments: &cli::KeysRevoke) -> anyhow::Result<ExitCode> {
    let path = &arguments.file;
    let mut file = match KeysFile::open(path)? {
        Ok(file) => file,
        Err(reasons) => return unusable(path, &reasons),
    };
    let Some(at) = file.position(&arguments.id) else { return unknown(path, &arguments.id) };
    let revoked = file.entries()[at].clone();
    file.change(Change::Remove(at));
    file.save()?;
    if arguments.json {
        output::print_json(&json!({ "revoked": revoked.id, "client": revoked.client }))?;
    } else {
        output::remark(&format!(
            "`{}` of {} is no key any more. A running gateway reads the file within a second.\n",
            revoked.id, revoked.client
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn unknown(path: &Path, id: &str) -> anyhow::Result<ExitCode> {
    output::complain(&format!("{} has no key `{id}`", path.display()));
    Ok(ExitCode::from(NO))
}

fn unusable(path: &Path, reasons: &[String]) -> anyhow::Result<ExitCode> {
    for reason in reasons {
        output::complain(&format!("{}: {reason}", path.display()));
    }
    Ok(ExitCode::from(NO))
}

/// Since 1970; `None` for never.
fn expiry(entry: &KeyEntry) -> Option<Duration> {
    entry.expires.as_deref().and_then(calendar::parse)
}

fn new_key(id: Option<&str>, client: &str) -> anyhow::Result<Result<NewKey, String>> {
    let id = match id {
        Some(id) => id.to_owned(),
        None => id_for(client)?,
    };
    let mut secret = [0; 32];
    random(&mut secret)?;
    Ok(generate(secret, &id, client).map_err(|error| error.to_string()))
}

/// The client's name, as far as an id can have it, and something that no other key of it has.
fn id_for(client: &str) -> anyhow::Result<String> {
    let mut suffix = [0; 3];
    random(&mut suffix)?;
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let mut id: String = client.chars().take(40).map(plain).collect();
    id.push('-');
    let digits: Vec<String> = suffix.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(id + &digits.concat())
}

fn random(into: &mut [u8]) -> anyhow::Result<()> {
    let filled = default_provider().secure_random.fill(into);
    filled.map_err(|_| anyhow!("the operating system gives no random numbers"))
}

/// Whether the gateway would read this entry.
fn check(entry: &KeyEntry) -> Result<(), String> {
    match read_entries(edit::yaml(entry).as_bytes()) {
        Ok(_) => Ok(()),
        Err(reasons) => Err(reasons.join("; ").replace("key 1: ", "")),
    }
}

/// A key whose entry the operator puts into a file.
fn print_new(key: &NewKey, json: bool) -> anyhow::Result<ExitCode> {
    let NewKey { text, entry } = key;
    if json {
        output::print_json(&json!({ "key": text, "entry": entry }))?;
        return Ok(ExitCode::SUCCESS);
    }
    output::remark(&format!(
        "The key, which is not shown again:\n\n  {text}\n\nIts entry for the file of keys:\n\n"
    ));
    output::print(&edit::yaml(entry))?;
    Ok(ExitCode::SUCCESS)
}

/// A key whose entry is in its file.
fn print_listed(key: &NewKey, path: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let NewKey { text, entry } = key;
    if json {
        output::print_json(&json!({ "key": text, "entry": entry }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (id, path) = (&entry.id, path.display());
    output::remark(&format!("`{id}` is in {path}. The key, which is not shown again:\n\n"));
    output::print(&format!("{text}\n"))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> KeyEntry {
        generate([7; 32], "acme-1", "acme").unwrap().entry
    }

    #[test]
    fn an_entry_is_written_as_the_gateway_reads_it() {
        let entry = KeyEntry {
            client: "Acme \"Ltd\": #1".to_owned(),
            tenant: Some("yes".to_owned()),
            scopes: vec!["orders:read".to_owned(), "null".to_owned()],
            expires: Some("2027-12-31".to_owned()),
            ..entry()
        };
        assert_eq!(check(&entry), Ok(()));
    }

    #[test]
    fn what_the_gateway_would_not_read_is_refused() {
        let expired = KeyEntry { expires: Some("tomorrow".to_owned()), ..entry() };
        assert!(check(&expired).unwrap_err().starts_with("the `expires` of `acme-1`"));
        let scope = KeyEntry { scopes: vec!["a b".to_owned()], ..entry() };
        assert!(check(&scope).is_err());
    }

    #[test]
    fn an_id_is_made_of_any_name_and_differs_each_time() {
        let (one, two) = (id_for("Ümlaut & Söhne").unwrap(), id_for("Ümlaut & Söhne").unwrap());
        assert_ne!(one, two);
        assert!(generate([0; 32], &one, "x").is_ok(), "{one}");
    }
}
