use super::*;

fn asked<'a>(prefix: &'a str, rest: &'a str, query: Option<&'a str>) -> Asked<'a> {
    Asked { prefix, rest, query: query.map(str::as_bytes) }
}

#[track_caller]
fn rules(text: &str) -> Redirects {
    let (rules, problems) = Redirects::parse(text.as_bytes());
    assert_eq!(problems, [], "{text}");
    rules
}

/// What a file does with a path, in words.
fn done(rules: &Redirects, asked: Asked<'_>) -> String {
    let Some(found) = rules.find(asked) else { return "nothing".into() };
    let force = if found.is_forced { "!" } else { "" };
    match found.action {
        Action::Redirect { status, location } => format!("{status}{force} {location}"),
        Action::Rewrite(file) => format!("200{force} {file}"),
        Action::NotFound(file) => format!("404{force} {file}"),
    }
}

const FILE_OF_A_SITE: &str = "\
# Comments, and blank lines.

/home              /
/old/*             /new/:splat          302   # a comment
/blog/:year/:slug  /posts/:slug-:year   308
/feed              https://feeds.example.org:8080/all?of=me#top
/out/*             https://example.org/:splat 307!
/search            /find?in=all         303
/caf%C3%A9         /coffee
/app/*             /app/index.html      200
/shop/:id          /products/:id.html   200!
/gone/*            /closed.html         404
";

#[test]
fn the_first_rule_that_takes_a_path_says_what_is_done() {
    let rules = rules(FILE_OF_A_SITE);
    for (path, query, expected) in [
        ("/home", None, "301 /"),
        ("/home/", Some("a=b"), "301 /?a=b"),
        ("/homes", None, "nothing"),
        ("/", None, "nothing"),
        ("/old", None, "302 /new/"),
        ("/old/a/b c", None, "302 /new/a/b%20c"),
        ("/blog/2026/hello", None, "308 /posts/hello-2026"),
        ("/blog/2026", None, "nothing"),
        ("/blog/2026/a/b", None, "nothing"),
        ("/feed", Some("x"), "301 https://feeds.example.org:8080/all?of=me#top"),
        ("/out/a?b/c", Some("q=<\"#"), "307! https://example.org/a%3Fb/c?q=%3C%22%23"),
        ("/search", Some("x"), "303 /find?in=all"),
        ("/café", None, "301 /coffee"),
        ("/app/users/7", None, "200 app/index.html"),
        ("/shop/7%2e", None, "200! products/7%2e.html"),
        ("/gone/x", None, "404 closed.html"),
    ] {
        assert_eq!(done(&rules, asked("", path, query)), expected, "{path}");
    }
}

#[test]
fn paths_of_rules_are_below_the_prefix_of_the_site() {
    let rules = rules("/a /b\n/x https://example.org/\n/* /index.html 200\n");
    for (prefix, path, expected) in [
        ("/site", "/a", "301 /site/b"),
        ("/my site", "/a", "301 /my%20site/b"),
        ("/site", "/x", "301 https://example.org/"),
        ("/site", "", "200 index.html"),
    ] {
        assert_eq!(done(&rules, asked(prefix, path, None)), expected, "{prefix}{path}");
    }
}

#[test]
fn nothing_that_a_client_sends_makes_a_redirect_lead_to_another_host() {
    let rules =
        rules("/r/* /:splat\n/n/:a /:a\n/u/* https://example.org/:splat\n/* /x:splat 302\n");
    for (path, expected) in [
        ("/r//evil.org", "301 /evil.org"),
        ("/r/\\evil.org", "301 /%5Cevil.org"),
        ("/r/https:/evil.org", "301 /https:/evil.org"),
        ("/r/\r\nSet-Cookie: a", "301 /%0D%0ASet-Cookie:%20a"),
        ("/n/\\\\evil.org", "301 /%5C%5Cevil.org"),
        ("/u/@evil.org", "301 https://example.org/@evil.org"),
        ("/u/\\@evil.org", "301 https://example.org/%5C@evil.org"),
        ("/r", "301 /"),
    ] {
        assert_eq!(done(&rules, asked("", path, None)), expected, "{path:?}");
    }
}

#[test]
fn a_rule_that_leads_to_the_path_itself_is_passed_over() {
    let rules = rules("/* /:splat\n/a/ /a\n/a%20b /a%20b/ 302\n/same /same?x=1\n/a /b\n");
    for (path, expected) in
        [("/a", "301 /b"), ("/a/", "301 /b"), ("/a b", "nothing"), ("/same", "nothing")]
    {
        assert_eq!(done(&rules, asked("", path, None)), expected, "{path}");
    }
}

#[test]
fn what_is_not_supported_is_named_with_its_line_and_the_rest_is_obeyed() {
    for (line, reason) in [
        ("/a", "/a leads nowhere"),
        ("/a 301", "301 is neither a path nor a URL"),
        ("a /b", "a does not begin with /"),
        ("/store id=:id /blog/:id 301", "rules for query parameters (id=:id)"),
        ("/a?x=1 /b", "/a?x=1 has a query"),
        ("/ /anz 302 Country=au,nz", "conditions (Country=au,nz)"),
        ("/ /de Language=de", "conditions (Language=de)"),
        ("https://old.example.org/* /:splat", "is a rule for a host"),
        ("/a /b 410", "\"410\" is no status of a rule"),
        ("/a /b 301 302", "\"302\" after the status"),
        ("/a*b /c", "has a * that is not all"),
        ("/a/*/b /c", "has a * that is not all"),
        ("/a*  /c", "has a * that is not all"),
        ("/a/: /c", "has a : without a name"),
        ("/a/:1 /c", "has a : without a name"),
        ("/a /b/:splat", "has :splat, which the path of the rule has not"),
        ("/a/:x /b/:y", "has :y, which"),
        ("/a //evil.org", "is taken by browsers for another host"),
        ("/a /\\evil.org", "has a backslash"),
        ("/a evil.org", "is neither a path nor a URL"),
        ("/a javascript://x", "is neither a path nor a URL"),
        ("/a/* https://:splat/", "has no plain host"),
        ("/a/* https://example.org:splat/", "has no plain host"),
        ("/a https://user@evil.org/", "has no plain host"),
        ("/a https:///b", "has no plain host"),
        ("/api/* https://api.example.org/:splat 200", "is another host"),
        ("/a /b?x 200", "names a file with a query"),
        ("/a /b%zz 200", "is no path of a file"),
        ("/a%zz /b", "is no path that a client can ask for"),
        ("/a%2fb /b", "is no path that a client can ask for"),
        ("/a/../b /c", "is no path that a client can ask for"),
    ] {
        let (rules, problems) = Redirects::parse(format!("/1 /2\n{line}\r\n/3 /4\n").as_bytes());
        let said: Vec<_> = problems.iter().map(|one| (one.line, one.reason.as_str())).collect();
        let [(2, why)] = said[..] else { panic!("{line}: {said:?}") };
        assert!(why.contains(reason), "{line}: {why}");
        assert!(!problems[0].help.is_empty());
        assert_eq!(done(&rules, asked("", "/3", None)), "301 /4", "{line}");
    }
    let (rules, problems) = Redirects::parse(b"\xef\xbb\xbf/a /b\n/\xff /c\n");
    assert_eq!((rules.rules.len(), problems[0].line), (1, 2));
}

