//! PHP, by a real php-fpm.

mod full_disk;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_testkit::{Load, Node, post, servers, until};

use crate::{Turn, node};

/// The longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the plugin's scripts do, by the name of the script.
const SCRIPTS: [(&str, &str); 11] = [
    (
        "env.php",
        "<?php foreach (['SCRIPT_NAME', 'PATH_INFO', 'QUERY_STRING', 'REQUEST_METHOD', 'REQUEST_URI', \
         'CONTENT_LENGTH', 'HTTP_COOKIE', 'HTTP_PROXY', 'HTTPS', 'REMOTE_ADDR', 'SERVER_NAME', 'SERVER_ADDR', 'SERVER_PROTOCOL', \
         'PHP_SELF', 'HTTP_X_REAL_IP', 'HTTP_X_FORWARDED_PROTO', 'HTTP_X_SSL_CLIENT_VERIFY', \
         'MFSERV_CURRENT_PLUGIN_NAME'] as $name) { echo $name, '=', $_SERVER[$name] ?? getenv($name), \
         \"\\n\"; }",
    ),
    ("upload.php", "<?php echo strlen(file_get_contents('php://input'));"),
    (
        "status.php",
        "<?php header('X-Own: yes'); header('Location: /elsewhere', true, 303); echo 'see';",
    ),
    ("sub/photo.jpg", "<?php echo 'ran';"),
    ("static/secret.php", "<?php echo 'password';"),
    // Goes on after the content that it announces, and is counted until then.
    (
        "after.php",
        "<?php ignore_user_abort(true); header('Content-Length: 2'); echo 'ok'; flush(); \
         while (!file_exists(getenv('MFSERV_CURRENT_PLUGIN_DATA_DIR') . '/go')) { usleep(10000); clearstatcache(); } \
         touch(getenv('MFSERV_CURRENT_PLUGIN_DATA_DIR') . '/went');",
    ),
    ("hang.php", "<?php sleep(600);"),
    ("flow.php", "<?php for ($i = 0; $i < 10; $i++) { echo $i; flush(); usleep(500000); }"),
    (
        "release.php",
        "<?php $own = basename(dirname(getcwd())); $run = getenv('MFSERV_CURRENT_PLUGIN_DIR'); \
         if ($own != basename($run)) { http_response_code(500); } echo $own, ' ', $run;",
    ),
    ("pid.php", "<?php usleep(20000); echo 'done';"),
    ("sub/index.php", "<?php for ($i = 0; $i < 400; $i++) { echo str_repeat('b', 10000); }"),
];

/// The php-fpm of Debian as a program of the plugin; `None`, with the reason, where it is not to
/// be had.
fn bring_php(dir: &Path) -> Option<()> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = servers::of_debian(target, "php8.2-fpm", "usr/sbin/php-fpm8.2")?;
    let below = ["libargon2-1", "libapparmor1", "libsodium23", "libxml2", "libicu72"];
    let libraries: Option<Vec<PathBuf>> =
        below.iter().map(|package| servers::of_debian(target, package, "usr/lib")).collect();
    let of_machine = |dir: &PathBuf| fs::read_dir(dir).unwrap().flatten().map(|it| it.path());
    let libraries: Vec<String> = libraries?
        .iter()
        .flat_map(of_machine)
        .map(|dir| dir.to_string_lossy().into_owned())
        .collect();
    let script = dir.join("bin/php-fpm");
    fs::create_dir_all(dir.join("bin")).unwrap();
    let libraries = libraries.join(":");
    let text =
        format!("#!/bin/sh\nLD_LIBRARY_PATH='{libraries}' exec '{}' \"$@\"\n", program.display());
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    Some(())
}

