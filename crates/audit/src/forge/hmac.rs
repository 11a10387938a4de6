//! Webhooks: a file of senders of the audit's own, and codes that are made for each request anew,
//! of what it is or of something else. Probes have no body, which is what is signed of it.
//!
//! A sender that signs the time and no id has one good request a second: so there are several
//! senders, and they use all the seconds of the window.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portcullis_core::hex;
use portcullis_core::node::Node;
use portcullis_proxy::Clock;
use serde_json::{Map, json};

use super::keys::{encode, hmac_by};
use super::{Bad, Caller, Credential, Entry, Forged, Workshop};
use crate::draft::Draft;
use crate::needs::{Lacking, Needs, TENANT};

const CLIENT: &str = "audit-client";
const HOUR: i64 = 3600;
/// Of the sixteen that a file may have.
const SENDERS: usize = 4;
/// Seconds before and after now that are good, and a few less.
const WINDOW: u64 = 280;

pub(super) fn forge(
    entry: &Entry<'_>,
    needs: &Needs,
    workshop: &mut Workshop<'_>,
) -> Result<Forged, String> {
    let file = entry.text("keys").ok_or("`keys` is not a text")?.to_owned();
    let form = Arc::new(Form::of(entry)?);
    let window = seconds_of(entry.text("window")).unwrap_or(WINDOW);
    let tenant = needs.tenant.clone().unwrap_or_else(|| TENANT.to_owned());
    let mut senders = Senders { file, workshop };
    let good: Vec<Sender> =
        (0..SENDERS).map(|_| senders.add(&needs.scopes, &tenant, &[])).collect();
    let past = senders.workshop.time(-2 * 24 * HOUR);
    let expired = senders.add(&needs.scopes, &tenant, &[("expires", past)]);
    let future = senders.workshop.time(2 * 24 * HOUR);
    let early = senders.add(&needs.scopes, &tenant, &[("not_before", future)]);
    let clock = senders.workshop.clock.clone();
    let pen =
        Pen { form, senders: good, window, clock, shift: None, moment: None, trick: Trick::None };
    let replayed = Pen { moment: Some(Arc::default()), ..pen.clone() };
    let is_once = pen.form.timestamp.is_some() && entry.text("replay") != Some("allow");
    let mut bad = Vec::new();
    let mut add = |by: Bad, pen: Pen| bad.push((by, pen.credential()));
    add(Bad::of("expired", "its key"), Pen { senders: vec![expired], ..pen.clone() });
    add(Bad::of("not yet valid", "its key"), Pen { senders: vec![early], ..pen.clone() });
    add(Bad::of("wrong key", "by nobody's"), Pen { senders: vec![Sender::new()], ..pen.clone() });
    for (detail, trick) in TRICKS {
        add(Bad::of("malformed", *detail), Pen { trick: *trick, ..pen.clone() });
    }
    if is_once {
        add(Bad::of("replayed", "a code that was used"), replayed.clone());
    }
    if pen.form.timestamp.is_some() {
        let old = Pen { shift: Some(-HOUR), ..pen.clone() };
        add(Bad::of("expired", "made an hour ago"), old);
        let coming = Pen { shift: Some(HOUR), ..pen.clone() };
        add(Bad::of("not yet valid", "made in an hour"), coming);
        for (detail, trick) in TRICKS_OF_TIME {
            add(Bad::of("malformed", *detail), Pen { trick: *trick, ..pen.clone() });
        }
    }
    for Lacking { kind, detail, needs: lacking } in needs.lacking() {
        // A sender has no claims.
        if kind != "claim not as required" {
            let tenant = lacking.tenant.as_deref().unwrap_or(&tenant);
            let sender = senders.add(&lacking.scopes, tenant, &[]);
            add(Bad::of(kind, detail), Pen { senders: vec![sender], ..pen.clone() });
        }
    }
    let twice = pen.clone().credential();
    let again = pen.clone().credential();
    bad.push((Bad::of("two credentials", "two good codes"), twice.and(&again)));
    Ok(Forged {
        good: pen.credential(),
        caller: Caller {
            client: CLIENT.to_owned(),
            tenant: Some(tenant),
            scopes: needs.scopes.clone(),
            claims: Map::new(),
        },
        bad,
        logins: Vec::new(),
        used: is_once.then(|| replayed.credential()).into_iter().collect(),
        spoofed: Vec::new(),
    })
}

