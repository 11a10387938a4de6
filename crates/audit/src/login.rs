//! Logging in at the gateway under audit, as a browser does: sent to the provider, back with a
//! code, and then with a session, or without one where the provider cannot be believed.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::PoisonError;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::draft::Draft;
use crate::forge::{Credential, Login, Twist};
use crate::oracle::Owner;
use crate::plan::Planner;
use crate::send::{Lane, Protocol, Roads, connect};

/// A client on this machine, whom no listener of the stage trusts.
pub(crate) const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What became of a login that is not as it has to be.
pub(crate) enum Outcome {
    /// Nobody can log in: why.
    NoSession(String),
    /// Somebody could, who must not.
    Session(String),
}

/// One answer, as far as a browser needs it.
#[derive(Default)]
struct Answer {
    status: u16,
    location: Option<String>,
    /// `NAME=VALUE` of what is set.
    cookies: Vec<String>,
}

/// Logs in where a route of this index is; `None` where everything is as it has to be.
pub(crate) async fn run(
    login: &Login,
    index: usize,
    planner: &Planner,
    roads: &Rc<dyn Roads>,
) -> Option<Outcome> {
    let Some((lane, page)) = site(login, index, planner) else {
        let reason = format!("no route that takes it has the path {}", login.callback);
        return Some(Outcome::NoSession(reason));
    };
    let result = go(login, &lane, page, roads).await;
    match (result, &login.session, &login.bad) {
        (Ok(value), Some(session), _) => {
            *session.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
            None
        }
        (Ok(_), None, Some(bad)) => Some(Outcome::Session(bad.to_string())),
        (Err(reason), Some(_), _) => Some(Outcome::NoSession(reason)),
        _ => None,
    }
}

/// Uses up a credential that is good once, where a route of this index is; or why it is not good.
pub(crate) async fn spend(
    credential: &Credential,
    index: usize,
    planner: &Planner,
    roads: &Rc<dyn Roads>,
) -> Option<String> {
    let (lane, draft) = planner.request(index, credential)?;
    match ask(&draft, &lane, roads).await {
        Ok(Answer { status: status @ (400 | 401 | 500..), .. }) => {
            Some(format!("a credential that is good once gets {status} at once"))
        }
        Ok(_) => None,
        Err(reason) => Some(reason),
    }
}

/// Where to log in: a page of the route whose host has the callback.
fn site(login: &Login, index: usize, planner: &Planner) -> Option<(Lane, Draft)> {
    let mut examples: Vec<_> = planner.oracle.examples[index].iter().collect();
    let https = |listener: u16| planner.listeners[usize::from(listener)].https;
    examples.sort_by_key(|example| !https(example.listener));
    examples.into_iter().find_map(|example| {
        let https = https(example.listener);
        let lane = Lane {
            listener: example.listener,
            protocol: Protocol::H1,
            peer: if login.near && !https { NEAR } else { planner.peers[0] },
            server_name: https.then(|| example.host.clone()),
            certificate: planner.listeners[usize::from(example.listener)].certificate,
        };
        let page = Draft {
            method: "GET".to_owned(),
            authority: example.host.clone(),
            target: example.target(),
            https,
            fields: example.headers.clone(),
            ..Draft::default()
        };
        let callback = Draft { target: login.callback.clone(), ..page.clone() };
        match planner.oracle.owner(&callback, &lane) {
            Owner::Route(owner) if planner.takes(owner, &login.entry) => Some((lane, page)),
            _ => None,
        }
    })
}

/// The session that a login comes to, or what came instead.
async fn go(
    login: &Login,
    lane: &Lane,
    mut page: Draft,
    roads: &Rc<dyn Roads>,
) -> Result<String, String> {
    page.add("Accept", "text/html");
    let begun = ask(&page, lane, roads).await?;
    let location = begun.location.filter(|_| begun.status == 302);
    let location =
        location.ok_or_else(|| format!("a page is answered with {}, no login", begun.status))?;
    let query = location.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let of = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(has, _)| *has == name).map(|(_, value)| value).unwrap_or_default()
    };
    let (nonce, challenge) = (of("nonce"), of("code_challenge"));
    let state = match login.twist {
        Twist::NoState => String::new(),
        // Its beginning is what the browser's login is found by.
        Twist::OtherState => format!("&state={}audit", of("state")),
        Twist::None | Twist::NoCookie | Twist::Again => format!("&state={}", of("state")),
    };
    let mut back = page.clone();
    let code = &login.code;
    back.target = format!("{}?code={code}.{nonce}.{challenge}{state}", login.callback);
    if login.twist != Twist::NoCookie {
        back.add("Cookie", begun.cookies.join("; "));
    }
    if login.twist == Twist::Again {
        ask(&back, lane, roads).await?;
    }
    let ended = ask(&back, lane, roads).await?;
    let kept = ended.cookies.iter().filter_map(|cookie| cookie.split_once('='));
    let mut kept = kept.filter(|(name, value)| !name.contains("-login-") && !value.is_empty());
    let session = kept.next_back().filter(|_| ended.status == 303);
    let (name, value) =
        session.ok_or_else(|| format!("the login ends with {}, no session", ended.status))?;
    if let Some(logout) = &login.logout {
        let mut out = Draft { method: "POST".to_owned(), target: logout.clone(), ..page };
        out.add("Cookie", format!("{name}={value}"));
        out.add("Sec-Fetch-Site", "same-origin");
        let out = ask(&out, lane, roads).await?;
        if out.status != 303 {
            return Err(format!("the logout ends with {}", out.status));
        }
    }
    Ok(value.to_owned())
}

async fn ask(draft: &Draft, lane: &Lane, roads: &Rc<dyn Roads>) -> Result<Answer, String> {
    let mut stream = connect(&**roads, lane).await?;
    let mut draft = draft.clone();
    draft.add("Connection", "close");
    let mut request = Vec::new();
    draft.write_h1(u32::MAX, &mut request);
    let failed = |error: std::io::Error| error.to_string();
    stream.write_all(&request).await.map_err(failed)?;
    let mut answer = Vec::new();
    // How the connection ends after the answer is nobody's concern.
    drop(stream.take(ANSWER_BYTES_MAX as u64).read_to_end(&mut answer).await);
    let text = String::from_utf8_lossy(&answer);
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let mut read = Answer { status: status.ok_or("no answer")?, ..Answer::default() };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        match &*name.to_ascii_lowercase() {
            "location" => read.location = Some(value.trim().to_owned()),
            "set-cookie" => {
                let pair = value.split(';').next().unwrap_or_default();
                read.cookies.push(pair.trim().to_owned());
            }
            _ => {}
        }
    }
    Ok(read)
}
