//! `slow --listen ADDRESS --at-once N --takes-ms T`: a backend that can do so much and no more.
//!
//! It works on N requests at once, each of which takes T; all others queue in it, for as long as
//! that takes and whether or not somebody still waits for their answers, as most servers do it.
//! `/hang` is never answered.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone";
const BACKLOG: u32 = 16_384;
const HEAD_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    at_once: usize,
    #[arg(long)]
    takes_ms: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run(&arguments))
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(arguments.listen)?;
    let listener = socket.listen(BACKLOG)?;
    let units = Rc::new(Semaphore::new(arguments.at_once));
    let takes = Duration::from_millis(arguments.takes_ms);
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let units = Rc::clone(&units);
        // A client that goes away costs its own connection only.
        spawn_local(async move { drop(serve(tcp, &units, takes).await) });
    }
}

/// Requests without bodies, one after another.
async fn serve(mut tcp: TcpStream, units: &Semaphore, takes: Duration) -> anyhow::Result<()> {
    let mut head = Vec::new();
    while head.len() < HEAD_BYTES_MAX && tcp.read_buf(&mut head).await? > 0 {
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        if head.starts_with(b"GET /hang ") {
            std::future::pending::<()>().await;
        }
        let unit = units.acquire().await?;
        tokio::time::sleep(takes).await;
        drop(unit);
        tcp.write_all(ANSWER).await?;
        head.clear();
    }
    Ok(())
}
