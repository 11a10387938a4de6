//! The clients and the backend of a gateway that is counted: in a process of their own, so that
//! what they cost does not count.
//!
//! The program that counts starts itself once more with the argument [`ARGUMENT`] and tells that
//! process by its standard input, a line each: the gateway's address, a head field to send, the
//! number of connections; then, again and again, how many requests. The other one says where its
//! backend listens, and `done`.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use anyhow::{Context as _, bail};

pub const ARGUMENT: &str = "outside";
pub const HOST: &str = "api.example.com";
pub const PATH: &str = "/orders/17?page=2";

const DONE: &[u8] = b"done\n";
/// No head ends like this.
const BODY: [u8; 128] = [b'b'; 128];
const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// The other process, as the one that counts sees it.
#[derive(Debug)]
pub struct Outside {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    backend: SocketAddr,
}

impl Outside {
    /// # Errors
    /// The program cannot be started once more.
    pub fn start() -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let to = process.stdin.take().context("no pipe")?;
        let mut from = BufReader::new(process.stdout.take().context("no pipe")?);
        let backend = next_line(&mut from)?.parse()?;
        Ok(Self { process, to, from, backend })
    }

    #[must_use]
    pub fn backend(&self) -> SocketAddr {
        self.backend
    }

    /// So many clients connect to the gateway.
    ///
    /// # Errors
    /// The other process has ended.
    pub fn connect(&mut self, gateway: SocketAddr, field: &str, clients: u64) -> io::Result<()> {
        writeln!(self.to, "{gateway}\n{field}\n{clients}")
    }

    /// Returns when so many requests are answered with success: a multiple of the clients.
    ///
    /// # Errors
    /// One is not.
    pub fn exchange(&mut self, requests: u64) -> anyhow::Result<()> {
        writeln!(self.to, "{requests}")?;
        // Nothing here takes from the heap.
        let mut said = [0; DONE.len()];
        self.from.read_exact(&mut said).context("the other process has ended")?;
        if said != *DONE {
            bail!("the other process says {}", said.escape_ascii());
        }
        Ok(())
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn next_line(from: &mut impl io::BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        bail!("the other process has ended");
    }
    Ok(line.trim_end().to_owned())
}

/// The other process itself, until its standard input ends.
///
/// # Errors
/// The gateway does not answer, or not with success.
#[expect(clippy::print_stdout, reason = "the other process reads it")]
pub fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?);
    thread::spawn(move || {
        for tcp in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || serve(tcp));
        }
    });
    let mut from = io::stdin().lock();
    let gateway: SocketAddr = next_line(&mut from)?.parse()?;
    let field = next_line(&mut from)?;
    let clients: u64 = next_line(&mut from)?.parse()?;
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: {HOST}\r\n{field}\r\n\r\n");
    let connect = |_| {
        let tcp = TcpStream::connect(gateway)?;
        tcp.set_nodelay(true).map(|()| tcp)
    };
    let mut clients: Vec<TcpStream> = (0..clients).map(connect).collect::<io::Result<_>>()?;
    for line in from.lines() {
        let requests: usize = line?.parse()?;
        for _ in 0..requests / clients.len() {
            for client in &mut clients {
                client.write_all(request.as_bytes())?;
            }
            for client in &mut clients {
                answer(client)?;
            }
        }
        io::stdout().write_all(DONE)?;
    }
    Ok(())
}

fn answer(client: &mut TcpStream) -> anyhow::Result<()> {
    let answer = message(client, &BODY)?;
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        bail!("{}", answer.escape_ascii());
    }
    Ok(())
}

/// Answers every request without a body, until the connection ends.
fn serve(mut tcp: TcpStream) -> anyhow::Result<()> {
    tcp.set_nodelay(true)?;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n";
    let answer = [head.as_bytes(), &BODY].concat();
    loop {
        message(&mut tcp, b"\r\n\r\n")?;
        tcp.write_all(&answer)?;
    }
}

/// What comes up to `end`, which is the last of it.
fn message(tcp: &mut TcpStream, end: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut message = Vec::with_capacity(MESSAGE_BYTES_MAX);
    let mut piece = [0; 4096];
    while !message.ends_with(end) {
        let read = tcp.read(&mut piece)?;
        message.extend_from_slice(&piece[..read]);
        if read == 0 || message.len() > MESSAGE_BYTES_MAX {
            bail!("no whole message: {}", message.escape_ascii());
        }
    }
    Ok(message)
}
