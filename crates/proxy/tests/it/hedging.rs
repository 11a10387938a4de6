//! A second endpoint is asked where the first is slow: when, what of it is heard, and what it costs.
//! By a clock that moves only here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use portcullis_testkit::backend::response;
use portcullis_testkit::h2_backend::Manner;
use portcullis_testkit::{
    Answer, Backend, Client, H2Backend, Protocol, Request, Setup, TestGateway,
};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What two endpoints do: each request waits for a permit of its endpoint and gets its answer.
struct Pair {
    backends: [Backend; 2],
    permits: [Arc<Semaphore>; 2],
    /// Connections that the gateway gave up while an answer was due.
    given_up: [Arc<AtomicUsize>; 2],
}

impl Pair {
    async fn answering(answers: [String; 2]) -> Self {
        let permits = [0, 1].map(|_| Arc::new(Semaphore::new(0)));
        let given_up = [0, 1].map(|_| Arc::new(AtomicUsize::new(0)));
        let [one, two] = answers;
        let backends = [
            Self::one(one, &permits[0], &given_up[0]).await,
            Self::one(two, &permits[1], &given_up[1]).await,
        ];
        Self { backends, permits, given_up }
    }

    async fn named() -> Self {
        Self::answering([response(200, "one"), response(200, "two")]).await
    }

    async fn one(answer: String, permits: &Arc<Semaphore>, given_up: &Arc<AtomicUsize>) -> Backend {
        let (permits, given_up) = (Arc::clone(permits), Arc::clone(given_up));
        Backend::start(move |mut conversation| {
            let (answer, permits) = (answer.clone(), Arc::clone(&permits));
            let given_up = Arc::clone(&given_up);
            async move {
                while conversation.request().await.is_some() {
                    tokio::select! {
                        permit = permits.acquire() => permit.unwrap().forget(),
                        _ = conversation.until_closed() => {
                            given_up.fetch_add(1, SeqCst);
                            return;
                        }
                    }
                    conversation.send(&answer).await;
                }
            }
        })
        .await
    }

    fn gateway(&self, retry: &str, backend: &str) -> TestGateway {
        let urls: Vec<String> = self.backends.iter().map(Backend::url).collect();
        gateway(&urls, retry, backend)
    }

    fn asked(&self) -> [usize; 2] {
        [0, 1].map(|number| self.backends[number].requests().len())
    }

    /// Which endpoint has one request more than the other.
    fn first(&self) -> usize {
        let [one, two] = self.asked();
        assert_ne!(one, two);
        usize::from(two > one)
    }

    async fn until_asked(&self, all: usize) {
        while self.asked().iter().sum::<usize>() < all {
            tokio::task::yield_now().await;
        }
    }
}

