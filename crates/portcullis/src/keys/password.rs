//! `portcullis keys hash-password`: an entry for the file of users.

use std::io::{self, IsTerminal as _, Read as _};
use std::process::ExitCode;

use anyhow::Context as _;
use portcullis_policies::auth::basic::{SALT_BYTES, UserEntry, hash_password, read_entries};

use super::{edit, random, usage};
use crate::{cli, output};

/// More than any password; what is piped in by mistake ends here.
const INPUT_BYTES_MAX: u64 = 1 << 16;

pub(super) fn run(arguments: &cli::HashPassword) -> anyhow::Result<ExitCode> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        output::remark("The password (it is shown), Enter, and Ctrl-D:\n");
    }
    let mut input = Vec::new();
    stdin.take(INPUT_BYTES_MAX).read_to_end(&mut input).context("standard input")?;
    let Ok(text) = String::from_utf8(input) else { return usage("the password is not UTF-8") };
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let password = line.strip_suffix('\r').unwrap_or(line);
    let mut salt = [0; SALT_BYTES];
    random(&mut salt)?;
    let hash = match hash_password(password, salt) {
        Ok(hash) => hash,
        Err(error) => return usage(&error.to_string()),
    };
    let entry = UserEntry {
        user: arguments.user.clone(),
        hash,
        client: None,
        tenant: arguments.tenant.clone(),
        scopes: arguments.scopes.clone(),
    };
    let listed = yaml(&entry);
    if let Err(reasons) = read_entries(listed.as_bytes()) {
        return usage(&reasons.join("; ").replace("user 1: ", ""));
    }
    if arguments.json {
        output::print_json(&entry)?;
    } else {
        output::print(&listed)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn yaml(entry: &UserEntry) -> String {
    let mut out = format!("- user: {}\n", edit::quoted(&entry.user));
    out += &format!("  hash: {}\n", edit::quoted(&entry.hash));
    if let Some(tenant) = &entry.tenant {
        out += &format!("  tenant: {}\n", edit::quoted(tenant));
    }
    if !entry.scopes.is_empty() {
        out += &format!("  scopes: {}\n", edit::list(&entry.scopes));
    }
    out
}
