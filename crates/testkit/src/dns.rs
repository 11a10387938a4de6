//! A name server on loopback that says what it is told to.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// What a question is answered with.
#[derive(Clone, Debug)]
enum Reply {
    Records(u32, Vec<RData>),
    Code(ResponseCode),
}

type Table = Mutex<HashMap<(String, RecordType), Reply>>;

/// Listens until it is dropped. A name that it was told nothing about does not exist; a type that
/// an existing name does not have is empty.
#[derive(Debug)]
pub struct NameServer {
    pub address: SocketAddr,
    table: Arc<Table>,
    questions: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl NameServer {
    /// # Panics
    /// If the machine has no free port.
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (table, questions) = (Arc::new(Table::default()), Arc::new(Mutex::new(0)));
        let (inside, count) = (Arc::clone(&table), Arc::clone(&questions));
        let task = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
                *count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                let answer = answer(&inside, &question);
                let _sent = socket.send_to(&answer.to_vec().unwrap(), peer).await;
            }
        });
        Self { address, table, questions, task }
    }

    /// Addresses of a name, of both families.
    pub fn addresses(&self, name: &str, ttl: u32, addresses: &[&str]) {
        let all: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let of = |v4: bool| {
            let family = all.iter().filter(|ip| ip.is_ipv4() == v4);
            Reply::Records(ttl, family.map(|ip| RData::from(*ip)).collect())
        };
        self.set(name, RecordType::A, of(true));
        self.set(name, RecordType::AAAA, of(false));
    }

    /// The SRV records of a name: `(priority, weight, port, host)`.
    pub fn services(&self, name: &str, ttl: u32, services: &[(u16, u16, u16, &str)]) {
        let record = |(priority, weight, port, host): &(u16, u16, u16, &str)| {
            let host = Name::from_ascii(host).unwrap();
            RData::SRV(SRV::new(*priority, *weight, *port, host))
        };
        let records = services.iter().map(record).collect();
        self.set(name, RecordType::SRV, Reply::Records(ttl, records));
    }

    /// The server cannot answer, for one type or for all.
    pub fn fails(&self, name: &str, kind: RecordType) {
        self.set(name, kind, Reply::Code(ResponseCode::ServFail));
    }

    /// There is no such name.
    pub fn forget(&self, name: &str) {
        self.table().retain(|(known, _), _| known != name);
    }

    /// How many questions there have been.
    #[must_use]
    pub fn questions(&self) -> usize {
        *self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, name: &str, kind: RecordType, reply: Reply) {
        self.table().insert((name.to_owned(), kind), reply);
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<(String, RecordType), Reply>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(table: &Table, question: &Message) -> Message {
    let mut message = Message::response(question.metadata.id, question.metadata.op_code);
    let Some(query) = question.queries.first().cloned() else { return message };
    let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let table = table.lock().unwrap_or_else(PoisonError::into_inner);
    match table.get(&(name.clone(), query.query_type())) {
        Some(Reply::Records(ttl, records)) => {
            for data in records {
                let record = Record::from_rdata(query.name().clone(), *ttl, data.clone());
                message.add_answer(record);
            }
        }
        Some(Reply::Code(code)) => message.metadata.response_code = *code,
        None if table.keys().any(|(known, _)| *known == name) => {}
        None => message.metadata.response_code = ResponseCode::NXDomain,
    }
    message.add_query(query);
    message
}
