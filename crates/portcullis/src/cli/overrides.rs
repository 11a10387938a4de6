//! What can be typed after `portcullis override`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Configuration, duration};

#[derive(Args, Debug)]
#[command(arg_required_else_help = true)]
#[command(after_help = "\
Example:
  portcullis override weights orders stable=90 canary=10 --for 1h
  portcullis override list

The running gateway is told over the admin API of the configuration. What is overridden holds
until it is cleared or its time is over, over reloads too, and not over a restart.")]
pub(crate) struct Override {
    #[command(flatten)]
    pub config: Configuration,
    #[command(subcommand)]
    pub verb: OverrideVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OverrideVerb {
    /// Show what is overridden, by whom, and until when
    #[command(after_help = "\
Example:
  portcullis override list
  portcullis override list --json | jq -r '.[] | select(.in_use | not) | .revision'

Exit status: 0 shown, 3 the gateway does not answer.")]
    List {
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Share a route's requests among its variants by these weights
    #[command(after_help = "\
Example:
  portcullis override weights orders stable=90 canary=10 --for 1h --reason \"a look at v2\"

A variant that is not named weighs 0. What `when` says of a variant still holds.
Exit status: 0 in force, 1 the gateway has no such route or variant, 3 it does not answer.")]
    Weights {
        /// The route, by its full name
        route: String,
        /// The weights
        #[arg(value_name = "NAME=WEIGHT", value_parser = weight, required = true)]
        weights: Vec<(String, u64)>,
        #[command(flatten)]
        who: Who,
    },
    /// Send all of a route's requests to one variant, in one step: blue-green
    #[command(after_help = "\
Example:
  portcullis override switch orders green --reason \"release 42\"
  portcullis override switch orders blue     # and back

Each request goes to the one or to the other; those under way end where they began.
Exit status: 0 in force, 1 the gateway has no such route or variant, 3 it does not answer.")]
    Switch {
        /// The route, by its full name
        route: String,
        /// The variant that gets everything
        #[arg(value_name = "NAME")]
        variant: String,
        #[command(flatten)]
        who: Who,
    },
    /// Give an endpoint no new requests; those under way end, and its connections may stay
    #[command(after_help = "\
Example:
  portcullis override drain orders-v1 http://10.0.0.1:8080 --for 30m --reason \"kernel update\"

Clear the override to put the endpoint back into service.
Exit status: 0 in force, 1 the gateway has no such endpoint, 3 it does not answer.")]
    Drain {
        #[command(flatten)]
        endpoint: Endpoint,
        #[command(flatten)]
        who: Who,
    },
    /// The same, and close its idle connections
    #[command(after_help = "\
Example:
  portcullis override disable orders-v1 http://10.0.0.1:8080 --reason \"it is gone\"

Exit status: 0 in force, 1 the gateway has no such endpoint, 3 it does not answer.")]
    Disable {
        #[command(flatten)]
        endpoint: Endpoint,
        #[command(flatten)]
        who: Who,
    },
    /// End an override: what the configuration says holds again
    #[command(after_help = "\
Example:
  portcullis override clear 7      # the number that `list` shows
  portcullis override clear --all

Exit status: 0 done, 1 there is no such override, 3 the gateway does not answer.")]
    Clear {
        /// Its revision
        #[arg(required_unless_present = "all")]
        revision: Option<u64>,
        /// All of them
        #[arg(long, conflicts_with = "revision")]
        all: bool,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Endpoint {
    pub backend: String,
    /// Its URL, as `list`, the log and the metrics show it
    #[arg(value_name = "URL")]
    pub url: String,
}

#[derive(Args, Debug)]
pub(crate) struct Who {
    /// For how long, as 30m or 1h30m [default: until it is cleared]
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub lasts: Option<Duration>,
    /// Why, for whoever finds it
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Who says so [default: $USER]
    #[arg(long)]
    pub author: Option<String>,
}

fn weight(text: &str) -> Result<(String, u64), String> {
    let (name, weight) = text.split_once('=').ok_or("write `NAME=WEIGHT`")?;
    let weight = weight.parse().map_err(|_| format!("`{weight}` is not a weight"))?;
    Ok((name.to_owned(), weight))
}
