//! How a WebSocket ends: by either side, by time, by a drain; and what is told of it.

use std::time::Duration;

use portcullis_testkit::{Cut, Frame, H1Client, Protocol, TestGateway, WebSocket, event};

use super::{Far, going_away};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// How long both sides have to answer the gateway's good-bye.
const GRACE: Duration = seconds(5);

/// No stream is left; connections over HTTP/2 stay open.
async fn over(gateway: &TestGateway, protocol: Protocol) {
    gateway.connections(usize::from(protocol.is_h2())).await;
}

#[tokio::test]
async fn a_closing_handshake_passes_and_ends_both_sides() {
    for mut far in Far::all().await {
        let gateway = far.gateway("");
        for protocol in Protocol::ALL {
            let (mut near, mut other) = far.open(&gateway, protocol).await;
            let close = Frame::close(1000, "done");
            near.send(&close).await;
            other.expect(&close).await;
            other.send(&close).await;
            other.shutdown().await;
            near.expect(&close).await;
            assert_eq!(near.rest().await, (Vec::new(), Cut::Closed), "{protocol:?}");
            near.shutdown().await;
            assert_eq!(other.rest().await, (Vec::new(), Cut::Closed), "{protocol:?}");
            over(&gateway, protocol).await;
        }
    }
}

#[tokio::test]
async fn a_half_that_ends_leaves_the_other_open() {
    for mut far in Far::all().await {
        let gateway = far.gateway("");
        for protocol in Protocol::ALL {
            for client_first in [true, false] {
                let (mut near, mut other) = far.open(&gateway, protocol).await;
                let (first, second) = match client_first {
                    true => (&mut near, &mut other),
                    false => (&mut other, &mut near),
                };
                let last = Frame::text("the last of it");
                first.send(&last).await;
                first.shutdown().await;
                second.expect(&last).await;
                assert_eq!(second.frame().await, Err(Cut::Closed), "{protocol:?} {client_first}");
                second.send(&last).await;
                first.expect(&last).await;
                second.send(&last).await;
                second.shutdown().await;
                first.expect(&last).await;
                assert_eq!(first.frame().await, Err(Cut::Closed), "{protocol:?} {client_first}");
                over(&gateway, protocol).await;
            }
        }
    }
}

#[tokio::test]
async fn a_half_that_ends_is_not_waited_for_for_ever() {
    for mut far in Far::all().await {
        let gateway = far.gateway("");
        for protocol in Protocol::ALL {
            let (mut near, mut other) = far.open(&gateway, protocol).await;
            near.shutdown().await;
            assert_eq!(other.frame().await, Err(Cut::Closed), "{protocol:?}");
            gateway.settle().await;
            gateway.advance(GRACE).await;
            near.rest().await;
            over(&gateway, protocol).await;
        }
    }
}

