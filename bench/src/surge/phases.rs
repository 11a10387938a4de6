//! When each request is due: one rate after another.

use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;

/// So many requests a second for so long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Phase {
    pub rate: f64,
    pub seconds: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Phases(pub Vec<Phase>);

/// A request that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Due {
    pub phase: usize,
    /// From the start of its phase.
    pub within: Duration,
    /// From the start of all.
    pub at: Duration,
}

impl Phases {
    /// Request `number`; `None` after the last one.
    pub(crate) fn due(&self, mut number: u64) -> Option<Due> {
        let mut begun = Duration::ZERO;
        for (at, phase) in self.0.iter().enumerate() {
            let count = (phase.rate * phase.seconds) as u64;
            if number < count {
                let within = Duration::from_secs_f64(number as f64 / phase.rate);
                return Some(Due { phase: at, within, at: begun + within });
            }
            number -= count;
            begun += Duration::from_secs_f64(phase.seconds);
        }
        None
    }
}

impl FromStr for Phases {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let phase = |text: &str| {
            let (rate, seconds) = text.split_once('x').context("a phase is `RATExSECONDS`")?;
            anyhow::Ok(Phase { rate: rate.parse()?, seconds: seconds.parse()? })
        };
        text.split(',').map(phase).collect::<anyhow::Result<_>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_one_another() {
        let phases: Phases = "2x1,4x0.5".parse().unwrap();
        let all: Vec<_> = (0..).map_while(|number| phases.due(number)).collect();
        let seen: Vec<_> = all.iter().map(|due| (due.phase, due.at.as_millis())).collect();
        assert_eq!(seen, [(0, 0), (0, 500), (1, 1_000), (1, 1_250)]);
        assert!("2".parse::<Phases>().is_err());
    }
}
