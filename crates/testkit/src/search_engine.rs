//! Real Elasticsearch and OpenSearch, from their Java archives, for tests of shipping.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::port::free_port;
use crate::{get, until};

/// One Java virtual machine at a time: each takes half a gigabyte.
static TURN: Mutex<()> = Mutex::new(());

/// How long one may take to start on a busy machine.
const START: Duration = Duration::from_secs(180);

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Elasticsearch 7.17.
    Elasticsearch,
    /// OpenSearch 2.19, which has data streams.
    OpenSearch,
}

impl Engine {
    fn package(self) -> &'static str {
        match self {
            Engine::Elasticsearch => "elasticsearch",
            Engine::OpenSearch => "opensearch",
        }
    }

    fn versions(self) -> (&'static str, &'static str) {
        match self {
            Engine::Elasticsearch => ("7.17.28", "2.17.1"),
            Engine::OpenSearch => ("2.19.6", "2.25.4"),
        }
    }

    /// The archives and the launcher, below a directory that is kept between runs.
    ///
    /// # Errors
    /// Why this machine cannot have them.
    fn prepare(self, cache: &Path) -> Result<PathBuf, String> {
        let (package, (version, log4j)) = (self.package(), self.versions());
        let dir = cache.join(format!("{package}-{version}"));
        if dir.join("ready").exists() {
            return Ok(dir);
        }
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let dependency = |group: &str, name: &str, version: &str| {
            format!(
                "<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId>\
                 <version>{version}</version></dependency>"
            )
        };
        let dependencies = [
            dependency(&format!("org.{package}"), package, version),
            dependency(&format!("org.{package}.plugin"), "transport-netty4-client", version),
            dependency("org.apache.logging.log4j", "log4j-core", log4j),
        ];
        let pom = format!(
            "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0\
             </modelVersion><groupId>test</groupId><artifactId>test</artifactId><version>1\
             </version><dependencies>{}</dependencies></project>",
            dependencies.concat()
        );
        std::fs::write(dir.join("pom.xml"), pom).unwrap();
        let launcher = include_str!("../java/Launcher.java").replace("PACKAGE", package);
        std::fs::write(dir.join("Launcher.java"), launcher).unwrap();
        let copy = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies";
        run(&dir, "mvn", &["-q", "-B", copy, "-DoutputDirectory=lib"])?;
        run(&dir, "javac", &["-cp", "lib/*", "-d", "classes", "Launcher.java"])?;
        std::fs::write(dir.join("ready"), "").unwrap();
        Ok(dir)
    }
}

fn run(dir: &Path, program: &str, args: &[&str]) -> Result<(), String> {
    let ran = Command::new(program).args(args).current_dir(dir).output();
    match ran {
        Err(e) => Err(format!("{program} cannot be run: {e}")),
        Ok(ran) if !ran.status.success() => {
            let text = String::from_utf8_lossy(&ran.stdout).into_owned();
            let error = String::from_utf8_lossy(&ran.stderr).into_owned();
            Err(format!("{program} failed: {text}{error}"))
        }
        Ok(_) => Ok(()),
    }
}

/// A running one. It ends when it is dropped.
pub struct SearchEngine {
    engine: Engine,
    archives: PathBuf,
    home: PathBuf,
    ports: (u16, u16),
    settings: Vec<String>,
    child: Option<Child>,
    _turn: MutexGuard<'static, ()>,
}

impl SearchEngine {
    /// Starts one with a fresh home, and waits until it answers. `None`, with the reason on
    /// standard error, on a machine without Java, Maven or the archives.
    pub fn start(
        engine: Engine,
        cache: &Path,
        home: &Path,
        settings: &[&str],
    ) -> Option<SearchEngine> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let archives = match engine.prepare(cache) {
            Ok(archives) => archives,
            Err(why) => {
                crate::skipped(&format!("{engine:?} is not to be had here: {why}"));
                return None;
            }
        };
        let mut engine = SearchEngine {
            engine,
            archives,
            home: home.to_owned(),
            ports: (free_port(), free_port()),
            settings: settings.iter().map(ToString::to_string).collect(),
            child: None,
            _turn: turn,
        };
        engine.start_again();
        Some(engine)
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports.0))
    }

    /// Kills it, whatever it is doing.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it on the same home and ports, and waits until it answers.
    pub fn start_again(&mut self) {
        std::fs::create_dir_all(&self.home).unwrap();
        let log = File::create(self.home.join("output.log")).unwrap();
        let mut java = Command::new("java");
        java.args(["-Xms256m", "-Xmx256m", "-XX:+UseSerialGC", "-Dlog4j2.disable.jmx=true"])
            .args(["-cp", "classes:lib/*", "Launcher"])
            .arg(&self.home)
            .arg(format!("http.port={}", self.ports.0))
            .arg(format!("transport.port={}", self.ports.1))
            .args(&self.settings)
            .current_dir(&self.archives)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let mut child = java.spawn().unwrap();
        until(&format!("{:?} answers", self.engine), START, || {
            let ended = child.try_wait().unwrap();
            let log = || std::fs::read_to_string(self.home.join("output.log")).unwrap();
            assert!(ended.is_none(), "it ended: {}", log());
            get(self.address(), "/_cluster/health").is_ok_and(|answer| answer.status == 200)
        });
        self.child = Some(child);
    }

    /// Asks with `curl`; the answer as JSON.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let url = format!("http://{}{path}", self.address());
        let mut curl = Command::new("curl");
        curl.args(["-s", "-X", method, "-H", "Content-Type: application/json", &url]);
        if let Some(body) = body {
            curl.args(["-d", &body.to_string()]);
        }
        let answer = curl.output().unwrap().stdout;
        serde_json::from_slice(&answer).unwrap_or_else(|e| {
            panic!("{method} {path}: {e}: {}", String::from_utf8_lossy(&answer))
        })
    }

    /// The values of a number field in some indices, and how many documents there are.
    pub fn numbers(&self, indices: &str, field: &str) -> (BTreeSet<u64>, u64) {
        self.ask("POST", &format!("/{indices}/_refresh"), None);
        let mut values = BTreeSet::new();
        let mut after = Value::Null;
        loop {
            let mut query = json!({"size": 10_000, "_source": false, "sort": [{field: "asc"}]});
            if !after.is_null() {
                query["search_after"] = after;
            }
            let answer = self.ask("POST", &format!("/{indices}/_search"), Some(&query));
            let hits = answer["hits"]["hits"].as_array().expect("hits");
            let Some(last) = hits.last() else { break };
            values.extend(hits.iter().map(|hit| hit["sort"][0].as_u64().expect("a number")));
            after = last["sort"].clone();
        }
        let count = self.ask("GET", &format!("/{indices}/_count"), None);
        (values, count["count"].as_u64().expect("a count"))
    }
}

impl Drop for SearchEngine {
    fn drop(&mut self) {
        self.kill();
    }
}
