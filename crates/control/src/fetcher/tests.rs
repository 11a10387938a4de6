use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::*;

/// Answers every request with what is in `answer` then; `""` never answers.
struct Server {
    url: String,
    answer: Arc<Mutex<String>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new(String::new()));
        let inside = Arc::clone(&answer);
        tokio::spawn(async move {
            loop {
                let (mut tcp, _) = listener.accept().await.unwrap();
                let answer = inside.lock().unwrap().clone();
                tokio::spawn(async move {
                    let _some = tcp.read(&mut [0; 4096]).await;
                    if answer.is_empty() {
                        return std::future::pending().await;
                    }
                    // Whoever has enough of it goes away.
                    let _all = tcp.write_all(answer.as_bytes()).await;
                });
            }
        });
        Self { url, answer }
    }

    fn says(&self, head: &str, body: &str) {
        let length = body.len();
        *self.answer.lock().unwrap() =
            format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n{body}");
    }
}

fn fetcher(state: Option<PathBuf>) -> HttpFetcher {
    HttpFetcher::new(Handle::current(), Arc::new(RootCertStore::empty()), state)
}

fn shown(result: Result<Fetched, Unavailable>, url: &str) -> String {
    match result {
        Ok(fetched) => {
            let body = String::from_utf8_lossy(&fetched.body).into_owned();
            let stale = if fetched.stale { "stale " } else { "" };
            format!("{stale}{} {body}", fetched.status.as_u16())
        }
        Err(Unavailable(reason)) => reason.replace(url, "URL"),
    }
}

#[tokio::test]
async fn an_answer_is_taken_whole_from_where_it_was_asked_for_or_not_at_all() {
    let server = Server::start().await;
    let ask = async |fetch| shown(fetcher(None).fetch(fetch).await, &server.url);
    let get = || Fetch::get(&server.url);
    server.says("200 OK", "keys");
    assert_eq!(ask(get()).await, "200 keys");
    // Nobody is followed anywhere.
    for to in ["file:///etc/passwd", "http://169.254.169.254/", "/other"] {
        server.says(&format!("302 Found\r\nLocation: {to}"), "");
        assert_eq!(ask(get()).await, "302 ");
    }
    let most = get().body_bytes_max;
    server.says("200 OK", &"x".repeat(most));
    assert_eq!(ask(get()).await.len(), most + 4);
    server.says("200 OK", &"x".repeat(most + 1));
    assert_eq!(ask(get()).await, "URL: length limit exceeded");
    server.answer.lock().unwrap().clear();
    let fetch = Fetch { timeout: Duration::from_millis(1), ..get() };
    assert_eq!(ask(fetch).await, "URL: no answer in time");
    for url in ["file:///etc/passwd", "ftp://127.0.0.1/", "keys"] {
        assert!(fetcher(None).fetch(Fetch::get(url)).await.is_err(), "{url}");
    }
}

#[tokio::test]
async fn only_a_good_answer_takes_the_last_good_ones_place() {
    let (server, state) = (Server::start().await, tempfile::tempdir().unwrap());
    let fetcher = fetcher(Some(state.path().join("kept")));
    let good: fn(&[u8]) -> bool = |body| body.starts_with(b"good");
    let ask = async || {
        let fetch = Fetch { keep_last_good: Some(good), ..Fetch::get(&server.url) };
        shown(fetcher.clone().fetch(fetch).await, &server.url)
    };
    server.says("200 OK", "<html>");
    assert_eq!(ask().await, "200 <html>", "there is nothing better");
    server.says("500 Oops", "");
    assert_eq!(ask().await, "500 ", "who asked may know of another place");
    for body in ["good 1", "good 2"] {
        server.says("200 OK", body);
        assert_eq!(ask().await, format!("200 {body}"));
    }
    for (head, body) in [("200 OK", "<html>"), ("200 OK", ""), ("500 Oops", "good 3")] {
        server.says(head, body);
        assert_eq!(ask().await, "stale 200 good 2", "{head} {body}");
    }
    let fetch = Fetch { keep_last_good: Some(good), ..Fetch::get(&server.url) };
    let fields = fetcher.fetch(fetch).await.unwrap().fields;
    let age = fields.iter().find(|(name, _)| &**name == "age").unwrap();
    assert!(str::from_utf8(&age.1).unwrap().parse::<u64>().is_ok(), "{age:?}");
}

