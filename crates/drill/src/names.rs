//! A name server on loopback, for the drills whose endpoints are addresses of a name.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

/// In seconds: an answer is asked for again as soon as the gateway may.
const TTL: u32 = 1;
const QUESTION_BYTES_MAX: usize = 4_096;

/// The name of a scenario's endpoints.
pub(crate) fn full(scenario: &str) -> String {
    format!("{scenario}.drill.example")
}

/// Addresses by name; those of a mute name are asked for in vain.
type Table = Arc<Mutex<HashMap<String, Option<Vec<SocketAddr>>>>>;

fn lock(table: &Table) -> MutexGuard<'_, HashMap<String, Option<Vec<SocketAddr>>>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs until it is dropped.
#[derive(Debug)]
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    table: Table,
    task: AbortHandle,
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl NameServer {
    pub(crate) async fn start() -> std::io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        let table = Table::default();
        let task = tokio::spawn(serve(socket, Arc::clone(&table))).abort_handle();
        Ok(Self { address, table, task })
    }

    pub(crate) fn set(&self, scenario: &str, endpoints: &[SocketAddr]) {
        lock(&self.table).insert(full(scenario), Some(endpoints.to_vec()));
    }

    pub(crate) fn mute(&self, scenario: &str) {
        lock(&self.table).insert(full(scenario), None);
    }
}

async fn serve(socket: UdpSocket, table: Table) {
    let mut buffer = [0; QUESTION_BYTES_MAX];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        let answer = answer(&table, &question).and_then(|answer| answer.to_vec().ok());
        if let Some(answer) = answer {
            // Whoever does not get it asks again.
            drop(socket.send_to(&answer, peer).await);
        }
    }
}

fn answer(table: &Table, question: &Message) -> Option<Message> {
    let mut message = Message::response(question.metadata.id, question.metadata.op_code);
    let query = question.queries.first()?.clone();
    let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
    match lock(table).get(&name) {
        None => message.metadata.response_code = ResponseCode::NXDomain,
        Some(None) => return None,
        Some(Some(addresses)) => {
            // Of the other types it has none.
            for address in addresses.iter().filter(|_| query.query_type() == RecordType::A) {
                let data = RData::from(address.ip());
                message.add_answer(Record::from_rdata(query.name().clone(), TTL, data));
            }
        }
    }
    message.add_query(query);
    Some(message)
}
