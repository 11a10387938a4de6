//! Users with passwords: a file of users of the audit's own. All of them have one password, since
//! a hash takes long.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, json};

use super::{Bad, Caller, Credential, Entry, Forged, Workshop, broken};
use crate::needs::{Lacking, Needs, TENANT};

const PASSWORD: &str = "the audit's password";

pub(super) fn forge(
    entry: &Entry<'_>,
    needs: &Needs,
    workshop: &mut Workshop<'_>,
) -> Result<Forged, String> {
    let file = entry.text("users").ok_or("`users` is not a text")?.to_owned();
    let tenant = needs.tenant.clone().unwrap_or_else(|| TENANT.to_owned());
    let user = add(&file, &needs.scopes, &tenant, workshop)?;
    let good = present(&format!("{user}:{PASSWORD}"));
    let mut bad = Vec::new();
    let mut add_bad = |kind, detail: &str, text: &str| {
        bad.push((Bad::of(kind, detail), present(text)));
    };
    add_bad("malformed", "another password", &format!("{user}:{PASSWORD}x"));
    add_bad("malformed", "a part of the password", &format!("{user}:the"));
    add_bad("malformed", "an empty password", &format!("{user}:"));
    add_bad("malformed", "no password", &user);
    add_bad("revoked", "a user that is not listed", &format!("{user}x:{PASSWORD}"));
    add_bad("malformed", "nothing", "");
    for Lacking { kind, detail, needs: lacking } in needs.lacking() {
        // A user has no claims.
        if kind != "claim not as required" {
            let tenant = lacking.tenant.as_deref().unwrap_or(&tenant);
            let user = add(&file, &lacking.scopes, tenant, workshop)?;
            add_bad(kind, &detail, &format!("{user}:{PASSWORD}"));
        }
    }
    let plain = Credential::field("Authorization", format!("Basic {user}:{PASSWORD}"));
    bad.push((Bad::of("malformed", "not in base64"), plain));
    let other = present("audit:audit");
    bad.push((Bad::of("two credentials", "a good user and a bad one"), good.and(&other)));
    bad.push((Bad::of("two credentials", "a bad user and a good one"), other.and(&good)));
    let shown = STANDARD.encode(format!("{user}:{PASSWORD}"));
    Ok(Forged {
        good: good.secret(&shown).secret(PASSWORD),
        caller: Caller {
            client: user,
            tenant: Some(tenant),
            scopes: needs.scopes.clone(),
            claims: Map::new(),
        },
        bad,
        logins: Vec::new(),
        used: Vec::new(),
        spoofed: Vec::new(),
    })
}

fn present(text: &str) -> Credential {
    Credential::field("Authorization", format!("Basic {}", STANDARD.encode(text)))
}

/// Lists another user.
fn add(
    file: &str,
    scopes: &[String],
    tenant: &str,
    workshop: &mut Workshop<'_>,
) -> Result<String, String> {
    let hash = workshop.keep("password", |workshop| {
        let hash = (workshop.makers.password)(Workshop::random(), PASSWORD);
        hash.ok_or_else(|| broken("a hash"))
    })?;
    let user = format!("audit-user-{}", workshop.number());
    let entry = json!({ "user": user, "hash": *hash, "tenant": tenant, "scopes": scopes });
    workshop.lists.entry(file.to_owned()).or_default().push(entry);
    Ok(user)
}
