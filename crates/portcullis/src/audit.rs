//! `portcullis audit`: the proof that no request gets through without the identity that its route
//! demands.

use std::io;
use std::net::ToSocketAddrs as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use portcullis_audit::{
    AuditError, Decided, Decisions, Makers, Options, Report, Subject, Target, audit, audit_target,
};
use portcullis_config::render;
use portcullis_control::{Files, system_roots};
use portcullis_policies::auth::api_keys::generate;
use portcullis_policies::auth::basic::hash_password;
use portcullis_proxy::Clock;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::{NO, cli, output, past};

/// What only the policies know how to make.
const MAKERS: Makers = Makers {
    api_key: |random, id| {
        let key = generate(random, id, "audit").ok()?;
        Some((key.text, key.entry.hash))
    },
    password: |salt, password| hash_password(password, salt).ok(),
};

pub(crate) fn run(arguments: &cli::Audit) -> anyhow::Result<ExitCode> {
    let path = &arguments.config.path;
    let files = Files::new(path);
    let texts = files.texts().context("give the configuration's path with `-c`")?;
    let registry = portcullis_policies::registry();
    let subject = Subject { texts, files: &files, registry, makers: MAKERS };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let options = Options { quick: arguments.quick, workers };
    let wall = Clock::real().now().wall;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let result = match arguments.target.as_slice() {
        [] => local.block_on(&runtime, audit(subject, options, wall)),
        urls => {
            let targets: Vec<Target> = urls.iter().map(target).collect::<anyhow::Result<_>>()?;
            let record = arguments.admin.as_deref().map(Record);
            let record = record.as_ref().map(|record| record as &dyn Decisions);
            let roots = roots(arguments.ca.as_deref())?;
            let audit = audit_target(subject, options, &targets, record, roots, wall);
            local.block_on(&runtime, audit)
        }
    };
    let report = match result {
        Ok(report) => report,
        Err(AuditError::DoesNotCompile { findings, texts }) => {
            output::remark(&render(&findings, &texts, output::colour(&io::stderr())));
            return Ok(ExitCode::from(NO));
        }
        Err(error @ AuditError::CouldNotRun(_)) => return Err(error.into()),
    };
    tell(&report, &path.display().to_string(), arguments)?;
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}

/// `http://HOST[:PORT]` or `https://HOST[:PORT]`.
fn target(url: &String) -> anyhow::Result<Target> {
    let uri: http::Uri = url.parse().with_context(|| format!("`{url}` is not a URL"))?;
    let https = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => anyhow::bail!("`{url}` is not an `http://` or `https://` URL"),
    };
    let host = uri.host().with_context(|| format!("`{url}` names no host"))?.to_owned();
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found = (bare, port).to_socket_addrs().with_context(|| format!("no address of {host}"))?;
    let address = found.into_iter().next().with_context(|| format!("no address of {host}"))?;
    Ok(Target { https, host, address })
}

fn roots(ca: Option<&Path>) -> anyhow::Result<Arc<RootCertStore>> {
    let Some(path) = ca else { return Ok(system_roots()) };
    let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate?)?;
    }
    Ok(Arc::new(roots))
}

/// The admin API of the running gateway, at the path of its socket.
struct Record<'a>(&'a Path);

impl Decisions for Record<'_> {
    fn find(&self, request_id: &str) -> Option<Decided> {
        // Whatever it cannot say is judged by the answer, and counted so.
        let found = past::found_at(self.0, request_id).ok()?;
        let found = found.into_iter().next()?;
        Some(Decided { forwarded: found.backend.is_some(), identity: found.identity })
    }
}

fn tell(report: &Report, name: &str, arguments: &cli::Audit) -> anyhow::Result<()> {
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    if let Some(path) = &arguments.sarif {
        write(path, report.sarif())?;
    }
    if let Some(path) = &arguments.junit {
        write(path, report.junit(name))?;
    }
    match arguments.json {
        true => output::print_json(report),
        false => Ok(output::print(&report.human(name))?),
    }
}
