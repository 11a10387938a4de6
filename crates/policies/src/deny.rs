//! Serves nothing, and says why in the log.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use portcullis_core::decode::Fault;
use portcullis_core::registry::{Compile, PolicyConfig, Site};
use portcullis_core::{Exchange, Phase, Policy, Problem, Services, Step, codes, written_as_text};

/// Answers `403 denied`. The reason stands in the access log; clients do not see it.
#[derive(Clone, Debug)]
pub(crate) struct Deny(String);

impl FromStr for Deny {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match text.trim() {
            "" => Err(Fault::new(0..text.len(), "say why")),
            reason => Ok(Self(reason.to_owned())),
        }
    }
}

impl fmt::Display for Deny {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

written_as_text! {
    Deny: "deny-reason", "a reason", "[^ ]";
}

impl PolicyConfig for Deny {
    const NAME: &'static str = "deny";
    const EXAMPLE: &'static str = r#""not for the outside""#;

    fn compile(self, _: &Site<'_>, _: &mut Compile<'_>) -> Option<Arc<dyn Policy>> {
        Some(Arc::new(Compiled { reason: self.0 }))
    }
}

#[derive(Debug)]
struct Compiled {
    reason: String,
}

impl Policy for Compiled {
    fn phase(&self) -> Phase {
        Phase::Forward
    }

    fn on_request<'a>(&'a self, _: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        Step::Refuse(Problem::new(codes::DENIED).detail(&self.reason))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::testing::check;

    #[test]
    fn the_reason_is_for_the_log() {
        let want = expect!["403 denied | moved to the back office"];
        check("deny", "moved to the back office", "192.0.2.7 GET /admin", &want);
    }

    #[test]
    fn a_reason_is_needed() {
        let want = expect!["error invalid-value at deny: say why"];
        check("deny", "\" \"", "192.0.2.7 GET /admin", &want);
    }

    #[test]
    fn nothing_but_a_reason() {
        let want = expect!["error wrong-type at deny: expected a reason, found the boolean `true`"];
        check("deny", "true", "192.0.2.7 GET /admin", &want);
    }
}