/// The directory of a plugin of the template with its own php-fpm and these scripts; `None`, with
/// the reason, where that is not to be had.
fn shop(node: &Node, scripts: &[(&str, &str)]) -> Option<PathBuf> {
    let work = node.path("work");
    fs::create_dir_all(&work).unwrap();
    let dir = work.join("shop");
    let mut new = node.command(&["new", "--template", "php", "--no-input", "shop"]);
    assert!(new.current_dir(&work).status().unwrap().success());
    bring_php(&dir)?;
    for (name, text) in scripts {
        let file = dir.join("main").join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    Some(dir)
}

#[test]
fn a_plugin_of_php_is_made_released_and_served_by_php_fpm() {
    let _turn = Turn::heavy();
    let node = node();
    let Some(dir) = shop(&node, &SCRIPTS) else { return };
    // Not in UTF-8, and with a net for scripts that hang which is quicker than that of `php_wrapper`.
    let own = b"; d\xe9j\xe0 vu\npm.max_children = 3\nrequest_terminate_timeout = 8s\n";
    fs::write(dir.join("php-fpm.conf"), own).unwrap();
    let config = dir.join("config.ini");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replacen("\ntimeout=0", "\ntimeout=4", 1)).unwrap();
    node.start();
    let package = crate::install::release(&node, &dir);
    node.mfserv(&["install", &package.to_string_lossy()]).code(0);
    answers_as_cgi_says(&node);
    faults_are_answered(&node);
    work_after_the_answer_holds_one_of_as_many_slots_as_php_fpm_has_processes(&node);
    a_script_that_hangs_is_ended_and_one_whose_answer_flows_is_not(&node);
    a_php_fpm_that_is_killed_fails_no_request(&node);
    a_new_release_loses_no_request(&node, &dir);
    node.stop();
}