#[test]
fn rules_and_lines_have_a_limit() {
    let line = |length: usize| format!("/a /{}\n", "b".repeat(length - 4));
    let (rules, problems) = Redirects::parse((line(LINE_MAX) + &line(LINE_MAX + 1)).as_bytes());
    assert_eq!((rules.rules.len(), problems.len(), problems[0].line), (1, 1, 2));
    let text: String = (0..RULES_MAX + 5).map(|number| format!("/{number} /x\n")).collect();
    let (rules, problems) = Redirects::parse(text.as_bytes());
    assert_eq!((rules.rules.len(), problems.len()), (RULES_MAX, 1), "one sentence, not five");
    assert_eq!(problems[0].line as usize, RULES_MAX + 1);
    let last = format!("/{}", RULES_MAX - 1);
    assert_eq!(done(&rules, asked("", &last, None)), "301 /x");
    // The line that is cut is not obeyed in half: /a is not sent to /b.
    let rule = "/a /bcd\n";
    let filled = "#".repeat(FILE_MAX - "\n/a /b".len());
    let (rules, problems) = Redirects::parse(format!("{filled}\n{rule}").as_bytes());
    assert!(rules.is_empty() && problems.len() == 1, "{problems:?}");
    assert!(problems[0].line == 2 && problems[0].reason.contains("the rest is not read"));
    let filled = "#\n".repeat((FILE_MAX - rule.len()) / 2) + rule;
    let (rules, problems) = Redirects::parse(filled.as_bytes());
    assert!(!rules.is_empty() && problems.is_empty());
}

/// Bytes of chance that look like rules and paths, the same in each run.
fn chance(state: &mut u64, length: u64, words: &[&str]) -> String {
    let mut next = |below: u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state % below
    };
    let count = next(length);
    (0..count).map(|_| words[next(words.len() as u64) as usize]).collect()
}

#[test]
fn whatever_rules_and_paths_are_no_location_is_another_host_or_breaks_a_head() {
    let of_targets = [
        "/", "/a", ":splat", ":x", "\\", "%2f", "%5c", "?", "#", "é", "..", "@", ":", "//", "h.org",
    ];
    let starts = ["/", "/a/", "https://h.org", "https://h.org/", "//", ""];
    let of_paths = ["/", "a", "\\", "//", "evil", "\r\n", "..", ":", "@", "é", "?", "%2f", " "];
    let (mut state, mut seen) = (0x9E37_79B9_7F4A_7C15, 0);
    for number in 0..20_000 {
        let from = ["/*", "/:x", "/:x/*", "/a/*"][number % 4];
        let to = format!("{}{}", starts[number % 6], chance(&mut state, 6, &of_targets));
        let (rules, _) = Redirects::parse(format!("{from} {to}\n").as_bytes());
        let path = format!("/a{}", chance(&mut state, 12, &of_paths));
        for prefix in ["", "/site"] {
            let found = rules.find(asked(prefix, &path, Some("q")));
            let Some(Found { action: Action::Redirect { location, .. }, .. }) = found else {
                continue;
            };
            seen += 1;
            let is_own = location.starts_with('/') && !location.starts_with("//");
            let named = location.strip_prefix("https://h.org");
            let host = named.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
            let is_named = host.is_some_and(|more| !more.contains("evil") && !more.contains('@'));
            assert!(is_own || is_named, "{location}");
            assert!(location.bytes().all(|b| b.is_ascii_graphic() && b != b'\\'), "{location}");
        }
    }
    assert!(seen > 500, "{seen} redirects were looked at");
}