#[derive(Clone)]
struct Sender {
    secret: Arc<[u8]>,
    /// Requests that it has made.
    sent: Arc<AtomicU64>,
}

impl Sender {
    /// One that is in no file.
    fn new() -> Self {
        let secret = encode(Workshop::random::<32>()).into_bytes();
        Self { secret: secret.into(), sent: Arc::default() }
    }
}

/// The file that lists who sends.
struct Senders<'a, 'b> {
    file: String,
    workshop: &'a mut Workshop<'b>,
}

impl Senders<'_, '_> {
    fn add(&mut self, scopes: &[String], tenant: &str, more: &[(&str, String)]) -> Sender {
        let id = format!("audit-{}", self.workshop.number());
        let sender = Sender::new();
        let mut entry = json!({
            "id": id, "client": CLIENT, "tenant": tenant, "scopes": scopes,
            "secret_base64": STANDARD.encode(&sender.secret),
        });
        for (name, value) in more {
            entry[*name] = value.as_str().into();
        }
        self.workshop.lists.entry(self.file.clone()).or_default().push(entry);
        sender
    }
}

/// How the operator says that senders sign.
struct Form {
    header: String,
    signature: String,
    separator: String,
    timestamp: Option<String>,
    id: Option<String>,
    message: String,
    algorithm: &'static str,
}

