//! What a base environment has of ours.

/// Our own modules, by their path in site-packages. Python 2 has those of [`ALSO_OF_2`] only.
pub(super) const MODULES: &[(&str, &[u8])] = &[
    ("mfserv_wsgi.py", include_bytes!("../../python/modules/mfserv_wsgi.py")),
    ("mfserv_worker/__init__.py", include_bytes!("../../python/modules/mfserv_worker/__init__.py")),
    ("mfserv_worker/asgi.py", include_bytes!("../../python/modules/mfserv_worker/asgi.py")),
    ("mfserv_worker/child.py", include_bytes!("../../python/modules/mfserv_worker/child.py")),
    ("mfserv_worker/native.py", include_bytes!("../../python/modules/mfserv_worker/native.py")),
    (SERVER, include_bytes!(concat!(env!("OUT_DIR"), "/worker.so"))),
    (
        "aiohttp_metwork_middlewares/__init__.py",
        include_bytes!("../../python/modules/aiohttp_metwork_middlewares/__init__.py"),
    ),
    ("mfext/__init__.py", include_bytes!("../../python/modules/mfext/__init__.py")),
    ("mfext/mflog_addon.py", include_bytes!("../../python/modules/mfext/mflog_addon.py")),
];

/// The server of Python workers, the only large one.
const SERVER: &str = "_mfserv_worker.abi3.so";

/// The modules that Python 2 understands.
pub(super) const ALSO_OF_2: &[&str] =
    &["mfserv_wsgi.py", "mfext/__init__.py", "mfext/mflog_addon.py"];

/// Our own programs, by name.
pub(super) const PROGRAMS: &[(&str, &str)] = &[
    ("bjoern_wrapper.py", include_str!("../../python/bin/bjoern_wrapper.py")),
    ("mfserv_worker", include_str!("../../python/bin/mfserv_worker")),
];

/// What tells them from others: their text, and of the server, which is read at each build, what
/// the build script has made of it.
pub(super) fn identities<'a>() -> impl Iterator<Item = (&'a str, &'a [u8])> {
    let digest = env!("MFSERV_WORKER_DIGEST").as_bytes();
    let modules = MODULES.iter().map(move |(name, text)| -> (&'a str, &'a [u8]) {
        if *name == SERVER { (SERVER, digest) } else { (name, text) }
    });
    modules.chain(PROGRAMS.iter().map(|(name, text)| (*name, text.as_bytes())))
}
