//! The examples of RFC 9421, appendix B. The keys are published there, for tests.

use super::*;

const RSA_PSS: &str = "
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr4tmm3r20Wd/PbqvP1s2
+QEtvpuRaV8Yq40gjUR8y2Rjxa6dpG2GXHbPfvMs8ct+Lh1GH45x28Rw3Ry53mm+
oAXjyQ86OnDkZ5N8lYbggD4O3w6M6pAvLkhk95AndTrifbIFPNU8PPMO7OyrFAHq
gDsznjPFmTOtCEcN2Z1FpWgchwuYLPL+Wokqltd11nqqzi+bJ9cvSKADYdUAAN5W
Utzdpiy6LbTgSxP7ociU4Tn0g5I6aDZJ7A8Lzo0KSyZYoA485mqcO0GVAdVw9lq4
aOT9v6d+nb4bnNkQVklLQ3fVAvJm+xdDOp9LCNCN48V2pnDOkFV6+U9nV5oyc6XI
2wIDAQAB";
const ECC_P256: &str = "
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf
w0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==";
const ED25519: &str = "\nMCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=";
const SHARED: &str =
    "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";

fn keys() -> Vec<Key> {
    let public = |id: &str, algorithm: &str, der: &str| {
        let pem = format!("-----BEGIN PUBLIC KEY-----{der}\n-----END PUBLIC KEY-----\n");
        serde_json::json!({ "id": id, "algorithm": algorithm, "key": pem, "client": id })
    };
    let file = serde_json::json!([
        public("test-key-rsa-pss", "rsa-pss-sha512", RSA_PSS),
        public("test-key-ecc-p256", "ecdsa-p256-sha256", ECC_P256),
        public("test-key-ed25519", "ed25519", ED25519),
        {
            "id": "test-shared-secret", "algorithm": "hmac-sha256",
            "secret": SHARED, "client": "shared",
        },
    ]);
    keys::read(file.to_string().as_bytes(), &"rfc".into()).unwrap()
}

fn is_signed(key_id: &str, base: &str, signature: &[u8]) -> bool {
    keys().iter().find(|key| &*key.id == key_id).unwrap().verify(base.as_bytes(), signature)
}

const CREATED: &str = ";created=1618884473;keyid=";
const DIGEST: &str = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNN\
                      yealdVLvRwEmTHWXvJwew==:";

fn request(input: &str, signature: &str) -> Exchange {
    let mut exchange = World::default().exchange(&format!(
        "192.0.2.7 POST /foo?param=Value&Pet=dog | Host: example.com \
         | Date: Tue, 20 Apr 2021 02:07:55 GMT | Content-Type: application/json \
         | Content-Digest: {DIGEST} | Content-Length: 18 \
         | Signature-Input: {input} | Signature: {signature}"
    ));
    exchange.request.authority = exchange.request.fields.intern(b"example.com");
    exchange.request_body = Bytes::from_static(b"{\"hello\": \"world\"}");
    exchange
}

/// Reads what the fields say and makes the text that was signed; gives that and the signature.
fn read(exchange: &Exchange) -> (String, Vec<u8>) {
    let request = &exchange.request;
    let chosen = written::choose(request, &Choice::Only).unwrap().unwrap();
    let components = chosen.components().unwrap();
    let base = components::base(&components, &chosen.parameters(), &Original::of(request));
    let signature = written::signature(request, &chosen.label).unwrap();
    (String::from_utf8(base.unwrap()).unwrap(), signature)
}

