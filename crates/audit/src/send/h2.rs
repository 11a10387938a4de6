//! HTTP/2 from the client's side: all requests of a batch are streams at once.

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};

use super::{Answer, Parcel, Stream, UNSAID, problem};

pub(super) struct Connection {
    send: SendRequest<Bytes>,
}

/// A stream, or why there is none.
enum Begun {
    /// And whether it is for HEAD.
    Stream(ResponseFuture, bool),
    NotExpressible,
}

impl Connection {
    pub(super) async fn new(stream: Box<dyn Stream>) -> Option<Self> {
        let (send, connection) = h2::client::handshake(stream).await.ok()?;
        // How it ends is seen by its streams.
        tokio::task::spawn_local(async { drop(connection.await) });
        Some(Self { send })
    }

    pub(super) async fn exchange(&mut self, parcels: &[(usize, Parcel)]) -> Vec<Answer> {
        let alone = parcels.first().is_some_and(|(tries, _)| *tries > 0);
        let parcels = if alone { &parcels[..1] } else { parcels };
        let mut begun = Vec::with_capacity(parcels.len());
        for (_, parcel) in parcels {
            let Some(request) = parcel.draft.h2(parcel.probe) else {
                begun.push(Begun::NotExpressible);
                continue;
            };
            let Ok(ready) = self.send.clone().ready().await else { break };
            self.send = ready;
            // What the library refuses to send cannot be said in HTTP/2.
            begun.push(match self.send.send_request(request, true) {
                Ok((response, _)) => Begun::Stream(response, parcel.draft.method == "HEAD"),
                Err(error) if error.is_io() || error.is_go_away() => break,
                Err(_) => Begun::NotExpressible,
            });
        }
        let mut answers = Vec::with_capacity(begun.len());
        for one in begun {
            let answer = match one {
                Begun::NotExpressible => Answer::NotExpressible,
                Begun::Stream(response, head) => match answer(response, head).await {
                    Some(answer) => answer,
                    None => break,
                },
            };
            answers.push(answer);
        }
        answers
    }
}

/// `None` where the connection has ended instead.
async fn answer(response: ResponseFuture, head: bool) -> Option<Answer> {
    let response = match response.await {
        Ok(response) => response,
        // The stream alone was refused, which is an answer.
        Err(error) if error.is_reset() => return Some(Answer::Closed),
        Err(_) => return None,
    };
    let status = response.status().as_u16();
    let request_id = response.headers().get("x-request-id");
    let request_id = request_id.and_then(|value| value.to_str().ok()).map(Box::from);
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        drop(body.flow_control().release_capacity(data.len()));
        text.extend_from_slice(&data);
    }
    let problem = match status {
        400.. if head => Some(UNSAID.into()),
        400.. => problem(&text),
        _ => None,
    };
    Some(Answer::Status { status, problem, request_id })
}
