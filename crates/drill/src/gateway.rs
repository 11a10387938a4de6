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
use crate::scenario::Scenario;

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
        config.write(directory.path())?;
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

    /// Gives it another configuration, which it finds by itself.
    pub(crate) fn reconfigure(&self, config: &Config) -> std::io::Result<()> {
        config.write(self.directory.path())
    }
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("gateway.sock")
}

/// What stands in the configuration: the scenarios, and which endpoints each has at the moment.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) backends: Vec<(&'static Scenario, Vec<SocketAddr>)>,
}

impl Config {
    /// The file is old or new, never half written.
    fn write(&self, directory: &Path) -> std::io::Result<()> {
        let next = directory.join("next");
        fs::write(&next, self.text(&socket(directory)))?;
        fs::rename(next, directory.join(CONFIG))
    }

    fn text(&self, socket: &Path) -> String {
        let (mut routes, mut backends) = (String::new(), String::new());
        for (scenario, endpoints) in &self.backends {
            let Scenario { name, route, backend, .. } = scenario;
            let urls: Vec<String> = endpoints.iter().map(|one| format!("http://{one}")).collect();
            // A string takes everything that is written to it.
            _ = writeln!(
                routes,
                "  {name}: {{ match: /{name}, public: \"a drill\", to: {name}{route} }}"
            );
            _ = writeln!(
                backends,
                "  {name}:\n    endpoints: {urls:?}\n    \
                 health: {{ path: {HEALTH}, interval: 1s, timeout: 1s }}{backend}"
            );
        }
        format!(
            "listeners:\n  drill: {{ bind: \"unix:{}\" }}\n\
             defaults:\n  timeout: 8s\n  retry: {{ attempts: 3 }}\n\
             routes:\n  ready: {{ match: {READY}, public: \"a drill\", respond: {{ status: 200 }} }}\n\
             {routes}backends:\n{backends}access_log: \"off\"\n",
            socket.display()
        )
    }
}
