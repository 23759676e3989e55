//! Examples of command lines. Each is parsed by a test.

/// What is typed, and what it does.
type Example = (&'static str, &'static str);

/// The first ones that somebody types.
pub const FIRST: &[Example] = &[
    ("mfserv dev shop", "run the app in shop/, and serve each edit"),
    ("mfserv deploy shop", "serve it from a release of its own"),
    ("mfserv status", "what runs, what fails and why"),
    ("mfserv logs -f shop", "its output as it comes"),
    ("mfserv rollback shop", "the release before, without losing a request"),
];

/// By command.
pub const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "start",
        &[
            ("mfserv start", "start the node, and wait until it runs"),
            ("mfserv start --set nginx.port=8080", "on another port, until it is stopped"),
            ("mfserv start shop.main", "start an app that `mfserv stop shop.main` has stopped"),
        ],
    ),
    (
        "stop",
        &[
            ("mfserv stop", "finish the requests, then stop everything"),
            ("mfserv stop shop.main", "stop one app"),
        ],
    ),
    (
        "restart",
        &[
            ("mfserv restart shop", "replace the workers of all apps of shop"),
            ("mfserv restart shop.main front", "those of one app, and the front"),
        ],
    ),
    (
        "maintenance",
        &[
            ("mfserv maintenance on shop --hold", "requests of shop wait until `off`"),
            ("mfserv maintenance on --page sorry.html", "that page in place of all apps"),
        ],
    ),
    (
        "reload",
        &[
            ("mfserv reload", "apply what has changed in the configuration"),
            ("mfserv reload --dry-run", "only show what would change"),
        ],
    ),
    (
        "run",
        &[
            ("mfserv run", "the node in the foreground"),
            ("mfserv run shop -- python manage.py migrate", "a command beside the app"),
        ],
    ),
    ("upgrade", &[("mfserv upgrade", "after a new mfserv was installed: let it run the node")]),
    (
        "scale",
        &[
            ("mfserv scale shop.main 8", "eight workers"),
            ("mfserv scale shop.main --reset", "as many as configured again"),
        ],
    ),
    (
        "status",
        &[
            ("mfserv status", "what runs, what fails and why"),
            ("mfserv status --watch 5", "again every five seconds"),
            ("mfserv status --json", "for scripts"),
        ],
    ),
    ("ps", &[("mfserv ps", "each worker: process, memory, CPU")]),
    (
        "logs",
        &[
            ("mfserv logs -f foo", "the log of a plugin as it comes"),
            (
                "mfserv logs foo --since 10m --level ERROR",
                "what went wrong in the last ten minutes",
            ),
            ("mfserv logs --grep 'order 4[0-9]+' -n 20", "the newest 20 lines with that text"),
            ("mfserv logs --request 01J8ZQ", "all about a request: the id is on each error page"),
            ("mfserv logs foo --last-crash", "what the worker that crashed last had to say"),
        ],
    ),
    ("metrics", &[("mfserv metrics | grep requests", "what was counted, as Prometheus reads it")]),
    (
        "top",
        &[
            ("mfserv top", "live; `?` shows the keys"),
            ("mfserv top --sort cpu --interval 1", "the busiest first, each second"),
        ],
    ),
    (
        "history",
        &[
            ("mfserv history", "the last hour of all apps"),
            ("mfserv history foo.main --since 1d", "all about one app"),
            ("mfserv history foo --since 10m --step 1s --json", "each second, for scripts"),
        ],
    ),
    ("alerts", &[("mfserv alerts", "which fire; exit code 1 while one does")]),
    (
        "jobs",
        &[
            ("mfserv jobs", "all jobs, and when each runs next"),
            ("mfserv jobs run shop.cleanup", "run one now"),
        ],
    ),
    ("events", &[("mfserv events -f", "starts, ends and their reasons, as they happen")]),
    ("operations", &[("mfserv operations", "what changed the node, by whom, and the outcome")]),
    (
        "wait",
        &[(
            "mfserv wait m5k2x9qf-3fa91c07",
            "wait for the operation of this id, and exit as it does",
        )],
    ),
    ("plan", &[("mfserv plan", "what a reload would change")]),
    ("check", &[("mfserv check", "exit code 0: a start or a reload would not be refused")]),
    (
        "config",
        &[
            ("mfserv config explain nginx.port", "where a value comes from"),
            ("mfserv config set nginx.port 8080", "write it into config/config.ini"),
        ],
    ),
    (
        "setup",
        &[
            ("mfserv setup", "make the base environment of Python"),
            ("mfserv setup --commands /opt/mfserv/bin", "the commands of MFSERV under their names"),
        ],
    ),
    ("new", &[("mfserv new --template python3_flask shop", "a plugin in shop/")]),
    ("build", &[("mfserv build shop", "its Python packages and node_modules")]),
    (
        "dev",
        &[
            ("mfserv dev shop", "until Ctrl-C"),
            ("mfserv dev shop --detach", "return as soon as it is served"),
        ],
    ),
    (
        "deploy",
        &[
            ("mfserv deploy shop", "build, pack, install and switch"),
            ("mfserv deploy shop --env-file shop.env --env MODE=fast", "with its variables"),
            ("mfserv deploy shop --as app.wsgi:application", "where several apps are possible"),
        ],
    ),
    ("init", &[("mfserv init shop", "write config.ini and what else a plugin has into shop/")]),
    (
        "release",
        &[
            ("mfserv release shop", "make shop-0.0.1-1.metwork.mfserv.plugin"),
            ("mfserv release shop --standalone", "for machines without a network"),
        ],
    ),
    (
        "install",
        &[("mfserv install shop-0.0.1-1.metwork.mfserv.plugin", "serve it, or its new release")],
    ),
    (
        "uninstall",
        &[
            ("mfserv uninstall shop", "its data and variables are kept"),
            ("mfserv uninstall shop --clean", "those go too"),
        ],
    ),
    (
        "hotswap",
        &[(
            "mfserv hotswap shop-0.0.2-1.metwork.mfserv.plugin",
            "the new release of what is there",
        )],
    ),
    ("releases", &[("mfserv releases shop", "what `mfserv rollback` can return to")]),
    ("rollback", &[("mfserv rollback shop", "return to the release before")]),
    ("repackage", &[("mfserv repackage shop", "a package with the configuration of this node")]),
    ("list", &[("mfserv list", "the installed plugins")]),
    (
        "info",
        &[
            ("mfserv info shop", "an installed plugin"),
            ("mfserv info shop-0.0.2-1.metwork.mfserv.plugin", "what its installation would do"),
        ],
    ),
    (
        "env",
        &[
            ("mfserv env shop", "what its programs see, for a shell"),
            ("mfserv env set shop DATABASE_URL=postgres://db/shop", "for this node"),
            (
                "mfserv env set shop SECRET_KEY --secret",
                "the value is asked for, and shown nowhere",
            ),
        ],
    ),
    ("exec", &[("mfserv exec shop pip list", "a command with the packages of shop, here")]),
    (
        "shell",
        &[
            ("mfserv shell shop.main", "python, manage.py shell, node or sh"),
            ("mfserv shell --sh shop.main", "sh, with the same variables"),
        ],
    ),
    (
        "open",
        &[
            ("mfserv open shop", "print where it answers, and open a browser"),
            ("mfserv open --print shop", "only print it"),
        ],
    ),
    (
        "ship",
        &[(
            "mfserv ship --to http://127.0.0.1:9200 '/var/log/shop/*.log'",
            "the lines of these files",
        )],
    ),
    ("completions", &[("mfserv completions bash", "a script that ~/.bashrc sources")]),
    ("man", &[("mfserv man /usr/local/share/man/man1", "write all pages there")]),
];
