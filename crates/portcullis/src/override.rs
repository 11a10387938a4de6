//! `portcullis override`: changes how a running gateway shares out its requests, and takes
//! endpoints out of service, without a new configuration.

pub(crate) mod told;

use std::process::ExitCode;

use anyhow::Context as _;

use crate::admin_api::{self, Answer};
use crate::cli::overrides::{Endpoint, Override, OverrideVerb, Who};
use crate::{NO, load, output};
use told::{EndpointState, Shown, State, Wanted, Weights};

pub(crate) fn run(arguments: &Override) -> anyhow::Result<ExitCode> {
    let path = &arguments.config.path;
    match &arguments.verb {
        OverrideVerb::List { json } => list(arguments, *json),
        OverrideVerb::Weights { route, weights, who } => {
            let to = weights.iter().cloned().collect();
            let weights = Weights { route: route.clone(), to };
            set(arguments, &Wanted { weights: Some(weights), ..wanted(who) })
        }
        OverrideVerb::Switch { route, variant, who } => {
            let to = std::iter::once((variant.clone(), 1)).collect();
            let weights = Weights { route: route.clone(), to };
            set(arguments, &Wanted { weights: Some(weights), ..wanted(who) })
        }
        OverrideVerb::Drain { endpoint, who } => {
            set(arguments, &in_state(endpoint, State::Draining, who))
        }
        OverrideVerb::Disable { endpoint, who } => {
            set(arguments, &in_state(endpoint, State::Disabled, who))
        }
        OverrideVerb::Clear { revision, .. } => {
            let number = revision.map(|revision| format!("/{revision}")).unwrap_or_default();
            match ask(path, "DELETE", &format!("/overrides{number}"), "")? {
                Answer::Found(body) => {
                    let said: serde_json::Value = serde_json::from_str(&body)?;
                    output::print(&format!("{} cleared\n", said["cleared"]))?;
                    Ok(ExitCode::SUCCESS)
                }
                Answer::NotFound => no("there is no override of this revision"),
                Answer::Refused(reason) => no(&reason),
            }
        }
    }
}

fn ask(path: &std::path::Path, method: &str, of: &str, body: &str) -> anyhow::Result<Answer> {
    let (attempt, _) = load::attempt(path)?;
    let config = attempt.config.as_ref().context("the configuration cannot be read: `check` it")?;
    admin_api::ask(config, &attempt.files, method, of, body)
}

fn no(reason: &str) -> anyhow::Result<ExitCode> {
    output::complain(reason);
    Ok(ExitCode::from(NO))
}

fn wanted(who: &Who) -> Wanted {
    Wanted {
        weights: None,
        endpoint: None,
        author: who.author.clone().unwrap_or_else(user),
        reason: who.reason.clone(),
        lasts_s: who.lasts.map(|lasts| lasts.as_millis().div_ceil(1_000) as u64),
    }
}

fn in_state(endpoint: &Endpoint, state: State, who: &Who) -> Wanted {
    let (backend, url) = (endpoint.backend.clone(), endpoint.url.clone());
    Wanted { endpoint: Some(EndpointState { backend, url, state }), ..wanted(who) }
}

/// Who is logged in here.
fn user() -> String {
    std::env::var("USER").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "(nobody)".into())
}

fn set(arguments: &Override, wanted: &Wanted) -> anyhow::Result<ExitCode> {
    let body = serde_json::to_string(wanted)?;
    match ask(&arguments.config.path, "POST", "/overrides", &body)? {
        Answer::Found(body) => {
            let said: serde_json::Value = serde_json::from_str(&body)?;
            output::print(&format!("in force as override@{}\n", said["revision"]))?;
            Ok(ExitCode::SUCCESS)
        }
        Answer::NotFound => no("this gateway knows no overrides"),
        Answer::Refused(reason) => no(&reason),
    }
}

fn list(arguments: &Override, json: bool) -> anyhow::Result<ExitCode> {
    let Answer::Found(body) = ask(&arguments.config.path, "GET", "/overrides", "")? else {
        return no("this gateway knows no overrides");
    };
    if json {
        output::print(&body)?;
        return Ok(ExitCode::SUCCESS);
    }
    let all: Vec<Shown> = serde_json::from_str(&body).context("the admin API's answer")?;
    let lines: Vec<String> = all.iter().map(line).collect();
    output::print(&match lines.is_empty() {
        true => "nothing is overridden\n".to_owned(),
        false => lines.concat(),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn line(one: &Shown) -> String {
    let what = match (&one.weights, &one.endpoint) {
        (Some(Weights { route, to }), _) => {
            let to: Vec<_> = to.iter().map(|(name, weight)| format!("{name}={weight}")).collect();
            format!("weights {route} {}", to.join(" "))
        }
        (None, Some(EndpointState { backend, url, state })) => {
            format!("{} {backend} {url}", state.name())
        }
        (None, None) => String::new(),
    };
    let ends = match one.ends_in_s {
        Some(seconds) => format!(", ends in {seconds}s"),
        None => String::new(),
    };
    let reason = if one.reason.is_empty() { "" } else { &format!(" \"{}\"", one.reason) };
    let idle = if one.in_use { "" } else { ", the configuration has nothing of that name" };
    format!("{}  {what}  by {}{reason}{ends}{idle}\n", one.revision, one.author)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn an_override_is_a_line() {
        let weights = Weights {
            route: "orders".to_owned(),
            to: [("canary".to_owned(), 5), ("stable".to_owned(), 95)].into_iter().collect(),
        };
        let shown = Shown {
            revision: 7,
            weights: Some(weights),
            endpoint: None,
            author: "alice".to_owned(),
            reason: "a look at v2".to_owned(),
            set_at: String::new(),
            ends_in_s: Some(90),
            in_use: true,
        };
        let endpoint = EndpointState {
            backend: "orders-v1".to_owned(),
            url: "http://10.0.0.1".to_owned(),
            state: State::Draining,
        };
        let drained = Shown {
            weights: None,
            endpoint: Some(endpoint),
            reason: String::new(),
            ends_in_s: None,
            in_use: false,
            ..shown.clone()
        };
        expect![[r#"
            7  weights orders canary=5 stable=95  by alice "a look at v2", ends in 90s
            7  drain orders-v1 http://10.0.0.1  by alice, the configuration has nothing of that name
        "#]]
        .assert_eq(&[line(&shown), line(&drained)].concat());
    }
}
