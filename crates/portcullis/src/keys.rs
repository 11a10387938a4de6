//! `portcullis keys`: API keys, and the entries that list them by their hashes.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::anyhow;
use portcullis_config::Source;
use portcullis_core::carry::Carry;
use portcullis_core::registry::Sources;
use portcullis_policies::auth::api_keys::{KeyEntry, NewKey, generate};
use portcullis_proxy::Clock;
use portcullis_snapshot::{CompileContext, compile};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use serde_json::json;

use crate::{USAGE, cli, output};

/// A configuration whose only reason is the file of keys that it reads.
const CONFIG: &str = r#"
listeners: { http: { bind: "127.0.0.1:0" } }
auth: { keys: { api_keys: { keys: "file:keys" } } }
routes: { all: { match: /**, auth: keys, respond: { status: 204 } } }
"#;

pub(crate) fn run(arguments: &cli::Keys) -> anyhow::Result<ExitCode> {
    match &arguments.verb {
        cli::KeysVerb::Create(arguments) => create(arguments),
    }
}

fn create(arguments: &cli::KeysCreate) -> anyhow::Result<ExitCode> {
    let id = match &arguments.id {
        Some(id) => id.clone(),
        None => id_for(&arguments.client)?,
    };
    let mut secret = [0; 32];
    random(&mut secret)?;
    let NewKey { text, mut entry } = match generate(secret, &id, &arguments.client) {
        Ok(key) => key,
        Err(error) => {
            output::complain(&error.to_string());
            return Ok(ExitCode::from(USAGE));
        }
    };
    entry.tenant.clone_from(&arguments.tenant);
    entry.scopes.clone_from(&arguments.scopes);
    entry.expires.clone_from(&arguments.expires);
    entry.not_before.clone_from(&arguments.not_before);
    let listed = yaml(&entry);
    if let Err(message) = check(&listed) {
        output::complain(&message);
        return Ok(ExitCode::from(USAGE));
    }
    if arguments.json {
        output::print_json(&json!({ "key": text, "entry": entry }))?;
        return Ok(ExitCode::SUCCESS);
    }
    output::remark(&format!(
        "The key, which is not shown again:\n\n  {text}\n\nIts entry for the file of keys:\n\n"
    ));
    output::print(&listed)?;
    Ok(ExitCode::SUCCESS)
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

/// One item of the list. Texts are quoted as JSON quotes them, which YAML reads the same.
fn yaml(entry: &KeyEntry) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut out = format!("- id: {}\n", quoted(&entry.id));
    let mut line = |name: &str, value: String| out += &format!("  {name}: {value}\n");
    line("hash", quoted(&entry.hash));
    line("client", quoted(&entry.client));
    if let Some(tenant) = &entry.tenant {
        line("tenant", quoted(tenant));
    }
    if !entry.scopes.is_empty() {
        let scopes: Vec<String> = entry.scopes.iter().map(|scope| quoted(scope)).collect();
        line("scopes", format!("[{}]", scopes.join(", ")));
    }
    for (name, time) in [("expires", &entry.expires), ("not_before", &entry.not_before)] {
        if let Some(time) = time {
            line(name, quoted(time));
        }
    }
    out
}

/// Whether the gateway would read this file of keys, asked of the code that reads it.
fn check(listed: &str) -> Result<(), String> {
    struct OneFile<'a>(&'a str);
    impl Sources for OneFile<'_> {
        fn read(&self, _: &str) -> Result<Arc<[u8]>, String> {
            Ok(self.0.as_bytes().into())
        }
    }
    let registry = portcullis_policies::registry();
    let source = Source { name: "keys".to_owned(), text: CONFIG.to_owned() };
    let loaded = portcullis_config::load(vec![source], &registry);
    let mut findings = loaded.findings;
    if let Some(config) = &loaded.config {
        let mut context = CompileContext {
            findings: &mut findings,
            carry: &mut Carry::default(),
            sources: &OneFile(listed),
            now: Clock::real().now(),
            roots: Arc::new(RootCertStore::empty()),
            seed: 0,
        };
        drop(compile(config, &registry, &mut context));
    }
    let messages: Vec<&str> = findings.iter().map(|finding| finding.message.as_str()).collect();
    match messages.as_slice() {
        [] => Ok(()),
        messages => Err(messages.join("; ").replace("file:keys: key 1: ", "")),
    }
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
        assert_eq!(check(&yaml(&entry)), Ok(()));
    }

    #[test]
    fn what_the_gateway_would_not_read_is_refused() {
        let expired = KeyEntry { expires: Some("tomorrow".to_owned()), ..entry() };
        assert!(check(&yaml(&expired)).unwrap_err().starts_with("the `expires` of `acme-1`"));
        let scope = KeyEntry { scopes: vec!["a b".to_owned()], ..entry() };
        assert!(check(&yaml(&scope)).is_err());
    }

    #[test]
    fn an_id_is_made_of_any_name_and_differs_each_time() {
        let (one, two) = (id_for("Ümlaut & Söhne").unwrap(), id_for("Ümlaut & Söhne").unwrap());
        assert_ne!(one, two);
        assert!(generate([0; 32], &one, "x").is_ok(), "{one}");
    }
}
