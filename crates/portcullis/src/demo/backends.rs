//! Backends that say who they are and what they were asked.

use std::convert::Infallible;
use std::net::SocketAddr;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Starts one on a free port of loopback, as a task of this runtime.
pub(super) async fn start(name: &'static str) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let answer = move |request: Request<Incoming>| async move { Ok(echo(name, &request)) };
    serve(listener, answer);
    Ok(address)
}

/// Answers every connection with `answer`.
pub(super) fn serve<A, F>(listener: TcpListener, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static,
{
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let service = service_fn(answer.clone());
            tokio::spawn(async move {
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(tcp), service);
                // A client that goes away is no news here.
                drop(connection.await);
            });
        }
    });
}

fn echo(name: &str, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let header = |name: &str| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    };
    let body = serde_json::json!({
        "backend": name,
        "method": request.method().as_str(),
        "path": request.uri().path(),
        "client": header("portcullis-client"),
        "scopes": header("portcullis-scopes"),
        "trace": header("traceparent"),
        "request_id": header("x-request-id"),
    });
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert("content-type", json);
    response
}
