//! Clients by their certificate.

use portcullis_core::node::Node;
use serde_json::Map;

use super::clients::{self, Make, Name};
use super::{Bad, ByListener, Caller, Credential, Entry, Forged, Workshop};
use crate::needs::{Lacking, Needs};

const KINDS: [&str; 7] = ["dns", "uri", "spiffe", "email", "common_name", "subject", "sha256"];

pub(super) fn forge(
    entry: &Entry<'_>,
    needs: &Needs,
    workshop: &mut Workshop<'_>,
) -> Result<Forged, String> {
    let allow = entry.settings.get("allow").map(Node::items).unwrap_or_default();
    let chosen = allow.iter().find(|one| fits(entry, Some(one), needs)).or(allow.first());
    let config = entry.config;
    // Of one kind the one that is required is the narrower one.
    let mut names = needs.certificate.clone();
    let own = chosen.and_then(name);
    names.extend(own.clone().filter(|(kind, _)| names.iter().all(|(has, _)| has != kind)));
    let issue = |make, workshop: &mut Workshop<'_>| clients::issue(config, &names, make, workshop);
    let good = issue(Make::Good, workshop)?;
    if good.is_empty() {
        return Err("no listener takes clients' certificates".to_owned());
    }
    let mut bad = vec![(Bad::of("no credential", "no certificate"), on(clients::none(config)))];
    for (kind, detail, make) in [
        ("expired", "", Make::Expired),
        ("not yet valid", "", Make::NotYetValid),
        ("wrong issuer", "by another authority", Make::Stranger),
    ] {
        bad.push((Bad::of(kind, detail), on(issue(make, workshop)?)));
    }
    if clients::can_revoke(config) {
        bad.push((Bad::new("revoked"), on(issue(Make::Revoked, workshop)?)));
    }
    if clients::are_handed_on(config) {
        let said = clients::by_strangers(&good);
        bad.push((Bad::of("said by the client", "`Client-Cert`"), on(said)));
    }
    if !allow.is_empty() {
        let nobody = [("dns", "nobody.audit.invalid".to_owned())];
        let nobody = clients::issue(config, &nobody, Make::Good, workshop)?;
        bad.push((Bad::of("malformed", "nobody of `allow`"), on(nobody)));
    }
    for (kind, _) in &needs.certificate {
        let others = names.iter().filter(|(has, _)| has != kind).cloned();
        let others: Vec<Name> = others.chain(own.clone().filter(|(has, _)| has == kind)).collect();
        let detail = format!("another `{kind}`");
        let issued = clients::issue(config, &others, Make::Good, workshop)?;
        bad.push((Bad::of("certificate not as required", detail), on(issued)));
    }
    // Whoever is let in as somebody that lacks a scope or is of another tenant.
    for other in allow {
        for Lacking { kind, detail, needs: lacking } in needs.lacking() {
            if fits(entry, Some(other), &lacking) && !fits(entry, Some(other), needs) {
                let names: Vec<Name> = name(other).into_iter().collect();
                let issued = clients::issue(config, &names, Make::Good, workshop)?;
                bad.push((Bad::of(kind, detail), on(issued)));
            }
        }
    }
    let caller = caller(entry, chosen, &good, workshop)?;
    Ok(Forged {
        good: on(good),
        caller,
        bad,
        logins: Vec::new(),
        used: Vec::new(),
        spoofed: Vec::new(),
    })
}

fn on(by_listener: ByListener) -> Credential {
    Credential { by_listener, ..Credential::new(|_| {}) }
}

/// The name that an entry of `allow` asks for.
fn name(allowed: &Node) -> Option<Name> {
    KINDS.iter().find_map(|kind| Some((*kind, allowed.get(kind)?.as_str()?.to_owned())))
}

/// The scopes and the tenant of whom an entry of `allow` lets in.
fn given(entry: &Entry<'_>, allowed: Option<&Node>) -> (Vec<String>, Option<String>) {
    let own = allowed.and_then(|allowed| allowed.get("scopes"));
    let all = [entry.settings.get("scopes"), own].into_iter().flatten();
    let scopes = all.flat_map(Node::items).filter_map(Node::as_str).map(str::to_owned).collect();
    let tenant = allowed.and_then(|allowed| allowed.get("tenant")).and_then(Node::as_str);
    (scopes, tenant.map(str::to_owned))
}

fn fits(entry: &Entry<'_>, allowed: Option<&Node>, needs: &Needs) -> bool {
    let (scopes, tenant) = given(entry, allowed);
    needs.scopes.iter().all(|scope| scopes.contains(scope))
        && needs.tenant.as_ref().is_none_or(|wanted| Some(wanted) == tenant.as_ref())
}

/// As whom the gateway has to know the good certificate.
fn caller(
    entry: &Entry<'_>,
    chosen: Option<&Node>,
    good: &ByListener,
    workshop: &Workshop<'_>,
) -> Result<Caller, String> {
    // The names are the same on every listener.
    let identity = good.values().find_map(|on| on.certificate.or(on.handed_on));
    let identity = identity.and_then(|number| workshop.identities.get(number));
    let facts =
        clients::facts(identity.map(std::slice::from_ref).unwrap_or_default(), workshop.now);
    let facts = facts.into_iter().flatten().next().ok_or("its own certificate cannot be read")?;
    let part = |kind: &str| match kind {
        "subject" => Some(facts.subject.clone()),
        "common_name" => facts.common_name.clone(),
        "organization" => facts.organization.clone(),
        "organizational_unit" => facts.organizational_unit.clone(),
        "dns" => facts.dns.first().cloned(),
        "uri" | "spiffe" => facts.uris.first().cloned(),
        "email" => facts.emails.first().cloned(),
        "trust_domain" => {
            let uri = facts.uris.first()?.strip_prefix("spiffe://")?;
            uri.split('/').next().map(str::to_owned)
        }
        _ => None,
    };
    let written = |key: &str| chosen.and_then(|allowed| allowed.get(key)).and_then(Node::as_str);
    let matched = chosen.and_then(name).map_or("subject", |(kind, _)| kind);
    let client = match (written("client"), entry.text("client")) {
        (Some(client), _) => Some(client.to_owned()),
        (None, Some(kind)) => part(kind),
        (None, None) => part(matched),
    };
    let (scopes, tenant) = given(entry, chosen);
    Ok(Caller {
        client: client.ok_or("it goes by a part that differs from listener to listener")?,
        tenant: tenant.or_else(|| part(entry.text("tenant")?)),
        scopes,
        claims: Map::new(),
    })
}
