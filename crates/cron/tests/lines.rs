//! The lines of a crontab: jobs, variables, comments, and what is wrong with them.

use mfserv_cron::{
    Crontab, DEFAULT_SHELL, MAX_ENTRIES, MAX_LINE, MAX_LINES, MAX_SETTINGS, Problem, Schedule,
    Severity,
};

use super::kit::{only_entry, only_problem};

#[test]
fn a_wrong_line_has_no_effect_and_the_others_have() {
    let text = "\
# A comment, and blank lines

  \t
   # indented
MAILTO=\"\"
0 25 * * * wrong hour
  5 4 * * sun\techo one
@daily echo two
* * * * * * echo six fields
@fortnightly x
0 0 30 2 * never
0 0 * * *
7 7 * * * echo last";
    let crontab = Crontab::parse(text);
    let jobs: Vec<(u32, &str, &str)> = crontab
        .entries
        .iter()
        .map(|entry| (entry.line, entry.schedule.as_str(), &*entry.command))
        .collect();
    assert_eq!(
        jobs,
        [
            (7, "5 4 * * sun", "echo one"),
            (8, "@daily", "echo two"),
            (11, "0 0 30 2 *", "never"),
            (13, "7 7 * * *", "echo last"),
        ]
    );
    let problems: Vec<_> = crontab
        .problems
        .iter()
        .map(|problem| (problem.line, problem.severity, problem.column, &*problem.what))
        .collect();
    assert_eq!(
        problems,
        [
            (6, Severity::Error, Some(3), "the hour 25 is wrong"),
            (9, Severity::Error, Some(11), "there are six fields"),
            (10, Severity::Error, Some(1), "@fortnightly is no schedule"),
            (11, Severity::Warning, Some(1), "0 0 30 2 * never runs"),
            (12, Severity::Error, Some(10), "the command is missing"),
        ]
    );
    assert_eq!(Crontab::parse(""), Crontab::default());
    assert!(Crontab::parse("\n\n# only\n").entries.is_empty());
}

#[test]
fn a_job_sees_the_variables_above_it() {
    let text = "\
A=1
PATH = /opt/bin:/bin
0 0 * * * first
A='2 '
SHELL=/bin/bash
HOME=/tmp
MAILTO=\"\"
@hourly second
A=3
";
    let crontab = Crontab::parse(text);
    assert_eq!(crontab.problems, []);
    let [first, second] = &crontab.entries[..] else { panic!("{crontab:?}") };
    let environment = |entry| crontab.environment(entry).into_iter().collect::<Vec<_>>();
    assert_eq!(environment(first), [("A", "1"), ("PATH", "/opt/bin:/bin")]);
    assert_eq!(crontab.shell(first), DEFAULT_SHELL);
    let expected = [
        ("A", "2 "),
        ("HOME", "/tmp"),
        ("MAILTO", ""),
        ("PATH", "/opt/bin:/bin"),
        ("SHELL", "/bin/bash"),
    ];
    assert_eq!(environment(second), expected);
    assert_eq!(crontab.shell(second), "/bin/bash");
}

#[test]
fn a_value_is_taken_with_or_without_quotes() {
    let cases = [
        ("A=b", "A", "b"),
        ("  A =  b c \t", "A", "b c"),
        ("A\t=\tb", "A", "b"),
        ("A=b # c", "A", "b # c"),
        ("A=\"  b  \"  ", "A", "  b  "),
        ("A=' b \"c'", "A", " b \"c"),
        ("A=\"\"", "A", ""),
        ("A=x\"y\"", "A", "x\"y\""),
        ("A==b", "A", "=b"),
        ("A=b=", "A", "b="),
        ("\"A\"=b", "A", "b"),
        ("'A B' = c", "A B", "c"),
        ("A=é", "A", "é"),
        ("A=\\%", "A", "\\%"),
        ("A='$HOME'", "A", "$HOME"),
        ("A=5$ and $5", "A", "5$ and $5"),
        ("A=a~/b ~c", "A", "a~/b ~c"),
        ("A='~/b'", "A", "~/b"),
    ];
    for (line, name, value) in cases {
        let crontab = Crontab::parse(&format!("{line}\n* * * * * true"));
        assert_eq!(crontab.problems, [], "{line}");
        let found = crontab.environment(&crontab.entries[0]);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [(name, value)], "{line}");
    }
}