impl Form {
    fn of(entry: &Entry<'_>) -> Result<Self, String> {
        let written = entry.settings.get("format").ok_or("it has no `format`")?;
        let known = |parts: [&str; 6]| {
            let [header, signature, separator, timestamp, id, message] = parts.map(str::to_owned);
            let some = |text: String| Some(text).filter(|text| !text.is_empty());
            let (timestamp, id) = (some(timestamp), some(id));
            Self { header, signature, separator, timestamp, id, message, algorithm: "HS256" }
        };
        match written.as_str() {
            Some("standard_webhooks") => Ok(known([
                "webhook-signature",
                "v1,${base64}",
                " ",
                "webhook-timestamp",
                "webhook-id",
                "${id}.${timestamp}.${body}",
            ])),
            Some("github") => {
                Ok(known(["x-hub-signature-256", "sha256=${hex}", "", "", "", "${body}"]))
            }
            Some("stripe") => Ok(known([
                "stripe-signature",
                "v1=${hex}",
                ",",
                "t=${timestamp}",
                "",
                "${timestamp}.${body}",
            ])),
            Some("slack") => Ok(known([
                "x-slack-signature",
                "v0=${hex}",
                "",
                "x-slack-request-timestamp",
                "",
                "v0:${timestamp}:${body}",
            ])),
            Some(other) => Err(format!("there is no format `{other}`")),
            None => {
                let text = |key: &str| written.get(key).and_then(Node::as_str).map(str::to_owned);
                Ok(Self {
                    header: text("header").ok_or("`header` is not a text")?,
                    signature: text("signature").unwrap_or_else(|| "${hex}".to_owned()),
                    separator: text("separator").unwrap_or_default(),
                    timestamp: text("timestamp"),
                    id: text("id"),
                    message: text("message").unwrap_or_else(|| "${body}".to_owned()),
                    algorithm: match text("algorithm").as_deref() {
                        Some("sha512") => "HS512",
                        _ => "HS256",
                    },
                })
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trick {
    None,
    /// Signed with this for a body.
    Body(&'static str),
    Garbage,
    Empty,
    /// Half of the code.
    Short,
    NoTime,
    OtherTime,
    TextForTime,
}

const TRICKS: &[(&str, Trick)] = &[
    ("signed for another body", Trick::Body("{}")),
    ("not a code", Trick::Garbage),
    ("no code", Trick::Empty),
    ("half of a code", Trick::Short),
];

const TRICKS_OF_TIME: &[(&str, Trick)] = &[
    ("without a time", Trick::NoTime),
    ("another time than the one that is signed", Trick::OtherTime),
    ("a time that is none", Trick::TextForTime),
];

/// Signs requests.
#[derive(Clone)]
struct Pen {
    form: Arc<Form>,
    senders: Vec<Sender>,
    window: u64,
    clock: Clock,
    /// Seconds between now and when it is said to have been made; one of those that are good.
    shift: Option<i64>,
    /// Sender, time and id of its first code, for all others too.
    moment: Option<Arc<OnceLock<(Sender, i64, String)>>>,
    trick: Trick,
}

impl Pen {
    fn credential(self) -> Credential {
        Credential::new(move |draft| self.sign(draft))
    }

    /// The next sender, and how far from now it says that it is.
    fn next(&self) -> (&Sender, i64) {
        let all = &self.senders[0].sent;
        let number = all.fetch_add(1, Ordering::Relaxed);
        let count = self.senders.len() as u64;
        let at = number % count;
        let seconds = (number / count) % (2 * self.window + 1);
        let seconds = i64::try_from(seconds).unwrap_or_default();
        let first = i64::try_from(self.window).unwrap_or_default();
        (&self.senders[usize::try_from(at).unwrap_or_default()], seconds - first)
    }

    fn sign(&self, draft: &mut Draft) {
        let form = &self.form;
        let fresh = || {
            let (sender, good) = self.next();
            let now = i64::try_from(self.clock.now().wall.as_secs()).unwrap_or(i64::MAX);
            let id = encode(Workshop::random::<16>());
            (sender.clone(), now + self.shift.unwrap_or(good), id)
        };
        let first = self.moment.as_ref().map(|moment| moment.get_or_init(fresh).clone());
        let (sender, time, id) = first.unwrap_or_else(fresh);
        let body = if let Trick::Body(other) = self.trick { other } else { "" };
        let said = match self.trick {
            Trick::TextForTime => "now".to_owned(),
            _ => time.to_string(),
        };
        let signed =
            if self.trick == Trick::OtherTime { (time + 1).to_string() } else { said.clone() };
        let message = form.message.replace("${timestamp}", &signed);
        let message = message.replace("${id}", &id).replace("${body}", body);
        let code = hmac_by(form.algorithm, &sender.secret, message.as_bytes());
        let mut code = code.ok().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        match (self.trick, &mut code) {
            (Trick::Garbage, Some(code)) => code.fill(7),
            (Trick::Empty, Some(code)) => code.clear(),
            (Trick::Short, Some(code)) => code.truncate(code.len() / 2),
            _ => {}
        }
        let code = code.unwrap_or_default();
        let mut items = Vec::new();
        let has_time = self.trick != Trick::NoTime;
        match form.timestamp.as_deref() {
            Some(item) if item.contains("${timestamp}") && has_time => {
                items.push(item.replace("${timestamp}", &said));
            }
            Some(name) if !name.contains("${timestamp}") && has_time => draft.add(name, said),
            _ => {}
        }
        let item = form.signature.replace("${hex}", &hex::of_bytes(&code));
        items.push(item.replace("${base64}", &STANDARD.encode(&code)));
        if let Some(name) = &form.id {
            draft.add(name, id);
        }
        draft.add(&form.header, items.join(&form.separator));
    }
}

/// A window that is written in seconds or minutes.
fn seconds_of(written: Option<&str>) -> Option<u64> {
    let written = written?;
    let (number, unit) = match (written.strip_suffix('s'), written.strip_suffix('m')) {
        (Some(number), _) => (number, 1),
        (_, Some(number)) => (number, 60),
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(unit)?;
    // What takes a while to arrive is still good.
    Some(seconds.saturating_sub(20).min(WINDOW))
}