/// Gives every connection, with its number, to `serve`.
async fn listen<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream, usize) -> F + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        for number in 0.. {
            let (tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(tcp, number));
        }
    });
    authority
}

async fn read_head(tcp: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

async fn reply(tcp: &mut TcpStream, body: &str) {
    let length = body.len();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
    tcp.write_all(answer.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn a_connection_is_used_again_until_nobody_has_needed_it_for_a_while() {
    let (gone, mut all_gone) = tokio::sync::mpsc::channel(8);
    let authority = listen(move |mut tcp, number| {
        let gone = gone.clone();
        async move {
            for count in 0.. {
                match read_head(&mut tcp).await {
                    Some(_) => reply(&mut tcp, &format!("{number}.{count}")).await,
                    None => break,
                }
            }
            gone.send(number).await.unwrap();
        }
    })
    .await;
    let (fetcher, url) = (fetcher(None), format!("http://{authority}/"));
    let ask = async || shown(fetcher.fetch(Fetch::get(&url)).await, &url);
    assert_eq!([ask().await, ask().await], ["200 0.0", "200 0.1"]);
    let mut both = [String::new(), String::new()];
    (both[0], both[1]) = tokio::join!(ask(), ask());
    both.sort();
    assert_eq!(both, ["200 0.2", "200 1.0"], "two at once need two");
    fetcher.pool.sweep(Instant::now());
    assert!(ask().await.starts_with("200 "));
    assert!(all_gone.try_recv().is_err());
    fetcher.pool.sweep(Instant::now() + pool::IDLE_MAX);
    let mut ended = [all_gone.recv().await, all_gone.recv().await];
    ended.sort();
    assert_eq!(ended, [Some(0), Some(1)]);
    assert_eq!(ask().await, "200 2.0");
}

#[tokio::test]
async fn what_a_kept_connection_lost_is_sent_once_more_if_that_does_no_harm() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let inside = Arc::clone(&asked);
    // One answer a connection, then none.
    let authority = listen(move |mut tcp, number| {
        let asked = Arc::clone(&inside);
        async move {
            for count in 0..2 {
                let Some(head) = read_head(&mut tcp).await else { return };
                let method = head.split(' ').next().unwrap().to_owned();
                asked.lock().unwrap().push(format!("{number} {method}"));
                if count == 0 {
                    reply(&mut tcp, "yes").await;
                }
            }
        }
    })
    .await;
    let (fetcher, url) = (fetcher(None), format!("http://{authority}/"));
    let ask = async |method| {
        let fetch = Fetch { method, ..Fetch::get(&url) };
        shown(fetcher.fetch(fetch).await, &url)
    };
    assert_eq!(ask(Method::GET).await, "200 yes");
    assert_eq!(ask(Method::GET).await, "200 yes");
    assert_eq!(ask(Method::POST).await, "URL: connection closed before message completed");
    assert_eq!(ask(Method::POST).await, "200 yes");
    assert_eq!(*asked.lock().unwrap(), ["0 GET", "0 GET", "1 GET", "1 POST", "2 POST"]);
}

/// Says over HTTP/2 how it was asked; `/trailers` ends with a trailer.
async fn serve_h2<T>(stream: T, number: usize)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        let said = format!("{number} {} {} {body}", head.method, head.uri.path());
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let body = Full::new(Bytes::from(said)).with_trailers(async { Some(Ok(trailers)) });
        Ok::<_, Infallible>(Response::new(body))
    });
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // Whoever has enough of it goes away.
    let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
}