#[tokio::test]
async fn a_backend_that_crashes_is_no_orderly_end() {
    for mut far in Far::all().await {
        let gateway = far.gateway("");
        for protocol in Protocol::ALL {
            let (mut near, other) = far.open(&gateway, protocol).await;
            near.send(&Frame::text("never read")).await;
            gateway.settle().await;
            // With bytes unread, closing resets.
            drop(other);
            let (bytes, end) = near.rest().await;
            assert_eq!(bytes, b"", "{protocol:?} {}", far.protocol);
            match protocol.is_h2() {
                true => assert_eq!(end, Cut::Stream(2), "{}", far.protocol),
                false => assert_eq!(end, Cut::Reset, "{protocol:?} {}", far.protocol),
            }
            over(&gateway, protocol).await;
        }
        let lines = gateway.stop();
        let cut = lines.iter().filter(|line| line.contains(r#""problem":"backend-closed""#));
        assert_eq!(cut.count(), 4, "{lines:#?}");
    }
}

#[tokio::test]
async fn a_client_that_crashes_ends_it_for_the_backend() {
    for mut far in Far::all().await {
        let gateway = far.gateway("");
        for protocol in Protocol::ALL {
            let (near, mut other) = far.open(&gateway, protocol).await;
            other.send(&Frame::text("never read")).await;
            gateway.settle().await;
            drop(near);
            let (bytes, end) = other.rest().await;
            assert_eq!(bytes, b"", "{protocol:?} {}", far.protocol);
            if far.protocol == "h2" {
                assert!(matches!(end, Cut::Stream(_)), "{protocol:?}: {end:?}");
            }
            gateway.connections(0).await;
        }
    }
}

/// The gateway says good-bye to both; both answer and end.
async fn good_bye(near: &mut WebSocket, other: &mut WebSocket, case: &str) {
    near.expect(&going_away()).await;
    other.expect(&going_away()).await;
    near.send(&going_away()).await;
    other.send(&going_away()).await;
    near.shutdown().await;
    other.shutdown().await;
    // Nobody hears the other's answer: it would be the second Close frame.
    assert_eq!(near.rest().await, (Vec::new(), Cut::Closed), "{case}");
    assert_eq!(other.rest().await, (Vec::new(), Cut::Closed), "{case}");
}

#[tokio::test]
async fn a_silent_one_ends_after_its_idle_time() {
    for (settings, idle) in [
        ("", seconds(300)),
        ("timeout: { upgrade_idle: 10s, idle: 1s, response: 1s },", seconds(10)),
    ] {
        for mut far in Far::all().await {
            let gateway = far.gateway(settings);
            for protocol in Protocol::ALL {
                let (mut near, mut other) = far.open(&gateway, protocol).await;
                gateway.settle().await;
                // Each way counts.
                gateway.advance(idle - seconds(1)).await;
                near.send(&Frame::new(9, "")).await;
                other.expect(&Frame::new(9, "")).await;
                gateway.settle().await;
                gateway.advance(idle - seconds(1)).await;
                other.send(&Frame::new(10, "")).await;
                near.expect(&Frame::new(10, "")).await;
                gateway.settle().await;
                gateway.advance(idle - seconds(1)).await;
                near.send(&Frame::new(9, "again")).await;
                other.expect(&Frame::new(9, "again")).await;
                gateway.settle().await;
                gateway.advance(idle).await;
                good_bye(&mut near, &mut other, &format!("{protocol:?} {}", far.protocol)).await;
                over(&gateway, protocol).await;
            }
            let upgrade = gateway.metric(r#"portcullis_deadlines_total{kind="upgrade_idle"}"#);
            assert_eq!(upgrade, Some(4.0));
        }
    }
}

#[tokio::test]
async fn a_lively_one_ends_after_its_lifetime() {
    for mut far in Far::all().await {
        // `total` is about the request that opened it.
        let gateway = far.gateway("timeout: { total: 20s, upgrade_lifetime: 100s },");
        for protocol in Protocol::ALL {
            let (mut near, mut other) = far.open(&gateway, protocol).await;
            gateway.settle().await;
            for _ in 0..3 {
                gateway.advance(seconds(33)).await;
                near.send(&Frame::text("lively")).await;
                other.expect(&Frame::text("lively")).await;
                gateway.settle().await;
            }
            gateway.advance(seconds(1)).await;
            good_bye(&mut near, &mut other, &format!("{protocol:?} {}", far.protocol)).await;
            over(&gateway, protocol).await;
        }
        let lifetime = gateway.metric(r#"portcullis_deadlines_total{kind="upgrade_lifetime"}"#);
        assert_eq!(lifetime, Some(4.0));
    }
}

#[tokio::test]
async fn both_limits_may_be_off() {
    for mut far in Far::all().await {
        let gateway = far.gateway("timeout: { upgrade_idle: off, upgrade_lifetime: off },");
        for protocol in Protocol::ALL {
            let (mut near, mut other) = far.open(&gateway, protocol).await;
            gateway.settle().await;
            gateway.advance(seconds(30 * 86_400)).await;
            near.send(&Frame::text("still here")).await;
            other.expect(&Frame::text("still here")).await;
        }
    }
}

#[tokio::test]
async fn who_does_not_answer_a_good_bye_is_cut_off() {
    for mut far in Far::all().await {
        let gateway = far.gateway("");
        for protocol in Protocol::ALL {
            let (mut near, mut other) = far.open(&gateway, protocol).await;
            gateway.settle().await;
            gateway.advance(seconds(300)).await;
            near.expect(&going_away()).await;
            other.expect(&going_away()).await;
            // The answers go nowhere; neither does anything else.
            other.send(&Frame::text("too late")).await;
            gateway.settle().await;
            gateway.advance(GRACE).await;
            assert_eq!(near.rest().await, (Vec::new(), Cut::Closed), "{protocol:?}");
            other.rest().await;
            near.shutdown().await;
            over(&gateway, protocol).await;
        }
    }
}

/// Drains while `meanwhile` happens, and says whether everybody went in time.
async fn drained(gateway: &TestGateway, meanwhile: impl Future<Output = ()>) -> bool {
    let rest = async {
        meanwhile.await;
        gateway.connections(0).await;
        // Whether anybody is left is asked from time to time.
        gateway.clock.advance(seconds(1));
    };
    let drain = gateway.gateway.drain(seconds(60));
    event("a drain", async { tokio::join!(drain, rest) }).await.0
}

/// Half a frame each way is under way when the drain begins.
#[tokio::test]
async fn a_drain_says_good_bye_between_two_frames() {
    for protocol in Protocol::ALL {
        for mut far in Far::all().await {
            let gateway = far.gateway("");
            let mut idle = H1Client::connect(gateway.address("plain")).await;
            let (mut near, mut other) = far.open(&gateway, protocol).await;
            let up = Frame::text("from the client").encode(Some([1, 2, 3, 4]));
            let down = Frame::text("from the backend").encode(None);
            near.send_bytes(&up[..7]).await;
            other.send_bytes(&down[..1]).await;
            assert_eq!(other.bytes(7).await.unwrap(), up[..7]);
            assert_eq!(near.bytes(1).await.unwrap(), down[..1]);
            let rest = async {
                // It has begun: what is idle ends.
                assert_eq!(idle.rest().await.1, Cut::Closed);
                // The next frame is not passed on any more, though it comes in one piece with this.
                let more = Frame::text("the next one");
                near.send_bytes(&[&up[7..], &more.encode(Some([1; 4]))].concat()).await;
                other.send_bytes(&[&down[1..], &more.encode(None)].concat()).await;
                assert_eq!(other.bytes(up.len() - 7).await.unwrap(), up[7..]);
                assert_eq!(near.bytes(down.len() - 1).await.unwrap(), down[1..]);
                good_bye(&mut near, &mut other, &format!("{protocol:?} {}", far.protocol)).await;
            };
            let drained = drained(&gateway, rest).await;
            assert!(drained, "{protocol:?} {}", far.protocol);
        }
    }
}

#[tokio::test]
async fn a_drain_waits_for_a_good_byes_answer_and_no_longer() {
    for protocol in Protocol::ALL {
        for mut far in Far::all().await {
            let gateway = far.gateway("");
            let (mut near, mut other) = far.open(&gateway, protocol).await;
            let silence = async {
                near.expect(&going_away()).await;
                other.expect(&going_away()).await;
                assert_eq!(gateway.gateway.loads(), [1], "it waits");
                gateway.clock.advance(GRACE);
                assert_eq!(near.rest().await, (Vec::new(), Cut::Closed), "{protocol:?}");
                other.rest().await;
                near.shutdown().await;
            };
            let drained = drained(&gateway, silence).await;
            assert!(drained, "{protocol:?} {}", far.protocol);
        }
    }
}

#[tokio::test]
async fn a_drain_says_nothing_after_a_close_frame() {
    for protocol in Protocol::ALL {
        for mut far in Far::all().await {
            let gateway = far.gateway("");
            let (mut near, mut other) = far.open(&gateway, protocol).await;
            let close = Frame::close(1000, "");
            near.send(&close).await;
            other.expect(&close).await;
            let rest = async {
                // To the client, which has closed, it still may say that it goes.
                near.expect(&going_away()).await;
                other.shutdown().await;
                near.shutdown().await;
                assert_eq!(other.rest().await, (Vec::new(), Cut::Closed), "{protocol:?}");
                assert_eq!(near.rest().await, (Vec::new(), Cut::Closed), "{protocol:?}");
            };
            let drained = drained(&gateway, rest).await;
            assert!(drained, "{protocol:?} {}", far.protocol);
        }
    }
}

#[tokio::test]
async fn the_log_tells_of_it_once_it_has_ended() {
    for mut far in Far::all().await {
        let gateway = far.gateway("");
        let (up, down) = (Frame::text("up"), Frame::text("and down"));
        for protocol in Protocol::ALL {
            let (mut near, mut other) = far.open(&gateway, protocol).await;
            near.send(&up).await;
            other.expect(&up).await;
            other.send(&down).await;
            near.expect(&down).await;
            near.shutdown().await;
            other.shutdown().await;
            assert_eq!(near.rest().await, (Vec::new(), Cut::Closed));
            assert_eq!(other.rest().await, (Vec::new(), Cut::Closed));
            over(&gateway, protocol).await;
        }
        let lines = gateway.stop();
        let of = |line: &&String| line.contains(r#""path":"/live""#);
        let lines: Vec<_> = lines.iter().filter(of).collect();
        assert_eq!(lines.len(), 4, "{lines:#?}");
        let (bytes_in, bytes_out) = (up.encode(Some([0; 4])).len(), down.encode(None).len());
        for (line, protocol) in lines.iter().zip(Protocol::ALL) {
            let status = if protocol.is_h2() { 200 } else { 101 };
            for said in [
                format!(r#""status":{status},"#),
                format!(r#""bytes_in":{bytes_in},"#),
                format!(r#""bytes_out":{bytes_out},"#),
                r#""method":"GET""#.to_owned(),
                r#""route":"live""#.to_owned(),
            ] {
                assert!(line.contains(&said), "{said} in {line}");
            }
            assert!(!line.contains("problem"), "{line}");
        }
    }
}

#[tokio::test]
async fn the_metrics_count_it_while_it_is_open() {
    for mut far in Far::all().await {
        let gateway = far.gateway("");
        let active = || gateway.metric(r#"portcullis_upgrades_active{route="live"}"#);
        let total = || gateway.metric(r#"portcullis_upgrades_total{route="live"}"#);
        for (i, protocol) in Protocol::ALL.into_iter().enumerate() {
            let (mut near, mut other) = far.open(&gateway, protocol).await;
            gateway.settle().await;
            assert_eq!((active(), total()), (Some(1.0), Some(i as f64 + 1.0)), "{protocol:?}");
            near.shutdown().await;
            other.shutdown().await;
            near.rest().await;
            over(&gateway, protocol).await;
            gateway.settle().await;
            assert_eq!(active(), Some(0.0), "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn how_long_it_lived_is_no_requests_duration() {
    for mut far in Far::all().await {
        let gateway = far.gateway("");
        let of = |what: &str| {
            gateway.metric(&format!(r#"portcullis_{what}{{route="live"}}"#)).unwrap_or_default()
        };
        for (i, protocol) in Protocol::ALL.into_iter().enumerate() {
            let (mut near, mut other) = far.open(&gateway, protocol).await;
            gateway.settle().await;
            gateway.advance(seconds(60)).await;
            near.shutdown().await;
            other.shutdown().await;
            near.rest().await;
            over(&gateway, protocol).await;
            gateway.settle().await;
            assert_eq!(of("request_duration_seconds_count"), i as f64 + 1.0, "{protocol:?}");
            assert!(of("request_duration_seconds_sum") < 60.0, "{protocol:?}");
            assert!(of("gateway_added_seconds_sum") < 60.0, "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_swap_of_the_configuration_leaves_it_open() {
    for mut far in Far::all().await {
        let gateway = far.gateway("");
        let (mut near, mut other) = far.open(&gateway, Protocol::H1).await;
        gateway.swap(&super::upgrading_text(&far.url, far.protocol, "timeout: 3s,"));
        gateway.settle().await;
        near.send(&Frame::text("still")).await;
        other.expect(&Frame::text("still")).await;
    }
}
