//! What can be typed. Nothing is done here.

pub(crate) mod overrides;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use portcullis_config::TestRequest;

const STATUSES: &str = "\
Exit status: 0 yes, 1 no (what was asked does not hold), 2 usage, 3 could not run.

Start with `portcullis demo`.";

/// An API gateway: one binary and one file, between the clients of an API and the services behind
/// it.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, max_term_width = 100, arg_required_else_help = true)]
#[command(disable_help_subcommand = true, subcommand_value_name = "VERB")]
#[command(subcommand_help_heading = "Verbs", after_help = STATUSES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Start a gateway with all it needs on loopback, and print lines to try it with
    Demo(Demo),
    /// Run the gateway
    Run(Run),
    /// Compile a configuration and run its tests, and show everything that is wrong with it
    Check(Check),
    /// Try every route with all that must let nobody in, and show that nobody gets in
    Audit(Audit),
    /// Make backends fail in every way, and show what clients see of it
    #[command(subcommand, subcommand_help_heading = "Drills")]
    Drill(Drill),
    /// Print the route table: what is matched, who may pass, and where it goes
    Routes(Routes),
    /// Say what would become of a request, phase by phase, without sending it
    Explain(Explain),
    /// Shift a running gateway's traffic: weights, blue-green, endpoints out of service
    Override(overrides::Override),
    /// Show a running gateway's canaries: how far they are, and what speaks against them
    Analysis(Analysis),
    /// Print the JSON Schema of the configuration, for editors
    #[command(after_help = "\
Example:
  portcullis schema > portcullis.schema.json

and as the first line of a configuration, for completion in the editor:
  # yaml-language-server: $schema=./portcullis.schema.json")]
    Schema,
    /// Make, list, rotate and revoke API keys; hash passwords
    Keys(Keys),
    /// Make a signed token for tests, or print the key set that it is verified with
    Token(Token),
    /// Print a completion script for a shell
    Completions(Completions),
}

