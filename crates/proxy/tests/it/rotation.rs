//! Keys that change while requests go on, at a real issuer: npm's `oidc-provider`.

mod real;