/// An example: label, lines of what is covered, key id, other parameters, signature.
type Case = (&'static str, &'static [&'static str], &'static str, &'static str, &'static str);

const CASES: [Case; 5] = [
    (
        "sig-b21",
        &[],
        "test-key-rsa-pss",
        ";nonce=\"b3k2pp5k7z-50gnwp.yemd\"",
        "d2pmTvmbncD3xQm8E9ZV2828BjQWGgiwAaw5bAkgibUopemLJcWDy/lkbbHAve4cRAtx31Iq786U7it++wgG\
         xbtRxf8Udx7zFZsckzXaJMkA7ChG52eSkFxykJeNqsrWH5S+oxNFlD4dzVuwe8DhTSja8xxbR/Z2cOGdCbzR7\
         2rgFWhzx2VjBqJzsPLMIQKhO4DGezXehhWwE56YCE+O6c0mKZsfxVrogUvA4HELjVKWmAvtl6UnCh8jYzuVG5\
         WSb/QEVPnP5TmcAnLH1g+s++v6d4s8m0gCw1fV5/SITLq9mhho8K3+7EPYTU8IU1bLhdxO5Nyt8C8ssinQ98X\
         w9Q==",
    ),
    (
        "sig-b22",
        &[
            "\"@authority\": example.com",
            "\"content-digest\": DIGEST",
            "\"@query-param\";name=\"Pet\": dog",
        ],
        "test-key-rsa-pss",
        ";tag=\"header-example\"",
        "LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjv\
         uJyE5qH7KT8UCMkSowOB4+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLE\
         uEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBSpqfZUJcsIk4N6wiKYd4je2U/lanken\
         Q99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTugEj\
         HSw==",
    ),
    (
        "sig-b23",
        &[
            "\"date\": Tue, 20 Apr 2021 02:07:55 GMT",
            "\"@method\": POST",
            "\"@path\": /foo",
            "\"@query\": ?param=Value&Pet=dog",
            "\"@authority\": example.com",
            "\"content-type\": application/json",
            "\"content-digest\": DIGEST",
            "\"content-length\": 18",
        ],
        "test-key-rsa-pss",
        "",
        "bbN8oArOxYoyylQQUU6QYwrTuaxLwjAC9fbY2F6SVWvh0yBiMIRGOnMYwZ/5MR6fb0Kh1rIRASVxFkeGt683\
         +qRpRRU5p2voTp768ZrCUb38K0fUxN0O0iC59DzYx8DFll5GmydPxSmme9v6ULbMFkl+V5B1TP/yPViV7KsLN\
         mvKiLJH1pFkh/aYA2HXXZzNBXmIkoQoLd7YfW91kE9o/CCoC1xMy7JA1ipwvKvfrs65ldmlu9bpG6A9BmzhuzF\
         8Eim5f8ui9eH8LZH896+QIF61ka39VBrohr9iyMUJpvRX2Zbhl5ZJzSRxpJyoEZAFL2FUo5fTIztsDZKEgM4cU\
         A==",
    ),
    (
        "sig-b25",
        &[
            "\"date\": Tue, 20 Apr 2021 02:07:55 GMT",
            "\"@authority\": example.com",
            "\"content-type\": application/json",
        ],
        "test-shared-secret",
        "",
        "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=",
    ),
    (
        "sig-b26",
        &[
            "\"date\": Tue, 20 Apr 2021 02:07:55 GMT",
            "\"@method\": POST",
            "\"@path\": /foo",
            "\"@authority\": example.com",
            "\"content-type\": application/json",
            "\"content-length\": 18",
        ],
        "test-key-ed25519",
        "",
        "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRC\
         w==",
    ),
];

/// B.2.1, B.2.2, B.2.3, B.2.5 and B.2.6.
#[test]
fn requests() {
    for (label, lines, key_id, more, signature) in CASES {
        let lines: Vec<String> = lines.iter().map(|line| line.replace("DIGEST", DIGEST)).collect();
        let identifiers: Vec<&str> =
            lines.iter().map(|line| line.split_once(": ").unwrap().0).collect();
        let input = format!("({}){CREATED}\"{key_id}\"{more}", identifiers.join(" "));
        let exchange = request(&format!("{label}={input}"), &format!("{label}=:{signature}:"));
        let (base, bytes) = read(&exchange);
        let last = [format!("\"@signature-params\": {input}")];
        assert_eq!(base, [lines, last.to_vec()].concat().join("\n"), "{label}");
        assert!(is_signed(key_id, &base, &bytes), "{label}");
        assert!(!is_signed(key_id, &base.replace("1618884473", "1618884474"), &bytes), "{label}");
        assert!(Digests::of(&exchange.request).unwrap().are_of(&exchange.request_body), "{label}");
    }
}

/// B.2.4 is an answer, of which we check the signature only.
#[test]
fn an_answer() {
    let base = "\"@status\": 200\n\
                \"content-type\": application/json\n\
                \"content-digest\": sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp2\
                9l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:\n\
                \"content-length\": 23\n\
                \"@signature-params\": (\"@status\" \"content-type\" \"content-digest\" \
                \"content-length\");created=1618884473;keyid=\"test-key-ecc-p256\"";
    let signature = "wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLI\
                     j+32oiasw==";
    let signature = STANDARD.decode(signature).unwrap();
    assert!(is_signed("test-key-ecc-p256", base, &signature));
    assert!(!is_signed("test-key-ecc-p256", &base.replace("200", "201"), &signature));
    assert!(!is_signed("test-key-ed25519", base, &signature));
}
