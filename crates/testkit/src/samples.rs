//! The sample plugins, made from the real templates and built once per target directory.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

/// What the sample of Flask answers beside what its template does: it says which process
/// answers, takes bodies, takes its time, and logs one line per request that has an id.
/// It also says in its log how long it took from the start of its process until the app
/// was imported: `booted PID MILLISECONDS`.
const MORE_OF_FLASK: &str = r#"

@app.route("/sample_flask/count", methods=["GET", "POST"])
def count():
    from flask import request

    load_id = request.headers.get("X-Load-Id")
    if load_id:
        app.logger.info("handled %s %s", request.method, load_id)
    return request.get_data() or str(os.getpid())


@app.route("/sample_flask/slow/<int:ms>", methods=["GET", "POST"])
def slow(ms):
    import time

    time.sleep(ms / 1000)
    return str(os.getpid())


def say_how_long_it_took():
    import time

    with open("/proc/self/stat") as file:
        ticks = int(file.read().rsplit(")", 1)[1].split()[19])
    began = ticks / os.sysconf("SC_CLK_TCK")
    took = time.clock_gettime(time.CLOCK_BOOTTIME) - began
    app.logger.info("booted %d %d", os.getpid(), took * 1000)


say_how_long_it_took()
"#;

/// The longest path of a home that mfserv takes, bytes.
const LONGEST_HOME: usize = 75;

/// Built plugins and a base environment that nodes share.
#[derive(Debug, Clone)]
pub struct Samples {
    dir: PathBuf,
}

impl Samples {
    /// The samples of this build, made if they are not there; below `target`, or in the
    /// temporary directory if that path is too long. Only one process makes them.
    ///
    /// # Panics
    /// When they cannot be made: without them there is nothing to test.
    pub fn of(program: &Path, target: &Path) -> Samples {
        let mut dir = target.join("samples");
        if dir.as_os_str().len() + "/home".len() > LONGEST_HOME {
            let user = rustix::process::getuid().as_raw();
            dir = std::env::temp_dir().join(format!("mfserv-samples-{user}"));
        }
        fs::create_dir_all(&dir).expect("a directory for the samples");
        let samples = Samples { dir };
        let lock = fs::File::create(samples.dir.join("lock")).expect("the lock of the samples");
        flock(lock.as_fd(), FlockOperation::LockExclusive).expect("the samples' lock");
        samples.make(program);
        samples
    }

    fn make(&self, program: &Path) {
        self.mfserv(program, &self.dir, &["setup"]);
        self.plugin(program, "sample_static", "static", &|_| {});
        self.plugin(program, "sample_node", "node", &|_| {});
        self.plugin(program, "sample_flask", "python3_flask", &|dir| {
            change(&dir.join("main/wsgi.py"), |text| text + MORE_OF_FLASK);
        });
        self.plugin(program, "sample_wsgi", "python3_raw_wsgi", &|_| {});
        self.plugin(program, "sample_gunicorn", "python3_raw_wsgi", &|dir| {
            let sources = dir.join("python3_virtualenv_sources");
            change(&sources.join("requirements-to-freeze.txt"), |text| text + "gunicorn\n");
            change(&dir.join("config.ini"), |text| {
                let command = "gunicorn -b unix:{unix_socket_path} {app_name}.wsgi:application";
                let lines = text.lines().map(|line| match line.starts_with("_cmd_and_args=") {
                    true => format!("_cmd_and_args={command}\n"),
                    false => format!("{line}\n"),
                });
                lines.collect()
            });
        });
    }

    /// Makes and builds one, unless it is there and the same template made it.
    fn plugin(&self, program: &Path, name: &str, template: &str, adapt: &dyn Fn(&Path)) {
        let fresh = self.dir.join("fresh");
        let _ = fs::remove_dir_all(&fresh);
        fs::create_dir_all(&fresh).expect("a directory for a fresh plugin");
        self.mfserv(program, &fresh, &["new", "--no-input", "--template", template, name]);
        adapt(&fresh.join(name));
        let (known, live) = (self.dir.join("pristine").join(name), self.dir(name));
        if files(&known) != files(&fresh.join(name)) || !live.join("config.ini").exists() {
            for dir in [&known, &live] {
                let _ = fs::remove_dir_all(dir);
                copy(&fresh.join(name), dir);
            }
        }
        self.mfserv(program, &live, &["build"]);
    }

    fn mfserv(&self, program: &Path, cwd: &Path, args: &[&str]) {
        let mut command = Command::new(program);
        command.arg("--home").arg(self.dir.join("home")).args(args).current_dir(cwd);
        let output = command.output().expect("mfserv can be run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "mfserv {args:?}: {said}");
    }

    /// The directory of a sample: `sample_flask`, `sample_node`, `sample_static`,
    /// `sample_wsgi`, `sample_gunicorn`. It is shared: change a [`Samples::copy`].
    pub fn dir(&self, name: &str) -> PathBuf {
        self.dir.join("plugins").join(name)
    }

    /// A copy of a sample at another place, to be changed. Its environment is not copied.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn copy(&self, name: &str, to: &Path) {
        copy(&self.dir.join("pristine").join(name), to);
    }

    /// `var/base` with the base environments.
    pub fn base(&self) -> PathBuf {
        self.dir.join("home/var/base")
    }
}

fn change(path: &Path, edit: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(path).expect("a file of a template");
    fs::write(path, edit(text)).expect("a file of a sample");
}

/// Every file below a directory with what is in it.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => todo.push(path),
                false => {
                    let below = path.strip_prefix(dir).unwrap_or(&path).to_owned();
                    found.push((below, fs::read(&path).unwrap_or_default()));
                }
            }
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for (path, _) in files(from) {
        let target = to.join(&path);
        fs::create_dir_all(target.parent().unwrap_or(to)).expect("a directory of a copy");
        fs::copy(from.join(&path), target).expect("a copy of a file");
    }
}