/// What comes until the front closes the connection.
fn ask(node: &Node, request: &str) -> String {
    let mut stream = TcpStream::connect(node.address()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn answers_as_cgi_says(node: &Node) {
    let answer = node.get("/shop");
    assert_eq!((answer.status, answer.text().trim()), (200, "Hello world !"));
    // PHP makes the same variable of a dot, a blank and `-`.
    let forged =
        "X-Real.IP: 6.6.6.6\r\nX-Forwarded.Proto: https\r\nX.SSL-Client-Verify: SUCCESS\r\n";
    let fields = format!("Cookie: a=1\r\nCookie: b=2\r\nProxy: evil\r\n{forged}");
    let text = ask(
        node,
        &format!(
            "GET /shop/main/env.php/more/path?q=1&r HTTP/1.1\r\nHost: a.example:81\r\n{fields}Connection: close\r\n\r\n"
        ),
    );
    for line in [
        "SCRIPT_NAME=/shop/main/env.php",
        "PATH_INFO=/more/path",
        "QUERY_STRING=q=1&r",
        "REQUEST_METHOD=GET",
        "REQUEST_URI=/shop/main/env.php/more/path?q=1&r",
        "CONTENT_LENGTH=",
        "HTTP_COOKIE=a=1; b=2",
        "HTTP_PROXY=",
        "HTTPS=",
        "REMOTE_ADDR=127.0.0.1",
        "SERVER_NAME=a.example",
        "PHP_SELF=/shop/main/env.php/more/path",
        "HTTP_X_REAL_IP=127.0.0.1",
        "HTTP_X_FORWARDED_PROTO=http",
        "HTTP_X_SSL_CLIENT_VERIFY=",
        "MFSERV_CURRENT_PLUGIN_NAME=shop",
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line}: {text}");
    }
    // More parameters than one record of FastCGI has.
    let long = "x".repeat(25_000);
    assert_eq!(node.get(&format!("/shop/env.php?{long}")).status, 200);
    // In memory, as several records, and in a file.
    for size in [0_usize, 5, 65_536, 3_000_000] {
        let answer = post(node.address(), "/shop/upload.php", &vec![b'u'; size]).unwrap();
        assert_eq!((answer.status, answer.text()), (200, size.to_string()));
    }
    let answer = node.get("/shop/sub/");
    assert_eq!((answer.status, answer.text().len()), (200, 4_000_000));
    let text = ask(node, "HEAD /shop/sub HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("\r\n\r\n"), "{text}");
    let text = ask(node, "GET /shop/status.php HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 303") && text.contains("Location: /elsewhere"), "{text}");
    assert!(text.contains("X-Own: yes"), "{text}");
}

fn faults_are_answered(node: &Node) {
    assert_eq!(
        node.get("/shop/static/secret.php").status,
        404,
        "the text of a script is not shown"
    );
    let text = ask(node, "GET /shop/env.php HTTP/1.0\r\n\r\n");
    // nginx asks the front behind it with HTTP/1.1 and a Host, whatever its client does.
    let (protocol, name) = match std::env::var_os(crate::nginx::FRONT) {
        Some(_) => ("SERVER_PROTOCOL=HTTP/1.1", "SERVER_NAME=localhost"),
        None => ("SERVER_PROTOCOL=HTTP/1.0", "SERVER_NAME=127.0.0.1"),
    };
    for line in [protocol, name, "SERVER_ADDR=127.0.0.1"] {
        assert!(text.contains(&format!("{line}\n")), "{line}: {text}");
    }
    assert_eq!(node.get("/shop/none.php").status, 404, "php-fpm says that there is no such file");
    let upload = node.get("/shop/sub/photo.jpg/x.php");
    assert!(upload.status >= 400 && !upload.text().contains("ran"), "{}", upload.text());
    assert_eq!(node.get("/shop/%2e%2e/%2e%2e/etc/passwd").status, 400);
}

fn work_after_the_answer_holds_one_of_as_many_slots_as_php_fpm_has_processes(node: &Node) {
    let own = fs::read(node.path("tmp/config_auto/php-fpm.app_shop_main_1.conf")).unwrap();
    let own = String::from_utf8_lossy(&own);
    assert!(own.ends_with("[www]\npm.max_children = 3\n"), "{own}");
    for _ in 0..3 {
        assert_eq!(node.get("/shop/after.php").text(), "ok");
    }
    let plan = fs::read_to_string(node.path("var/run/plan.json")).unwrap();
    assert!(plan.contains("\"per_worker\":3"), "{plan}");
    fs::write(node.path("var/data/shop/go"), "").unwrap();
    until("what followed the answer was done", PATIENCE, || {
        node.path("var/data/shop/went").exists()
    });
}

fn a_script_that_hangs_is_ended_and_one_whose_answer_flows_is_not(node: &Node) {
    std::thread::scope(|scope| {
        // It takes longer than `timeout`, and is never silent for so long.
        let flows = scope.spawn(|| node.get("/shop/flow.php").text());
        let answer = node.get("/shop/hang.php");
        assert_eq!((answer.status, answer.field("x-mfserv-cause")), (504, Some("timeout")));
        assert_eq!(flows.join().unwrap(), "0123456789");
    });
    let ended = |line: &String| line.contains("execution timed out");
    until("php-fpm ends the script", PATIENCE, || {
        node.log_lines("app_shop_main").iter().any(ended)
    });
}

fn a_php_fpm_that_is_killed_fails_no_request(node: &Node) {
    let load = Load::new(node.address(), "/shop/pid.php").connections(6).start();
    for _ in 0..3 {
        load.answers(20);
        let before = node.pids("app.shop.main");
        before.iter().for_each(|pid| node.kill(*pid));
        until("another one is there", PATIENCE, || {
            let now = node.pids("app.shop.main");
            !now.is_empty() && now.iter().all(|pid| !before.contains(pid))
        });
    }
    load.stop().assert_nothing_failed();
}

fn a_new_release_loses_no_request(node: &Node, dir: &Path) {
    let file = dir.join("main/index.php");
    fs::write(&file, "<?php echo 'the second';").unwrap();
    let config = dir.join("config.ini");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replacen("_release=1", "_release=2", 1)).unwrap();
    let package = crate::install::release(node, dir);
    // Each worker runs the scripts of its own release.
    let load = Load::new(node.address(), "/shop").also("/shop/release.php").start();
    node.mfserv(&["install", &package.to_string_lossy()]).code(0);
    assert_eq!(node.get("/shop").text().trim(), "the second");
    load.stop().assert_nothing_failed();
}
