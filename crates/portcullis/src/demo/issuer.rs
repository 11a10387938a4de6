//! A token issuer with discovery and one key, for the demo.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use portcullis_proxy::Clock;
use tokio::net::TcpListener;

use super::backends::serve;

const KEY_ID: &str = "demo-1";
const TOKEN_LIFE: Duration = Duration::from_secs(8 * 3600);

pub(super) struct Issuer {
    url: String,
    key: EncodingKey,
}

impl Issuer {
    /// Starts on a free port of loopback, as a task of this runtime, with a fresh key.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address: SocketAddr = listener.local_addr()?;
        let url = format!("http://{address}");
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes())?;
        // An uncompressed point: 4, then 32 bytes each of x and y (SEC 1 §2.3.3).
        let point = pair.public_key_raw().to_vec();
        let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
        let keys = serde_json::json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KEY_ID,
            "x": part(1..33), "y": part(33..65),
        }] });
        let discovery = serde_json::json!({
            "issuer": url,
            "jwks_uri": format!("{url}/jwks.json"),
            "id_token_signing_alg_values_supported": ["ES256"],
        });
        let (keys, discovery) = (keys.to_string(), discovery.to_string());
        serve(listener, move |request: Request<Incoming>| {
            let body = match request.uri().path() {
                "/jwks.json" => Some(keys.clone()),
                "/.well-known/openid-configuration" => Some(discovery.clone()),
                _ => None,
            };
            async move { Ok(answer(body)) }
        });
        Ok(Self { url, key })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// A token for `client` with these scopes, good for a working day.
    pub(super) fn token(&self, client: &str, scopes: &[&str]) -> anyhow::Result<String> {
        let now = Clock::real().now().wall;
        let claims = serde_json::json!({
            "iss": self.url,
            "sub": client,
            "client_id": client,
            "aud": "orders",
            "scope": scopes.join(" "),
            "iat": now.as_secs(),
            "exp": (now + TOKEN_LIFE).as_secs(),
        });
        let header = Header { kid: Some(KEY_ID.to_owned()), ..Header::new(Algorithm::ES256) };
        Ok(jsonwebtoken::encode(&header, &claims, &self.key)?)
    }
}

fn answer(body: Option<String>) -> Response<Full<Bytes>> {
    let found = body.is_some();
    let mut response = Response::new(Full::new(Bytes::from(body.unwrap_or_default())));
    if !found {
        *response.status_mut() = http::StatusCode::NOT_FOUND;
    }
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert("content-type", json);
    response
}
