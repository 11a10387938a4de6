//! The gateway under drill: the program itself, in a directory of its own, on a Unix socket there,
//! so that no port has to be found.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::DrillError;
use crate::client;
use crate::endpoint::HEALTH;
use crate::names::{self, NameServer};
use crate::scenario::{Found, Scenario};

/// A start takes a moment; one that takes longer has failed.
const START: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);

const CONFIG: &str = "portcullis.yaml";
/// Answered by the gateway itself.
const READY: &str = "/ready";

/// Ends with its value, and its directory with it.
#[derive(Debug)]
pub(crate) struct Gateway {
    child: Child,
    directory: TempDir,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Gateway {
    /// Starts one that reads this configuration, and waits until it answers.
    pub(crate) async fn start(program: &Path, config: &Config) -> Result<Self, DrillError> {
        let directory = tempfile::Builder::new().prefix("portcullis-drill-").tempdir()?;
        let log = directory.path().join("log");
        config.write_all(directory.path())?;
        let child = Command::new(program)
            .args(["run", "-c", CONFIG])
            .current_dir(directory.path())
            .env("STATE_DIRECTORY", directory.path())
            .env_remove("PORTCULLIS_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        let mut gateway = Self { child, directory };
        let mut waited = Duration::ZERO;
        while !client::answers(&gateway.socket(), READY).await {
            if gateway.child.try_wait()?.is_some() || waited >= START {
                let said = fs::read_to_string(&log).unwrap_or_default();
                return Err(DrillError::Gateway(said.trim().to_owned()));
            }
            tokio::time::sleep(LOOK).await;
            waited += LOOK;
        }
        Ok(gateway)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket(self.directory.path())
    }

    /// Says that a scenario has these endpoints now: in the configuration or in their own file,
    /// which the gateway finds changed by itself, or to those who ask for their name.
    pub(crate) fn serve(
        &self,
        config: &mut Config,
        index: usize,
        endpoints: Vec<SocketAddr>,
    ) -> std::io::Result<()> {
        let (scenario, serving) = &mut config.backends[index];
        *serving = endpoints;
        match scenario.found {
            Found::Written => config.write(self.directory.path()),
            Found::File => config.write_list(self.directory.path(), index),
            Found::Dns => {
                config.names.set(scenario.name, &config.backends[index].1);
                Ok(())
            }
        }
    }
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("gateway.sock")
}

fn urls(endpoints: &[SocketAddr]) -> Vec<String> {
    endpoints.iter().map(|one| format!("http://{one}")).collect()
}

/// The name of a scenario's own file of endpoints.
fn list(scenario: &Scenario) -> String {
    format!("{}.yaml.list", scenario.name)
}

/// The file is old or new, never half written.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let next = path.with_extension("next");
    fs::write(&next, text)?;
    fs::rename(next, path)
}

/// What stands in the configuration: the scenarios, and which endpoints each has at the moment.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) backends: Vec<(&'static Scenario, Vec<SocketAddr>)>,
    pub(crate) names: NameServer,
}

impl Config {
    /// All of it, for a gateway that has not begun.
    fn write_all(&self, directory: &Path) -> std::io::Result<()> {
        for (index, (scenario, endpoints)) in self.backends.iter().enumerate() {
            match scenario.found {
                Found::Written => {}
                Found::File => self.write_list(directory, index)?,
                Found::Dns => self.names.set(scenario.name, endpoints),
            }
        }
        self.write(directory)
    }

    fn write(&self, directory: &Path) -> std::io::Result<()> {
        replace(&directory.join(CONFIG), &self.text(&socket(directory)))
    }

    fn write_list(&self, directory: &Path, index: usize) -> std::io::Result<()> {
        let (scenario, endpoints) = &self.backends[index];
        let text = format!("endpoints: {:?}\n", urls(endpoints));
        replace(&directory.join(list(scenario)), &text)
    }

    fn text(&self, socket: &Path) -> String {
        let (mut routes, mut backends) = (String::new(), String::new());
        for (scenario, endpoints) in &self.backends {
            let Scenario { name, route, backend, found, .. } = scenario;
            let found = match found {
                Found::Written => format!("endpoints: {:?}", urls(endpoints)),
                Found::File => format!("discover: {{ file: {} }}", list(scenario)),
                Found::Dns => {
                    // All have the same.
                    let port = endpoints.first().map_or(0, SocketAddr::port);
                    let server = self.names.address;
                    format!(
                        "discover: {{ dns: \"http://{}:{port}\", resolvers: [\"{server}\"], \
                         ttl_min: 1s }}",
                        names::full(name)
                    )
                }
            };
            // A string takes everything that is written to it.
            _ = writeln!(
                routes,
                "  {name}: {{ match: /{name}, public: \"a drill\", to: {name}{route} }}"
            );
            _ = writeln!(
                backends,
                "  {name}:\n    {found}\n    \
                 health: {{ path: {HEALTH}, interval: 1s, timeout: 1s }}{backend}"
            );
        }
        format!(
            "listeners:\n  drill: {{ bind: \"unix:{}\", shed: off }}\n\
             defaults:\n  timeout: 8s\n  retry: {{ attempts: 3 }}\n\
             routes:\n  ready: {{ match: {READY}, public: \"a drill\", respond: {{ status: 200 }} }}\n\
             {routes}backends:\n{backends}access_log: \"off\"\n",
            socket.display()
        )
    }
}