#[test]
fn a_wrong_variable_says_where_why_and_what_to_do() {
    let cases = [
        ("=b", 1, "a variable has no name", "NAME=value"),
        (" =b", 2, "a variable has no name", "NAME=value"),
        ("A=\"b", 3, "the quote \" is not closed", "add \""),
        ("  A= 'b", 6, "the quote ' is not closed", "add '"),
        ("A=\"b' ", 3, "the quote \" is not closed", "add \""),
        ("A=\"b\" # c", 7, "there is more behind the value: # c", "own line"),
        ("A='b''c'", 6, "there is more behind the value: 'c'", "quotes of the other kind"),
        // No variable, and no schedule either.
        ("A B=c", 1, "the minute A is wrong", "write 0 to 59"),
        ("A", 1, "the minute A is wrong", "write 0 to 59"),
        ("'A=b'=c", 1, "the minute 'A=b'=c is wrong", "write 0 to 59"),
        ("export A=b", 1, "the minute export is wrong", "write 0 to 59"),
    ];
    for (line, column, what, help) in cases {
        let problem = only_problem(line);
        assert_eq!(problem.severity, Severity::Error, "{line}");
        assert_eq!((problem.column, &*problem.what), (Some(column), what), "{line}");
        assert!(problem.help.contains(help), "{line}: {problem:?}");
    }
}

#[test]
fn a_doubtful_line_is_obeyed_and_said() {
    let cases = [
        ("A=", "the value of A is empty", "write A=\"\""),
        ("A = ", "the value of A is empty", "write A=\"\""),
        ("LOGNAME=x", "LOGNAME has no effect", "remove the line"),
        ("CRON_TZ=UTC", "CRON_TZ does not change when jobs run", "in local time"),
        ("PATH=$HOME/bin:/bin", "PATH is set to $HOME/bin:/bin, with its $", "in full"),
        ("A=\"${B}\"", "A is set to ${B}, with its $", "in the command"),
        ("PATH=/bin:~/bin", "PATH is set to /bin:~/bin, with its ~", "in full"),
        ("A=~", "A is set to ~, with its ~", "in full"),
        ("0 0 * * * root true", "the command begins with a user", "remove the word"),
    ];
    for (line, what, help) in cases {
        let problem = only_problem(line);
        assert_eq!((problem.severity, &*problem.what), (Severity::Warning, what), "{line}");
        assert!(problem.help.contains(help), "{line}: {problem:?}");
    }
    let crontab = Crontab::parse("LOGNAME=x\nCRON_TZ=UTC\nA=\n@daily root x\n@daily root");
    assert_eq!(crontab.entries.len(), 2, "{crontab:?}");
    assert_eq!(&*crontab.entries[0].command, "root x");
    let environment: Vec<_> = crontab.environment(&crontab.entries[0]).into_iter().collect();
    assert_eq!(environment, [("A", ""), ("CRON_TZ", "UTC")]);
    assert_eq!(crontab.problems.len(), 4, "the command root alone is a program");
}

#[test]
fn carriage_returns_at_line_ends_are_no_part_of_the_lines_and_said_once() {
    let crontab = Crontab::parse("# a\nA=b\r\n* * * * * x%y\r\n\r\n@daily \r\n* * * * * z\r");
    let jobs: Vec<_> = crontab.entries.iter().map(|e| (&*e.command, &*e.input)).collect();
    assert_eq!(jobs, [("x", "y\n"), ("z", "")]);
    assert_eq!(crontab.environment(&crontab.entries[0])["A"], "b");
    let lines: Vec<_> = crontab.problems.iter().map(|p| (p.line, &*p.what)).collect();
    assert_eq!(lines, [(2, "the lines end in CR LF"), (5, "the command is missing")]);
}

#[test]
fn what_no_command_can_hold_is_refused() {
    let problem = only_problem("* * * * * a\0b");
    assert_eq!((problem.severity, problem.column), (Severity::Error, Some(12)));
    assert!(problem.what.contains("NUL"), "{problem:?}");
    assert_eq!(only_problem("A=\0").column, Some(3));
    assert_eq!(Crontab::parse("# \0").problems, [], "a comment may hold anything");
    // More than Debian's 998 characters, and no more than the bound.
    let line = |length: usize| {
        let schedule = "* * * * * ";
        format!("{schedule}{}", "x".repeat(length - schedule.len()))
    };
    assert_eq!(only_entry(&line(MAX_LINE)).0.len(), MAX_LINE - 10);
    let problem = only_problem(&line(MAX_LINE + 1));
    assert!(problem.why.contains("65536") && problem.what.contains("65537"), "{problem:?}");
}