#[tokio::test]
async fn http_2_shares_one_connection_and_brings_trailers() {
    let authority = listen(serve_h2).await;
    let (fetcher, url) = (fetcher(None), format!("http://{authority}/a"));
    let fetch = || Fetch {
        method: Method::POST,
        body: Bytes::from_static(b"hello"),
        http2: true,
        ..Fetch::get(&url)
    };
    let (one, other) = tokio::join!(fetcher.fetch(fetch()), fetcher.fetch(fetch()));
    let one = one.unwrap();
    let (name, value) = one.fields.last().unwrap();
    assert_eq!((&**name, &**value), ("grpc-status", &b"0"[..]));
    assert_eq!(shown(Ok(one), &url), "200 0 POST /a hello");
    assert_eq!(shown(other, &url), "200 0 POST /a hello");
    fetcher.pool.sweep(Instant::now() + pool::IDLE_MAX);
    assert_eq!(shown(fetcher.fetch(fetch()).await, &url), "200 1 POST /a hello");
}

#[tokio::test]
async fn over_tls_http_2_is_what_both_sides_agree_on_or_nothing() {
    let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let ca: Arc<[u8]> = issued.cert.pem().into_bytes().into();
    let config = |alpn: &[&str]| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::from_pem_slice(issued.signing_key.serialize_pem().as_bytes());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![issued.cert.der().clone()], key.unwrap())
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        tokio_rustls::TlsAcceptor::from(Arc::new(config))
    };
    let (both, none) = (config(&["h2", "http/1.1"]), config(&[]));
    let speaks_both = listen(move |tcp, number| {
        let both = both.clone();
        async move {
            if let Ok(tls) = both.accept(tcp).await {
                serve_h2(tls, number).await;
            }
        }
    })
    .await;
    let names_none = listen(move |tcp, _| {
        let none = none.clone();
        async move { drop(none.accept(tcp).await) }
    })
    .await;
    let fetcher = fetcher(None);
    let ask = async |authority: &str, ca: Option<&Arc<[u8]>>| {
        let url = format!("https://{authority}/a");
        let fetch = Fetch { http2: true, ca: ca.cloned(), ..Fetch::get(&url) };
        shown(fetcher.fetch(fetch).await, &url)
    };
    assert_eq!(ask(&speaks_both, Some(&ca)).await, "200 0 GET /a ");
    assert_eq!(ask(&speaks_both, Some(&ca)).await, "200 0 GET /a ");
    let unknown = ask(&speaks_both, None).await;
    assert!(unknown.contains("certificate"), "{unknown}");
    assert_eq!(ask(&names_none, Some(&ca)).await, "URL: the server does not speak HTTP/2");
}

#[tokio::test]
async fn requests_under_way_to_one_destination_are_bounded() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let inside = Arc::clone(&accepted);
    let authority = listen(move |tcp, _| {
        inside.fetch_add(1, SeqCst);
        async move {
            let _open = tcp;
            std::future::pending().await
        }
    })
    .await;
    let (fetcher, url) = (fetcher(None), format!("http://{authority}/"));
    let patient = || Fetch { timeout: Duration::from_secs(600), ..Fetch::get(&url) };
    let waiting: Vec<_> = (0..1100).map(|_| fetcher.fetch(patient())).collect();
    let one_more = shown(fetcher.fetch(patient()).await, &url);
    assert_eq!(one_more, "URL: too many requests wait for it already");
    while accepted.load(SeqCst) < 100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(accepted.load(SeqCst), 100);
    drop(waiting);
}

#[tokio::test]
async fn on_a_thread_of_its_own_it_goes_on_while_others_are_held_up() {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let fetcher = HttpFetcher::start(Arc::new(RootCertStore::empty()), None).unwrap();
    let answer = fetcher.fetch(Fetch::get(&url));
    // Nothing else on this thread's runtime has a turn meanwhile.
    let (mut tcp, _) = listener.accept().unwrap();
    assert!(tcp.read(&mut [0; 4096]).unwrap() > 0);
    tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes").unwrap();
    assert_eq!(shown(answer.await, &url), "200 yes");
}
