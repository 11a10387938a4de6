//! A real browser: Debian's chromium, driven by its chromedriver (W3C WebDriver), without a window.
//!
//! For tests in modules called `chromium`. It takes any certificate, and waits for pages and for
//! elements by itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// How long it looks for an element of a page before it is not there.
const FINDS_WITHIN_MS: u32 = 30_000;
/// How often it looks where it is; each look is a request to the driver, and takes a few ms.
const LOOKS_MAX: u32 = 10_000;
/// The name of an element in WebDriver's answers (§12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// The driver and one browser with one window, which end with this.
#[derive(Debug)]
pub struct Chromium {
    driver: Child,
    port: u16,
    session: String,
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Closes the browser; the driver alone would leave it running.
        drop(self.exchange("DELETE", &format!("/session/{}", self.session), &json!({})));
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}

impl Chromium {
    /// # Panics
    /// Where chromium or its driver are missing or do not start.
    #[must_use]
    pub fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's package chromium-driver; `cargo xtask test-real` installs it");
        let mut output = BufReader::new(driver.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("started successfully on port") {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "chromedriver does not start");
        }
        let port = line.trim().trim_end_matches('.').rsplit(' ').next().unwrap().parse().unwrap();
        let mut browser = Self { driver, port, session: String::new() };
        let arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage"];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "acceptInsecureCerts": true,
            "timeouts": { "implicit": FINDS_WITHIN_MS },
            "goog:chromeOptions": { "args": arguments },
        } } });
        let made = browser.exchange("POST", "/session", &wanted).unwrap();
        let session = made["sessionId"].as_str();
        browser.session =
            session.unwrap_or_else(|| panic!("Debian's package chromium: {made}")).to_owned();
        browser
    }

    /// Opens a page and waits until it is there, wherever that leads.
    pub fn open(&self, url: &str) {
        self.command("POST", "/url", &json!({ "url": url }));
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        self.command("GET", "/url", &json!({})).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until it is at an address that begins so.
    ///
    /// # Panics
    /// Where it is elsewhere after so many looks that it must have been for minutes.
    pub fn arrive(&self, url: &str) {
        for _ in 0..LOOKS_MAX {
            if self.url().starts_with(url) {
                return;
            }
        }
        panic!("at {}, not at {url}:\n{}", self.url(), self.text());
    }

    /// What a person reads on the page.
    #[must_use]
    pub fn text(&self) -> String {
        let text = self.run("return document.body.innerText");
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Goes back in the history, as the button does.
    pub fn back(&self) {
        self.command("POST", "/back", &json!({}));
    }

    /// Types into the element that this CSS selector finds.
    pub fn fill(&self, selector: &str, text: &str) {
        let element = self.find(selector);
        self.command("POST", &format!("/element/{element}/value"), &json!({ "text": text }));
    }

    /// Clicks it. Where that leads to a page, wait for it: [`Self::arrive`].
    pub fn click(&self, selector: &str) {
        let element = self.find(selector);
        self.command("POST", &format!("/element/{element}/click"), &json!({}));
    }

    /// The result of a function's body, run in the page.
    #[must_use]
    pub fn run(&self, script: &str) -> Value {
        self.command("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The same for one that ends by calling `done(value)`.
    #[must_use]
    pub fn run_async(&self, script: &str) -> Value {
        let script = format!("const done = arguments[0]; {script}");
        self.command("POST", "/execute/async", &json!({ "script": script, "args": [] }))
    }

    /// The cookies of the page's host, those that no script sees as well.
    #[must_use]
    pub fn cookies(&self) -> Vec<Value> {
        let cookies = self.command("GET", "/cookie", &json!({}));
        cookies.as_array().cloned().unwrap_or_default()
    }

    fn find(&self, selector: &str) -> String {
        let how = json!({ "using": "css selector", "value": selector });
        let found = self.command("POST", "/element", &how);
        found[ELEMENT].as_str().unwrap_or_default().to_owned()
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let path = format!("/session/{}{path}", self.session);
        let value = self.exchange(method, &path, body).unwrap();
        if let Some(error) = value.get("error") {
            let message = value["message"].as_str().unwrap_or_default();
            panic!("{path} {body}: {error}: {message}");
        }
        value
    }

    fn exchange(&self, method: &str, path: &str, body: &Value) -> std::io::Result<Value> {
        let mut tcp = TcpStream::connect(("127.0.0.1", self.port))?;
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost:{}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            self.port,
            body.len(),
        );
        tcp.write_all(request.as_bytes())?;
        let mut reader = BufReader::new(tcp);
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line)?;
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut answer = vec![0; length];
        reader.read_exact(&mut answer)?;
        let mut answer: Value = serde_json::from_slice(&answer)?;
        Ok(answer["value"].take())
    }
}
