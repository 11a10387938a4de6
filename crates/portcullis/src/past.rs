//! `portcullis explain --id`: what became of a request that the running gateway has had.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use portcullis_telemetry::recent::Found;

use crate::admin_api::{self, Answer};
use crate::{NO, cli, load, output};

pub(crate) fn run(id: &str, arguments: &cli::Explain) -> anyhow::Result<ExitCode> {
    let (attempt, _) = load::attempt(&arguments.config.path)?;
    let config = attempt.config.as_ref().context("the configuration cannot be read: `check` it")?;
    let path = format!("/requests/{id}");
    let answer = admin_api::ask(config, &attempt.files, "GET", &path, "")?;
    let Answer::Found(body) = answer else {
        output::complain(&format!(
            "no request `{id}` is remembered: it is more than an hour old, was pushed out by \
             others (see `recent_max`), or was another gateway's"
        ));
        return Ok(ExitCode::from(NO));
    };
    if arguments.json {
        output::print(&body)?;
        return Ok(ExitCode::SUCCESS);
    }
    let found: Vec<Found> = serde_json::from_str(&body).context("the admin API's answer")?;
    let texts: Vec<String> = found.iter().map(told).collect();
    output::print(&texts.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// The decisions about a request, by the gateway whose admin API is at this socket.
///
/// # Errors
/// It does not answer.
pub(crate) fn found_at(socket: &Path, id: &str) -> anyhow::Result<Vec<Found>> {
    match admin_api::get_at(socket, &format!("/requests/{id}"))? {
        Answer::Found(body) => serde_json::from_str(&body).context("the admin API's answer"),
        Answer::NotFound | Answer::Refused(_) => Ok(Vec::new()),
    }
}

/// Like the offline `explain`, of which it is the past tense.
fn told(found: &Found) -> String {
    let mut out = format!("{} {}{}\n\n", found.method, found.host, found.path);
    let mut line = |name: &str, value: &str| {
        out += format!("  {name:13} {value}").trim_end();
        out.push('\n');
    };
    line("time", &found.time);
    line("config", &found.config);
    line("client", &found.client);
    line("listener", &format!("{}, {}", found.listener, found.protocol));
    line("route", found.route.as_deref().unwrap_or("none"));
    if let Some(identity) = &found.identity {
        line("identity", identity);
    }
    if let Some(variant) = &found.variant {
        line("variant", &format!("{variant}{}", picked(found)));
    }
    if let Some(fault) = &found.fault {
        line("on purpose", fault);
    }
    let width = found.asked.iter().map(|asked| asked.policy.len()).max().unwrap_or(0);
    let last = found.asked.len().saturating_sub(1);
    for (number, asked) in found.asked.iter().enumerate() {
        let decided = number == last && found.backend.is_none();
        let outcome = if decided { verdict(found) } else { "continue".to_owned() };
        line(&asked.phase, &format!("{:width$}  {outcome}", asked.policy));
    }
    let end = match (&found.backend, &found.endpoint) {
        (Some(backend), Some(endpoint)) => {
            format!("forwarded to {backend} at {endpoint}: {}", verdict(found))
        }
        (Some(backend), None) => format!("meant for {backend}: {}", verdict(found)),
        (None, _) if found.problem.is_some() => format!("refused: {}", verdict(found)),
        (None, _) => format!("answered by the gateway: {}", verdict(found)),
    };
    out + &format!("\n  {end}\n")
}

/// What made the variant the request's.
fn picked(found: &Found) -> String {
    let weights = match found.overridden_by {
        Some(revision) => format!(" of override@{revision}"),
        None => String::new(),
    };
    match found.picked_by.as_deref() {
        Some("when") => ", whose `when` holds for it".to_owned(),
        Some("sticky") => format!(", where its client stays by the weights{weights}"),
        _ => format!(", drawn by the weights{weights}"),
    }
}

fn verdict(found: &Found) -> String {
    let status = match found.status {
        0 => "no answer".to_owned(),
        status => status.to_string(),
    };
    let problem = found.problem.as_ref().map(|code| format!(" {code}")).unwrap_or_default();
    let detail = found.detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
    status + &problem + &detail
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use portcullis_telemetry::recent::Asked;

    use super::*;

    #[test]
    fn a_request_is_told_in_the_past_tense() {
        let asked = |phase: &str, policy: &str| Asked {
            phase: phase.to_owned(),
            policy: policy.to_owned(),
        };
        let refused = Found {
            time: "2026-11-24T09:30:00.000Z".to_owned(),
            request_id: "a".to_owned(),
            client: "192.0.2.7".to_owned(),
            config: "config@7".to_owned(),
            listener: "https".to_owned(),
            protocol: "HTTP/2".to_owned(),
            method: "GET".to_owned(),
            host: "api.example.com".to_owned(),
            path: "/orders/1".to_owned(),
            route: Some("orders".to_owned()),
            identity: Some("idp/shop".to_owned()),
            backend: None,
            variant: None,
            picked_by: None,
            overridden_by: None,
            endpoint: None,
            fault: None,
            status: 403,
            problem: Some("insufficient-scope".to_owned()),
            detail: Some("idp/shop lacks the scope `orders:read`".to_owned()),
            asked: vec![asked("authenticate", "auth"), asked("authorise", "require")],
        };
        let forwarded = Found {
            backend: Some("orders-v1".to_owned()),
            endpoint: Some("http://10.0.0.1:8080".to_owned()),
            status: 200,
            problem: None,
            detail: None,
            ..refused.clone()
        };
        let busy = Found {
            endpoint: None,
            status: 503,
            problem: Some("backend-busy".to_owned()),
            ..forwarded.clone()
        };
        let shifted = |by: &str, overridden_by| Found {
            variant: Some("canary".to_owned()),
            picked_by: Some(by.to_owned()),
            overridden_by,
            fault: Some("delay".to_owned()),
            ..forwarded.clone()
        };
        let shifted = [shifted("when", None), shifted("sticky", None), shifted("weights", Some(3))];
        let [asked, stays, drawn] = shifted.map(|found| told(&found));
        expect![[r#"
            GET api.example.com/orders/1

              time          2026-11-24T09:30:00.000Z
              config        config@7
              client        192.0.2.7
              listener      https, HTTP/2
              route         orders
              identity      idp/shop
              authenticate  auth     continue
              authorise     require  403 insufficient-scope (idp/shop lacks the scope `orders:read`)

              refused: 403 insufficient-scope (idp/shop lacks the scope `orders:read`)

            GET api.example.com/orders/1

              time          2026-11-24T09:30:00.000Z
              config        config@7
              client        192.0.2.7
              listener      https, HTTP/2
              route         orders
              identity      idp/shop
              authenticate  auth     continue
              authorise     require  continue

              forwarded to orders-v1 at http://10.0.0.1:8080: 200

            GET api.example.com/orders/1

              time          2026-11-24T09:30:00.000Z
              config        config@7
              client        192.0.2.7
              listener      https, HTTP/2
              route         orders
              identity      idp/shop
              authenticate  auth     continue
              authorise     require  continue

              meant for orders-v1: 503 backend-busy

            GET api.example.com/orders/1

              time          2026-11-24T09:30:00.000Z
              config        config@7
              client        192.0.2.7
              listener      https, HTTP/2
              route         orders
              identity      idp/shop
              variant       canary, whose `when` holds for it
              on purpose    delay
              authenticate  auth     continue
              authorise     require  continue

              forwarded to orders-v1 at http://10.0.0.1:8080: 200

            GET api.example.com/orders/1

              time          2026-11-24T09:30:00.000Z
              config        config@7
              client        192.0.2.7
              listener      https, HTTP/2
              route         orders
              identity      idp/shop
              variant       canary, where its client stays by the weights
              on purpose    delay
              authenticate  auth     continue
              authorise     require  continue

              forwarded to orders-v1 at http://10.0.0.1:8080: 200

            GET api.example.com/orders/1

              time          2026-11-24T09:30:00.000Z
              config        config@7
              client        192.0.2.7
              listener      https, HTTP/2
              route         orders
              identity      idp/shop
              variant       canary, drawn by the weights of override@3
              on purpose    delay
              authenticate  auth     continue
              authorise     require  continue

              forwarded to orders-v1 at http://10.0.0.1:8080: 200
        "#]]
        .assert_eq(
            &[told(&refused), told(&forwarded), told(&busy), asked, stays, drawn].join("\n"),
        );
    }
}
