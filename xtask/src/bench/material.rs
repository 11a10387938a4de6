//! What a bench needs beside the servers' configurations: the peers that Debian does not have, a
//! certificate, bodies, and tokens, all in `target/bench`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, bail};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use super::Plan;
use super::scenarios::MANY_ROUTES;
use crate::steps::{command, output, run};

/// As the configurations in `bench/peers` name issuers, keys and files.
const ISSUERS: [(&str, Algorithm); 2] = [("es256", Algorithm::ES256), ("rs256", Algorithm::RS256)];
/// Seconds that a token is good for.
const LIFETIME: u64 = 24 * 3600;

/// The peers from PyPI, in a virtual environment of their own.
pub(super) fn environment(folder: &Path) -> anyhow::Result<()> {
    let wanted = fs::read(crate::root().join("bench/peers/requirements.txt"))?;
    let noted = folder.join("venv/requirements.txt");
    if fs::read(&noted).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let inside = |program: &str| folder.join("venv/bin").join(program);
    run(command("python3", &["-m", "venv", &folder.join("venv").to_string_lossy()]))?;
    let pip = inside("pip");
    let install = ["install", "--quiet", "--disable-pip-version-check", "--requirement"];
    let mut pip = command(&pip.to_string_lossy(), &install);
    pip.arg("bench/peers/requirements.txt");
    run(pip)?;
    fs::write(noted, wanted)?;
    Ok(())
}

/// Where the servers run, with everything that does not depend on the scenario.
pub(super) fn folder() -> anyhow::Result<PathBuf> {
    let folder = crate::root().join("target/bench");
    fs::create_dir_all(&folder)?;
    for name in ["openssl.cnf", "wrk.lua"] {
        fs::copy(crate::root().join("bench/peers").join(name), folder.join(name)).context(name)?;
    }
    for (name, bytes) in [("16k.bin", 16 << 10), ("1m.bin", 1 << 20), ("64m.bin", 64 << 20)] {
        fs::write(folder.join(name), vec![b'b'; bytes])?;
    }
    // A message of gRPC: not compressed, 123 bytes.
    fs::write(folder.join("call.bin"), [&[0, 0, 0, 0, 123], [b'c'; 123].as_slice()].concat())?;
    let paths = (0..MANY_ROUTES).map(|n| format!("/r{n}/orders/7\n"));
    fs::write(folder.join("paths"), paths.collect::<String>())?;
    certificate(&folder)?;
    Ok(folder)
}

fn certificate(folder: &Path) -> anyhow::Result<()> {
    let request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let mut openssl = command("openssl", &request);
    openssl.args(["-nodes", "-days", "365", "-subj", "/CN=bench.example"]);
    openssl.args(["-addext", "subjectAltName=DNS:bench.example,IP:127.0.0.1"]);
    openssl.args(["-keyout", "key.pem", "-out", "cert.pem"]).current_dir(folder);
    output(openssl)?;
    let both = [fs::read(folder.join("cert.pem"))?, fs::read(folder.join("key.pem"))?].concat();
    Ok(fs::write(folder.join("both.pem"), both)?)
}

/// For each issuer a key in the forms that the peers want, one token, and if they are wanted as
/// many as there may be requests.
pub(super) fn tokens(plan: &Plan, folder: &Path, many: bool) -> anyhow::Result<()> {
    for (name, algorithm) in ISSUERS {
        let private = folder.join(format!("{name}.pem"));
        let mut openssl = command("openssl", &["genpkey", "-out", &private.to_string_lossy()]);
        openssl.args(match algorithm {
            Algorithm::ES256 => ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            _ => ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        });
        output(openssl)?;
        let mut openssl = command("openssl", &["pkey", "-pubout"]);
        openssl.arg("-in").arg(&private).arg("-out").arg(folder.join(format!("{name}.pub.pem")));
        output(openssl)?;
        let mut gateway = Command::new(crate::root().join("target/release/portcullis"));
        gateway.args(["token", "--key-set", "--kid", name, "--key"]).arg(&private);
        fs::write(folder.join(format!("{name}.jwks.json")), output(gateway)?)?;

        let pem = fs::read(&private)?;
        let key = match algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_pem(&pem)?,
            _ => EncodingKey::from_rsa_pem(&pem)?,
        };
        let issuer = Issuer { name, algorithm, key };
        fs::write(folder.join(format!("{name}.token")), issuer.sign(0..1)?)?;
        let count = if many { plan.tokens() } else { 0 };
        fs::write(folder.join(format!("{name}.tokens")), issuer.sign_many(count)?)?;
    }
    Ok(())
}

struct Issuer {
    name: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Issuer {
    /// A line for each number, of one of a hundred clients.
    fn sign(&self, numbers: std::ops::Range<usize>) -> anyhow::Result<String> {
        let header = Header { kid: Some(self.name.to_owned()), ..Header::new(self.algorithm) };
        let expires = jsonwebtoken::get_current_timestamp() + LIFETIME;
        let mut lines = String::new();
        for number in numbers {
            let client = format!("client-{}", number % 100);
            let claims = json!({
                "iss": format!("https://{}.bench.example/", self.name),
                "aud": "bench",
                "sub": &client,
                "client_id": &client,
                "exp": expires,
                "jti": number.to_string(),
            });
            lines += &jsonwebtoken::encode(&header, &claims, &self.key)?;
            lines.push('\n');
        }
        Ok(lines)
    }

    /// A signature with RSA takes about a millisecond, so both cores sign.
    fn sign_many(&self, count: usize) -> anyhow::Result<String> {
        let middle = count / 2;
        thread::scope(|scope| {
            let first = scope.spawn(|| self.sign(0..middle));
            let second = self.sign(middle..count)?;
            match first.join() {
                Ok(first) => Ok(first? + &second),
                Err(_) => bail!("signing panicked"),
            }
        })
    }
}