/// Where the configuration is.
#[derive(Args, Debug)]
pub(crate) struct Configuration {
    /// The configuration: a file, or a directory of .yaml, .yml and .json files
    #[arg(short = 'c', long = "config", value_name = "FILE|DIR", value_hint = ValueHint::AnyPath)]
    #[arg(default_value = "portcullis.yaml")]
    pub path: PathBuf,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  portcullis demo
  portcullis demo --port 0    # any free port

Ctrl-C stops it; nothing is left behind.")]
pub(crate) struct Demo {
    /// The port that the gateway listens on; 0 is any free one
    #[arg(long, default_value_t = 8443)]
    pub port: u16,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  portcullis run -c portcullis.yaml

A change of the configuration, or of a file that it refers to, is loaded within a second, and at
once on SIGHUP; one that does not compile changes nothing. SIGTERM drains and stops.
PORTCULLIS_LOG=debug says more.")]
pub(crate) struct Run {
    /// The configuration: a file, or a directory of .yaml, .yml and .json files
    #[arg(short, long, value_name = "FILE|DIR", value_hint = ValueHint::AnyPath)]
    #[arg(default_value = "portcullis.yaml")]
    pub config: PathBuf,
    /// Where the admin API listens, instead of where the configuration says; needs `admin: {token}`
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub admin: Option<SocketAddr>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  portcullis check -c portcullis.yaml
  portcullis check -c portcullis.yaml --deny warnings    # in CI

A warning that is no danger is accepted in the configuration itself, with the reason:
  accept: [{ finding: wildcard-host, at: routes.shops.match, reason: \"a shop has its own host\" }]

Exit status: 0 it compiles and its tests hold (warnings are shown), 1 it does not, or there are
warnings that are denied and not accepted, 3 it cannot be read.")]
pub(crate) struct Check {
    #[command(flatten)]
    pub config: Configuration,
    /// What is not to be lived with: warnings that are not accepted
    #[arg(long, value_name = "WHAT")]
    pub deny: Option<Deny>,
    /// Show accepted warnings too
    #[arg(long)]
    pub all: bool,
    /// Print findings and counts as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Deny {
    Warnings,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  portcullis audit -c portcullis.yaml
  portcullis audit --quick --sarif audit.sarif --junit audit.xml
  portcullis audit --target https://api.example.com --admin /run/portcullis/admin.sock

The configuration is served on loopback by this program's own gateway, with backends, issuers and
keys that are made up for the audit: no backend, issuer or private key of yours is touched. For each
route that is not public: no credential, bad ones of every kind, the path and the method said in
other ways; and a good credential, which has to get through.
Exit status: 0 every such route is covered and there are no findings; 1 not, or the configuration
does not compile; 3 it cannot be read, or nobody is at a target.")]
pub(crate) struct Audit {
    #[command(flatten)]
    pub config: Configuration,
    /// Send each kind of probe once a route, for configurations with thousands of routes; by
    /// default every probe is sent with every method, over HTTP/1.1 and HTTP/2, on every listener
    #[arg(long)]
    pub quick: bool,
    /// Try a gateway that is running with this configuration instead: only what must be refused is
    /// sent, and nothing that its own issuers would have to sign
    #[arg(long, value_name = "URL", value_delimiter = ',', value_hint = ValueHint::Url)]
    pub target: Vec<String>,
    /// The running gateway's admin socket: what it did with each request is asked there
    #[arg(long, value_name = "SOCKET", requires = "target", value_hint = ValueHint::FilePath)]
    pub admin: Option<PathBuf>,
    /// Who has signed the running gateway's certificates, PEM [default: the system's authorities]
    #[arg(long, value_name = "FILE", requires = "target", value_hint = ValueHint::FilePath)]
    pub ca: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Write the findings as SARIF 2.1.0 too, for code scanning
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub sarif: Option<PathBuf>,
    /// Write the routes as JUnit XML too, a test for each
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub junit: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Drill {
    /// Endpoints that are killed, hang, are slow, fail, come and go
    Backends(Backends),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  portcullis drill backends
  portcullis drill backends --only killed,resolved --seconds 60

This program's own gateway is started as a process of its own, with endpoints that are made up for
the drill; nothing of yours is touched. All drills are played at once, each on a backend of its own:
a second of calm, the trouble, and four seconds after it.
Exit status: 0 all promises are kept, 1 not, 2 there is no such drill, 3 it could not be played.")]
pub(crate) struct Backends {
    /// Requests a second, for each drill
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(portcullis_drill::RATE_MAX)))]
    pub rate: u32,
    /// How long the trouble lasts
    #[arg(long, value_name = "SECONDS", default_value_t = 8)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub seconds: u32,
    /// Play these only
    #[arg(long, value_name = "DRILL", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  portcullis routes -c portcullis.yaml
  portcullis routes --unused 30d
  portcullis routes --json | jq -r '.[] | select(.access == \"public\") | .route'

Exit status: 0 printed, 1 the configuration does not compile, 3 it cannot be read.")]
pub(crate) struct Routes {
    #[command(flatten)]
    pub config: Configuration,
    /// Print the table as JSON
    #[arg(long)]
    pub json: bool,
    /// Ask the running gateway which routes had no request for this long, such as 30d
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub unused: Option<Duration>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  portcullis analysis
  portcullis analysis --json | jq -r '.[] | select(.stage == \"rolled back\") | .route'

The running gateway is asked over the admin API of the configuration.
Exit status: 0 shown, 3 the gateway does not answer.")]
pub(crate) struct Analysis {
    #[command(flatten)]
    pub config: Configuration,
    /// Print the canaries as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  portcullis explain \"GET https://api.example.com/orders/7\"
  portcullis explain \"GET https://api.example.com/orders/7\" --as idp --scopes orders:read
  portcullis explain \"GET https://api.example.com/orders/7\" --header \"X-Api-Key: pk_...\"
  portcullis explain --id 5f0c2d9ab4c14e0d8f6b1f3e7a9c0d12

Nothing is sent, fetched or counted. With --id the running gateway is asked, over the admin API of
the configuration, what became of a request of the last hour; its id is in `X-Request-Id`.
Exit status: 0 the request passes, or the route answers it, or its past is known; 1 it is refused,
or not known, or the configuration does not compile; 3 it depends on something that is not asked
offline, such as an issuer's keys, or nobody answers.")]
pub(crate) struct Explain {
    /// Method and URL; the scheme and the port choose the listener
    #[arg(value_name = "METHOD URL", value_parser = request, required_unless_present = "id")]
    pub request: Option<TestRequest>,
    /// The id of a request that the running gateway has had
    #[arg(long, value_name = "REQUEST ID", value_parser = request_id)]
    #[arg(conflicts_with_all = ["request", "headers", "from", "auth"])]
    pub id: Option<String>,
    #[command(flatten)]
    pub config: Configuration,
    /// A header field of the request; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    pub headers: Vec<(String, String)>,
    /// The address that the request comes from [default: 192.0.2.1, which is nobody's]
    #[arg(long, value_name = "ADDRESS")]
    pub from: Option<IpAddr>,
    /// Whose credential is taken for accepted: an entry of `auth`
    #[arg(long = "as", value_name = "NAME")]
    pub auth: Option<String>,
    /// Scopes of that credential, separated by commas
    #[arg(long, value_delimiter = ',', requires = "auth")]
    pub scopes: Vec<String>,
    /// Roles of that credential, separated by commas: its claim `roles`
    #[arg(long, value_delimiter = ',', requires = "auth")]
    pub roles: Vec<String>,
    /// A claim of that credential, its value in JSON or as it is; may be repeated
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim, requires = "auth")]
    pub claims: Vec<(String, serde_json::Value)>,
    /// Client of that credential
    #[arg(long, default_value = "test", requires = "auth")]
    pub client: String,
    /// Tenant of that credential
    #[arg(long, requires = "auth")]
    pub tenant: Option<String>,
    /// Print the decision as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
#[command(arg_required_else_help = true)]
pub(crate) struct Keys {
    #[command(subcommand)]
    pub verb: KeysVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysVerb {
    /// Make an API key and its entry for the file of keys
    Create(KeysCreate),
    /// Show which keys there are, whose, and until when
    List(KeysList),
    /// Make the successor of a key, and set an end to the key
    Rotate(KeysRotate),
    /// Take a key away
    Revoke(KeysRevoke),
    /// Make the entry of a user with a password, for the file of users
    HashPassword(HashPassword),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  portcullis keys create --client acme --scopes orders:read --expires 2027-12-31 -f partners.yaml
  portcullis keys create --client acme --expires 2027-12-31 >> partners.yaml

The key is shown once: with --file on standard output, else on standard error beside its entry,
which has its hash only.
Exit status: 0 made, 1 the file has that id already or is no file of keys, 2 usage, 3 the file
cannot be read or written.")]
pub(crate) struct KeysCreate {
    /// Who the key is for
    #[arg(long)]
    pub client: String,
    /// The tenant that the client belongs to
    #[arg(long)]
    pub tenant: Option<String>,
    /// What the key may be used for, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub scopes: Vec<String>,
    /// From when on the key is refused: 2027-12-31 or 2027-12-31T12:00:00Z, in UTC [default: never]
    #[arg(long, value_name = "TIME")]
    pub expires: Option<String>,
    /// Until when the key is refused, likewise [default: valid at once]
    #[arg(long, value_name = "TIME")]
    pub not_before: Option<String>,
    /// Part of the key's text that finds its entry [default: from the client, with a random part]
    #[arg(long)]
    pub id: Option<String>,
    /// Add the entry to this file; made if it does not exist [default: print the entry]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Print key and entry as JSON, both on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  portcullis keys list -f partners.yaml
  portcullis keys list -f partners.yaml --json | jq -r '.[] | select(.state == \"ending\") | .id'

A key is `good`, `ending` within 30 days, `expired`, or `early`: not valid yet.
Exit status: 0 shown, 1 it is no file of keys, 3 it cannot be read.")]
pub(crate) struct KeysList {
    /// The file of keys
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Print the list as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  portcullis keys rotate acme-2026 --overlap 7d --expires 2028-12-31 -f partners.yaml

Both keys are good until the overlap ends. The successor has the client, the tenant and the scopes
of the key; it is shown once, on standard output.
Exit status: 0 done, 1 there is no such key or it is no file of keys, 2 usage, 3 the file cannot be
read or written.")]
pub(crate) struct KeysRotate {
    /// The key to replace
    pub id: String,
    /// For how long the key is still good
    #[arg(long, default_value = "7d", value_name = "DURATION", value_parser = duration)]
    pub overlap: Duration,
    /// From when on the successor is refused: 2027-12-31 or 2027-12-31T12:00:00Z, in UTC
    /// [default: never]
    #[arg(long, value_name = "TIME")]
    pub expires: Option<String>,
    /// The id of the successor [default: from the client, with a random part]
    #[arg(long, value_name = "ID")]
    pub new_id: Option<String>,
    /// The file of keys
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Print the successor and its entry as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  portcullis keys revoke acme-2026 -f partners.yaml

The entry is removed from the file. A running gateway reads the file within a second.
Exit status: 0 done, 1 there is no such key or it is no file of keys, 3 the file cannot be read or
written.")]
pub(crate) struct KeysRevoke {
    /// The key to take away
    pub id: String,
    /// The file of keys
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Print what was done as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  portcullis keys hash-password --user alice --scopes orders:read < password.txt >> users.yaml

The password is read from standard input: one line.
Exit status: 0 made, 2 no password that a user can have, or no name.")]
pub(crate) struct HashPassword {
    /// The user's name, without a colon
    #[arg(long)]
    pub user: String,
    /// The tenant that the user belongs to
    #[arg(long)]
    pub tenant: Option<String>,
    /// What the user may do, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub scopes: Vec<String>,
    /// Print the entry as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  openssl genpkey -algorithm ed25519 -out idp.pem
  portcullis token --key idp.pem --key-set > idp.jwks.json
  portcullis token --key idp.pem --issuer https://idp.test/ --audience orders --scopes orders:read

with `auth: { idp: { jwt: { issuer: \"https://idp.test/\", audience: [orders],
jwks: \"file:idp.jwks.json\" } } }` in the configuration.")]
pub(crate) struct Token {
    /// The private key to sign with, PEM: P-256, P-384, Ed25519 or RSA
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: PathBuf,
    /// Name of the key in the token and in the key set
    #[arg(long, default_value = "test")]
    pub kid: String,
    /// Print the key set (JWKS) with the public key instead of a token
    #[arg(long)]
    pub key_set: bool,
    /// Claim `iss`: who issues the token
    #[arg(long, required_unless_present = "key_set")]
    pub issuer: Option<String>,
    /// Claim `aud`: whom the token is for; several separated by commas
    #[arg(long, value_delimiter = ',', required_unless_present = "key_set")]
    pub audience: Vec<String>,
    /// Claims `sub` and `client_id`: whom the token is issued to
    #[arg(long, default_value = "test")]
    pub client: String,
    /// Claim `scope`, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub scopes: Vec<String>,
    /// Claim `exp`: for how long the token is good, as 15m or 1h30m
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = duration)]
    pub expires_in: Duration,
    /// One more claim; the value is JSON, or else a text; may be repeated
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    pub claims: Vec<(String, serde_json::Value)>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  portcullis completions bash > ~/.local/share/bash-completion/completions/portcullis
  portcullis completions zsh > \"${fpath[1]}/_portcullis\"")]
pub(crate) struct Completions {
    pub shell: clap_complete::Shell,
}

fn request(text: &str) -> Result<TestRequest, String> {
    text.parse().map_err(|fault| sentence(&fault))
}

fn request_id(text: &str) -> Result<String, String> {
    let id = portcullis_core::exchange::RequestId::accept(text.as_bytes());
    id.map(|_| text.to_owned()).ok_or_else(|| "not the id of a request".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    portcullis_core::units::parse_duration(text).map_err(|fault| sentence(&fault))
}

fn sentence(fault: &portcullis_core::decode::Fault) -> String {
    match &fault.help {
        Some(help) => format!("{}; {help}", fault.message),
        None => fault.message.clone(),
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write `NAME: VALUE`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn claim(text: &str) -> Result<(String, serde_json::Value), String> {
    let (name, value) = text.split_once('=').ok_or("write `NAME=VALUE`")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    /// What a verb does is shown best by a line that does it.
    #[test]
    fn every_verb_has_an_example() {
        fn visit(command: &clap::Command) {
            let verbs: Vec<_> = command.get_subcommands().collect();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let shown = help.contains("\n  portcullis ");
            assert!(!verbs.is_empty() || shown, "{}", command.get_name());
            verbs.into_iter().for_each(visit);
        }
        visit(&Cli::command());
    }

    #[test]
    fn requests_headers_and_claims_are_read_or_refused() {
        assert_eq!(request("GET https://a/b?c").unwrap().target, "/b?c");
        assert!(request("https://a/b").unwrap_err().contains("write for example"));
        assert_eq!(header("A: b:c").unwrap(), ("A".to_owned(), "b:c".to_owned()));
        assert!(header("A").is_err());
        assert_eq!(claim("a=[1]").unwrap().1, serde_json::json!([1]));
        assert_eq!(claim("a=b=c").unwrap().1, "b=c");
        assert!(duration("1x").is_err());
    }
}
