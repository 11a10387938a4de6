//! Which limit of the gateway itself a refusal is about, for the metrics.

use portcullis_core::Problem;
use portcullis_core::codes::{self, Code};
use portcullis_telemetry::metrics::Bound;

/// The limit that a refused request was over.
pub(crate) fn of_problem(problem: &Problem) -> Option<Bound> {
    let is = |code: &Code| problem.code.name == code.name;
    if is(codes::HEAD_TOO_LARGE) {
        // The reason of either protocol's parser.
        return Some(match problem.detail.as_str() {
            "too-many-fields" => Bound::FieldsMax,
            _ => Bound::HeadBytesMax,
        });
    }
    if is(codes::TARGET_TOO_LONG) {
        return Some(Bound::TargetBytesMax);
    }
    if is(codes::BACKEND_BODY_TOO_LARGE) {
        return Some(Bound::BufferedMax);
    }
    is(codes::BODY_TOO_LARGE).then_some(Bound::BodyMax)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_over_a_limit_are_told_apart() {
        let bound = |code, detail: &str| of_problem(&Problem::new(code).detail(detail));
        assert_eq!(bound(codes::HEAD_TOO_LARGE, "too-many-fields"), Some(Bound::FieldsMax));
        assert_eq!(bound(codes::HEAD_TOO_LARGE, "head-too-large"), Some(Bound::HeadBytesMax));
        assert_eq!(bound(codes::TARGET_TOO_LONG, ""), Some(Bound::TargetBytesMax));
        assert_eq!(bound(codes::BODY_TOO_LARGE, ""), Some(Bound::BodyMax));
        assert_eq!(bound(codes::BACKEND_BODY_TOO_LARGE, ""), Some(Bound::BufferedMax));
        assert_eq!(bound(codes::MALFORMED_REQUEST, "too-many-fields"), None);
    }
}
