//! Asking the admin API of a running gateway, for the verbs that do.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use portcullis_config::{AdminAddress, Config};
use portcullis_core::registry::Sources;

use crate::view;

/// For each step of asking.
const PATIENCE: Duration = Duration::from_secs(5);

/// The body of an answer, or why there is none.
pub(crate) enum Answer {
    Found(String),
    /// There is nothing of that name.
    NotFound,
    /// It says what is wrong with what was asked.
    Refused(String),
}

/// Asks the admin API of the gateway that runs with this configuration. `body` is sent as JSON.
///
/// # Errors
/// There is none, or it does not answer, or not us.
pub(crate) fn ask(
    config: &Config,
    files: &dyn Sources,
    method: &str,
    path: &str,
    body: &str,
) -> anyhow::Result<Answer> {
    let admin = &config.process.admin;
    let bind = admin.bind.as_ref().context(
        "the configuration has no admin API to ask: write for example \
         `admin: unix:/run/portcullis/admin.sock`",
    )?;
    let token = match &admin.token {
        Some(token) => format!("Authorization: Bearer {}\r\n", view::secret(files, token)?),
        None => String::new(),
    };
    let request = request(method, path, &token, body);
    match bind {
        AdminAddress::Unix(path) => ask_socket(Path::new(path), &request),
        AdminAddress::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, PATIENCE)
                .with_context(|| format!("nobody listens at {address}"))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            read(&exchange(stream, &request).context("the admin API did not answer")?)
        }
    }
}

/// The same of the gateway whose admin API is at this socket.
pub(crate) fn get_at(socket: &Path, path: &str) -> anyhow::Result<Answer> {
    ask_socket(socket, &request("GET", path, "", ""))
}

fn request(method: &str, path: &str, fields: &str, body: &str) -> String {
    let length = match body.len() {
        0 => String::new(),
        length => format!("Content-Type: application/json\r\nContent-Length: {length}\r\n"),
    };
    format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\n{fields}{length}\r\n{body}")
}

fn ask_socket(path: &Path, request: &str) -> anyhow::Result<Answer> {
    let stream = UnixStream::connect(path);
    let stream = stream.with_context(|| format!("nobody listens at {}", path.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    read(&exchange(stream, request).context("the admin API did not answer")?)
}

fn read(answer: &str) -> anyhow::Result<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the admin API's answer is cut")?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(Answer::Found(body.to_owned())),
        Some("404") => Ok(Answer::NotFound),
        Some("401") => bail!("the admin API does not take the token"),
        Some("422") => {
            let problem: serde_json::Value = serde_json::from_str(body)?;
            Ok(Answer::Refused(problem["title"].as_str().unwrap_or_default().to_owned()))
        }
        _ => Err(anyhow!("the admin API said: {}", head.lines().next().unwrap_or_default())),
    }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> std::io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