fn gateway(urls: &[String], retry: &str, backend: &str) -> TestGateway {
    Setup::new(&format!(
        r#"
routes:
  all: {{ match: /**, public: "a test", to: backend, retry: {retry} }}
backends:
  backend: {{ endpoints: {urls:?}, slow_start: off{backend} }}
"#
    ))
    .start()
}

async fn asking(gateway: &TestGateway, request: Request) -> JoinHandle<Answer> {
    let mut client = Client::connect(gateway, Protocol::H1).await;
    tokio::spawn(async move { client.send(request).await.unwrap() })
}

fn hedges(gateway: &TestGateway) -> f64 {
    gateway.metric(r#"portcullis_backend_hedges_total{backend="backend"}"#).unwrap()
}

#[tokio::test]
async fn the_first_good_answer_is_heard_and_the_other_given_up() {
    for winner in [0, 1] {
        let pair = Pair::named().await;
        let gateway = pair.gateway("{ hedge: 50ms }", "");
        let asked = asking(&gateway, Request::get("/")).await;
        pair.until_asked(1).await;
        let first = pair.first();
        gateway.advance(ms(49)).await;
        assert_eq!(pair.asked().iter().sum::<usize>(), 1);
        gateway.advance(ms(1)).await;
        pair.until_asked(2).await;
        let heard = if winner == 0 { first } else { 1 - first };
        pair.permits[heard].add_permits(1);
        assert_eq!(asked.await.unwrap().text(), ["one", "two"][heard]);
        while pair.given_up[1 - heard].load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(hedges(&gateway), 1.0);
        // The one that was heard keeps its connection.
        pair.permits[heard].add_permits(9);
        pair.permits[1 - heard].add_permits(9);
        for _ in 0..4 {
            asking(&gateway, Request::get("/")).await.await.unwrap();
        }
        let connections = pair.backends[heard].connections();
        assert_eq!((connections, pair.given_up[heard].load(SeqCst)), (1, 0));
        let logged = gateway.stop();
        let logged = logged.iter().find(|line| line.contains(r#""route":"all""#)).unwrap();
        assert!(logged.contains(r#""retries":1"#), "{logged}");
    }
}

#[tokio::test]
async fn who_answers_in_time_is_asked_alone() {
    let pair = Pair::named().await;
    let gateway = pair.gateway("{ hedge: 50ms }", "");
    for number in 1..=4 {
        let asked = asking(&gateway, Request::get("/")).await;
        pair.until_asked(number).await;
        gateway.advance(ms(49)).await;
        pair.permits.iter().for_each(|permits| permits.add_permits(1));
        asked.await.unwrap();
        let left: usize = pair.permits.iter().map(|permits| permits.available_permits()).sum();
        assert_eq!(left, number);
    }
    assert_eq!((hedges(&gateway), pair.asked().iter().sum::<usize>()), (0.0, 4));
}

#[tokio::test]
async fn only_what_may_be_repeated_is_and_with_its_body() {
    for (lets, retry) in
        [(false, "{ hedge: 50ms }"), (true, "{ hedge: 50ms, non_idempotent: true }")]
    {
        for request in [Request::post("/", "a body"), Request::stream("/", &["a ", "body"])] {
            let pair = Pair::named().await;
            let gateway = pair.gateway(retry, "");
            let asked = asking(&gateway, request).await;
            pair.until_asked(1).await;
            gateway.settle().await;
            gateway.advance(ms(50)).await;
            if lets {
                pair.until_asked(2).await;
            }
            pair.permits.iter().for_each(|permits| permits.add_permits(1));
            assert_eq!(asked.await.unwrap().status, 200);
            assert_eq!(pair.asked().iter().sum::<usize>(), 1 + usize::from(lets));
            for backend in &pair.backends {
                assert!(backend.requests().iter().all(|request| request.body == b"a body"));
            }
        }
    }
}

#[tokio::test]
async fn the_budget_allows_it_or_the_first_is_waited_for() {
    let pair = Pair::named().await;
    let none = ", retry_budget: { percent: 0, per_second: 0 }";
    let gateway = pair.gateway("{ hedge: 50ms }", none);
    let asked = asking(&gateway, Request::get("/")).await;
    pair.until_asked(1).await;
    gateway.advance(ms(500)).await;
    gateway.settle().await;
    pair.permits.iter().for_each(|permits| permits.add_permits(1));
    assert_eq!(asked.await.unwrap().status, 200);
    assert_eq!((hedges(&gateway), pair.asked().iter().sum::<usize>()), (0.0, 1));
    assert_eq!(gateway.gateway.snapshot().backends[0].budget.refused(), 1);
}

#[tokio::test]
async fn a_bad_answer_is_not_heard_while_another_may_come() {
    for bad in [response(503, "bad"), String::new()] {
        let pair = Pair::answering([bad.clone(), response(200, "two")]).await;
        let gateway = pair.gateway("{ hedge: 50ms }", "");
        // Until it was the bad one that was asked first.
        let asked = loop {
            let before = pair.asked();
            let asked = asking(&gateway, Request::get("/")).await;
            pair.until_asked(before[0] + before[1] + 1).await;
            if pair.asked()[0] > before[0] {
                break asked;
            }
            pair.permits[1].add_permits(1);
            asked.await.unwrap();
        };
        gateway.advance(ms(50)).await;
        while pair.asked()[1] == 0 || hedges(&gateway) == 0.0 {
            tokio::task::yield_now().await;
        }
        pair.permits[0].add_permits(1);
        gateway.settle().await;
        pair.permits[1].add_permits(1);
        assert_eq!(asked.await.unwrap().text(), "two", "{bad:?}");
    }
}

#[tokio::test]
async fn both_together_have_the_time_of_one() {
    let pair = Pair::named().await;
    let gateway = pair.gateway("{ hedge: 5s }", "");
    let asked = asking(&gateway, Request::get("/")).await;
    pair.until_asked(1).await;
    gateway.settle().await;
    gateway.advance(ms(5_000)).await;
    pair.until_asked(2).await;
    gateway.advance(ms(10_000)).await;
    let answer = asked.await.unwrap();
    assert_eq!((answer.status, &*answer.problem()), (504, "backend-timeout"));
}

/// After enough answers the gateway knows by itself what is slow. By this clock they took no time.
#[tokio::test]
async fn after_thirty_two_answers_the_p95_is_known() {
    let pair = Pair::named().await;
    let gateway = pair.gateway("{ hedge: p95 }", "");
    pair.permits.iter().for_each(|permits| permits.add_permits(100));
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    for _ in 0..32 {
        assert_eq!(client.send(Request::get("/")).await.unwrap().status, 200);
    }
    assert_eq!(hedges(&gateway), 0.0);
    for permits in &pair.permits {
        permits.forget_permits(permits.available_permits());
    }
    let asked = tokio::spawn(async move { client.send(Request::get("/")).await.unwrap() });
    pair.until_asked(33).await;
    gateway.settle().await;
    gateway.advance(ms(1)).await;
    pair.until_asked(34).await;
    pair.permits.iter().for_each(|permits| permits.add_permits(1));
    assert_eq!(asked.await.unwrap().status, 200);
    assert_eq!(hedges(&gateway), 1.0);
}

#[tokio::test]
async fn over_http2_the_loser_is_reset() {
    let (reset, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let start = async || {
        let (reset, seen) = (Arc::clone(&reset), Arc::clone(&seen));
        H2Backend::start(Manner::default(), move |mut stream| {
            let (reset, seen) = (Arc::clone(&reset), Arc::clone(&seen));
            async move {
                // The second one is quick.
                if seen.fetch_add(1, SeqCst) == 1 {
                    return stream.answer(200, &[], "second");
                }
                drop(std::future::poll_fn(|cx| stream.respond.poll_reset(cx)).await);
                reset.fetch_add(1, SeqCst);
            }
        })
        .await
    };
    let (one, two) = (start().await, start().await);
    let urls = [format!("h2c://{}", one.address), format!("h2c://{}", two.address)];
    let gateway = gateway(&urls, "{ hedge: 50ms }", "");
    let mut client = Client::connect(&gateway, Protocol::H2).await;
    let asked = tokio::spawn(async move { client.send(Request::get("/")).await.unwrap() });
    while seen.load(SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    gateway.settle().await;
    gateway.advance(ms(50)).await;
    assert_eq!(asked.await.unwrap().text(), "second");
    while reset.load(SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
}