#[test]
fn a_crontab_has_a_bound_of_lines() {
    let full = "# x\n".repeat(MAX_LINES as usize);
    assert_eq!(Crontab::parse(&full).problems, []);
    let crontab = Crontab::parse(&format!("{full}@daily y\n@daily z\n"));
    assert_eq!(crontab.entries.len(), 0);
    let [problem] = &crontab.problems[..] else { panic!("{:?}", crontab.problems) };
    assert_eq!((problem.line, problem.severity), (MAX_LINES + 1, Severity::Error));
}

#[test]
fn a_crontab_has_bounds_of_commands_and_assignments_and_says_so_once() {
    for (line, most) in [("@daily x\n", MAX_ENTRIES), ("A=1\n", MAX_SETTINGS)] {
        assert_eq!(Crontab::parse(&line.repeat(most)).problems, [], "{line}");
        let crontab = Crontab::parse(&format!("{}@hourly last\n", line.repeat(most + 3)));
        let [problem] = &crontab.problems[..] else { panic!("{:?}", crontab.problems) };
        assert_eq!((problem.line as usize, problem.severity), (most + 1, Severity::Error));
        assert!(problem.what.contains(&most.to_string()), "{problem:?}");
        assert_eq!(crontab.entries.len(), if line.starts_with('@') { most } else { 1 });
    }
}

#[test]
fn columns_count_characters_and_not_bytes() {
    assert_eq!(only_problem("é * * * * x").column, Some(1));
    let problems = Crontab::parse("1;é 99 * * * x").problems;
    assert_eq!(problems.iter().map(|p| p.column).collect::<Vec<_>>(), [Some(2), Some(5)]);
}

#[test]
fn a_schedule_is_saved_as_its_text() {
    for text in ["*/5 8-18 * * mon-fri", "@reboot", "*5 * * * *"] {
        let schedule: Schedule = text.parse().unwrap();
        let saved = serde_json::to_string(&schedule).unwrap();
        assert_eq!(saved, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Schedule>(&saved).unwrap(), schedule);
    }
    let error = serde_json::from_str::<Schedule>("\"61 * * * *\"").unwrap_err().to_string();
    assert!(error.contains("the minute 61 is wrong: 61 is not in 0 to 59"), "{error}");
}

#[test]
fn a_problem_is_found_wherever_it_is_among_others() {
    let crontab = Crontab::parse("*5 99 * * * x\n");
    let found: Vec<_> = crontab.problems.iter().map(|p: &Problem| (p.line, p.severity)).collect();
    assert_eq!(found, [(1, Severity::Warning), (1, Severity::Error)]);
}

#[test]
fn any_line_is_a_job_a_variable_a_comment_or_wrong() {
    const PARTS: &[&str] = &[
        " ",
        "\t",
        "*",
        "/",
        ",",
        "-",
        "0",
        "5",
        "31",
        "@",
        "%",
        "\\",
        "'",
        "\"",
        "=",
        "#",
        "a",
        "JAN",
        "é",
        "\r",
        "\0",
        "$",
        "~",
        " * ",
        " 1 ",
        "* * * * * ",
        "@daily ",
    ];
    let mut random = 3_u64;
    let mut below = |n: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) as usize % n
    };
    let mut jobs = 0;
    for _ in 0..30_000 {
        let line: String = (0..below(14)).map(|_| PARTS[below(PARTS.len())]).collect();
        let crontab = Crontab::parse(&format!("{line}\n@daily the next"));
        let next = crontab.entries.last().unwrap();
        assert_eq!((next.line, &*next.command), (2, "the next"), "{line:?}");
        let of_line = crontab.entries.len() - 1;
        let is_error = |problem: &&Problem| problem.severity == Severity::Error;
        let errors = crontab.problems.iter().filter(is_error).count();
        let sets = crontab.environment(next).len();
        let text = line.strip_suffix('\r').unwrap_or(&line).trim_start_matches([' ', '\t']);
        let is_nothing = text.is_empty() || text.starts_with('#');
        // LOGNAME is not among the parts.
        assert_eq!(of_line + errors + sets, usize::from(!is_nothing), "{line:?}: {crontab:?}");
        for problem in &crontab.problems {
            let column = problem.column.unwrap_or(1) as usize;
            assert!((1..=line.chars().count() + 1).contains(&column), "{line:?}: {problem:?}");
        }
        jobs += of_line;
        let again = |entry: &mfserv_cron::Entry| entry.schedule.as_str().parse::<Schedule>();
        let schedule = again(&crontab.entries[0]).unwrap();
        assert_eq!(schedule, crontab.entries[0].schedule, "{line:?}");
    }
    assert!(jobs > 300, "{jobs}");
}
