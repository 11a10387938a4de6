//! Writing to the standard streams.

use std::io::{self, ErrorKind, IsTerminal, Write as _};

use serde::Serialize;

/// Writes to standard output. Whoever reads may stop early (`| head`), which is no error.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(print(&(text + "\n"))?)
}

/// Says beside the output what went wrong.
pub(crate) fn complain(text: &str) {
    // Nobody is left to be told when this fails.
    drop(writeln!(io::stderr(), "error: {text}"));
}

/// Writes to standard error, as it is.
pub(crate) fn remark(text: &str) {
    drop(io::stderr().write_all(text.as_bytes()));
}

/// Whether a stream may get terminal escapes: <https://no-color.org>.
pub(crate) fn colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
