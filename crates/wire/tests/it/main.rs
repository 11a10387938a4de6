//! The wire cases: hostile, odd and right bytes through a gateway, judged by the exact bytes that
//! reach its backend. The cases are in `crates/wire/cases`.
//!
//! Tests are named after the requirement that their cases are about.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here fails the test")]

mod client;
mod credentials;
mod features;
mod judging;
mod logins;
mod memory;
mod recorder;
mod relay;
mod ring;
mod tokens;

use portcullis_wire::case::{Case, cases};

macro_rules! files {
    ($($test:ident: $file:literal,)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                ring::all(&cases($file, include_str!(concat!("../../cases/", $file)))).await;
            }
        )*

        /// The cases of all files.
        fn every_case() -> Vec<Case> {
            let mut all = Vec::new();
            $(all.extend(cases($file, include_str!(concat!("../../cases/", $file))));)*
            all
        }
    };
}

files! {
    what_is_right_is_passed_on: "00_positive.cases",
    requirement_01_one_framing: "01_one_framing.cases",
    requirement_01_one_framing_of_what_comes_over_http2: "01_over_http2.cases",
    requirement_02_heads_are_rebuilt: "02_rebuilt.cases",
    requirement_03_bodies_are_never_read_as_requests: "03_bodies.cases",
    requirement_04_tunnel_only_after_101: "04_tunnels.cases",
    requirement_05_one_canonical_path: "05_one_path.cases",
    requirement_06_one_authority: "06_one_authority.cases",
    requirement_07_own_fields_are_out_of_reach: "07_own_fields.cases",
    requirement_12_a_connection_has_its_limits: "12_costs.cases",
    requirement_13_resets_end_in_goaway: "13_resets.cases",
    requirement_14_deadlines_are_absolute: "14_deadlines.cases",
    requirement_15_sent_at_most_once: "15_sent_once.cases",
    requirement_16_what_is_cut_off_never_looks_whole: "16_truncated.cases",
    requirement_17_bad_backends_are_a_502: "17_backends.cases",
}
