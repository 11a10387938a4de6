//! `cargo xtask bench audit`: how long `portcullis audit` takes with 5,000 routes.
//!
//! Nearly all of them ask for a credential, over HTTP/1.1 and HTTP/2, in clear text and over TLS.
//! What has to hold is that everything was proved, by at least 30 requests for each such route,
//! in less than a minute on two cores.

use std::fmt::Write as _;
use std::fs;
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::steps::{cargo, command, output, run, step};

const ROUTES: usize = 5_000;
/// Routes that ask for the same scope; the last of them is public.
const TEAM: usize = 50;
const PROBES_MIN: f64 = 30.0;
const SECONDS_MAX: f64 = 60.0;

const HEAD: &str = r#"listeners:
  http: { bind: "127.0.0.1:8080" }
  https:
    bind: "127.0.0.1:8443"
    tls: { certificates: [{ cert: "file:c.pem", key: "file:k.pem" }] }
auth:
  idp: { jwt: { issuer: "https://idp.example/", audience: [shop] } }
  partners: { api_keys: { keys: "file:partners.yaml" } }
defaults: { on: [http, https] }
backends: { app: "http://127.0.0.1:9000" }
routes:
"#;

pub(crate) fn audit() -> anyhow::Result<()> {
    step("release build", || {
        run(cargo(&["build", "--release", "--locked", "--package", "portcullis"]))
    })?;
    let folder = crate::root().join("target/bench");
    fs::create_dir_all(&folder)?;
    let path = folder.join("audit.yaml");
    fs::write(&path, configuration()?)?;
    let path = path.to_string_lossy();
    let began = Instant::now();
    let arguments = ["audit", "--quick", "--json", "-c", &*path];
    let report = output(command("target/release/portcullis", &arguments))?;
    let took = began.elapsed().as_secs_f64();
    let report: Value = serde_json::from_str(&report)?;
    let of = |value: &Value| value.as_f64().context("the report has another form");
    let (authenticated, probes) = (of(&report["routes"]["authenticated"])?, of(&report["probes"])?);
    let each = probes / authenticated;
    println!(
        "| routes | that authenticate | covered | probes | for each | seconds | in all |\n\
         |---|---|---|---|---|---|---|\n\
         | {ROUTES} | {authenticated} | {} | {probes} | {each:.1} | {:.1} | {took:.1} |",
        of(&report["routes"]["covered"])?,
        of(&report["seconds"])?,
    );
    if each < PROBES_MIN || took > SECONDS_MAX {
        bail!("at least {PROBES_MIN} probes a route in less than {SECONDS_MAX} s");
    }
    Ok(())
}

fn configuration() -> anyhow::Result<String> {
    let mut text = HEAD.to_owned();
    for route in 0..ROUTES {
        let team = route / TEAM;
        let path = format!("\"/team{team}/r{route}/**\"");
        if route % TEAM == TEAM - 1 {
            writeln!(text, "  r{route}: {{ match: {path}, public: \"a bench\", to: app }}")?;
            continue;
        }
        let auth = match route % 5 {
            0 => "partners",
            1 => "[idp, partners]",
            _ => "idp",
        };
        let scopes = format!("{{ scopes: [\"team{team}:read\"] }}");
        writeln!(
            text,
            "  r{route}: {{ match: {path}, auth: {auth}, require: {scopes}, to: app }}"
        )?;
    }
    Ok(text)
}
